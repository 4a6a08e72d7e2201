//! The pool map: which disks there are, where they are, and which of them
//! keep the journal. Every disk has it in its root record, so that a start
//! finds the journal before there is a catalog (PROTOCOL.md 1).
//!
//! Owns its bytes, and the reading and writing of it on many disks. Invariant:
//! of two maps of one number the one of the higher epoch is the newer, since
//! whoever raised that epoch did not see the other, which never counted. Who
//! is to keep the journal is decided in [`crate::disks`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::join_all;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    AgentId, CallContext, ClusterId, DiskId, Epoch, InstanceId, LineageId, Medium, StoreError,
};
use thiserror::Error;
use tokio::time::timeout;

use crate::disks::{JournalMap, MapStep, follow_maps};

const VERSION: u8 = 1;

/// What the map says of a disk for good; what is true at the moment is health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapDiskState {
    /// Part of the pool.
    Member,
    /// Part of it, and fenced when the map was written.
    Fenced,
    /// Declared lost for good by the operator.
    Lost,
}

/// A disk of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDisk {
    /// Which.
    pub id: DiskId,
    /// The agent that has it; `None` for a gateway's own.
    pub agent: Option<AgentId>,
    /// Its folder there.
    pub path: String,
    /// Its server (a domain).
    pub server: String,
    /// Its site (a domain).
    pub site: String,
    /// Its medium.
    pub medium: Medium,
    /// What was known of it.
    pub state: MapDiskState,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolMap {
    /// Raised by every change. Map 1 is written before the first segment of
    /// the journal, 2 behind it: under a higher one than 1 finding no journal
    /// is a loss.
    pub number: u64,
    /// Who wrote it.
    pub epoch: Epoch,
    /// The cluster.
    pub cluster: ClusterId,
    /// The catalog's history.
    pub lineage: LineageId,
    /// The journal disks.
    pub journal: Vec<DiskId>,
    /// Those of the map before, until this one is known to count.
    pub old: Option<Vec<DiskId>>,
    /// All disks.
    pub disks: Vec<MapDisk>,
}

/// Bytes that are no map.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MapError {
    /// A later version wrote it.
    #[error("pool map of format version {0}")]
    Version(u8),
    /// It contradicts itself.
    #[error("pool map is damaged: {0}")]
    Damaged(&'static str),
}

impl PoolMap {
    /// The journal disks that it names.
    pub fn journal_map(&self) -> JournalMap {
        JournalMap {
            number: self.number,
            disks: self.journal.clone(),
            old: self.old.clone(),
        }
    }

    /// The next map, by `epoch`, in which the journal disks are settled.
    pub fn settled(&self, epoch: Epoch) -> Self {
        Self {
            number: self.number + 1,
            epoch,
            old: None,
            ..self.clone()
        }
    }

    fn order(&self) -> (u64, u64) {
        (self.number, self.epoch.number)
    }

    /// As a root record keeps it.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.put_u64(self.number);
        out.put_u64(self.epoch.number);
        out.put_u128(self.epoch.instance.0);
        out.put_u128(self.cluster.0);
        out.put_u128(self.lineage.0);
        put_disks(&mut out, &self.journal);
        out.put_u8(u8::from(self.old.is_some()));
        put_disks(&mut out, self.old.as_deref().unwrap_or_default());
        out.put_u32(u32::try_from(self.disks.len()).expect("disks are bounded"));
        for disk in &self.disks {
            out.put_u128(disk.id.0);
            out.put_u8(u8::from(disk.agent.is_some()));
            out.put_u128(disk.agent.map_or(0, |agent| agent.0));
            for text in [&disk.path, &disk.server, &disk.site] {
                out.put_u32(u32::try_from(text.len()).expect("names are bounded"));
                out.put_slice(text.as_bytes());
            }
            out.put_u8(match disk.medium {
                Medium::Rotating => 0,
                Medium::Flash => 1,
            });
            out.put_u8(match disk.state {
                MapDiskState::Member => 0,
                MapDiskState::Fenced => 1,
                MapDiskState::Lost => 2,
            });
        }
        out.into()
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// [`MapError`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MapError> {
        let version = bytes.try_get_u8().map_err(|_| CUT)?;
        if version != VERSION {
            return Err(MapError::Version(version));
        }
        let bytes = &mut bytes;
        let mut map = Self {
            number: u64_of(bytes)?,
            epoch: Epoch {
                number: u64_of(bytes)?,
                instance: InstanceId(u128_of(bytes)?),
            },
            cluster: ClusterId(u128_of(bytes)?),
            lineage: LineageId(u128_of(bytes)?),
            journal: take_disks(bytes)?,
            old: None,
            disks: Vec::new(),
        };
        let has_old = flag(bytes)?;
        let old = take_disks(bytes)?;
        map.old = has_old.then_some(old);
        for _ in 0..bytes.try_get_u32().map_err(|_| CUT)? {
            map.disks.push(take_disk(bytes)?);
        }
        if !bytes.is_empty() {
            return Err(MapError::Damaged("longer than it says"));
        }
        Ok(map)
    }
}

const CUT: MapError = MapError::Damaged("cut short");

fn put_disks(out: &mut Vec<u8>, disks: &[DiskId]) {
    out.put_u8(u8::try_from(disks.len()).expect("journal disks are few"));
    for disk in disks {
        out.put_u128(disk.0);
    }
}

