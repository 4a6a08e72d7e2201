//! The journal on real disks: folders of this machine.

#![allow(clippy::unwrap_used, reason = "in a test it is the assertion")]

use std::sync::Arc;
use std::time::Duration;

use shardgate_disk_store::{DiskOptions, Expected, KeptSpace, LocalDisk, NewDisk};
use shardgate_journal::disks::{Candidate, JournalMap, choose_journal};
use shardgate_journal::recover::Request;
use shardgate_journal::{JournalError, Member, Position, Record, Writer, WriterOptions, recover};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId, Medium, Purpose,
};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId(1);
const SEGMENT_BYTES: u64 = 256 * 1024;
const PARITY: usize = 2;

struct Pool {
    folders: Vec<TempDir>,
    disks: Vec<Arc<LocalDisk>>,
    instances: u128,
}

fn options() -> DiskOptions {
    DiskOptions {
        kept: Some(KeptSpace::NONE),
        journal_segment_bytes: SEGMENT_BYTES,
        ..DiskOptions::default()
    }
}

fn open(folder: &TempDir) -> Arc<LocalDisk> {
    let expected = Expected {
        cluster: CLUSTER,
        disk: None,
    };
    Arc::new(LocalDisk::open(folder.path(), &expected, options()).unwrap())
}

impl Pool {
    fn new(count: u128) -> Self {
        let folders: Vec<TempDir> = (1..=count)
            .map(|id| {
                let folder = TempDir::new().unwrap();
                let new = NewDisk {
                    cluster: CLUSTER,
                    disk: DiskId(id),
                    medium: Some(Medium::Flash),
                    create_folder: false,
                };
                LocalDisk::format(folder.path(), &new).unwrap();
                folder
            })
            .collect();
        Self {
            disks: folders.iter().map(open).collect(),
            folders,
            instances: 0,
        }
    }

    /// Ends all disks and opens those that still have a folder.
    async fn reopen(&mut self) {
        for disk in self.disks.drain(..) {
            disk.close().await;
        }
        self.disks = self.folders.iter().map(open).collect();
    }

    fn map() -> JournalMap {
        // All that there ever were: what is lost stays in the map.
        let all = (1..=5).map(place);
        JournalMap {
            number: 1,
            disks: choose_journal(&all.collect::<Vec<_>>(), &[], PARITY),
            old: None,
        }
    }

    async fn start(&mut self) -> Result<(Writer, Vec<Record>), JournalError> {
        self.instances += 1;
        let request = Request {
            ctx: CallContext {
                cluster: CLUSTER,
                epoch: Epoch {
                    number: 0,
                    instance: InstanceId(self.instances),
                },
                lineage: LineageId(1),
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: Self::map(),
            lost: Vec::new(),
            from: Position::default(),
            begun: self.instances > 1,
            judged: None,
            answer_within: Duration::from_secs(60),
        };
        let disks: Vec<Arc<dyn JournalDisk>> = self
            .disks
            .iter()
            .map(|disk| Arc::clone(disk) as Arc<dyn JournalDisk>)
            .collect();
        let recovered = recover(&disks, request).await?;
        let members = disks.iter().map(|disk| Member {
            disk: Arc::clone(disk),
            place: place(disk.disk().0),
            segment_bytes: SEGMENT_BYTES,
        });
        let options = WriterOptions {
            parity: PARITY,
            ..WriterOptions::default()
        };
        let (writer, mut replay) = recovered.settle(members.collect(), options).await?;
        let mut shown = Vec::new();
        while let Some(more) = replay.next().await? {
            shown.extend(more);
        }
        replay.remove_void().await;
        Ok((writer, shown))
    }
}

fn place(id: u128) -> Candidate {
    Candidate {
        disk: DiskId(id),
        server: 1,
        device: id,
    }
}

async fn commit(writer: &mut Writer, count: usize, len: usize) -> Vec<Record> {
    let mut all = Vec::new();
    for at in 0..count {
        let record = Record::after(&writer.acknowledged(), vec![at as u8; len]);
        writer.append(vec![record.clone()]).await.unwrap();
        all.push(record);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_survive_starts_and_the_loss_of_two_of_five_disks() {
    let mut pool = Pool::new(5);
    let (mut writer, shown) = pool.start().await.unwrap();
    assert!(shown.is_empty());
    // More than one segment.
    let mut committed = commit(&mut writer, 120, 5000).await;
    assert!(writer.closed().len() >= 2);
    drop(writer);
    pool.reopen().await;
    let (mut writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    committed.extend(commit(&mut writer, 10, 10).await);
    assert!(writer.close().await);
    pool.reopen().await;
    let (mut writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    committed.extend(commit(&mut writer, 3, 10).await);
    // A disk's folder is wiped while it is written: the journal moves on.
    let lost = writer.members()[0];
    let folder = pool.folders[lost.0 as usize - 1].path();
    std::fs::remove_dir_all(folder).unwrap();
    committed.extend(commit(&mut writer, 3, 10).await);
    assert!(!writer.members().contains(&lost));
    drop(writer);
    let second = (1..=5).map(DiskId).find(|id| *id != lost).unwrap();
    let keep = |id: u128| DiskId(id) != lost && DiskId(id) != second;
    let folders: Vec<TempDir> = std::mem::take(&mut pool.folders);
    let folders = (1..=5u128).zip(folders).filter(|(id, _)| keep(*id));
    pool.folders = folders.map(|(_, folder)| folder).collect();
    pool.reopen().await;
    assert_eq!(pool.disks.len(), 3);
    let (mut writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    commit(&mut writer, 1, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_gateway_is_fenced_on_real_disks() {
    let mut pool = Pool::new(5);
    let (mut old, _) = pool.start().await.unwrap();
    let committed = commit(&mut old, 3, 10).await;
    let (_new, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    let record = Record::after(&old.acknowledged(), &b"late"[..]);
    let refused = old.append(vec![record]).await;
    assert!(
        matches!(refused, Err(JournalError::Fenced(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_too_long_for_a_segment_are_refused_at_once() {
    let mut pool = Pool::new(5);
    let (mut writer, _) = pool.start().await.unwrap();
    let long = Record::after(&writer.acknowledged(), vec![1; 300 * 1024]);
    let refused = writer.append(vec![long]).await;
    assert_eq!(refused, Err(JournalError::TooLong(300 * 1024)));
    commit(&mut writer, 1, 200 * 1024).await;
}
