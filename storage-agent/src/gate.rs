//! Whether a request may come to a disk: its code, its stamp, its size.
//!
//! Owns the secret, the number of this run, the stamps that were used and the
//! budget of bytes. Invariant: nothing of a request is decoded, and no call
//! made, before [`Gate::admit`] has found its code right and its stamp unused;
//! until then it holds at most its share of the budget.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use shardgate_wire::frame::{FrameLimits, PREFIX_BYTES};
use shardgate_wire::ids::random_u128;
use shardgate_wire::mac::{
    AnswerFacts, Code, MAC_HEADER, PROTOCOL_HEADER, RequestFacts, Secret, Stamp,
};
use shardgate_wire::mac_replay::{Refused, ReplayGuard};
use shardgate_wire::message::{PROTOCOL, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::calls::Reply;
use crate::limits::Limits;

/// Milliseconds since 1970.
pub type Clock = fn() -> u64;

/// The clock of the system.
#[expect(clippy::disallowed_methods, reason = "this is the agent's seam")]
pub fn system_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What every request passes.
pub struct Gate {
    secret: Option<Secret>,
    boot: u128,
    clock: Clock,
    replay: Mutex<ReplayGuard>,
    budget: Arc<Semaphore>,
}

/// The facts of a request, kept until its body is here.
#[derive(Debug)]
pub struct Claim {
    method: Method,
    target: String,
    /// The body's declared length.
    pub body_len: u64,
    /// What it claims, where a secret is needed.
    stamped: Option<(Stamp, Code)>,
}

fn malformed(what: &str) -> Refusal {
    Refusal::Malformed {
        what: what.to_owned(),
    }
}

impl Gate {
    /// A gate for this run. Without a secret everyone may pass: the caller
    /// sees to it that only this machine can reach it.
    pub fn new(secret: Option<Secret>, limits: &Limits, clock: Clock) -> Self {
        Self {
            secret,
            boot: random_u128(),
            clock,
            replay: Mutex::new(ReplayGuard::new(limits.clock_skew)),
            budget: Arc::new(Semaphore::new(limits.buffer_bytes)),
        }
    }

    /// The number of this run.
    pub fn boot(&self) -> u128 {
        self.boot
    }

    /// The agent's clock.
    pub fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Reads what a request claims; nothing of it is believed yet.
    pub fn claim(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Claim, Refusal> {
        let protocol = headers.get(PROTOCOL_HEADER).map(|value| value.as_bytes());
        if protocol != Some(PROTOCOL.to_string().as_bytes()) {
            return Err(malformed("no protocol header, or another version"));
        }
        let body_len = body_len(headers)?;
        if method == Method::GET && body_len != 0 {
            return Err(malformed("a body where none belongs"));
        }
        let stamped = match self.secret {
            None => None,
            Some(_) => {
                let text = single(headers, MAC_HEADER)?.ok_or(Refusal::NotAuthentic)?;
                Some(Stamp::parse_header(text).map_err(|_| Refusal::NotAuthentic)?)
            }
        };
        Ok(Claim {
            method: method.clone(),
            target: target.to_owned(),
            body_len,
            stamped,
        })
    }

    /// Judges a claim by the encoded head. A claim that passes is used up:
    /// the same one does not pass again.
    pub fn admit(&self, claim: &Claim, head: &[u8]) -> Result<(), Refusal> {
        let Some(secret) = &self.secret else {
            return Ok(());
        };
        let (stamp, code) = claim.stamped.as_ref().ok_or(Refusal::NotAuthentic)?;
        let facts = RequestFacts {
            method: claim.method.as_str(),
            target: &claim.target,
            body_len: claim.body_len,
            head,
        };
        if secret.request_code(stamp, &facts) != *code {
            return Err(Refusal::NotAuthentic);
        }
        if stamp.boot != self.boot {
            return Err(Refusal::Stamp { boot: self.boot });
        }
        let admitted = self.replay.lock().admit(stamp, self.now_ms());
        admitted.map_err(|refused| match refused {
            Refused::Skew { skew_ms } => Refusal::Skew { skew_ms },
            Refused::Used => Refusal::Stamp { boot: self.boot },
            Refused::Full => Refusal::Busy,
        })
    }

    /// The code of an answer, where the request had a stamp.
    pub fn answer_code(&self, claim: &Claim, reply: &Reply) -> Option<Code> {
        let (stamp, _) = claim.stamped.as_ref()?;
        let facts = AnswerFacts {
            status: reply.status,
            body_len: (reply.head.len() + reply.data.len()) as u64,
            head: &reply.head[PREFIX_BYTES..],
        };
        Some(self.secret.as_ref()?.answer_code(stamp, &facts))
    }

    /// Room for that many bytes, held until the permit is dropped.
    pub fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).map_err(|_| Refusal::Busy)?;
        let room = Arc::clone(&self.budget).try_acquire_many_owned(bytes);
        room.map_err(|_| Refusal::Busy)
    }

    /// Room for a request's body, if it is not longer than `limits` allow.
    pub fn body_room(
        &self,
        claim: &Claim,
        limits: FrameLimits,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        if claim.body_len > limits.body() {
            return Err(malformed("body is too long for this call"));
        }
        self.room(claim.body_len)
    }
}

/// The declared length: bodies of unknown length, or with two, are refused.
fn body_len(headers: &HeaderMap) -> Result<u64, Refusal> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(malformed("transfer-encoding is not taken"));
    }
    let Some(text) = single(headers, CONTENT_LENGTH.as_str())? else {
        return Ok(0);
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("content-length is not a number"));
    }
    text.parse()
        .map_err(|_| malformed("content-length is not a number"))
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(malformed("a header is there twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| malformed("a header is not text"))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests;
