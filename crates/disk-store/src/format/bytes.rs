//! Integers, ids and strings of bytes, one after the other.

use super::{FormatError, damaged};

/// Appends values to a record.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) out: Vec<u8>,
}

impl Writer {
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    pub(crate) fn u128(&mut self, value: u128) {
        self.raw(&value.to_be_bytes());
    }

    /// A string of at most 65,535 bytes, with its length.
    pub(crate) fn short(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("callers bound it"));
        self.raw(bytes);
    }

    /// A string with a length of four bytes.
    pub(crate) fn long(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("callers bound it"));
        self.raw(bytes);
    }
}

/// Takes values from a record whose checksum matched.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(left: &'a [u8]) -> Self {
        Self { left }
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let taken = self.left.split_at_checked(len);
        let (taken, left) = taken.ok_or(damaged("record is too short for its fields"))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        Ok(self.raw(N)?.try_into().expect("raw gives the length asked"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, FormatError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.u16()?;
        self.raw(usize::from(len))
    }

    pub(crate) fn long(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.u32()?;
        self.raw(len as usize)
    }

    /// Nothing may follow the last field.
    pub(crate) fn end(self) -> Result<(), FormatError> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(damaged("record is longer than its fields"))
        }
    }
}
