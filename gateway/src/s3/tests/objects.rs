//! Buckets and objects, as clients use them.

use super::client::Server;

#[tokio::test]
async fn buckets_are_made_listed_and_deleted() {
    let server = Server::start().await;
    let made = server.put("/bucket", b"").await;
    assert_eq!(
        (made.status, made.header("location")),
        (200, Some("/bucket"))
    );
    server
        .put("/bucket", b"")
        .await
        .refused(409, "BucketAlreadyOwnedByYou");
    server.put("/other-bucket", b"").await;

    let listed = server.get("/").await;
    assert_eq!(listed.elements("Name"), ["bucket", "other-bucket"]);
    let first = server
        .request("GET", "/")
        .query("max-buckets", "1")
        .send()
        .await;
    assert_eq!(first.elements("Name"), ["bucket"]);
    let token = first.element("ContinuationToken").unwrap();
    let second = server
        .request("GET", "/")
        .query("continuation-token", &token);
    assert_eq!(second.send().await.elements("Name"), ["other-bucket"]);
    let with_prefix = server
        .request("GET", "/")
        .query("prefix", "other")
        .send()
        .await;
    assert_eq!(with_prefix.elements("Name"), ["other-bucket"]);

    let head = server.request("HEAD", "/bucket").send().await;
    assert_eq!(
        (head.status, head.header("x-amz-bucket-region")),
        (200, Some("us-east-1"))
    );
    server.put("/bucket/key", b"x").await;
    let delete = || server.request("DELETE", "/bucket").send();
    delete().await.refused(409, "BucketNotEmpty");
    assert_eq!(
        server.request("DELETE", "/bucket/key").send().await.status,
        204
    );
    assert_eq!(delete().await.status, 204);
    delete().await.refused(404, "NoSuchBucket");
    assert_eq!(server.request("HEAD", "/bucket").send().await.status, 404);
}

// ATTACKS 58: names of buckets.
#[tokio::test]
async fn bad_bucket_names_are_refused() {
    let server = Server::start().await;
    for name in [
        "Upper",
        "a_b",
        "192.168.1.1",
        "xn--b",
        "a..b",
        "b-s3alias",
        "ab",
    ] {
        let answer = server.put(&format!("/{name}"), b"").await;
        answer.refused(400, "InvalidBucketName");
    }
}

