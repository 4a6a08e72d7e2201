//! The pool's status as people read it.

use std::fmt::Write;

use shardgate_wire::{DiskRoom, ScrubStanding};
use time::OffsetDateTime;

use super::{NotesStatus, Status};
use crate::checkpoint::CheckpointStatus;
use crate::config::ByteSize;
use crate::journal::JournalStatus;
use crate::pool::report::DiskStatus;

/// All of it, ready to print.
pub fn words(whole: &Status) -> String {
    let status = &whole.pool;
    let mut text = format!("cluster {}, epoch {}\n", status.cluster, status.epoch);
    line(&mut text, format_args!("\nWhat may be lost now:"));
    for sentence in &status.loss {
        line(&mut text, format_args!("  {sentence}"));
    }
    for warning in &status.warnings {
        line(&mut text, format_args!("  ! {warning}"));
    }
    line(&mut text, format_args!("\nServers:"));
    for agent in &status.agents {
        let server = agent.server.as_deref().unwrap_or("?");
        let problem = agent.problem.as_deref().unwrap_or("answers");
        line(
            &mut text,
            format_args!("  {:<32} {server:<20} {problem}", agent.place),
        );
    }
    line(&mut text, format_args!("\nDisks:"));
    status
        .disks
        .iter()
        .for_each(|disk| disk_line(&mut text, disk));
    line(&mut text, format_args!("\nClasses:"));
    for class in &status.classes {
        let scheme = class.scheme.as_deref().unwrap_or("no disks");
        let bound = class
            .medium
            .map_or(String::new(), |medium| format!(" on {medium:?} disks"));
        line(
            &mut text,
            format_args!(
                "  {:<24} {scheme:<6} ({}{bound}), room for {}",
                class.name,
                class.configured,
                ByteSize(class.free_bytes)
            ),
        );
    }
    let groups = &status.groups;
    line(
        &mut text,
        format_args!(
            "\nGroups: {} open, {} sealed, {} narrow, {} degraded; {} slots owed",
            groups.open, groups.sealed, groups.narrow, groups.degraded, status.owed.slots
        ),
    );
    if let Some(filling) = &status.owed.filling {
        line(&mut text, format_args!("Background: {filling}"));
    }
    notes_lines(&mut text, &whole.notes);
    journal_lines(&mut text, &whole.journal);
    checkpoint_lines(&mut text, &whole.checkpoint);
    text
}

fn checkpoint_lines(text: &mut String, status: &CheckpointStatus) {
    line(
        text,
        format_args!(
            "Checkpoints: {} kept; {} of journal since the newest, the next at {}; journal {} of at \
             most {}",
            status.kept.len(),
            ByteSize(status.journal_since_bytes),
            ByteSize(status.journal_every_bytes),
            ByteSize(status.journal_bytes),
            ByteSize(status.journal_bound_bytes)
        ),
    );
    for kept in &status.kept {
        let what = match (kept.files, kept.bytes) {
            (Some(files), Some(bytes)) => format!("{files} files, {}", ByteSize(bytes)),
            _ => "! its manifest cannot be read".to_owned(),
        };
        line(
            text,
            format_args!(
                "  commit {}, {} s ago, {what}",
                kept.commit, kept.age_seconds
            ),
        );
    }
    if let Some(progress) = &status.progress {
        line(text, format_args!("  being taken: {progress}"));
    }
}

fn journal_lines(text: &mut String, journal: &JournalStatus) {
    line(
        text,
        format_args!(
            "Journal: commit {}, {} segments, {}, map {}; answers {}",
            journal.commit,
            journal.segments,
            ByteSize(journal.bytes),
            journal.map,
            journal.answers
        ),
    );
    for disk in &journal.disks {
        let writes = match journal.members.contains(disk) {
            true => "  written now",
            false => "",
        };
        line(text, format_args!("  {disk}{writes}"));
    }
    for span in &journal.not_fully_stored {
        line(
            text,
            format_args!(
                "  ! segment {} (commits {} to {}) is not fully stored",
                span.segment,
                span.from + 1,
                span.to
            ),
        );
    }
}

fn notes_lines(text: &mut String, notes: &NotesStatus) {
    line(
        text,
        format_args!(
            "Notes: disks know what became of their blobs up to commit {} of {}",
            notes.told, notes.commit
        ),
    );
    for (disk, told) in &notes.behind {
        line(text, format_args!("  {disk}  up to commit {told}"));
    }
}

