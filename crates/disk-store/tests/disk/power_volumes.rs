//! The power goes in the middle of everything that volumes do, on a real ext4.
//!
//! A process stores, deletes and notes on a file system in a file until it is
//! killed; sealing and compaction go on beside it. What it wrote and did not
//! sync is in the page cache of that file system alone, so a copy of the file,
//! mounted, is the disk as after a loss of power at that moment. The next run
//! goes on with the copy. Needs root and loop devices.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use shardgate_disk_store::LocalDisk;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::{check_whole, sample};
use shardgate_wire::ids::{CommitNumber, random_u128};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{BlobNote, CallContext, NoteOrder, NoteState, ShardStore, StoreError};

use crate::folder::{SeenVolumes, expected, new_disk, options, small_volumes};
use crate::power::Image;

const CHILD_DISK: &str = "SHARDGATE_DISK_WITHOUT_POWER";
/// Blobs that one run may use.
const RUN: u64 = 1_000_000;
const RUNS: u64 = 4;
const LENGTHS: [usize; 5] = [100, 3000, 70_000, 30_000, 900];

fn len_of(blob: u64) -> usize {
    LENGTHS[(blob % LENGTHS.len() as u64) as usize]
}

/// Three of four go again soon, so that volumes become waste.
fn goes(blob: u64) -> bool {
    !blob.is_multiple_of(4)
}

async fn store(disk: &LocalDisk, ctx: &CallContext, blob: u64) -> Result<(), StoreError> {
    let (id, len) = (u128::from(blob), len_of(blob));
    if blob.is_multiple_of(3) {
        return disk.put(ctx, sample::small(ctx, id, len)).await;
    }
    // In an extent: its length is known.
    let header = sample::header(ctx, id);
    let handle = disk.open(ctx, header, Some(len as u64)).await?;
    let bytes = sample::bytes(id, len);
    let crcs = block_crcs(&bytes);
    disk.append(ctx, handle, 0, bytes, &crcs).await?;
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: 4 * len as u64,
    };
    disk.finish(ctx, handle, end).await
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

async fn lives(disk: &LocalDisk, ctx: &CallContext, blob: u64) -> Result<(), StoreError> {
    store(disk, ctx, blob).await?;
    say(&format!("stored {blob}"));
    let gone = blob - 4.min(blob % RUN);
    if gone < blob && goes(gone) {
        say(&format!("deleting {gone}"));
        let key = sample::key(u128::from(gone));
        disk.delete(ctx, &[key]).await?;
        say(&format!("deleted {gone}"));
        if gone.is_multiple_of(5) {
            let note = BlobNote {
                group: key.group,
                blob: key.blob,
                order: NoteOrder {
                    history: 1,
                    commit: CommitNumber(gone + 1),
                },
                state: NoteState::Deleted,
            };
            disk.put_notes(ctx, &[note]).await?;
            say(&format!("noted {gone}"));
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "is killed by the test that starts it"]
async fn child_without_power() {
    let Ok(told) = std::env::var(CHILD_DISK) else {
        return;
    };
    let (run, path) = told.split_once(':').unwrap();
    let run: u64 = run.parse().unwrap();
    let disk = LocalDisk::open(Path::new(path), &expected(), small_volumes()).unwrap();
    let ctx = sample::context(run + 1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let callers = (0..4).map(|caller| {
        let (disk, ctx) = (&disk, &ctx);
        async move {
            // Each has blobs of its own.
            for blob in (0..RUN / 4).map(|at| run * RUN + caller * (RUN / 4) + at) {
                lives(disk, ctx, blob).await?;
            }
            Ok::<_, StoreError>(())
        }
    });
    let all: Vec<_> = callers.collect();
    let mut all = all.into_iter();
    let (a, b, c, d) = (all.next(), all.next(), all.next(), all.next());
    let ended = tokio::try_join!(a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap());
    ended.unwrap();
}

/// What the runs said so far.
#[derive(Default)]
struct Said {
    stored: BTreeSet<u64>,
    deleting: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
    noted: BTreeSet<u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let Some((what, blob)) = line.split_once(' ') else {
            return;
        };
        let set = match what {
            "stored" => &mut self.stored,
            "deleting" => &mut self.deleting,
            "deleted" => &mut self.deleted,
            "noted" => &mut self.noted,
            _ => return,
        };
        set.extend(blob.parse::<u64>());
    }

    async fn check(&self, disk: &LocalDisk) {
        for blob in &self.stored {
            let len = len_of(*blob);
            let read = disk.read(sample::key((*blob).into()), 0, len as u32).await;
            if self.deleted.contains(blob) {
                assert_eq!(read, Err(StoreError::NotFound), "{blob} was deleted");
            } else if self.deleting.contains(blob) {
                let fits = read.is_ok() || read == Err(StoreError::NotFound);
                assert!(fits, "{blob} was being deleted: {read:?}");
            } else {
                let read = read.unwrap_or_else(|error| panic!("{blob} was stored: {error}"));
                assert_eq!(read.bytes, sample::bytes((*blob).into(), len));
            }
        }
        let mut notes = BTreeSet::new();
        let mut after = None;
        loop {
            let page = disk.notes(after).await.unwrap();
            notes.extend(page.notes.iter().map(|note| note.blob.0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for blob in &self.noted {
            let id = sample::key((*blob).into()).blob.0;
            assert!(notes.contains(&id), "the note of {blob} is gone");
        }
        let check = check_whole(disk, &disk.own_context(), false).await;
        assert_eq!(check.findings, []);
    }
}

/// Runs the child until it has said `lines` lines, and hears the rest of what
/// it says.
fn run_until(run: u64, disk: &Path, lines: u64, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("power_volumes::child_without_power")
        .env(CHILD_DISK, format!("{run}:{}", disk.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut heard = 0;
    for line in output.lines() {
        said.hear(&line.unwrap());
        heard += 1;
        if heard == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= lines, "the child ended by itself");
}

#[tokio::test]
async fn volumes_survive_the_loss_of_power_at_any_moment() {
    let seed = random_u128() as u64;
    println!("lines by seed {seed}");
    let mut image = Image::fresh();
    let mut new = new_disk();
    new.create_folder = true;
    LocalDisk::format_for(&image.disk(), &new, &options()).unwrap();
    let (mut said, mut seen) = (Said::default(), SeenVolumes::default());
    for run in 0..RUNS {
        let lines = 200 + (seed >> (8 * run)) % 500;
        run_until(run, &image.disk(), lines, &mut said);
        let after = Image::after_power_loss(&image);
        seen.look_after_run(&after.disk());
        let disk = LocalDisk::open(&after.disk(), &expected(), small_volumes()).unwrap();
        said.check(&disk).await;
        disk.close().await;
        seen.look(&after.disk());
        image = after;
    }
    let (stored, deleted) = (said.stored.len(), said.deleted.len());
    assert!(stored > 100 && deleted > 50, "{stored} {deleted}");
    seen.check(RUNS as usize);
}
