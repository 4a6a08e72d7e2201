//! Listings against a naive reference: all keys in order, one after another.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shardgate_wire::BucketIncarnation;

use super::*;
use crate::draft::Draft;
use crate::model::{Content, DetailRow, ETag};

const BUCKET: BucketIncarnation = BucketIncarnation(7);

fn version(uid: u128) -> VersionRow {
    VersionRow {
        uid: VersionUid(uid),
        size: 0,
        modified: 0,
        etag: ETag {
            md5: [0; 16],
            parts: 0,
        },
        class: 0,
        content: Content::Inline,
        checksum: None,
        null: true,
        has_detail: false,
    }
}

fn upload_row(uid: u128) -> UploadRow {
    UploadRow {
        uid: VersionUid(uid),
        initiated: 0,
        owner: String::new(),
        class: 0,
        detail: DetailRow::default(),
        checksum: None,
        group: None,
    }
}

async fn with(keys: &BTreeSet<String>, uids: &[u128]) -> Catalog {
    let catalog = Catalog::in_memory();
    let mut draft = Draft::new();
    for key in keys {
        draft.put(keys::current(BUCKET, key), &version(1));
        for &uid in uids {
            draft.put(keys::upload(BUCKET, key, VersionUid(uid)), &upload_row(uid));
        }
    }
    // Neighbours that must never be seen.
    for other in [6, 8] {
        let other = BucketIncarnation(other);
        draft.put(keys::current(other, "other"), &version(2));
        draft.put(keys::upload(other, "other", VersionUid(9)), &upload_row(9));
    }
    catalog.commit(draft).await.unwrap();
    catalog
}

/// What a key shows as, and what it is behind.
fn shown(prefix: &str, delimiter: Option<&str>, key: &str) -> Option<String> {
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter?)?;
    let len = prefix.len() + at + delimiter?.len();
    Some(key[..len].to_owned())
}

/// A name in a list, and whether it is a common prefix.
type Named = (String, bool);

fn reference(keys: &BTreeSet<String>, query: &ListQuery) -> (Vec<Named>, bool) {
    let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty());
    let mut found: Vec<Named> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(&query.prefix)) {
        let behind = match &query.from {
            None => true,
            Some(ListFrom::Key(from)) => key > from,
            Some(ListFrom::CommonPrefix(from)) => key > from && !key.starts_with(from),
        };
        if !behind {
            continue;
        }
        let entry = match shown(&query.prefix, delimiter, key) {
            Some(common) => (common, true),
            None => (key.clone(), false),
        };
        if found.last() != Some(&entry) {
            found.push(entry);
        }
    }
    let more = query.limit > 0 && found.len() > query.limit;
    found.truncate(query.limit);
    (found, more)
}

fn named(entries: &[ListEntry]) -> Vec<Named> {
    entries
        .iter()
        .map(|entry| match entry {
            ListEntry::Object(key, _) => (key.clone(), false),
            ListEntry::Prefix(prefix) => (prefix.clone(), true),
        })
        .collect()
}

fn text(max: usize) -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("b"),
        Just("/"),
        Just("//"),
        Just("\0"),
        Just("\u{1}"),
        Just("é"),
        Just("\u{10ffff}"),
    ];
    proptest::collection::vec(part, 0..max).prop_map(|parts| parts.concat())
}

fn query() -> impl Strategy<Value = ListQuery> {
    let delimiter = prop_oneof![
        Just(None),
        Just(Some("/".to_owned())),
        Just(Some("//".to_owned())),
        Just(Some("a/".to_owned())),
        Just(Some(String::new())),
        Just(Some("\0".to_owned())),
        Just(Some("\u{1}".to_owned())),
    ];
    let from = prop_oneof![
        2 => Just(None),
        1 => text(4).prop_map(|key| Some(ListFrom::Key(key))),
        1 => text(4).prop_map(|prefix| Some(ListFrom::CommonPrefix(prefix))),
    ];
    (text(3), delimiter, from, 0usize..6).prop_map(|(prefix, delimiter, from, limit)| ListQuery {
        prefix,
        delimiter,
        from,
        limit,
    })
}

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&strategy, test)
        .unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(work)
}

#[test]
fn pages_match_the_reference() {
    let keys = proptest::collection::btree_set(text(6), 0..20);
    run((keys, query()), |(keys, query)| {
        block(async {
            let catalog = with(&keys, &[]).await;
            let page = catalog.list_objects(BUCKET, &query).await.unwrap();
            let (expected, more) = reference(&keys, &query);
            prop_assert_eq!(named(&page.entries), expected);
            prop_assert_eq!(page.next.is_some(), more);
            Ok(())
        })
    });
}

