//! What the operator asks of a running gateway: status, and words on disks.
//!
//! Owns the routes that stand beside metrics and health on the operator
//! port, and the form in which people read the answers. Each request comes
//! with the token that only the owner of the gateway's folder can read, and
//! passes the one authorisation function.

mod hold;
mod readings;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use shardgate_journal::contact::May;
use shardgate_wire::{CheckCursor, DiskId};

pub use hold::{HoldStatus, words as hold_words};
pub use readings::readings;
pub use words::words;

use crate::auth::{Action, Context, Decision, Principal, Resource, authorise};
use crate::background::Jobs;
use crate::checkpoint::{CheckpointStatus, Checkpoints};
use crate::journal::{JournalStatus, Keeper};
use crate::object::{CatalogRoom, NotesStanding, ObjectService, Reclaiming};
use crate::pool::{Pool, PoolStatus};
use crate::server::{OperatorAnswer, OperatorRequest, OperatorRoutes};

/// Path of the pool's status.
pub const STATUS: &str = "/admin/status";
/// Path of `disk replace`.
pub const REPLACE: &str = "/admin/disk/replace";
/// Path of `disk lost`.
pub const LOST: &str = "/admin/disk/lost";

/// Path of `disk check`.
pub const CHECK: &str = "/admin/disk/check";

/// About what one part of a check reads.
const CHECK_BYTES: u64 = 64 << 20;
/// How long a part waits for its turn at most.
const CHECK_WAIT: Duration = Duration::from_secs(4);

/// Path of `catalog checkpoint`.
pub const CHECKPOINT: &str = "/admin/catalog/checkpoint";
/// How long an answer waits for a checkpoint.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(25);

/// Path of `catalog hold`.
pub const HOLD: &str = "/admin/catalog/hold";
/// Path of `catalog hold --end`.
pub const END_HOLD: &str = "/admin/catalog/hold/end";

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
    /// What disks were told of blobs.
    pub notes: NotesStatus,
}

/// Up to where disks know what became of the blobs whose shards they have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotesStatus {
    /// The last commit.
    pub commit: u64,
    /// Every disk knows of all commits up to this one.
    pub told: u64,
    /// Disks that know less than others, and up to which commit they do.
    pub behind: BTreeMap<String, u64>,
    /// Disks that have no room for notes of deleted blobs.
    pub full: Vec<String>,
}

