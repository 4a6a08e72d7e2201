//! Names as XML text: `encoding-type=url`, and names that XML cannot carry.
//!
//! Pure. XML 1.0 has no way to write most control characters, and parsers
//! change a carriage return; a listing with such a key is always encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in listings; a space becomes `+`.
const LISTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'*')
    .remove(b'/')
    .remove(b' ');

/// What stays as it is in paths.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// Encodes a name as `encoding-type=url` asks.
pub(crate) fn url_encode(name: &str) -> String {
    utf8_percent_encode(name, LISTED)
        .to_string()
        .replace(' ', "+")
}

/// Encodes a key as the path of an address, where a `+` is a plus.
pub(crate) fn path_encode(key: &str) -> String {
    utf8_percent_encode(key, IN_PATHS).to_string()
}

/// Whether XML 1.0 carries the text unchanged.
pub(crate) fn fits_xml(text: &str) -> bool {
    !text.chars().any(|c| {
        (c < ' ' && c != '\t' && c != '\n') || c == '\u{7f}' || matches!(c, '\u{fffe}' | '\u{ffff}')
    })
}

/// The text itself where XML carries it, else url-encoded: for answers that
/// know no `encoding-type`.
pub(crate) fn xml_text(text: &str) -> String {
    if fits_xml(text) {
        text.to_owned()
    } else {
        url_encode(text)
    }
}

/// How the names of one listing are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameEncoding {
    url: bool,
}

impl NameEncoding {
    /// Encodes when asked to, or when a name would not survive XML.
    pub(crate) fn choose<'a>(asked: bool, mut names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            url: asked || names.any(|name| !fits_xml(name)),
        }
    }

    /// Whether names are url-encoded.
    pub(crate) fn is_url(self) -> bool {
        self.url
    }

    /// A name as this listing writes it.
    pub(crate) fn apply(self, name: &str) -> String {
        if self.url {
            url_encode(name)
        } else {
            name.to_owned()
        }
    }
}

/// Text as it may stand in a log line: control characters escaped, cut to
/// `limit` characters.
pub(crate) fn for_log(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for (count, c) in text.chars().enumerate() {
        if count == limit {
            shown.push('…');
            break;
        }
        // Escapes of terminals, and characters that turn a line around.
        let turning = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turning {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_encoded_as_clients_decode_them() {
        for (name, expected) in [
            ("plain/key.txt", "plain/key.txt"),
            ("a b+c/é", "a+b%2Bc/%C3%A9"),
            ("100%", "100%25"),
            ("a\u{1}b", "a%01b"),
            ("~*-_.", "~*-_."),
            ("a&b<c>\"d\"", "a%26b%3Cc%3E%22d%22"),
            ("", ""),
        ] {
            assert_eq!(url_encode(name), expected);
        }
    }

    #[test]
    fn keys_are_encoded_in_paths() {
        assert_eq!(path_encode("a b+c/é*"), "a%20b%2Bc/%C3%A9%2A");
    }

    #[test]
    fn names_that_xml_changes_are_found() {
        for (name, fits) in [
            ("plain", true),
            ("tab\tand\nline", true),
            ("return\r", false),
            ("\u{0}", false),
            ("\u{1b}[31m", false),
            ("\u{7f}", false),
            ("\u{ffff}", false),
            ("é\u{1f600}", true),
        ] {
            assert_eq!(fits_xml(name), fits, "{name:?}");
        }
        assert!(!NameEncoding::choose(false, ["a", "b"].into_iter()).is_url());
        assert!(NameEncoding::choose(false, ["a", "b\r"].into_iter()).is_url());
        assert!(NameEncoding::choose(true, ["a"].into_iter()).is_url());
    }

    // ATTACKS 96: CR, LF and terminal escapes in logged keys.
    #[test]
    fn logged_text_is_one_harmless_line() {
        let shown = for_log("a\r\nERROR forged \u{1b}[2J \u{202e}x", 100);
        assert_eq!(shown, "a\\u{d}\\u{a}ERROR forged \\u{1b}[2J \\u{202e}x");
        assert_eq!(for_log("abcdef", 3), "abc…");
    }

    proptest! {
        #[test]
        fn encoding_is_undone_by_form_decoding(name in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let encoded = url_encode(&name);
            prop_assert!(encoded.is_ascii() && fits_xml(&encoded));
            let decoded = percent_encoding::percent_decode_str(&encoded.replace('+', " "))
                .decode_utf8()
                .unwrap()
                .into_owned();
            prop_assert_eq!(decoded, name);
        }
    }
}
