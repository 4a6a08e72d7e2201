//! Identities: what names a cluster, a disk, a blob, and who wrote what when.
//!
//! All of them are opaque, unique for ever, and printed as lower-case hex.
//! None is ever made from a path or a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not the hex form of the id it stands for.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not an id of {expected} hex digits: {text:?}")]
pub struct ParseIdError {
    /// How many hex digits the id has.
    pub expected: usize,
    /// What was given, cut to 64 characters.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $digits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:0", $digits, "x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let refuse = || ParseIdError {
                    expected: $digits,
                    text: text.chars().take(64).collect(),
                };
                let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                if text.len() != $digits || !text.bytes().all(lower_hex) {
                    return Err(refuse());
                }
                <$repr>::from_str_radix(text, 16).map(Self).map_err(|_| refuse())
            }
        }

        impl $name {
            /// Big-endian bytes, so that byte order is numeric order.
            pub const fn to_be_bytes(self) -> [u8; size_of::<$repr>()] {
                self.0.to_be_bytes()
            }

            /// The inverse of [`Self::to_be_bytes`].
            pub const fn from_be_bytes(bytes: [u8; size_of::<$repr>()]) -> Self {
                Self(<$repr>::from_be_bytes(bytes))
            }
        }
    };
}

macro_rules! random_id {
    ($($name:ident),*) => {$(
        impl $name {
            /// A new random id, never zero.
            pub fn random() -> Self {
                Self(random_u128())
            }
        }
    )*};
}

id!(/// One cluster, for ever.
    ClusterId, u128, 32);
id!(/// One disk: a directory on one file system, named in it.
    DiskId, u128, 32);
id!(/// One agent: the process that owns the disks of one server.
    AgentId, u128, 32);
id!(/// One run of one gateway process.
    InstanceId, u128, 32);
id!(/// One history of the catalog (PROTOCOL.md 7).
    LineageId, u128, 32);
id!(/// The stored bytes of one object version or part; ordered by time of making.
    BlobId, u128, 32);
id!(/// One object version, or the upload that becomes it.
    VersionUid, u128, 32);
id!(/// A placement group.
    GroupId, u64, 16);
id!(/// One life of a bucket name: deleted and made again, a bucket has another.
    BucketIncarnation, u64, 16);
id!(/// Number of a commit of the catalog; 0 is before the first.
    CommitNumber, u64, 16);

random_id!(ClusterId, DiskId, AgentId, InstanceId, LineageId);

/// Generation of a group record: raised whenever a slot moves.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation(pub u32);

/// Which gateway may change the disks (PROTOCOL.md 1).
///
/// A disk refuses a lower number, and an equal number of another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Raised by each start.
    pub number: u64,
    /// Who raised it.
    pub instance: InstanceId,
}

impl Epoch {
    /// Whether a disk that accepted `self` takes a call of `call`.
    pub fn admits(&self, call: &Epoch) -> bool {
        call.number > self.number || *call == *self
    }
}

/// 128 random bits from the operating system, never zero.
pub fn random_u128() -> u128 {
    let mut bytes = [0u8; 16];
    loop {
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        let value = u128::from_le_bytes(bytes);
        if value != 0 {
            return value;
        }
    }
}

/// Makes [`BlobId`]s and [`VersionUid`]s: 48 bits of milliseconds, then a
/// counter that never falls behind the last one made here, then 58 random bits.
///
/// Order by time is for locality only; no decision is based on it
/// (PROTOCOL.md 7). A clock that goes back keeps the order within one source.
#[derive(Debug, Default)]
pub struct IdSource {
    /// Milliseconds (48 bits) and counter (22 bits) of the last id.
    last: parking_lot::Mutex<u128>,
}

const RANDOM_BITS: u32 = 58;
const COUNTER_BITS: u32 = 22;

impl IdSource {
    /// A source whose ids are unique among all sources, by their random bits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next id; `now_ms` is the time in milliseconds since 1970.
    pub fn next(&self, now_ms: u64) -> u128 {
        let by_clock = u128::from(now_ms & ((1 << 48) - 1)) << COUNTER_BITS;
        let ordered = {
            let mut last = self.last.lock();
            *last = by_clock.max(*last + 1);
            *last
        };
        (ordered << RANDOM_BITS) | (random_u128() & ((1 << RANDOM_BITS) - 1))
    }
}

impl BlobId {
    /// A hash of the id, the same on every machine and in every version:
    /// it decides which slot holds which shard (SplitMix64's finaliser).
    pub fn placement_hash(self) -> u64 {
        let mut x = (self.0 as u64) ^ ((self.0 >> 64) as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_others() {
        let id = DiskId(0x1f);
        assert_eq!(id.to_string().parse::<DiskId>(), Ok(id));
        for bad in [
            "",
            "1f",
            "+000000000000000000000000000001f",
            "../../../../etc/passwd0000000000",
        ] {
            assert!(bad.parse::<DiskId>().is_err(), "{bad}");
        }
        assert!(
            "000000000000000000000000000000AF"
                .parse::<DiskId>()
                .is_err()
        );
    }

    #[test]
    fn ids_ascend_even_when_the_clock_goes_back() {
        let source = IdSource::new();
        let ids: Vec<_> = [5, 5, 4, 0, 9]
            .into_iter()
            .map(|ms| source.next(ms))
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }

    #[test]
    fn an_epoch_admits_itself_and_higher_ones_only() {
        let (a, b) = (InstanceId(1), InstanceId(2));
        let held = Epoch {
            number: 7,
            instance: a,
        };
        let cases = [
            (
                Epoch {
                    number: 7,
                    instance: a,
                },
                true,
            ),
            (
                Epoch {
                    number: 7,
                    instance: b,
                },
                false,
            ),
            (
                Epoch {
                    number: 6,
                    instance: a,
                },
                false,
            ),
            (
                Epoch {
                    number: 8,
                    instance: b,
                },
                true,
            ),
        ];
        for (call, admitted) in cases {
            assert_eq!(held.admits(&call), admitted, "{call:?}");
        }
    }
}
