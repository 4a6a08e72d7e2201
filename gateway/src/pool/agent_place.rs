//! The folders of an agent, seen through its report.
//!
//! Invariant: a folder is named to the agent exactly as its report named it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardgate_wire::message::{FolderReport, FolderState, FormatHead};
use shardgate_wire::{CallContext, DiskId, DiskIdentity, Medium, ShardStore};
use tokio::time::timeout;

use super::place::{Found, FoundState, Place, Survey};
use crate::agents::AgentClient;

/// The medium of a new disk whose agent cannot tell it.
const ASSUMED_MEDIUM: Medium = Medium::Rotating;

/// One agent.
pub struct AgentFolders {
    client: Arc<AgentClient>,
}

impl AgentFolders {
    /// The agent that this client calls.
    pub fn new(client: Arc<AgentClient>) -> Self {
        Self { client }
    }
}

fn found(report: FolderReport) -> Found {
    let state = match report.state {
        FolderState::Open(health) => FoundState::Disk(health.identity),
        FolderState::Foreign(identity) => FoundState::Disk(identity),
        FolderState::Blank => FoundState::Blank,
        FolderState::Missing => FoundState::Missing,
        FolderState::Failed { why, .. } => FoundState::Failed {
            why: format!("{}: {why}", report.folder),
        },
    };
    Found {
        folder: report.folder,
        medium: report.medium,
        state,
    }
}

#[async_trait]
impl Place for AgentFolders {
    fn label(&self) -> String {
        format!("agent {}", self.client.address())
    }

    async fn survey(&self, within: Duration) -> Result<Survey, String> {
        let report = match timeout(within, self.client.report()).await {
            Ok(report) => report.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no answer in {within:?}")),
        };
        Ok(Survey {
            agent: Some(report.agent),
            name: report.name,
            server: report.server,
            site: report.site,
            folders: report.folders.into_iter().map(found).collect(),
        })
    }

    async fn format(
        &self,
        ctx: &CallContext,
        folder: &str,
        disk: DiskId,
        medium: Option<Medium>,
    ) -> Result<DiskIdentity, String> {
        let head = FormatHead {
            ctx: *ctx,
            folder: folder.to_owned(),
            identity: DiskIdentity {
                cluster: ctx.cluster,
                disk,
                medium: medium.unwrap_or(ASSUMED_MEDIUM),
            },
        };
        let health = self
            .client
            .format(&head)
            .await
            .map_err(|error| error.to_string())?;
        Ok(health.identity)
    }

    async fn open(
        &self,
        _folder: &str,
        identity: &DiskIdentity,
    ) -> Result<Arc<dyn ShardStore>, String> {
        Ok(Arc::new(self.client.disk(identity.disk)))
    }

    async fn close(&self, _within: Duration) {}
}
