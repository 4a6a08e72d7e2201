//! The gateway put together: every component is built once, here, and passed
//! down.
//!
//! Owns the order of start and stop. Start: logs, the lock on the gateway's
//! own folder, disks, journal, catalog, pool, data path, S3, listeners. Stop:
//! listeners, running requests (with a deadline), background work, journal,
//! catalog, disks.

mod folder;
pub mod rebuild;
mod reserve;
mod restore;
mod start;

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

pub use restore::restore;
use shardgate_catalog::checkpoint::KEPT;
use shardgate_disk_store::{DirectoryMemory, DiskOptions};
use shardgate_journal::contact::May;
use shardgate_wire::DiskId;
use shardgate_wire::mac::Secret;
use shardgate_wire::operator_token::operator_token;
use start::Started;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::agents::place::AgentFolders;
use crate::agents::{AgentClient, AgentSettings};
use crate::auth::{RootCredentials, SecretText};
use crate::background::{JobParts, Jobs, paced};
use crate::checkpoint::due::Wished;
use crate::checkpoint::{CheckpointParts, Checkpoints, LocalDatabase};
use crate::config::values::{AgentUrl, LogFormat};
use crate::config::{SchemeChoice, Settings};
use crate::journal::Gate;
use crate::object::settings::ObjectSettings;
use crate::object::{CatalogRoom, ObjectParts, ObjectService, Reclaiming};
use crate::pool::place::{LocalFolder, LocalFolders, MakeFolders, Place};
use crate::pool::{ClassSetting, DiskCount, Pool, SchemeSetting};
use crate::s3::{Answers, BodyPace, Contact, Owners, S3Parts, S3Settings, ServedObjects, build_s3};
use crate::seam::{Clock, SystemClock};
use crate::server::{self, Limits, ServerParts, ServerSettings};

/// Between two attempts at the first checkpoints of a lineage.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// What the operator says of one start.
#[derive(Clone, Debug, Default)]
pub struct StartWishes {
    /// Disks that are declared lost for good first.
    pub lost: Vec<DiskId>,
    /// Takes over from a gateway that may still live.
    pub take_over: bool,
    /// The command that restores this gateway's catalog, for messages.
    pub restore: String,
    /// Which of the gateway's own folders are made.
    pub makes: MakeFolders,
}

/// Serves until the process is told to stop.
pub fn serve(settings: Settings, wishes: StartWishes) -> Result<(), String> {
    serve_with(settings, wishes, |_| {})
}

