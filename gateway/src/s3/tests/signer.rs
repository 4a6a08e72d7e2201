//! A small signer of version 4, written from AWS's description and not from
//! the code under test; and version 2 for links.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// SHA-256 of nothing.
pub(crate) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) access: String,
    pub(crate) secret: String,
    pub(crate) region: String,
    pub(crate) service: String,
    /// `20261124T120000Z`
    pub(crate) date: String,
}

pub(crate) fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Percent-encodes all but the unreserved characters (and `/` in paths).
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        let plain = b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || (keep_slash && b == b'/');
        if plain {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// The time `offset` seconds from now, as signatures write it.
pub(crate) fn date(offset: i64) -> String {
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(offset);
    at.format(format).unwrap()
}

impl Signer {
    pub(crate) fn new(access: &str, secret: &str) -> Self {
        Self {
            access: access.to_owned(),
            secret: secret.to_owned(),
            region: "us-east-1".to_owned(),
            service: "s3".to_owned(),
            date: date(0),
        }
    }

    pub(crate) fn scope(&self) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            &self.date[..8],
            self.region,
            self.service
        )
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [&self.date[..8], &self.region, &self.service, "aws4_request"] {
            key = hmac(&key, part);
        }
        key
    }

    /// Signature over a request. `headers` in lower case and sorted; a header
    /// that repeats is given once, joined.
    pub(crate) fn signature(
        &self,
        method: &str,
        path: &str,
        query: &[(String, String)],
        headers: &[(String, String)],
        payload: &str,
    ) -> String {
        let mut query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
            .collect();
        query.sort();
        let mut canonical = format!("{method}\n{}\n{}\n", encode(path, true), query.join("&"));
        for (name, value) in headers {
            canonical.push_str(&format!("{name}:{}\n", value.trim()));
        }
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        canonical.push_str(&format!("\n{}\n{payload}", names.join(";")));
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            self.date,
            self.scope(),
            sha256(canonical.as_bytes())
        );
        hex::encode(hmac(&self.key(), &text))
    }

    /// A signed aws-chunked body: the chunks, and the seed signature's chain.
    pub(crate) fn chunked(&self, seed: &str, chunks: &[&[u8]], final_chunk: bool) -> Vec<u8> {
        let mut body = Vec::new();
        let mut previous = seed.to_owned();
        let ends: &[&[u8]] = if final_chunk { &[b""] } else { &[] };
        for chunk in chunks.iter().chain(ends) {
            let text = format!(
                "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{previous}\n{EMPTY}\n{}",
                self.date,
                self.scope(),
                sha256(chunk)
            );
            previous = hex::encode(hmac(&self.key(), &text));
            body.extend(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body
    }
}
