//! Blobs through the whole crate: cut and coded as a writer would, any m
//! shards lost, ranges read back as a reader would.

use std::ops::Range;

use proptest::prelude::*;
use shardgate_erasure::{BLOCK, Codec, Geometry, Layout, Scheme, shard_in, slot_of};

/// The shards of a blob, written stripe by stripe.
fn write(geometry: &Geometry, body: &[u8]) -> Vec<Vec<u8>> {
    let layout = geometry.layout();
    let codec = Codec::new(layout);
    let mut shards = vec![Vec::new(); layout.shards().into()];
    for index in 0..geometry.stripes() {
        let stripe = geometry.stripe(index).expect("a stripe");
        let end = (stripe.shard_offset + stripe.block_len) as usize;
        let (data, parity) = shards.split_at_mut(layout.data().into());
        let mut sums = vec![vec![0xEE; stripe.block_len as usize]; parity.len()];
        let mut sum = codec.accumulate();
        for (data_index, shard) in (0..).zip(data) {
            let range = stripe.block_range(data_index);
            let block = &body[range.start as usize..range.end as usize];
            sum.add_block(data_index, block, &mut sums)
                .expect("a block");
            shard.extend_from_slice(block);
            shard.resize(end, 0);
        }
        for (shard, sum) in parity.iter_mut().zip(sums) {
            shard.extend(sum);
        }
    }
    shards
}

/// A range of a blob, from what is left of its shards.
fn read(geometry: &Geometry, shards: &[Option<Vec<u8>>], range: Range<u64>) -> Vec<u8> {
    let codec = Codec::new(geometry.layout());
    let present: Vec<u8> = (0..)
        .zip(shards)
        .filter_map(|(index, shard)| shard.is_some().then_some(index))
        .collect();
    let bytes = |index: u8, range: &Range<u64>| {
        shards[usize::from(index)]
            .as_ref()
            .map(|shard| &shard[range.start as usize..range.end as usize])
    };
    let mut body = Vec::new();
    for piece in geometry.pieces(range) {
        let checked = geometry.check_range(piece.shard_range());
        let mut rebuilt = [vec![0; (checked.end - checked.start) as usize]];
        let block = bytes(piece.data_index, &checked).unwrap_or_else(|| {
            let decoder = codec
                .decoder(&present, &[piece.data_index])
                .expect("enough shards");
            let sources: Vec<&[u8]> = decoder
                .sources()
                .iter()
                .map(|index| bytes(*index, &checked).expect("a present shard"))
                .collect();
            decoder
                .reconstruct(&sources, &mut rebuilt)
                .expect("equal lengths");
            &rebuilt[0]
        });
        let from = (piece.shard_offset - checked.start) as usize;
        body.extend_from_slice(&block[from..from + piece.len as usize]);
    }
    body
}

#[derive(Clone, Debug)]
struct Blob {
    scheme: Scheme,
    len: u64,
    shard_target: u64,
    lost: Vec<u8>,
}

fn blobs() -> impl Strategy<Value = Blob> {
    (1..=16_u8, 1..=8_u8).prop_flat_map(|(k, m)| {
        let scheme = Scheme::new(k, m).expect("within bounds");
        let stripe = u64::from(k) * BLOCK;
        let len = prop_oneof![0..5_000_u64, 0..600_000_u64, 0..2 * stripe + 1_000];
        let order = Just((0..scheme.slots()).collect::<Vec<u8>>()).prop_shuffle();
        (len, 0..300_000_u64, order).prop_map(move |(len, shard_target, mut lost)| {
            lost.truncate(m.into());
            Blob {
                scheme,
                len,
                shard_target,
                lost,
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_m_lost_slots_leave_the_blob_readable(
        blob in blobs(),
        hash: u64,
        start: u64,
        span in 0..1_000_000_u64,
    ) {
        let layout = Layout::choose(blob.scheme, Some(blob.len), blob.shard_target);
        let geometry = Geometry::new(layout, blob.len).unwrap();
        let byte = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        let body: Vec<u8> = (0..blob.len).map(byte).collect();
        let shards = write(&geometry, &body);
        for shard in &shards {
            prop_assert_eq!(shard.len() as u64, geometry.shard_len());
        }

        // Into the slots of a group, of which m are lost, and out again.
        let slots = blob.scheme.slots();
        let mut group = vec![None; slots.into()];
        for (index, shard) in (0..).zip(shards) {
            group[usize::from(slot_of(hash, index, slots))] = Some(shard);
        }
        for slot in &blob.lost {
            group[usize::from(*slot)] = None;
        }
        let mut left = vec![None; layout.shards().into()];
        for (slot, shard) in (0..).zip(group) {
            if let Some(index) = shard_in(hash, layout, slot, slots) {
                left[usize::from(index)] = shard;
            }
        }

        prop_assert!(read(&geometry, &left, 0..u64::MAX) == body);
        let start = start % (blob.len + 1);
        let end = (start + span).min(blob.len);
        let part = &body[start as usize..end as usize];
        prop_assert!(read(&geometry, &left, start..end) == part);
    }
}
