//! The operator's port: `/metrics` and `/healthz`, nothing else.
//!
//! Owns a second, small listener, so that the gateways' port answers nothing
//! to those without their secret. Off loopback, metrics are for who has the
//! operator's token; health is answered without one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use shardgate_wire::operator_token::is_bearer;
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
    /// Asked for before metrics are shown.
    pub token: Option<String>,
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
            (&Method::GET, "/metrics") if !self.may_ask(request.headers()) => {
                let refusal = "the operator's token is needed\n".to_owned();
                (StatusCode::UNAUTHORIZED, "text/plain", refusal)
            }
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

    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = headers.get(AUTHORIZATION);
        given.is_some_and(|given| is_bearer(given.as_bytes(), token))
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn status(operator: &Arc<Operator>, path: &str, header: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Arc::clone(operator).serve(listener, stop.clone()));
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.cancel();
        serving.await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    #[tokio::test]
    async fn metrics_are_for_who_has_the_token_and_health_for_all() {
        let with = |token: Option<&str>| {
            let metrics = Arc::new(Metrics::default());
            Arc::new(Operator {
                lanes: Arc::new(Lanes::new(1, Arc::clone(&metrics))),
                metrics,
                token: token.map(str::to_owned),
            })
        };
        let (open, closed) = (with(None), with(Some("secret")));
        let bearer = "authorization: Bearer secret\r\n";
        for (operator, path, header, expected) in [
            (&open, "/metrics", "", "200"),
            (&closed, "/metrics", "", "401"),
            (
                &closed,
                "/metrics",
                "authorization: Bearer wrong\r\n",
                "401",
            ),
            (&closed, "/metrics", bearer, "200"),
            (&closed, "/healthz", "", "200"),
            (&closed, "/else", bearer, "404"),
        ] {
            assert_eq!(status(operator, path, header).await, expected, "{path}");
        }
    }
}
