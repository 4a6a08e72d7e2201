//! What one request turned out to be, for its log line and the metrics.
//!
//! A cell that travels with the request: the front makes it, the gate fills
//! in the operation and the bucket, the server reads it at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Shared by everything that handles one request.
#[derive(Clone, Debug, Default)]
pub struct Observed(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    named: Mutex<Named>,
    received_bytes: AtomicU64,
}

/// What a request asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The operation; empty until it is known.
    pub operation: &'static str,
    /// The bucket, if any.
    pub bucket: Option<String>,
}

impl Observed {
    /// Notes what the request asks for.
    pub(crate) fn set_operation(&self, operation: &str, bucket: Option<&str>) {
        let mut named = self.0.named.lock();
        named.operation = super::operations::static_name(operation);
        named.bucket = bucket.map(str::to_owned);
    }

    /// What the request asked for.
    pub fn named(&self) -> Named {
        self.0.named.lock().clone()
    }

    /// Counts bytes of the body as they come.
    pub(crate) fn add_received(&self, bytes: usize) {
        self.0
            .received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the body that came.
    pub fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Ordering::Relaxed)
    }
}
