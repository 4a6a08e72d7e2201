//! `shardgate catalog rebuild`: a catalog made anew from what the disks of
//! the pool and its journal still have, when there is no other way.
//!
//! Owns the order: look, ask the operator, take the pool as a start does,
//! read everything, and only then write: a new journal whose first record says
//! that the catalog is not whole, the pool map with the new lineage, the rows,
//! and last that it is whole. Cut short at any place it begins again:
//! until the first record is there the pool is as it was, and from then on no
//! gateway starts before a rebuild was finished.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_catalog::engine::{RocksEngine, RocksStopped};
use shardgate_catalog::model::{DiskRow, DiskState};
use shardgate_catalog::rebuild::{Facts, NewCatalog, begin, rebuild as make};
use shardgate_catalog::{Catalog, CatalogOptions};
use shardgate_journal::map::{MapDisk, MapDiskState};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{ClusterId, CommitNumber, DiskId, LineageId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::report::{Listing, words};
use super::{StartWishes, chain, classes, folder, places, pool_secret};
use crate::config::Settings;
use crate::journal::seize::{Seized, SeizedDisk, seize};
use crate::journal::start::JournalStart;
use crate::journal::{Journal, release};
use crate::pool::PoolSettings;
use crate::pool::place::{FoundState, MakeFolders, Survey};
use crate::pool::start::survey_all;
use crate::rebuild::{
    Base, Bases, JournalFound, ShardHeaders, look_at_journal, read_journal, scan,
};
use crate::restore::DATABASE;
use crate::seam::{Clock, SystemClock};
use crate::server;

/// How long a stop waits for a disk to hear that it is over.
const RELEASE: Duration = Duration::from_secs(2);
/// The engine that facts are gathered in.
const SCRATCH: &str = "rebuild-scratch";

/// What the operator says of a rebuild.
#[derive(Clone, Debug, Default)]
pub struct RebuildWishes {
    /// As of a start.
    pub start: StartWishes,
    /// Go on although the journal has everything.
    pub even_so: bool,
    /// The access key of the identity that owns what it makes.
    pub owner: String,
}

/// Rebuilds. `ask` shows what is to be done and says whether it may be.
///
/// # Errors
/// A sentence. It may be run again.
pub fn rebuild(
    settings: Settings,
    wishes: RebuildWishes,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), String> {
    let format = server::LogFormat::Text;
    server::init_logs(format, &settings.log.level).map_err(|error| chain(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start threads: {error}"))?;
    runtime.block_on(run(settings, wishes, ask))
}

async fn run(
    settings: Settings,
    wishes: RebuildWishes,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), String> {
    let own = settings.catalog.path.clone();
    let own = own.ok_or("catalog.path is missing")?;
    let secret = pool_secret(&settings)?;
    let lock = folder::Own::open(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let places = places(&settings, secret, &clock, &tracker, MakeFolders::Never);
    let pool_settings = PoolSettings {
        classes: classes(&settings),
        ..PoolSettings::default()
    };
    let surveys = survey_all(&places, pool_settings.survey_timeout).await;
    let (cluster, words) = what_is_there(&surveys)?;
    if !ask(&words) {
        return Err("nothing was changed".to_owned());
    }
    let request = JournalStart {
        places: places.clone(),
        settings: pool_settings,
        own: own.clone(),
        lost: wishes.start.lost.clone(),
        take_over: wishes.start.take_over,
    };
    let scratch = own.join(SCRATCH);
    remove(&scratch)?;
    let outcome = match seize(request, cluster).await {
        Ok(seized) => over(seized, &own, &settings, (&wishes, &*clock)).await,
        Err(error) => Err(chain(&error)),
    };
    remove(&scratch)?;
    for place in &places {
        place.close(RELEASE).await;
    }
    stop.cancel();
    tracker.close();
    lock.close();
    println!("{}", outcome?);
    Ok(())
}

/// The cluster of the disks that are found, and what the operator is told.
fn what_is_there(surveys: &[Result<Survey, String>]) -> Result<(ClusterId, String), String> {
    let mut disks: BTreeMap<ClusterId, BTreeSet<DiskId>> = BTreeMap::new();
    let mut words = String::new();
    for survey in surveys {
        match survey {
            Err(why) => words.push_str(&format!("  ! no answer: {why}\n")),
            Ok(survey) => {
                for found in &survey.folders {
                    let what = match &found.state {
                        FoundState::Disk(identity) => {
                            disks
                                .entry(identity.cluster)
                                .or_default()
                                .insert(identity.disk);
                            format!("disk {}", identity.disk)
                        }
                        FoundState::Blank => "blank, left alone".to_owned(),
                        FoundState::Missing => "! there is no such folder".to_owned(),
                        FoundState::Failed { why } => format!("! {why}"),
                    };
                    words.push_str(&format!("  {} {}: {what}\n", survey.server, found.folder));
                }
            }
        }
    }
    let mut clusters = disks.iter();
    match (clusters.next(), clusters.next()) {
        (Some((cluster, disks)), None) => Ok((
            *cluster,
            format!(
                "The catalog of cluster {cluster} is made anew from these {} disks:\n{words}\
                 What the catalog in catalog.path holds now is set aside. This is the last \
                 resort: where a checkpoint and the journal are there, `shardgate catalog \
                 restore` gives everything back, and this does not.\n",
                disks.len()
            ),
        )),
        (None, _) => Err(format!("no disk is found:\n{words}")),
        (Some(_), Some(_)) => Err(format!(
            "disks of several clusters are configured:\n{words}"
        )),
    }
}

/// An empty catalog, in place of what is there, which is set aside: it is
/// removed only where it is itself what an unfinished rebuild left.
fn new_engine(settings: &Settings, own: &Path) -> Result<RocksStopped, String> {
    let path = own.join(DATABASE);
    let options = CatalogOptions {
        block_cache_bytes: settings.catalog.cache.0 as usize,
        ..CatalogOptions::default()
    };
    let context = |error: std::io::Error| format!("{}: {error}", own.display());
    if path.try_exists().map_err(context)? {
        match is_unfinished(&path, &options) {
            true => fs::remove_dir_all(&path).map_err(context)?,
            false => fs::rename(&path, aside(own).map_err(context)?).map_err(context)?,
        }
    }
    RocksStopped::open(&path, &options).map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether this is a catalog that a rebuild did not come to the end of.
/// What cannot be opened is not known to be one.
fn is_unfinished(path: &Path, options: &CatalogOptions) -> bool {
    let opened = RocksStopped::open(path, options).ok();
    opened.is_some_and(|database| {
        database.applied().number.0 == 0 || database.is_being_rebuilt().unwrap_or(false)
    })
}

/// Where a catalog is set aside: the first of these names that is free.
fn aside(own: &Path) -> std::io::Result<PathBuf> {
    for number in 1.. {
        let name = match number {
            1 => "rocksdb.before-rebuild".to_owned(),
            _ => format!("rocksdb.before-rebuild-{number}"),
        };
        let path = own.join(name);
        if !path.try_exists()? {
            return Ok(path);
        }
    }
    unreachable!("some number is free")
}

/// Everything behind the taking of the pool.
async fn over(
    seized: Seized,
    own: &Path,
    settings: &Settings,
    by: (&RebuildWishes, &dyn Clock),
) -> Result<String, String> {
    let found = look_at_journal(&seized.salvage).await;
    let found = found.map_err(|error| format!("read the journal: {}", chain(&error)))?;
    if found.goes_on_from(CommitNumber(0)) && !by.0.even_so {
        return Err(
            "the journal is whole: a start replays it, and `shardgate catalog restore` restores \
             from it; a rebuild would know less (--even-so does it nevertheless)"
                .to_owned(),
        );
    }
    let scratch = own.join(SCRATCH).join("facts");
    let engine = RocksEngine::open(&scratch, &CatalogOptions::default());
    let engine = engine.map_err(|error| format!("{}: {error}", scratch.display()))?;
    let mut facts = Facts::new(Arc::new(engine));
    facts.set_lineage(seized.map().lineage);
    for first in &found.unfinished {
        let added = facts.add_unfinished(first.clone());
        added.map_err(|error| format!("read the journal: {}", chain(&error)))?;
    }
    begin_with(&seized, &found, own, &mut facts, by.0).await?;
    read_and_write(seized, (facts, &found), own, settings, by).await
}

/// Takes over the newest whole catalog that there is; refuses where nothing
/// is missing behind it.
async fn begin_with(
    seized: &Seized,
    found: &JournalFound,
    own: &Path,
    facts: &mut Facts,
    wishes: &RebuildWishes,
) -> Result<(), String> {
    let disks = seized.disks();
    let disks = || disks.iter().map(|(_, disk)| &disk.ways);
    let bases = Bases {
        cluster: seized.map().cluster,
        lineages: facts.lineages().to_vec(),
        shards: disks().map(|ways| Arc::clone(&ways.shards)).collect(),
        journals: disks().map(|ways| Arc::clone(&ways.journal)).collect(),
        database: own.join(DATABASE),
        scratch: own.join(SCRATCH),
    };
    let mut needless = None;
    let taken = bases.first(async |base| {
        needless = needless_by(found, base, seized.salvage.is_complete());
        if wishes.even_so || needless.is_none() {
            needless = None;
            let added = facts.add_catalog(&*base.engine).await;
            added.map_err(|error| format!("{}: {}", base.name(), chain(&error)))?;
        }
        Ok(())
    });
    match taken.await {
        _ if needless.is_some() => Err(needless.unwrap_or_default()),
        Some(base) => {
            tracing::info!("it begins with {}", base.name());
            Ok(())
        }
        None => Ok(()),
    }
}

/// Why a rebuild is not needed where there is such a catalog. A restore wants
/// a majority of the journal disks, a start none that were named lost.
fn needless_by(found: &JournalFound, base: &Base, complete: bool) -> Option<String> {
    let way = match (base.is_own, complete) {
        (true, _) => "a start goes on from there",
        (false, true) => "`shardgate catalog restore` gives everything back",
        (false, false) => return None,
    };
    found.goes_on_from(base.commit).then(|| {
        format!(
            "{} can be read, and the journal behind it is whole: {way}, and a rebuild would know \
             less (--even-so does it nevertheless)",
            base.name()
        )
    })
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

async fn read_and_write(
    seized: Seized,
    (mut facts, found): (Facts, &JournalFound),
    own: &Path,
    settings: &Settings,
    (wishes, clock): (&RebuildWishes, &dyn Clock),
) -> Result<String, String> {
    let disks = seized.disks();
    add_disks(&mut facts, &seized, &disks);
    let shards: Vec<_> = disks
        .iter()
        .map(|(_, disk)| Arc::clone(&disk.ways.shards))
        .collect();
    let journals: Vec<Arc<dyn JournalDisk>> = disks
        .iter()
        .map(|(_, disk)| Arc::clone(&disk.ways.journal))
        .collect();
    let failed = |error: &dyn std::error::Error| format!("read the pool: {}", chain(error));
    let scanned = scan(&shards, &mut facts)
        .await
        .map_err(|error| failed(&error))?;
    let read = read_journal(&seized.salvage, found, &mut facts).await;
    read.map_err(|error| failed(&error))?;

    let lineage = LineageId::random();
    let ctx = seized.salvage.context();
    let new = NewCatalog {
        cluster: ctx.cluster,
        lineage,
        epoch: ctx.epoch,
        owner: wishes.owner.clone(),
        now: clock.now_ms(),
    };
    // What can fail here comes before the pool is told.
    let stopped = new_engine(settings, own)?;
    let mut list = Listing::new(own)?;
    let begun = seized.begin(lineage).await;
    let (writer, map) = begun.map_err(|error| chain(&error))?;
    let journal = Journal::new(writer);
    let engine = stopped.start(journal.log());
    let engine = engine.map_err(|error| format!("start the catalog: {error}"))?;
    let catalog = Catalog::new(Arc::new(engine));
    let failed = |error: &dyn std::error::Error| {
        journal.give_up();
        format!("write the catalog: {}", chain(error))
    };
    begin(&facts, &new, &catalog)
        .await
        .map_err(|error| failed(&error))?;
    // From here on the old journal is void; the map says under which lineage.
    map.write(&journal).await.map_err(|error| failed(&error))?;
    let headers = ShardHeaders::new(shards);
    let made = make(&mut facts, &headers, &new, &catalog, &mut |one| {
        list.add(one)
    })
    .await;
    let made = made.map_err(|error| failed(&error))?;
    let listed = list.end()?;
    if let Err(error) = catalog.flush().await {
        tracing::warn!(%error, "the catalog is not flushed: the next start replays it");
    }
    forget_checkpoints(&journals, &journal).await;
    let ctx = journal.context();
    if journal.close().await {
        release(&journals, ctx, RELEASE).await;
    }
    Ok(words(&made, &scanned.unread, &listed))
}

/// Checkpoints of before are of a catalog that is no more.
async fn forget_checkpoints(disks: &[Arc<dyn JournalDisk>], journal: &Journal) {
    let ctx = journal.context();
    for disk in disks {
        let forgotten = tokio::time::timeout(RELEASE, disk.set_checkpoint(&ctx, Bytes::new()));
        if !matches!(forgotten.await, Ok(Ok(()))) {
            tracing::warn!(disk = %disk.disk(), "an old checkpoint's root stays there");
        }
    }
}

/// The disks that are here, and those that the pool map has besides.
fn add_disks(facts: &mut Facts, seized: &Seized, disks: &[(DiskId, SeizedDisk)]) {
    for of in &seized.map().disks {
        facts.add_disk(row_of(of, seized.lost()), false);
    }
    for (id, disk) in disks {
        let medium = disk.health.identity.medium;
        facts.add_disk(disk.at.row(*id, medium), true);
        facts.add_told(disk.health.told);
    }
}

fn row_of(of: &MapDisk, lost: &[DiskId]) -> DiskRow {
    DiskRow {
        id: of.id,
        agent: of.agent,
        path: of.path.clone(),
        server: of.server.clone(),
        site: of.site.clone(),
        medium: of.medium,
        state: match of.state == MapDiskState::Lost || lost.contains(&of.id) {
            true => DiskState::Lost,
            false => DiskState::Member,
        },
    }
}
