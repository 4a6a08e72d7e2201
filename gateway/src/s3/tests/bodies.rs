//! Bodies with checksums, chunks and trailers.

use super::client::{Answer, Call, Server};
use super::signer::{UNSIGNED, encode};

/// CRC-32 of "hello world".
const CRC: &str = "DUoRhQ==";
const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

#[tokio::test]
async fn checksums_are_verified_stored_and_returned() {
    let server = Server::with_bucket().await;
    let put = |name: &str, value: &str| {
        server
            .request("PUT", "/bucket/key")
            .header(name, value)
            .body("hello world")
            .send()
    };
    put("x-amz-checksum-crc32", "AAAAAA==")
        .await
        .refused(400, "BadDigest");
    for name in ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"] {
        let name = format!("x-amz-checksum-{name}");
        for value in ["nonsense", "AAAA", ""] {
            put(&name, value).await.refused(400, "InvalidRequest");
        }
    }
    put("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")
        .await
        .refused(400, "BadDigest");
    put("content-md5", "nonsense")
        .await
        .refused(400, "InvalidDigest");
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
    let stored = put("x-amz-checksum-crc32", CRC).await;
    assert_eq!(
        (stored.status, stored.header("x-amz-checksum-crc32")),
        (200, Some(CRC))
    );
    for method in ["GET", "HEAD"] {
        let silent = server.request(method, "/bucket/key").send().await;
        assert_eq!(silent.header("x-amz-checksum-crc32"), None);
        let told = server
            .request(method, "/bucket/key")
            .header("x-amz-checksum-mode", "ENABLED");
        let told = told.send().await;
        assert_eq!(told.header("x-amz-checksum-crc32"), Some(CRC), "{method}");
        assert_eq!(told.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    }
    let part = server
        .request("GET", "/bucket/key")
        .header("x-amz-checksum-mode", "ENABLED")
        .header("range", "bytes=0-1");
    assert_eq!(part.send().await.header("x-amz-checksum-crc32"), None);
}

