//! What the operator asks of a running gateway: status, and words on disks.
//!
//! Owns the routes that stand beside metrics and health on the operator
//! port, and the form in which people read the answers. Each request comes
//! with the token that only the owner of the gateway's folder can read, and
//! passes the one authorisation function.

mod readings;
mod token;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use shardgate_journal::contact::May;
use shardgate_wire::DiskId;

pub use readings::readings;
pub use token::{TOKEN_FILE, token};
pub use words::words;

use crate::auth::{Action, Context, Decision, Principal, Resource, authorise};
use crate::background::Jobs;
use crate::checkpoint::{CheckpointStatus, Checkpoints};
use crate::journal::{JournalStatus, Keeper};
use crate::object::CatalogRoom;
use crate::pool::{Pool, PoolStatus};
use crate::server::{OperatorAnswer, OperatorRequest, OperatorRoutes};

/// Path of the pool's status.
pub const STATUS: &str = "/admin/status";
/// Path of `disk replace`.
pub const REPLACE: &str = "/admin/disk/replace";
/// Path of `disk lost`.
pub const LOST: &str = "/admin/disk/lost";

/// Path of `catalog checkpoint`.
pub const CHECKPOINT: &str = "/admin/catalog/checkpoint";
/// How long an answer waits for a checkpoint.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(25);

/// The state of pool, journal and checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The pool.
    #[serde(flatten)]
    pub pool: PoolStatus,
    /// The journal.
    pub journal: JournalStatus,
    /// The checkpoints.
    pub checkpoint: CheckpointStatus,
}

/// The routes.
pub struct Routes {
    pool: Pool,
    keeper: Keeper,
    room: CatalogRoom,
    jobs: Jobs,
    checkpoints: Checkpoints,
    operator: Principal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    place: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lost {
    disk: String,
}

impl Routes {
    /// Routes that act on `pool` for the root identity.
    pub fn new(
        pool: Pool,
        keeper: Keeper,
        room: CatalogRoom,
        jobs: Jobs,
        checkpoints: Checkpoints,
        root_access_key: &str,
    ) -> Arc<Self> {
        let operator = Principal::Root {
            access_key: root_access_key.to_owned(),
        };
        Arc::new(Self {
            pool,
            keeper,
            room,
            jobs,
            checkpoints,
            operator,
        })
    }

    fn may(&self, action: Action) -> bool {
        authorise(
            &self.operator,
            action,
            Resource::Service,
            Context::default(),
        ) == Decision::Allow
    }

    async fn status(&self) -> OperatorAnswer {
        let mut status = self.pool.status().await;
        status.owed.filling = self.jobs.fill().now();
        if self.room.is_short() {
            let full = "the file system of catalog.path is full: writes are refused, deletes go on";
            status.warnings.push(full.to_owned());
        }
        let checkpoint = self.checkpoints.status();
        if checkpoint.writes_wait {
            let full = "the journal is near its bound: writes wait for a checkpoint, deletes go on";
            status.warnings.push(full.to_owned());
        }
        if let Some(problem) = &checkpoint.problem {
            let why = format!("no checkpoint of the catalog could be taken: {problem}");
            status.warnings.push(why);
        }
        let status = Status {
            pool: status,
            journal: self.keeper.status(),
            checkpoint,
        };
        match serde_json::to_vec(&status) {
            Ok(json) => answer(StatusCode::OK, "application/json", json),
            Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn checkpoint(&self) -> OperatorAnswer {
        let taken = tokio::time::timeout(CHECKPOINT_WAIT, self.checkpoints.take_now());
        match taken.await {
            Ok(Ok(number)) => said(format!("checkpoint at commit {} is kept\n", number.0)),
            Ok(Err(why)) => refused(StatusCode::CONFLICT, format!("no checkpoint: {why}")),
            Err(_) => said("a checkpoint is being taken: `status` shows how far it is\n".into()),
        }
    }

    async fn replace(&self, body: &[u8]) -> OperatorAnswer {
        let Ok(asked) = serde_json::from_slice::<Replace>(body) else {
            return refused(
                StatusCode::BAD_REQUEST,
                "expected {\"place\": PATH}".to_owned(),
            );
        };
        match self.pool.replace_disk(&asked.place).await {
            Ok(disk) => said(format!("{} is the new disk {disk}\n", asked.place)),
            Err(error) => refused(StatusCode::CONFLICT, error.to_string()),
        }
    }

    async fn lost(&self, body: &[u8]) -> OperatorAnswer {
        let asked = serde_json::from_slice::<Lost>(body).ok();
        let Some(disk) = asked.and_then(|asked| asked.disk.parse::<DiskId>().ok()) else {
            let what = "expected {\"disk\": ID}, the 32 hex digits that status shows";
            return refused(StatusCode::BAD_REQUEST, what.to_owned());
        };
        match self.pool.declare_lost(disk).await {
            Ok(()) => said(format!("disk {disk} is lost for good\n")),
            Err(error) => refused(StatusCode::CONFLICT, error.to_string()),
        }
    }
}

#[async_trait::async_trait]
impl OperatorRoutes for Routes {
    async fn answer(&self, request: OperatorRequest) -> Option<OperatorAnswer> {
        let action = match (&request.method, request.path.as_str()) {
            (&Method::GET, STATUS) => Action::AdminStatus,
            (&Method::POST, REPLACE | LOST) => Action::AdminDisks,
            (&Method::POST, CHECKPOINT) => Action::AdminCatalog,
            _ => return None,
        };
        if !self.may(action) {
            return Some(refused(StatusCode::FORBIDDEN, "not allowed".to_owned()));
        }
        Some(match request.path.as_str() {
            STATUS => self.status().await,
            CHECKPOINT => self.checkpoint().await,
            REPLACE => self.replace(&request.body).await,
            _ => self.lost(&request.body).await,
        })
    }

    fn ready(&self) -> Result<(), String> {
        self.pool.ready()?;
        match self.keeper.gate().may_answer() {
            May::Nothing => Err("too few journal disks answer".into()),
            May::All | May::Read => Ok(()),
        }
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> OperatorAnswer {
    OperatorAnswer {
        status,
        content_type,
        body: Bytes::from(body),
    }
}

fn said(text: String) -> OperatorAnswer {
    answer(
        StatusCode::OK,
        "text/plain; charset=utf-8",
        text.into_bytes(),
    )
}

fn refused(status: StatusCode, why: String) -> OperatorAnswer {
    answer(
        status,
        "text/plain; charset=utf-8",
        format!("{why}\n").into_bytes(),
    )
}
