//! The process around the S3 layer: connections, limits, logs, metrics, stop.
//!
//! Owns the listening sockets of S3 and of the operator, the bounds on
//! connections, requests, headers and silence, the one log line of each
//! request, and the orderly stop. It knows HTTP and no operation of S3.

mod accept;
mod answered;
mod connection;
mod logs;
mod metrics;
mod operator;
mod process;
mod requests;
mod settings;

pub use accept::{ServerError, ServerParts, run};
pub use logs::{LogFormat, LogsError, init_logs};
pub use metrics::{Reading, ReadingSource};
pub use operator::{OperatorAnswer, OperatorRequest, OperatorRoutes};
pub use process::raise_open_files;
pub use settings::{Limits, ServerSettings};

#[cfg(test)]
mod tests;