fn take_disks(bytes: &mut &[u8]) -> Result<Vec<DiskId>, MapError> {
    let count = bytes.try_get_u8().map_err(|_| CUT)?;
    (0..count).map(|_| u128_of(bytes).map(DiskId)).collect()
}

fn u64_of(bytes: &mut &[u8]) -> Result<u64, MapError> {
    bytes.try_get_u64().map_err(|_| CUT)
}

fn u128_of(bytes: &mut &[u8]) -> Result<u128, MapError> {
    bytes.try_get_u128().map_err(|_| CUT)
}

fn flag(bytes: &mut &[u8]) -> Result<bool, MapError> {
    match bytes.try_get_u8().map_err(|_| CUT)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(MapError::Damaged("neither yes nor no")),
    }
}

fn text(bytes: &mut &[u8]) -> Result<String, MapError> {
    let len = bytes.try_get_u32().map_err(|_| CUT)? as usize;
    let (text, rest) = bytes.split_at_checked(len).ok_or(CUT)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| MapError::Damaged("a name is no text"))?;
    Ok(text.to_owned())
}

fn take_disk(bytes: &mut &[u8]) -> Result<MapDisk, MapError> {
    let id = DiskId(u128_of(bytes)?);
    let has_agent = flag(bytes)?;
    let agent = AgentId(u128_of(bytes)?);
    Ok(MapDisk {
        id,
        agent: has_agent.then_some(agent),
        path: text(bytes)?,
        server: text(bytes)?,
        site: text(bytes)?,
        medium: match bytes.try_get_u8().map_err(|_| CUT)? {
            0 => Medium::Rotating,
            1 => Medium::Flash,
            _ => return Err(MapError::Damaged("unknown medium")),
        },
        state: match bytes.try_get_u8().map_err(|_| CUT)? {
            0 => MapDiskState::Member,
            1 => MapDiskState::Fenced,
            2 => MapDiskState::Lost,
            _ => return Err(MapError::Damaged("unknown state")),
        },
    })
}

/// What the disks that answered hold: a map, or `None` before the first.
pub type Maps = BTreeMap<DiskId, Option<PoolMap>>;

/// Reads the map of every disk that answers within the time. One whose map
/// cannot be read counts as one that did not answer.
pub async fn read_maps(disks: &[Arc<dyn JournalDisk>], within: Duration) -> Maps {
    let asked = disks.iter().map(|disk| async move {
        let id = disk.disk();
        let roots = match timeout(within, disk.roots()).await {
            Ok(Ok(roots)) => roots,
            Ok(Err(error)) => {
                tracing::warn!(disk = %id, %error, "disk does not tell its pool map");
                return None;
            }
            Err(_) => {
                tracing::warn!(disk = %id, "disk does not tell its pool map in time");
                return None;
            }
        };
        if roots.map_number == 0 {
            return Some((id, None));
        }
        match PoolMap::decode(&roots.map) {
            Ok(map) if map.number == roots.map_number => Some((id, Some(map))),
            Ok(_) => {
                tracing::error!(disk = %id, "pool map is of another number than its record");
                None
            }
            Err(error) => {
                tracing::error!(disk = %id, %error, "pool map cannot be read");
                None
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The newest map of those that were read.
pub fn newest(maps: &Maps) -> Option<&PoolMap> {
    maps.values().flatten().max_by_key(|map| map.order())
}

/// What is to be done about the newest map; `None` where no disk has one.
/// `asked`: all disks that were asked, answered or not.
pub fn follow(maps: &Maps, asked: &[DiskId]) -> Option<(PoolMap, MapStep)> {
    let newest = newest(maps)?;
    let is_void = |map: &PoolMap| map.number == newest.number && map.order() < newest.order();
    let seen = maps
        .iter()
        .filter_map(|(disk, map)| Some((*disk, map.as_ref()?)))
        .filter(|(_, map)| !is_void(map))
        .map(|(disk, map)| (disk, map.journal_map()))
        .collect();
    let step = follow_maps(&seen, asked)?;
    Some((newest.clone(), step))
}

/// Writes a map to all disks at once, and returns those that have it durably.
/// Whether it counts is [`JournalMap::has_enough`].
///
/// # Errors
/// The epoch of another gateway is in force on one of them.
pub async fn write_map(
    disks: &[Arc<dyn JournalDisk>],
    ctx: &CallContext,
    map: &PoolMap,
    within: Duration,
) -> Result<Vec<DiskId>, Epoch> {
    let bytes = map.encode();
    let calls = disks.iter().map(|disk| {
        let bytes = bytes.clone();
        async move {
            let set = timeout(within, disk.set_map(ctx, map.number, bytes)).await;
            (
                disk.disk(),
                set.unwrap_or(Err(StoreError::TimedOut(within))),
            )
        }
    });
    let mut durable = Vec::new();
    for (disk, set) in join_all(calls).await {
        match set {
            Ok(()) => durable.push(disk),
            Err(StoreError::StaleEpoch { held }) => return Err(held),
            Err(error) => tracing::warn!(%disk, %error, number = map.number, "no pool map there"),
        }
    }
    Ok(durable)
}

#[cfg(test)]
mod tests;
