//! Values with a unit or a form of their own. Each says what is allowed when
//! it refuses a text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use shardgate_erasure::Scheme;

/// A number of bytes: `65536`, `64KiB`, `512MiB`, `2GiB`, `1TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "IntegerOrText")]
pub struct ByteSize(pub u64);

/// A span of time: `500ms`, `30s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

/// How a class stores its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SchemeChoice {
    /// The strongest scheme that fits the pool.
    Auto,
    /// This one.
    Fixed(Scheme),
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddr(pub SocketAddr);

/// A host name that buckets stand in front of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(pub String);

/// The address of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AgentUrl(pub String);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum IntegerOrText {
    Integer(u64),
    Text(String),
}

/// Splits `64KiB` into 64 and `KiB`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

impl TryFrom<IntegerOrText> for ByteSize {
    type Error = String;

    fn try_from(value: IntegerOrText) -> Result<Self, String> {
        match value {
            IntegerOrText::Integer(bytes) => Ok(Self(bytes)),
            IntegerOrText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (number, unit) = number_and_unit(text)?;
            let shift = match unit {
                "" | "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                "TiB" => 40,
                _ => return None,
            };
            number.checked_mul(1 << shift).map(Self)
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not a size: allowed is a number with B, KiB, MiB, GiB or TiB")
        })
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = || {
            let (number, unit) = number_and_unit(&text)?;
            let ms = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number
                .checked_mul(ms)
                .map(|ms| Self(Duration::from_millis(ms)))
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not a time: allowed is a number with ms, s, m, h or d")
        })
    }
}

impl TryFrom<String> for SchemeChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Fixed).map_err(|_| {
            format!(
                "{text:?} is not a scheme: allowed is \"auto\" or \"k+m\" \
                 with k of 1 to 16 and m of 1 to 8 (\"1+0\" is one copy)"
            )
        })
    }
}

impl TryFrom<String> for ListenAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!(
                "{text:?} is not an address: allowed is ADDR:PORT, as 0.0.0.0:9000 or [::]:9000"
            )
        })
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let label = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() <= 253 && text.split('.').all(label) && text.parse::<SocketAddr>().is_err() {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is not a host name: allowed are lower-case letters, digits and hyphens \
             between dots, without a port"
        ))
    }
}

impl TryFrom<String> for AgentUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let authority = text
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        let valid = authority.and_then(|authority| {
            let (host, port) = authority.rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
            (plain && port > 0).then(|| format!("http://{authority}"))
        });
        valid.map(Self).ok_or_else(|| {
            format!("{text:?} is not an agent's address: allowed is http://HOST:PORT")
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in units {
            if self.0 >= 1 << shift {
                return write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}
