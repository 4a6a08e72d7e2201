//! The first pages of a volume and of a log segment, written twice.

use shardgate_wire::DiskIdentity;
use shardgate_wire::ids::{ClusterId, DiskId, GroupId};

use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, damaged, frame, unframe};

/// Where the second copy of a heading lies.
pub(crate) const HEADING_COPY: u64 = 4096;
/// Where the first record, or the first batch of a log, begins.
pub(crate) const FIRST_RECORD: u64 = 8192;

/// Longest volume: places in it are kept in units of 64 bytes, in 32 bits.
pub(crate) const MAX_VOLUME_BYTES: u64 = 1 << 38;
/// Numbers of files are below this, so that there is always a next one.
pub(crate) const MAX_SEQUENCE: u64 = 1 << 62;

const MAGIC: &[u8; 8] = b"SG.vhead";

/// What a volume, or a segment of the log, says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) cluster: ClusterId,
    pub(crate) disk: DiskId,
    /// The volume's group; 0 for the log.
    pub(crate) group: GroupId,
    /// Number of the file, unique for ever on its disk among its kind.
    pub(crate) sequence: u64,
    /// Mixed into every checksum of the file.
    pub(crate) salt: u64,
    /// Length of the file, bytes: records grow from its start, extents from
    /// its end.
    pub(crate) size: u64,
}

impl Heading {
    pub(crate) fn is_of(&self, disk: &DiskIdentity, group: GroupId, sequence: u64) -> bool {
        (self.cluster, self.disk) == (disk.cluster, disk.disk)
            && (self.group, self.sequence) == (group, sequence)
    }
}

pub(crate) fn encode_heading(heading: &Heading) -> Vec<u8> {
    let mut w = Writer::default();
    w.u128(heading.cluster.0);
    w.u128(heading.disk.0);
    w.u64(heading.group.0);
    w.u64(heading.sequence);
    w.u64(heading.salt);
    w.u64(heading.size);
    frame(MAGIC, &w.out)
}

pub(crate) fn decode_heading(bytes: &[u8]) -> Result<Heading, FormatError> {
    let mut r = Reader::new(unframe(MAGIC, bytes)?.0);
    let heading = Heading {
        cluster: ClusterId(r.u128()?),
        disk: DiskId(r.u128()?),
        group: GroupId(r.u64()?),
        sequence: r.u64()?,
        salt: r.u64()?,
        size: r.u64()?,
    };
    r.end()?;
    if heading.size > MAX_VOLUME_BYTES || heading.sequence >= MAX_SEQUENCE {
        return Err(damaged("heading of a file that cannot be"));
    }
    Ok(heading)
}
