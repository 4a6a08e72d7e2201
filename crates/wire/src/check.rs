//! What a disk says of what it keeps: shards that it knows to be damaged, how
//! far its scrub is, and what a check for the operator finds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shard::ShardKey;
use crate::store::{CallContext, StoreError};

/// Damaged shards that a disk keeps in mind at most. What is beyond them the
/// next pass of its scrub finds again.
pub const MAX_DAMAGED: usize = 1000;
/// Findings of one [`CheckPage`] at most.
pub const MAX_FINDINGS: usize = 200;
/// Bytes of a text about damage at most.
pub const MAX_FINDING_BYTES: usize = 200;
/// Bytes of a [`CheckCursor`] at most.
pub const MAX_CHECK_CURSOR_BYTES: usize = 64;

/// A shard that its disk found damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedShard {
    /// Which.
    pub key: ShardKey,
    /// What does not match; at most [`MAX_FINDING_BYTES`].
    pub what: String,
}

/// How far a disk is in reading everything that it keeps, again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStanding {
    /// Bytes that the present pass has read.
    pub read_bytes: u64,
    /// Bytes that a pass has to read, about; 0 if no pass runs.
    pub pass_bytes: u64,
    /// Passes that came to their end, since the disk was formatted.
    pub passes: u32,
    /// When the last of them did, milliseconds since 1970; 0 if none did.
    pub ended_ms: u64,
}

/// Where a check goes on. Only the disk that gave it knows what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCursor(pub Vec<u8>);

/// One thing that is wrong on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where, for people; at most [`MAX_FINDING_BYTES`].
    pub place: String,
    /// The shard that is damaged, if it is known.
    pub shard: Option<ShardKey>,
    /// What does not match; at most [`MAX_FINDING_BYTES`].
    pub what: String,
    /// Whether it was repaired.
    pub repaired: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(key) = self.shard {
            write!(
                f,
                " group {} blob {} index {}",
                key.group, key.blob, key.index
            )?;
        }
        write!(f, ": {}", self.what)?;
        f.write_str(if self.repaired { " (repaired)" } else { "" })
    }
}

/// What one part of a check read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPage {
    /// Volumes that were read.
    pub volumes: u64,
    /// Shards that are whole, in volumes and in files.
    pub shards: u64,
    /// Bytes of those shards' records or files.
    pub bytes: u64,
    /// What is wrong; at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Where to go on; `None` at the end of the disk.
    pub next: Option<CheckCursor>,
}

/// What a check has read and found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Volumes that were read.
    pub volumes: u64,
    /// Shards that are whole.
    pub shards: u64,
    /// Bytes of those shards' records or files.
    pub bytes: u64,
    /// What was wrong.
    pub found: u64,
    /// Of it, what was repaired.
    pub repaired: u64,
}

impl Checked {
    /// Takes in one part.
    pub fn add(&mut self, page: &CheckPage) {
        let repaired = page.findings.iter().filter(|finding| finding.repaired);
        self.volumes += page.volumes;
        self.shards += page.shards;
        self.bytes += page.bytes;
        self.found += page.findings.len() as u64;
        self.repaired += repaired.count() as u64;
    }

    /// Whether nothing is wrong any more.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.found == self.repaired
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} volumes, {} shards whole, {} bytes; {} found wrong",
            self.volumes, self.shards, self.bytes, self.found
        )?;
        match self.repaired {
            0 => Ok(()),
            repaired => write!(f, ", {repaired} of it repaired"),
        }
    }
}

/// Head of [`Call::Damaged`](crate::message::Call::Damaged); the answer is
/// [`DamagedShard`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedHead {}

/// Head of [`Call::Check`](crate::message::Call::Check); the answer is a
/// [`CheckPage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Where to go on.
    pub from: Option<CheckCursor>,
    /// Whether directories that do not say what the records do are written
    /// anew.
    pub repair: bool,
}

/// Refuses a cursor that no disk gave.
///
/// # Errors
/// [`StoreError::BadCall`].
pub fn check_cursor(from: Option<&CheckCursor>) -> Result<(), StoreError> {
    match from {
        Some(from) if from.0.len() > MAX_CHECK_CURSOR_BYTES => Err(StoreError::BadCall {
            what: format!("cursor of {} bytes", from.0.len()),
        }),
        _ => Ok(()),
    }
}

/// A text about damage, cut to its bound at a character's border.
#[must_use]
pub fn bounded(mut what: String) -> String {
    what.truncate(what.floor_char_boundary(MAX_FINDING_BYTES));
    what
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_said_and_counted() {
        let finding = |repaired| Finding {
            place: "volume 3".into(),
            shard: None,
            what: "record is damaged".into(),
            repaired,
        };
        assert_eq!(finding(false).to_string(), "volume 3: record is damaged");
        let mut checked = Checked::default();
        let mut page = CheckPage {
            volumes: 1,
            shards: 5,
            bytes: 2048,
            findings: vec![finding(true)],
            next: None,
        };
        checked.add(&page);
        assert!(checked.is_well());
        page.findings = vec![finding(false), finding(true)];
        checked.add(&page);
        assert!(!checked.is_well());
        let words = "2 volumes, 10 shards whole, 4096 bytes; 3 found wrong, 2 of it repaired";
        assert_eq!(checked.to_string(), words);
    }

    #[test]
    fn a_text_is_cut_at_a_border() {
        let long = "ä".repeat(MAX_FINDING_BYTES);
        assert_eq!(bounded(long).len(), MAX_FINDING_BYTES);
        let odd = format!("x{}", "ä".repeat(MAX_FINDING_BYTES));
        assert_eq!(bounded(odd).len(), MAX_FINDING_BYTES - 1);
        assert_eq!(bounded("short".to_owned()), "short");
    }
}
