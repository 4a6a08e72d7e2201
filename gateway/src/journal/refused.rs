//! Why the journal does not start, in words that say what to do.

use shardgate_catalog::engine::EngineError;
use shardgate_journal::{JournalError, Refusal};
use shardgate_wire::{ClusterId, DiskId, Epoch};
use thiserror::Error;

use super::roots::Unread;
use crate::pool::start::plan::PlanError;

/// Why the journal does not start.
#[derive(Debug, Error)]
pub enum JournalStartError {
    /// What was found does not allow it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The gateway's own folder.
    #[error("the gateway's own folder: {0}")]
    Own(#[source] std::io::Error),
    /// The catalog is of another cluster than the folder says.
    #[error("the catalog is of cluster {catalog}, its folder of {own}")]
    OtherCluster {
        /// What the catalog says.
        catalog: ClusterId,
        /// What the folder says.
        own: ClusterId,
    },
    /// A disk of a cluster that has no pool map yet holds data.
    #[error("{folder} holds data, no disk has a pool map and the catalog is empty")]
    HoldsData {
        /// Which.
        folder: String,
    },
    /// A blank folder did not become a disk.
    #[error("format {folder}: {why}")]
    Format {
        /// Which.
        folder: String,
        /// Why.
        why: String,
    },
    /// The disks found are of several clusters, or of none.
    #[error("{}{}", several(clusters), places(silent))]
    NotOneCluster {
        /// Which.
        clusters: Vec<ClusterId>,
        /// Places that do not answer.
        silent: Vec<String>,
    },
    /// No disk has a pool map.
    #[error("none of {disks} disks has a pool map{}", places(silent))]
    NoMap {
        /// So many were found.
        disks: usize,
        /// Places that do not answer.
        silent: Vec<String>,
    },
    /// Too few disks of a pool that has no map yet.
    #[error("{found} of {of} disks are found, and more than half must be: {}", silent.join("; "))]
    TooFewDisks {
        /// So many.
        found: usize,
        /// Of so many.
        of: usize,
        /// Places that do not answer.
        silent: Vec<String>,
    },
    /// Too few journal disks answer.
    #[error(
        "{refusal}{}; a disk that is gone for good is named with --lost ID",
        places(silent)
    )]
    NoMajority {
        /// Which.
        refusal: Box<Refusal>,
        /// Places that do not answer.
        silent: Vec<String>,
    },
    /// Another gateway lives.
    #[error(
        "another gateway runs on these disks (epoch {}, instance {}): stop it, or start with \
         --take-over", .0.number, .0.instance
    )]
    Alive(Epoch),
    /// The local catalog cannot be continued.
    #[error("{0}; it must be restored")]
    Restore(Box<Refusal>),
    /// The journal's.
    #[error(transparent)]
    Journal(Box<JournalError>),
    /// A rebuild of the catalog was cut short.
    #[error(
        "the catalog was being rebuilt and is not whole: run `shardgate catalog rebuild` again"
    )]
    HalfRebuilt,
    /// A disk names checkpoints in a way that is not known here.
    #[error(
        "disk {disk} names checkpoints in format version {found}, which this program does not \
         know: a later one was here"
    )]
    LaterRoots {
        /// Where.
        disk: DiskId,
        /// Which.
        found: u8,
    },
    /// Too few disks say which checkpoints there are.
    #[error(
        "too few journal disks say which checkpoints there are: {}; one that cannot is named with \
         --lost ID",
        unread(.0)
    )]
    RootsUnread(Vec<(DiskId, Unread)>),
    /// The catalog's.
    #[error("catalog: {0}")]
    Engine(#[from] EngineError),
    /// The pool map changed again and again.
    #[error("the pool map changed while this gateway started: another one starts too")]
    Unsettled,
}

fn several(clusters: &[ClusterId]) -> String {
    let names: Vec<String> = clusters.iter().map(ToString::to_string).collect();
    match names.len() {
        0 => "no disk is found".to_owned(),
        1 => format!(
            "disks of cluster {} are found, the gateway's folder is of another",
            names[0]
        ),
        _ => format!("disks of several clusters are found: {}", names.join(", ")),
    }
}

fn unread(disks: &[(DiskId, Unread)]) -> String {
    let each = disks.iter().map(|(disk, why)| match why {
        Unread::Later(found) => format!("{disk} (format version {found})"),
        Unread::Not(why) => format!("{disk} ({why})"),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn places(silent: &[String]) -> String {
    match silent {
        [] => String::new(),
        silent => format!("; no answer from {}", silent.join(", ")),
    }
}

impl JournalStartError {
    /// Whether a restore of the catalog is the way out.
    pub fn is_for_restore(&self) -> bool {
        matches!(
            self,
            Self::Restore(_) | Self::Plan(PlanError::CatalogGone { .. })
        )
    }

    /// Whether a disk is in a higher epoch: another gateway has raised it.
    pub(super) fn is_fenced(&self) -> bool {
        matches!(self, Self::Journal(error) if matches!(**error, JournalError::Fenced(_)))
    }
}

impl From<JournalError> for JournalStartError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Refused(refusal) => refused(refusal),
            error => Self::Journal(Box::new(error)),
        }
    }
}

pub(super) fn refused(refusal: Refusal) -> JournalStartError {
    match &refusal {
        Refusal::NoMajority { .. } => JournalStartError::NoMajority {
            refusal: Box::new(refusal),
            silent: Vec::new(),
        },
        Refusal::NotOnChain(_) | Refusal::MissingSegment { .. } => {
            JournalStartError::Restore(Box::new(refusal))
        }
        _ => JournalStartError::Journal(Box::new(refusal.into())),
    }
}
