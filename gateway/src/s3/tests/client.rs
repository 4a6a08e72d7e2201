//! A client on a raw connection, and the server that it talks to.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::memory::MemoryStore;
use super::signer::{EMPTY, Signer, UNSIGNED, encode, sha256};
use crate::auth::RootCredentials;
use crate::s3::{Observed, S3Parts, S3Settings, build_s3};
use crate::seam::SystemClock;

pub(super) const ACCESS: &str = "operator";
pub(super) const SECRET: &str = "kX9fPq2LmZ7vRt4WyB8n";

/// A server on a loopback port.
pub(super) struct Server {
    pub(super) address: std::net::SocketAddr,
    pub(super) store: MemoryStore,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(S3Settings {
            host_names: vec!["s3.test".to_owned()],
            ..S3Settings::default()
        })
        .await
    }

    pub(super) async fn with(settings: S3Settings) -> Self {
        let store = MemoryStore::default();
        let front = build_s3(
            &settings,
            S3Parts {
                catalog: store.catalog.clone(),
                objects: Arc::new(store.clone()),
                credentials: Arc::new(RootCredentials::new(ACCESS, SECRET).unwrap()),
                clock: Arc::new(SystemClock),
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let front = front.clone();
                let service = hyper::service::service_fn(move |request| {
                    let front = front.clone();
                    async move {
                        let observed = Observed::default();
                        Ok::<_, std::convert::Infallible>(
                            front.answer(request, "REQUEST", &observed).await,
                        )
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service),
                );
            }
        });
        Self { address, store }
    }

    /// A request that is to be signed.
    pub(super) fn request(&self, method: &str, path: &str) -> Call {
        Call {
            address: self.address,
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            headers: vec![("host".to_owned(), self.address.to_string())],
            unsigned: Vec::new(),
            body: Bytes::new(),
            payload: None,
            signer: Signer::new(ACCESS, SECRET),
        }
    }

    pub(super) async fn put(&self, path: &str, body: &'static [u8]) -> Answer {
        self.request("PUT", path).body(body).send().await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().await
    }

    /// A server with a bucket `bucket`.
    pub(super) async fn with_bucket() -> Self {
        let server = Self::start().await;
        assert_eq!(server.put("/bucket", b"").await.status, 200);
        server
    }

    /// Sends bytes as they are.
    pub(super) async fn raw(&self, request: &[u8]) -> Answer {
        exchange(self.address, request).await
    }
}

/// One request.
#[derive(Clone)]
pub(super) struct Call {
    address: std::net::SocketAddr,
    pub(super) method: String,
    /// Not encoded.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    /// In lower case; all are signed.
    pub(super) headers: Vec<(String, String)>,
    /// Headers that are sent and not signed.
    pub(super) unsigned: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// `x-amz-content-sha256`; the body's own if there is none.
    pub(super) payload: Option<String>,
    pub(super) signer: Signer,
}

impl Call {
    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn unsigned(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn payload(mut self, payload: &str) -> Self {
        self.payload = Some(payload.to_owned());
        self
    }

    fn target(&self) -> String {
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
            .collect();
        let path = encode(&self.path, true);
        if query.is_empty() {
            path
        } else {
            format!("{path}?{}", query.join("&"))
        }
    }

    /// The headers as they are signed: sorted, those that repeat joined in
    /// sorted order, as SDKs do.
    fn signed(&self) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        headers.sort();
        let mut joined: Vec<(String, String)> = Vec::new();
        for (name, value) in headers {
            match joined.last_mut() {
                Some((last, values)) if *last == name => {
                    values.push(',');
                    values.push_str(&value);
                }
                _ => joined.push((name, value)),
            }
        }
        joined
    }

    /// Signs in the header; gives the signature too.
    pub(super) fn sign(mut self) -> (Self, String) {
        let payload = self.payload.clone().unwrap_or_else(|| sha256(&self.body));
        self = self.header("x-amz-content-sha256", &payload);
        let date = self.signer.date.clone();
        self = self.header("x-amz-date", &date);
        let signed = self.signed();
        let signature =
            self.signer
                .signature(&self.method, &self.path, &self.query, &signed, &payload);
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.signer.access,
            self.signer.scope(),
            names.join(";")
        );
        (self.unsigned("authorization", &value), signature)
    }

    /// Signs in the query.
    pub(super) fn presign(mut self, expires: &str) -> Self {
        let signed = self.signed();
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let credential = format!("{}/{}", self.signer.access, self.signer.scope());
        let date = self.signer.date.clone();
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date),
            ("X-Amz-Expires", expires),
            ("X-Amz-SignedHeaders", &names.join(";")),
        ] {
            self = self.query(name, value);
        }
        let signature =
            self.signer
                .signature(&self.method, &self.path, &self.query, &signed, UNSIGNED);
        self.query("X-Amz-Signature", &signature)
    }

    /// The bytes of the request.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target());
        for (name, value) in self.headers.iter().chain(&self.unsigned) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("connection: close\r\n\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Signs and sends.
    pub(super) async fn send(self) -> Answer {
        self.sign().0.send_as_is().await
    }

    /// Sends what is there.
    pub(super) async fn send_as_is(self) -> Answer {
        let mut answer = exchange(self.address, &self.bytes()).await;
        if self.method == "HEAD" {
            assert_eq!(answer.body, "", "a HEAD has no body");
            answer.body = Bytes::new();
        }
        answer
    }
}

async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
    Answer::read(&bytes)
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            // The connection was closed without an answer.
            return Self {
                status: 0,
                headers: Vec::new(),
                body: Bytes::copy_from_slice(bytes),
            };
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self {
            status: status.parse().unwrap(),
            headers,
            body: Bytes::copy_from_slice(&bytes[end + 4..]),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of the first element of this name.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        self.elements(name).into_iter().next()
    }

    pub(super) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        text.split(&open)
            .skip(1)
            .filter_map(|rest| rest.split_once(&close))
            .map(|(inside, _)| inside.to_owned())
            .collect()
    }

    pub(super) fn code(&self) -> String {
        self.element("Code").unwrap_or_default()
    }

    /// Asserts an error's status and code.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
    }
}

/// SHA-256 of no body, for requests that are written by hand.
pub(super) const EMPTY_PAYLOAD: &str = EMPTY;
