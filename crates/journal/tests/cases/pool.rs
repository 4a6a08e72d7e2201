//! A pool of disks in memory, and gateways that start on it.

use std::sync::Arc;
use std::time::Duration;

use shardgate_journal::disks::{Candidate, JournalMap, Lost, choose_journal};
use shardgate_journal::memory::{MemoryDisk, MemoryLink};
use shardgate_journal::recover::Request;
use shardgate_journal::{
    JournalError, Member, Position, Record, Recovered, Writer, WriterOptions, recover,
};
use shardgate_wire::journal::{JournalDisk, JournalFile};
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId, Purpose,
};

pub const SEGMENT_BYTES: usize = 128 * 1024;

pub struct Pool {
    pub disks: Vec<MemoryDisk>,
    pub parity: usize,
    pub lost: Vec<DiskId>,
    pub begun: bool,
    pub from: Position,
    pub lineage: LineageId,
    /// Disks of one device.
    pub together: Vec<DiskId>,
    instances: u128,
}

impl Pool {
    pub fn new(disks: u128, parity: usize) -> Self {
        let disks = (1..=disks).map(|id| MemoryDisk::new(DiskId(id), id as u64, SEGMENT_BYTES));
        Self {
            disks: disks.collect(),
            parity,
            lost: Vec::new(),
            begun: false,
            from: Position::default(),
            lineage: LineageId(1),
            together: Vec::new(),
            instances: 0,
        }
    }

    pub fn place(&self, disk: DiskId) -> Candidate {
        let device = if self.together.contains(&disk) {
            0
        } else {
            disk.0
        };
        Candidate {
            disk,
            server: 1,
            device,
        }
    }

    pub fn map(&self) -> JournalMap {
        let places: Vec<_> = self
            .disks
            .iter()
            .map(|disk| self.place(disk.id()))
            .collect();
        JournalMap {
            number: 1,
            disks: choose_journal(&places, &[], self.parity),
            old: None,
        }
    }

    pub fn disk(&self, id: u128) -> &MemoryDisk {
        self.disks
            .iter()
            .find(|disk| disk.id() == DiskId(id))
            .unwrap()
    }

    pub fn links(&self) -> Vec<Arc<dyn JournalDisk>> {
        let link = |disk: &MemoryDisk| Arc::new(disk.link()) as Arc<dyn JournalDisk>;
        self.disks.iter().map(link).collect()
    }

    pub async fn find(&mut self) -> Result<Recovered, JournalError> {
        let request = self.request();
        recover(&self.links(), request).await
    }

    /// What the next gateway asks for.
    pub fn request(&mut self) -> Request {
        self.instances += 1;
        Request {
            ctx: CallContext {
                cluster: ClusterId(1),
                epoch: Epoch {
                    number: 0,
                    instance: InstanceId(self.instances),
                },
                lineage: self.lineage,
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: self.map(),
            lost: self.lost.clone(),
            from: self.from,
            begun: self.begun,
            judged: None,
            answer_within: Duration::from_secs(5),
        }
    }

    pub fn options(&self) -> WriterOptions {
        WriterOptions {
            parity: self.parity,
            lost: Lost::new(self.lost.clone()),
            ..WriterOptions::default()
        }
    }

    pub fn members(&self) -> Vec<Member> {
        let member = |disk: Arc<dyn JournalDisk>| Member {
            place: self.place(disk.disk()),
            disk,
            segment_bytes: SEGMENT_BYTES as u64,
        };
        let journal = self.map().disks;
        let links = self.links().into_iter();
        links
            .filter(|d| journal.contains(&d.disk()))
            .map(member)
            .collect()
    }

    /// A started gateway, and what it shows.
    pub async fn start(&mut self) -> Result<(Writer, Vec<Record>), JournalError> {
        let recovered = self.find().await?;
        let options = self.options();
        let (writer, mut replay) = recovered.settle(self.members(), options).await?;
        let mut shown = Vec::new();
        while let Some(more) = replay.next().await? {
            shown.extend(more);
        }
        Ok((writer, shown))
    }

    /// Power off and on, everywhere.
    pub fn power(&self) {
        for disk in &self.disks {
            disk.lose_power();
            disk.open();
        }
    }

    /// The files of a disk, in the order in which they were begun.
    pub fn files(&self, id: u128) -> Vec<JournalFile> {
        let contents = self.disk(id).contents().into_iter();
        let mut files: Vec<JournalFile> = contents.map(|(file, _)| file).collect();
        files.sort();
        files
    }

    pub async fn remove(&self, id: u128, file: JournalFile) {
        let link = self.disk(id).link();
        let ctx = CallContext {
            cluster: ClusterId(1),
            epoch: self.disk(id).epoch(),
            lineage: LineageId(1),
            committed: CommitNumber(0),
            purpose: Purpose::Client,
        };
        link.remove(&ctx, &[file]).await.unwrap();
    }

    /// The only file with something in it, on a disk.
    pub fn file(&self, id: u128) -> JournalFile {
        let contents = self.disk(id).contents();
        assert_eq!(contents.len(), 1, "one segment was expected");
        contents[0].0
    }
}

/// Commits records of one page each, one after the other.
pub async fn commit(writer: &mut Writer, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    for _ in 0..count {
        let at = writer.acknowledged();
        let record = Record::after(&at, format!("commit {}", at.number.0 + 1).into_bytes());
        writer.append(vec![record.clone()]).await.unwrap();
        all.push(record);
    }
    all
}

pub fn link(disk: &MemoryDisk) -> MemoryLink {
    disk.link()
}
