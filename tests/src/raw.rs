//! HTTP/1.1 with next to no cost of its own: for load, and for clients that
//! are slower than any library lets them be.
//!
//! Speaks only what the gateway answers to it: a status line, headers with a
//! `Content-Length`, a body.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

/// How often a slow client moves a bite.
const BITES_PER_SECOND: u64 = 4;
/// Longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// One connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Length of its body, bytes.
    pub body_len: u64,
    /// How much of the body came with the head.
    pub body_read: u64,
    /// Where that begins in the connection's buffer.
    body_at: usize,
}

impl Connection {
    /// Connects. `receive_buffer` bounds what the kernel takes in advance.
    pub async fn open(addr: SocketAddr, receive_buffer: Option<u32>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        let stream = socket.connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 256 * 1024],
        })
    }

    /// Sends a head and a body.
    pub async fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        if body.len() <= 64 * 1024 {
            let mut whole = Vec::with_capacity(head.len() + body.len());
            whole.extend_from_slice(head);
            whole.extend_from_slice(body);
            return self.stream.write_all(&whole).await;
        }
        self.stream.write_all(head).await?;
        self.stream.write_all(body).await
    }

    /// Reads the head of the answer.
    pub async fn head(&mut self) -> Result<Head> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let received = &self.buffer[..filled];
            if let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
                let mut head = parse(&received[..end])?;
                head.body_at = end + 4;
                head.body_read = (filled - head.body_at) as u64;
                return Ok(head);
            }
            if filled > MAX_HEAD {
                return Err(Error::other("head too long"));
            }
        }
    }

    /// Reads the rest of the body and forgets it.
    pub async fn drain(&mut self, head: Head) -> Result<()> {
        let mut left = head.body_len - head.body_read;
        while left > 0 {
            let want = self.buffer.len().min(left as usize);
            let read = self.stream.read(&mut self.buffer[..want]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// Reads the body and compares it with `piece`, over and over.
    ///
    /// # Errors
    /// It ends early, or is another.
    pub async fn compare(&mut self, head: Head, piece: &[u8]) -> Result<()> {
        let mut offset = 0;
        let mut received = head.body_at..head.body_at + head.body_read as usize;
        loop {
            let chunk = &self.buffer[received];
            compare_chunk(chunk, offset, piece)?;
            offset += chunk.len() as u64;
            if offset == head.body_len {
                return Ok(());
            }
            let want = self.buffer.len().min((head.body_len - offset) as usize);
            let read = self.stream.read(&mut self.buffer[..want]).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            received = 0..read;
        }
    }

    /// Reads the rest of the body at `rate` bytes per second.
    pub async fn drain_slowly(&mut self, head: Head, rate: u64) -> Result<()> {
        let mut left = head.body_len - head.body_read;
        let bite = (rate / BITES_PER_SECOND).max(1);
        while left > 0 {
            let want = bite.min(left) as usize;
            self.stream.read_exact(&mut self.buffer[..want]).await?;
            left -= want as u64;
            sleep(Duration::from_millis(1000 / BITES_PER_SECOND)).await;
        }
        Ok(())
    }

    /// Sends a body at `rate` bytes per second.
    pub async fn send_slowly(&mut self, head: &[u8], body: &[u8], rate: u64) -> Result<()> {
        self.stream.write_all(head).await?;
        for bite in body.chunks((rate / BITES_PER_SECOND).max(1) as usize) {
            self.stream.write_all(bite).await?;
            sleep(Duration::from_millis(1000 / BITES_PER_SECOND)).await;
        }
        Ok(())
    }
}

fn compare_chunk(mut chunk: &[u8], mut offset: u64, piece: &[u8]) -> Result<()> {
    while !chunk.is_empty() {
        let expected = &piece[(offset % piece.len() as u64) as usize..];
        let len = expected.len().min(chunk.len());
        if chunk[..len] != expected[..len] {
            return Err(Error::other(format!("other bytes from {offset} on")));
        }
        chunk = &chunk[len..];
        offset += len as u64;
    }
    Ok(())
}

fn parse(head: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(head).map_err(Error::other)?;
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other("no status"))?;
    let body_len = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    Ok(Head {
        status,
        body_len,
        body_read: 0,
        body_at: 0,
    })
}
