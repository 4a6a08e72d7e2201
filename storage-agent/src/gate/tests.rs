//! Replay, tampering and other people's messages do not pass.

use http::HeaderValue;

use super::*;

const NOW: u64 = 1_790_000_000_000;
const TARGET: &str = "/v1/disks/000000000000000000000000000000ab/shards/read";

fn secret() -> Secret {
    Secret::from_text("an-example-secret-of-enough-bytes-0123").unwrap()
}

fn gate() -> Gate {
    Gate::new(Some(secret()), &Limits::default(), || NOW)
}

/// A request as its caller makes it.
struct Request {
    method: Method,
    target: &'static str,
    stamp: Stamp,
    head: &'static [u8],
    body_len: u64,
}

impl Request {
    fn to(gate: &Gate) -> Self {
        Self {
            method: Method::POST,
            target: TARGET,
            stamp: Stamp {
                boot: gate.boot(),
                session: 1,
                counter: 1,
                time_ms: NOW,
            },
            head: b"head",
            body_len: 9,
        }
    }

    fn headers(&self) -> HeaderMap {
        let facts = RequestFacts {
            method: self.method.as_str(),
            target: self.target,
            body_len: self.body_len,
            head: self.head,
        };
        let code = secret().request_code(&self.stamp, &facts);
        headers(&self.stamp.header(&code), self.body_len)
    }
}

fn headers(mac: &str, body_len: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(MAC_HEADER, HeaderValue::from_str(mac).unwrap());
    headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body_len));
    headers
}

fn pass(
    gate: &Gate,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    head: &[u8],
) -> Result<(), Refusal> {
    let claim = gate.claim(method, target, headers)?;
    gate.admit(&claim, head)
}

#[test]
fn an_authentic_request_passes_once() {
    let gate = gate();
    let request = Request::to(&gate);
    let headers = request.headers();
    let send = || pass(&gate, &Method::POST, TARGET, &headers, b"head");
    assert_eq!(send(), Ok(()));
    assert_eq!(send(), Err(Refusal::Stamp { boot: gate.boot() }));
}

/// Attack 71: a request that was seen does not pass as another.
#[test]
fn attack_071_replay_onto_something_else_is_refused() {
    let gate = gate();
    let request = Request::to(&gate);
    let good = request.headers();
    let other_disk = "/v1/disks/000000000000000000000000000000ac/shards/read";
    let other_call = "/v1/disks/000000000000000000000000000000ab/shards/delete";
    let mut other_len = good.clone();
    other_len.insert(CONTENT_LENGTH, HeaderValue::from(8));
    let cases = [
        ("method", Method::PUT, TARGET, &good, &b"head"[..]),
        ("disk", Method::POST, other_disk, &good, b"head"),
        ("call", Method::POST, other_call, &good, b"head"),
        ("head", Method::POST, TARGET, &good, b"heaD"),
        ("no head", Method::POST, TARGET, &good, b""),
        ("length", Method::POST, TARGET, &other_len, b"head"),
    ];
    for (what, method, target, headers, head) in cases {
        let passed = pass(&gate, &method, target, headers, head);
        assert_eq!(passed, Err(Refusal::NotAuthentic), "{what}");
    }
    // None of those attempts used it up.
    assert_eq!(pass(&gate, &Method::POST, TARGET, &good, b"head"), Ok(()));
}

#[test]
fn attack_071_another_time_or_run_is_refused() {
    let gate = gate();
    for (time_ms, skew_ms) in [(NOW - 300_001, 300_001), (NOW + 400_000, 400_000)] {
        let mut request = Request::to(&gate);
        request.stamp.time_ms = time_ms;
        assert_eq!(
            pass(&gate, &Method::POST, TARGET, &request.headers(), b"head"),
            Err(Refusal::Skew { skew_ms })
        );
    }
    let after_restart = self::gate();
    let request = Request::to(&gate);
    assert_eq!(
        pass(
            &after_restart,
            &Method::POST,
            TARGET,
            &request.headers(),
            b"head"
        ),
        Err(Refusal::Stamp {
            boot: after_restart.boot()
        })
    );
}

/// A stamp whose parts were changed is not authentic, whatever else it is.
#[test]
fn attack_071_a_changed_stamp_is_refused() {
    let gate = gate();
    let request = Request::to(&gate);
    let text = request.headers()[MAC_HEADER].to_str().unwrap().to_owned();
    for at in [0, 32, 47, 63, 79, 81, 144] {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let changed = headers(std::str::from_utf8(&bytes).unwrap(), 9);
        assert_eq!(
            pass(&gate, &Method::POST, TARGET, &changed, b"head"),
            Err(Refusal::NotAuthentic),
            "digit {at}"
        );
    }
}

/// Attack 70: no code, no call.
#[test]
fn attack_070_without_a_code_nothing_passes() {
    let gate = gate();
    let mut headers = Request::to(&gate).headers();
    headers.remove(MAC_HEADER);
    assert_eq!(
        pass(&gate, &Method::POST, TARGET, &headers, b"head"),
        Err(Refusal::NotAuthentic)
    );
    for text in ["", "x", "Bearer abc", &"0".repeat(145)] {
        let headers = self::headers(text, 9);
        assert_eq!(
            pass(&gate, &Method::POST, TARGET, &headers, b"head"),
            Err(Refusal::NotAuthentic),
            "{text}"
        );
    }
}

/// Attacks 72 and 85: two lengths, none, or a body without one.
#[test]
fn attack_085_ambiguous_bodies_are_refused() {
    let gate = gate();
    let good = Request::to(&gate).headers();
    let with = |name: &'static str, value: &'static str, append: bool| {
        let mut headers = good.clone();
        let value = HeaderValue::from_static(value);
        if append {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
        headers
    };
    for headers in [
        with("transfer-encoding", "chunked", false),
        with("transfer-encoding", "identity", false),
        with("content-length", "9", true),
        with("content-length", "+9", false),
        with("content-length", "9, 9", false),
        with("content-length", "-1", false),
        with("content-length", "99999999999999999999999", false),
        with("content-length", "", false),
        with("x-shardgate-protocol", "1", false),
        with("x-shardgate-mac", "0", true),
    ] {
        assert!(matches!(
            gate.claim(&Method::POST, TARGET, &headers),
            Err(Refusal::Malformed { .. })
        ));
    }
}

#[test]
fn a_page_in_a_browser_cannot_call_an_open_agent() {
    let gate = Gate::new(None, &Limits::default(), || NOW);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    assert!(gate.claim(&Method::POST, TARGET, &headers).is_err());
    headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL));
    let claim = gate.claim(&Method::POST, TARGET, &headers).unwrap();
    assert_eq!(gate.admit(&claim, b""), Ok(()));
}

#[test]
fn bytes_in_memory_are_bounded() {
    let limits = Limits {
        buffer_bytes: 100,
        ..Limits::default()
    };
    let gate = Gate::new(Some(secret()), &limits, || NOW);
    let held = gate.room(60).unwrap();
    assert_eq!(gate.room(41).unwrap_err(), Refusal::Busy);
    assert_eq!(gate.room(u64::MAX).unwrap_err(), Refusal::Busy);
    drop(held);
    assert!(gate.room(100).is_ok());
}
