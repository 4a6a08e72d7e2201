//! Attacks on signatures, by their numbers: each is refused, and nothing is
//! stored or shown.

use super::attacks_v2::link_v2_of;
use super::client::{ACCESS, EMPTY_PAYLOAD, SECRET, Server};
use super::signer::{Signer, UNSIGNED, date};

pub(super) async fn with_secret() -> Server {
    let server = Server::with_bucket().await;
    server.put("/bucket/secret", b"confidential").await;
    server
}

// ATTACKS 1: CVE-2026-54330.
#[tokio::test]
async fn attack_1_unsigned_copy_source() {
    let server = with_secret().await;
    let put = || server.request("PUT", "/bucket/mine").payload(UNSIGNED);
    let presigned = put()
        .presign("60")
        .unsigned("x-amz-copy-source", "/bucket/secret");
    presigned.send_as_is().await.refused(403, "AccessDenied");
    let (signed, _) = put().sign();
    let signed = signed.unsigned("x-amz-copy-source", "/bucket/secret");
    signed.send_as_is().await.refused(403, "AccessDenied");
    server.get("/bucket/mine").await.refused(404, "NoSuchKey");
}

#[tokio::test]
async fn attack_2_other_unsigned_amz_headers() {
    let server = with_secret().await;
    for (name, value) in [
        ("x-amz-meta-evil", "1"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-website-redirect-location", "https://example.com"),
        ("x-amz-security-token", "forged"),
    ] {
        let (put, _) = server.request("PUT", "/bucket/mine").body("x").sign();
        put.unsigned(name, value)
            .send_as_is()
            .await
            .refused(403, "AccessDenied");
        let link = server
            .request("PUT", "/bucket/mine")
            .presign("60")
            .unsigned(name, value);
        link.send_as_is().await.refused(403, "AccessDenied");
    }
    server.get("/bucket/mine").await.refused(404, "NoSuchKey");
}

// ATTACKS 3, 4, 5: CVE-2025-31489, CVE-2026-41145, CVE-2026-40344.
#[tokio::test]
async fn attack_3_to_5_unsigned_trailer_with_a_fabricated_signature() {
    let server = with_secret().await;
    let body = "1\r\nx\r\n0\r\nx-amz-checksum-crc32:jNwXmQ==\r\n\r\n";
    let upload = server
        .request("POST", "/bucket/big")
        .query("uploads", "")
        .send()
        .await;
    let upload = upload.element("UploadId").unwrap();
    for query in [
        vec![],
        vec![("partNumber", "1"), ("uploadId", upload.as_str())],
    ] {
        let mut call = server
            .request("PUT", "/bucket/mine")
            .header("x-amz-decoded-content-length", "1")
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .payload("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        for (name, value) in query {
            call = call.query(name, value);
        }
        let mut forged = call.clone();
        forged.signer.secret = "not the secret at all".to_owned();
        let forged = forged.sign().0.body(body).send_as_is().await;
        forged.refused(403, "SignatureDoesNotMatch");
        let mut in_query =
            call.header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        in_query.signer.secret = "not the secret at all".to_owned();
        let in_query = in_query.presign("60").body(body).send_as_is().await;
        assert!(
            in_query.status == 403 || in_query.status == 501,
            "{in_query:?}"
        );
    }
    server.get("/bucket/mine").await.refused(404, "NoSuchKey");
}

#[tokio::test]
async fn attack_12_to_15_times() {
    let server = with_secret().await;
    for offset in [-3600, 3600] {
        let mut call = server.request("GET", "/bucket/secret");
        call.signer.date = date(offset);
        call.send().await.refused(403, "RequestTimeTooSkewed");
    }
    let link = |offset: i64, expires: &'static str| {
        let mut call = server.request("GET", "/bucket/secret");
        call.signer.date = date(offset);
        call.presign(expires).send_as_is()
    };
    assert_eq!(link(0, "60").await.status, 200);
    assert_eq!(link(-30, "604800").await.status, 200);
    link(-120, "60").await.refused(403, "AccessDenied");
    link(3600, "60").await.refused(403, "RequestTimeTooSkewed");
    for expires in ["604801", "-1", "99999999999999999999", "abc", "", "1e3"] {
        let answer = link(0, expires).await;
        answer.refused(400, "AuthorizationQueryParametersError");
    }
    let zero = link(-2, "0").await;
    assert!(zero.status == 400 || zero.status == 403, "{zero:?}");
}

