//! Rows of the catalog as s3s's types: times, ETags, checksums, sizes.

use std::time::{Duration, SystemTime};

use s3s::dto::{self, Timestamp};
use shardgate_catalog::model::{ETag, UnixMillis};

/// A time.
pub(crate) fn timestamp(millis: UnixMillis) -> Timestamp {
    Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
}

/// An ETag.
pub(crate) fn etag(etag: &ETag) -> dto::ETag {
    let text = super::conditions::etag_text(etag);
    dto::ETag::Strong(text.trim_matches('"').to_owned())
}

/// The ETag of a part.
pub(crate) fn part_etag(md5: &[u8; 16]) -> dto::ETag {
    etag(&ETag {
        md5: *md5,
        parts: 0,
    })
}

/// A length as s3s writes it. Objects have at most 5 TiB.
pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Puts a checksum into the field of its algorithm, in any of s3s's types.
macro_rules! put_checksum {
    ($target:expr, $checksum:expr, $parts:expr) => {
        if let Some(checksum) = $checksum {
            use shardgate_catalog::model::ChecksumAlgorithm as Algorithm;
            let text = Some($crate::s3::checksum::checksum_text(checksum, $parts));
            match checksum.algorithm {
                Algorithm::Crc32 => $target.checksum_crc32 = text,
                Algorithm::Crc32c => $target.checksum_crc32c = text,
                Algorithm::Crc64Nvme => $target.checksum_crc64nvme = text,
                Algorithm::Sha1 => $target.checksum_sha1 = text,
                Algorithm::Sha256 => $target.checksum_sha256 = text,
            }
        }
    };
}

/// The same, and what the checksum covers.
macro_rules! put_checksum_and_type {
    ($target:expr, $checksum:expr, $parts:expr) => {
        if let Some(checksum) = $checksum {
            let kind = $crate::s3::checksum::kind_name(checksum.kind);
            $target.checksum_type = Some(s3s::dto::ChecksumType::from_static(kind));
        }
        $crate::s3::shown::put_checksum!($target, $checksum, $parts);
    };
}

pub(crate) use {put_checksum, put_checksum_and_type};
