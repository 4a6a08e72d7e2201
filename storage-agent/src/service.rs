//! One request, from its head to its answer.
//!
//! Owns the order of things: target, claim, room, body, code, lane, disk.
//! Whatever goes wrong on the way is an answer with a status, never a panic,
//! and never a word about why a code is wrong.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::{Body as _, Incoming};
use shardgate_wire::frame::{Frame, FrameLimits, decode_head};
use shardgate_wire::frame_body::{FrameBody, ReadFrameError, read_frame};
use shardgate_wire::ids::AgentId;
use shardgate_wire::mac::MAC_HEADER;
use shardgate_wire::message::{
    AgentReport, Answer, Call, FORMAT_LIMITS, FolderReport, FormatHead, PROTOCOL, ReadHead,
    Refusal, Target,
};
use shardgate_wire::message_journal::JournalReadHead;
use shardgate_wire::{DiskHealth, DiskId, StoreError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::body::Answered;
use crate::calls::{Reply, carry};
use crate::gate::{Claim, Gate};
use crate::lanes::Lanes;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// For ever.
    pub agent: AgentId,
    /// What the operator calls it.
    pub name: String,
    /// The server it runs on.
    pub server: String,
    /// Where that server is.
    pub site: String,
}

/// The configured folders behind the lanes.
#[async_trait]
pub trait FolderSet: Send + Sync + 'static {
    /// What is in each, without waiting for one that hangs.
    async fn report(&self) -> Vec<FolderReport>;

    /// Makes a blank folder a disk and opens it.
    async fn format(&self, head: FormatHead) -> Result<DiskHealth, StoreError>;
}

/// An agent's parts, as its connections share them.
pub struct Agent {
    /// Who it is.
    pub who: Who,
    /// Its bounds.
    pub limits: Limits,
    /// What requests pass.
    pub gate: Gate,
    /// Its open disks.
    pub lanes: Arc<Lanes>,
    /// Its folders.
    pub folders: Arc<dyn FolderSet>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
}

/// A refusal, and whether the rest of the body is read first so that the
/// caller gets to see it.
struct Stop {
    refusal: Refusal,
    drain: bool,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        let drain = !matches!(
            refusal,
            Refusal::NotAuthentic | Refusal::Malformed { .. } | Refusal::TooSlow
        );
        Self { refusal, drain }
    }
}

/// A request whose code was right.
struct Admitted {
    frame: Frame,
    room: OwnedSemaphorePermit,
}

