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

/// The state of pool and journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The pool.
    #[serde(flatten)]
    pub pool: PoolStatus,
    /// The journal.
    pub journal: JournalStatus,
}

/// The routes.
pub struct Routes {
    pool: Pool,
    keeper: Keeper,
    room: CatalogRoom,
    jobs: Jobs,
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
        let status = Status {
            pool: status,
            journal: self.keeper.status(),
        };
        match serde_json::to_vec(&status) {
            Ok(json) => answer(StatusCode::OK, "application/json", json),
            Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
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
            _ => return None,
        };
        if !self.may(action) {
            return Some(refused(StatusCode::FORBIDDEN, "not allowed".to_owned()));
        }
        Some(match request.path.as_str() {
            STATUS => self.status().await,
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
