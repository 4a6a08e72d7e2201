//! The body of a request, between the connection and s3s.
//!
//! Counts its bytes, ends it when the client stops sending or sends next to
//! nothing, and checks at its
//! end what s3s does not: that a signed aws-chunked body has its final chunk,
//! and that a document is what its `Content-MD5` or checksum says. What is
//! found wrong is kept in a [`FaultCell`], because s3s would report it as an
//! internal error.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use s3s::{BodySizeLimitExceeded, S3ErrorCode};
use tokio::time::{Instant, Sleep};

use super::checksum::TrailerFault;
use super::digest::DocumentDigest;
use super::pace::Pace;
use super::telemetry::Observed;

/// What was wrong with a body.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client sent nothing for too long, or too little.
    #[error("not enough bytes within the time-out")]
    Idle,
    /// The connection broke off.
    #[error("the connection ended inside of the body")]
    Disconnected,
    /// A signed chunked body without the chunk that ends it.
    #[error("the final chunk is missing")]
    FinalChunkMissing,
    /// The document is not what its digest says.
    #[error("the body does not match its digest")]
    Digest,
    /// The document is longer than any that S3 knows.
    #[error("the document is too long")]
    TooLong,
}

impl Fault {
    /// S3's code for it, and words.
    pub(crate) fn code(self) -> (S3ErrorCode, &'static str) {
        match self {
            Self::Idle => (
                S3ErrorCode::RequestTimeout,
                "Your socket connection to the server was not read from or written to within the timeout period.",
            ),
            Self::Disconnected | Self::FinalChunkMissing => (
                S3ErrorCode::IncompleteBody,
                "The request body terminated unexpectedly",
            ),
            Self::Digest => (
                S3ErrorCode::BadDigest,
                "The Content-MD5 or checksum value that you specified did not match what the server received.",
            ),
            Self::TooLong => (
                S3ErrorCode::MaxMessageLengthExceeded,
                "Your request was too big.",
            ),
        }
    }
}

/// What became of a body: its first fault, and whether it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultCell(Arc<Fate>);

#[derive(Debug, Default)]
struct Fate {
    fault: OnceLock<Fault>,
    unread: AtomicBool,
}

impl FaultCell {
    /// The fault, if there was one.
    pub(crate) fn get(&self) -> Option<Fault> {
        self.0.fault.get().copied()
    }

    /// Whether bytes of the body are still to come: the connection cannot be
    /// used again.
    pub(crate) fn is_unread(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed)
    }

    fn keep(&self, fault: Fault) -> s3s::StdError {
        let _ = self.0.fault.set(fault);
        Box::new(fault)
    }
}

/// What is checked of a body.
pub(crate) enum BodyCheck {
    /// Nothing.
    Nothing,
    /// The final chunk of a signed aws-chunked body without trailers.
    FinalChunk(Tail),
    /// The length of a document that is parsed whole, and its digest.
    Document {
        /// Bytes that it may still have.
        left: usize,
        /// What its headers say of it.
        digest: Option<Box<DocumentDigest>>,
    },
}

/// How slowly a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPace {
    /// Time without a byte.
    pub idle: Duration,
    /// Bytes per second over twice that time; 0: any rate.
    pub least_rate: u64,
}

/// A request's body with its checks.
pub(crate) struct CheckedBody<B> {
    inner: B,
    idle: Duration,
    pace: Pace,
    /// Since when it waits for the client.
    waits_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    observed: Observed,
    fault: FaultCell,
    check: BodyCheck,
    done: bool,
}

impl<B> CheckedBody<B> {
    /// Wraps a connection's body.
    pub(crate) fn new(
        inner: B,
        pace: BodyPace,
        observed: Observed,
        fault: FaultCell,
        check: BodyCheck,
    ) -> Self {
        fault.0.unread.store(true, Ordering::Relaxed);
        Self {
            inner,
            idle: pace.idle,
            pace: Pace::new(pace.least_rate, pace.idle * 2),
            waits_since: None,
            timer: None,
            observed,
            fault,
            check,
            done: false,
        }
    }

