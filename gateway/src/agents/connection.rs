//! One connection to an agent: HTTP/1.1, one call at a time.
//!
//! Owns the bytes on the connection. The caller drives its own call: between
//! it and the socket is no task that would have to be woken. An answer is read
//! into memory of just its length, so that what a reader holds of it is what
//! the memory budget counted. Invariant: a connection is used again only when
//! the answer before was read to its last byte and nothing came behind it.
//! Knows nothing of codes and messages.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use shardgate_wire::mac::MAC_HEADER;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest head of an answer, and what is taken for one in advance.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const USUAL_HEAD_BYTES: usize = 512;
/// Most headers of an answer.
const MAX_HEADERS: usize = 32;
/// Pieces of one write.
const PIECES: usize = 16;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum NoAnswer {
    /// The connection broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// What came is not an answer to a call.
    #[error("{0}")]
    Malformed(&'static str),
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its status.
    pub status: u16,
    /// Its code, as it came.
    pub mac: Option<String>,
    /// Its body.
    pub body: Bytes,
}

/// What an answer may be like.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Longest body, bytes.
    pub most: u64,
    /// The body that most such calls have, bytes: memory for it is taken
    /// before it is there.
    pub usual: usize,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    mac: Option<String>,
    body_len: u64,
    closes: bool,
    /// Bytes of the head itself.
    bytes: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    used: Instant,
    reusable: bool,
}

impl Connection {
    /// Takes over a stream that was just connected.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            used: Instant::now(),
            reusable: true,
        }
    }

    /// Whether another call may go over it: it was left clean, not too long
    /// ago, and its other end has not closed it since.
    pub fn is_usable(&self, idle_most: Duration) -> bool {
        if !self.reusable || self.used.elapsed() >= idle_most {
            return false;
        }
        let waiting = self.stream.try_read(&mut [0]);
        matches!(waiting, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request of these pieces and reads its answer.
    ///
    /// # Errors
    /// [`NoAnswer`]; the connection is of no use any more then.
    pub async fn exchange(
        &mut self,
        request: VecDeque<Bytes>,
        expected: Expected,
    ) -> Result<Received, NoAnswer> {
        self.reusable = false;
        let sent = self.send(request).await;
        // An agent that refuses a request may answer before it has all of it,
        // and close.
        let answer = self.receive(expected).await;
        self.used = Instant::now();
        if let Err(error) = sent {
            self.reusable = false;
            if matches!(answer, Err(NoAnswer::Broken(_))) {
                return Err(error.into());
            }
        }
        answer
    }

    async fn send(&mut self, mut pieces: VecDeque<Bytes>) -> io::Result<()> {
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            for (slice, piece) in slices.iter_mut().zip(&pieces) {
                *slice = IoSlice::new(piece);
            }
            let count = pieces.len().min(PIECES);
            let mut written = self.stream.write_vectored(&slices[..count]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(piece) = pieces.front_mut()
                && written >= piece.len()
            {
                written -= piece.len();
                pieces.pop_front();
            }
            if let Some(piece) = pieces.front_mut() {
                piece.advance(written);
            }
        }
        Ok(())
    }

    async fn receive(&mut self, expected: Expected) -> Result<Received, NoAnswer> {
        let mut buffer = BytesMut::with_capacity(USUAL_HEAD_BYTES + expected.usual);
        let head = loop {
            if let Some(head) = parse(&buffer)? {
                break head;
            }
            if buffer.len() >= MAX_HEAD_BYTES {
                return Err(NoAnswer::Malformed("the head of the answer is too long"));
            }
            if buffer.len() == buffer.capacity() {
                buffer.reserve(USUAL_HEAD_BYTES);
            }
            self.read_some(&mut buffer, usize::MAX).await?;
        };
        if head.body_len > expected.most {
            return Err(NoAnswer::Malformed("the answer is too long"));
        }
        let whole = head.bytes + head.body_len as usize;
        buffer.reserve(whole.saturating_sub(buffer.len()));
        while buffer.len() < whole {
            let rest = whole - buffer.len();
            self.read_some(&mut buffer, rest).await?;
        }
        self.reusable = !head.closes && buffer.len() == whole;
        buffer.truncate(whole);
        let body = buffer.freeze().split_off(head.bytes);
        Ok(Received {
            status: head.status,
            mac: head.mac,
            body,
        })
    }

    async fn read_some(&mut self, buffer: &mut BytesMut, most: usize) -> Result<(), NoAnswer> {
        let room = most.min(buffer.capacity() - buffer.len());
        match self.stream.read_buf(&mut buffer.limit(room)).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

/// The head at the beginning of `bytes`, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, NoAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NoAnswer::Malformed("the answer is not HTTP")),
    };
    let mut head = Head {
        status: response.code.unwrap_or_default(),
        mac: None,
        body_len: 0,
        closes: response.version != Some(1),
        bytes: end,
    };
    let mut length = None;
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") || (is("content-length") && length.is_some()) {
            return Err(NoAnswer::Malformed("the answer's length is not plain"));
        } else if is("content-length") {
            length = Some(number(header.value)?);
        } else if is("connection") {
            head.closes |= header.value.eq_ignore_ascii_case(b"close");
        } else if is(MAC_HEADER) {
            head.mac = std::str::from_utf8(header.value).ok().map(str::to_owned);
        }
    }
    // None of the statuses that go without a length is an answer to a call.
    head.body_len = length.ok_or(NoAnswer::Malformed("an answer without a length"))?;
    Ok(Some(head))
}

fn number(digits: &[u8]) -> Result<u64, NoAnswer> {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or(NoAnswer::Malformed("the answer's length is not a number"))
}

#[cfg(test)]
mod tests;
