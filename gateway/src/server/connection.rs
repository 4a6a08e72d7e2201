//! A client's connection with the time-outs that hyper does not have.
//!
//! Ends a connection that says nothing at its beginning, where hyper still
//! guesses the protocol and watches no clock, and one whose client takes no
//! byte of an answer for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Length of HTTP/2's preface: with so many bytes the protocol is known.
const PREFACE_BYTES: usize = 24;

/// A stream with time-outs.
pub(crate) struct TimedStream<S> {
    inner: S,
    opening: Option<Pin<Box<Sleep>>>,
    opening_left: usize,
    write_idle: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether the last write had to wait.
    waiting: bool,
}

impl<S> TimedStream<S> {
    /// Watches a stream that was just accepted.
    pub(crate) fn new(inner: S, opening: Duration, write_idle: Duration) -> Self {
        Self {
            inner,
            opening: Some(Box::pin(tokio::time::sleep(opening))),
            opening_left: PREFACE_BYTES,
            write_idle,
            stalled: None,
            waiting: false,
        }
    }

    fn watch_write<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = false;
            return outcome;
        }
        let idle = self.write_idle;
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + idle);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.inner).poll_read(cx, buf);
        if let Some(opening) = &mut this.opening {
            if outcome.is_ready() {
                let read = buf.filled().len() - before;
                this.opening_left = this.opening_left.saturating_sub(read);
            } else if opening.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if this.opening_left == 0 {
                this.opening = None;
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch_write(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.watch_write(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const OPENING: Duration = Duration::from_secs(5);
    const WRITE: Duration = Duration::from_secs(7);

    // ATTACKS 76: connections that never say anything.
    #[tokio::test(start_paused = true)]
    async fn a_connection_must_open_in_time() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut timed = TimedStream::new(server, OPENING, WRITE);
        client.write_all(b"PRI").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(timed.read(&mut read).await.unwrap(), 3);
        let error = timed.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_connection_may_be_silent() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut timed = TimedStream::new(server, OPENING, WRITE);
        client.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
        let mut read = [0; 64];
        assert_eq!(timed.read(&mut read).await.unwrap(), PREFACE_BYTES);
        let waited = tokio::time::timeout(OPENING * 10, timed.read(&mut read)).await;
        assert!(waited.is_err(), "the stream must still wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_must_take_its_answer() {
        let (mut client, server) = tokio::io::duplex(4);
        let mut timed = TimedStream::new(server, OPENING, WRITE);
        timed.write_all(b"1234").await.unwrap();
        let mut taken = [0; 2];
        // Each byte that is taken gives the client the whole time again.
        for _ in 0..3 {
            let (write, ()) = tokio::join!(timed.write_all(b"ab"), async {
                tokio::time::sleep(WRITE - Duration::from_secs(1)).await;
                client.read_exact(&mut taken).await.unwrap();
            });
            write.unwrap();
        }
        let error = timed.write_all(b"5").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
