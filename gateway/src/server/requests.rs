//! One request of a connection: admission, its ids and its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, Version};
use s3s::Body;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::answered::{AnswerBody, Serving};
use super::metrics::Metrics;
use crate::s3::{Observed, S3Front, slow_down};

/// Ids of requests: unique in this process, and hard to confuse with those of
/// another.
pub(crate) struct RequestIds {
    seed: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Begins with a random seed.
    pub(crate) fn new() -> Self {
        Self {
            seed: rand::random(),
            next: AtomicU64::new(0),
        }
    }

    /// The next id, 16 digits.
    pub(crate) fn next(&self) -> String {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        // splitmix64: a bijection, so that no two ids of a process are equal.
        let mut x = self
            .seed
            .wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016X}", x ^ (x >> 31))
    }
}

/// What all requests share.
pub(crate) struct Requests {
    pub(crate) front: S3Front,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ids: RequestIds,
    pub(crate) at_once: Arc<Semaphore>,
    /// Time in which a client takes nothing of its answer.
    pub(crate) write_idle: Duration,
}

impl Requests {
    /// Serves one request.
    pub(crate) async fn serve<B>(
        &self,
        request: Request<B>,
        client: Option<SocketAddr>,
    ) -> Response<AnswerBody<Body>>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + Sync + 'static,
    {
        let permit = Arc::clone(&self.at_once).try_acquire_owned().ok();
        let admitted = permit.is_some();
        let version = request.version();
        self.metrics.in_flight.inc();
        let mut serving = Serving {
            metrics: Arc::clone(&self.metrics),
            observed: Observed::default(),
            request_id: self.ids.next(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            client,
            began: tokio::time::Instant::now(),
            status: None,
            sent: 0,
            complete: false,
            _permit: permit,
        };
        let response = if admitted {
            let span = tracing::info_span!("s3", request_id = %serving.request_id);
            self.front
                .answer(request, &serving.request_id, &serving.observed)
                .instrument(span)
                .await
        } else {
            self.metrics.refused.inc();
            self.front
                .refuse(slow_down(), &request, &serving.request_id)
        };
        serving.status = Some(response.status());
        let len = response.headers().get(CONTENT_LENGTH);
        let len = len.and_then(|len| len.to_str().ok()?.parse().ok());
        response.map(|body| {
            let answer = AnswerBody::new(body, len, serving, self.write_idle);
            // Before HTTP/2 a connection asks for the first frame by itself.
            if version >= Version::HTTP_2 {
                answer.watch()
            } else {
                answer
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct() {
        let ids = RequestIds::new();
        let drawn: HashSet<String> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(drawn.iter().all(|id| id.len() == 16));
    }
}
