//! Frames as HTTP bodies: sent piece by piece, read within limits.
//!
//! Owns [`FrameBody`], which gives its pieces to the connection as they are
//! (head and data leave in one vectored write, large data uncopied), and
//! [`read_frame`]. Does not know what the messages mean.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame as HttpFrame, SizeHint};
use thiserror::Error;

use crate::frame::{Frame, FrameError, FrameLimits, FrameReader};

/// Pieces up to this many bytes are copied together: a write of many small
/// ones costs more than the copy.
const GATHER_BYTES: usize = 16 * 1024;

/// A body of known length in a few pieces.
#[derive(Clone, Debug, Default)]
pub struct FrameBody {
    pieces: VecDeque<Bytes>,
    len: u64,
}

impl FrameBody {
    /// A message without data, or no message at all if `head` is empty.
    pub fn head_only(head: Bytes) -> Self {
        Self::new(head, [])
    }

    /// A message of an encoded head and its data.
    pub fn new(head: Bytes, data: impl IntoIterator<Item = Bytes>) -> Self {
        let mut body = Self::default();
        let mut gathered = BytesMut::new();
        for piece in std::iter::once(head).chain(data) {
            body.len += piece.len() as u64;
            if piece.len() > GATHER_BYTES {
                body.flush(&mut gathered);
                body.pieces.push_back(piece);
            } else if !piece.is_empty() {
                gathered.extend_from_slice(&piece);
            }
        }
        body.flush(&mut gathered);
        body
    }

    fn flush(&mut self, gathered: &mut BytesMut) {
        if !gathered.is_empty() {
            self.pieces.push_back(gathered.split().freeze());
        }
    }

    /// The pieces as they are sent behind `front`, which has the company of
    /// what was gathered.
    pub fn behind(mut self, front: Bytes) -> VecDeque<Bytes> {
        match self.pieces.front_mut() {
            Some(first) if first.len() <= GATHER_BYTES => {
                let mut joined = BytesMut::with_capacity(front.len() + first.len());
                joined.extend_from_slice(&front);
                joined.extend_from_slice(first);
                *first = joined.freeze();
            }
            _ => self.pieces.push_front(front),
        }
        self.pieces
    }

    /// Bytes of the whole body.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Body for FrameBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.len -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(HttpFrame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}

/// Why a message could not be read.
#[derive(Debug, Error)]
pub enum ReadFrameError<E, R> {
    /// It is not one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("body broke off: {0}")]
    Body(E),
    /// The caller refused it when it saw the head.
    #[error("refused")]
    Refused(R),
}

/// Reads a body of `body_len` bytes. `judge` sees the encoded head and the
/// length of the data before memory is taken for the data.
pub async fn read_frame<B, R>(
    body: &mut B,
    body_len: u64,
    limits: FrameLimits,
    judge: impl FnOnce(&[u8], usize) -> Result<(), R>,
) -> Result<Frame, ReadFrameError<B::Error, R>>
where
    B: Body + Unpin,
    B::Data: Buf,
{
    let mut reader = FrameReader::new(body_len, limits)?;
    let mut judge = Some(judge);
    while let Some(piece) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let Ok(mut data) = piece.map_err(ReadFrameError::Body)?.into_data() else {
            // Trailers: none of ours has any.
            return Err(FrameError::Length.into());
        };
        let bytes = data.copy_to_bytes(data.remaining());
        reader.push(bytes)?;
        if let (Some(head), Some(data_len)) = (reader.head(), reader.data_len())
            && let Some(judge) = judge.take()
        {
            judge(head, data_len).map_err(ReadFrameError::Refused)?;
        }
    }
    if judge.is_some() {
        return Err(FrameError::Length.into());
    }
    Ok(reader.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PREFIX_BYTES, encode_head};

    const LIMITS: FrameLimits = FrameLimits {
        head: 100,
        data: 1 << 20,
    };

    fn ready<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("a body in memory never waits"),
        }
    }

    #[test]
    fn small_pieces_are_gathered_and_large_ones_kept() {
        let large = Bytes::from(vec![1u8; 100_000]);
        let small = Bytes::from(vec![2u8; 10]);
        let body = FrameBody::new(
            encode_head(&7u32),
            [small.clone(), small.clone(), large.clone(), small],
        );
        let lens: Vec<_> = body.pieces.iter().map(Bytes::len).collect();
        assert_eq!(lens, [PREFIX_BYTES + 1 + 20, 100_000, 10]);
        assert_eq!(body.pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(body.len(), (PREFIX_BYTES + 1 + 100_030) as u64);
    }

    #[test]
    fn a_front_goes_with_what_was_gathered() {
        let (front, small) = (Bytes::from_static(b"front"), Bytes::from_static(b"small"));
        let large = Bytes::from(vec![1u8; 100_000]);
        let behind = |data: Vec<Bytes>| FrameBody::new(Bytes::new(), data).behind(front.clone());
        assert_eq!(behind(vec![]), [&front[..]]);
        assert_eq!(behind(vec![small.clone()]), [&b"frontsmall"[..]]);
        let pieces = behind(vec![small, large.clone()]);
        assert_eq!(pieces, [&b"frontsmall"[..], &large[..]]);
        assert_eq!(pieces[1].as_ptr(), large.as_ptr());
        assert_eq!(behind(vec![large.clone()]), [&front[..], &large[..]]);
    }

    #[test]
    fn what_is_sent_is_read() {
        let data = Bytes::from(vec![3u8; 50_000]);
        let mut body = FrameBody::new(encode_head(&7u32), [data.clone()]);
        let len = body.len();
        let frame = ready(read_frame(&mut body, len, LIMITS, |head, data_len| {
            assert_eq!((head, data_len), (&[7u8][..], 50_000));
            Ok::<_, ()>(())
        }));
        assert_eq!(frame.unwrap().data, data);
    }

    #[test]
    fn a_refused_head_ends_the_reading() {
        let mut body = FrameBody::new(encode_head(&7u32), [Bytes::from(vec![3u8; 50_000])]);
        let len = body.len();
        let refused = ready(read_frame(&mut body, len, LIMITS, |_, _| Err("no")));
        assert!(matches!(refused, Err(ReadFrameError::Refused("no"))));
        assert!(!body.is_empty());
    }
}
