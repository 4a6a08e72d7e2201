//! Where a setting stands: its line in the file, its variable or its flag.
//!
//! For what only a look at all settings finds wrong: it is refused like what
//! is wrong by itself, with the place and what is allowed.

use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::layers::{ConfigError, Sources, variable};

/// The error for `key`, with the place that its value came from.
pub(super) fn refused(sources: &Sources, key: &str, what: &str) -> ConfigError {
    let what = format!("{key}: {what}");
    let set = |flag: &String| {
        let name = flag.split_once('=').map_or(flag.as_str(), |(name, _)| name);
        is_in(name, key).then(|| name.to_owned())
    };
    if let Some(name) = sources.flags.iter().rev().find_map(set) {
        return ConfigError::Override {
            name: format!("--set {name}"),
            what,
        };
    }
    let name = variable(key);
    if sources.environment.iter().any(|(known, _)| *known == name) {
        return ConfigError::Override { name, what };
    }
    match sources.file.as_deref().and_then(|path| in_file(path, key)) {
        Some((path, line)) => ConfigError::File {
            path: path.to_owned(),
            line,
            what,
        },
        // A default: only what is missing can be wrong then.
        None => ConfigError::Contradiction(what),
    }
}

/// Whether `name` is `key` or stands under it.
fn is_in(name: &str, key: &str) -> bool {
    let rest = name.strip_prefix(key);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn in_file<'a>(path: &'a Path, key: &str) -> Option<(&'a Path, usize)> {
    let text = fs::read_to_string(path).ok()?;
    Some((path, line_of(&text, key)?))
}

/// The line, from 1, on which a key's own name stands.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut names = key.split('.').peekable();
    while let Some(name) = names.next() {
        let (found, value) = table
            .iter()
            .find(|(known, _)| known.get_ref().as_ref() == name)?;
        if names.peek().is_none() {
            let start = found.span().start.min(text.len());
            return Some(text[..start].matches('\n').count() + 1);
        }
        let DeValue::Table(inner) = value.get_ref() else {
            return None;
        };
        table = inner;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_however_they_are_written() {
        let text = "a.b = 1\n[c]\nd = 2\n\n[c.e]\nf = 3\n[g]\nh = { i = 4 }\n";
        for (key, line) in [
            ("a.b", Some(1)),
            ("c.d", Some(3)),
            ("c.e", Some(5)),
            ("c.e.f", Some(6)),
            ("g.h.i", Some(8)),
            ("c.x", None),
            ("a.b.c", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
        assert_eq!(line_of("[", "a"), None);
    }
}
