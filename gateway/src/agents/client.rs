//! Calls to one agent.
//!
//! Owns the way of a call: permit, connection, code, answer, and what is done
//! when one of them fails. Every call may be made twice (the trait says so of
//! each), so one that fails on a connection that had idled is made once more
//! on a new one, and one that was stamped for another run of the agent is
//! stamped anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use shardgate_wire::frame::{
    Frame, FrameError, FrameLimits, FrameReader, decode_head, encode_head,
};
use shardgate_wire::frame_body::FrameBody;
use shardgate_wire::mac::{AnswerFacts, MAC_HEADER, PROTOCOL_HEADER, Secret, Stamp};
use shardgate_wire::message::{
    AgentReport, Answer, CallError, FORMAT_LIMITS, FormatHead, PROTOCOL, REPORT_LIMITS, Refusal,
    Target,
};
use shardgate_wire::{DiskHealth, DiskId, StoreError};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::connection::{Connection, Expected, NoAnswer, Received};
use super::pool::{ConnectionPool, Way};
use super::session::Session;
use super::{AgentSettings, RemoteDisk};
use crate::seam::Clock;

/// The encoded head of most answers, bytes.
const USUAL_ANSWER_BYTES: usize = 256;

/// One agent.
pub struct AgentClient {
    pool: ConnectionPool,
    session: Session,
    settings: AgentSettings,
    tracker: TaskTracker,
    host: String,
}

/// A call, ready to be sent as often as need be.
pub struct Ask {
    /// What is asked.
    pub target: Target,
    /// Longest answer.
    pub limits: FrameLimits,
    /// Data that the answer has if all is well, bytes.
    pub answer_data: usize,
    /// By which share of the connections.
    pub way: Way,
    /// Until when it may wait for its connection.
    pub wait_until: Instant,
    /// Until it is answered, from when it has its connection.
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
        let plain = address.bytes().all(|byte| byte.is_ascii_graphic());
        Arc::new(Self {
            host: if plain { &address } else { "agent" }.to_owned(),
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
            answer_data: 0,
            way: Way::Control,
            wait_until: Instant::now() + self.settings.control_timeout,
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
            answer_data: 0,
            way: Way::Control,
            wait_until: Instant::now() + self.settings.call_timeout,
            within: self.settings.call_timeout,
            head: encode_head(head),
            data: Vec::new(),
        };
        Ok(self.call(&ask).await?.0)
    }

    /// Makes a call. Waiting for a connection longer than the call itself may
    /// take is `Busy`: the fault of our load and not of the disk.
    pub async fn call<T: DeserializeOwned>(&self, ask: &Ask) -> Result<(T, Bytes), StoreError> {
        let leave = timeout_at(ask.wait_until, self.pool.leave(ask.way)).await;
        let _leave = leave.map_err(|_| StoreError::Busy)?;
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
        let expected = Expected {
            most: ask.limits.body(),
            usual: USUAL_ANSWER_BYTES + ask.answer_data,
        };
        let received = match connection.exchange(request, expected).await {
            Ok(received) => received,
            Err(NoAnswer::Broken(error)) => {
                return Err(Failed::Connection(self.unreachable(&error.to_string())));
            }
            Err(NoAnswer::Malformed(why)) => return Err(Failed::Call(self.unreachable(why))),
        };
        let frame = self
            .authentic(ask, &stamp, received)
            .map_err(|why| Failed::Call(self.unreachable(&why)))?;
        self.pool.put_back(connection);
        let answer: Answer<T> = decode_head(&frame.head)
            .map_err(|error| Failed::Call(self.unreachable(&error.to_string())))?;
        match answer {
            Ok(value) => Ok((value, frame.data)),
            Err(CallError::Store(error)) => Err(Failed::Call(error)),
            Err(CallError::Refused(refusal)) => Err(self.refused(refusal)),
        }
    }

    /// The message of an answer, if it is the agent's own to this request.
    fn authentic(&self, ask: &Ask, stamp: &Stamp, received: Received) -> Result<Frame, String> {
        let body_len = received.body.len() as u64;
        let frame = message_of(received.body, ask.limits).map_err(|error| error.to_string())?;
        let facts = AnswerFacts {
            status: received.status,
            body_len,
            head: &frame.head,
        };
        let code = received.mac.as_deref();
        match self.session.is_authentic(stamp, code, &facts) {
            true => Ok(frame),
            false => Err("the answer is not authentic: has the agent another secret?".to_owned()),
        }
    }

    fn request(&self, ask: &Ask) -> (VecDeque<Bytes>, Stamp) {
        let message = FrameBody::new(ask.head.clone(), ask.data.iter().cloned());
        let (method, path) = (ask.target.method(), ask.target.path());
        let (stamp, code) = self.session.stamp(method, &path, &ask.head, message.len());
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\ncontent-length: {}\r\n",
            self.host,
            message.len(),
        );
        if let Some(code) = code {
            head.extend([MAC_HEADER, ": ", code.as_str(), "\r\n"]);
        }
        head.push_str("\r\n");
        (message.behind(head.into()), stamp)
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

/// The message that is all of an answer's body.
fn message_of(body: Bytes, limits: FrameLimits) -> Result<Frame, FrameError> {
    let mut reader = FrameReader::new(body.len() as u64, limits)?;
    reader.push(body)?;
    reader.finish()
}
