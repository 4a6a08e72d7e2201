//! A disk that fills up: who is refused first, who goes on, and how space
//! comes back, on a file system in memory and on the simulated disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_disk_store::io::sim::{Faults, SimDisk};
use shardgate_disk_store::{DiskOptions, KeptSpace, LocalDisk, MediumFigures, VolumeFigures};
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber};
use shardgate_wire::journal::{JOURNAL_PAGE, JournalFile};
use shardgate_wire::store::{MAX_APPEND_BYTES, MAX_BATCH};
use shardgate_wire::{
    BlobNote, CallContext, Medium, NoteOrder, NoteState, Purpose, ShardKey, ShardStore, StoreError,
};

use crate::faults::Mount;
use crate::folder::{Folder, expected, journal_of, options};
use crate::lossy::Mounted;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 24 * MIB;
const SEGMENT_BYTES: u64 = 256 << 10;
const SHARD_LEN: usize = 20_000;
const KEPT: KeptSpace = KeptSpace {
    background: 3 * MIB,
    checkpoint: 2 * MIB,
    journal: 4 * SEGMENT_BYTES,
    upkeep: 3 * MIB,
    compaction: MIB,
};

fn filling() -> DiskOptions {
    DiskOptions {
        kept: Some(KEPT),
        journal_segment_bytes: SEGMENT_BYTES,
        check_every: Duration::from_millis(20),
        volumes: Some(VolumeFigures {
            volume_bytes: MIB,
            zero_step: 64 << 10,
            ..MediumFigures::of(Medium::Flash).volumes
        }),
        ..options()
    }
}

/// The journal of a pool whose disk fills up: it must never be refused.
struct Journal {
    file: JournalFile,
    end: u64,
    /// Which segment it is; no two are alike, or one would be a repeat.
    number: u8,
}

fn pages(fill: u8) -> Bytes {
    Bytes::from(vec![fill; JOURNAL_PAGE])
}

impl Journal {
    async fn begin(disk: &LocalDisk, number: u8) -> Result<Self, StoreError> {
        let ctx = sample::context(1);
        let file = journal_of(disk).begin(&ctx, pages(number)).await?;
        Ok(Self {
            file,
            end: JOURNAL_PAGE as u64,
            number,
        })
    }

    async fn append(&mut self, disk: &LocalDisk) {
        let ctx = sample::context(1);
        if self.end == SEGMENT_BYTES {
            let next = Self::begin(disk, self.number % 100 + 1)
                .await
                .expect("a next segment");
            let old = std::mem::replace(self, next);
            let removed = journal_of(disk).remove(&ctx, &[old.file]).await;
            removed.expect("a checkpoint made it needless");
        }
        let fill = (self.end / JOURNAL_PAGE as u64) as u8;
        let journal = journal_of(disk);
        let appended = journal.append(&ctx, self.file, self.end, pages(fill)).await;
        appended.expect("the journal goes on");
        self.end += JOURNAL_PAGE as u64;
    }
}

struct Filling {
    disk: Arc<LocalDisk>,
    journal: Journal,
    stored: Vec<ShardKey>,
    next: u128,
}

impl Filling {
    async fn new(folder: &Folder) -> Self {
        let disk = LocalDisk::open(folder.path(), &expected(), filling()).unwrap();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        Self {
            journal: Journal::begin(&disk, 1).await.unwrap(),
            disk: Arc::new(disk),
            stored: Vec::new(),
            next: 1,
        }
    }

    fn ctx(purpose: Purpose) -> CallContext {
        sample::context(1).for_purpose(purpose)
    }

    /// Puts until one is refused; the journal appends meanwhile.
    async fn fill(&mut self, purpose: Purpose) -> usize {
        let ctx = Self::ctx(purpose);
        let before = self.stored.len();
        loop {
            self.journal.append(&self.disk).await;
            let blobs: Vec<u128> = (self.next..self.next + 20).collect();
            self.next += 20;
            let put = |blob| {
                let disk = Arc::clone(&self.disk);
                let small = sample::small(&ctx, blob, SHARD_LEN);
                tokio::spawn(async move { disk.put(&ctx, small).await })
            };
            let puts: Vec<_> = blobs.iter().map(|blob| put(*blob)).collect();
            let mut refused = false;
            for (blob, put) in blobs.into_iter().zip(puts) {
                match put.await.unwrap() {
                    Ok(()) => self.stored.push(sample::key(blob)),
                    Err(StoreError::NoSpace) => refused = true,
                    Err(error) => panic!("put: {error}"),
                }
            }
            if refused {
                return self.stored.len() - before;
            }
        }
    }