/// A PUT with signed chunks; `change` alters the encoded body.
async fn chunked(
    server: &Server,
    chunks: &[&[u8]],
    declared: &str,
    final_chunk: bool,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Answer {
    let call = server
        .request("PUT", "/bucket/key")
        .header("x-amz-decoded-content-length", declared)
        .header("content-encoding", "aws-chunked")
        .payload(SIGNED);
    let (call, seed) = call.sign();
    let body = change(call.signer.chunked(&seed, chunks, final_chunk));
    call.body(body).send_as_is().await
}

#[tokio::test]
async fn signed_chunks_are_stored() {
    let server = Server::with_bucket().await;
    let empty = chunked(&server, &[], "0", true, |body| body).await;
    assert_eq!(empty.status, 200, "{empty:?}");
    let stored = chunked(&server, &[b"hello ", b"world"], "11", true, |body| body).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    let read = server.get("/bucket/key").await;
    assert_eq!(
        (read.text().as_str(), read.header("content-encoding")),
        ("hello world", None)
    );
}

// ATTACKS 6, 7, 9, 10: chunks that are altered, missing, exchanged or malformed.
#[tokio::test]
async fn altered_chunks_are_refused_and_nothing_is_stored() {
    let server = Server::with_bucket().await;
    let chunks: &[&[u8]] = &[b"hello ", b"world "];
    let swap = |from: &'static str, to: &'static str| {
        move |body: Vec<u8>| {
            let text = String::from_utf8(body).unwrap();
            assert!(text.contains(from));
            text.replacen(from, to, 1).into_bytes()
        }
    };
    let altered = chunked(&server, chunks, "12", true, swap("world", "w0rld")).await;
    altered.refused(403, "SignatureDoesNotMatch");
    let exchanged = chunked(&server, &[b"aaaaaa", b"bbbbbb"], "12", true, |body| {
        let half = (body.len() - 87 - 1) / 2;
        let (one, rest) = body.split_at(half);
        let (two, end) = rest.split_at(half);
        [two, one, end].concat()
    });
    let exchanged = exchanged.await;
    assert!(
        exchanged.status == 403 || exchanged.status == 400,
        "{exchanged:?}"
    );
    chunked(&server, chunks, "12", false, |body| body)
        .await
        .refused(400, "IncompleteBody");
    for declared in ["11", "13", "99999999999"] {
        let lied = chunked(&server, chunks, declared, true, |body| body).await;
        assert_eq!(lied.status, 400, "{declared}: {lied:?}");
    }
    for declared in ["-1", "abc", "99999999999999999999999"] {
        let lied = chunked(&server, chunks, declared, true, |body| body).await;
        assert_eq!(lied.status, 400, "{declared}: {lied:?}");
    }
    let nothing = chunked(&server, &[], "0", false, |body| body).await;
    nothing.refused(400, "IncompleteBody");
    let malformed = chunked(&server, chunks, "12", true, swap("6;chunk", "zz;chunk")).await;
    malformed.refused(400, "IncompleteBody");
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
}

/// A PUT with an unsigned body and a trailer.
async fn trailed(server: &Server, declare: Option<&str>, body: &str) -> Answer {
    let mut call = server
        .request("PUT", "/bucket/key")
        .header("x-amz-decoded-content-length", "11")
        .header("content-encoding", "aws-chunked")
        .payload(UNSIGNED_TRAILER);
    if let Some(name) = declare {
        call = call.header("x-amz-trailer", name);
    }
    let (call, _) = call.sign();
    call.body(body.to_owned()).send_as_is().await
}

// ATTACKS 8: trailers that are missing, altered, wrong or not declared.
#[tokio::test]
async fn trailers_are_verified() {
    let server = Server::with_bucket().await;
    let crc = Some("x-amz-checksum-crc32");
    let data = "b\r\nhello world\r\n0\r\n";
    for (declare, end, status) in [
        (crc, "\r\n", 400),
        (crc, "x-amz-checksum-crc32:AAAAAA==\r\n\r\n", 400),
        (crc, "x-amz-checksum-crc32:nonsense\r\n\r\n", 400),
        (crc, "x-amz-checksum-sha1:AAAAAA==\r\n\r\n", 400),
        (
            crc,
            "x-amz-checksum-crc32:DUoRhQ==\r\nx-amz-meta-evil:1\r\n\r\n",
            400,
        ),
        (Some("x-amz-meta-evil"), "x-amz-meta-evil:1\r\n\r\n", 400),
        (None, "x-amz-checksum-crc32:DUoRhQ==\r\n\r\n", 400),
    ] {
        let answer = trailed(&server, declare, &format!("{data}{end}")).await;
        assert_eq!(answer.status, status, "{declare:?} {end:?}: {answer:?}");
    }
    // Without the final chunk there is no trailer either.
    let cut = trailed(&server, crc, "b\r\nhello world\r\n").await;
    assert_eq!(cut.status, 400, "{cut:?}");
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
    let stored = trailed(
        &server,
        crc,
        &format!("{data}x-amz-checksum-crc32:{CRC}\r\n\r\n"),
    )
    .await;
    assert_eq!(
        (stored.status, stored.header("x-amz-checksum-crc32")),
        (200, Some(CRC))
    );
    assert_eq!(server.get("/bucket/key").await.text(), "hello world");
}

/// A PUT with signed chunks and a signed trailer.
async fn chunked_and_trailed(server: &Server, change: impl FnOnce(String) -> String) -> Answer {
    let call = server
        .request("PUT", "/bucket/key")
        .header("x-amz-decoded-content-length", "11")
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("content-encoding", "aws-chunked")
        .payload("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
    let (call, seed) = call.sign();
    let body = call.signer.chunked(&seed, &[b"hello ", b"world"], true);
    // The final chunk ends with its line: the trailer follows.
    let body = String::from_utf8(body).unwrap();
    let body = body.strip_suffix("\r\n").unwrap();
    let last = body.trim_end().rsplit('=').next().unwrap().to_owned();
    let trailer = format!("x-amz-checksum-crc32:{CRC}\n");
    let text = format!(
        "AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{last}\n{}",
        call.signer.date,
        call.signer.scope(),
        super::signer::sha256(trailer.as_bytes())
    );
    let signature = hex::encode(super::signer::hmac(&call.signer.key(), &text));
    let whole =
        format!("{body}x-amz-checksum-crc32:{CRC}\r\nx-amz-trailer-signature:{signature}\r\n\r\n");
    call.body(change(whole)).send_as_is().await
}

// ATTACKS 6, 8: signed chunks with a signed trailer.
#[tokio::test]
async fn signed_trailers_are_verified() {
    let server = Server::with_bucket().await;
    let cut = |text: String, at: &str| text.split_once(at).unwrap().0.to_owned();
    for (what, change) in [
        (
            "another checksum",
            Box::new(|text: String| text.replace(CRC, "AAAAAA==")) as Box<dyn Fn(String) -> String>,
        ),
        (
            "no signature",
            Box::new(move |text| cut(text, "x-amz-trailer-signature") + "\r\n"),
        ),
        (
            "no trailer",
            Box::new(move |text| cut(text, "x-amz-checksum") + "\r\n"),
        ),
        (
            "no final chunk",
            Box::new(move |text| cut(text, "0;chunk-signature")),
        ),
        (
            "another byte",
            Box::new(|text| text.replace("world", "w0rld")),
        ),
        (
            "one trailer more",
            Box::new(|text| {
                text.replace(
                    "x-amz-trailer-signature",
                    "x-amz-meta-evil:1\r\nx-amz-trailer-signature",
                )
            }),
        ),
    ] {
        let answer = chunked_and_trailed(&server, change).await;
        assert!((400..404).contains(&answer.status), "{what}: {answer:?}");
        server.get("/bucket/key").await.refused(404, "NoSuchKey");
    }
    let stored = chunked_and_trailed(&server, |text| text).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    assert_eq!(server.get("/bucket/key").await.text(), "hello world");
}

// ATTACKS 11: a body that is not what was signed.
#[tokio::test]
async fn a_body_must_be_the_signed_one() {
    let server = Server::with_bucket().await;
    let (call, _) = server.request("PUT", "/bucket/key").body("hello").sign();
    let mut other = call.clone();
    other.body = "hellO".into();
    let answer = other.send_as_is().await;
    answer.refused(400, "XAmzContentSHA256Mismatch");
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
    assert_eq!(call.send_as_is().await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_stores_nothing() {
    let server = Server::with_bucket().await;
    let (call, _) = server
        .request("PUT", "/bucket/key")
        .payload(UNSIGNED)
        .body("0123456789")
        .sign();
    let bytes = call.bytes();
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let cut = &bytes[..bytes.len() - 4];
    tokio::io::AsyncWriteExt::write_all(&mut stream, cut)
        .await
        .unwrap();
    drop(stream);
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
}

/// A browser's form.
fn form(fields: &[(&str, &str)], file: &str) -> (String, String) {
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!(
            "--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    body.push_str(&format!(
        "--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"up.txt\"\r\n\
         content-type: text/plain\r\n\r\n{file}\r\n--edge--\r\n"
    ));
    ("multipart/form-data; boundary=edge".to_owned(), body)
}

/// A form as it is signed, `age` seconds ago.
async fn post_form_of(
    server: &Server,
    policy: &str,
    tamper: bool,
    more: &[(&str, &str)],
    age: i64,
) -> Answer {
    use base64::Engine as _;
    let mut signer = server.request("POST", "/bucket").signer;
    signer.date = super::signer::date(-age);
    let credential = format!("{}/{}", signer.access, signer.scope());
    let policy = policy
        .replace("CREDENTIAL", &credential)
        .replace("DATE", &signer.date);
    let policy = base64::engine::general_purpose::STANDARD.encode(policy);
    let mut signature = hex::encode(super::signer::hmac(&signer.key(), &policy));
    if tamper {
        signature.replace_range(..1, if signature.starts_with('0') { "1" } else { "0" });
    }
    let mut fields = vec![
        ("policy", policy.as_str()),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", &credential),
        ("x-amz-date", &signer.date),
        ("x-amz-signature", &signature),
        ("success_action_status", "201"),
    ];
    fields.extend(more);
    let (kind, body) = form(&fields, "from a form");
    let call: Call = server
        .request("POST", "/bucket")
        .unsigned("content-type", &kind)
        .body(body);
    call.send_as_is().await
}

async fn post_form(server: &Server, policy: &str, tamper: bool, key: &str) -> Answer {
    post_form_of(server, policy, tamper, &[("key", key)], 0).await
}

fn policy_until(expiration: &str, conditions: &str) -> String {
    format!(
        r#"{{"expiration":"{expiration}","conditions":[{{"bucket":"bucket"}},{conditions}
        {{"x-amz-credential":"CREDENTIAL"}},{{"x-amz-algorithm":"AWS4-HMAC-SHA256"}},
        {{"x-amz-date":"DATE"}},{{"success_action_status":"201"}},{{"key":"key"}}]}}"#
    )
}

