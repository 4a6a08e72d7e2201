//! Headers that ask for what is not kept here, or that only servers say.

use super::client::{Answer, Server};

async fn with_object() -> Server {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    server
}

// ATTACKS 61 to 65: what promises a lock is refused, on every way to write.
#[tokio::test]
async fn attack_61_to_65_no_lock_is_promised() {
    let server = with_object().await;
    let begun = server.request("POST", "/bucket/big").query("uploads", "");
    let upload = begun.send().await.element("UploadId").unwrap();
    let later = "2099-01-01T00:00:00Z";
    for (name, value) in [
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-retain-until-date", later),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-object-lock-legal-hold", "OFF"),
    ] {
        let put = server.request("PUT", "/bucket/mine").body("x");
        let copy = server.request("PUT", "/bucket/mine");
        let copy = copy.header("x-amz-copy-source", "bucket/key");
        let begin = server.request("POST", "/bucket/mine").query("uploads", "");
        let part = server.request("PUT", "/bucket/big").body("x");
        let part = part.query("partNumber", "1").query("uploadId", &upload);
        for call in [put, copy, begin, part] {
            let answer = call.header(name, value).send().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (501, "NotImplemented"),
                "{name}: {answer:?}"
            );
        }
    }
    server.get("/bucket/mine").await.refused(404, "NoSuchKey");
    let make = |value: &str| {
        let call = server.request("PUT", "/locked");
        call.header("x-amz-bucket-object-lock-enabled", value)
            .send()
    };
    for value in ["true", "True"] {
        let answer = make(value).await;
        assert!([400, 501].contains(&answer.status), "{value}: {answer:?}");
        assert_eq!(server.request("HEAD", "/locked").send().await.status, 404);
    }
    assert_eq!(make("false").await.status, 200);
    // Settings of a lock: asked for, they are not taken.
    for (path, query, body) in [
        (
            "/bucket",
            "object-lock",
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
        ),
        (
            "/bucket/key",
            "retention",
            "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
        ),
        (
            "/bucket/key",
            "legal-hold",
            "<LegalHold><Status>ON</Status></LegalHold>",
        ),
    ] {
        let answer = server.request("PUT", path).query(query, "").body(body);
        answer.send().await.refused(501, "NotImplemented");
    }
}

/// Who bypasses a lock believes that there is one.
#[tokio::test]
async fn attack_62_63_nothing_is_bypassed() {
    let server = with_object().await;
    let bypass = "x-amz-bypass-governance-retention";
    let delete = |value: &str| {
        server
            .request("DELETE", "/bucket/key")
            .header(bypass, value)
    };
    let many = "<Delete><Object><Key>key</Key></Object></Delete>";
    let many = server
        .request("POST", "/bucket")
        .query("delete", "")
        .body(many);
    for call in [delete("true"), delete("True"), many.header(bypass, "true")] {
        call.send().await.refused(400, "InvalidArgument");
    }
    assert_eq!(server.get("/bucket/key").await.text(), "hello");
    assert_eq!(delete("false").send().await.status, 204);
}

