//! An answer's body, and the room that it takes until it has been sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use shardgate_wire::frame_body::FrameBody;
use tokio::sync::OwnedSemaphorePermit;

/// A frame that holds its share of the budget of bytes.
pub struct Answered {
    body: FrameBody,
    _room: Option<OwnedSemaphorePermit>,
}

impl Answered {
    /// `body` with its room.
    pub fn new(body: FrameBody, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, _room: room }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
