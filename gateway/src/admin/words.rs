//! The pool's status as people read it.

use std::fmt::Write;

use super::Status;
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
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("writing to a string does not fail");
}
