//! An agent's folders, as the pool sees every server's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardgate_wire::message::{FolderReport, FolderState, FormatHead};
use shardgate_wire::{CallContext, DiskId, DiskIdentity, Medium, StoreError};
use tokio::time::timeout;

use super::AgentClient;
use crate::pool::place::{Found, FoundState, MakeFolders, Place, Survey};
use crate::pool::ways::DiskWays;

/// The folders of one agent.
pub struct AgentFolders {
    client: Arc<AgentClient>,
}

impl AgentFolders {
    /// The folders behind `client`.
    pub fn new(client: Arc<AgentClient>) -> Self {
        Self { client }
    }

    fn words(&self, error: &StoreError) -> String {
        format!("agent {}: {error}", self.client.address())
    }
}

fn found(report: FolderReport) -> Found {
    let state = match report.state {
        FolderState::Open(health) => FoundState::Disk(health.identity),
        FolderState::Foreign(identity) => FoundState::Disk(identity),
        FolderState::Blank => FoundState::Blank,
        FolderState::Missing => FoundState::Missing,
        FolderState::Failed { why, .. } => FoundState::Failed { why },
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
        self.client.address().to_owned()
    }

    async fn survey(&self, within: Duration) -> Result<Survey, String> {
        let asked = timeout(within, self.client.report()).await;
        let report = asked
            .unwrap_or(Err(StoreError::TimedOut(within)))
            .map_err(|error| self.words(&error))?;
        Ok(Survey {
            agent: Some(report.agent),
            name: report.name,
            server: report.server,
            site: report.site,
            folders: report.folders.into_iter().map(found).collect(),
            makes: MakeFolders::Never,
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
                // An agent always says what the kernel says; flash where that
                // is nothing is the harmless guess.
                medium: medium.unwrap_or(Medium::Flash),
            },
        };
        let made = self.client.format(&head).await;
        made.map(|health| health.identity)
            .map_err(|error| self.words(&error))
    }

    async fn open(&self, _folder: &str, identity: &DiskIdentity) -> Result<DiskWays, String> {
        // The agent holds it open; the pool's probe says whether it is there.
        Ok(DiskWays::of(Arc::new(self.client.disk(identity.disk))))
    }

    async fn close(&self, _within: Duration) {}
}
