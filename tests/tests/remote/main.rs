//! Gateway's client and agent's server, over loopback: the suite of every
//! store, the bounds of both, and what attackers on the wire try.
#![allow(clippy::unwrap_used)]

mod abuse;
mod agent;
mod bounds;
mod configured;
mod conforms;
mod proxy;
mod tampering;
