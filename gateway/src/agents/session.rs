//! Codes of requests to one agent, and of its answers.
//!
//! Owns the number of this session and the agent's run as last heard.
//! Invariant: no counter is used twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shardgate_wire::frame::PREFIX_BYTES;
use shardgate_wire::ids::random_u128;
use shardgate_wire::mac::{AnswerFacts, Code, RequestFacts, Secret, Stamp};

use crate::seam::Clock;

/// What a request must look like, and its answer.
pub struct Session {
    secret: Option<Secret>,
    clock: Arc<dyn Clock>,
    session: u64,
    counter: AtomicU64,
    boot: Mutex<u128>,
}

impl Session {
    /// A new session.
    pub fn new(secret: Option<Secret>, clock: Arc<dyn Clock>) -> Self {
        Self {
            secret,
            clock,
            session: random_u128() as u64,
            counter: AtomicU64::new(1),
            boot: Mutex::new(0),
        }
    }

    /// Notes the agent's run.
    pub fn learn(&self, boot: u128) {
        *self.boot.lock() = boot;
    }

    /// Stamps a request: the stamp, and the value of its header, if there is
    /// a secret. `head` is the encoded head with its prefix, or empty.
    pub fn stamp(
        &self,
        method: &str,
        path: &str,
        head: &[u8],
        body_len: u64,
    ) -> (Stamp, Option<String>) {
        let stamp = Stamp {
            boot: *self.boot.lock(),
            session: self.session,
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            time_ms: self.clock.now_ms(),
        };
        let header = self.secret.as_ref().map(|secret| {
            let facts = RequestFacts {
                method,
                target: path,
                body_len,
                head: head.get(PREFIX_BYTES..).unwrap_or_default(),
            };
            stamp.header(&secret.request_code(&stamp, &facts))
        });
        (stamp, header)
    }

    /// Whether an answer is the agent's own, to this request.
    pub fn is_authentic(&self, stamp: &Stamp, code: Option<&str>, facts: &AnswerFacts<'_>) -> bool {
        let Some(secret) = &self.secret else {
            return true;
        };
        let code = code.and_then(|code| code.parse::<Code>().ok());
        code.is_some_and(|code| code == secret.answer_code(stamp, facts))
    }
}
