//! The parts of a restore, put together.

use std::sync::Arc;

use shardgate_catalog::CatalogOptions;
use tokio_util::task::TaskTracker;

use super::{StartWishes, chain, classes, folder, places, pool_secret};
use crate::config::Settings;
use crate::config::values::LogFormat;
use crate::pool::PoolSettings;
use crate::pool::place::MakeFolders;
use crate::restore::{DATABASE, Operator, Restore, Restored};
use crate::seam::{Clock, SystemClock};
use crate::server;

/// Restores the catalog of the pool that the settings describe.
///
/// # Errors
/// Why not, in words.
pub fn restore(
    settings: &Settings,
    wishes: StartWishes,
    operator: &dyn Operator,
) -> Result<Restored, String> {
    let format = match settings.log.format {
        LogFormat::Text => server::LogFormat::Text,
        LogFormat::Json => server::LogFormat::Json,
    };
    server::init_logs(format, &settings.log.level).map_err(|error| chain(&error))?;
    server::raise_open_files();
    let secret = pool_secret(settings)?;
    let own = settings
        .catalog
        .path
        .clone()
        .ok_or("catalog.path is missing")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start threads: {error}"))?;
    let database = own.join(DATABASE);
    if database.exists() {
        // Before a lock is taken that a running gateway would have.
        return Err(format!(
            "{} is there: move it away first, nothing is ever overwritten",
            database.display()
        ));
    }
    let folder = folder::Own::open(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let restored = runtime.block_on(async {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let restore = Restore {
            places: places(
                settings,
                secret,
                &clock,
                &TaskTracker::new(),
                MakeFolders::Never,
            ),
            settings: PoolSettings {
                classes: classes(settings),
                ..PoolSettings::default()
            },
            own,
            options: options(settings),
            lost: wishes.lost,
            take_over: wishes.take_over,
            clock,
        };
        restore.run(operator).await
    });
    folder.close();
    restored.map_err(|error| chain(&error))
}

/// How the database is opened.
pub(super) fn options(settings: &Settings) -> CatalogOptions {
    CatalogOptions {
        block_cache_bytes: settings.catalog.cache.0 as usize,
        ..CatalogOptions::default()
    }
}
