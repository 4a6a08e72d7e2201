//! The `Range` header: what it asks for, and what that is of an object.
//!
//! Pure. S3 serves one range; several, malformed ones and other units are
//! answered with the whole object, as RFC 9110 allows and AWS does.

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeRequest {
    /// Everything: no header, or one that is not understood.
    Whole,
    /// From the first byte to the last, both included.
    FromTo(u64, u64),
    /// From this byte to the end.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

/// The bytes to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// All of them, status 200.
    All,
    /// These, status 206.
    Bytes(std::ops::Range<u64>),
}

/// No byte of the object lies in the range: status 416.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSatisfiable;

impl RangeRequest {
    /// Reads a header's value. Never fails: what it does not understand asks
    /// for the whole object.
    pub(crate) fn parse(value: &[u8]) -> Self {
        Self::try_parse(value).unwrap_or(Self::Whole)
    }

    fn try_parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let (unit, set) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        match (number(first), number(last)) {
            _ if first.is_empty() => Some(Self::Last(number(last)?)),
            (Some(first), _) if last.is_empty() => Some(Self::From(first)),
            (Some(first), Some(last)) if first <= last => Some(Self::FromTo(first, last)),
            _ => None,
        }
    }

    /// What it selects of an object of `len` bytes.
    pub(crate) fn select(self, len: u64) -> Result<Selected, NotSatisfiable> {
        let bytes = match self {
            Self::Whole => return Ok(Selected::All),
            Self::FromTo(first, last) => first..last.saturating_add(1).min(len),
            Self::From(first) => first..len,
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        if bytes.is_empty() {
            return Err(NotSatisfiable);
        }
        Ok(Selected::Bytes(bytes))
    }
}

/// A decimal number; one too large for 64 bits lies behind every object.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 87: hostile ranges.
    #[test]
    fn headers_are_read_as_s3_reads_them() {
        use RangeRequest::{From, FromTo, Last, Whole};
        for (header, expected) in [
            ("bytes=0-0", FromTo(0, 0)),
            ("bytes=5-9", FromTo(5, 9)),
            ("BYTES=5-9", FromTo(5, 9)),
            ("bytes=5-", From(5)),
            ("bytes=-3", Last(3)),
            ("bytes=-0", Last(0)),
            ("bytes=9-5", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes", Whole),
            ("", Whole),
            ("lines=0-5", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-5", Whole),
            ("bytes=1-+5", Whole),
            ("bytes=--5", Whole),
            ("bytes=0-99999999999999999999999", FromTo(0, u64::MAX)),
            ("bytes=99999999999999999999999-", From(u64::MAX)),
            ("bytes=-99999999999999999999999", Last(u64::MAX)),
        ] {
            assert_eq!(RangeRequest::parse(header.as_bytes()), expected, "{header}");
        }
        assert_eq!(RangeRequest::parse(b"bytes=\xff-5"), Whole);
    }

    #[test]
    fn selections_stay_inside_the_object() {
        use RangeRequest::{From, FromTo, Last, Whole};
        for (request, len, expected) in [
            (Whole, 0, Ok(Selected::All)),
            (Whole, 10, Ok(Selected::All)),
            (FromTo(0, 0), 10, Ok(Selected::Bytes(0..1))),
            (FromTo(0, 9), 10, Ok(Selected::Bytes(0..10))),
            (FromTo(3, 100), 10, Ok(Selected::Bytes(3..10))),
            (FromTo(9, u64::MAX), 10, Ok(Selected::Bytes(9..10))),
            (FromTo(10, 12), 10, Err(NotSatisfiable)),
            (From(9), 10, Ok(Selected::Bytes(9..10))),
            (From(10), 10, Err(NotSatisfiable)),
            (From(u64::MAX), 10, Err(NotSatisfiable)),
            (Last(3), 10, Ok(Selected::Bytes(7..10))),
            (Last(30), 10, Ok(Selected::Bytes(0..10))),
            (Last(0), 10, Err(NotSatisfiable)),
            (From(0), 0, Err(NotSatisfiable)),
            (Last(5), 0, Err(NotSatisfiable)),
        ] {
            assert_eq!(request.select(len), expected, "{request:?} of {len}");
        }
    }
}
