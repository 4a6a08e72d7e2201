//! The operator's port: metrics, health, administration.
//!
//! Not for clients: it listens on loopback, or asks for a token. Health is
//! answered without one, so that a load balancer needs no secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use shardgate_wire::operator_token::is_bearer;

use super::metrics::Metrics;
use crate::auth::SecretText;

/// A request to the operator's port, its body gathered.
#[derive(Clone, Debug)]
pub struct OperatorRequest {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// The body, at most 1 MiB.
    pub body: Bytes,
}

/// An answer of the operator's port.
#[derive(Clone, Debug)]
pub struct OperatorAnswer {
    /// The status.
    pub status: StatusCode,
    /// The type of its body.
    pub content_type: &'static str,
    /// Its body.
    pub body: Bytes,
}

/// Routes of administration, mounted beside metrics and health.
#[async_trait::async_trait]
pub trait OperatorRoutes: Send + Sync + 'static {
    /// Answers a request; `None` if no route is meant.
    async fn answer(&self, request: OperatorRequest) -> Option<OperatorAnswer>;

    /// Whether S3 can be served now; else why not, in words.
    fn ready(&self) -> Result<(), String>;
}

const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The operator's port.
pub(crate) struct Operator {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) routes: Arc<dyn OperatorRoutes>,
    pub(crate) token: Option<SecretText>,
    /// Set when the server begins to stop.
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Operator {
    /// Answers one request.
    pub(crate) async fn serve(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let answer = self.answer(request).await;
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        let kind = http::HeaderValue::from_static(answer.content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>) -> OperatorAnswer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match (&parts.method, path) {
            (&Method::GET | &Method::HEAD, "/health/live") => text(StatusCode::OK, "live\n"),
            (&Method::GET | &Method::HEAD, "/health/ready") => self.readiness(),
            _ if !self.may_ask(&parts.headers) => {
                text(StatusCode::UNAUTHORIZED, "the operator's token is needed\n")
            }
            (&Method::GET, "/metrics") => self.numbers(),
            _ => {
                let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
                    return text(StatusCode::PAYLOAD_TOO_LARGE, "body of more than 1 MiB\n");
                };
                let request = OperatorRequest {
                    method: parts.method.clone(),
                    path: path.to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    body: body.to_bytes(),
                };
                let answer = self.routes.answer(request).await;
                answer.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "no such route\n"))
            }
        }
    }

    fn readiness(&self) -> OperatorAnswer {
        if self.stopping.load(Ordering::Relaxed) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        }
        match self.routes.ready() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => OperatorAnswer {
                body: Bytes::from(format!("{why}\n")),
                ..text(StatusCode::SERVICE_UNAVAILABLE, "")
            },
        }
    }

    fn numbers(&self) -> OperatorAnswer {
        match self.metrics.text() {
            Ok(numbers) => OperatorAnswer {
                status: StatusCode::OK,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: Bytes::from(numbers),
            },
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics failed\n"),
        }
    }

    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = headers.get(header::AUTHORIZATION);
        given.is_some_and(|given| is_bearer(given.as_bytes(), token.expose()))
    }
}

fn text(status: StatusCode, body: &'static str) -> OperatorAnswer {
    OperatorAnswer {
        status,
        content_type: "text/plain; charset=utf-8",
        body: Bytes::from_static(body.as_bytes()),
    }
}
