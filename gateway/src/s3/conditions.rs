//! Conditional requests: RFC 9110 section 13 as S3 applies it.
//!
//! Pure. Headers are read here and not through s3s, which knows no lists and
//! refuses a date it cannot read; RFC 9110 wants such a date ignored.

use http::HeaderMap;
use s3s::{S3Result, s3_error};
use shardgate_catalog::model::ETag;
use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::macros::format_description;

/// The text of an ETag, quotes included.
pub(crate) fn etag_text(etag: &ETag) -> String {
    let mut text = format!("\"{}", hex::encode(etag.md5));
    if etag.parts > 0 {
        text.push_str(&format!("-{}", etag.parts));
    }
    text.push('"');
    text
}

/// Reads an ETag without its quotes. `None`: no object can have it.
pub(crate) fn parse_etag(value: &str) -> Option<ETag> {
    let (digits, parts) = match value.split_once('-') {
        None => (value, 0),
        Some((digits, count)) => (digits, count.parse::<u16>().ok().filter(|n| *n > 0)?),
    };
    let mut md5 = [0; 16];
    hex::decode_to_slice(digits, &mut md5).ok()?;
    Some(ETag { md5, parts })
}

/// One member of an `If-Match` list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    value: String,
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagCondition {
    /// `*`
    Any,
    /// A list of tags.
    OneOf(Vec<ListedTag>),
}

/// A tag that a condition lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedTag(Tag);

impl TagCondition {
    /// Reads a header's value; tags without quotes are taken as S3 takes them.
    pub(crate) fn parse(value: &str) -> Self {
        let value = value.trim();
        if value == "*" {
            return Self::Any;
        }
        let mut tags = Vec::new();
        let mut rest = value;
        while !rest.is_empty() {
            let (tag, after) = take_tag(rest);
            if !tag.value.is_empty() {
                tags.push(ListedTag(tag));
            }
            rest = after.trim_start_matches([',', ' ', '\t']);
        }
        Self::OneOf(tags)
    }

    fn matches(&self, etag: &str, weakly: bool) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags
                .iter()
                .any(|ListedTag(tag)| (weakly || !tag.weak) && tag.value == etag),
        }
    }

    /// The only tag of the list, for conditional writes.
    pub(crate) fn single(&self) -> Option<&str> {
        match self {
            Self::OneOf(tags) if tags.len() == 1 && !tags[0].0.weak => Some(&tags[0].0.value),
            _ => None,
        }
    }
}

fn take_tag(text: &str) -> (Tag, &str) {
    let (weak, text) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => text.split_at(text.find(',').unwrap_or(text.len())),
    };
    let tag = Tag {
        weak,
        value: value.trim().to_owned(),
    };
    (tag, rest)
}

/// Reads an HTTP date of any of the three forms of RFC 9110, in seconds since
/// 1970. `None` if it is none of them, or out of range.
pub(crate) fn parse_http_date(value: &str) -> Option<i64> {
    const IMF: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    const RFC850: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
        "[weekday], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT"
    );
    const ASCTIME: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
    );
    let value = value.trim();
    if let Ok(date) = PrimitiveDateTime::parse(value, IMF) {
        return Some(date.assume_utc().unix_timestamp());
    }
    if let Ok(date) = PrimitiveDateTime::parse(value, ASCTIME) {
        return Some(date.assume_utc().unix_timestamp());
    }
    rfc850(value, RFC850)
}

/// Two digits for the year: 70 and more are of the last century.
fn rfc850(value: &str, format: &[time::format_description::BorrowedFormatItem<'_>]) -> Option<i64> {
    let mut parsed = time::parsing::Parsed::new();
    let rest = parsed.parse_items(value.as_bytes(), format).ok()?;
    let last_two = i32::from(parsed.year_last_two()?);
    let year = if last_two >= 70 { 1900 } else { 2000 } + last_two;
    if !rest.is_empty() {
        return None;
    }
    let date = time::Date::from_calendar_date(year, parsed.month()?, parsed.day()?.get()).ok()?;
    let at = date
        .with_hms(parsed.hour_24()?, parsed.minute()?, parsed.second()?)
        .ok()?;
    Some(at.assume_utc().unix_timestamp())
}

/// An HTTP date from milliseconds since 1970.
pub(crate) fn http_date(millis: u64) -> String {
    const IMF: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let seconds = i64::try_from(millis / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(IMF)
        .unwrap_or_default()
}

/// The four conditions of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadConditions {
    if_match: Option<TagCondition>,
    if_none_match: Option<TagCondition>,
    if_modified_since: Option<i64>,
    if_unmodified_since: Option<i64>,
}

/// What conditions say about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Proceed,
    /// The client has it: 304 on a read.
    NotModified,
    /// 412.
    Failed,
}