#[tokio::test]
async fn an_object_comes_back_with_what_it_was_given() {
    let server = Server::with_bucket().await;
    let put = server
        .request("PUT", "/bucket/a key")
        .header("content-type", "text/plain")
        .header("content-encoding", "aws-chunked,gzip")
        .header("cache-control", "max-age=5")
        .header("content-disposition", "attachment")
        .header("x-amz-meta-colour", "blue")
        .header("x-amz-storage-class", "REDUCED_REDUNDANCY")
        .body("hello")
        .send()
        .await;
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    assert_eq!(
        (put.status, put.header("etag")),
        (200, Some(etag)),
        "{put:?}"
    );
    for method in ["GET", "HEAD"] {
        let read = server.request(method, "/bucket/a key").send().await;
        assert_eq!(read.status, 200);
        for (name, value) in [
            ("etag", etag),
            ("content-length", "5"),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("cache-control", "max-age=5"),
            ("content-disposition", "attachment"),
            ("x-amz-meta-colour", "blue"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(read.header(name), Some(value), "{method} {name}");
        }
        for name in ["last-modified", "x-amz-request-id", "x-amz-id-2"] {
            assert!(read.header(name).is_some(), "{method} {name}");
        }
        assert_eq!(read.header("x-amz-version-id"), None);
    }
    assert_eq!(server.get("/bucket/a key").await.body, "hello");
    server.put("/bucket/plain", b"").await;
    let plain = server.get("/bucket/plain").await;
    assert_eq!(plain.header("content-type"), Some("binary/octet-stream"));
    assert_eq!(plain.header("x-amz-storage-class"), None);
    let unknown = server
        .request("PUT", "/bucket/key")
        .header("x-amz-storage-class", "GLACIER_OF_MARS");
    unknown.send().await.refused(400, "InvalidStorageClass");
}

// ATTACKS 48 to 50, 53 to 56, 59: keys are literal.
#[tokio::test]
async fn keys_are_literal_and_distinct() {
    let server = Server::with_bucket().await;
    let keys = [
        "..",
        ".",
        "../x",
        "a/../b",
        "b",
        "//",
        "/lead",
        "trail/",
        "a//b",
        "a/b",
        "back\\slash",
        "é",
        "e\u{301}",
        "100%",
        "a+b",
        "a b",
        "%2e%2e",
        "q?x=1",
        "#frag",
        "'; DROP TABLE--",
        "_%",
        "\u{1f600}",
        "tab\tkey",
    ];
    for (number, key) in keys.iter().enumerate() {
        let put = server
            .request("PUT", &format!("/bucket/{key}"))
            .body(format!("body {number}"))
            .send()
            .await;
        assert_eq!(put.status, 200, "{key}: {put:?}");
    }
    for (number, key) in keys.iter().enumerate() {
        let read = server.get(&format!("/bucket/{key}")).await;
        assert_eq!(read.text(), format!("body {number}"), "{key}");
    }
    let long = "k".repeat(1024);
    assert_eq!(
        server.put(&format!("/bucket/{long}"), b"x").await.status,
        200
    );
    let longer = server.put(&format!("/bucket/{long}k"), b"x").await;
    longer.refused(400, "KeyTooLongError");
    server
        .put("/bucket/nul\0", b"x")
        .await
        .refused(400, "InvalidArgument");
}

#[tokio::test]
async fn ranges_are_served_as_s3_does() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"0123456789").await;
    server.put("/bucket/empty", b"").await;
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=0-99", 206, "0123456789", Some("bytes 0-9/10")),
        // What s3s refuses and S3 answers with everything.
        ("bytes=1-2,4-5", 200, "0123456789", None),
        ("bytes=5-2", 200, "0123456789", None),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let get = server.request("GET", "/bucket/key").header("range", range);
        let answer = get.send().await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, body),
            "{range}: {answer:?}"
        );
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        let head = server.request("HEAD", "/bucket/key").header("range", range);
        assert_eq!(head.send().await.status, status, "HEAD {range}");
        let link = server
            .request("GET", "/bucket/key")
            .presign("60")
            .unsigned("range", range);
        assert_eq!(link.send_as_is().await.text(), body, "presigned {range}");
    }
    for (key, range) in [
        ("key", "bytes=10-"),
        ("key", "bytes=-0"),
        ("empty", "bytes=0-"),
    ] {
        let get = server
            .request("GET", &format!("/bucket/{key}"))
            .header("range", range);
        let answer = get.send().await;
        answer.refused(416, "InvalidRange");
        assert!(
            answer
                .header("content-range")
                .unwrap()
                .starts_with("bytes */")
        );
    }
    let part = server
        .request("GET", "/bucket/key")
        .query("partNumber", "1")
        .send()
        .await;
    assert_eq!((part.status, part.text().as_str()), (206, "0123456789"));
    let none = server
        .request("GET", "/bucket/key")
        .query("partNumber", "2")
        .send()
        .await;
    none.refused(416, "InvalidPartNumber");
}

#[tokio::test]
async fn a_read_that_breaks_off_is_cut() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"0123456789").await;
    *server.store.breaks_after.lock() = Some(4);
    let answer = server.get("/bucket/key").await;
    // The connection ended before the length that the head promised, or
    // before the head.
    assert!(answer.status == 0 || answer.header("content-length") == Some("10"));
    assert!(answer.body.len() < 10, "{answer:?}");
}

