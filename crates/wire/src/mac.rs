//! Who may talk to an agent: the code (MAC) that each message carries.
//!
//! Owns: the cluster's [`Secret`], the [`Stamp`] of a request and its text
//! form, and HMAC-SHA-256 over requests and answers. Invariant: what is
//! covered is method, target, stamp, body length and the whole head, each with
//! its length before it, under a label that tells requests from answers; the
//! data after the head is covered by its length and by the block checksums in
//! the head only (`docs/agent-protocol.md` says what that does not protect
//! from). Whether a stamp was seen before is [`crate::mac_replay`]'s question.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Fewest bytes of a secret.
pub const MIN_SECRET_BYTES: usize = 32;
/// Most bytes of a secret.
pub const MAX_SECRET_BYTES: usize = 1024;
/// Fewest different byte values in a secret: `aaaa...` is not one.
const MIN_DISTINCT_BYTES: usize = 8;

/// Name of the header that carries the stamp and code of a request, and the
/// code of an answer.
pub const MAC_HEADER: &str = "x-shardgate-mac";
/// Name of the header that every call must carry; its value is
/// [`crate::message::PROTOCOL`]. A page in a browser cannot send it to an
/// agent on its own machine without being asked first.
pub const PROTOCOL_HEADER: &str = "x-shardgate-protocol";

/// Why a text is not taken as the cluster's secret.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WeakSecret {
    /// Too short or too long.
    #[error("a secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, this one has {0}")]
    Length(usize),
    /// Too few different bytes.
    #[error("a secret is random: this one has {0} different bytes, and needs {MIN_DISTINCT_BYTES}")]
    Uniform(usize),
}

/// The secret that all gateways and agents of a cluster share.
#[derive(Clone)]
pub struct Secret {
    /// HMAC with the key already mixed in; the key itself is not kept.
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// Takes the bytes of a secret as they are.
    pub fn new(bytes: &[u8]) -> Result<Self, WeakSecret> {
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len()) {
            return Err(WeakSecret::Length(bytes.len()));
        }
        let mut seen = [false; 256];
        for &byte in bytes {
            seen[usize::from(byte)] = true;
        }
        let distinct = seen.iter().filter(|&&seen| seen).count();
        if distinct < MIN_DISTINCT_BYTES {
            return Err(WeakSecret::Uniform(distinct));
        }
        let keyed = Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length");
        Ok(Self { keyed })
    }

    /// Takes a secret as a configuration or a file has it: white space around
    /// it is not part of it.
    pub fn from_text(text: &str) -> Result<Self, WeakSecret> {
        Self::new(text.trim().as_bytes())
    }

    fn code(&self, label: &[u8], parts: &[&[u8]]) -> Code {
        let mut mac = self.keyed.clone();
        mac.update(label);
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Code(mac.finalize().into_bytes().into())
    }

    /// The code of a request.
    pub fn request_code(&self, stamp: &Stamp, request: &RequestFacts<'_>) -> Code {
        self.code(
            b"shardgate request 1",
            &[
                request.method.as_bytes(),
                request.target.as_bytes(),
                &stamp.to_bytes(),
                &request.body_len.to_be_bytes(),
                request.head,
            ],
        )
    }

    /// The code of an answer to the request that bore `stamp`.
    pub fn answer_code(&self, stamp: &Stamp, answer: &AnswerFacts<'_>) -> Code {
        self.code(
            b"shardgate answer 1",
            &[
                &answer.status.to_be_bytes(),
                &stamp.to_bytes(),
                &answer.body_len.to_be_bytes(),
                answer.head,
            ],
        )
    }
}

/// What of a request its code covers besides the stamp.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The body's declared length, data included.
    pub body_len: u64,
    /// The encoded head; empty where the call has no body.
    pub head: &'a [u8],
}

/// What of an answer its code covers besides the request's stamp.
#[derive(Clone, Copy, Debug)]
pub struct AnswerFacts<'a> {
    /// HTTP status.
    pub status: u16,
    /// The body's declared length, data included.
    pub body_len: u64,
    /// The encoded head.
    pub head: &'a [u8],
}

/// A message's code. Compared in constant time only.
#[derive(Clone, Copy, Debug)]
pub struct Code([u8; 32]);

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A header that is not a stamp or a code.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed {MAC_HEADER}")]
pub struct MalformedMac;

impl FromStr for Code {
    type Err = MalformedMac;

    fn from_str(text: &str) -> Result<Self, MalformedMac> {
        let mut code = [0; 32];
        hex::decode_to_slice(text, &mut code).map_err(|_| MalformedMac)?;
        Ok(Self(code))
    }
}

/// What makes a request unlike every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The agent's run that it is meant for: no other agent takes it, nor
    /// this one after a restart. Zero where the caller does not know it yet.
    pub boot: u128,
    /// The caller's run, random.
    pub session: u64,
    /// Number of the request in its session, from 1.
    pub counter: u64,
    /// When it was sent, milliseconds since 1970.
    pub time_ms: u64,
}

impl Stamp {
    fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&self.boot.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.session.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.counter.to_be_bytes());
        bytes[32..].copy_from_slice(&self.time_ms.to_be_bytes());
        bytes
    }

    /// The header of a request: stamp and code.
    pub fn header(&self, code: &Code) -> String {
        let mut text = hex::encode(self.to_bytes());
        text.push('.');
        text.push_str(&hex::encode(code.0));
        text
    }

    /// The inverse of [`Self::header`].
    pub fn parse_header(text: &str) -> Result<(Self, Code), MalformedMac> {
        let (stamp, code) = text.split_once('.').ok_or(MalformedMac)?;
        let mut bytes = [0; 40];
        hex::decode_to_slice(stamp, &mut bytes).map_err(|_| MalformedMac)?;
        let number = |at: usize| {
            let mut be = [0; 8];
            be.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(be)
        };
        let stamp = Self {
            boot: (u128::from(number(0)) << 64) | u128::from(number(8)),
            session: number(16),
            counter: number(24),
            time_ms: number(32),
        };
        Ok((stamp, code.parse()?))
    }
}

#[cfg(test)]
mod tests;
