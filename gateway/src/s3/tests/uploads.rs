//! Uploads over HTTP: how they are listed, whose they are, and their bounds.

use shardgate_catalog::model::UploadPartRow;
use shardgate_wire::VersionUid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Answer, Call, Server};
use super::signer::UNSIGNED;
use crate::object::BucketAt;

const PART: u64 = 5 << 20;
const MOST: u64 = 5 << 30;

async fn begin(server: &Server, path: &str) -> String {
    let begun = server.request("POST", path).query("uploads", "");
    begun.send().await.element("UploadId").unwrap()
}

/// Every page of a listing of uploads: keys with ids, and common prefixes.
async fn pages(server: &Server, size: &str, more: &[(&str, &str)]) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let (mut key, mut id) = (String::new(), String::new());
    loop {
        let mut call = server.request("GET", "/bucket").query("uploads", "");
        call = call.query("max-uploads", size);
        for (name, value) in more
            .iter()
            .chain(&[("key-marker", &*key), ("upload-id-marker", &*id)])
        {
            call = call.query(name, value);
        }
        let page = call.send().await;
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(page.element("MaxUploads").as_deref(), Some(size));
        assert_eq!(page.element("KeyMarker").unwrap_or_default(), key);
        let (keys, ids) = (page.elements("Key"), page.elements("UploadId"));
        let uploads = keys.iter().zip(&ids).map(|(key, id)| format!("{key} {id}"));
        let prefixes = page.elements("CommonPrefixes").into_iter();
        let prefixes = prefixes.map(|text| text.replace("<Prefix>", "").replace("</Prefix>", ""));
        pages.push(uploads.chain(prefixes).collect());
        if page.element("IsTruncated").as_deref() == Some("false") {
            assert_eq!(page.element("NextKeyMarker"), None);
            return pages;
        }
        key = page.element("NextKeyMarker").unwrap();
        id = page.element("NextUploadIdMarker").unwrap_or_default();
        assert!(pages.len() < 20, "{pages:?}");
    }
}

#[tokio::test]
async fn uploads_are_listed_in_pages() {
    let server = Server::with_bucket().await;
    let mut all = Vec::new();
    for key in ["a", "a", "a", "b/1", "b/2", "c", "c/d/e"] {
        all.push(format!(
            "{key} {}",
            begin(&server, &format!("/bucket/{key}")).await
        ));
    }
    // By key, and of one key in the order in which they began.
    for size in [1, 2, 3, 7, 1000] {
        let pages = pages(&server, &size.to_string(), &[]).await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == size));
        assert_eq!(pages.concat(), all, "pages of {size}");
    }
    let mut folders = all.clone();
    folders.splice(3..5, ["b/".to_owned()]);
    folders[5] = "c/".to_owned();
    for size in ["1", "2", "4", "6"] {
        // Of one page uploads are read before common prefixes.
        let mut pages = pages(&server, size, &[("delimiter", "/")]).await;
        pages.iter_mut().for_each(|page| page.sort());
        assert_eq!(pages.concat(), folders, "pages of {size}");
    }
    let below = pages(&server, "1", &[("delimiter", "/"), ("prefix", "c")]).await;
    assert_eq!(below.concat(), folders[4..]);
    let list = |marker: &str, id: &str| {
        let call = server.request("GET", "/bucket").query("uploads", "");
        call.query("key-marker", marker)
            .query("upload-id-marker", id)
            .send()
    };
    // An id counts only beside a key.
    let first = list("", all[1].split(' ').next_back().unwrap()).await;
    assert_eq!(first.elements("Key").len(), all.len());
    let behind = list("a", "").await;
    assert_eq!(
        behind.elements("Key")[0],
        "b/1",
        "all of the key are passed"
    );
    let negative = server.request("GET", "/bucket").query("uploads", "");
    let negative = negative.query("max-uploads", "-1").send().await;
    negative.refused(400, "InvalidArgument");
}

