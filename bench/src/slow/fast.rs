//! The fast client: one request after another on a thread of its own.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Method;
use serde::Serialize;
use shardgate_tests::client::Client;
use shardgate_tests::slow::BUCKET;

use super::usage::Usage;
use crate::report;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(1);

/// Times of one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) requests: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |q| report::ms(report::quantile(&times, q));
        Self {
            requests: times.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
        }
    }
}

/// See the module.
pub(crate) struct FastClient(JoinHandle<Result<(Vec<Times>, Usage)>>);

impl FastClient {
    /// Reads objects of these sizes in turns.
    pub(crate) fn start(client: &Client, sizes: &[usize], seconds: u64) -> Result<Self> {
        let mut getters = Vec::new();
        for size in sizes {
            let path = client.presign(&Method::GET, &format!("/{BUCKET}/{size}"), 3600);
            let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.addr);
            let stream = TcpStream::connect(client.addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            getters.push(Getter {
                stream,
                head: head.into_bytes(),
                size: *size,
                buffer: vec![0; 256 * 1024],
                times: Vec::new(),
            });
        }
        let until = Instant::now() + Duration::from_secs(seconds);
        let run = move || {
            let before = Usage::of_this_thread();
            while Instant::now() < until {
                for getter in &mut getters {
                    getter.get()?;
                    std::thread::sleep(PAUSE);
                }
            }
            let took = Usage::of_this_thread() - before;
            let times = getters.into_iter().map(|getter| Times::of(getter.times));
            Ok((times.collect(), took))
        };
        Ok(Self(std::thread::spawn(run)))
    }

    /// Whether the time is up.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// The times of each size, and what it took of the processors.
    pub(crate) fn end(self) -> Result<(Vec<Times>, Usage)> {
        let ended = self.0.join();
        ended.map_err(|_panic| Error::other("the fast client panicked"))?
    }
}

/// Gets one object over and over.
struct Getter {
    stream: TcpStream,
    head: Vec<u8>,
    size: usize,
    buffer: Vec<u8>,
    times: Vec<Duration>,
}

impl Getter {
    fn get(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.stream.write_all(&self.head)?;
        let mut filled = 0;
        let head_len = loop {
            filled += self.read(filled)?;
            let received = &self.buffer[..filled];
            if let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !self.buffer.starts_with(b"HTTP/1.1 200") {
            let head = String::from_utf8_lossy(&self.buffer[..head_len]);
            return Err(Error::other(format!("fast GET: {head}")));
        }
        let mut left = (head_len + self.size).saturating_sub(filled);
        while left > 0 {
            left = left.saturating_sub(self.read(0)?);
        }
        self.times.push(begun.elapsed());
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<usize> {
        match self.stream.read(&mut self.buffer[at..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}
