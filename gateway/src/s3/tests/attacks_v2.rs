//! Attacks on signatures of version 2, and what is asked of them.

use super::attacks::with_secret;
use super::client::{ACCESS, SECRET, Server};
use crate::s3::S3Settings;

// What `s3cmd --signature-v2` sends: the date of mail in `x-amz-date`.
#[tokio::test]
async fn version_2_with_a_date_of_mail() {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit, Mac};
    let server = with_secret().await;
    let mail = |offset: i64| {
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] +0000"
        );
        let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(offset);
        at.format(format).unwrap()
    };
    let get_with = |date: String, secret: &str, path: &str, signed_path: &str, range: &str| {
        let text = format!("GET\n\n\n\nx-amz-date:{date}\n{signed_path}");
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature =
            base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        server
            .request("GET", path)
            .unsigned("x-amz-date", &date)
            .unsigned("authorization", &format!("AWS {ACCESS}:{signature}"))
            .unsigned("range", range)
            .send_as_is()
    };
    let get = |date, secret, path, signed_path| get_with(date, secret, path, signed_path, "");
    let path = "/bucket/secret";
    let answer = get(mail(0), SECRET, path, path).await;
    assert_eq!(answer.text(), "confidential", "{answer:?}");
    // A range that S3 ignores, one that it takes.
    for (range, status, body) in [
        ("bytes=9-5", 200, "confidential"),
        ("bytes=0-1,3-4", 200, "confidential"),
        ("lines=1-2", 200, "confidential"),
        ("bytes=3-5", 206, "fid"),
    ] {
        let answer = get_with(mail(0), SECRET, path, path, range).await;
        assert_eq!(
            (answer.status, answer.text()),
            (status, body.to_owned()),
            "{range}"
        );
    }
    get(mail(0), "wrong", path, path)
        .await
        .refused(403, "SignatureDoesNotMatch");
    get(mail(0), SECRET, path, "/bucket/other")
        .await
        .refused(403, "SignatureDoesNotMatch");
    get(mail(-3600), SECRET, path, path)
        .await
        .refused(403, "RequestTimeTooSkewed");
    get("long ago".into(), SECRET, path, path)
        .await
        .refused(403, "AccessDenied");
}

/// A version 2 signature in the query.
fn link_v2(path: &str, expires: i64) -> String {
    link_v2_of("GET", path, expires)
}

pub(super) fn link_v2_of(method: &str, path: &str, expires: i64) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{method}\n\n\n{expires}\n{path}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let signature = super::signer::encode(&signature, false);
    format!("{path}?AWSAccessKeyId={ACCESS}&Expires={expires}&Signature={signature}")
}

/// The head of a GET, in two halves between which headers may stand.
fn halves_of_get(server: &Server, target: &str) -> (String, String) {
    let address = server.address;
    (
        format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n"),
        "connection: close\r\n\r\n".to_owned(),
    )
}

#[tokio::test]
async fn version_2_links_are_a_setting() {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let get = |server: &Server, target: String| {
        let address = server.address;
        format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")
    };
    let server = with_secret().await;
    let fresh = link_v2("/bucket/secret", now + 60);
    let answer = server.raw(get(&server, fresh.clone()).as_bytes()).await;
    assert_eq!(answer.text(), "confidential");
    let late = get(&server, link_v2("/bucket/secret", now - 60));
    server
        .raw(late.as_bytes())
        .await
        .refused(403, "AccessDenied");
    // ATTACKS 1, 2: headers that were not signed.
    for more in [
        "x-amz-copy-source: /bucket/secret",
        "x-amz-meta-evil: 1",
        "x-amz-security-token: forged",
    ] {
        let (head, rest) = halves_of_get(&server, &fresh);
        let answer = server
            .raw(format!("{head}{more}\r\n{rest}").as_bytes())
            .await;
        answer.refused(403, "SignatureDoesNotMatch");
    }
    let other = get(&server, fresh.replace("/bucket/secret", "/bucket/other"));
    server
        .raw(other.as_bytes())
        .await
        .refused(403, "SignatureDoesNotMatch");

    let strict = Server::with(S3Settings {
        signature_v2: false,
        ..S3Settings::default()
    })
    .await;
    let answer = strict.raw(get(&strict, fresh).as_bytes()).await;
    answer.refused(403, "AccessDenied");
}