/// Serves; `ready` is called once, when requests are taken, with the disks
/// that there are.
pub fn serve_with(
    settings: Settings,
    wishes: StartWishes,
    ready: impl FnOnce(DiskCount),
) -> Result<(), String> {
    let format = match settings.log.format {
        LogFormat::Text => server::LogFormat::Text,
        LogFormat::Json => server::LogFormat::Json,
    };
    server::init_logs(format, &settings.log.level).map_err(|error| chain(&error))?;
    // Before catalog and disks open theirs.
    if let Some(files) = server::raise_open_files()
        && (files as usize) < settings.limits.connections
    {
        tracing::warn!(
            files,
            "fewer files may be open than connections are allowed"
        );
    }
    let root = settings
        .root_credentials()
        .map_err(|error| error.to_string())?;
    let secret = pool_secret(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start threads: {error}"))?;
    runtime.block_on(run(settings, root, secret, wishes, ready))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The secret of agents; without one every agent must be on loopback.
fn pool_secret(settings: &Settings) -> Result<Option<Secret>, String> {
    match settings.pool_secret().map_err(|error| error.to_string())? {
        Some(secret) => Ok(Some(secret)),
        None => match settings
            .pool
            .agents
            .iter()
            .find(|agent| !is_loopback(agent))
        {
            Some(AgentUrl(url)) => Err(format!(
                "pool.secret is missing: it may be only where every agent is on loopback, and {url} is not"
            )),
            None => Ok(None),
        },
    }
}

/// Whether every address that the agent's name stands for is loopback.
fn is_loopback(AgentUrl(url): &AgentUrl) -> bool {
    let authority = url.trim_start_matches("http://");
    let addresses = authority.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    addresses.is_ok_and(|all| {
        !all.is_empty()
            && all
                .iter()
                .map(|addr| addr.ip())
                .all(|ip: IpAddr| ip.is_loopback())
    })
}

async fn run(
    settings: Settings,
    root: RootCredentials,
    secret: Option<Secret>,
    wishes: StartWishes,
    ready: impl FnOnce(DiskCount),
) -> Result<(), String> {
    let path = settings
        .catalog
        .path
        .clone()
        .ok_or("catalog.path is missing")?;
    let folder =
        folder::Own::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let token = operator_token(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let token = SecretText::new(token);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());

    let places = places(&settings, secret, &clock, &tracker, wishes.makes);
    let started = start::start(&settings, &path, places, Arc::clone(&clock), wishes).await?;
    let Started {
        catalog,
        pool,
        journal,
        keeper,
        engine,
        roots,
        held,
        without_checkpoint,
        taken_over,
    } = started;
    let reclaiming = Reclaiming::new(held);
    pool.spawn_probes(&tracker, stop.clone());
    keeper.spawn(&tracker, stop.clone());
    if let Some(taken_over) = taken_over {
        let waited = taken_over.wait().await;
        waited.map_err(|error| format!("write the gateway's own folder: {error}"))?;
    }
    keeper.ask_now().await;
    let room = CatalogRoom::default();
    reserve::watch(path.clone(), room.clone(), &tracker, stop.clone());
    let objects = ObjectService::start(ObjectParts {
        catalog: catalog.clone(),
        catalog_room: room.clone(),
        disks: Arc::new(pool.clone()),
        clock: Arc::clone(&clock),
        reclaiming: reclaiming.clone(),
        settings: object_settings(&settings),
        tracker: tracker.clone(),
        stop: stop.clone(),
    });
    let jobs = Jobs::start(JobParts {
        catalog: catalog.clone(),
        disks: Arc::new(pool.clone()),
        objects: objects.clone(),
        rate: settings.limits.background_rate.0,
        tracker: tracker.clone(),
        stop: stop.clone(),
    });

    let checkpoints = Checkpoints::start(
        CheckpointParts {
            local: LocalDatabase::new(engine, path),
            catalog: catalog.clone(),
            objects: objects.clone(),
            pool: pool.clone(),
            journal: Arc::new(keeper.clone()),
            room: room.clone(),
            clock: Arc::clone(&clock),
            roots,
            wished: checkpoint_wishes(&settings),
            turns: paced(settings.limits.background_rate.0),
        },
        &tracker,
        stop.clone(),
    );
    if without_checkpoint {
        renew_checkpoints(checkpoints.clone(), &tracker, stop.clone());
    }

    let parts = ServerParts {
        front: build_s3(
            &s3_settings(&settings),
            S3Parts {
                catalog: catalog.clone(),
                objects: ServedObjects::new(objects.clone(), class_names(&pool)),
                owners: Owners::new(pool.context().cluster),
                credentials: Arc::new(root.clone()),
                clock,
                contact: Arc::new(InContact(keeper.gate())),
            },
        ),
        readings: admin::readings(&pool, &keeper, &objects, &jobs, &checkpoints),
        routes: admin::Routes::new(
            admin::RouteParts {
                pool: pool.clone(),
                keeper: keeper.clone(),
                room: room.clone(),
                jobs,
                checkpoints,
                objects: objects.clone(),
                reclaiming,
            },
            root.access_key(),
        ),
    };
    let server = server_settings(&settings, token);
    let told = stop_signal()?;
    let ends = told_or_taken_over(told, pool.clone());
    let disks = pool.disk_count();
    let outcome = server::run(server, parts, ends, |_, _| ready(disks)).await;
    let taken_over = pool.is_taken_over();
    tracing::info!("stopping");
    stop.cancel();
    tracker.close();
    if tokio::time::timeout(settings.gateway.shutdown_deadline.0, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!("background work did not end in time");
    }
    start::stop(&catalog, &journal, &pool, taken_over).await;
    drop((objects, pool, keeper, catalog));
    folder.close();
    if taken_over {
        return Err("another gateway has taken over the disks".to_owned());
    }
    outcome.map_err(|error| chain(&error))
}

/// Ends when the process is told to stop, or may not answer any more.
async fn told_or_taken_over(told: impl Future<Output = ()>, pool: Pool) {
    tokio::select! {
        () = told => {}
        () = pool.taken_over() => {}
    }
}

/// Ends with the first SIGTERM or SIGINT; from then on a second one ends the
/// process at once, without a drain.
fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("listen for signals: {error}"));
    let (mut term, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let mut next = async move || {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            next().await;
            tracing::warn!("told to stop again: nothing is waited for");
            std::process::exit(1);
        });
    })
}

/// The journal's gate, as the front door asks it.
struct InContact(Gate);

impl Contact for InContact {
    fn answers(&self) -> Answers {
        match self.0.may_answer() {
            May::All => Answers::All,
            May::Read => Answers::Reads,
            May::Nothing => Answers::Nothing,
        }
    }
}

