//! The checksums of a request: `Content-MD5`, `x-amz-checksum-*` in headers
//! and in trailers.
//!
//! Reads what the client declares, and refuses what contradicts itself before
//! a byte is stored. The bytes are compared by the object path; the value of
//! a trailer reaches it through [`trailer_value`], which refuses a trailer
//! that is missing, was not declared, or cannot be read.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::{S3Result, TrailingHeaders, s3_error};
use shardgate_catalog::model::{ChecksumAlgorithm, ChecksumKind, StoredChecksum};

use crate::object::{BodyError, ChecksumRequest, ExpectedDigest, TrailerValue};

/// The algorithms, with the header that carries each.
pub(crate) const ALGORITHMS: [(ChecksumAlgorithm, &str, &str); 5] = [
    (ChecksumAlgorithm::Crc32, "CRC32", "x-amz-checksum-crc32"),
    (ChecksumAlgorithm::Crc32c, "CRC32C", "x-amz-checksum-crc32c"),
    (
        ChecksumAlgorithm::Crc64Nvme,
        "CRC64NVME",
        "x-amz-checksum-crc64nvme",
    ),
    (ChecksumAlgorithm::Sha1, "SHA1", "x-amz-checksum-sha1"),
    (ChecksumAlgorithm::Sha256, "SHA256", "x-amz-checksum-sha256"),
];

/// Headers that begin alike and carry no digest.
const NOT_DIGESTS: [&str; 3] = [
    "x-amz-checksum-mode",
    "x-amz-checksum-type",
    "x-amz-checksum-algorithm",
];

/// Bytes of an algorithm's digest.
pub(crate) fn digest_len(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

/// An algorithm's name in S3.
pub(crate) fn algorithm_name(algorithm: ChecksumAlgorithm) -> &'static str {
    let found = ALGORITHMS.iter().find(|(known, ..)| *known == algorithm);
    found.map_or("", |(_, name, _)| name)
}

/// The algorithm of a name, refused if it is none that is served.
pub(crate) fn parse_algorithm(name: &str) -> S3Result<ChecksumAlgorithm> {
    let found = ALGORITHMS
        .iter()
        .find(|(_, known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(algorithm, ..)| *algorithm).ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
        )
    })
}

/// The kind of a `x-amz-checksum-type`.
pub(crate) fn parse_kind(name: &str) -> S3Result<ChecksumKind> {
    match name {
        "FULL_OBJECT" => Ok(ChecksumKind::FullObject),
        "COMPOSITE" => Ok(ChecksumKind::Composite),
        _ => Err(s3_error!(
            InvalidRequest,
            "Value for x-amz-checksum-type header is invalid."
        )),
    }
}

/// The name of a kind.
pub(crate) fn kind_name(kind: ChecksumKind) -> &'static str {
    match kind {
        ChecksumKind::FullObject => "FULL_OBJECT",
        ChecksumKind::Composite => "COMPOSITE",
    }
}

/// What an upload's checksum covers where the client does not say: as in S3,
/// CRC64NVME is always of the whole object, the others of the parts.
pub(crate) fn default_kind(algorithm: ChecksumAlgorithm) -> ChecksumKind {
    match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumKind::FullObject,
        _ => ChecksumKind::Composite,
    }
}

/// Refuses kinds that an algorithm does not have.
pub(crate) fn check_kind(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> S3Result<()> {
    let served = match algorithm {
        ChecksumAlgorithm::Crc64Nvme => kind == ChecksumKind::FullObject,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => kind == ChecksumKind::Composite,
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => true,
    };
    if served {
        return Ok(());
    }
    Err(s3_error!(
        InvalidRequest,
        "The {} checksum type cannot be used with the {} checksum algorithm.",
        kind_name(kind),
        algorithm_name(algorithm)
    ))
}

/// The text of a stored checksum, with the number of parts of a composite.
pub(crate) fn checksum_text(checksum: &StoredChecksum, parts: u16) -> String {
    let text = STANDARD.encode(&checksum.digest);
    match checksum.kind {
        ChecksumKind::Composite if parts > 0 => format!("{text}-{parts}"),
        _ => text,
    }
}

/// Reads the base64 of a digest; a composite's `-N` is cut off first.
pub(crate) fn parse_digest(algorithm: ChecksumAlgorithm, text: &str) -> S3Result<Vec<u8>> {
    let digest = STANDARD.decode(text.trim()).ok();
    digest
        .filter(|digest| digest.len() == digest_len(algorithm))
        .ok_or_else(|| {
            s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-{} header is invalid.",
                algorithm_name(algorithm).to_ascii_lowercase()
            )
        })
}

