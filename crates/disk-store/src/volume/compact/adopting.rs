//! How a written volume comes to count, and what it was made of goes.
//!
//! Invariant: one entry of the log decides. Before it is durable the old
//! volumes count alone, from then on the new one alone.

use std::io;

use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;

use super::choosing::Choice;
use super::{Copied, Output};
use crate::condition::Doing;
use crate::volume::engine::{Engine, Writer};
use crate::volume::format::{DirectoryHead, Ends, Entry, LogEntry};
use crate::volume::place::{What, group_folder, volume_file};
use crate::volume::volume_state::Volume;

impl Engine {
    /// Removes an output that did not come to count, its directory first.
    /// Only while nothing that says otherwise can be in the log.
    fn give_up_output(&self, group: GroupId, sequence: u64) {
        self.files.forget(sequence);
        let gone = |what| match self.io.remove(&volume_file(group, sequence, what)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        // What remains is removed by the next start.
        if gone(What::Directory).is_ok() && self.sync_group(group).is_ok() {
            let _ = gone(What::Output);
            let _ = gone(What::Part);
        }
    }

    /// Lets the output take the place of what it was made of.
    pub(super) fn adopt(&self, choice: &Choice, output: Option<Output>) -> Result<(), StoreError> {
        let group = choice.group;
        let mut adopted = None;
        if let Some(output) = &output {
            let entries: Vec<_> = output.copied.iter().map(|copied| copied.to).collect();
            let ends = Ends {
                tail: output.cursor,
                extents_from: output.heading.size,
                unknown: 0,
                recorded: entries.iter().map(Entry::bytes).sum(),
            };
            let written = self.write_directory(output.heading, ends, &entries);
            let head = written.inspect_err(|_| {
                if self.condition.check_writable().is_ok() {
                    self.give_up_output(group, output.heading.sequence);
                }
            })?;
            adopted = Some((head, &output.copied[..]));
        }
        let mut writer = self.writing();
        // What a panic leaves may be in the log and not in the state, or half
        // in it: deletes that come behind it would be forgotten.
        let guard = self.condition.fence_unless_done("an adoption panicked");
        let adopted = self.adopt_written(&mut writer, choice, adopted);
        guard.done();
        adopted
    }

    /// Of a written output, if there is any, its head and what was copied.
    fn adopt_written(
        &self,
        writer: &mut Writer,
        choice: &Choice,
        adopted: Option<(DirectoryHead, &[Copied])>,
    ) -> Result<(), StoreError> {
        let group = choice.group;
        let buried = adopted
            .as_ref()
            .map_or(Vec::new(), |(_, copied)| self.buried_since(group, copied));
        let sequence = adopted
            .as_ref()
            .map_or(0, |(head, _)| head.heading.sequence);
        if let Err(error) = self.log_adoption(writer, choice, sequence, &buried) {
            // What a refused write left must be gone from the log first.
            self.mend_log(writer);
            if adopted.is_some() && self.condition.check_writable().is_ok() {
                self.give_up_output(group, sequence);
            }
            return Err(error);
        }
        // From here on a start completes it, so nothing may go on as before:
        // deletes of the old volumes would be forgotten.
        let completed = self.complete(choice, adopted.map(|(head, _)| head), &buried);
        completed.map_err(|error| match error {
            StoreError::Lost { .. } | StoreError::Fenced { .. } => error,
            other => self.condition.fence(format!("adopt volume: {other}")),
        })
    }

    fn complete(
        &self,
        choice: &Choice,
        head: Option<DirectoryHead>,
        buried: &[Entry],
    ) -> Result<(), StoreError> {
        let group = choice.group;
        if let Some(head) = &head {
            let sequence = head.heading.sequence;
            let from = volume_file(group, sequence, What::Output);
            let to = volume_file(group, sequence, What::Volume);
            let renamed = self.io.rename(&from, &to);
            renamed.map_err(|error| self.refused(Doing::Writing, "adopt volume", &error))?;
            self.sync_group(group)?;
        }
        let adopted = head.as_ref().map(|head| (group, head.heading.sequence));
        self.replace(choice, head, buried);
        if let Some(place) = adopted {
            self.want_copy(place);
        }
        for old in &choice.volumes {
            self.remove_volume(group, *old)?;
        }
        self.sync_group(group)
    }

    /// Records that were deleted after they were copied.
    fn buried_since(&self, group: GroupId, copied: &[Copied]) -> Vec<Entry> {
        let state = self.state.read();
        let Some(of) = state.groups.get(&group) else {
            return Vec::new();
        };
        let dead = |copied: &&Copied| {
            let volume = of.volumes.get(&copied.source);
            volume.is_none_or(|volume| volume.is_dead(copied.from.at))
        };
        copied.iter().filter(dead).map(|copied| copied.to).collect()
    }

    fn log_adoption(
        &self,
        writer: &mut Writer,
        choice: &Choice,
        volume: u64,
        buried: &[Entry],
    ) -> Result<(), StoreError> {
        let mut at: Vec<u32> = buried.iter().map(|entry| entry.at).collect();
        at.sort_unstable();
        let bytes = buried.iter().map(Entry::bytes).sum();
        let mut entries: Vec<_> = LogEntry::dead(volume, bytes, &at).collect();
        if entries.len() > 1 {
            // More than one batch may take: durable before the volume counts,
            // or a crash brings them back.
            self.log_durably(writer, &entries)?;
            entries.clear();
        }
        entries.push(LogEntry::Adopt {
            group: choice.group,
            volume,
            of: choice.volumes.clone(),
        });
        self.log_durably(writer, &entries)
    }

    fn log_durably(&self, writer: &mut Writer, entries: &[LogEntry]) -> Result<(), StoreError> {
        let file = self.log_append(writer, entries)?;
        file.sync_data()
            .map_err(|error| self.refused(Doing::Syncing, "sync log", &error))?;
        self.check_named(&*file)?;
        if let Some(log) = &mut writer.log {
            log.synced();
        }
        Ok(())
    }

    fn replace(&self, choice: &Choice, head: Option<DirectoryHead>, buried: &[Entry]) {
        let mut state = self.state.write();
        state.moves += 1;
        let of = state.groups.entry(choice.group).or_default();
        for old in &choice.volumes {
            of.volumes.remove(old);
        }
        if let Some(head) = head {
            let sequence = head.heading.sequence;
            let mut volume = Volume::sealed(head);
            for entry in buried {
                volume.bury_entry(entry);
            }
            of.volumes.insert(sequence, volume);
        }
        of.arrange();
    }

    fn remove_volume(&self, group: GroupId, sequence: u64) -> Result<(), StoreError> {
        self.files.forget(sequence);
        if let Some(index) = &self.index {
            index.forget((group, sequence));
        }
        for what in [What::Volume, What::Directory] {
            match self.io.remove(&volume_file(group, sequence, what)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.refused(Doing::Writing, "remove volume", &error));
                }
                _ => {}
            }
        }
        // Who opened them in between must not keep their space.
        self.files.forget(sequence);
        Ok(())
    }

    pub(super) fn sync_group(&self, group: GroupId) -> Result<(), StoreError> {
        let synced = self.io.sync_dir(&group_folder(group));
        synced.map_err(|error| self.refused(Doing::Syncing, "sync folder", &error))
    }
}
