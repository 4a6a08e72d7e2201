//! Multipart uploads over HTTP.

use bytes::Bytes;

use super::client::{Answer, Server};

const PART: usize = 5 << 20;

fn bytes(fill: u8) -> Bytes {
    Bytes::from(vec![fill; PART])
}

async fn begin(server: &Server) -> String {
    let begun = server
        .request("POST", "/bucket/big")
        .query("uploads", "")
        .send()
        .await;
    begun.element("UploadId").unwrap()
}

async fn part(server: &Server, upload: &str, number: &str, body: impl Into<Bytes>) -> Answer {
    let call = server
        .request("PUT", "/bucket/big")
        .query("partNumber", number)
        .query("uploadId", upload);
    call.body(body).payload("UNSIGNED-PAYLOAD").send().await
}

async fn complete(server: &Server, upload: &str, parts: &[(u32, String)]) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        })
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let call = server
        .request("POST", "/bucket/big")
        .query("uploadId", upload);
    call.body(body).send().await
}

fn tag(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("etag").unwrap().to_owned()
}

#[tokio::test]
async fn parts_become_an_object() {
    let server = Server::with_bucket().await;
    let upload = begin(&server).await;
    let one = tag(&part(&server, &upload, "1", bytes(1)).await);
    let three = tag(&part(&server, &upload, "3", "tail").await);
    let listed = server
        .request("GET", "/bucket/big")
        .query("uploadId", &upload)
        .query("max-parts", "1");
    let listed = listed.send().await;
    assert_eq!(listed.elements("PartNumber"), ["1"]);
    assert_eq!(listed.element("IsTruncated").as_deref(), Some("true"));
    assert_eq!(listed.element("NextPartNumberMarker").as_deref(), Some("1"));

    complete(&server, &upload, &[])
        .await
        .refused(400, "MalformedXML");
    complete(&server, &upload, &[(3, three.clone()), (1, one.clone())])
        .await
        .refused(400, "InvalidPartOrder");
    complete(&server, &upload, &[(1, three.clone())])
        .await
        .refused(400, "InvalidPart");
    let parts = [(1, one), (3, three)];
    let done = complete(&server, &upload, &parts).await;
    assert_eq!(done.status, 200, "{done:?}");
    let etag = done.element("ETag").unwrap();
    assert!(etag.contains("-2"), "{etag}");
    let location = format!("http://{}/bucket/big", server.address);
    assert_eq!(done.element("Location"), Some(location));
    // A repeat of the same request is answered the same.
    assert_eq!(
        complete(&server, &upload, &parts).await.element("ETag"),
        Some(etag)
    );

    let head = server
        .request("HEAD", "/bucket/big")
        .query("partNumber", "3")
        .send()
        .await;
    assert_eq!(head.status, 206, "{head:?}");
    assert_eq!(head.header("x-amz-mp-parts-count"), Some("2"));
    assert_eq!(
        head.header("content-range"),
        Some("bytes 5242880-5242883/5242884")
    );
    let tail = server
        .request("GET", "/bucket/big")
        .query("partNumber", "3")
        .send()
        .await;
    assert_eq!(tail.text(), "tail");
    let across = server
        .request("GET", "/bucket/big")
        .header("range", "bytes=-6")
        .send()
        .await;
    assert_eq!(&across.body[..], b"\x01\x01tail");
}

#[tokio::test]
async fn uploads_end_and_bounds_hold() {
    let server = Server::with_bucket().await;
    let upload = begin(&server).await;
    for number in ["0", "10001", "-1"] {
        part(&server, &upload, number, "x")
            .await
            .refused(400, "InvalidArgument");
    }
    let unknown = "0123456789abcdef0123456789abcdef";
    part(&server, unknown, "1", "x")
        .await
        .refused(404, "NoSuchUpload");
    part(&server, "../../etc", "1", "x")
        .await
        .refused(404, "NoSuchUpload");
    // ATTACKS 80: more parts than S3 takes.
    let many: Vec<(u32, String)> = (1..=10_001).map(|n| (n, "\"0\"".to_owned())).collect();
    complete(&server, &upload, &many)
        .await
        .refused(400, "MalformedXML");
    let uploads = server
        .request("GET", "/bucket")
        .query("uploads", "")
        .send()
        .await;
    assert_eq!(uploads.elements("UploadId"), std::slice::from_ref(&upload));
    let abort = || {
        server
            .request("DELETE", "/bucket/big")
            .query("uploadId", &upload)
            .send()
    };
    assert_eq!(abort().await.status, 204);
    abort().await.refused(404, "NoSuchUpload");
}

#[tokio::test]
async fn small_parts_are_refused_at_the_end() {
    let server = Server::with_bucket().await;
    let upload = begin(&server).await;
    let one = tag(&part(&server, &upload, "1", "small").await);
    let two = tag(&part(&server, &upload, "2", "small too").await);
    complete(&server, &upload, &[(1, one), (2, two)])
        .await
        .refused(400, "EntityTooSmall");
}

#[tokio::test]
async fn parts_are_copied_from_objects() {
    let server = Server::with_bucket().await;
    server.put("/bucket/source", b"0123456789").await;
    let upload = begin(&server).await;
    let copy = |range: &str| {
        server
            .request("PUT", "/bucket/big")
            .query("partNumber", "1")
            .query("uploadId", &upload)
            .header("x-amz-copy-source", "bucket/source")
            .header("x-amz-copy-source-range", range)
            .send()
    };
    let copied = copy("bytes=2-5").await;
    assert_eq!(copied.status, 200, "{copied:?}");
    let etag = copied.element("ETag").unwrap().replace("&quot;", "\"");
    copy("bytes=2-10").await.refused(400, "InvalidArgument");
    assert_eq!(complete(&server, &upload, &[(1, etag)]).await.status, 200);
    assert_eq!(server.get("/bucket/big").await.text(), "2345");
}

#[tokio::test]
async fn attributes_are_told_by_name() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    // One header a value, in another order than they are signed in.
    let asked = server
        .request("GET", "/bucket/key")
        .query("attributes", "")
        .header("x-amz-object-attributes", "ObjectSize")
        .header("x-amz-object-attributes", "ETag");
    let answer = asked.send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.element("ObjectSize").as_deref(), Some("5"));
    assert_eq!(
        answer.element("ETag").as_deref(),
        Some("5d41402abc4b2a76b9719d911017c592")
    );
    assert_eq!(answer.element("StorageClass"), None);
}

#[tokio::test]
async fn the_location_is_how_the_client_reached_it() {
    let server = Server::with_bucket().await;
    let host = format!("bucket.s3.test:{}", server.address.port());
    let call = |method: &str| {
        let mut call = server.request(method, "/a b+c");
        call.headers[0].1.clone_from(&host);
        call
    };
    let begun = call("POST").query("uploads", "").send().await;
    let upload = begun.element("UploadId").unwrap();
    let put = call("PUT")
        .query("partNumber", "1")
        .query("uploadId", &upload)
        .body("x");
    let etag = tag(&put.send().await);
    let body = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let done = call("POST").query("uploadId", &upload).body(body);
    let location = format!("http://{host}/a%20b%2Bc");
    assert_eq!(done.send().await.element("Location"), Some(location));
}
