//! Tables of conditional requests.

use super::*;
use http::HeaderValue;

const ETAG: ETag = ETag {
    md5: [0xab; 16],
    parts: 0,
};
const OURS: &str = "\"abababababababababababababababab\"";
const OTHER: &str = "\"00000000000000000000000000000000\"";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const MODIFIED: u64 = 784_111_777_999;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

#[test]
fn precedence_is_that_of_rfc_9110() {
    use Verdict::{Failed, NotModified, Proceed};
    for (pairs, expected) in [
        (&[][..], Proceed),
        (&[("if-match", OURS)], Proceed),
        (&[("if-match", "abababababababababababababababab")], Proceed),
        (&[("if-match", "*")], Proceed),
        (&[("if-match", OTHER)], Failed),
        (
            &[("if-match", "W/\"abababababababababababababababab\"")],
            Failed,
        ),
        (
            &[("if-match", "\"x\", \"abababababababababababababababab\"")],
            Proceed,
        ),
        (&[("if-none-match", OURS)], NotModified),
        (&[("if-none-match", "*")], NotModified),
        (
            &[("if-none-match", "W/\"abababababababababababababababab\"")],
            NotModified,
        ),
        (
            &[(
                "if-none-match",
                "\"a,b\", \"abababababababababababababababab\"",
            )],
            NotModified,
        ),
        (&[("if-none-match", OTHER)], Proceed),
        (&[("if-modified-since", BEFORE)], Proceed),
        (&[("if-modified-since", SAME)], NotModified),
        (&[("if-modified-since", AFTER)], NotModified),
        (&[("if-modified-since", "yesterday")], Proceed),
        (&[("if-unmodified-since", BEFORE)], Failed),
        (&[("if-unmodified-since", SAME)], Proceed),
        (&[("if-unmodified-since", "yesterday")], Proceed),
        // The tag decides, the date beside it does not count.
        (
            &[("if-match", OURS), ("if-unmodified-since", BEFORE)],
            Proceed,
        ),
        (
            &[("if-match", OTHER), ("if-unmodified-since", AFTER)],
            Failed,
        ),
        (
            &[("if-none-match", OTHER), ("if-modified-since", AFTER)],
            Proceed,
        ),
        (
            &[("if-none-match", OURS), ("if-modified-since", BEFORE)],
            NotModified,
        ),
        // A failed precondition comes before "not modified".
        (&[("if-match", OTHER), ("if-none-match", OURS)], Failed),
        (&[("if-match", OURS), ("if-none-match", OURS)], NotModified),
    ] {
        let conditions = ReadConditions::read(&headers(pairs), ON_READ);
        assert_eq!(conditions.judge(&ETAG, MODIFIED), expected, "{pairs:?}");
    }
}

#[test]
fn a_copy_has_conditions_of_its_own() {
    let read = headers(&[("if-match", OTHER)]);
    let source = headers(&[("x-amz-copy-source-if-match", OTHER)]);
    for (map, expected) in [(&read, Verdict::Proceed), (&source, Verdict::Failed)] {
        let conditions = ReadConditions::read(map, ON_COPY_SOURCE);
        assert_eq!(conditions.judge(&ETAG, MODIFIED), expected);
    }
}

#[test]
fn dates_of_all_three_forms_are_read() {
    for (text, seconds) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
        ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
        ("Thursday, 01-Jan-70 00:00:00 GMT", Some(0)),
        ("Thursday, 01-Jan-26 00:00:00 GMT", Some(1_767_225_600)),
        ("", None),
        ("784111777", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +0100", None),
    ] {
        assert_eq!(parse_http_date(text), seconds, "{text}");
    }
    assert_eq!(http_date(MODIFIED), SAME);
}

#[test]
fn writes_take_one_condition() {
    for (pairs, expected) in [
        (&[][..], Some(WriteRequest::Always)),
        (&[("if-none-match", "*")], Some(WriteRequest::OnlyNew)),
        (
            &[("if-match", OURS)],
            Some(WriteRequest::OnlyOver(Some(ETAG))),
        ),
        (
            &[("if-match", "\"not-an-md5\"")],
            Some(WriteRequest::OnlyOver(None)),
        ),
        (&[("if-none-match", OURS)], None),
        (&[("if-match", "*")], None),
        (&[("if-match", "\"a\", \"b\"")], None),
        (&[("if-match", OURS), ("if-none-match", "*")], None),
    ] {
        assert_eq!(write_condition(&headers(pairs)).ok(), expected, "{pairs:?}");
    }
}

#[test]
fn if_range_keeps_a_range_for_the_same_object_only() {
    for (value, stands) in [
        (OURS, true),
        (OTHER, false),
        ("W/\"abababababababababababababababab\"", false),
        (SAME, true),
        (BEFORE, false),
        (AFTER, false),
    ] {
        let map = headers(&[("if-range", value)]);
        assert_eq!(range_stands(&map, &ETAG, MODIFIED), stands, "{value}");
    }
    assert!(range_stands(&HeaderMap::new(), &ETAG, MODIFIED));
}

#[test]
fn etags_are_written_and_read_back() {
    for (etag, text) in [
        (ETAG, OURS.to_owned()),
        (
            ETag {
                md5: [0xab; 16],
                parts: 12,
            },
            "\"abababababababababababababababab-12\"".to_owned(),
        ),
    ] {
        assert_eq!(etag_text(&etag), text);
        assert_eq!(parse_etag(text.trim_matches('"')), Some(etag));
    }
    for wrong in [
        "",
        "ab",
        "abababababababababababababababab-0",
        "abababababababababababababababab-x",
    ] {
        assert_eq!(parse_etag(wrong), None, "{wrong}");
    }
}

// A condition that cannot be read must not be taken for none.
#[test]
fn unreadable_tags_are_tags_that_no_object_has() {
    let latin = |name: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(b"\"caf\xe9\"").unwrap());
        headers
    };
    for names in [ON_READ, ON_COPY_SOURCE] {
        let judged = ReadConditions::read(&latin(names.if_match), names);
        assert_eq!(judged.judge(&ETAG, MODIFIED), Verdict::Failed);
        let judged = ReadConditions::read(&latin(names.if_none_match), names);
        assert_eq!(judged.judge(&ETAG, MODIFIED), Verdict::Proceed);
    }
    let over = write_condition(&latin("if-match")).unwrap();
    assert_eq!(over, WriteRequest::OnlyOver(None));
    assert!(write_condition(&latin("if-none-match")).is_err());
    for name in ["if-match", "if-none-match"] {
        assert!(write_condition(&headers(&[(name, "")])).is_err(), "{name}");
    }
}
