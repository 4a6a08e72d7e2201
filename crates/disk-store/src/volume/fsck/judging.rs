//! What the bytes of a volume, its directory and what is known of it say of
//! each other. Pure.

use std::collections::BTreeSet;

use super::{Held, Records, key_of};
use crate::checking::Report;
use crate::volume::format::Entry;
use crate::volume::scan::{Scanned, name};
use crate::volume::volume_state::InGroup;

/// What a directory says.
#[derive(Default)]
pub(super) struct Directory {
    /// Of the pages that are whole.
    pub(super) entries: Vec<Entry>,
    /// The first thing that is wrong with it.
    wrong: Option<String>,
}

impl Directory {
    pub(super) fn is_wrong(&mut self, what: impl Into<String>) {
        self.wrong.get_or_insert_with(|| what.into());
    }
}

/// What the directory does not say as the records do. `live` takes off what
/// was deleted, which a directory goes on to name.
pub(super) fn judge_directory(
    directory: &Directory,
    scanned: &Scanned,
    live: &dyn Fn(&Entry) -> bool,
) -> Option<String> {
    if let Some(wrong) = &directory.wrong {
        return Some(wrong.clone());
    }
    // How much of it there was, a record that is damaged may not tell.
    let damaged: BTreeSet<u32> = scanned.damaged.iter().map(|entry| entry.at).collect();
    let place = |entry: &Entry| match damaged.contains(&entry.at) {
        true => (entry.key(), entry.at, None),
        false => (entry.key(), entry.at, Some((entry.span, entry.besides))),
    };
    let all = |entries: &[Entry]| -> BTreeSet<_> {
        let live = entries.iter().filter(|entry| live(entry));
        live.map(place).collect()
    };
    let (said, found) = (all(&directory.entries), all(&scanned.entries));
    // One whose record is nowhere is damage to that, and right.
    let keys: BTreeSet<InGroup> = found.iter().map(|(key, ..)| *key).collect();
    let missing = found.difference(&said).count();
    let elsewhere = said.difference(&found);
    let elsewhere = elsewhere.filter(|(key, ..)| keys.contains(key)).count();
    let differs = missing + elsewhere > 0;
    differs.then(|| {
        format!(
            "{missing} records are not in it, {elsewhere} of its entries are not as the records"
        )
    })
}

/// Reports the records of a volume; true if it does not tell of all that it
/// had. `said` are those that should be there.
pub(super) fn judge_records(
    report: &mut Report,
    held: &Held,
    scanned: &Scanned,
    said: &[Entry],
    live: &dyn Fn(&Entry) -> bool,
) -> bool {
    let place = name(held.heading.group, held.heading.sequence);
    let damaged: BTreeSet<u32> = scanned.damaged.iter().map(|entry| entry.at).collect();
    let in_memory = matches!(held.records, Records::Map(_));
    let named: BTreeSet<u32> = said.iter().map(|entry| entry.at).collect();
    let (mut keys, mut places) = (BTreeSet::new(), BTreeSet::new());
    for entry in scanned.entries.iter().filter(|entry| live(entry)) {
        keys.insert(entry.key());
        places.insert(entry.at);
        if in_memory && !named.contains(&entry.at) {
            continue; // not answered, or replaced by another
        }
        if damaged.contains(&entry.at) {
            report.find(&place, Some(key_of(held, entry)), "record is damaged");
        } else {
            report.whole(key_of(held, entry), entry.bytes());
        }
    }
    for entry in said.iter().filter(|entry| live(entry)) {
        // Where another record of the shard is, the directory is wrong.
        let is_there = match in_memory {
            true => places.contains(&entry.at),
            false => keys.contains(&entry.key()),
        };
        if !is_there {
            report.find(&place, Some(key_of(held, entry)), "record is not there");
        }
    }
    if scanned.unread_bytes > 0 {
        let what = format!("{} bytes cannot be read", scanned.unread_bytes);
        report.find(&place, None, what);
    }
    for (from, to) in &scanned.unknown {
        report.find(&place, None, format!("bytes {from} to {to} are no records"));
    }
    if scanned.unknown.is_empty() && held.unknown > 0 {
        let what = "a stretch is damaged, and nobody knows which shards were there";
        report.find(&place, None, what);
    }
    let ends = scanned.sealed || in_memory;
    if !ends {
        let what = format!("volume has no seal, records end at {}", scanned.tail);
        report.find(&place, None, what);
    }
    !scanned.unknown.is_empty() || !ends || scanned.unread_bytes > 0
}
