//! The body of an answer on its way to the client, and the end of a request.
//!
//! Invariant: each request ends exactly once, with one log line and one count
//! in the metrics, whether its answer was taken whole, the client left, or it
//! took nothing for too long.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
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

/// The client took nothing of the answer for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client does not take its answer")]
pub(crate) struct NotTaken;

/// An answer's body that counts what is taken of it, and is given up when
/// nothing is for too long: what it holds of this store is then free, whatever
/// the connection does. Over HTTP/2 a client may shut its window and keep the
/// connection alive for ever.
pub(crate) struct AnswerBody<B> {
    answer: Arc<Mutex<Answer<B>>>,
    write_idle: Duration,
    watched: bool,
    size_hint: SizeHint,
}

struct Answer<B> {
    /// The body and its request; `None` when it was given up.
    open: Option<(B, Serving)>,
    /// What the answer says of its length. Past it the body is not asked for
    /// its end any more.
    len: Option<u64>,
    /// Since when the client could take something; `None` while this store
    /// makes it wait.
    offered_since: Option<Instant>,
}

impl<B: Body> AnswerBody<B> {
    /// Takes over the request until its answer of `len` bytes has been sent.
    pub(crate) fn new(inner: B, len: Option<u64>, mut serving: Serving, idle: Duration) -> Self {
        let is_empty = len == Some(0) || inner.is_end_stream();
        serving.complete = is_empty || serving.method == Method::HEAD;
        Self {
            size_hint: inner.size_hint(),
            write_idle: idle,
            watched: false,
            answer: Arc::new(Mutex::new(Answer {
                open: Some((inner, serving)),
                len,
                offered_since: Some(Instant::now()),
            })),
        }
    }
}

impl<B: Send + 'static> AnswerBody<B> {
    /// Gives the answer up when nothing of it is taken, from now on.
    pub(crate) fn watch(mut self) -> Self {
        let whole = self
            .answer
            .lock()
            .open
            .as_ref()
            .is_some_and(|open| open.1.complete);
        if !whole {
            self.begin_watch();
        }
        self
    }

    fn begin_watch(&mut self) {
        self.watched = true;
        tokio::spawn(give_up_untaken(
            Arc::downgrade(&self.answer),
            self.write_idle,
        ));
    }
}

/// Ends with the answer, or ends it.
async fn give_up_untaken<B>(answer: Weak<Mutex<Answer<B>>>, idle: Duration) {
    let mut wake = Instant::now() + idle;
    loop {
        tokio::time::sleep_until(wake).await;
        let Some(answer) = answer.upgrade() else {
            return;
        };
        let given_up = {
            let mut answer = answer.lock();
            let until = answer.offered_since.unwrap_or_else(Instant::now) + idle;
            if until > Instant::now() {
                wake = until;
                None
            } else {
                Some(answer.open.take())
            }
        };
        // Dropped outside of the lock: it logs, and gives memory back.
        if given_up.is_some() {
            return;
        }
    }
}

impl<B> Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: From<NotTaken>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some((inner, serving)) = &mut self.open else {
            return Poll::Ready(Some(Err(NotTaken.into())));
        };
        let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(cx) else {
            self.offered_since = None;
            return Poll::Pending;
        };
        self.offered_since = Some(Instant::now());
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                serving.sent += bytes as u64;
                let is_whole = self.len == Some(serving.sent);
                serving.complete = is_whole || inner.is_end_stream();
            }
            Some(Err(_)) => serving.complete = false,
            None => serving.complete = true,
        }
        Poll::Ready(frame)
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: From<NotTaken>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let (frame, whole) = {
            let mut answer = this.answer.lock();
            let frame = answer.poll_frame(cx);
            let open = answer.open.as_ref();
            if let Some((inner, _)) = open {
                this.size_hint = inner.size_hint();
            }
            (frame, open.is_none_or(|open| open.1.complete))
        };
        // Most answers are taken with their first frame.
        if !this.watched && !whole {
            this.begin_watch();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let answer = self.answer.lock();
        answer
            .open
            .as_ref()
            .is_some_and(|(inner, _)| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const IDLE: Duration = Duration::from_secs(7);
    type Failed = Box<dyn std::error::Error + Send + Sync>;

    fn answer_of(
        frames: usize,
        len: u64,
    ) -> AnswerBody<impl Body<Data = Bytes, Error = Failed> + Unpin> {
        let frames = (0..frames).map(|_| Ok(Frame::data(Bytes::from_static(b"12345"))));
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
        serving.metrics.in_flight.inc();
        AnswerBody::new(inner, Some(len), serving, IDLE)
    }

    fn metrics<B>(body: &AnswerBody<B>) -> Arc<Metrics> {
        Arc::clone(&body.answer.lock().open.as_ref().unwrap().1.metrics)
    }

    #[tokio::test]
    async fn an_answer_is_complete_with_its_last_byte() {
        for (len, complete) in [(5, true), (6, false)] {
            let mut body = answer_of(1, len);
            let is_complete = |body: &AnswerBody<_>| {
                let answer = body.answer.lock();
                answer.open.as_ref().unwrap().1.complete
            };
            assert!(!is_complete(&body));
            body.frame().await.unwrap().unwrap();
            assert_eq!(is_complete(&body), complete);
        }
    }

    // ATTACKS 76: a client that takes nothing, and keeps its connection.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_given_up() {
        let untouched = answer_of(3, 15).watch();
        let mut begun = answer_of(3, 15);
        begun.frame().await.unwrap().unwrap();
        let bodies = [untouched, begun];
        let metrics = bodies.each_ref().map(metrics);
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
        assert!(metrics.iter().all(|metrics| metrics.in_flight.get() == 1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(metrics.iter().all(|metrics| metrics.in_flight.get() == 0));
        for mut body in bodies {
            assert!(body.frame().await.unwrap().is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_frame_that_is_taken_gives_the_whole_time_again() {
        let mut body = answer_of(10, 50).watch();
        for _ in 0..10 {
            tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
            body.frame().await.unwrap().unwrap();
        }
    }

    // The store that takes its time is not the client's fault.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_the_store_is_not_given_up() {
        let frames = futures::stream::unfold((), |()| async {
            tokio::time::sleep(IDLE * 3).await;
            let frame = Frame::data(Bytes::from_static(b"12345"));
            Some((Ok::<_, Failed>(frame), ()))
        });
        let serving = answer_of(0, 0).answer.lock().open.take().unwrap().1;
        let inner = Box::pin(StreamBody::new(frames));
        let mut body = AnswerBody::new(inner, Some(500), serving, IDLE).watch();
        for _ in 0..3 {
            body.frame().await.unwrap().unwrap();
        }
    }
}