    /// The client must send something before this ends. Only what the client
    /// is waited for counts: how long this store takes is not its fault.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let longest = self.pace.left().unwrap_or(self.idle).min(self.idle);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)));
        if self.waits_since.is_none() {
            let now = Instant::now();
            self.waits_since = Some(now);
            timer.as_mut().reset(now + longest);
        }
        timer.as_mut().poll(cx)
    }

    /// The wait is over, if there was one.
    fn came(&mut self, bytes: usize) {
        let waited = self.waits_since.take().map(|since| since.elapsed());
        self.pace.came(waited.unwrap_or_default(), bytes);
    }

    fn saw(&mut self, bytes: &Bytes) -> Result<(), s3s::StdError> {
        self.observed.add_received(bytes.len());
        match &mut self.check {
            BodyCheck::Nothing => {}
            BodyCheck::FinalChunk(tail) => tail.push(bytes),
            BodyCheck::Document { left, digest } => {
                let Some(rest) = left.checked_sub(bytes.len()) else {
                    self.done = true;
                    return Err(self.fault.keep(Fault::TooLong));
                };
                *left = rest;
                if let Some(digest) = digest {
                    digest.update(bytes);
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self) -> Result<(), s3s::StdError> {
        self.done = true;
        self.fault.0.unread.store(false, Ordering::Relaxed);
        let (whole, fault) = match &mut self.check {
            BodyCheck::Nothing => return Ok(()),
            BodyCheck::FinalChunk(tail) => (tail.has_final_chunk(), Fault::FinalChunkMissing),
            BodyCheck::Document { digest, .. } => (
                digest.as_mut().is_none_or(|digest| digest.matches()),
                Fault::Digest,
            ),
        };
        if whole {
            return Ok(());
        }
        Err(self.fault.keep(fault))
    }
}

impl<B> Body for CheckedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            ready!(this.poll_wait(cx));
            this.done = true;
            return Poll::Ready(Some(Err(this.fault.keep(Fault::Idle))));
        };
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        this.came(bytes);
        match frame {
            Some(Ok(frame)) => {
                let seen = frame.data_ref().map_or(Ok(()), |bytes| this.saw(bytes));
                if this.inner.is_end_stream() {
                    this.fault.0.unread.store(false, Ordering::Relaxed);
                }
                Poll::Ready(Some(seen.map(|()| frame)))
            }
            Some(Err(_)) => {
                this.done = true;
                Poll::Ready(Some(Err(this.fault.keep(Fault::Disconnected))))
            }
            None => Poll::Ready(this.ended().err().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        // With a check to come, the end must be polled for.
        self.done || (matches!(self.check, BodyCheck::Nothing) && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The last bytes of a body, enough for the final chunk's line.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    last: Vec<u8>,
}

/// `CRLF 0 ;chunk-signature=<64 hex digits> CRLF CRLF` has 89 bytes.
const TAIL_BYTES: usize = 96;

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.last.extend_from_slice(new);
        let surplus = self.last.len().saturating_sub(TAIL_BYTES);
        self.last.drain(..surplus);
    }

    /// Whether the body ended with a chunk of no bytes.
    fn has_final_chunk(&self) -> bool {
        let end = self.last.as_slice();
        let end = end.strip_suffix(b"\r\n").unwrap_or(end);
        let end = end.strip_suffix(b"\r\n").unwrap_or(end);
        let from = end.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line = &end[from..];
        let Some(signature) = line.strip_prefix(b"0;chunk-signature=") else {
            return false;
        };
        signature.len() == 64 && signature.iter().all(u8::is_ascii_hexdigit)
    }
}

/// S3's code for an error that ended a body inside of s3s.
pub(crate) fn body_error_code(error: &(dyn std::error::Error + 'static)) -> S3ErrorCode {
    let mut error = Some(error);
    // Wrappers of several layers; the innermost cause that is known counts.
    let mut code = S3ErrorCode::IncompleteBody;
    for _ in 0..8 {
        let Some(cause) = error else { break };
        if let Some(chunked) = cause.downcast_ref::<AwsChunkedStreamError>() {
            if !matches!(chunked, AwsChunkedStreamError::Underlying(_)) {
                return chunked.to_s3_error_code();
            }
        } else if let Some(upload) = cause.downcast_ref::<UploadStreamError>() {
            match upload {
                UploadStreamError::Sha256Mismatch => {
                    return S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
                }
                UploadStreamError::Underlying(_) => {}
                other => return other.to_s3_error_code(),
            }
        } else if cause.downcast_ref::<BodySizeLimitExceeded>().is_some() {
            return S3ErrorCode::EntityTooLarge;
        } else if let Some(fault) = cause.downcast_ref::<Fault>() {
            return fault.code().0;
        } else if let Some(fault) = cause.downcast_ref::<TrailerFault>() {
            return match fault {
                TrailerFault::Missing => S3ErrorCode::IncompleteBody,
                TrailerFault::Undeclared | TrailerFault::Unreadable => S3ErrorCode::InvalidRequest,
            };
        } else {
            code = S3ErrorCode::IncompleteBody;
        }
        error = cause.source();
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody};

    // ATTACKS 6: a last chunk that does not come.
    #[test]
    fn a_final_chunk_is_recognised_across_frames() {
        let hex = "a".repeat(64);
        for (body, whole) in [
            (
                format!("5;chunk-signature={hex}\r\nhello\r\n0;chunk-signature={hex}\r\n\r\n"),
                true,
            ),
            (
                format!("5;chunk-signature={hex}\r\nhello\r\n0;chunk-signature={hex}\r\n"),
                true,
            ),
            (format!("0;chunk-signature={hex}\r\n\r\n"), true),
            (format!("5;chunk-signature={hex}\r\nhello\r\n"), false),
            (format!("10;chunk-signature={hex}\r\n\r\n"), false),
            (String::new(), false),
            ("0\r\n\r\n".to_owned(), false),
        ] {
            for size in [1, 7, 4096] {
                let mut tail = Tail::default();
                for piece in body.as_bytes().chunks(size) {
                    tail.push(piece);
                }
                assert_eq!(tail.has_final_chunk(), whole, "{body} in {size}");
            }
        }
    }

    fn checked<B: Body<Data = Bytes>>(inner: B, fault: &FaultCell) -> CheckedBody<B> {
        let observed = Observed::default();
        let pace = BodyPace {
            idle: Duration::from_secs(5),
            least_rate: 1024,
        };
        CheckedBody::new(inner, pace, observed, fault.clone(), BodyCheck::Nothing)
    }

    // ATTACKS 76: a client that stops sending.
    #[tokio::test(start_paused = true)]
    async fn a_silent_client_ends_its_body() {
        let fault = FaultCell::default();
        let mut body = checked(sent_each(Duration::from_secs(4), 8192, 3), &fault);
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(fault.get(), Some(Fault::Idle));
        assert!(body.frame().await.is_none());
    }

    /// A body of `frames` frames of `len` bytes, each after a wait, and then
    /// nothing.
    fn sent_each(
        wait: Duration,
        len: usize,
        frames: usize,
    ) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let stream = futures::stream::unfold(0, move |sent| async move {
            if sent == frames {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(wait).await;
            Some((Ok(Frame::data(Bytes::from(vec![7; len]))), sent + 1))
        });
        Box::pin(StreamBody::new(stream))
    }

    // ATTACKS 76: a client that sends a byte now and then.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_next_to_nothing_ends_its_body() {
        for (millis, len, served) in [(1000, 1, false), (1000, 1024, true), (250, 12_500, true)] {
            let fault = FaultCell::default();
            let sent = sent_each(Duration::from_millis(millis), len, 1000);
            let mut body = checked(sent, &fault);
            let mut frames = 0;
            while frames < 100 && body.frame().await.unwrap().is_ok() {
                frames += 1;
            }
            assert_eq!(
                fault.get().is_none(),
                served,
                "{len} bytes each {millis} ms"
            );
            assert!(frames >= 9, "{frames}");
        }
    }

    // The store that takes its time is not the client's fault.
    #[tokio::test(start_paused = true)]
    async fn time_that_nobody_waits_for_the_client_does_not_count() {
        let fault = FaultCell::default();
        let mut body = checked(sent_each(Duration::from_secs(1), 1024, 100), &fault);
        for _ in 0..100 {
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(fault.get(), None);
    }

    #[tokio::test]
    async fn bytes_are_counted() {
        let fault = FaultCell::default();
        let body = checked(Full::new(Bytes::from_static(b"hello")), &fault);
        let observed = body.observed.clone();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!((observed.received_bytes(), fault.get()), (5, None));
    }
}
