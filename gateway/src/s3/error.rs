//! The only mapping from what can go wrong to S3's error codes.
//!
//! What a client is told never holds internals; the cause is logged here,
//! once, where a person may have to look.

use s3s::{S3Error, S3ErrorCode, s3_error};

use super::body::body_error_code;
use super::checksum::algorithm_name;
use crate::object::{BodyError, ObjectError};

/// The error that a client is answered with.
pub(crate) fn s3_error_of(error: ObjectError) -> S3Error {
    use ObjectError as E;
    match error {
        E::NoSuchBucket => new(S3ErrorCode::NoSuchBucket),
        E::BucketExists { .. } => new(S3ErrorCode::BucketAlreadyExists),
        E::BucketNotEmpty => new(S3ErrorCode::BucketNotEmpty),
        E::NoSuchKey => new(S3ErrorCode::NoSuchKey),
        E::NoSuchUpload => new(S3ErrorCode::NoSuchUpload),
        E::NoSuchPart => custom(
            "InvalidPartNumber",
            416,
            "The requested partnumber is not satisfiable",
        ),
        E::InvalidRange { size } => invalid_range(size),
        E::PreconditionFailed => new(S3ErrorCode::PreconditionFailed),
        E::Conflict => s3_error!(
            ConditionalRequestConflict,
            "A conflicting operation occurred during this request; please try again."
        ),
        E::BadDigest => s3_error!(
            BadDigest,
            "The Content-MD5 you specified did not match what we received."
        ),
        E::ChecksumMismatch { algorithm } => s3_error!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            algorithm_name(algorithm)
        ),
        E::BadChecksum { what } => s3_error!(InvalidRequest, "checksum: {what}"),
        E::IncompleteBody { .. } => new(S3ErrorCode::IncompleteBody),
        E::EntityTooLarge { .. } => new(S3ErrorCode::EntityTooLarge),
        E::EntityTooSmall { .. } => new(S3ErrorCode::EntityTooSmall),
        E::InvalidPart { .. } => new(S3ErrorCode::InvalidPart),
        E::InvalidPartOrder => new(S3ErrorCode::InvalidPartOrder),
        E::InvalidPartCount => new(S3ErrorCode::MalformedXML),
        E::MetadataTooLarge { .. } => new(S3ErrorCode::MetadataTooLarge),
        E::UnknownClass => new(S3ErrorCode::InvalidStorageClass),
        E::SlowDown => slow_down(),
        E::Body(error) => body_error(error),
        failed => failure(&failed),
    }
}

/// Failures of the store itself: answered in general words, logged in full.
fn failure(error: &ObjectError) -> S3Error {
    use ObjectError as E;
    match error {
        E::NoSpace => {
            tracing::error!(%error, "write refused");
            custom(
                "InsufficientStorage",
                507,
                "The store has no space left for this object.",
            )
        }
        E::Unavailable { .. } | E::QuorumLost { .. } | E::Fenced => {
            tracing::warn!(%error, "request not served");
            s3_error!(
                ServiceUnavailable,
                "The store cannot serve this request at the moment. Please try again."
            )
        }
        _ => {
            tracing::error!(%error, "request failed");
            s3_error!(
                InternalError,
                "We encountered an internal error. Please try again."
            )
        }
    }
}

fn body_error(error: BodyError) -> S3Error {
    // The body of a copy is a read, which fails under its own name.
    let error = match error.0.downcast::<ObjectError>() {
        Ok(of_source) => return s3_error_of(*of_source),
        Err(other) => other,
    };
    match body_error_code(error.as_ref()) {
        S3ErrorCode::Custom(code) => custom(
            code.as_ref(),
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        code => new(code),
    }
}

fn new(code: S3ErrorCode) -> S3Error {
    S3Error::new(code)
}

/// A code that s3s does not know.
pub(crate) fn custom(code: &str, status: u16, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    if let Ok(status) = http::StatusCode::from_u16(status) {
        error.set_status_code(status);
    }
    error
}

/// Too many requests at once.
pub(crate) fn slow_down() -> S3Error {
    s3_error!(SlowDown, "Please reduce your request rate.")
}

/// 416 with the length that the object has.
pub(crate) fn invalid_range(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = format!("bytes */{size}").parse() {
        headers.insert(http::header::CONTENT_RANGE, value);
    }
    headers.insert(
        http::header::ACCEPT_RANGES,
        http::HeaderValue::from_static("bytes"),
    );
    error.set_headers(headers);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_catalog::model::ChecksumAlgorithm;

    #[test]
    fn every_error_has_its_code_and_tells_no_internals() {
        let secret = "disk-7 /var/lib/x";
        for (error, code, status) in [
            (ObjectError::NoSuchBucket, "NoSuchBucket", 404),
            (ObjectError::BucketNotEmpty, "BucketNotEmpty", 409),
            (ObjectError::NoSuchKey, "NoSuchKey", 404),
            (ObjectError::NoSuchUpload, "NoSuchUpload", 404),
            (ObjectError::NoSuchPart, "InvalidPartNumber", 416),
            (ObjectError::InvalidRange { size: 5 }, "InvalidRange", 416),
            (ObjectError::PreconditionFailed, "PreconditionFailed", 412),
            (ObjectError::Conflict, "ConditionalRequestConflict", 409),
            (ObjectError::BadDigest, "BadDigest", 400),
            (
                ObjectError::ChecksumMismatch {
                    algorithm: ChecksumAlgorithm::Crc32,
                },
                "BadDigest",
                400,
            ),
            (
                ObjectError::BadChecksum { what: "x" },
                "InvalidRequest",
                400,
            ),
            (
                ObjectError::IncompleteBody {
                    declared: 5,
                    received: 3,
                },
                "IncompleteBody",
                400,
            ),
            (
                ObjectError::EntityTooLarge { limit_bytes: 1 },
                "EntityTooLarge",
                400,
            ),
            (
                ObjectError::EntityTooSmall { number: 1 },
                "EntityTooSmall",
                400,
            ),
            (ObjectError::InvalidPart { number: 1 }, "InvalidPart", 400),
            (ObjectError::InvalidPartOrder, "InvalidPartOrder", 400),
            (ObjectError::InvalidPartCount, "MalformedXML", 400),
            (
                ObjectError::MetadataTooLarge { limit_bytes: 1 },
                "MetadataTooLarge",
                400,
            ),
            (ObjectError::UnknownClass, "InvalidStorageClass", 400),
            (ObjectError::SlowDown, "SlowDown", 503),
            (
                ObjectError::QuorumLost {
                    acked: 1,
                    needed: 3,
                },
                "ServiceUnavailable",
                503,
            ),
            (ObjectError::Fenced, "ServiceUnavailable", 503),
            (
                ObjectError::Unavailable { why: secret.into() },
                "ServiceUnavailable",
                503,
            ),
            (ObjectError::NoSpace, "InsufficientStorage", 507),
            (
                ObjectError::Unreadable { why: secret.into() },
                "InternalError",
                500,
            ),
            (
                ObjectError::Damaged { why: secret.into() },
                "InternalError",
                500,
            ),
            (
                ObjectError::Body(BodyError(Box::new(super::super::body::Fault::Idle))),
                "RequestTimeout",
                400,
            ),
        ] {
            let shown = format!("{error:?}");
            let answer = s3_error_of(error);
            assert_eq!(answer.code().as_str(), code, "{shown}");
            assert_eq!(answer.status_code().unwrap().as_u16(), status, "{shown}");
            assert!(!answer.message().unwrap().contains("disk-7"), "{shown}");
        }
    }
}