/// Reads `Content-MD5`.
pub(crate) fn content_md5(headers: &HeaderMap) -> S3Result<Option<[u8; 16]>> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    let digest = STANDARD.decode(value.as_bytes().trim_ascii()).ok();
    let digest = digest.and_then(|digest| <[u8; 16]>::try_from(digest).ok());
    match digest {
        Some(digest) => Ok(Some(digest)),
        None => Err(s3_error!(
            InvalidDigest,
            "The Content-MD5 you specified was invalid."
        )),
    }
}

/// The checksum that the body must have, from its headers and trailers.
pub(crate) fn requested(
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<Option<ChecksumRequest>> {
    let in_header = header_digest(headers)?;
    let in_trailer = declared_trailer(headers, trailers)?;
    let request = match (in_header, in_trailer) {
        (Some(_), Some(_)) => return Err(more_than_one()),
        (Some((algorithm, digest)), None) => Some(ChecksumRequest {
            algorithm,
            expected: ExpectedDigest::Value(digest),
        }),
        (None, Some((algorithm, value))) => Some(ChecksumRequest {
            algorithm,
            expected: ExpectedDigest::Trailer(value),
        }),
        (None, None) => None,
    };
    agree_with_sdk(headers, request.as_ref())?;
    Ok(request)
}

/// The digest in the headers: one at most.
pub(crate) fn header_digest(headers: &HeaderMap) -> S3Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
    let mut found = None;
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-checksum-") || NOT_DIGESTS.contains(&name) {
            continue;
        }
        if found.is_some() {
            return Err(more_than_one());
        }
        let algorithm = parse_algorithm(&name["x-amz-checksum-".len()..])?;
        let text = value.to_str().unwrap_or_default();
        found = Some((algorithm, parse_digest(algorithm, text)?));
    }
    Ok(found)
}

fn more_than_one() -> s3s::S3Error {
    s3_error!(
        InvalidRequest,
        "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
    )
}

/// The trailer that `x-amz-trailer` declares.
fn declared_trailer(
    headers: &HeaderMap,
    trailers: Option<&TrailingHeaders>,
) -> S3Result<Option<(ChecksumAlgorithm, TrailerValue)>> {
    let Some(declared) = headers.get("x-amz-trailer") else {
        return Ok(None);
    };
    let name = declared.to_str().unwrap_or_default().trim();
    let known = ALGORITHMS
        .iter()
        .find(|(_, _, header)| header.eq_ignore_ascii_case(name));
    let (Some((algorithm, _, header)), Some(trailers)) = (known, trailers) else {
        return Err(s3_error!(
            InvalidRequest,
            "The value specified in the x-amz-trailer header is not supported"
        ));
    };
    Ok(Some((
        *algorithm,
        trailer_value(*algorithm, header, trailers.clone()),
    )))
}

/// Reads the trailer after the end of the body.
fn trailer_value(
    algorithm: ChecksumAlgorithm,
    header: &'static str,
    trailers: TrailingHeaders,
) -> TrailerValue {
    Arc::new(move || {
        let read = trailers.read(|found| {
            let mut names = found.keys();
            // A trailer that nobody declared is refused with the body.
            if names.any(|name| name.as_str() != header) {
                return Err(TrailerFault::Undeclared);
            }
            let mut values = found.get_all(header).iter();
            match (values.next(), values.next()) {
                (None, _) => Err(TrailerFault::Missing),
                (Some(_), Some(_)) => Err(TrailerFault::Unreadable),
                (Some(value), None) => value
                    .to_str()
                    .ok()
                    .and_then(|text| parse_digest(algorithm, text).ok())
                    .ok_or(TrailerFault::Unreadable),
            }
        });
        match read.unwrap_or(Err(TrailerFault::Missing)) {
            Ok(digest) => Ok(Some(digest)),
            Err(fault) => Err(BodyError(Box::new(fault))),
        }
    })
}