    /// Every way to write a shard is refused.
    async fn assert_refused(&mut self, purpose: Purpose) {
        let ctx = Self::ctx(purpose);
        let blob = self.next;
        self.next += 1;
        let small = sample::small(&ctx, blob, 100_000);
        let refused = Err(StoreError::NoSpace);
        assert_eq!(self.disk.put(&ctx, small).await, refused, "{purpose:?}");
        let header = sample::header(&ctx, blob);
        for len in [MIB / 2, 2 * MIB] {
            let opened = self.disk.open(&ctx, header.clone(), Some(len)).await;
            assert_eq!(opened.map(drop), refused, "{purpose:?} {len}");
        }
        if let Ok(handle) = self.disk.open(&ctx, header, None).await {
            let bytes = sample::bytes(1, MAX_APPEND_BYTES);
            let crcs = block_crcs(&bytes);
            let appended = self.disk.append(&ctx, handle, 0, bytes, &crcs).await;
            assert_eq!(appended, refused, "{purpose:?}");
            self.disk.abort(&ctx, handle).await.unwrap();
        }
    }

    /// What the disk says of itself within a second or so.
    async fn assert_says(&self, refuses: Option<Purpose>) {
        for _ in 0..200 {
            if self.disk.health().await.unwrap().room.refuses() == refuses {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let health = self.disk.health().await.unwrap();
        panic!("{refuses:?} is to be refused, and not {:?}", health.room);
    }

    async fn note(&self, blob: u128, deleted: bool) {
        let note = BlobNote {
            group: sample::GROUP,
            blob: BlobId(blob),
            order: NoteOrder {
                history: 0,
                commit: CommitNumber(1),
            },
            state: match deleted {
                true => NoteState::Deleted,
                false => NoteState::Published(vec![7; 500]),
            },
        };
        let noted = self.disk.put_notes(&sample::context(1), &[note]).await;
        noted.expect("notes go on");
    }
}

/// Clients are refused, then copies, then checkpoints; the journal goes on
/// all along, and deletes bring all of them back.
async fn fills_up(folder: &Folder) {
    let mut filling = Filling::new(folder).await;
    filling.assert_says(None).await;
    let stored = filling.fill(Purpose::Client).await;
    assert!(stored > 400, "{stored} of clients");
    filling.assert_refused(Purpose::Client).await;
    filling.assert_says(Some(Purpose::Client)).await;
    let copied = filling.fill(Purpose::Background).await;
    assert!(copied > 80, "{copied} copies");
    filling.assert_refused(Purpose::Client).await;
    filling.assert_refused(Purpose::Background).await;
    filling.assert_says(Some(Purpose::Background)).await;
    let saved = filling.fill(Purpose::Checkpoint).await;
    assert!(saved > 50, "{saved} of checkpoints");
    for purpose in Purpose::ALL {
        filling.assert_refused(purpose).await;
    }
    filling.assert_says(Some(Purpose::Checkpoint)).await;

    // Now only what has space of its own goes on: as many segments as are
    // kept, notes, deletes, and compaction, which gives space back.
    let mut more = Vec::new();
    let mut patience = 200;
    while patience > 0 {
        match Journal::begin(&filling.disk, 101 + more.len() as u8).await {
            // Of more than four the disk ends the oldest, which still grows.
            Ok(begun) if more.len() < 2 => more.push(begun.file),
            Ok(begun) => {
                more.push(begun.file);
                break;
            }
            Err(error) => {
                assert_eq!(error, StoreError::NoSpace);
                if more.len() >= 2 {
                    break;
                }
                // The kernel gives up the file of a segment that was removed
                // when it comes to it, and its space only then.
                patience -= 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert!(more.len() >= 2, "{} more segments", more.len());
    filling.note(1_000_000, false).await;
    filling.note(1_000_001, true).await;
    let ctx = sample::context(1);
    let health = filling.disk.health().await.unwrap();
    assert_eq!((health.fenced, health.errors), (None, 0));
    // Two of three, so that no volume goes without a compaction.
    let gone: Vec<ShardKey> = filling.stored.clone();
    let gone: Vec<ShardKey> = gone
        .into_iter()
        .enumerate()
        .filter_map(|(at, key)| (at % 3 > 0).then_some(key))
        .collect();
    for some in gone.chunks(MAX_BATCH / 4) {
        filling.disk.delete(&ctx, some).await.unwrap();
    }
    filling.stored.retain(|key| !gone.contains(key));
    journal_of(&filling.disk).remove(&ctx, &more).await.unwrap();
    filling.assert_says(None).await;
    // Compaction gives the space back when it comes to it.
    let (mut again, mut patience) = (0, 200);
    while again <= 150 && patience > 0 {
        again += filling.fill(Purpose::Client).await;
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(again > 150, "{again} of clients again");
    for key in &filling.stored {
        let read = filling.disk.read(*key, 0, SHARD_LEN as u32).await.unwrap();
        assert_eq!(read.bytes, sample::bytes(key.blob.0, SHARD_LEN));
    }
    filling.disk.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_refuses_in_order_and_comes_back() {
    let mount = Mount::tmpfs(&DISK_BYTES.to_string());
    fills_up(&Folder::within(mount.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_disk_that_fills_up_refuses_in_order_and_comes_back() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults {
        capacity: Some(DISK_BYTES),
        ..Faults::default()
    });
    let mounted = Mounted::new(&disk);
    fills_up(&Folder::within(mounted.path())).await;
}

fn with_disk_id(path: &Path, id: u128, options: DiskOptions) -> LocalDisk {
    let new = shardgate_disk_store::NewDisk {
        disk: shardgate_wire::DiskId(id),
        create_folder: true,
        ..crate::folder::new_disk()
    };
    LocalDisk::format_for(path, &new, &options).unwrap();
    let expected = shardgate_disk_store::Expected {
        disk: Some(new.disk),
        ..expected()
    };
    LocalDisk::open(path, &expected, options).unwrap()
}

/// Two folders of one file system keep what both need.
#[tokio::test]
async fn disks_of_one_file_system_leave_each_other_what_is_kept() {
    let mount = Mount::tmpfs(&DISK_BYTES.to_string());
    let options = filling();
    let first = with_disk_id(&mount.path().join("a"), 1, options.clone());
    let alone = first.health().await.unwrap().room;
    let second = with_disk_id(&mount.path().join("b"), 2, options);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (room, other) = (
        first.health().await.unwrap().room,
        second.health().await.unwrap().room,
    );
    assert_eq!(room, other);
    let both = KEPT.background + KEPT.checkpoint + KEPT.journal + KEPT.upkeep + KEPT.compaction;
    // What formatting the other took is little.
    let lost = alone.client_bytes - room.client_bytes;
    assert!((both..both + MIB * 3).contains(&lost), "{lost}");
    second.close().await;
    drop(second);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let back = first.health().await.unwrap().room;
    assert!(back.client_bytes > room.client_bytes + both - 2 * MIB);
}

/// A file system without room for a journal beside shards is not made a disk;
/// where one is, it opens.
#[tokio::test]
async fn a_file_system_that_is_too_small_is_not_made_a_disk() {
    let new = crate::folder::new_disk();
    let mount = Mount::tmpfs("255m");
    let formatted = LocalDisk::format(mount.path(), &new);
    let refused = formatted.map_err(|error| error.to_string());
    let says = refused.unwrap_err();
    assert!(
        says.contains("has 255 MiB") && says.contains("256 MiB at least"),
        "{says}"
    );
    assert_eq!(std::fs::read_dir(mount.path()).unwrap().count(), 0);
    // Whoever sets what is kept knows better; and a disk is a disk.
    LocalDisk::format_for(mount.path(), &new, &options()).unwrap();
    let options = DiskOptions::default();
    let disk = LocalDisk::open(mount.path(), &expected(), options).unwrap();
    disk.close().await;
    let enough = Mount::tmpfs("256m");
    LocalDisk::format(enough.path(), &new).unwrap();
}
