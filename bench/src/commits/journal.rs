//! The engine as a gateway runs it: its log is a journal on three disks, and
//! RocksDB keeps none of its own.

use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::engine::log::{CommitLog, Record};
use shardgate_catalog::engine::{EngineError, RocksEngine, RocksOptions, RocksStopped};
use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk};
use shardgate_journal::disks::{Candidate, JournalMap, choose_journal};
use shardgate_journal::recover::Request;
use shardgate_journal::{Member, Position, Writer, WriterOptions, recover};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId, Purpose,
};
use tokio::runtime::Handle;

const CLUSTER: ClusterId = ClusterId(1);
/// Disks of the journal, and members of its segments, of a pool of four
/// disks that lose two.
const DISKS: u128 = 3;
const PARITY: usize = 2;
/// Long enough for any disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Hands records to the journal and waits for them.
struct JournalLog {
    writer: Writer,
    runtime: Handle,
}

impl CommitLog for JournalLog {
    fn append(&mut self, records: &[Record]) -> std::result::Result<(), EngineError> {
        let records = records.iter().map(|record| shardgate_journal::Record {
            position: Position {
                number: record.position.number,
                hash: record.position.hash,
            },
            payload: record.payload.clone(),
        });
        let appended = self.runtime.block_on(self.writer.append(records.collect()));
        let unavailable = |error| EngineError::Unavailable(format!("journal: {error}"));
        appended.map(drop).map_err(unavailable)
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

/// A new disk in a folder of its own.
fn new_disk(folder: &Path, number: u128) -> Result<Arc<LocalDisk>> {
    let folder = folder.join(format!("disk-{number}"));
    let new = NewDisk {
        cluster: CLUSTER,
        disk: DiskId(number),
        medium: None,
        create_folder: true,
    };
    LocalDisk::format(&folder, &new).map_err(Error::other)?;
    let expected = Expected {
        cluster: CLUSTER,
        disk: Some(new.disk),
    };
    let disk = LocalDisk::open(&folder, &expected, DiskOptions::default());
    Ok(Arc::new(disk.map_err(Error::other)?))
}

/// As if each disk were a server and a device of its own.
fn place(disk: DiskId) -> Candidate {
    Candidate {
        disk,
        server: disk.0,
        device: disk.0,
    }
}

async fn writer(folder: &Path) -> Result<Writer> {
    let numbers = 1..=DISKS;
    let disks = numbers.map(|number| new_disk(folder, number));
    let disks = disks.collect::<Result<Vec<_>>>()?;
    let disks = disks.into_iter().map(|disk| disk as Arc<dyn JournalDisk>);
    let disks: Vec<_> = disks.collect();
    let places: Vec<_> = disks.iter().map(|disk| place(disk.disk())).collect();
    let request = Request {
        ctx: CallContext {
            cluster: CLUSTER,
            epoch: Epoch {
                number: 0,
                instance: InstanceId(1),
            },
            lineage: LineageId(1),
            committed: CommitNumber(0),
            purpose: Purpose::Client,
        },
        map: JournalMap {
            number: 1,
            disks: choose_journal(&places, &[], PARITY),
            old: None,
        },
        lost: Vec::new(),
        from: Position::default(),
        begun: false,
        judged: None,
        answer_within: ANSWER_WITHIN,
    };
    let recovered = recover(&disks, request).await.map_err(Error::other)?;
    let mut members = Vec::new();
    for (disk, place) in disks.into_iter().zip(places) {
        let standing = disk.standing().await.map_err(Error::other)?;
        members.push(Member {
            disk,
            place,
            segment_bytes: standing.segment_bytes,
        });
    }
    let options = WriterOptions {
        parity: PARITY,
        ..WriterOptions::default()
    };
    let settled = recovered.settle(members, options).await;
    Ok(settled.map_err(Error::other)?.0)
}

/// An engine of its own in `folder`, with its journal.
pub(super) async fn engine(folder: &Path, options: &RocksOptions) -> Result<RocksEngine> {
    std::fs::create_dir_all(folder)?;
    let log = JournalLog {
        writer: writer(folder).await?,
        runtime: Handle::current(),
    };
    let stopped = RocksStopped::open(&folder.join("rocksdb"), options).map_err(Error::other)?;
    stopped.start(log).map_err(Error::other)
}
