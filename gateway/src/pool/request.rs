//! A start as the settings describe it: folders, agents, secret.

use std::sync::Arc;

use shardgate_catalog::Catalog;
use shardgate_disk_store::DiskOptions;
use shardgate_wire::DiskId;
use shardgate_wire::mac::Secret;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent_place::AgentFolders;
use super::place::{LocalFolder, LocalFolders, Place};
use super::start::{Start, StartError, start_at};
use super::state::{Pool, PoolSettings};
use crate::agents::{AgentClient, AgentSettings};
use crate::seam::Clock;

/// Where an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAddress {
    /// `http://HOST:PORT`.
    pub url: String,
}

/// What the settings say of the pool.
pub struct StartRequest {
    /// The catalog.
    pub catalog: Catalog,
    /// Folders of the gateway's own server.
    pub folders: Vec<LocalFolder>,
    /// Name of the gateway's own server, a domain.
    pub server: String,
    /// Name of its site, a domain.
    pub site: String,
    /// How its own disks are treated.
    pub disk_options: DiskOptions,
    /// Agents.
    pub agents: Vec<AgentAddress>,
    /// What agents and gateways share.
    pub secret: Option<Secret>,
    /// How agents are treated.
    pub limits: AgentSettings,
    /// Disks that the operator declares lost for good by this start.
    pub declare_lost: Vec<DiskId>,
    /// What can be set.
    pub settings: PoolSettings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Holds the pool's tasks.
    pub tracker: TaskTracker,
    /// Ends them.
    pub cancel: CancellationToken,
}

/// Starts the pool, and keeps asking its disks how they are until `cancel`.
///
/// # Errors
/// [`StartError`].
pub async fn start(request: StartRequest) -> Result<Pool, StartError> {
    let mut places: Vec<Arc<dyn Place>> = Vec::new();
    if !request.folders.is_empty() {
        places.push(Arc::new(LocalFolders::new(
            request.folders,
            request.server,
            request.site,
            request.disk_options,
        )));
    }
    for agent in &request.agents {
        let address = agent.url.strip_prefix("http://").unwrap_or(&agent.url);
        let client = AgentClient::new(
            address.trim_end_matches('/'),
            request.secret.clone(),
            request.limits.clone(),
            Arc::clone(&request.clock),
            request.tracker.clone(),
        );
        places.push(Arc::new(AgentFolders::new(client)));
    }
    let pool = start_at(Start {
        catalog: request.catalog,
        places,
        settings: request.settings,
        clock: request.clock,
        declare_lost: request.declare_lost,
    })
    .await?;
    pool.spawn_probes(&request.tracker, request.cancel);
    Ok(pool)
}
