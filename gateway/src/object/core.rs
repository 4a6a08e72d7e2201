//! What all parts of the data path share, built once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use shardgate_catalog::Catalog;
use shardgate_erasure::{Codec, Layout};
use shardgate_wire::ids::IdSource;
use shardgate_wire::{BlobId, Purpose, VersionUid};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Room;
use super::budget::{MemoryBudget, Permit};
use super::buffers::BlockPool;
use super::calls::{DiskCalls, Target};
use super::catalog_room::CatalogRoom;
use super::error::ObjectError;
use super::hedge::HedgeBudget;
use super::in_flight::InFlight;
use super::mend::GivingUp;
use super::metrics::ObjectMetrics;
use super::notes::Notes;
use super::open_reads::OpenReads;
use super::ports::{Disks, GroupView};
use super::reclaim::Reclaiming;
use super::repairs::RepairQueue;
use super::settings::ObjectSettings;
use crate::seam::Clock;

/// The shared state. Every field is usable from any task.
pub(super) struct Core {
    pub catalog: Catalog,
    pub catalog_room: CatalogRoom,
    pub disks: Arc<dyn Disks>,
    pub calls: DiskCalls,
    pub clock: Arc<dyn Clock>,
    pub settings: ObjectSettings,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
    pub budget: MemoryBudget,
    /// Memory for the sources of decodings. Apart from `budget`: a decoding
    /// needs it while its reader holds some of that, and two readers must
    /// not wait for each other.
    pub decode_budget: MemoryBudget,
    pub blocks: BlockPool,
    pub ids: IdSource,
    pub metrics: ObjectMetrics,
    pub hedges: HedgeBudget,
    pub open_reads: OpenReads,
    /// Readers that hold more than one unit.
    pub wide_readers: AtomicU64,
    pub in_flight: InFlight,
    pub repairs: RepairQueue,
    pub giving_up: GivingUp,
    pub notes: Notes,
    pub reclaiming: Reclaiming,
    pub codecs: RwLock<HashMap<Layout, Codec>>,
}

impl Core {
    /// The codec of a layout, made once.
    pub fn codec(&self, layout: Layout) -> Codec {
        if let Some(codec) = self.codecs.read().get(&layout) {
            return codec.clone();
        }
        let codec = Codec::new(layout);
        self.codecs.write().insert(layout, codec.clone());
        codec
    }

    /// How full the memory is.
    pub fn room(&self) -> Room {
        Room {
            free: self.budget.free_units(),
            total: self.budget.total_units(),
            wide: self.wide_readers.load(Ordering::Relaxed),
        }
    }

    /// Waits for memory.
    pub async fn admit(&self, bytes: u64) -> Result<Permit, ObjectError> {
        self.budget.admit(bytes).await.map_err(|_slow_down| {
            self.metrics.slow_downs.one();
            ObjectError::SlowDown
        })
    }

    /// Refuses when this gateway may not answer any more.
    pub fn check_in_force(&self) -> Result<(), ObjectError> {
        match self.calls.is_fenced() {
            true => Err(ObjectError::Fenced),
            false => Ok(()),
        }
    }

    /// Refuses a write of a client while the catalog is short of room.
    pub fn check_room(&self) -> Result<(), ObjectError> {
        if self.catalog_room.is_short() {
            return Err(ObjectError::NoSpace);
        }
        if self.catalog_room.is_journal_full() {
            return Err(ObjectError::SlowDown);
        }
        Ok(())
    }

    /// A disk to call for a client, if the pool has it.
    pub fn target(&self, group: &GroupView, slot: u8) -> Option<Target> {
        let disk = group.row.slots[usize::from(slot)];
        self.disks.store(disk).map(|store| Target {
            disk,
            store,
            group: group.row.id,
            purpose: Purpose::Client,
        })
    }

    pub fn new_blob(&self) -> BlobId {
        BlobId(self.ids.next(self.clock.now_ms()))
    }

    pub fn new_version(&self) -> VersionUid {
        VersionUid(self.ids.next(self.clock.now_ms()))
    }
}
