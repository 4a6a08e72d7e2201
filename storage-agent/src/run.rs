//! The agent's life: parts made once, started, stopped in order.
//!
//! Owns that order: listeners, disks, calls; and back: calls, disks. A port
//! that is taken or a state folder that cannot be written ends the start
//! before any disk is touched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_disk_store::{DirectoryMemory, DiskOptions};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::folders::Folders;
use crate::gate::{Gate, system_clock};
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::operator::Operator;
use crate::service::{Agent, Who};
use crate::state::{StateError, agent_id, token};

/// How long a start waits for slow disks before it serves the others.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Why an agent does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The agent does not know who it is.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Runs an agent until `stop`, then drains.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let mut listeners = Vec::new();
    for &address in &config.listen {
        listeners.push(bind(address).await?);
    }
    let operator = match config.operator_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let agent = agent_id(&config.state_dir)?;
    let seen_by_others = |address: SocketAddr| !address.ip().is_loopback();
    let token = match config.operator_listen.is_some_and(seen_by_others) {
        true => Some(token(&config.state_dir)?),
        false => None,
    };
    let metrics = Arc::new(Metrics::default());
    let lanes = Arc::new(Lanes::new(
        config.limits.calls_per_disk,
        Arc::clone(&metrics),
    ));
    if config.secret.is_none() {
        tracing::warn!("no secret: every process of this machine may call this agent");
    }
    let options = DiskOptions {
        directories: Arc::new(DirectoryMemory::new(config.limits.directory_bytes)),
        scrub_period: Some(config.limits.scrub_period),
        ..DiskOptions::default()
    };
    let folders = Folders::new(&config.disks, config.cluster, Arc::clone(&lanes), options);
    let tracker = TaskTracker::new();
    let stop_looking = CancellationToken::new();
    folders
        .start(config.check_every, FIRST_LOOK, &tracker, &stop_looking)
        .await;
    let agent = Arc::new(Agent {
        gate: Gate::new(config.secret, &config.limits, system_clock),
        who: Who {
            agent,
            name: config.name,
            server: config.server,
            site: config.site,
        },
        limits: config.limits,
        lanes: Arc::clone(&lanes),
        folders: Arc::clone(&folders) as Arc<_>,
        metrics: Arc::clone(&metrics),
    });
    if let Some(listener) = operator {
        let operator = Arc::new(Operator {
            lanes,
            metrics,
            token,
        });
        tracker.spawn(operator.serve(listener, stop.clone()));
    }
    tracing::info!(
        agent = %agent.who.agent,
        name = agent.who.name,
        listen = ?config.listen,
        "agent is up"
    );
    let serve = listeners
        .into_iter()
        .map(|listener| crate::serve(listener, Arc::clone(&agent), stop.clone()));
    join_all(serve).await;
    stop_looking.cancel();
    folders.close().await;
    tracing::info!("agent is down");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| StartError::Listen { address, source })
}
