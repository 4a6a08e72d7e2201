//! S3 over HTTP: the only place that names the crate s3s.
//!
//! Owns the meaning of every S3 operation: names, conditions, ranges,
//! checksums, listings and errors as S3's clients expect them. Invariants: no
//! operation runs before `access` has allowed it; nothing is stored before the
//! end of a body and its signature were seen. It keeps no bytes and no
//! metadata itself: those are the object path's and the catalog's.

mod access;
mod attributes;
mod body;
mod bucket;
mod build;
mod checksum;
mod conditions;
mod contact;
mod copy;
mod copy_source;
mod delete;
mod digest;
mod encode;
mod error;
mod error_document;
mod front;
mod host;
mod list;
mod list_uploads;
mod list_versions;
mod metadata;
mod multipart;
mod names;
mod object_path;
mod object_read;
mod object_write;
mod operations;
mod owner;
mod pace;
mod probes;
mod range;
mod repair;
mod service;
mod shown;
mod signature_v2;
mod store;
mod telemetry;

pub use body::BodyPace;
pub use build::{S3Parts, S3Settings, build_s3};
pub use contact::{Answers, Contact};
pub(crate) use encode::for_log;
pub(crate) use error::slow_down;
pub use front::S3Front;
pub use object_path::{ClassNames, ServedObjects};
pub use owner::Owners;
pub use store::{ObjectStore, OpenedObject, ReadStream};
pub use telemetry::{Named, Observed};

#[cfg(test)]
pub(crate) mod tests;