// ATTACKS 45: an upload is of its bucket and its key.
#[tokio::test]
async fn an_upload_id_is_of_one_key_in_one_bucket() {
    let server = Server::with_bucket().await;
    server.put("/other-bucket", b"").await;
    server.put("/bucket/source", b"0123456789").await;
    let upload = begin(&server, "/bucket/big").await;
    let part = |path: &str| {
        let call = server.request("PUT", path).query("partNumber", "1");
        call.query("uploadId", &upload)
    };
    let put = part("/bucket/big").body("right").send().await;
    let etag = put.header("etag").unwrap().to_owned();
    for path in ["/bucket/other", "/other-bucket/big", "/bucket/big/"] {
        let on = |method: &str| server.request(method, path).query("uploadId", &upload);
        let parts = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
        );
        for call in [
            part(path).body("wrong"),
            part(path).header("x-amz-copy-source", "bucket/source"),
            on("GET"),
            on("POST").body(parts),
            on("DELETE"),
        ] {
            let method = call.method.clone();
            let answer = call.send().await;
            assert_eq!(answer.code(), "NoSuchUpload", "{method} {path}: {answer:?}");
        }
        server.get(path).await.refused(404, "NoSuchKey");
    }
    let listed = server
        .request("GET", "/bucket/big")
        .query("uploadId", &upload);
    assert_eq!(listed.send().await.elements("ETag").len(), 1);
    let done = complete(&server, &upload, &[(1, etag)]).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(server.get("/bucket/big").await.text(), "right");
}

async fn complete(server: &Server, upload: &str, parts: &[(u16, String)]) -> Answer {
    let parts = parts.iter().map(|(number, etag)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    let parts: String = parts.collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let call = server
        .request("POST", "/bucket/big")
        .query("uploadId", upload);
    call.body(body).send().await
}

/// Parts of five MiB each, of which only the records are there.
async fn with_parts(server: &Server, upload: &str, count: u16) -> Vec<(u16, String)> {
    let catalog = &server.store.catalog;
    let bucket = BucketAt {
        name: "bucket".to_owned(),
        incarnation: catalog.bucket("bucket").await.unwrap().incarnation,
    };
    let upload: VersionUid = upload.parse().unwrap();
    let mut parts = Vec::new();
    for number in 1..=count {
        let row = UploadPartRow {
            number,
            blob: None,
            len: PART,
            md5: [number as u8; 16],
            checksum: None,
            modified: 1,
        };
        parts.push((number, format!("\"{}\"", hex::encode(row.md5))));
        let put = catalog.put_part(&bucket, "big", upload, row, None).await;
        put.unwrap();
    }
    parts
}

// ATTACKS 80: as many parts as S3 takes.
#[tokio::test]
async fn ten_thousand_parts_make_an_object() {
    let server = Server::with_bucket().await;
    let upload = begin(&server, "/bucket/big").await;
    let parts = with_parts(&server, &upload, 10_000).await;
    let (mut seen, mut marker) = (0, "0".to_owned());
    loop {
        let page = server
            .request("GET", "/bucket/big")
            .query("uploadId", &upload);
        let page = page.query("part-number-marker", &marker).send().await;
        assert_eq!(page.element("PartNumberMarker"), Some(marker));
        seen += page.elements("PartNumber").len();
        if page.element("IsTruncated").as_deref() == Some("false") {
            break;
        }
        marker = page.element("NextPartNumberMarker").unwrap();
    }
    assert_eq!(seen, 10_000);
    let done = complete(&server, &upload, &parts).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.element("ETag").unwrap().contains("-10000"));
    let of_part = |number: &str| {
        let call = server.request("HEAD", "/bucket/big");
        call.query("partNumber", number).send()
    };
    let last = of_part("10000").await;
    assert_eq!(last.status, 206, "{last:?}");
    assert_eq!(last.header("x-amz-mp-parts-count"), Some("10000"));
    let range = format!(
        "bytes {}-{}/{}",
        9_999 * PART,
        10_000 * PART - 1,
        10_000 * PART
    );
    assert_eq!(last.header("content-range"), Some(&*range));
    let whole = server.request("HEAD", "/bucket/big").send().await;
    let len = (10_000 * PART).to_string();
    assert_eq!(whole.header("content-length"), Some(&*len));
}

