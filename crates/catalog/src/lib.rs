//! The metadata of a cluster: buckets, versions, uploads, groups, disks.
//!
//! Owns: the ordered key-value [`engine`], the rows ([`model`]) and the typed
//! catalog written once above every engine. Invariant: `Engine::commit` is
//! the only linearisation point.

pub mod model;
