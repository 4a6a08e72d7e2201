//! Calls to one agent.
//!
//! Owns the way of a call: permit, connection, code, answer, and what is done
//! when one of them fails. Every call may be made twice (the trait says so of
//! each), so one that fails on a connection that had idled is made once more
//! on a new one, and one that was stamped for another run of the agent is
//! stamped anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Request};
use serde::de::DeserializeOwned;
use shardgate_wire::frame::{FrameLimits, decode_head, encode_head};
use shardgate_wire::frame_body::{FrameBody, ReadFrameError, read_frame};
use shardgate_wire::mac::{AnswerFacts, Secret, Stamp};
use shardgate_wire::message::{
    AgentReport, Answer, CallError, FORMAT_LIMITS, FormatHead, REPORT_LIMITS, Refusal, Target,
};
use shardgate_wire::{DiskHealth, DiskId, StoreError};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::pool::{Connection, ConnectionPool, Way};
use super::session::Session;
use super::{AgentSettings, RemoteDisk};
use crate::seam::Clock;

/// One agent.
pub struct AgentClient {
    pool: ConnectionPool,
    session: Session,
    settings: AgentSettings,
    tracker: TaskTracker,
    host: HeaderValue,
}

/// A call, ready to be sent as often as need be.
pub struct Ask {
    /// What is asked.
    pub target: Target,
    /// Longest answer.
    pub limits: FrameLimits,
    /// By which share of the connections.
    pub way: Way,
    /// Until it is answered.
    pub within: Duration,
    /// Encoded head; empty where the call has no body.
    pub head: Bytes,
    /// Data, in pieces.
    pub data: Vec<Bytes>,
}

/// How one attempt ended other than with an answer.
enum Failed {
    /// The connection: perhaps it was closed while it idled.
    Connection(StoreError),
    /// The agent runs anew.
    Restamp,
    /// For good.
    Call(StoreError),
}

impl AgentClient {
    /// A client of the agent at `address` (`HOST:PORT`); connects when first
    /// called. `tracker` holds the calls that go on when their callers left.
    pub fn new(
        address: impl Into<String>,
        secret: Option<Secret>,
        settings: AgentSettings,
        clock: Arc<dyn Clock>,
        tracker: TaskTracker,
    ) -> Arc<Self> {
        let address = address.into();
        let host = HeaderValue::from_str(&address);
        Arc::new(Self {
            host: host.unwrap_or(HeaderValue::from_static("agent")),
            pool: ConnectionPool::new(address, &settings),
            session: Session::new(secret, clock),
            settings,
            tracker,
        })
    }

    /// Where the agent is.
    pub fn address(&self) -> &str {
        self.pool.address()
    }

    /// How agents are treated.
    pub fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    /// Where tasks are spawned.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// One of its disks; whether it is there shows with the first call.
    pub fn disk(self: &Arc<Self>, disk: DiskId) -> RemoteDisk {
        RemoteDisk::new(Arc::clone(self), disk)
    }

    /// Who the agent is, and what is in its folders.
    pub async fn report(&self) -> Result<AgentReport, StoreError> {
        let ask = Ask {
            target: Target::Agent,
            limits: REPORT_LIMITS,
            way: Way::Control,
            within: self.settings.control_timeout,
            head: Bytes::new(),
            data: Vec::new(),
        };
        Ok(self.call(&ask).await?.0)
    }

    /// Makes a blank folder a disk. Only for a disk that the catalog knows
    /// and that was never written to.
    pub async fn format(&self, head: &FormatHead) -> Result<DiskHealth, StoreError> {
        let ask = Ask {
            target: Target::Format,
            limits: FORMAT_LIMITS,
            way: Way::Control,
            within: self.settings.call_timeout,
            head: encode_head(head),
            data: Vec::new(),
        };
        Ok(self.call(&ask).await?.0)
    }

