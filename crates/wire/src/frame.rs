//! How a message lies in a body: version, head length, head, data.
//!
//! ```text
//! 0      1            5              5+h            body's end
//! | 0x01 | h: u32 LE  | head (h)     | data (rest)  |
//! ```
//!
//! The head is a [`crate::message`] type in postcard; the data are raw bytes
//! that are neither encoded nor copied when a message is made. Invariant: a
//! [`FrameReader`] never holds more than the limits that it was given, and
//! hands out the head before it takes memory for the data, so that a call is
//! authenticated first.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The version that this code writes and reads.
pub const FRAME_VERSION: u8 = 1;
/// Bytes before the head.
pub const PREFIX_BYTES: usize = 5;

/// Why bytes are not a message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Another version, or something else altogether.
    #[error("frame version {0} is not {FRAME_VERSION}")]
    Version(u8),
    /// The head or the data would be longer than this message may be.
    #[error("{what} of {given} bytes, allowed are {allowed}")]
    TooLong {
        /// `head` or `data`.
        what: &'static str,
        /// Its length.
        given: u64,
        /// The limit.
        allowed: usize,
    },
    /// The body is shorter or longer than its lengths say.
    #[error("body is not of its declared length")]
    Length,
    /// The head is not of the type that the call has.
    #[error("head does not decode")]
    Head,
}

/// Longest head and data of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the data.
    pub data: usize,
}

impl FrameLimits {
    /// Longest body.
    pub fn body(&self) -> u64 {
        (PREFIX_BYTES + self.head + self.data) as u64
    }
}

/// Prefix and head of a message, ready to be sent before its data.
pub fn encode_head<T: Serialize>(head: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&[FRAME_VERSION, 0, 0, 0, 0]);
    let mut bytes =
        postcard::to_extend(head, bytes).expect("message types serialise, and memory has no end");
    let len = u32::try_from(bytes.len() - PREFIX_BYTES).expect("heads are far below 4 GiB");
    bytes[1..PREFIX_BYTES].copy_from_slice(&len.to_le_bytes());
    Bytes::from(bytes)
}

/// A head's value; all of `bytes` must be used.
pub fn decode_head<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(bytes) {
        Ok((head, [])) => Ok(head),
        _ => Err(FrameError::Head),
    }
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The encoded head.
    pub head: Bytes,
    /// The data.
    pub data: Bytes,
}

/// Puts a message together from the pieces in which its body arrives.
#[derive(Debug)]
pub struct FrameReader {
    limits: FrameLimits,
    /// Length of the whole body, as declared.
    body_len: u64,
    /// Prefix and head as far as they are here.
    front: BytesMut,
    /// Length of the head, once its prefix is here.
    head_len: Option<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// Nothing, or all of it in the piece in which it arrived.
    Whole(Bytes),
    /// More than one piece, put together in a buffer of the full length.
    Gathered(BytesMut),
}

impl FrameReader {
    /// A reader of a body whose declared length is `body_len`.
    pub fn new(body_len: u64, limits: FrameLimits) -> Result<Self, FrameError> {
        if body_len > limits.body() {
            return Err(FrameError::TooLong {
                what: "body",
                given: body_len,
                allowed: PREFIX_BYTES + limits.head + limits.data,
            });
        }
        if body_len < PREFIX_BYTES as u64 {
            return Err(FrameError::Length);
        }
        Ok(Self {
            limits,
            body_len,
            front: BytesMut::new(),
            head_len: None,
            data: Data::Whole(Bytes::new()),
        })
    }

    /// The encoded head, once it is whole.
    pub fn head(&self) -> Option<&[u8]> {
        let head_len = self.head_len?;
        self.front.get(PREFIX_BYTES..PREFIX_BYTES + head_len)
    }

    /// Length of the data, once the head's length is known.
    pub fn data_len(&self) -> Option<usize> {
        let front = PREFIX_BYTES + self.head_len?;
        Some(self.body_len as usize - front)
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, mut piece: Bytes) -> Result<(), FrameError> {
        if self.head_len.is_none() {
            self.fill_front(&mut piece, PREFIX_BYTES);
            if self.front.len() < PREFIX_BYTES {
                return Ok(());
            }
            self.head_len = Some(self.parse_prefix()?);
        }
        let front = PREFIX_BYTES + self.head_len.unwrap_or(0);
        self.fill_front(&mut piece, front);
        if piece.is_empty() {
            return Ok(());
        }
        self.push_data(piece, self.body_len as usize - front)
    }

    fn fill_front(&mut self, piece: &mut Bytes, up_to: usize) {
        let take = up_to.saturating_sub(self.front.len()).min(piece.len());
        self.front.extend_from_slice(&piece.split_to(take));
    }

    fn parse_prefix(&self) -> Result<usize, FrameError> {
        if self.front[0] != FRAME_VERSION {
            return Err(FrameError::Version(self.front[0]));
        }
        let mut len = [0; 4];
        len.copy_from_slice(&self.front[1..PREFIX_BYTES]);
        let head_len = u32::from_le_bytes(len) as usize;
        let too_long = |what, given: usize, allowed| FrameError::TooLong {
            what,
            given: given as u64,
            allowed,
        };
        if head_len > self.limits.head {
            return Err(too_long("head", head_len, self.limits.head));
        }
        let Some(data_len) = (self.body_len as usize).checked_sub(PREFIX_BYTES + head_len) else {
            return Err(FrameError::Length);
        };
        if data_len > self.limits.data {
            return Err(too_long("data", data_len, self.limits.data));
        }
        Ok(head_len)
    }

    fn push_data(&mut self, piece: Bytes, data_len: usize) -> Result<(), FrameError> {
        let have = match &self.data {
            Data::Whole(bytes) => bytes.len(),
            Data::Gathered(bytes) => bytes.len(),
        };
        if have + piece.len() > data_len {
            return Err(FrameError::Length);
        }
        match &mut self.data {
            Data::Whole(first) if first.is_empty() && piece.len() == data_len => {
                self.data = Data::Whole(piece);
            }
            Data::Whole(first) => {
                let mut gathered = BytesMut::with_capacity(data_len);
                gathered.extend_from_slice(first);
                gathered.extend_from_slice(&piece);
                self.data = Data::Gathered(gathered);
            }
            Data::Gathered(gathered) => gathered.extend_from_slice(&piece),
        }
        Ok(())
    }

    /// The message, when the body has ended.
    pub fn finish(self) -> Result<Frame, FrameError> {
        let (Some(head_len), Some(data_len)) = (self.head_len, self.data_len()) else {
            return Err(FrameError::Length);
        };
        let mut front = self.front.freeze();
        let data = match self.data {
            Data::Whole(bytes) => bytes,
            Data::Gathered(bytes) => bytes.freeze(),
        };
        if front.len() != PREFIX_BYTES + head_len || data.len() != data_len {
            return Err(FrameError::Length);
        }
        Ok(Frame {
            head: front.split_off(PREFIX_BYTES),
            data,
        })
    }
}

#[cfg(test)]
mod tests;
