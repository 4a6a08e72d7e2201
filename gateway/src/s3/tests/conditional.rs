//! Conditions on reads and writes, over HTTP.

use super::client::Server;

const HELLO: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
const OTHER: &str = "\"00000000000000000000000000000000\"";
const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const FAR_OFF: &str = "Sun, 06 Nov 2094 08:49:37 GMT";

#[tokio::test]
async fn reads_are_answered_by_their_conditions() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    for (name, value, status) in [
        ("if-match", HELLO, 200),
        ("if-match", OTHER, 412),
        (
            "if-match",
            "\"x\", \"5d41402abc4b2a76b9719d911017c592\"",
            200,
        ),
        ("if-none-match", HELLO, 304),
        ("if-none-match", OTHER, 200),
        ("if-none-match", "*", 304),
        ("if-modified-since", LONG_AGO, 200),
        ("if-modified-since", FAR_OFF, 304),
        ("if-modified-since", "nonsense", 200),
        ("if-unmodified-since", LONG_AGO, 412),
        ("if-unmodified-since", FAR_OFF, 200),
        ("if-unmodified-since", "nonsense", 200),
    ] {
        for method in ["GET", "HEAD"] {
            let call = server.request(method, "/bucket/key").header(name, value);
            let answer = call.send().await;
            assert_eq!(
                answer.status, status,
                "{method} {name}: {value}: {answer:?}"
            );
            if status == 304 {
                assert_eq!(answer.header("etag"), Some(HELLO), "{name}: {value}");
                assert!(answer.header("last-modified").is_some() && answer.body.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn writes_are_done_by_their_conditions() {
    let server = Server::with_bucket().await;
    let put = |name: &str, value: &str| {
        server
            .request("PUT", "/bucket/key")
            .header(name, value)
            .body("hello")
            .send()
    };
    put("if-match", HELLO).await.refused(404, "NoSuchKey");
    assert_eq!(put("if-none-match", "*").await.status, 200);
    put("if-none-match", "*")
        .await
        .refused(412, "PreconditionFailed");
    put("if-match", OTHER)
        .await
        .refused(412, "PreconditionFailed");
    put("if-match", "\"garbage\"")
        .await
        .refused(412, "PreconditionFailed");
    assert_eq!(put("if-match", HELLO).await.status, 200);
    put("if-none-match", OTHER)
        .await
        .refused(501, "NotImplemented");
}

#[tokio::test]
async fn if_range_decides_about_a_range() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    for (value, status) in [(HELLO, 206), (OTHER, 200), (LONG_AGO, 200)] {
        let get = server
            .request("GET", "/bucket/key")
            .header("range", "bytes=1-2")
            .header("if-range", value);
        assert_eq!(get.send().await.status, status, "{value}");
    }
}

/// Copies are done by the conditions on their source: 412 where a read says
/// that nothing has changed.
#[tokio::test]
async fn copies_are_done_by_the_conditions_on_their_source() {
    let server = Server::with_bucket().await;
    server.put("/bucket/source", b"hello").await;
    let begun = server.request("POST", "/bucket/big").query("uploads", "");
    let upload = begun.send().await.element("UploadId").unwrap();
    let (matched, none) = (
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-none-match",
    );
    let since = "x-amz-copy-source-if-modified-since";
    let not_since = "x-amz-copy-source-if-unmodified-since";
    for (conditions, done) in [
        (&[(matched, HELLO)][..], true),
        (&[(matched, OTHER)], false),
        (&[(none, OTHER)], true),
        (&[(none, HELLO)], false),
        (&[(since, LONG_AGO)], true),
        (&[(since, FAR_OFF)], false),
        (&[(not_since, FAR_OFF)], true),
        (&[(not_since, LONG_AGO)], false),
        // A tag that holds decides over the date, as S3 documents it.
        (&[(matched, HELLO), (not_since, LONG_AGO)], true),
        (&[(none, HELLO), (since, LONG_AGO)], false),
        (&[(none, OTHER), (since, FAR_OFF)], true),
        (&[(matched, OTHER), (not_since, FAR_OFF)], false),
        // What is no date is no condition.
        (&[(since, "yesterday")], true),
        (&[(not_since, "yesterday")], true),
    ] {
        let object = server.request("PUT", "/bucket/copy");
        let part = server.request("PUT", "/bucket/big");
        let part = part.query("partNumber", "1").query("uploadId", &upload);
        for mut call in [object, part] {
            call = call.header("x-amz-copy-source", "bucket/source");
            for (name, value) in conditions {
                call = call.header(name, value);
            }
            let answer = call.send().await;
            match done {
                true => assert_eq!(answer.status, 200, "{conditions:?}: {answer:?}"),
                false => answer.refused(412, "PreconditionFailed"),
            }
        }
        let made = server.request("DELETE", "/bucket/copy");
        let made = made.header("if-match", "*").send().await.status;
        assert_eq!(made == 204, done, "{conditions:?}: {made}");
    }
}
