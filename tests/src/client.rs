//! A small S3 client over hyper.
//!
//! Sends what it is told and returns what it gets, errors included: tests
//! look at status, headers and body themselves.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use time::OffsetDateTime;

use crate::sigv4::{self, Keys, Unsigned};

/// Longest time a request may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where and as whom.
#[derive(Clone)]
pub struct Client {
    http: Legacy<HttpConnector, Full<Bytes>>,
    /// The gateway.
    pub addr: SocketAddr,
    /// Who asks.
    pub keys: Keys,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no whole answer: refused, cut, or too late.
#[derive(Debug)]
pub struct Cut {
    /// In words.
    pub why: String,
    /// Whether there was a connection to send the request on.
    pub connected: bool,
}

impl Cut {
    fn after_connecting(why: impl fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            connected: true,
        }
    }
}

/// A request in the making.
pub struct Ask<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Bytes,
    sign_payload: bool,
}

impl Client {
    /// A client of the gateway at `addr`.
    pub fn new(addr: SocketAddr, keys: Keys) -> Self {
        let http = Legacy::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(HttpConnector::new());
        Self { http, addr, keys }
    }

    /// A request on `path`, which begins with `/` and is not encoded.
    pub fn ask(&self, method: Method, path: impl Into<String>) -> Ask<'_> {
        Ask {
            client: self,
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            sign_payload: false,
        }
    }

    /// `GET` of an object.
    pub fn get(&self, bucket: &str, key: &str) -> Ask<'_> {
        self.ask(Method::GET, format!("/{bucket}/{key}"))
    }

    /// `PUT` of an object.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Ask<'_> {
        self.ask(Method::PUT, format!("/{bucket}/{key}")).body(body)
    }

    /// Stores an object, and tries again after a 503 as every SDK does: what
    /// is in work when two disks are found to be gone at once lacks its quorum.
    pub async fn put_as_disks_go(&self, bucket: &str, key: &str, body: Bytes) {
        for _ in 0..5 {
            let answer = self.put(bucket, key, body.clone()).send().await;
            let answer = answer.expect("an answer");
            if answer.status != 503 {
                answer.expect_status(200);
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{key} is refused again and again");
    }

    /// Makes a bucket.
    pub async fn make_bucket(&self, bucket: &str) {
        let answer = self.ask(Method::PUT, format!("/{bucket}")).send().await;
        answer.expect("an answer").expect_status(200);
    }

    /// Path and query of a presigned request.
    pub fn presign(&self, method: &Method, path: &str, seconds: u32) -> String {
        let request = Unsigned {
            method: method.as_str(),
            host: &self.addr.to_string(),
            path,
            query: &[],
            headers: &[],
        };
        sigv4::presign(&self.keys, &request, seconds, OffsetDateTime::now_utc())
    }

    /// Sends a presigned request as it is.
    pub async fn send_presigned(
        &self,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> Result<Response, Cut> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path_and_query}", self.addr))
            .body(Full::new(body))
            .expect("a request that can be written");
        self.exchange(request).await
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, Cut> {
        let whole = async {
            let answer = self.http.request(request).await.map_err(|error| Cut {
                why: format!("{error:?}"),
                connected: !error.is_connect(),
            })?;
            let (head, body) = answer.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| Cut::after_connecting(format!("{error:?}")))?
                .to_bytes();
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(PATIENCE, whole)
            .await
            .unwrap_or_else(|_| {
                let why = format!("no whole answer in {PATIENCE:?}");
                Err(Cut::after_connecting(why))
            })
    }
}

impl Ask<'_> {
    /// Adds a query pair.
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a header, in lower case; it is signed.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Signs the body's SHA-256 too.
    pub fn signed_payload(mut self) -> Self {
        self.sign_payload = true;
        self
    }

    /// Sends it, signed in the header.
    pub async fn send(self) -> Result<Response, Cut> {
        let host = self.client.addr.to_string();
        let hash = if self.sign_payload {
            sigv4::sha256_hex(&self.body)
        } else {
            sigv4::UNSIGNED.to_owned()
        };
        let unsigned = Unsigned {
            method: self.method.as_str(),
            host: &host,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        };
        let signed = sigv4::sign_headers(
            &self.client.keys,
            &unsigned,
            &hash,
            OffsetDateTime::now_utc(),
        );
        let mut uri = format!("http://{host}{}", sigv4::encode_path(&self.path));
        if !self.query.is_empty() {
            uri = format!("{uri}?{}", sigv4::encode_query(&self.query));
        }
        let mut request = Request::builder().method(self.method).uri(uri);
        for (name, value) in self.headers.iter().chain(&signed) {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(self.body))
            .expect("a request that can be written");
        self.client.exchange(request).await
    }
}

impl Response {
    /// A header's text, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// The `Code` of an error's XML, empty if there is none.
    pub fn code(&self) -> String {
        crate::xml::text_of(&self.body, "Code").unwrap_or_default()
    }

    /// Panics with the whole answer unless it has this status.
    #[track_caller]
    pub fn expect_status(&self, status: u16) -> &Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{:?} {}",
            self.headers,
            String::from_utf8_lossy(&self.body)
        );
        self
    }
}
