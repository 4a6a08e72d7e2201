//! The digest of a document in a request's body: DeleteObjects and its like.
//!
//! s3s parses such bodies before any of our code sees them, so that their
//! `Content-MD5` and checksums are verified on the way in. The bodies of
//! objects are verified by the object path instead.

use http::HeaderMap;
use md5::{Digest as _, Md5};
use s3s::S3Result;
use shardgate_catalog::model::ChecksumAlgorithm;

use super::checksum::{content_md5, header_digest};

/// Digests that a document must have, and what was seen of it.
pub(crate) struct DocumentDigest {
    md5: Option<(Md5, [u8; 16])>,
    checksum: Option<(Running, Vec<u8>)>,
}

/// A digest in the making.
pub(crate) enum Running {
    Crc(crc_fast::Digest, usize),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Running {
    /// Begins a digest.
    pub(crate) fn new(algorithm: ChecksumAlgorithm) -> Self {
        use crc_fast::CrcAlgorithm as Crc;
        let crc = |which, len| Self::Crc(crc_fast::Digest::new(which), len);
        match algorithm {
            ChecksumAlgorithm::Crc32 => crc(Crc::Crc32IsoHdlc, 4),
            ChecksumAlgorithm::Crc32c => crc(Crc::Crc32Iscsi, 4),
            ChecksumAlgorithm::Crc64Nvme => crc(Crc::Crc64Nvme, 8),
            ChecksumAlgorithm::Sha1 => Self::Sha1(sha1::Sha1::default()),
            ChecksumAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::default()),
        }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc, _) => crc.update(bytes),
            Self::Sha1(sha) => sha.update(bytes),
            Self::Sha256(sha) => sha.update(bytes),
        }
    }

    /// The digest, big-endian.
    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(crc, len) => crc.finalize().to_be_bytes()[8 - len..].to_vec(),
            Self::Sha1(sha) => sha.finalize().to_vec(),
            Self::Sha256(sha) => sha.finalize().to_vec(),
        }
    }
}

impl DocumentDigest {
    /// What the document of a request must match; `None` if it says nothing,
    /// or comes in chunks, which are signed.
    pub(crate) fn of_request(query: &str, headers: &HeaderMap) -> S3Result<Option<Self>> {
        let streaming = headers
            .get("x-amz-content-sha256")
            .is_some_and(|hash| hash.as_bytes().starts_with(b"STREAMING-"));
        if streaming {
            return Ok(None);
        }
        let md5 = content_md5(headers)?.map(|expected| (Md5::default(), expected));
        // On CompleteMultipartUpload a checksum is that of the object.
        let deletes = query
            .split('&')
            .any(|pair| pair == "delete" || pair.starts_with("delete="));
        let checksum = match header_digest(headers)? {
            Some((algorithm, expected)) if deletes => Some((Running::new(algorithm), expected)),
            _ => None,
        };
        if md5.is_none() && checksum.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { md5, checksum }))
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some((running, _)) = &mut self.md5 {
            running.update(bytes);
        }
        if let Some((running, _)) = &mut self.checksum {
            running.update(bytes);
        }
    }

    /// Whether all bytes together are what was said; asked once.
    pub(crate) fn matches(&mut self) -> bool {
        let md5 = self
            .md5
            .take()
            .is_none_or(|(running, expected)| running.finalize()[..] == expected);
        let checksum = self
            .checksum
            .take()
            .is_none_or(|(running, expected)| running.finish() == expected);
        md5 && checksum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(query: &str, name: &'static str, value: &str) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let digest = DocumentDigest::of_request(query, &headers).unwrap();
        digest.map(|mut digest| {
            digest.update(b"123");
            digest.update(b"456789");
            digest.matches()
        })
    }

    #[test]
    fn documents_are_compared_with_their_digests() {
        for (name, value) in [
            ("content-md5", "JfnnlDI7RTiF9RgfG2JNCw=="),
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            ("x-amz-checksum-crc32c", "4waSgw=="),
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            (
                "x-amz-checksum-sha256",
                "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
            ),
        ] {
            let verdict = verdict("delete", name, value);
            assert_eq!(verdict, Some(true), "{name}");
        }
        let crc = "AAAAAA==";
        assert_eq!(verdict("uploadId=x", "x-amz-checksum-crc32", crc), None);
        assert_eq!(verdict("delete", "x-amz-checksum-crc32", crc), Some(false));
    }
}
