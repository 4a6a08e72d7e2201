//! Presigned links, for the lines that `demo` prints.
//!
//! Signature Version 4 in the query, as the S3 API reference describes it
//! under "Authenticating Requests: Using Query Parameters".

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// How long the printed links are valid, seconds: a day.
const VALID_SECONDS: u32 = 86_400;

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A link to `path` (unreserved characters and slashes only) on `host`.
pub fn link(
    (access, secret): (&str, &str),
    region: &str,
    method: &str,
    host: &str,
    path: &str,
    now: OffsetDateTime,
) -> String {
    let stamp = now
        .format(format_description!(
            "[year][month][day]T[hour][minute][second]Z"
        ))
        .expect("the format has no fallible part");
    let day = &stamp[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={stamp}\
         &X-Amz-Expires={VALID_SECONDS}&X-Amz-SignedHeaders=host",
        access,
        scope.replace('/', "%2F"),
    );
    let canonical = format!("{method}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let digest = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}");
    let secret = format!("AWS4{}", secret);
    let key = [region, "s3", "aws4_request"]
        .iter()
        .fold(hmac(secret.as_bytes(), day), |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &to_sign));
    format!("http://{host}{path}?{query}&X-Amz-Signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The example of the API reference: its keys, request and signature.
    #[test]
    fn signs_as_the_api_reference_does() {
        let keys = (
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
        let now = datetime!(2013-05-24 00:00:00 UTC);
        let host = "examplebucket.s3.amazonaws.com";
        let link = link(keys, "us-east-1", "GET", host, "/test.txt", now);
        assert!(
            link.ends_with("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
            "{link}"
        );
    }
}
