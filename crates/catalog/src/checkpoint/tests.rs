//! Manifests, roots and names: what comes back, what is refused, and the
//! bytes that later code must read.

use proptest::prelude::*;
use shardgate_wire::{BlobId, BlobLayout, GroupId};

use super::folder::is_file_name;
use super::*;

fn stored(blob: u128) -> StoredFile {
    StoredFile {
        blob: BlobRef {
            group: GroupId(3),
            blob: BlobId(blob),
            layout: BlobLayout { data: 2, parity: 1 },
            len: 300,
        },
        disks: vec![DiskId(1), DiskId(2), DiskId(3)],
    }
}

fn position(number: u64) -> ChainPosition {
    ChainPosition {
        number: CommitNumber(number),
        hash: [0xAA; 32],
    }
}

fn manifest() -> Manifest {
    let file = |name: &str, content| ManifestFile {
        name: name.to_owned(),
        len: 7,
        hash: ContentHash([0xBB; 32]),
        content,
    };
    Manifest {
        cluster: ClusterId(1),
        lineage: LineageId(2),
        position: position(9),
        files: vec![
            file("000012.sst", FileContent::Stored(stored(5))),
            file(
                "CURRENT",
                FileContent::Inline(b"MANIFEST-000004\n".to_vec()),
            ),
        ],
    }
}

fn root(number: u64) -> CheckpointRoot {
    CheckpointRoot {
        cluster: ClusterId(1),
        lineage: LineageId(2),
        position: position(number),
        taken: 1_700_000_000_000,
        manifest: stored(6),
        manifest_hash: ContentHash([0xCC; 32]),
    }
}

#[test]
fn they_come_back() {
    assert_eq!(Manifest::decode(&manifest().encode()), Ok(manifest()));
    let one = Roots::default().with(root(4)).unwrap();
    let two = one.with(root(8)).unwrap();
    let three = two.with(root(9)).unwrap();
    for roots in [&Roots::default(), &one, &two, &three] {
        assert_eq!(Roots::decode(&roots.encode()).as_ref(), Ok(roots));
    }
    let numbers = |roots: &Roots| -> Vec<u64> {
        let of = roots.all().iter();
        of.map(|root| root.position.number.0).collect()
    };
    assert_eq!(numbers(&three), [9, 8]);
    assert_eq!(one.journal_from(), None);
    assert_eq!(three.journal_from(), Some(CommitNumber(8)));
    assert!(three.is_newer_than(&two) && two.is_newer_than(&one));
    assert!(!one.is_newer_than(&two) && !two.is_newer_than(&two));
    // Another one at the same commit is newer; one before it is refused.
    assert!(three.with(root(9)).is_ok());
    let backward = Backward {
        newest: CommitNumber(9),
        taken: CommitNumber(8),
    };
    assert_eq!(three.with(root(8)), Err(backward));
}

/// The formats on disk: changing one needs a new version.
#[test]
fn their_bytes_are_fixed() {
    let hex = |bytes: &[u8]| hex::encode(bytes);
    assert_eq!(
        hex(&manifest().encode()),
        concat!(
            "53472e636d616e0001",
            "010209aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "020a3030303031322e73737407",
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "0103050201ac0203010203",
            "0743555252454e5407",
            "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "00104d414e49464553542d3030303030340a",
            "879fb80d"
        )
    );
    assert_eq!(
        hex(&root(9).encode()),
        concat!(
            "53472e63726f6f7401",
            "010209aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "80d095ffbc3103060201ac0203010203",
            "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
            "3bdc6fb8"
        )
    );
}

#[test]
fn a_manifest_names_no_path_and_no_file_twice() {
    let renamed = |index: usize, name: &str| {
        let mut manifest = manifest();
        manifest.files[index].name = name.to_owned();
        Manifest::decode(&manifest.encode())
    };
    for name in ["../000012.sst", "/etc/passwd", "000012.log", "", "LOCK"] {
        assert!(renamed(0, name).is_err(), "{name:?}");
    }
    assert!(renamed(1, "000012.sst").is_err(), "twice");
    assert!(renamed(1, "000001.sst").is_err(), "out of order");
    assert!(renamed(1, "000013.sst").is_ok());
}

#[test]
fn what_else_is_refused() {
    let mut long = root(1);
    long.manifest.blob.len = MAX_MANIFEST_BYTES + 1;
    assert!(CheckpointRoot::decode(&long.encode()).is_err());
    let each = [root(1).encode(), root(2).encode()];
    let joined: Vec<u8> = each
        .iter()
        .flat_map(|root| [&(root.len() as u32).to_be_bytes()[..], root].concat())
        .collect();
    assert!(Roots::decode(&joined).is_err(), "the older one first");
    let three = [&Roots::default().with(root(1)).unwrap().encode()[..]; 3].concat();
    assert!(Roots::decode(&three).is_err(), "three of them");
}

#[test]
fn names_of_a_checkpoints_files() {
    for (name, is) in [
        ("CURRENT", true),
        ("MANIFEST-000001", true),
        ("OPTIONS-000007", true),
        ("000123.sst", true),
        ("18446744073709551615.sst", true),
        ("000123.log", false),
        ("OPTIONS-000007.dbtmp", false),
        ("LOG", false),
        ("LOG.old.1", false),
        ("LOCK", false),
        ("IDENTITY", false),
        (".sst", false),
        ("a.sst", false),
        ("MANIFEST-", false),
        ("MANIFEST-1/../..", false),
    ] {
        assert_eq!(is_file_name(name), is, "{name}");
    }
}

proptest! {
    #[test]
    fn a_flipped_or_missing_byte_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let whole = [manifest().encode(), Roots::default().with(root(1)).unwrap().encode()];
        for (kind, bytes) in whole.iter().enumerate() {
            let refused = |bytes: &[u8]| match kind {
                0 => Manifest::decode(bytes).is_err(),
                _ => Roots::decode(bytes).is_err(),
            };
            let at = at.index(bytes.len());
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            prop_assert!(refused(&flipped));
            // Without any byte there is no root, which is no damage.
            prop_assert!(refused(&bytes[..at]) || (kind, at) == (1, 0));
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode(&bytes);
        let _ = Roots::decode(&bytes);
    }
}
