//! Messages that contradict themselves do not come to the disk.

use bytes::Bytes;
use shardgate_wire::conformance::sample;
use shardgate_wire::message::PutEntry;

use super::*;

fn message(lens: &[u32]) -> PutHead {
    let entry = |&len| PutEntry {
        header: sample::header(&sample::context(1), 1),
        blob_len: u64::from(len),
        len,
        crcs: vec![],
    };
    PutHead {
        ctx: sample::context(1),
        shards: lens.iter().map(entry).collect(),
    }
}

#[test]
fn shards_cover_the_data_exactly() {
    let data = Bytes::from_static(b"0123456789");
    let cases: [(&[u32], bool); 8] = [
        (&[10], true),
        (&[3, 7], true),
        (&[0, 10, 0], true),
        (&[9], false),
        (&[11], false),
        (&[5, 6], false),
        (&[u32::MAX, u32::MAX], false),
        (&[], false),
    ];
    for (lens, taken) in cases {
        let shards = small_shards(message(lens), &data);
        assert_eq!(shards.is_ok(), taken, "{lens:?}");
    }
    let shards = small_shards(message(&[3, 7]), &data).unwrap();
    assert_eq!(&shards[1].bytes[..], b"3456789");
}

#[test]
fn too_many_shards_are_refused() {
    assert!(small_shards(message(&vec![0; MAX_PUT_SHARDS]), &Bytes::new()).is_ok());
    assert!(small_shards(message(&vec![0; MAX_PUT_SHARDS + 1]), &Bytes::new()).is_err());
}
