//! In which order the job acts, over a real database, disks in memory and a
//! journal that notes what it is asked.

use std::collections::HashSet;

use async_trait::async_trait;
use shardgate_wire::BlobId;

use super::*;
use crate::background::paced;
use crate::checkpoint::fixture::{Test, blobs};
use crate::journal::JournalDisks;

/// What the journal was asked, and which files were known then.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Told {
        counts: bool,
        known: HashSet<BlobId>,
    },
    Trimmed {
        to: u64,
        known: HashSet<BlobId>,
    },
}

struct Noted {
    catalog: Catalog,
    asked: Mutex<Vec<Asked>>,
    /// How often roots do not count yet.
    refusals: AtomicU64,
}

impl Noted {
    async fn known(&self) -> HashSet<BlobId> {
        let files = self.catalog.checkpoint_files().await.unwrap();
        files.iter().map(|file| file.blob.blob).collect()
    }
}

#[async_trait]
impl JournalSide for Noted {
    async fn tell_roots(&self, _: &Roots, _: &mut BTreeSet<DiskId>) -> Result<bool, JournalError> {
        let left = self.refusals.load(Ordering::Relaxed);
        self.refusals
            .store(left.saturating_sub(1), Ordering::Relaxed);
        let (counts, known) = (left == 0, self.known().await);
        self.asked.lock().push(Asked::Told { counts, known });
        Ok(counts)
    }

    async fn length(&self, _: CommitNumber) -> Result<JournalLength, JournalError> {
        Ok(JournalLength::default())
    }

    async fn journal_disks(&self) -> JournalDisks {
        JournalDisks::default()
    }

    async fn trim(&self, checkpoint: CommitNumber) -> Result<usize, JournalError> {
        let known = self.known().await;
        let to = checkpoint.0;
        self.asked.lock().push(Asked::Trimmed { to, known });
        Ok(0)
    }
}

/// A job that works only when it is told.
fn job(test: Test, roots: Roots) -> (Checkpoints, Arc<Noted>, Test) {
    let journal = Arc::new(Noted {
        catalog: test.pool.catalog.clone(),
        asked: Mutex::default(),
        refusals: AtomicU64::new(0),
    });
    let taker = &test.taker;
    let job = Checkpoints::new(CheckpointParts {
        local: taker.local.again(),
        catalog: taker.catalog.clone(),
        objects: taker.objects.clone(),
        pool: taker.pool.clone(),
        journal: Arc::clone(&journal) as Arc<dyn JournalSide>,
        room: CatalogRoom::default(),
        clock: Arc::clone(&taker.clock),
        roots,
        wished: Wished {
            every_bytes: None,
            every: Duration::from_secs(3600),
            bound_bytes: None,
        },
        turns: paced(u64::MAX),
    });
    (job, journal, test)
}

fn of_kept(job: &Checkpoints) -> HashSet<BlobId> {
    needed(&job.inner.kept.read()).expect("all were read")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_goes_when_the_newer_roots_count_and_no_sooner() {
    let (job, journal, test) = job(Test::new(&[6]).await, Roots::default());
    let mut commits = Vec::new();
    for name in ["first", "second"] {
        test.change(name).await;
        commits.push(job.take(Due::Asked).await.unwrap().0);
    }
    let before = of_kept(&job);
    journal.asked.lock().clear();
    journal.refusals.store(2, Ordering::Relaxed);
    test.change("third").await;
    job.take(Due::Asked).await.unwrap();
    let after = of_kept(&job);
    let dropped: HashSet<BlobId> = before.difference(&after).copied().collect();
    assert!(!dropped.is_empty(), "each has a manifest of its own");
    let asked = journal.asked.lock().clone();
    let [first, second, third, last] = &asked[..] else {
        panic!("{asked:?}");
    };
    // All is there until the roots count, and then only what is kept.
    let all: HashSet<BlobId> = before.union(&after).copied().collect();
    for (told, counts) in [(first, false), (second, false), (third, true)] {
        let known = all.clone();
        assert_eq!(*told, Asked::Told { counts, known });
    }
    let trimmed = Asked::Trimmed {
        to: commits[1],
        known: after,
    };
    assert_eq!(*last, trimmed, "what was dropped goes before the journal");
    let condemned = test.pool.catalog.condemned(None, 1000).await.unwrap();
    let condemned: HashSet<BlobId> = condemned.iter().map(|of| of.row.blob).collect();
    assert!(dropped.is_subset(&condemned), "{dropped:?} {condemned:?}");
}

/// What an earlier run left is not believed by its root.
#[tokio::test(flavor = "multi_thread")]
async fn inherited_ones_whose_files_are_gone_are_replaced_and_trim_nothing() {
    let test = Test::new(&[6]).await;
    let mut roots = Roots::default();
    let mut kept = HashSet::new();
    for name in ["first", "second"] {
        test.change(name).await;
        let taken = test.taker.take(None).await.unwrap();
        kept.extend(blobs(&taken));
        roots = roots.with(taken.root).unwrap();
    }
    let whole = job(test, roots.clone());
    whole.0.settle().await.unwrap();
    assert_eq!(whole.0.health(), Health::Whole);
    let asked = whole.1.asked.lock().clone();
    assert!(
        matches!(&asked[..], [Asked::Told { .. }, Asked::Trimmed { .. }]),
        "{asked:?}"
    );
    // Every shard that three of the disks have.
    let test = whole.2;
    for disk in &test.pool.disks()[..4] {
        let disk = test.pool.disk(*disk);
        for key in disk.finished() {
            assert!(disk.drop_shard(key));
        }
    }
    let (job, journal, test) = job(test, roots.clone());
    job.settle().await.unwrap();
    assert_eq!(job.health(), Health::Lost);
    let asked = journal.asked.lock().clone();
    assert!(matches!(&asked[..], [Asked::Told { .. }]), "{asked:?}");
    // Two more, and all is well.
    for name in ["third", "fourth"] {
        test.change(name).await;
        job.take(Due::Lost).await.unwrap();
    }
    assert_eq!(job.health(), Health::Whole);
    assert!(
        of_kept(&job).is_disjoint(&kept),
        "none of the old ones is used again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_would_be_older_than_what_disks_name_is_an_error() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let mut taken = test.taker.take(None).await.unwrap();
    taken.root.position.number = CommitNumber(1 << 40);
    let roots = Roots::default().with(taken.root).unwrap();
    let (job, _, _test) = job(test, roots);
    let refused = job.take(Due::Asked).await.unwrap_err();
    assert!(matches!(refused, JobError::Backward(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_attempt_that_was_killed_go() {
    let (job, _journal, test) = job(Test::new(&[6]).await, Roots::default());
    let links = test.dir.path().join("checkpoint");
    std::fs::create_dir(&links).unwrap();
    std::fs::write(links.join("000007.sst"), "held on to").unwrap();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    tracker.spawn(async move {
        tokio::select! {
            () = job.take_for_ever() => {}
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    });
    tracker.close();
    tracker.wait().await;
    stop.cancel();
    assert!(!links.exists());
}
