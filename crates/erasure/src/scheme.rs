//! Redundancy schemes: how many data and parity shards a blob may have.
//!
//! Owns the limits on `k+m` and their one written form, `4+2`. Invariant: a
//! [`Scheme`] in hand lies within those limits. It does not say how a given
//! blob is cut (that is `geometry`) and does not choose among schemes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The most data shards a scheme may have.
pub const MAX_DATA: u8 = 16;
/// The most parity shards a scheme may have.
pub const MAX_PARITY: u8 = 8;
/// The most shards of one blob, and so the most slots of a group.
pub const MAX_SHARDS: u8 = MAX_DATA + MAX_PARITY;

/// Why a scheme or a layout is refused.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SchemeError {
    /// The count of data shards lies outside 1 to [`MAX_DATA`].
    #[error("{0} data shards, allowed are 1 to {MAX_DATA}")]
    Data(u8),
    /// The count of parity shards is above [`MAX_PARITY`].
    #[error("{0} parity shards, allowed are 1 to {MAX_PARITY}")]
    Parity(u8),
    /// Several data shards and no parity: any lost disk would lose the blob.
    #[error("{0} data shards without parity, only 1+0 may have none")]
    NoParity(u8),
    /// The text is not two plain decimal numbers with a plus between them.
    #[error("a scheme is written as in 4+2")]
    Form,
}

/// `k+m`: k data and m parity shards. `1+m` are copies, `1+0` is a single
/// one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Scheme {
    data: u8,
    parity: u8,
}

impl Scheme {
    /// One copy, no redundancy.
    pub const SINGLE: Self = Self { data: 1, parity: 0 };

    /// A scheme of `data` (1 to 16) and `parity` (1 to 8; 0 only beside one
    /// data shard) shards.
    ///
    /// # Errors
    /// [`SchemeError`] names the count that is out of bounds.
    pub const fn new(data: u8, parity: u8) -> Result<Self, SchemeError> {
        if data == 0 || data > MAX_DATA {
            return Err(SchemeError::Data(data));
        }
        if parity > MAX_PARITY {
            return Err(SchemeError::Parity(parity));
        }
        if parity == 0 && data > 1 {
            return Err(SchemeError::NoParity(data));
        }
        Ok(Self { data, parity })
    }

    /// k, the number of data shards.
    #[must_use]
    pub const fn data(self) -> u8 {
        self.data
    }

    /// m, the number of parity shards: so many slots may be lost.
    #[must_use]
    pub const fn parity(self) -> u8 {
        self.parity
    }

    /// k + m, the number of slots of a group of this scheme.
    #[must_use]
    pub const fn slots(self) -> u8 {
        self.data + self.parity
    }

    /// Whether every shard is the whole blob (`1+m`, a single copy included).
    #[must_use]
    pub const fn is_copies(self) -> bool {
        self.data == 1
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl FromStr for Scheme {
    type Err = SchemeError;

    /// Reads the form that `Display` writes and no other: no blanks, signs
    /// or leading zeroes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (data, parity) = text.split_once('+').ok_or(SchemeError::Form)?;
        Self::new(count(data)?, count(parity)?)
    }
}

fn count(text: &str) -> Result<u8, SchemeError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(SchemeError::Form);
    }
    text.parse().map_err(|_| SchemeError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        use SchemeError::{Data, NoParity, Parity};
        for (data, parity, expected) in [
            (1, 0, None),
            (1, 8, None),
            (16, 8, None),
            (16, 1, None),
            (0, 1, Some(Data(0))),
            (17, 1, Some(Data(17))),
            (1, 9, Some(Parity(9))),
            (2, 0, Some(NoParity(2))),
            (255, 255, Some(Data(255))),
        ] {
            assert_eq!(Scheme::new(data, parity).err(), expected, "{data}+{parity}");
        }
    }

    #[test]
    fn every_scheme_reads_back_as_written() {
        for data in 1..=MAX_DATA {
            for parity in 1..=MAX_PARITY {
                let scheme = Scheme::new(data, parity).unwrap();
                assert_eq!(scheme.to_string().parse(), Ok(scheme));
                assert_eq!(scheme.slots(), data + parity);
                assert_eq!(scheme.is_copies(), data == 1);
            }
        }
        assert_eq!("1+0".parse(), Ok(Scheme::SINGLE));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "", "+", "4", "4+", "+2", "4++2", "4+2+1", " 4+2", "4 + 2", "4+2 ", "04+2", "4+02",
            "4-2", "4+-2", "256+2", "4+2\n", "٤+2",
        ] {
            assert_eq!(text.parse::<Scheme>(), Err(SchemeError::Form), "{text:?}");
        }
        assert_eq!("0+2".parse::<Scheme>(), Err(SchemeError::Data(0)));
        assert_eq!("4+0".parse::<Scheme>(), Err(SchemeError::NoParity(4)));
    }
}