impl Agent {
    /// Answers one request. `known` becomes true with the first authentic one
    /// of a connection.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        known: &AtomicBool,
    ) -> Response<Answered> {
        let (parts, mut body) = request.into_parts();
        let target = match Target::parse(parts.method.as_str(), parts.uri.path()) {
            Ok(Target::Alive) => return alive(),
            Ok(target) if parts.uri.query().is_none() => Ok(target),
            _ => Err(Refusal::NoCall),
        };
        let path = parts.uri.path();
        let claim = self.gate.claim(&parts.method, path, &parts.headers);
        let (target, claim) = match (target, claim) {
            (Ok(target), Ok(claim)) => (target, claim),
            (_, Err(refusal)) | (Err(refusal), _) => return self.refuse(None, refusal),
        };
        match self.answer(target, &claim, &mut body, known).await {
            Ok((reply, room)) => self.response(Some(&claim), reply, Some(room)),
            Err(stop) => {
                if stop.drain && !self.drain(&mut body).await {
                    return self.refuse(Some(&claim), Refusal::TooSlow);
                }
                self.refuse(Some(&claim), stop.refusal)
            }
        }
    }

    async fn answer(
        &self,
        target: Target,
        claim: &Claim,
        body: &mut Incoming,
        known: &AtomicBool,
    ) -> Result<(Reply, OwnedSemaphorePermit), Stop> {
        match target {
            Target::Alive => unreachable!("answered before"),
            Target::Agent => {
                self.gate.admit(claim, &[])?;
                known.store(true, Ordering::Relaxed);
                let reply = Reply::of(&Answer::Ok(self.report().await));
                Ok((reply, self.gate.room(0)?))
            }
            Target::Format => {
                let admitted = self.admit(claim, body, FORMAT_LIMITS, known).await?;
                Ok((self.format(&admitted.frame).await?, admitted.room))
            }
            Target::Disk(disk, call) => {
                let admitted = self
                    .admit(claim, body, call.request_limits(), known)
                    .await?;
                self.call(disk, call, admitted).await
            }
        }
    }

    /// Reads the body within its bounds, and checks the code as soon as its
    /// head is here.
    async fn admit(
        &self,
        claim: &Claim,
        body: &mut Incoming,
        limits: FrameLimits,
        known: &AtomicBool,
    ) -> Result<Admitted, Stop> {
        let room = self.gate.body_room(claim, limits)?;
        let judge = |head: &[u8], _| -> Result<(), Refusal> {
            self.gate.admit(claim, head)?;
            known.store(true, Ordering::Relaxed);
            Ok(())
        };
        let reading = read_frame(body, claim.body_len, limits, judge);
        let frame = match timeout(self.limits.body, reading).await {
            Err(_) => return Err(Refusal::TooSlow.into()),
            Ok(Err(ReadFrameError::Refused(refusal))) => return Err(refusal.into()),
            Ok(Err(error)) => {
                let what = error.to_string();
                return Err(Refusal::Malformed { what }.into());
            }
            Ok(Ok(frame)) => frame,
        };
        Ok(Admitted { frame, room })
    }

    async fn call(
        &self,
        disk: DiskId,
        call: Call,
        admitted: Admitted,
    ) -> Result<(Reply, OwnedSemaphorePermit), Stop> {
        let Some(lane) = self.lanes.get(disk) else {
            let why = "the agent has no such disk open".to_owned();
            let lost = Answer::<()>::Err(StoreError::Lost { why }.into());
            return Ok((Reply::of(&lost), admitted.room));
        };
        let Admitted { frame, mut room } = admitted;
        let asked = match call {
            Call::Read => decode_head::<ReadHead>(&frame.head).map(|ask| ask.len),
            Call::JournalRead => decode_head::<JournalReadHead>(&frame.head).map(|ask| ask.len),
            // The whole root record: how long it is only the disk knows.
            Call::JournalRoots => Ok(u32::MAX),
            _ => Ok(0),
        };
        if let Ok(len @ 1..) = asked {
            let most = call.answer_limits().data as u64;
            room.merge(self.gate.room(u64::from(len).min(most))?);
        }
        // Health stays outside of the lane's bound: a busy disk says so.
        let place = match call {
            Call::Health | Call::JournalStanding => None,
            _ if call.is_journal() => Some(lane.enter_journal()?),
            _ => Some(lane.enter()?),
        };
        let reply = carry(&lane, call, frame).await;
        drop(place);
        Ok((reply, room))
    }

    async fn format(&self, frame: &Frame) -> Result<Reply, Refusal> {
        let head: FormatHead = decode_head(&frame.head).map_err(|error| Refusal::Malformed {
            what: error.to_string(),
        })?;
        let outcome = self.folders.format(head).await;
        Ok(Reply::of(&outcome.map_err(Into::into)))
    }

    /// Who the agent is and what it has.
    pub async fn report(&self) -> AgentReport {
        AgentReport {
            agent: self.who.agent,
            boot: self.gate.boot(),
            name: self.who.name.clone(),
            server: self.who.server.clone(),
            site: self.who.site.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            now_ms: self.gate.now_ms(),
            folders: self.folders.report().await,
        }
    }

    /// Reads the rest of a body without keeping it.
    async fn drain(&self, body: &mut Incoming) -> bool {
        if !body_is_small(body) {
            return false;
        }
        let reading = async {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {}
        };
        timeout(self.limits.body, reading).await.is_ok()
    }

    fn refuse(&self, claim: Option<&Claim>, refusal: Refusal) -> Response<Answered> {
        self.metrics.refused(refusal.status());
        tracing::debug!(%refusal, "request refused");
        let close = matches!(
            refusal,
            Refusal::NotAuthentic | Refusal::Malformed { .. } | Refusal::TooSlow
        );
        let mut response = self.response(claim, Reply::refused(refusal), None);
        if close {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    fn response(
        &self,
        claim: Option<&Claim>,
        reply: Reply,
        room: Option<OwnedSemaphorePermit>,
    ) -> Response<Answered> {
        let code = claim.and_then(|claim| self.gate.answer_code(claim, &reply));
        let data = (!reply.data.is_empty()).then_some(reply.data);
        let body = FrameBody::new(reply.head, data);
        let mut response = Response::builder().status(reply.status);
        if let Some(code) = code {
            response = response.header(MAC_HEADER, code.to_string());
        }
        let body = Answered::new(body, room);
        response
            .body(body)
            .expect("a status and a hex header are valid")
    }
}

/// No call has a longer body than this; longer ones are not drained.
fn body_is_small(body: &Incoming) -> bool {
    let most = Call::Put.request_limits().body();
    body.size_hint().exact().is_some_and(|rest| rest <= most)
}

fn alive() -> Response<Answered> {
    let body = FrameBody::head_only(Bytes::from_static(b"ok\n"));
    Response::new(Answered::new(body, None))
}