/// What is wrong with the trailers of a body.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TrailerFault {
    /// Declared, and did not come.
    #[error("the trailer that was declared did not come")]
    Missing,
    /// Came without being declared.
    #[error("a trailer came that was not declared")]
    Undeclared,
    /// Not the digest of its algorithm, or given twice.
    #[error("the trailer's value cannot be read")]
    Unreadable,
}

/// What SDKs say beside the checksum must agree with it.
fn agree_with_sdk(headers: &HeaderMap, request: Option<&ChecksumRequest>) -> S3Result<()> {
    let Some(named) = headers.get("x-amz-sdk-checksum-algorithm") else {
        return Ok(());
    };
    let named = parse_algorithm(named.to_str().unwrap_or_default())?;
    match request {
        Some(request) if request.algorithm == named => Ok(()),
        Some(_) => Err(s3_error!(
            InvalidRequest,
            "Value for x-amz-sdk-checksum-algorithm header is invalid."
        )),
        None => Err(s3_error!(
            InvalidRequest,
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn refused(pairs: &[(&'static str, &str)]) -> bool {
        requested(&headers(pairs), None).is_err()
    }

    #[test]
    fn one_checksum_is_taken_and_contradictions_are_refused() {
        let crc = ("x-amz-checksum-crc32", "AAAAAA==");
        let sha = (
            "x-amz-checksum-sha256",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        );
        let request = requested(
            &headers(&[crc, ("x-amz-sdk-checksum-algorithm", "CRC32")]),
            None,
        );
        let request = request.unwrap().unwrap();
        assert_eq!(request.algorithm, ChecksumAlgorithm::Crc32);
        assert!(matches!(request.expected, ExpectedDigest::Value(v) if v == [0; 4]));
        assert!(requested(&HeaderMap::new(), None).unwrap().is_none());
        assert!(
            requested(&headers(&[("x-amz-checksum-mode", "ENABLED")]), None)
                .unwrap()
                .is_none()
        );

        for pairs in [
            &[crc, sha][..],
            &[("x-amz-checksum-crc32", "AAAA")],
            &[("x-amz-checksum-crc32", "not base64!")],
            &[("x-amz-checksum-crc32", "")],
            &[("x-amz-checksum-sha512", "AAAAAA==")],
            &[("x-amz-checksum-xxhash3", "AAAAAA==")],
            &[("x-amz-sdk-checksum-algorithm", "CRC32")],
            &[crc, ("x-amz-sdk-checksum-algorithm", "SHA256")],
            &[crc, ("x-amz-sdk-checksum-algorithm", "MD4")],
            // A trailer can come with a streaming signature only.
            &[("x-amz-trailer", "x-amz-checksum-crc32")],
            &[("x-amz-trailer", "x-amz-meta-injected")],
        ] {
            assert!(refused(pairs), "{pairs:?}");
        }
    }

    #[test]
    fn content_md5_is_16_bytes_or_refused() {
        let good = headers(&[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")]);
        assert_eq!(content_md5(&good).unwrap().unwrap()[0], 0xd4);
        for wrong in ["", "1B2M2Y8AsgTpgAmY7PhC", "=="] {
            let error = content_md5(&headers(&[("content-md5", wrong)])).unwrap_err();
            assert_eq!(error.code(), &s3s::S3ErrorCode::InvalidDigest);
        }
    }

    #[test]
    fn kinds_are_those_of_s3() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        use ChecksumKind::{Composite, FullObject};
        for (algorithm, kind, served) in [
            (Crc32, Composite, true),
            (Crc32, FullObject, true),
            (Crc64Nvme, FullObject, true),
            (Crc64Nvme, Composite, false),
            (Sha256, Composite, true),
            (Sha256, FullObject, false),
        ] {
            assert_eq!(
                check_kind(algorithm, kind).is_ok(),
                served,
                "{algorithm:?} {kind:?}"
            );
            assert!(check_kind(algorithm, default_kind(algorithm)).is_ok());
        }
    }
}
