//! The body of an answer on its way to the client, and the end of a request.
//!
//! Invariant: each request ends exactly once, with one log line and one count
//! in the metrics, whether its answer was taken whole or the client left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::metrics::{Ended, Metrics};
use crate::s3::Observed;

/// A request that is being served; its end is its drop.
pub(crate) struct Serving {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observed: Observed,
    pub(crate) request_id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) client: Option<std::net::SocketAddr>,
    pub(crate) began: Instant,
    /// The status of the answer, once there is one.
    pub(crate) status: Option<StatusCode>,
    pub(crate) sent: u64,
    /// Whether the answer was handed over to its end.
    pub(crate) complete: bool,
    /// Keeps the request counted among those at once.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let named = self.observed.named();
        let took = self.began.elapsed();
        // As in nginx: the client left before there was an answer.
        let status = self.status.map_or(499, |status| status.as_u16());
        let ended = Ended {
            operation: if named.operation.is_empty() {
                "Unknown"
            } else {
                named.operation
            },
            status,
            took,
            received: self.observed.received_bytes(),
            sent: self.sent,
        };
        self.metrics.in_flight.dec();
        self.metrics.ended(&ended);
        tracing::info!(
            target: "shardgate::access",
            request_id = %self.request_id,
            operation = ended.operation,
            bucket = named.bucket.as_deref().unwrap_or(""),
            method = %self.method,
            path = %crate::s3::for_log(&self.path, 512),
            status,
            received_bytes = ended.received,
            sent_bytes = ended.sent,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            complete = self.complete,
            client = self.client.map(tracing::field::display),
            "request"
        );
    }
}

/// An answer's body that counts what is taken of it.
pub(crate) struct AnswerBody<B> {
    inner: B,
    /// What the answer says of its length. Past it the body is not asked for
    /// its end any more.
    len: Option<u64>,
    serving: Serving,
}

impl<B: Body> AnswerBody<B> {
    /// Takes over the request until its answer of `len` bytes has been sent.
    pub(crate) fn new(inner: B, len: Option<u64>, mut serving: Serving) -> Self {
        let is_empty = len == Some(0) || inner.is_end_stream();
        serving.complete = is_empty || serving.method == Method::HEAD;
        Self {
            inner,
            len,
            serving,
        }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.serving.sent += bytes as u64;
                let is_whole = this.len == Some(this.serving.sent);
                this.serving.complete = is_whole || this.inner.is_end_stream();
            }
            Some(Err(_)) => this.serving.complete = false,
            None => this.serving.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn answer(len: u64) -> AnswerBody<impl Body<Data = Bytes, Error = std::io::Error> + Unpin> {
        let frames = [Ok(Frame::data(Bytes::from_static(b"12345")))];
        // As the body of an object: it says nothing of its end before it.
        let inner = StreamBody::new(futures::stream::iter(frames).boxed());
        let serving = Serving {
            metrics: Metrics::new(Vec::new()),
            observed: Observed::default(),
            request_id: "1".into(),
            method: Method::GET,
            path: "/".into(),
            client: None,
            began: Instant::now(),
            status: None,
            sent: 0,
            complete: false,
            _permit: None,
        };
        AnswerBody::new(inner, Some(len), serving)
    }

    #[tokio::test]
    async fn an_answer_is_complete_with_its_last_byte() {
        for (len, complete) in [(5, true), (6, false)] {
            let mut body = answer(len);
            assert!(!body.serving.complete);
            body.frame().await.unwrap().unwrap();
            assert_eq!(body.serving.complete, complete);
        }
    }
}
