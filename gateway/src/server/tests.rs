//! The server as a whole: bounds, the operator's port, the stop, the log.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Limits, ServerSettings};
use crate::auth::SecretText;
use crate::s3::S3Settings;
use crate::s3::tests::client::{SECRET, Server, exchange, server_settings};

async fn with_limits(limits: Limits) -> Server {
    let settings = ServerSettings {
        limits,
        ..server_settings()
    };
    let server = Server::with_limits(S3Settings::default(), settings).await;
    assert_eq!(server.put("/bucket", b"").await.status, 200);
    server
}

/// Begins a PUT and sends a part of its body only.
async fn begin_put(server: &Server, path: &str) -> (TcpStream, Vec<u8>) {
    let (call, _) = server.request("PUT", path).body("0123456789").sign();
    let bytes = call.bytes();
    let (head, rest) = bytes.split_at(bytes.len() - 5);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head).await.unwrap();
    (stream, rest.to_vec())
}

async fn until(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen in time");
}

async fn operator_text(server: &Server, path: &str, header: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n");
    let answer = exchange(server.operator, request.as_bytes()).await;
    (answer.status, answer.text())
}

async fn in_flight(server: &Server) -> u64 {
    let (_, text) = operator_text(server, "/metrics", "").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("shardgate_requests_in_flight "));
    line.unwrap().parse().unwrap()
}

// ATTACKS 76: too many requests at once.
#[tokio::test]
async fn requests_beyond_the_bound_are_told_to_slow_down() {
    let server = with_limits(Limits {
        requests: 2,
        ..Limits::default()
    })
    .await;
    let (mut one, rest) = begin_put(&server, "/bucket/one").await;
    let (two, _) = begin_put(&server, "/bucket/two").await;
    until(async || in_flight(&server).await == 2).await;
    server.get("/bucket").await.refused(503, "SlowDown");
    // A body that was not read would be taken for the next request.
    let (call, _) = server.request("PUT", "/bucket/three").body("x").sign();
    let kept = String::from_utf8(call.bytes()).unwrap();
    let kept = kept.replace("connection: close\r\n", "");
    let answer = server.raw(kept.strip_suffix('x').unwrap().as_bytes()).await;
    answer.refused(503, "SlowDown");
    assert_eq!(answer.header("connection"), Some("close"));
    one.write_all(&rest).await.unwrap();
    let mut answer = Vec::new();
    one.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.get("/bucket").await.elements("Key"), ["one"]);
    drop(two);
    until(async || in_flight(&server).await == 0).await;
}