#[tokio::test]
async fn attack_16_duplicate_parameters() {
    let server = with_secret().await;
    let call = server.request("GET", "/bucket/secret").presign("1");
    let again = call
        .clone()
        .query("X-Amz-Expires", "604800")
        .send_as_is()
        .await;
    assert!(again.status == 400 || again.status == 403, "{again:?}");
    let twice = server
        .request("PUT", "/bucket/mine")
        .header("x-amz-copy-source", "/bucket/a")
        .header("x-amz-copy-source", "/bucket/secret");
    let answer = twice.send().await;
    assert!((400..404).contains(&answer.status), "{answer:?}");
    let versions = server.request("GET", "/bucket/secret");
    let versions = versions
        .query("versionId", "null")
        .query("versionId", "x")
        .send()
        .await;
    assert_eq!(versions.status, 400, "{versions:?}");
}

#[tokio::test]
async fn attack_17_encodings_are_not_confused() {
    let server = with_secret().await;
    server.put("/bucket/a%2Fb", b"percent").await;
    server.put("/bucket/a/b", b"slash").await;
    server.put("/bucket/a+b", b"plus").await;
    assert_eq!(server.get("/bucket/a%2Fb").await.text(), "percent");
    assert_eq!(server.get("/bucket/a/b").await.text(), "slash");
    assert_eq!(server.get("/bucket/a+b").await.text(), "plus");
    server.get("/bucket/a b").await.refused(404, "NoSuchKey");
}

#[tokio::test]
async fn attack_18_another_host_than_was_signed() {
    let server = with_secret().await;
    let (mut call, _) = server.request("GET", "/bucket/secret").sign();
    call.headers[0].1 = "secret.s3.test".to_owned();
    call.send_as_is()
        .await
        .refused(403, "SignatureDoesNotMatch");
    let (call, _) = server.request("GET", "/bucket/secret").sign();
    let forwarded = call
        .unsigned("x-forwarded-host", "other.s3.test")
        .send_as_is()
        .await;
    assert_eq!(forwarded.text(), "confidential");
}

#[tokio::test]
async fn attack_19_header_whitespace_case_and_repeats() {
    let server = with_secret().await;
    let put = |value: &str| {
        server
            .request("PUT", "/bucket/mine")
            .header("x-amz-meta-n", value)
            .body("x")
    };
    // Case of names and space around values do not count; other bytes do.
    let (mut call, _) = put("a b").sign();
    let spaced = call
        .headers
        .iter_mut()
        .find(|(name, _)| name == "x-amz-meta-n")
        .unwrap();
    *spaced = ("X-Amz-META-n".to_owned(), "   a   b  ".to_owned());
    assert_eq!(call.send_as_is().await.status, 200);
    let (mut call, _) = put("a b").sign();
    call.headers
        .iter_mut()
        .find(|(name, _)| name == "x-amz-meta-n")
        .unwrap()
        .1 = "a  c".to_owned();
    call.send_as_is()
        .await
        .refused(403, "SignatureDoesNotMatch");
    let (call, _) = put("a b").sign();
    let repeated = call.unsigned("x-amz-meta-n", "c").send_as_is().await;
    repeated.refused(403, "SignatureDoesNotMatch");
}

// ATTACKS 78, 79: XML that grows, reads files, or nests without end.
#[tokio::test]
async fn attack_78_79_hostile_documents() {
    let server = with_secret().await;
    let laughs = "<!DOCTYPE d [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">\
                  <!ENTITY x SYSTEM \"file:///etc/passwd\">]>\
                  <Delete><Object><Key>&b;&x;</Key></Object></Delete>";
    let deep = format!("<Delete>{}", "<Object>".repeat(200_000));
    let large = format!("<Delete>{}</Delete>", " ".repeat(9 << 20));
    for document in [
        laughs.to_owned(),
        deep,
        large,
        "<Delete".to_owned(),
        "\u{0}".to_owned(),
    ] {
        let call = server
            .request("POST", "/bucket")
            .query("delete", "")
            .body(document);
        let answer = call.send().await;
        assert!(
            (400..500).contains(&answer.status),
            "{:.300}",
            answer.text()
        );
        assert!(!answer.text().contains("root:"));
    }
    // ATTACKS 8 for documents: a trailer that nobody would compare.
    let trailer = server
        .request("POST", "/bucket")
        .query("delete", "")
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .body("<Delete><Object><Key>secret</Key></Object></Delete>");
    trailer.send().await.refused(400, "InvalidRequest");
    assert_eq!(server.get("/bucket/secret").await.text(), "confidential");
}