fn disk_line(text: &mut String, disk: &DiskStatus) {
    let why = disk
        .why
        .as_deref()
        .map_or(String::new(), |why| format!(": {why}"));
    line(
        text,
        format_args!(
            "  {} {:<14} {:<9} {:>11} free of {:>11}  {} {}{why}",
            disk.id,
            disk.server,
            format!("{:?}", disk.medium).to_lowercase(),
            ByteSize(disk.free_bytes).to_string(),
            ByteSize(disk.capacity_bytes).to_string(),
            disk.path,
            disk.state,
        ),
    );
    if let Some(room) = disk.room.filter(|room| room.refuses().is_some()) {
        line(text, format_args!("    full: {}", room_words(&room)));
    }
    if let Some(scrub) = scrub_words(&disk.scrub) {
        line(text, format_args!("    scrub: {scrub}"));
    }
}

/// How far a disk is in reading everything; `None` if it never began.
fn scrub_words(scrub: &ScrubStanding) -> Option<String> {
    let ended = (scrub.passes > 0).then(|| {
        let last = OffsetDateTime::from_unix_timestamp(ms_to_seconds(scrub.ended_ms)).ok()?;
        Some(format!("all read by {}", last.date()))
    });
    let now = (scrub.pass_bytes > 0).then(|| {
        format!(
            "{} of {} read",
            ByteSize(scrub.read_bytes.min(scrub.pass_bytes)),
            ByteSize(scrub.pass_bytes)
        )
    });
    let words: Vec<String> = [now, ended.flatten()].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn ms_to_seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

/// What each may still take of a disk.
fn room_words(room: &DiskRoom) -> String {
    format!(
        "{} left for client writes, {} for background copies, {} for checkpoints, {} for the \
         journal",
        ByteSize(room.client_bytes),
        ByteSize(room.background_bytes),
        ByteSize(room.checkpoint_bytes),
        ByteSize(room.journal_bytes)
    )
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use shardgate_wire::Medium;

    use super::*;

    fn disk(room: Option<DiskRoom>) -> DiskStatus {
        DiskStatus {
            id: "d1".into(),
            path: "/mnt/a".into(),
            server: "one".into(),
            medium: Medium::Flash,
            capacity_bytes: 4 << 30,
            free_bytes: room.map_or(0, |room| room.client_bytes),
            room,
            state: "living".into(),
            why: None,
            groups: 1,
            damaged: 0,
            scrub: ScrubStanding::default(),
        }
    }

    #[test]
    fn a_scrub_says_how_far_it_is_and_when_the_last_ended() {
        let of = |read_bytes, pass_bytes, passes, ended_ms| {
            scrub_words(&ScrubStanding {
                read_bytes,
                pass_bytes,
                passes,
                ended_ms,
            })
        };
        assert_eq!(of(0, 0, 0, 0), None);
        assert_eq!(
            of(1 << 30, 4 << 30, 0, 0).unwrap(),
            "1.0 GiB of 4.0 GiB read"
        );
        let ended = 1_794_000_000_000;
        assert_eq!(of(0, 0, 2, ended).unwrap(), "all read by 2026-11-06");
        assert_eq!(
            of(5 << 30, 4 << 30, 2, ended).unwrap(),
            "4.0 GiB of 4.0 GiB read, all read by 2026-11-06"
        );
        assert_eq!(of(0, 0, 1, u64::MAX), None);
    }

    #[test]
    fn a_full_disk_says_what_is_left_for_whom() {
        let said = |room| {
            let mut text = String::new();
            disk_line(&mut text, &disk(room));
            text
        };
        let room = DiskRoom {
            client_bytes: 0,
            background_bytes: 1 << 30,
            checkpoint_bytes: 2 << 30,
            journal_bytes: 3 << 30,
            journal_kept_bytes: 0,
        };
        let text = said(Some(room));
        let left = "full: 0 B left for client writes, 1.0 GiB for background copies, 2.0 GiB for \
                    checkpoints, 3.0 GiB for the journal\n";
        assert!(text.ends_with(left), "{text}");
        let client_bytes = 1 << 30;
        let spacious = Some(DiskRoom {
            client_bytes,
            ..room
        });
        for room in [spacious, None] {
            assert_eq!(said(room).lines().count(), 1);
        }
    }
}