/// The names of the four headers.
#[derive(Clone, Copy)]
pub(crate) struct ConditionHeaders {
    if_match: &'static str,
    if_none_match: &'static str,
    if_modified_since: &'static str,
    if_unmodified_since: &'static str,
}

/// On a read.
pub(crate) const ON_READ: ConditionHeaders = ConditionHeaders {
    if_match: "if-match",
    if_none_match: "if-none-match",
    if_modified_since: "if-modified-since",
    if_unmodified_since: "if-unmodified-since",
};

/// On the source of a copy.
pub(crate) const ON_COPY_SOURCE: ConditionHeaders = ConditionHeaders {
    if_match: "x-amz-copy-source-if-match",
    if_none_match: "x-amz-copy-source-if-none-match",
    if_modified_since: "x-amz-copy-source-if-modified-since",
    if_unmodified_since: "x-amz-copy-source-if-unmodified-since",
};

impl ReadConditions {
    /// Reads the conditions of a request.
    pub(crate) fn read(headers: &HeaderMap, names: ConditionHeaders) -> Self {
        let tags = |name| tags(headers, name);
        let date = |name| text(headers, name).and_then(parse_http_date);
        Self {
            if_match: tags(names.if_match),
            if_none_match: tags(names.if_none_match),
            if_modified_since: date(names.if_modified_since),
            if_unmodified_since: date(names.if_unmodified_since),
        }
    }

    /// Judges an object, in the order of RFC 9110 section 13.2.2.
    pub(crate) fn judge(&self, etag: &ETag, modified_millis: u64) -> Verdict {
        if *self == Self::default() {
            return Verdict::Proceed;
        }
        let shown = etag_text(etag);
        let etag = shown.trim_matches('"');
        let modified = i64::try_from(modified_millis / 1000).unwrap_or(i64::MAX);
        match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) if !tags.matches(etag, false) => return Verdict::Failed,
            (None, Some(date)) if modified > date => return Verdict::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) if tags.matches(etag, true) => Verdict::NotModified,
            (None, Some(date)) if modified <= date => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }
}

/// Whether `If-Range` lets the range of a request stand.
pub(crate) fn range_stands(headers: &HeaderMap, etag: &ETag, modified_millis: u64) -> bool {
    let Some(value) = text(headers, "if-range") else {
        return true;
    };
    match parse_http_date(value) {
        Some(date) => i64::try_from(modified_millis / 1000).is_ok_and(|modified| modified == date),
        None => value.trim() == etag_text(etag),
    }
}

/// A list of tags. Bytes that are no text make a tag that no object has: a
/// condition is never taken for absent because it cannot be read.
fn tags(headers: &HeaderMap, name: &str) -> Option<TagCondition> {
    let value = headers.get(name)?.as_bytes();
    (!value.is_empty()).then(|| TagCondition::parse(&String::from_utf8_lossy(value)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|v| !v.is_empty())
}

/// The condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteRequest {
    /// None.
    Always,
    /// `If-None-Match: *`
    OnlyNew,
    /// `If-Match` with one tag; `None` is a tag that no object can have.
    OnlyOver(Option<ETag>),
}

/// Reads the condition of a PUT, a copy or a CompleteMultipartUpload.
pub(crate) fn write_condition(headers: &HeaderMap) -> S3Result<WriteRequest> {
    // On a read an empty one is ignored. Here the client would lose what
    // protects it from overwriting.
    let empty = |name| headers.get(name).is_some_and(|value| value.is_empty());
    if empty("if-match") || empty("if-none-match") {
        return Err(s3_error!(
            InvalidArgument,
            "If-Match and If-None-Match must not be empty on a write"
        ));
    }
    let if_match = tags(headers, "if-match");
    let if_none_match = tags(headers, "if-none-match");
    match (if_match, if_none_match) {
        (None, None) => Ok(WriteRequest::Always),
        (None, Some(TagCondition::Any)) => Ok(WriteRequest::OnlyNew),
        (Some(tags), None) if tags.single().is_some() => {
            Ok(WriteRequest::OnlyOver(tags.single().and_then(parse_etag)))
        }
        _ => Err(s3_error!(
            NotImplemented,
            "a write takes either If-None-Match: * or If-Match with one ETag"
        )),
    }
}

#[cfg(test)]
mod tests;
