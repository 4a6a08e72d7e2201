//! From disks to a catalog and a pool, and back.
//!
//! Owns the order in which journal, catalog and pool come up and go down.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::Catalog;
use shardgate_catalog::checkpoint::{KEPT, Roots};
use shardgate_catalog::engine::{Engine, RocksEngine, RocksStopped};
use tokio::time::timeout;

use super::restore::options;
use super::{StartWishes, chain, classes};
use crate::config::Settings;
use crate::journal::lineage::{Settling, settle};
use crate::journal::start::{JournalStart, start_journal};
use crate::journal::{Journal, Keeper, KeeperParts, TakenOver, release};
use crate::pool::place::Place;
use crate::pool::start::{Start, start_at};
use crate::pool::{Pool, PoolSettings};
use crate::restore::DATABASE;
use crate::seam::Clock;

/// How long a stop waits for the journal's last batch.
const LAST_BATCH: Duration = Duration::from_secs(5);
/// How long a stop waits for a disk to hear that it is over.
const RELEASE: Duration = Duration::from_secs(2);

/// What a start makes.
pub(super) struct Started {
    pub(super) catalog: Catalog,
    pub(super) pool: Pool,
    pub(super) journal: Journal,
    pub(super) keeper: Keeper,
    /// Under the catalog, for checkpoints.
    pub(super) engine: Arc<RocksEngine>,
    /// The checkpoints that disks name.
    pub(super) roots: Roots,
    /// Whether nothing may be reclaimed.
    pub(super) held: bool,
    /// Whether this is a later lineage, and not both checkpoints are there.
    pub(super) without_checkpoint: bool,
    /// Nothing is answered before this was waited for.
    pub(super) taken_over: Option<TakenOver>,
}

/// Starts the journal, with it the catalog, and over it the pool.
pub(super) async fn start(
    settings: &Settings,
    own: &Path,
    places: Vec<Arc<dyn Place>>,
    clock: Arc<dyn Clock>,
    wishes: StartWishes,
) -> Result<Started, String> {
    let pool_settings = PoolSettings {
        classes: classes(settings),
        ..PoolSettings::default()
    };
    let engine = open_engine(settings, own, &wishes.restore).await?;
    let request = JournalStart {
        places: places.clone(),
        settings: pool_settings.clone(),
        own: own.to_owned(),
        lost: wishes.lost.clone(),
        take_over: wishes.take_over,
    };
    let started = start_journal(request, engine).await;
    let started = started.map_err(|error| match error.is_for_restore() {
        true => {
            let place = own.join(DATABASE).display().to_string();
            format!("{error}; {}", way_out(&place, &wishes.restore))
        }
        false => error.to_string(),
    })?;
    let journal = Journal::new(started.writer);
    let engine = started.engine.start(journal.log());
    let engine = engine.map_err(|error| format!("start the catalog: {error}"))?;
    let engine = Arc::new(engine);
    let catalog = Catalog::new(Arc::clone(&engine) as Arc<dyn Engine>);
    let lost = started.lost.all();
    let open = started.ways.open().into_iter();
    let settling = Settling {
        catalog: &catalog,
        journal: &journal,
        disks: open.filter(|disk| !lost.contains(&disk.disk())).collect(),
        told: &started.told,
        complete: started.complete,
        lost: &lost,
        now_ms: clock.now_ms(),
        patience: pool_settings.start_patience,
    };
    let (history, map) = match settle(settling, started.map).await {
        Ok(settled) => settled,
        Err(error) => {
            journal.give_up();
            return Err(chain(&error));
        }
    };
    let held = history.hold.is_some();
    let without_checkpoint = history.history > 0 && started.roots.all().len() < KEPT;
    let start = Start {
        catalog: catalog.clone(),
        places,
        settings: pool_settings,
        clock,
        declare_lost: wishes.lost,
        cluster: map.cluster,
        history,
        epoch: journal.context().epoch,
        opened: started.opened,
        ways: started.ways,
        lost: started.lost.clone(),
    };
    let pool = match start_at(start).await {
        Ok(pool) => pool,
        Err(error) => {
            // The catalog's thread may wait for disks; it must let go.
            journal.give_up();
            return Err(chain(&error));
        }
    };
    let keeper = Keeper::new(KeeperParts {
        journal: journal.clone(),
        pool: pool.clone(),
        map,
        contact: started.contact,
        lost: started.lost,
    });
    Ok(Started {
        catalog,
        pool,
        journal,
        keeper,
        engine,
        roots: started.roots,
        held,
        without_checkpoint,
        taken_over: started.taken_over,
    })
}

async fn open_engine(
    settings: &Settings,
    own: &Path,
    restore: &str,
) -> Result<RocksStopped, String> {
    let options = options(settings);
    let path = own.join(DATABASE);
    let place = path.display().to_string();
    let open = move || RocksStopped::open(&path, &options);
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| format!("open the catalog in {place}: {error}"))?;
    opened.map_err(|error| {
        format!(
            "open the catalog in {place}: {error}; if its files are damaged, {}",
            way_out(&place, restore)
        )
    })
}

/// What the operator does about a catalog that cannot be continued.
fn way_out(place: &str, restore: &str) -> String {
    format!("move {place} away and restore the catalog: `{restore}`")
}

/// Ends the journal so that the next start has nothing to watch or replay,
/// then closes the disks.
pub(super) async fn stop(catalog: &Catalog, journal: &Journal, pool: &Pool, taken_over: bool) {
    let ctx = journal.context();
    let closed = match taken_over {
        true => false,
        false => timeout(LAST_BATCH, journal.close()).await.unwrap_or(false),
    };
    // Whatever still waits for disks ends here.
    journal.give_up();
    if let Err(error) = catalog.flush().await {
        tracing::warn!(%error, "the catalog is not flushed: the next start replays more");
    }
    if closed {
        release(&pool.inner.ways.open(), ctx, RELEASE).await;
        tracing::info!(commit = ctx.committed.0, "journal closed");
    }
    pool.close().await;
}