#[tokio::test]
async fn deletes_answer_as_s3_does() {
    let server = Server::with_bucket().await;
    server.put("/bucket/a", b"1").await;
    server.put("/bucket/b", b"2").await;
    assert_eq!(
        server
            .request("DELETE", "/bucket/absent")
            .send()
            .await
            .status,
        204
    );
    let wrong = server
        .request("DELETE", "/bucket/a")
        .header("if-match", "\"00000000000000000000000000000000\"");
    wrong.send().await.refused(412, "PreconditionFailed");
    let version = server
        .request("DELETE", "/bucket/a")
        .query("versionId", "abc");
    version.send().await.refused(404, "NoSuchVersion");

    let many = |document: String, quiet: bool| {
        let quiet = if quiet { "<Quiet>true</Quiet>" } else { "" };
        let body = format!("<Delete>{quiet}{document}</Delete>");
        server
            .request("POST", "/bucket")
            .query("delete", "")
            .body(body)
    };
    let one = |key: &str| format!("<Object><Key>{key}</Key></Object>");
    let answer = many(one("a") + &one("absent"), false).send().await;
    assert_eq!(
        (answer.status, answer.elements("Key")),
        (200, vec!["a".into(), "absent".into()])
    );
    let answer = many(one("b") + &one(&"k".repeat(1025)), true).send().await;
    assert_eq!(
        (answer.status, answer.elements("Deleted").len()),
        (200, 0),
        "{answer:?}"
    );
    assert_eq!(answer.code(), "KeyTooLongError");
    assert_eq!(
        server.get("/bucket").await.elements("Key"),
        Vec::<String>::new()
    );

    // ATTACKS 80: more keys than S3 takes.
    let thousand: String = (0..1001).map(|n| one(&n.to_string())).collect();
    many(thousand, true)
        .send()
        .await
        .refused(400, "MalformedXML");
    let wrong = many(one("a"), true).header("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==");
    wrong.send().await.refused(400, "BadDigest");
    let wrong = many(one("a"), true).header("x-amz-checksum-crc32", "AAAAAA==");
    wrong.send().await.refused(400, "BadDigest");
}

#[tokio::test]
async fn copies_keep_or_replace_what_is_beside_the_bytes() {
    let server = Server::with_bucket().await;
    let put = server
        .request("PUT", "/bucket/a b")
        .header("content-type", "text/x")
        .header("x-amz-meta-n", "1")
        .body("copied");
    put.send().await;
    let copy = |source: &str, target: &str| {
        server
            .request("PUT", &format!("/bucket/{target}"))
            .header("x-amz-copy-source", source)
    };
    // A plus in the source is a space, as in AWS.
    let answer = copy("/bucket/a+b", "kept").send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.element("ETag").is_some() && answer.element("LastModified").is_some());
    let kept = server.get("/bucket/kept").await;
    assert_eq!(
        (kept.text().as_str(), kept.header("x-amz-meta-n")),
        ("copied", Some("1"))
    );
    let replace = copy("bucket/a%20b?versionId=null", "replaced")
        .header("x-amz-metadata-directive", "REPLACE")
        .header("content-type", "text/y");
    assert_eq!(replace.send().await.status, 200);
    let replaced = server.get("/bucket/replaced").await;
    assert_eq!(replaced.header("content-type"), Some("text/y"));
    assert_eq!(replaced.header("x-amz-meta-n"), None);

    copy("bucket/kept", "kept")
        .send()
        .await
        .refused(400, "InvalidRequest");
    copy("bucket/absent", "x")
        .send()
        .await
        .refused(404, "NoSuchKey");
    copy("absent/kept", "x")
        .send()
        .await
        .refused(404, "NoSuchBucket");
    copy("bucket/kept?versionId=7", "x")
        .send()
        .await
        .refused(404, "NoSuchVersion");
    let failed = copy("bucket/kept", "x").header("x-amz-copy-source-if-match", "\"no\"");
    failed.send().await.refused(412, "PreconditionFailed");
    let unread =
        copy("bucket/kept", "x").header("x-amz-copy-source-if-modified-since", "yesterday");
    assert_eq!(unread.send().await.status, 200);
}

