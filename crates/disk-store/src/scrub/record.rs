//! The bytes of what is kept of a scrub. Pure; `docs/formats.md` says the
//! same.

use shardgate_wire::check::{MAX_DAMAGED, bounded};
use shardgate_wire::ids::{BlobId, DiskId, GroupId};
use shardgate_wire::{DamagedShard, ShardKey};

use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, damaged, frame, unframe};
use crate::window::WindowCursor;

const MAGIC: &[u8; 8] = b"SG.scrub";
/// Most bytes of a record.
pub(super) const MOST_BYTES: u64 = 1 << 20;

/// A pass that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Where it goes on.
    pub(crate) cursor: WindowCursor,
    /// Bytes that it has read.
    pub(crate) read: u64,
    /// Of these, in files.
    pub(crate) read_files: u64,
    /// Bytes that it has to read, about.
    pub(crate) all: u64,
}

/// What is kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// When the last pass began, milliseconds since 1970; `None` if none did.
    pub(crate) begun_ms: Option<u64>,
    /// When the last that came to its end did; 0 if none did.
    pub(crate) ended_ms: u64,
    /// How many did.
    pub(crate) passes: u32,
    /// Bytes in files that the last of them read.
    pub(crate) files: u64,
    /// The one that runs.
    pub(crate) pass: Option<Pass>,
}

/// Record and damaged shards of a disk as bytes.
pub(super) fn encode(disk: DiskId, record: &Record, known: &[DamagedShard]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u128(disk.0);
    w.u8(record.begun_ms.is_some().into());
    w.u64(record.begun_ms.unwrap_or(0));
    w.u64(record.ended_ms);
    w.u32(record.passes);
    w.u64(record.files);
    w.u8(record.pass.is_some().into());
    let pass = record.pass.unwrap_or_default();
    w.raw(&pass.cursor.to_bytes());
    w.u64(pass.read);
    w.u64(pass.read_files);
    w.u64(pass.all);
    let known = &known[..known.len().min(MAX_DAMAGED)];
    w.u32(u32::try_from(known.len()).expect("the list is bounded"));
    for shard in known {
        w.u64(shard.key.group.0);
        w.u128(shard.key.blob.0);
        w.u8(shard.key.index);
        w.short(bounded(shard.what.clone()).as_bytes());
    }
    frame(MAGIC, &w.out)
}

/// The reverse; another disk's record is none.
pub(super) fn decode(
    disk: DiskId,
    bytes: &[u8],
) -> Result<(Record, Vec<DamagedShard>), FormatError> {
    let mut r = Reader::new(unframe(MAGIC, bytes)?.0);
    if DiskId(r.u128()?) != disk {
        return Err(damaged("record of another disk"));
    }
    let begun = r.u8()? != 0;
    let begun_ms = Some(r.u64()?).filter(|_| begun);
    let (ended_ms, passes, files) = (r.u64()?, r.u32()?, r.u64()?);
    let runs = r.u8()? != 0;
    let cursor = WindowCursor::from_bytes(r.raw(WindowCursor::BYTES)?);
    let pass = Pass {
        cursor: cursor.ok_or(damaged("no cursor"))?,
        read: r.u64()?,
        read_files: r.u64()?,
        all: r.u64()?,
    };
    let mut known = Vec::new();
    for _ in 0..r.u32()? {
        let key = ShardKey {
            group: GroupId(r.u64()?),
            blob: BlobId(r.u128()?),
            index: r.u8()?,
        };
        let what = String::from_utf8_lossy(r.short()?).into_owned();
        if known.len() < MAX_DAMAGED {
            known.push(DamagedShard { key, what });
        }
    }
    r.end()?;
    let record = Record {
        begun_ms,
        ended_ms,
        passes,
        files,
        pass: Some(pass).filter(|_| runs),
    };
    Ok((record, known))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::window::WindowPlace;

    const DISK: DiskId = DiskId(7);

    fn sample() -> (Record, Vec<DamagedShard>) {
        let place = WindowPlace::Record {
            volume: 3,
            offset: 4096,
            within: 65_536,
        };
        let pass = Pass {
            cursor: WindowCursor {
                group: GroupId(0x91),
                place,
            },
            read: 1_000_000,
            read_files: 400_000,
            all: 5_000_000,
        };
        let record = Record {
            begun_ms: Some(1_700_000_000_000),
            ended_ms: 1_690_000_000_000,
            passes: 12,
            files: 2_000_000,
            pass: Some(pass),
        };
        let shard = |blob, what: &str| DamagedShard {
            key: ShardKey {
                group: GroupId(0x91),
                blob: BlobId(blob),
                index: 2,
            },
            what: what.to_owned(),
        };
        let known = vec![shard(5, "block 17"), shard(9, "read shard: Größe")];
        (record, known)
    }

    fn fixture() -> std::path::PathBuf {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        tests.join("fixtures").join("v1-scrub").join("scrub")
    }

    /// For a new version, once: `cargo test -p shardgate-disk-store --lib --
    /// --ignored write_scrub_fixture`.
    #[test]
    #[ignore = "writes a fixture of a new format version"]
    fn write_scrub_fixture() {
        let (record, known) = sample();
        let path = fixture();
        std::fs::create_dir(path.parent().unwrap()).expect("a fixture is never written over");
        std::fs::write(path, encode(DISK, &record, &known)).unwrap();
    }

    #[test]
    fn a_record_of_version_1_reads() {
        let bytes = std::fs::read(fixture()).unwrap();
        let (record, known) = sample();
        assert_eq!(decode(DISK, &bytes), Ok((record.clone(), known.clone())));
        assert_eq!(encode(DISK, &record, &known), bytes);
        assert!(decode(DiskId(8), &bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_later_versions_are_told_apart() {
        let (record, known) = sample();
        let bytes = encode(DISK, &record, &known);
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(decode(DISK, &flipped).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(decode(DISK, &bytes[..len]).is_err());
        }
        let mut later = bytes;
        later[9] = 2;
        let end = later.len() - 4;
        let crc = shardgate_wire::checksum::crc32c(&later[..end]);
        later[end..].copy_from_slice(&crc.to_be_bytes());
        let found = decode(DISK, &later).unwrap_err();
        assert_eq!(found, FormatError::Version { found: 2 });
    }

    #[test]
    fn the_list_is_bounded() {
        let shard = |blob| DamagedShard {
            key: ShardKey {
                group: GroupId(1),
                blob: BlobId(blob),
                index: 0,
            },
            what: "x".repeat(1000),
        };
        let known: Vec<_> = (0..2000).map(shard).collect();
        let bytes = encode(DISK, &Record::default(), &known);
        assert!((bytes.len() as u64) < MOST_BYTES);
        let (_, read) = decode(DISK, &bytes).unwrap();
        assert_eq!((read.len(), read[0].what.len()), (MAX_DAMAGED, 200));
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), framed: bool) {
            let bytes = if framed { frame(MAGIC, &noise) } else { noise };
            let _ = decode(DISK, &bytes);
            // Behind the right disk as well.
            let mut own = DISK.0.to_be_bytes().to_vec();
            own.extend_from_slice(&bytes);
            let _ = decode(DISK, &frame(MAGIC, &own));
        }
    }
}