/// The gateway's own folders, then the agents.
fn places(
    settings: &Settings,
    secret: Option<Secret>,
    clock: &Arc<dyn Clock>,
    tracker: &TaskTracker,
    makes: MakeFolders,
) -> Vec<Arc<dyn Place>> {
    let pool = &settings.pool;
    let mut places: Vec<Arc<dyn Place>> = Vec::new();
    if !pool.disks.is_empty() {
        let folders = pool.disks.iter().map(|folder| LocalFolder {
            path: folder.path.clone(),
            medium: folder.medium,
            index_dir: folder.index_dir.clone().or_else(|| pool.index_dir.clone()),
        });
        let local = LocalFolders::new(
            folders.collect(),
            pool.server.clone(),
            pool.site.clone(),
            disk_options(settings),
        );
        places.push(Arc::new(local.making(makes)));
    }
    let agents = pool.agents.iter().map(|AgentUrl(url)| {
        let client = AgentClient::new(
            url.trim_start_matches("http://"),
            secret.clone(),
            AgentSettings {
                connections: pool.connections_per_agent,
                ..AgentSettings::default()
            },
            Arc::clone(clock),
            tracker.clone(),
        );
        Arc::new(AgentFolders::new(client)) as Arc<dyn Place>
    });
    places.extend(agents);
    places
}

/// What all disks of this process share.
fn disk_options(settings: &Settings) -> DiskOptions {
    let bytes = settings.limits.directory_memory.0;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    DiskOptions {
        directories: Arc::new(DirectoryMemory::new(bytes)),
        scrub_period: Some(settings.limits.scrub_period.0),
        ..DiskOptions::default()
    }
}

fn classes(settings: &Settings) -> Vec<ClassSetting> {
    let own = settings.classes.iter().map(|(name, class)| ClassSetting {
        name: name.clone(),
        scheme: match class.scheme {
            SchemeChoice::Auto => SchemeSetting::Auto,
            SchemeChoice::Fixed(scheme) => SchemeSetting::Fixed(scheme),
        },
        medium: class.medium,
    });
    ClassSetting::with_defaults(own.collect())
}

fn class_names(pool: &Pool) -> Box<dyn Fn(u16) -> String + Send + Sync> {
    let pool = pool.clone();
    Box::new(move |number| pool.class_name(number))
}

fn object_settings(settings: &Settings) -> ObjectSettings {
    ObjectSettings {
        inline_max: settings.catalog.inline_max.0 as usize,
        memory_bytes: settings.limits.memory_budget.0,
        memory_wait: settings.limits.memory_wait.0,
        ..ObjectSettings::default()
    }
}

/// Takes the two checkpoints that are kept, where a lineage begins without:
/// until then only the local catalog has everything, and the journal.
fn renew_checkpoints(checkpoints: Checkpoints, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        let mut taken = 0;
        while taken < KEPT {
            let next = async {
                match checkpoints.take_now().await {
                    Ok(_) => taken += 1,
                    Err(why) => {
                        tracing::warn!(why, "no checkpoint under the new lineage yet");
                        tokio::time::sleep(RENEW_AGAIN).await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = next => {}
            }
        }
    });
}

fn checkpoint_wishes(settings: &Settings) -> Wished {
    let catalog = &settings.catalog;
    Wished {
        every_bytes: catalog.checkpoint_bytes.map(|bytes| bytes.0),
        every: catalog.checkpoint_interval.0,
        bound_bytes: catalog.journal_bound.map(|bytes| bytes.0),
    }
}

fn s3_settings(settings: &Settings) -> S3Settings {
    let gateway = &settings.gateway;
    S3Settings {
        region: gateway.region.clone(),
        host_names: gateway
            .host_names
            .iter()
            .map(|name| name.0.clone())
            .collect(),
        signature_v2: gateway.signature_v2,
        body_pace: BodyPace {
            idle: settings.limits.body_timeout.0,
            least_rate: settings.limits.min_body_rate.0,
        },
    }
}

fn server_settings(settings: &Settings, token: SecretText) -> ServerSettings {
    let limits = &settings.limits;
    ServerSettings {
        listen: settings.gateway.listen.0,
        operator_listen: Some(settings.gateway.operator_listen.0),
        operator_token: Some(token),
        limits: Limits {
            connections: limits.connections,
            requests: limits.requests,
            header_time: limits.header_timeout.0,
            write_idle: limits.body_timeout.0 * 2,
            ..Limits::default()
        },
        drain: settings.gateway.shutdown_deadline.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_secret_every_agent_is_on_loopback() {
        let settings = |agents: &[&str], secret: Option<&str>| {
            let mut settings = Settings::default();
            settings.pool.agents = agents.iter().map(|url| AgentUrl((*url).into())).collect();
            settings.pool.secret = secret.map(crate::auth::SecretText::new);
            settings
        };
        let strong = Some("4f8c1d7e90ab35266b1f0c9d8e7a6543");
        let local = &["http://127.0.0.1:9100", "http://[::1]:9100"];
        let remote = &["http://127.0.0.1:9100", "http://192.0.2.7:9100"];
        assert!(
            pool_secret(&settings(local, None))
                .expect("loopback")
                .is_none()
        );
        assert!(pool_secret(&settings(remote, None)).is_err());
        assert!(
            pool_secret(&settings(remote, strong))
                .expect("strong")
                .is_some()
        );
        assert!(pool_secret(&settings(local, Some("short"))).is_err());
    }
}