#[tokio::test]
async fn parts_are_told_among_the_attributes() {
    let server = Server::with_bucket().await;
    let ask = |max: &str, marker: &str| {
        let call = server.request("GET", "/bucket/big").query("attributes", "");
        let call = call.header("x-amz-object-attributes", "ObjectParts,ObjectSize");
        let call = call.header("x-amz-max-parts", max);
        call.header("x-amz-part-number-marker", marker).send()
    };
    // Without checksums their number alone is told, as in S3.
    let upload = begin(&server, "/bucket/big").await;
    let parts = with_parts(&server, &upload, 3).await;
    assert_eq!(complete(&server, &upload, &parts).await.status, 200);
    let plain = ask("2", "0").await;
    assert_eq!(plain.status, 200, "{plain:?}");
    assert_eq!(plain.element("PartsCount").as_deref(), Some("3"));
    assert_eq!(plain.elements("Part").len(), 0);

    let begun = server.request("POST", "/bucket/big").query("uploads", "");
    let begun = begun
        .header("x-amz-checksum-algorithm", "CRC32")
        .send()
        .await;
    let upload = begun.element("UploadId").unwrap();
    let mut parts = Vec::new();
    for number in [2u16, 3, 5, 9] {
        let last = number == 9;
        let body = vec![number as u8; if last { 7 } else { PART as usize }];
        let put = server
            .request("PUT", "/bucket/big")
            .query("uploadId", &upload);
        let put = put.query("partNumber", &number.to_string()).body(body);
        let put = put.header("x-amz-sdk-checksum-algorithm", "CRC32");
        let put = put.header("x-amz-checksum-crc32", &crc32_of(number as u8, last));
        let put = put.payload(UNSIGNED).send().await;
        assert_eq!(put.status, 200, "{put:?}");
        parts.push((number, put.header("etag").unwrap().to_owned()));
    }
    let done = complete(&server, &upload, &parts).await;
    assert_eq!(done.status, 200, "{done:?}");
    for (max, marker, numbers, next, more) in [
        ("1000", "0", &["2", "3", "5", "9"][..], "9", "false"),
        ("2", "0", &["2", "3"], "3", "true"),
        ("2", "3", &["5", "9"], "9", "false"),
        ("1", "3", &["5"], "5", "true"),
        ("5", "9", &[], "9", "false"),
        ("0", "0", &[], "0", "false"),
    ] {
        let answer = ask(max, marker).await;
        assert_eq!(answer.elements("PartNumber"), numbers, "{answer:?}");
        for (name, value) in [
            ("PartsCount", "4"),
            ("MaxParts", max),
            ("PartNumberMarker", marker),
            ("NextPartNumberMarker", next),
            ("IsTruncated", more),
        ] {
            assert_eq!(
                answer.element(name).as_deref(),
                Some(value),
                "{name} {answer:?}"
            );
        }
        assert_eq!(answer.elements("ChecksumCRC32").len(), numbers.len());
    }
    let all = ask("1000", "0").await;
    assert_eq!(all.elements("Size")[3], "7");
    ask("-1", "0").await.refused(400, "InvalidArgument");
}

fn crc32_of(fill: u8, last: bool) -> String {
    use base64::Engine as _;
    let mut running =
        crate::s3::digest::Running::new(shardgate_catalog::model::ChecksumAlgorithm::Crc32);
    running.update(&vec![fill; if last { 7 } else { PART as usize }]);
    base64::engine::general_purpose::STANDARD.encode(running.finish())
}

/// The head of a request whose body is said to have so many bytes, and the
/// first line of what it is answered.
async fn declare(server: &Server, call: Call, len: u64) -> String {
    let (call, _) = call.unsigned("expect", "100-continue").sign();
    let head = String::from_utf8(call.bytes()).unwrap();
    let head = head.replace(
        "content-length: 0\r\n",
        &format!("content-length: {len}\r\n"),
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let goes_on = text.starts_with("HTTP/1.1 100") && text.ends_with("\r\n\r\n");
        if goes_on || text.contains("</Error>") {
            return text;
        }
        let more = stream.read_buf(&mut answer).await.unwrap();
        assert!(more > 0, "no answer but {text}");
    }
}

/// What is longer than S3 takes is refused before a byte of it has come.
#[tokio::test]
async fn bodies_of_more_than_five_gib_are_refused_by_their_declared_length() {
    let server = Server::with_bucket().await;
    let upload = begin(&server, "/bucket/big").await;
    for of_part in [false, true] {
        let call = || {
            let call = server.request("PUT", "/bucket/big").payload(UNSIGNED);
            match of_part {
                true => call.query("partNumber", "1").query("uploadId", &upload),
                false => call,
            }
        };
        let answer = declare(&server, call(), MOST).await;
        assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
        let answer = declare(&server, call(), MOST + 1).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(answer.contains("EntityTooLarge"), "{answer}");
        // In signed chunks the length of what they carry is declared apart.
        let chunked = |len: u64| {
            let call = call().payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
            let call = call.header("x-amz-trailer", "x-amz-checksum-crc32");
            call.header("x-amz-decoded-content-length", &len.to_string())
        };
        let answer = declare(&server, chunked(MOST + 1), MOST + 9_000_000).await;
        assert!(answer.contains("EntityTooLarge"), "{answer}");
        let answer = declare(&server, chunked(MOST), MOST + 9_000_000).await;
        assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
    }
}
