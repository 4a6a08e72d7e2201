//! A client on a raw connection, and the server that it talks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardgate_wire::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::memory::MemoryStore;
use super::signer::{EMPTY, Signer, UNSIGNED, encode, sha256};
use crate::auth::RootCredentials;
use crate::s3::{Owners, S3Parts, S3Settings, build_s3};
use crate::seam::SystemClock;
use crate::server::{
    Limits, OperatorAnswer, OperatorRequest, OperatorRoutes, ServerParts, ServerSettings, run,
};

pub(crate) const ACCESS: &str = "operator";
pub(crate) const SECRET: &str = "kX9fPq2LmZ7vRt4WyB8n";

/// A server on a loopback port.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) operator: SocketAddr,
    pub(crate) store: MemoryStore,
    /// Stops the server when it is sent or dropped.
    pub(crate) stop: Option<oneshot::Sender<()>>,
    /// Ends with the server.
    pub(crate) ended: JoinHandle<()>,
}

/// Nothing to administer.
struct NoRoutes;

#[async_trait::async_trait]
impl OperatorRoutes for NoRoutes {
    async fn answer(&self, request: OperatorRequest) -> Option<OperatorAnswer> {
        (request.path == "/echo").then(|| OperatorAnswer {
            status: http::StatusCode::OK,
            content_type: "text/plain",
            body: request.body,
        })
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Settings on loopback ports.
pub(crate) fn server_settings() -> ServerSettings {
    ServerSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        operator_listen: Some("127.0.0.1:0".parse().unwrap()),
        operator_token: None,
        limits: Limits::default(),
        drain: Duration::from_secs(5),
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(S3Settings {
            host_names: vec!["s3.test".to_owned()],
            ..S3Settings::default()
        })
        .await
    }

    pub(crate) async fn with(settings: S3Settings) -> Self {
        Self::with_limits(settings, server_settings()).await
    }

    pub(crate) async fn with_limits(s3: S3Settings, settings: ServerSettings) -> Self {
        Self::over(MemoryStore::default(), s3, settings, ACCESS).await
    }

    /// A server over a store that there is, for the access key `access`.
    pub(crate) async fn over(
        store: MemoryStore,
        s3: S3Settings,
        settings: ServerSettings,
        access: &str,
    ) -> Self {
        let front = build_s3(
            &s3,
            S3Parts {
                catalog: store.catalog.clone(),
                objects: Arc::new(store.clone()),
                owners: Owners::new(ClusterId(0x5a)),
                credentials: Arc::new(RootCredentials::new(access, SECRET).unwrap()),
                clock: Arc::new(SystemClock),
                contact: Arc::new(store.contact.clone()),
            },
        );
        let parts = ServerParts {
            front,
            routes: Arc::new(NoRoutes),
            readings: Vec::new(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, addresses) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            let listening = |s3, operator: Option<SocketAddr>| {
                bound.send((s3, operator.unwrap())).unwrap();
            };
            run(settings, parts, stopped, listening).await.unwrap();
        });
        let (address, operator) = addresses.await.unwrap();
        Self {
            address,
            operator,
            store,
            stop: Some(stop),
            ended,
        }
    }

    /// A request that is to be signed.
    pub(crate) fn request(&self, method: &str, path: &str) -> Call {
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

    pub(crate) async fn put(&self, path: &str, body: &'static [u8]) -> Answer {
        self.request("PUT", path).body(body).send().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().await
    }

    /// A server with a bucket `bucket`.
    pub(crate) async fn with_bucket() -> Self {
        let server = Self::start().await;
        assert_eq!(server.put("/bucket", b"").await.status, 200);
        server
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        exchange(self.address, request).await
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    address: SocketAddr,
    pub(crate) method: String,
    /// Not encoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// In lower case; all are signed.
    pub(crate) headers: Vec<(String, String)>,
    /// Headers that are sent and not signed.
    pub(crate) unsigned: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// `x-amz-content-sha256`; the body's own if there is none.
    pub(crate) payload: Option<String>,
    pub(crate) signer: Signer,
}

impl Call {
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn unsigned(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn payload(mut self, payload: &str) -> Self {
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
    pub(crate) fn sign(mut self) -> (Self, String) {
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

    /// Signs in the header a payload of nothing, and does not say so.
    pub(crate) fn without_hash(mut self) -> Self {
        let date = self.signer.date.clone();
        self = self.header("x-amz-date", &date);
        let signed = self.signed();
        let (path, query) = (self.path.clone(), self.query.clone());
        let signature = self
            .signer
            .signature(&self.method, &path, &query, &signed, EMPTY);
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.signer.access,
            self.signer.scope(),
            names.join(";")
        );
        self.unsigned("authorization", &value)
    }

    /// Signs in the query.
    pub(crate) fn presign(mut self, expires: &str) -> Self {
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
    pub(crate) fn bytes(&self) -> Vec<u8> {
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
    pub(crate) async fn send(self) -> Answer {
        self.sign().0.send_as_is().await
    }

    /// Sends what is there.
    pub(crate) async fn send_as_is(self) -> Answer {
        let mut answer = exchange(self.address, &self.bytes()).await;
        if self.method == "HEAD" {
            assert_eq!(answer.body, "", "a HEAD has no body");
            answer.body = Bytes::new();
        }
        answer
    }
}

pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
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
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
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

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text of the first element of this name.
    pub(crate) fn element(&self, name: &str) -> Option<String> {
        self.elements(name).into_iter().next()
    }

    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let text = self.text();
        text.split(&open)
            .skip(1)
            .filter_map(|rest| rest.split_once(&close))
            .map(|(inside, _)| inside.to_owned())
            .collect()
    }

    pub(crate) fn code(&self) -> String {
        self.element("Code").unwrap_or_default()
    }

    /// Asserts an error's status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
    }
}

/// SHA-256 of no body, for requests that are written by hand.
pub(crate) const EMPTY_PAYLOAD: &str = EMPTY;