#[tokio::test]
async fn what_clients_probe_is_answered() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"x").await;
    for (path, query, status, code) in [
        ("/bucket", "location", 200, ""),
        ("/bucket", "versioning", 200, ""),
        ("/bucket", "acl", 200, ""),
        ("/bucket/key", "acl", 200, ""),
        ("/bucket/key", "tagging", 200, ""),
        ("/bucket", "logging", 200, ""),
        ("/bucket", "notification", 200, ""),
        ("/bucket", "uploads", 200, ""),
        ("/bucket", "versions", 200, ""),
        ("/bucket", "policy", 404, "NoSuchBucketPolicy"),
        ("/bucket", "lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("/bucket", "cors", 404, "NoSuchCORSConfiguration"),
        ("/bucket", "tagging", 404, "NoSuchTagSet"),
        ("/bucket", "website", 404, "NoSuchWebsiteConfiguration"),
        (
            "/bucket",
            "encryption",
            404,
            "ServerSideEncryptionConfigurationNotFoundError",
        ),
        (
            "/bucket",
            "object-lock",
            404,
            "ObjectLockConfigurationNotFoundError",
        ),
        (
            "/bucket",
            "publicAccessBlock",
            404,
            "NoSuchPublicAccessBlockConfiguration",
        ),
    ] {
        let answer = server.request("GET", path).query(query, "").send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}?{query}"
        );
    }
    let acl = server
        .request("GET", "/bucket")
        .query("acl", "")
        .send()
        .await;
    assert_eq!(
        acl.element("Permission").as_deref(),
        Some("FULL_CONTROL"),
        "{}",
        acl.text()
    );
    let unknown = server.get("/bucket/absent").await;
    unknown.refused(404, "NoSuchKey");
    assert_eq!(
        unknown.element("Resource").as_deref(),
        Some("/bucket/absent")
    );
    assert_eq!(
        unknown.element("RequestId").as_deref(),
        unknown.header("x-amz-request-id")
    );
    assert!(unknown.element("HostId").is_some());
}

#[tokio::test]
async fn virtual_hosts_name_buckets() {
    let server = Server::with_bucket().await;
    let mut put = server.request("PUT", "/key");
    put.headers[0].1 = "bucket.s3.test:8080".to_owned();
    assert_eq!(put.body("by host").send().await.status, 200);
    assert_eq!(server.get("/bucket/key").await.text(), "by host");
    // ATTACKS 18: another name is not a bucket.
    let mut foreign = server.request("GET", "/bucket/key");
    foreign.headers[0].1 = "bucket.example.com".to_owned();
    assert_eq!(foreign.send().await.text(), "by host");
}

// A store without room for its metadata must still be able to delete.
#[tokio::test]
async fn without_room_buckets_are_not_made_and_can_be_deleted() {
    let server = Server::with_bucket().await;
    server.store.full.set_short(true);
    let refused = server.put("/another", b"").await;
    refused.refused(507, "InsufficientStorage");
    let deleted = server.request("DELETE", "/bucket").send().await;
    assert_eq!(deleted.status, 204);
    server.store.full.set_short(false);
    assert_eq!(server.put("/another", b"").await.status, 200);
}

#[tokio::test]
async fn a_method_that_a_part_does_not_have_leaves_the_whole_alone() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"kept").await;
    assert_eq!(server.put("/empty", b"").await.status, 200);
    for (method, path, name) in [
        ("DELETE", "/bucket/key", "retention"),
        ("DELETE", "/bucket/key", "acl"),
        ("DELETE", "/bucket/key", "uploads"),
        ("DELETE", "/bucket/key", "attributes"),
        ("DELETE", "/bucket/key", "partNumber"),
        ("PUT", "/bucket/key", "uploads"),
        ("PUT", "/bucket/key", "partNumber"),
        ("PUT", "/bucket/key", "uploadId"),
        ("PUT", "/bucket/key", "attributes"),
        ("DELETE", "/empty", "versioning"),
        ("DELETE", "/empty", "acl"),
        ("DELETE", "/empty", "uploads"),
        ("PUT", "/another", "uploads"),
        ("PUT", "/another", "location"),
    ] {
        let call = server.request(method, path).query(name, "1");
        let answer = call.send().await;
        answer.refused(405, "MethodNotAllowed");
    }
    assert_eq!(server.get("/bucket/key").await.text(), "kept");
    assert_eq!(server.get("/empty").await.status, 200);
    server.get("/another").await.refused(404, "NoSuchBucket");
    // Hints of SDKs are none.
    let hinted = server.request("DELETE", "/bucket/key");
    let hinted = hinted.query("x-id", "DeleteObject").send().await;
    assert_eq!(hinted.status, 204);
}