#[tokio::test]
async fn a_stop_lets_requests_end() {
    let mut server = with_limits(Limits::default()).await;
    let (mut stream, rest) = begin_put(&server, "/bucket/key").await;
    until(async || in_flight(&server).await == 1).await;
    assert_eq!(operator_text(&server, "/health/ready", "").await.0, 200);
    server.stop.take().unwrap().send(()).unwrap();
    until(async || operator_text(&server, "/health/ready", "").await.0 == 503).await;
    assert_eq!(operator_text(&server, "/health/live", "").await.0, 200);
    assert!(TcpStream::connect(server.address).await.is_err());
    stream.write_all(&rest).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    server.ended.await.unwrap();
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let settings = ServerSettings {
        drain: Duration::from_millis(50),
        ..server_settings()
    };
    let mut server = Server::with_limits(S3Settings::default(), settings).await;
    server.put("/bucket", b"").await;
    let (mut stream, _) = begin_put(&server, "/bucket/key").await;
    until(async || in_flight(&server).await == 1).await;
    server.stop.take().unwrap().send(()).unwrap();
    server.ended.await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

// ATTACKS 76: clients that send slowly, or nothing.
#[tokio::test]
async fn silent_connections_are_closed() {
    let server = with_limits(Limits {
        header_time: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    for sent in [
        &b""[..],
        b"PRI * HTTP",
        b"GET /bucket HTTP/1.1\r\nhost: x\r\nx-slow: ",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let closed = tokio::time::timeout(Duration::from_secs(10), read).await;
        assert!(closed.is_ok(), "{sent:?}");
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Header fields without compression (RFC 7541, 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len().checked_sub(127) {
                None => block.push(text.len() as u8),
                Some(mut rest) => {
                    block.push(127);
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

// ATTACKS 76: an HTTP/2 client with a shut window, whose connection lives.
#[tokio::test]
async fn an_answer_that_is_not_taken_holds_no_request() {
    const HEADERS: u8 = 1;
    let server = with_limits(Limits {
        write_idle: Duration::from_secs(1),
        ..Limits::default()
    })
    .await;
    server.put("/bucket/key", b"0123456789").await;
    let link = server.request("GET", "/bucket/key").presign("60").bytes();
    let link = String::from_utf8(link).unwrap();
    let path = link.split(' ').nth(1).unwrap();
    let host = server.address.to_string();
    let request = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", &host),
    ]);
    let no_window = [0, 4, 0, 0, 0, 0];
    let opening = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &no_window),
        frame(HEADERS, 0b101, 1, &request),
    ];
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&opening.concat()).await.unwrap();
    // Until the head of the answer has come.
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            // `:status: 200` in the static table.
            assert_eq!(payload[0], 0x88);
            break;
        }
    }
    assert_eq!(in_flight(&server).await, 1);
    until(async || in_flight(&server).await == 0).await;
    drop(stream);
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = with_limits(Limits {
        buffer_bytes: 8192,
        headers: 20,
        ..Limits::default()
    })
    .await;
    let host = server.address;
    let long = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\nx-long: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    assert_eq!(server.raw(long.as_bytes()).await.status, 431);
    let many: String = (0..50).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{many}\r\n");
    assert_eq!(server.raw(many.as_bytes()).await.status, 431);
    let address = format!(
        "GET /{} HTTP/1.1\r\nhost: {host}\r\n\r\n",
        "a".repeat(20_000)
    );
    let answer = server.raw(address.as_bytes()).await;
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
}

// ATTACKS 94: an open operator's port.
#[tokio::test]
async fn the_operators_port_asks_for_its_token() {
    let settings = ServerSettings {
        operator_token: Some(SecretText::new("let-me-in-please")),
        ..server_settings()
    };
    let server = Server::with_limits(S3Settings::default(), settings).await;
    for (path, header, status) in [
        ("/health/live", "", 200),
        ("/health/ready", "", 200),
        ("/metrics", "", 401),
        ("/echo", "", 401),
        ("/metrics", "authorization: Bearer wrong\r\n", 401),
        (
            "/metrics",
            "authorization: Bearer let-me-in-please\r\n",
            200,
        ),
        ("/echo", "authorization: Bearer let-me-in-please\r\n", 200),
        ("/other", "authorization: Bearer let-me-in-please\r\n", 404),
    ] {
        assert_eq!(
            operator_text(&server, path, header).await.0,
            status,
            "{path} {header}"
        );
    }
}

/// Lines of a log, gathered.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ATTACKS 95, 96: secrets and forged lines in the log.
#[tokio::test]
async fn each_request_is_one_log_line_without_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        super::logs::subscriber(super::LogFormat::Json, "trace", move || writer.clone()).unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);
    // Other tests have no subscriber: what they came to first, while this one
    // was set, may be remembered as logged by nobody.
    tracing::callsite::rebuild_interest_cache();
    let server = with_limits(Limits::default()).await;
    let (call, signature) = server
        .request("PUT", "/bucket/a\r\nforged \u{1b}[31m")
        .body("x")
        .sign();
    assert_eq!(call.send_as_is().await.status, 200);
    let link = server.request("GET", "/bucket/absent").presign("60");
    let in_link = link.query.last().unwrap().1.clone();
    link.send_as_is().await.refused(404, "NoSuchKey");
    server
        .request("GET", "/bucket/absent")
        .send_as_is()
        .await
        .refused(403, "AccessDenied");
    until(async || in_flight(&server).await == 0).await;

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in [SECRET, &signature, &in_link, "Credential="] {
        assert!(!text.contains(secret), "{secret} stands in the log");
    }
    let requests: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("shardgate::access"))
        .collect();
    assert_eq!(requests.len(), 4, "{text}");
    for part in [
        "\"operation\":\"PutObject\"",
        "\"bucket\":\"bucket\"",
        "\"status\":200",
        "\"received_bytes\":1",
        "\"request_id\":",
    ] {
        assert!(
            requests[1].contains(part),
            "{part} is not in {}",
            requests[1]
        );
    }
    assert!(
        !text.contains('\u{1b}') && !text.contains("\"level\":\"ERROR\""),
        "{text}"
    );
}