impl From<NotesStanding> for NotesStatus {
    fn from(standing: NotesStanding) -> Self {
        let most = standing.told.values().max().copied().unwrap_or_default();
        let least = standing.told.values().min().copied().unwrap_or_default();
        let behind = standing.told.iter().filter(|(_, told)| **told < most);
        Self {
            commit: standing.committed.0,
            told: least.0,
            behind: behind
                .map(|(disk, told)| (disk.to_string(), told.0))
                .collect(),
            full: standing.full.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The routes.
pub struct Routes {
    pool: Pool,
    keeper: Keeper,
    room: CatalogRoom,
    jobs: Jobs,
    checkpoints: Checkpoints,
    objects: ObjectService,
    reclaiming: Reclaiming,
    held: hold::Counted,
    operator: Principal,
}

/// What the routes act on.
pub struct RouteParts {
    /// The pool.
    pub pool: Pool,
    /// The journal's care.
    pub keeper: Keeper,
    /// Whether the catalog has room.
    pub room: CatalogRoom,
    /// The jobs that run.
    pub jobs: Jobs,
    /// The checkpoints.
    pub checkpoints: Checkpoints,
    /// The data path.
    pub objects: ObjectService,
    /// Whether anything may be reclaimed.
    pub reclaiming: Reclaiming,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    disk: String,
    from: Option<CheckCursor>,
    repair: bool,
}

impl Routes {
    /// Routes that act for the root identity.
    pub fn new(parts: RouteParts, root_access_key: &str) -> Arc<Self> {
        let RouteParts {
            pool,
            keeper,
            room,
            jobs,
            checkpoints,
            objects,
            reclaiming,
        } = parts;
        let operator = Principal::Root {
            access_key: root_access_key.to_owned(),
        };
        Arc::new(Self {
            pool,
            keeper,
            room,
            jobs,
            checkpoints,
            objects,
            reclaiming,
            held: hold::Counted::default(),
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
        status.warnings.extend(self.hold_warning().await);
        let notes = NotesStatus::from(self.objects.notes());
        for disk in &notes.full {
            status.warnings.push(format!(
                "disk {disk} has no room for notes of deleted blobs: what is deleted stays on disk \
                 while other disks are away"
            ));
        }
        let status = Status {
            pool: status,
            journal: self.keeper.status(),
            checkpoint,
            notes,
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

    async fn hold_warning(&self) -> Option<String> {
        if !self.reclaiming.is_held() {
            return None;
        }
        let why = match hold::why(self.objects.catalog()).await {
            Ok(hold) => hold.map_or_else(String::new, |(_, why)| why.join("; ")),
            Err(error) => error.to_string(),
        };
        Some(format!(
            "nothing is reclaimed until `shardgate catalog hold --end`: {why}"
        ))
    }

    async fn hold(&self) -> OperatorAnswer {
        let status = match hold::look(self.objects.catalog(), &self.held).await {
            Ok(status) => status,
            Err(error) => return refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        };
        match serde_json::to_vec(&status) {
            Ok(json) => answer(StatusCode::OK, "application/json", json),
            Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    async fn end_hold(&self) -> OperatorAnswer {
        // Durable first: what goes then is gone whatever a restart finds.
        if let Err(error) = self.objects.catalog().end_hold().await {
            return refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        }
        if self.reclaiming.is_held() {
            tracing::warn!("the operator ended the hold: what was deleted is reclaimed");
        }
        self.reclaiming.resume();
        said("there is no hold any more\n".to_owned())
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

    /// One part of a check: who asks goes on with what follows.
    async fn check(&self, body: &[u8]) -> OperatorAnswer {
        let asked = serde_json::from_slice::<Check>(body).ok();
        let asked = asked.and_then(|asked| Some((asked.disk.parse::<DiskId>().ok()?, asked)));
        let Some((disk, asked)) = asked else {
            let what = "expected {\"disk\": ID, \"from\": null, \"repair\": false}; the id as \
                        status shows it";
            return refused(StatusCode::BAD_REQUEST, what.to_owned());
        };
        // Not for ever: who asks waits for the answer.
        let turns = self.jobs.turns();
        let turn = turns.next(CHECK_BYTES, &|| false);
        let _late = tokio::time::timeout(CHECK_WAIT, turn).await;
        let checked = self.pool.check_disk(disk, asked.from, asked.repair).await;
        match checked.map(|page| serde_json::to_vec(&page)) {
            Ok(Ok(json)) => answer(StatusCode::OK, "application/json", json),
            Ok(Err(error)) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Err(error) => refused(StatusCode::CONFLICT, format!("disk {disk}: {error}")),
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
            (&Method::GET, HOLD) => Action::AdminStatus,
            (&Method::POST, END_HOLD) => Action::AdminCatalog,
            (&Method::POST, REPLACE | LOST | CHECK) => Action::AdminDisks,
            (&Method::POST, CHECKPOINT) => Action::AdminCatalog,
            _ => return None,
        };
        if !self.may(action) {
            return Some(refused(StatusCode::FORBIDDEN, "not allowed".to_owned()));
        }
        Some(match request.path.as_str() {
            STATUS => self.status().await,
            CHECKPOINT => self.checkpoint().await,
            HOLD => self.hold().await,
            END_HOLD => self.end_hold().await,
            REPLACE => self.replace(&request.body).await,
            CHECK => self.check(&request.body).await,
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