#[tokio::test]
async fn attack_20_two_mechanisms() {
    let server = with_secret().await;
    let link = server.request("GET", "/bucket/secret").presign("60");
    let both = link
        .unsigned("authorization", "AWS operator:abc")
        .send_as_is()
        .await;
    both.refused(400, "InvalidArgument");
}

#[tokio::test]
async fn attack_21_wrong_scope() {
    let server = with_secret().await;
    let with = |change: fn(&mut Signer)| {
        let mut call = server.request("GET", "/bucket/secret");
        change(&mut call.signer);
        call
    };
    let region = with(|signer| signer.region = "eu-west-9".to_owned())
        .send()
        .await;
    region.refused(400, "AuthorizationHeaderMalformed");
    assert_eq!(region.element("Region").as_deref(), Some("us-east-1"));
    let service = with(|signer| signer.service = "iam".to_owned())
        .send()
        .await;
    assert!(
        service.status == 403 || service.status == 501,
        "{service:?}"
    );
    let (mut call, _) = server.request("GET", "/bucket/secret").sign();
    let value = call.unsigned[0]
        .1
        .replace(&call.signer.date[..8], "20200101");
    call.unsigned[0].1 = value;
    call.send_as_is()
        .await
        .refused(403, "SignatureDoesNotMatch");
}

#[tokio::test]
async fn attack_22_a_token_on_the_root_key() {
    let server = with_secret().await;
    let signed = server
        .request("GET", "/bucket/secret")
        .header("x-amz-security-token", "forged");
    signed.send().await.refused(400, "InvalidToken");
    let link = server
        .request("GET", "/bucket/secret")
        .query("X-Amz-Security-Token", "forged");
    link.presign("60")
        .send_as_is()
        .await
        .refused(400, "InvalidToken");
}

#[tokio::test]
async fn attack_25_anonymous_requests() {
    let server = with_secret().await;
    for (method, path) in [
        ("GET", "/bucket/secret"),
        ("HEAD", "/bucket/secret"),
        ("GET", "/bucket"),
        ("GET", "/"),
        ("PUT", "/bucket/mine"),
        ("DELETE", "/bucket/secret"),
        ("DELETE", "/bucket"),
    ] {
        let call = server.request(method, path);
        assert_eq!(
            call.clone().send_as_is().await.status,
            403,
            "{method} {path}"
        );
        let streaming = call.unsigned("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        assert_eq!(streaming.send_as_is().await.status, 403, "{method} {path}");
        // The same through the route that repairs requests.
        let repaired = server
            .request(method, path)
            .unsigned("range", "bytes=1-2,3-4");
        assert_eq!(repaired.send_as_is().await.status, 403, "{method} {path}");
    }
    assert_eq!(server.get("/bucket/secret").await.text(), "confidential");
    // ATTACKS 88: other response headers, anonymously.
    let call = server.request("GET", "/bucket/secret");
    let answer = call
        .query("response-content-type", "text/html")
        .send_as_is()
        .await;
    answer.refused(400, "InvalidRequest");
}

#[tokio::test]
async fn unknown_and_wrong_keys_are_told_apart() {
    let server = with_secret().await;
    let mut unknown = server.request("GET", "/bucket/secret");
    unknown.signer.access = "nobody".to_owned();
    unknown.send().await.refused(403, "InvalidAccessKeyId");
    let mut wrong = server.request("GET", "/bucket/secret");
    wrong.signer.secret = "wrong".to_owned();
    let answer = wrong.send().await;
    answer.refused(403, "SignatureDoesNotMatch");
    // ATTACKS 95: no answer holds the secret.
    assert!(!answer.text().contains(SECRET));
    // A repaired request is verified like any other.
    let mut wrong = server
        .request("GET", "/bucket/secret")
        .header("range", "bytes=0-1,2-3");
    wrong.signer.secret = "wrong".to_owned();
    wrong.send().await.refused(403, "SignatureDoesNotMatch");
}

#[tokio::test]
async fn overrides_are_for_signed_requests_and_carry_no_line_breaks() {
    let server = with_secret().await;
    for method in ["GET", "HEAD"] {
        let call = server
            .request(method, "/bucket/secret")
            .query("response-content-disposition", "attachment; filename=\"x\"")
            .query("response-content-type", "text/plain");
        let answer = call.presign("60").send_as_is().await;
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain"),
            "{answer:?}"
        );
        assert_eq!(
            answer.header("content-disposition"),
            Some("attachment; filename=\"x\"")
        );
        let expires = "Wed, 21 Oct 2015 07:28:00 GMT";
        let call = server.request(method, "/bucket/secret");
        let call = call.query("response-expires", expires).presign("60");
        let answer = call.send_as_is().await;
        assert_eq!(answer.header("expires"), Some(expires), "{method}");
        // ATTACKS 90.
        let call = server.request(method, "/bucket/secret");
        let call = call.query("response-content-type", "text/html\r\nx-evil: 1");
        let answer = call.presign("60").send_as_is().await;
        assert_eq!((answer.status, answer.header("x-evil")), (400, None));
    }
}

