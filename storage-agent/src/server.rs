//! Connections: taken up to a number, given up when they idle or stall.
//!
//! Owns the accept loop and each connection's task. A stop takes no more
//! connections, lets the calls under way end, and closes what is left when
//! the drain is over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::MAX_HEADER_BYTES;
use crate::service::Agent;
use crate::write_stall::StallGuard;

/// How long the loop waits after an accept failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `stop`, then drains.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(agent.limits.connections));
    let tracker = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            agent.metrics.turned_away.inc();
            continue;
        };
        let task = connection(Arc::clone(&agent), stream, place, stop.clone());
        let cut = cut.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    tracker.close();
    if timeout(agent.limits.drain, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "drain is over, closing");
        cut.cancel();
        tracker.wait().await;
    }
}

async fn connection(
    agent: Arc<Agent>,
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    agent.metrics.connections.inc();
    if let Err(error) = talk(&agent, stream, stop).await {
        tracing::debug!(%error, "connection ended");
    }
    agent.metrics.connections.dec();
    drop(place);
}

async fn talk(
    agent: &Arc<Agent>,
    stream: TcpStream,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true).map_err(|error: io::Error| error)?;
    let guarded = StallGuard::new(stream, agent.limits.write_stall);
    let known = Arc::new(AtomicBool::new(false));
    let service = {
        let (agent, known) = (Arc::clone(agent), Arc::clone(&known));
        service_fn(move |request| {
            let (agent, known) = (Arc::clone(&agent), Arc::clone(&known));
            async move { Ok::<_, std::convert::Infallible>(agent.serve(request, &known).await) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(agent.limits.idle)
        .max_header_size(MAX_HEADER_BYTES)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(guarded), service);
    let mut connection = std::pin::pin!(connection);
    let mut first_call = std::pin::pin!(sleep(agent.limits.first_call));
    let mut waiting = true;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = first_call.as_mut(), if waiting => {
                if !known.load(Ordering::Relaxed) {
                    return Ok(());
                }
                waiting = false;
            }
            () = stop.cancelled() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}
