//! The operator's port: `/metrics` and `/healthz`, nothing else.
//!
//! Owns a second, small listener, so that metrics need no secret and the
//! gateways' port answers nothing to those without one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lanes::Lanes;
use crate::metrics::Metrics;

/// Most connections of operators.
const MAX_CONNECTIONS: usize = 32;
/// For one request, answer included.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a disk may take to say how it is.
const HEALTH_TIME: Duration = Duration::from_secs(2);

/// What the operator's port shows.
pub struct Operator {
    /// The disks that are asked how they are.
    pub lanes: Arc<Lanes>,
    /// Everything else.
    pub metrics: Arc<Metrics>,
}

impl Operator {
    /// Serves `listener` until `stop`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let tracker = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let operator = Arc::clone(&self);
            let service = service_fn(move |request| {
                let operator = Arc::clone(&operator);
                async move { Ok::<_, Infallible>(operator.answer(&request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            tracker.spawn(async move {
                let _place = place;
                // A scraper that went away is none of our business.
                let _ = timeout(2 * REQUEST_TIME, connection).await;
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, kind, text) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                (StatusCode::OK, kind, self.metrics_text().await)
            }
            (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            _ => (
                StatusCode::NOT_FOUND,
                "text/plain",
                "not found\n".to_owned(),
            ),
        };
        let response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, kind);
        response
            .body(Full::from(text))
            .expect("a status and a fixed header are valid")
    }

    /// Everything counted, each disk asked first.
    pub async fn metrics_text(&self) -> String {
        let lanes = self.lanes.all();
        let ask = lanes.iter().map(|lane| async {
            let health = timeout(HEALTH_TIME, lane.store.health()).await;
            let health = health.ok().and_then(Result::ok);
            self.metrics
                .observe_health(lane.store.disk(), health.as_ref());
        });
        join_all(ask).await;
        self.metrics.text()
    }
}