// ATTACKS 60: what stores tell each other, said by a client.
#[tokio::test]
async fn attack_60_internal_headers_mean_nothing() {
    let server = Server::with_bucket().await;
    let plain = server.put("/bucket/plain", b"hello").await;
    let said = [
        ("x-amz-replication-status", "REPLICA"),
        ("x-minio-source-replication-request", "true"),
        ("x-minio-source-mtime", "2001-01-01T00:00:00Z"),
        ("x-minio-source-etag", "00000000000000000000000000000000"),
        ("x-minio-internal-actual-size", "1"),
        ("x-rustfs-internal-healing", "true"),
        ("x-shardgate-class", "2"),
        ("x-shardgate-owner", "somebody"),
        ("x-amz-version-id", "3"),
        ("x-amz-delete-marker", "true"),
        ("x-amz-mp-parts-count", "7"),
        ("x-amz-restore", "ongoing-request=\"true\""),
        ("last-modified", "Mon, 01 Jan 2001 00:00:00 GMT"),
        ("etag", "\"00000000000000000000000000000000\""),
    ];
    let mut put = server.request("PUT", "/bucket/key").body("hello");
    let mut copy = server.request("PUT", "/bucket/copy");
    copy = copy.header("x-amz-copy-source", "bucket/plain");
    for (name, value) in said {
        put = put.header(name, value);
        copy = copy.header(name, value);
    }
    let put = put.send().await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(put.header("etag"), plain.header("etag"));
    assert_eq!(copy.send().await.status, 200);
    let names = |answer: &Answer| {
        let names = answer.headers.iter().map(|(name, _)| name.clone());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let expected = server.get("/bucket/plain").await;
    for path in ["/bucket/key", "/bucket/copy"] {
        let got = server.get(path).await;
        assert_eq!(got.text(), "hello");
        assert_eq!(names(&got), names(&expected), "{got:?}");
        assert_eq!(got.header("etag"), expected.header("etag"));
        assert!(!got.header("last-modified").unwrap().contains("2001"));
    }
    let listed = server.get("/bucket").await;
    assert!(!listed.text().contains("2001-"), "{listed:?}");
}

// ATTACKS 91: nobody's origin is let in without a configuration.
#[tokio::test]
async fn attack_91_no_origin_is_reflected() {
    let server = with_object().await;
    let origin = "https://evil.example";
    let none = |answer: &Answer| {
        let mut names = answer.headers.iter().map(|(name, _)| name.as_str());
        !names.any(|name| name.starts_with("access-control-"))
    };
    for path in ["/bucket/key", "/bucket", "/", "/absent/key"] {
        for method in ["GET", "PUT", "DELETE"] {
            let call = server.request("OPTIONS", path).unsigned("origin", origin);
            let call = call.unsigned("access-control-request-method", method);
            let call = call.unsigned("access-control-request-headers", "authorization");
            let answer = call.send_as_is().await;
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
            assert!(
                none(&answer) && !answer.text().contains(origin),
                "{answer:?}"
            );
        }
    }
    for (method, path) in [
        ("GET", "/bucket/key"),
        ("HEAD", "/bucket/key"),
        ("GET", "/bucket"),
    ] {
        let call = server.request(method, path).unsigned("origin", origin);
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(none(&answer), "{answer:?}");
    }
}

// ATTACKS 46: conditions tell nobody whether something is there.
#[tokio::test]
async fn attack_46_conditions_are_no_oracle() {
    let server = with_object().await;
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    for method in ["HEAD", "GET"] {
        let mut seen: Option<Answer> = None;
        for path in ["/bucket/key", "/bucket/absent", "/absent/key"] {
            for (name, value) in [
                ("accept", "*/*"),
                ("if-match", etag),
                ("if-match", "\"0\""),
                ("if-match", "*"),
                ("if-none-match", etag),
                ("if-none-match", "*"),
                ("if-modified-since", "Sun, 06 Nov 2094 08:49:37 GMT"),
                ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("range", "bytes=0-1"),
                ("range", "bytes=9-"),
            ] {
                let call = server.request(method, path).unsigned(name, value);
                let answer = call.send_as_is().await;
                assert_eq!(answer.status, 403, "{path} {name}: {answer:?}");
                for told in [
                    "etag",
                    "last-modified",
                    "content-range",
                    "x-amz-storage-class",
                ] {
                    assert_eq!(answer.header(told), None, "{answer:?}");
                }
                let kept = |answer: &Answer| -> Vec<(String, String)> {
                    let varying = ["date", "x-amz-request-id", "x-amz-id-2", "content-length"];
                    let headers = answer.headers.iter();
                    let same = headers.filter(|(name, _)| !varying.contains(&name.as_str()));
                    same.cloned().collect()
                };
                if let Some(seen) = &seen {
                    assert_eq!(kept(&answer), kept(seen), "{path} {name}: {value}");
                    assert_eq!(answer.code(), seen.code());
                }
                seen.get_or_insert(answer);
            }
        }
    }
}
