//! Listening, serving connections, and stopping.
//!
//! To stop, the server takes no new connections, lets the requests that run
//! come to their end within the drain time, then cuts what is left.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::TimedStream;
use super::metrics::{Metrics, ReadingSource};
use super::operator::{Operator, OperatorRoutes};
use super::requests::{RequestIds, Requests};
use super::settings::{Limits, ServerSettings};
use crate::s3::S3Front;

/// What the kernel takes of an answer beyond what the client's window has room
/// for. By itself it takes up to 4 MiB for each connection: thousands of slow
/// clients would have it fetch gigabytes at once that nobody asked for yet.
const MOST_UNSENT_BYTES: u32 = 128 * 1024;

/// What the server serves.
pub struct ServerParts {
    /// S3.
    pub front: S3Front,
    /// Administration and readiness.
    pub routes: Arc<dyn OperatorRoutes>,
    /// Numbers of the other parts.
    pub readings: Vec<ReadingSource>,
}

/// Why the server could not begin.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves until `stop` ends, then drains. `listening` is called once with the
/// addresses that were bound: S3's, then the operator's.
pub async fn run(
    settings: ServerSettings,
    parts: ServerParts,
    stop: impl Future<Output = ()>,
    listening: impl FnOnce(SocketAddr, Option<SocketAddr>),
) -> Result<(), ServerError> {
    let (listener, bound) = listen(settings.listen).await?;
    let operator_listener = match settings.operator_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let metrics = Metrics::new(parts.readings);
    let stopping = Arc::new(AtomicBool::new(false));
    let operator = Arc::new(Operator {
        metrics: Arc::clone(&metrics),
        routes: parts.routes,
        token: settings.operator_token.clone(),
        stopping: Arc::clone(&stopping),
    });
    let requests = Arc::new(Requests {
        front: parts.front,
        metrics,
        ids: RequestIds::new(),
        at_once: Arc::new(Semaphore::new(settings.limits.requests)),
        write_idle: settings.limits.write_idle,
    });
    listening(bound, operator_listener.as_ref().map(|(_, bound)| *bound));

    let cut = CancellationToken::new();
    let operator_task = operator_listener
        .map(|(listener, _)| tokio::spawn(serve_operator(listener, operator, cut.clone())));
    let served = Connections {
        limits: settings.limits,
        requests,
        tasks: TaskTracker::new(),
        graceful: GracefulShutdown::new(),
        cut: cut.clone(),
    };
    tokio::select! {
        () = accept(&listener, &served) => {}
        () = stop => {}
    }
    stopping.store(true, Ordering::Relaxed);
    drop(listener);
    served.drain(settings.drain).await;
    cut.cancel();
    if let Some(task) = operator_task {
        let _ = task.await;
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let fail = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    Ok((listener, bound))
}

/// The connections of clients.
struct Connections {
    limits: Limits,
    requests: Arc<Requests>,
    tasks: TaskTracker,
    graceful: GracefulShutdown,
    cut: CancellationToken,
}

impl Connections {
    /// Waits for the requests that run, then cuts the connections.
    async fn drain(self, deadline: Duration) {
        let running = self.requests.metrics.in_flight.get();
        tracing::info!(running, "stopping");
        self.tasks.close();
        let drained = tokio::time::timeout(deadline, self.graceful.shutdown()).await;
        if drained.is_err() {
            let cut = self.requests.metrics.in_flight.get();
            tracing::warn!(cut, "requests were cut at the end of the drain time");
        }
        self.cut.cancel();
        self.tasks.wait().await;
    }

    fn serve(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        slot: tokio::sync::OwnedSemaphorePermit,
    ) {
        // Answers are written whole; waiting to fill packets only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(MOST_UNSENT_BYTES) {
            tracing::debug!(%error, "no TCP_NOTSENT_LOWAT");
        }
        let limits = self.limits;
        let stream = TimedStream::new(stream, limits.header_time, limits.write_idle);
        let requests = Arc::clone(&self.requests);
        let service = service_fn(move |request| {
            let requests = Arc::clone(&requests);
            // Boxed, since the connection keeps the place of what it awaits: a
            // download goes on for long after its request was served.
            Box::pin(
                async move { Ok::<_, Infallible>(requests.serve(request, Some(client)).await) },
            )
        });
        let connection = protocols(limits)
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = self.graceful.watch(connection);
        let metrics = Arc::clone(&self.requests.metrics);
        let cut = self.cut.clone();
        metrics.connections.inc();
        self.tasks.spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, %client, "connection ended");
                    }
                }
                () = cut.cancelled() => {}
            }
            metrics.connections.dec();
            drop(slot);
        });
    }
}

/// HTTP/1.1 and HTTP/2 with their bounds.
fn protocols(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.buffer_bytes.max(8192))
        .max_headers(limits.headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_time)
        .max_concurrent_streams(64)
        .max_header_list_size(u32::try_from(limits.buffer_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(limits.buffer_bytes)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    builder
}

async fn accept(listener: &TcpListener, served: &Connections) {
    let slots = Arc::new(Semaphore::new(served.limits.connections));
    loop {
        // A connection that finds no slot stays in the kernel's queue.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => served.serve(stream, client, slot),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of files, most likely: let some be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Operator's connections at once.
const OPERATOR_CONNECTIONS: usize = 64;

async fn serve_operator(listener: TcpListener, operator: Arc<Operator>, cut: CancellationToken) {
    let slots = Arc::new(Semaphore::new(OPERATOR_CONNECTIONS));
    let limits = Limits::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cut.cancelled() => return,
        };
        let (Ok((stream, _)), Ok(slot)) = (accepted, Arc::clone(&slots).try_acquire_owned()) else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let operator = Arc::clone(&operator);
        let cut = cut.clone();
        tokio::spawn(async move {
            let stream = TimedStream::new(stream, limits.header_time, limits.write_idle);
            let service = service_fn(|request| operator.serve(request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_time)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = cut.cancelled() => {}
            }
            drop(slot);
        });
    }
}