#[test]
fn following_pages_shows_everything_once() {
    let keys = proptest::collection::btree_set(text(6), 0..20);
    run((keys, query()), |(keys, query)| {
        block(async {
            let catalog = with(&keys, &[]).await;
            let mut query = query;
            let all = ListQuery {
                limit: usize::MAX,
                ..query.clone()
            };
            let (expected, _) = reference(&keys, &all);
            query.limit = query.limit.max(1);
            let mut seen = Vec::new();
            loop {
                let page = catalog.list_objects(BUCKET, &query).await.unwrap();
                seen.extend(named(&page.entries));
                // A client of version 1 goes on from the last name it saw.
                let delimiter = query.delimiter.as_deref();
                if let (Some(next), Some((last, _))) = (&page.next, seen.last()) {
                    prop_assert_eq!(&ListFrom::marker(&query.prefix, delimiter, last), next);
                }
                match page.next {
                    Some(next) => query.from = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(seen, expected);
            Ok(())
        })
    });
}

#[test]
fn uploads_match_the_reference() {
    let keys = proptest::collection::btree_set(text(5), 0..12);
    // Upload ids whose bytes hold delimiters.
    let uids: [u128; 3] = [1, 0x2f2f_0001_0100_612f << 64, u128::MAX];
    run((keys, query(), 0usize..4), |(keys, query, marker)| {
        block(async {
            let catalog = with(&keys, &uids).await;
            let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty());
            let from = query.from.clone().map(|from| match from {
                ListFrom::Key(key) if marker < 3 => {
                    UploadsFrom::Upload(key, VersionUid(uids[marker]))
                }
                ListFrom::Key(key) => UploadsFrom::Key(key),
                ListFrom::CommonPrefix(prefix) => UploadsFrom::CommonPrefix(prefix),
            });
            let mut expected = Vec::new();
            for key in keys.iter().filter(|key| key.starts_with(&query.prefix)) {
                for uid in uids {
                    let behind = match &from {
                        None => true,
                        Some(UploadsFrom::Key(from)) => key > from,
                        Some(UploadsFrom::Upload(from, after)) => (key, uid) > (from, after.0),
                        Some(UploadsFrom::CommonPrefix(from)) => {
                            key > from && !key.starts_with(from)
                        }
                    };
                    let entry = match shown(&query.prefix, delimiter, key) {
                        Some(common) => (common, None),
                        None => (key.clone(), Some(uid)),
                    };
                    if behind && expected.last() != Some(&entry) {
                        expected.push(entry);
                    }
                }
            }
            let mut seen = Vec::new();
            let mut asked = UploadsQuery {
                prefix: query.prefix.clone(),
                delimiter: query.delimiter.clone(),
                from,
                limit: query.limit.max(1),
            };
            loop {
                let page = catalog.list_uploads(BUCKET, &asked).await.unwrap();
                prop_assert!(page.entries.len() <= asked.limit);
                seen.extend(page.entries.into_iter().map(|entry| match entry {
                    UploadEntry::Upload(key, row) => (key, Some(row.uid.0)),
                    UploadEntry::Prefix(prefix) => (prefix, None),
                }));
                match page.next {
                    Some(next) => asked.from = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(seen, expected);
            Ok(())
        })
    });
}

#[test]
fn markers_inside_a_common_prefix_stand_behind_it() {
    let key = |text: &str| ListFrom::Key(text.to_owned());
    let common = |text: &str| ListFrom::CommonPrefix(text.to_owned());
    let cases = [
        ("", Some("/"), "a", key("a")),
        ("", Some("/"), "a/", common("a/")),
        ("", Some("/"), "a/b", common("a/")),
        ("a/", Some("/"), "a/b", key("a/b")),
        ("a/", Some("/"), "a/b/c", common("a/b/")),
        ("b/", Some("/"), "a/b/c", key("a/b/c")),
        ("", Some("--"), "a-b--c", common("a-b--")),
        ("", Some(""), "a/b", key("a/b")),
        ("", None, "a/b", key("a/b")),
    ];
    for (prefix, delimiter, marker, expected) in cases {
        let from = ListFrom::marker(prefix, delimiter, marker);
        assert_eq!(from, expected, "{prefix:?} {delimiter:?} {marker:?}");
    }
}