// A page is open for longer than a request is under way.
#[tokio::test]
async fn forms_are_taken_until_their_policy_ends() {
    let server = Server::with_bucket().await;
    let send = async |expiration: &str, age: i64| {
        let policy = policy_until(expiration, "");
        post_form_of(&server, &policy, false, &[("key", "key")], age).await
    };
    let day = 24 * 3600;
    for age in [0, 3600, 6 * day] {
        let answer = send("2094-01-01T00:00:00Z", age).await;
        assert_eq!(answer.status, 201, "{age}: {answer:?}");
        assert!(answer.header("etag").is_some(), "{answer:?}");
    }
    let answer = send("2094-01-01T00:00:00Z", 8 * day).await;
    answer.refused(403, "RequestTimeTooSkewed");
    let answer = send("2020-01-01T00:00:00Z", 0).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    // Nothing else is taken for longer because it calls itself a form.
    for kind in ["multipart/form-data; boundary=edge", "multipart/form-dataX"] {
        let mut call = server
            .request("POST", "/bucket")
            .query("delete", "")
            .header("content-type", kind)
            .body("--edge--\r\n");
        call.signer.date = super::signer::date(-3600);
        let answer = call.send().await;
        assert!((400..404).contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn what_a_form_says_of_its_file_is_verified() {
    let server = Server::with_bucket().await;
    let send = async |name: &str, value: &str| {
        let policy = policy_until(
            "2094-01-01T00:00:00Z",
            &format!(r#"{{"{name}":"{value}"}},"#),
        );
        post_form_of(&server, &policy, false, &[("key", "key"), (name, value)], 0).await
    };
    for (name, value, code) in [
        ("x-amz-checksum-crc32", "AAAAAA==", "BadDigest"),
        ("x-amz-checksum-crc32", "nonsense", "InvalidRequest"),
        ("x-amz-checksum-sha512", "AAAAAA==", "InvalidRequest"),
        ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==", "BadDigest"),
        ("content-md5", "nonsense", "InvalidDigest"),
        (
            "x-amz-grant-read",
            "id=somebody",
            "AccessControlListNotSupported",
        ),
    ] {
        send(name, value).await.refused(400, code);
    }
    server.get("/bucket/key").await.refused(404, "NoSuchKey");
    let crc = send("x-amz-checksum-crc32", "V3arGQ==").await;
    assert_eq!(crc.status, 201, "{crc:?}");
    let told = server
        .request("HEAD", "/bucket/key")
        .header("x-amz-checksum-mode", "ENABLED");
    let told = told.send().await;
    assert_eq!(told.header("x-amz-checksum-crc32"), Some("V3arGQ=="));
    send("if-none-match", "*")
        .await
        .refused(412, "PreconditionFailed");
}

// ATTACKS 42: forms outside of their policy.
#[tokio::test]
async fn forms_are_taken_within_their_policy() {
    let server = Server::with_bucket().await;
    let policy = |bucket: &str, range: &str| {
        format!(
            r#"{{"expiration":"2094-01-01T00:00:00Z","conditions":[{{"bucket":"{bucket}"}},
            ["starts-with","$key","in/"],["content-length-range",{range}],
            {{"x-amz-credential":"CREDENTIAL"}},{{"x-amz-algorithm":"AWS4-HMAC-SHA256"}},
            {{"x-amz-date":"DATE"}},{{"success_action_status":"201"}}]}}"#
        )
    };
    let good = policy("bucket", "1,100");
    let stored = post_form(&server, &good, false, "in/${filename}").await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(server.get("/bucket/in/up.txt").await.text(), "from a form");
    post_form(&server, &good, true, "in/x")
        .await
        .refused(403, "SignatureDoesNotMatch");
    for (policy, key) in [
        (&good, "out/x"),
        (&policy("other", "1,100"), "in/x"),
        (&policy("bucket", "1,3"), "in/x"),
        (&policy("bucket", "50,100"), "in/x"),
    ] {
        let answer = post_form(&server, policy, false, key).await;
        assert!((400..404).contains(&answer.status), "{key}: {answer:?}");
    }
    let (kind, body) = form(&[("key", "anonymous")], "x");
    let anonymous = server
        .request("POST", "/bucket")
        .unsigned("content-type", &kind)
        .body(body);
    anonymous.send_as_is().await.refused(403, "AccessDenied");
    let listed = server.get("/bucket").await;
    assert_eq!(listed.elements("Key"), ["in/up.txt"]);
    assert_eq!(encode("a b", true), "a%20b");
}

// A client that was answered before it sent its body must not think that the
// connection can be used again.
#[tokio::test]
async fn an_early_answer_ends_the_connection() {
    let server = Server::with_bucket().await;
    let call = server
        .request("PUT", "/bucket/key")
        .query("partNumber", "0")
        .query("uploadId", "0");
    let (call, _) = call
        .payload(UNSIGNED)
        .body("x")
        .header("expect", "100-continue")
        .sign();
    let bytes = String::from_utf8(call.bytes()).unwrap();
    let head = bytes.replace("connection: close\r\n", "");
    let head = head.strip_suffix('x').unwrap();
    let answer = server.raw(head.as_bytes()).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (400, Some("close"))
    );
    let read = server.put("/bucket/key", b"x").await;
    assert_eq!(read.status, 200);
}

#[tokio::test]
async fn a_request_without_a_body_needs_no_hash() {
    let server = Server::with_bucket().await;
    let get = server.request("GET", "/bucket").without_hash();
    assert_eq!(get.send_as_is().await.status, 200);
    let put = server
        .request("PUT", "/bucket/key")
        .body("x")
        .without_hash();
    put.send_as_is().await.refused(400, "InvalidRequest");
}