// ATTACKS 82, 85: malformed requests and smuggling.
#[tokio::test]
async fn malformed_requests_are_refused() {
    let server = with_secret().await;
    let host = server.address;
    for (request, statuses) in [
        (
            format!(
                "PUT /bucket/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"
            ),
            &[400][..],
        ),
        (
            format!("PUT /bucket/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: -1\r\n\r\n"),
            &[400],
        ),
        (
            format!(
                "PUT /bucket/x HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n"
            ),
            &[400, 403],
        ),
        (
            format!("GET /bucket/%zz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
            &[400, 403],
        ),
        (
            format!("GET /bucket/%ff HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
            &[400],
        ),
        (
            format!(
                "GET /bucket?max-keys=%ff%00 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
            ),
            &[400, 403],
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n".to_owned(),
            &[400],
        ),
        (
            "BREW / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
            &[403, 501, 405],
        ),
        ("GET nonsense\r\n\r\n".to_owned(), &[400]),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nauthorization: AWS4-HMAC-SHA256 Credential={ACCESS}\r\nx-amz-content-sha256: {EMPTY_PAYLOAD}\r\nconnection: close\r\n\r\n"
            ),
            &[400, 403],
        ),
    ] {
        let answer = server.raw(request.as_bytes()).await;
        assert!(statuses.contains(&answer.status), "{request}: {answer:?}");
    }
}

// ATTACKS 89: stored pages that run scripts where others' objects are.
#[tokio::test]
async fn stored_pages_run_in_an_origin_of_their_own() {
    let server = Server::with_bucket().await;
    for (kind, sandboxed) in [
        ("text/html", true),
        ("Text/HTML; charset=utf-8", true),
        ("image/svg+xml", true),
        ("application/xhtml+xml", true),
        ("text/xml", true),
        ("text/plain", false),
        ("application/pdf", false),
        ("image/png", false),
    ] {
        let put = server
            .request("PUT", "/bucket/page")
            .header("content-type", kind)
            .body("<script>1</script>");
        assert_eq!(put.send().await.status, 200);
        let page = server.get("/bucket/page").await;
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert_eq!(policy.starts_with("sandbox"), sandboxed, "{kind}");
        assert!(!policy.contains("allow-same-origin"), "{policy}");
    }
    let overridden = server
        .request("GET", "/bucket/page")
        .query("response-content-type", "text/html")
        .presign("60");
    let overridden = overridden.send_as_is().await;
    assert!(overridden.header("content-security-policy").is_some());
}

// ATTACKS 85: a request behind a body whose length is said twice.
#[tokio::test]
async fn nothing_follows_a_body_of_two_lengths() {
    let server = with_secret().await;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let put = link_v2_of("PUT", "/bucket/mine", now + 60);
    let host = server.address;
    let smuggled = format!("GET /bucket/secret HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let body = format!("2\r\nhi\r\n0\r\n\r\n{smuggled}");
    for lengths in [
        format!(
            "content-length: {}\r\ntransfer-encoding: chunked",
            body.len()
        ),
        format!(
            "transfer-encoding: chunked\r\ncontent-length: {}",
            body.len()
        ),
    ] {
        let request = format!("PUT {put} HTTP/1.1\r\nhost: {host}\r\n{lengths}\r\n\r\n{body}");
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(!answer.text().contains("HTTP/1.1"), "{answer:?}");
    }
    assert_eq!(server.get("/bucket/mine").await.text(), "hi");
}