    /// Makes a call. Waiting for a connection longer than the call itself may
    /// take is `Busy`: the fault of our load and not of the disk.
    pub async fn call<T: DeserializeOwned>(&self, ask: &Ask) -> Result<(T, Bytes), StoreError> {
        let permit = timeout(ask.within, self.pool.permit(ask.way)).await;
        let _permit = permit.map_err(|_| StoreError::Busy)?;
        match timeout(ask.within, self.attempts(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::TimedOut(ask.within)),
        }
    }

    async fn attempts<T: DeserializeOwned>(&self, ask: &Ask) -> Result<(T, Bytes), StoreError> {
        let (mut restamped, mut broken) = (false, false);
        loop {
            let idle = if broken { None } else { self.pool.take_idle() };
            let (connection, idled) = match idle {
                Some(connection) => (connection, true),
                None => (self.pool.connect().await?, false),
            };
            match self.attempt(ask, connection).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Connection(_)) if idled => {
                    // The others were left at the same time.
                    self.pool.drop_idle();
                    broken = true;
                }
                Err(Failed::Restamp) if !restamped => restamped = true,
                Err(Failed::Restamp) => {
                    return Err(self.unreachable("the agent takes no stamp of ours"));
                }
                Err(Failed::Connection(error) | Failed::Call(error)) => return Err(error),
            }
        }
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        mut connection: Connection,
    ) -> Result<(T, Bytes), Failed> {
        let (request, stamp) = self.request(ask);
        let broken = |error: hyper::Error| Failed::Connection(self.unreachable(&error.to_string()));
        connection.sender.ready().await.map_err(broken)?;
        let sent = connection.sender.send_request(request).await;
        let (parts, mut body) = sent.map_err(broken)?.into_parts();
        let body_len = parts.headers.get(CONTENT_LENGTH);
        let body_len = body_len.and_then(|len| len.to_str().ok()?.parse().ok());
        let body_len: u64 =
            body_len.ok_or_else(|| Failed::Call(self.unreachable("an answer without a length")))?;
        let judge = |head: &[u8], _| {
            let facts = AnswerFacts {
                status: parts.status.as_u16(),
                body_len,
                head,
            };
            match self.session.is_authentic(&stamp, &parts.headers, &facts) {
                true => Ok(()),
                false => Err("the answer is not authentic: has the agent another secret?"),
            }
        };
        let frame = match read_frame(&mut body, body_len, ask.limits, judge).await {
            Ok(frame) => frame,
            Err(ReadFrameError::Body(error)) => return Err(broken(error)),
            Err(ReadFrameError::Refused(why)) => return Err(Failed::Call(self.unreachable(why))),
            Err(ReadFrameError::Frame(error)) => {
                return Err(Failed::Call(self.unreachable(&error.to_string())));
            }
        };
        self.pool.put_back(connection);
        let answer: Answer<T> = decode_head(&frame.head)
            .map_err(|error| Failed::Call(self.unreachable(&error.to_string())))?;
        match answer {
            Ok(value) => Ok((value, frame.data)),
            Err(CallError::Store(error)) => Err(Failed::Call(error)),
            Err(CallError::Refused(refusal)) => Err(self.refused(refusal)),
        }
    }

    fn request(&self, ask: &Ask) -> (Request<FrameBody>, Stamp) {
        let body = FrameBody::new(ask.head.clone(), ask.data.iter().cloned());
        let (request, stamp) = self.session.request(&ask.target, &ask.head, body.len());
        let request = request.header(HOST, &self.host).body(body);
        (
            request.expect("paths are made of ids and known words"),
            stamp,
        )
    }

    fn refused(&self, refusal: Refusal) -> Failed {
        match refusal {
            Refusal::Stamp { boot } => {
                self.session.learn(boot);
                Failed::Restamp
            }
            Refusal::Busy => Failed::Call(StoreError::Busy),
            Refusal::Malformed { what } => Failed::Call(StoreError::BadCall { what }),
            Refusal::NotAuthentic | Refusal::Skew { .. } | Refusal::NoCall | Refusal::TooSlow => {
                Failed::Call(self.unreachable(&refusal.to_string()))
            }
        }
    }

    fn unreachable(&self, why: &str) -> StoreError {
        StoreError::Unreachable {
            why: format!("{}: {why}", self.pool.address()),
        }
    }
}
