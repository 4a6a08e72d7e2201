//! The codec against `reed-solomon-erasure`, whose bytes it must give, and
//! against itself: whatever is lost comes back.

use proptest::prelude::*;
use proptest::sample::subsequence;
use reed_solomon_erasure::galois_8::ReedSolomon;

use super::*;
use crate::scheme::{MAX_DATA, MAX_PARITY};

/// All shards of a stripe, as the reference codes them.
fn reference(data: &[Vec<u8>], parity: u8) -> Vec<Vec<u8>> {
    let coder = ReedSolomon::new(data.len(), parity.into()).unwrap();
    let mut shards = data.to_vec();
    shards.resize(data.len() + usize::from(parity), vec![0; data[0].len()]);
    coder.encode(&mut shards).unwrap();
    shards
}

fn layout(data: u8, parity: u8) -> Layout {
    Layout::new(data, parity).unwrap()
}

fn codecs(layout: Layout) -> impl Iterator<Item = Codec> {
    Kernel::ALL
        .into_iter()
        .filter_map(move |kernel| Codec::with_kernel(layout, kernel).ok())
}

/// Bytes that differ everywhere, without a random generator.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((seed * 1_000 + i).wrapping_mul(0x9E37_79B9) >> 13) as u8)
        .collect()
}

fn blocks(count: u8, len: usize) -> Vec<Vec<u8>> {
    (0..usize::from(count)).map(|i| bytes(i, len)).collect()
}

#[test]
fn every_layout_gives_the_bytes_of_the_reference() {
    for data in 1..=MAX_DATA {
        let blocks = blocks(data, 193);
        for parity in 1..=MAX_PARITY {
            let expected = &reference(&blocks, parity)[usize::from(data)..];
            for codec in codecs(layout(data, parity)) {
                let mut found = vec![vec![0xEE; 193]; parity.into()];
                codec.encode(&blocks, &mut found).unwrap();
                assert!(found == expected, "{data}+{parity} {}", codec.kernel());
            }
        }
    }
}

/// The parity of 4+2 over four short blocks, so that the bytes on disks are
/// pinned here and not only by another crate.
#[test]
fn known_bytes() {
    let data = [
        [1_u8, 0, 0, 0x80],
        [0, 1, 0, 0xFF],
        [0, 0, 1, 7],
        [2, 3, 5, 7],
    ];
    let mut parity = [[0_u8; 4]; 2];
    Codec::new(layout(4, 2)).encode(&data, &mut parity).unwrap();
    assert_eq!(parity, [[51, 32, 86, 40], [56, 45, 78, 72]]);
}

/// A stripe, and which of its shards are left and wanted.
#[derive(Clone, Debug)]
struct Loss {
    data: Vec<Vec<u8>>,
    parity: u8,
    present: Vec<u8>,
    wanted: Vec<u8>,
}

fn losses() -> impl Strategy<Value = Loss> {
    (1..=MAX_DATA, 1..=MAX_PARITY, 1..300_usize).prop_flat_map(|(k, m, len)| {
        let (shards, k) = (k + m, usize::from(k));
        let block = prop::collection::vec(any::<u8>(), len);
        let order = Just((0..shards).collect::<Vec<u8>>()).prop_shuffle();
        (prop::collection::vec(block, k), order, 0..=usize::from(m)).prop_flat_map(
            move |(data, order, lost)| {
                let (lost, present) = order.split_at(lost);
                let (present, lost) = (present.to_vec(), lost.to_vec());
                let some = 0..=lost.len();
                subsequence(lost, some).prop_map(move |wanted| Loss {
                    data: data.clone(),
                    parity: m,
                    present: present.clone(),
                    wanted,
                })
            },
        )
    })
}

proptest! {
    #[test]
    fn what_is_lost_comes_back(loss in losses()) {
        let shards = reference(&loss.data, loss.parity);
        let shard = |index: &u8| shards[usize::from(*index)].as_slice();
        let present: Vec<_> = loss.present.iter().map(|i| (*i, shard(i))).collect();
        for codec in codecs(layout(loss.data.len() as u8, loss.parity)) {
            let mut wanted: Vec<(u8, Vec<u8>)> = loss
                .wanted
                .iter()
                .map(|i| (*i, vec![0xEE; shards[0].len()]))
                .collect();
            codec.reconstruct(&present, &mut wanted).unwrap();
            for (index, block) in wanted {
                prop_assert!(block == shard(&index), "{index} by {}", codec.kernel());
            }
        }
    }

    #[test]
    fn a_part_of_each_block_gives_that_part(
        loss in losses(),
        from in 0..300_usize,
        to in 0..300_usize,
    ) {
        let shards = reference(&loss.data, loss.parity);
        let to = to.min(shards[0].len());
        let from = from.min(to);
        let codec = Codec::new(layout(loss.data.len() as u8, loss.parity));
        let decoder = codec.decoder(&loss.present, &loss.wanted).unwrap();
        prop_assert_eq!(decoder.wanted(), &loss.wanted);
        let part = |i: &u8| &shards[usize::from(*i)][from..to];
        let sources: Vec<_> = decoder.sources().iter().map(part).collect();
        let mut found = vec![vec![0xEE; to - from]; loss.wanted.len()];
        decoder.reconstruct(&sources, &mut found).unwrap();
        for (index, block) in loss.wanted.iter().zip(found) {
            prop_assert!(block == part(index));
        }
    }

    #[test]
    fn blocks_in_any_order_add_up(
        loss in losses(),
        order in Just((0..MAX_DATA).collect::<Vec<u8>>()).prop_shuffle(),
        last_len in 0..300_usize,
    ) {
        // The last block may be cut short; the reference sees zeroes.
        let mut data = loss.data;
        let len = data[0].len();
        let last_len = last_len.min(len);
        let last = data.len() - 1;
        data[last][last_len..].fill(0);
        let expected = &reference(&data, loss.parity)[data.len()..];
        for codec in codecs(layout(data.len() as u8, loss.parity)) {
            let mut parity = vec![vec![0xEE; len]; loss.parity.into()];
            let mut sum = codec.accumulate();
            for index in order.iter().filter(|i| usize::from(**i) <= last) {
                prop_assert!(!sum.is_complete());
                let block = &data[usize::from(*index)];
                let cut = if usize::from(*index) == last { last_len } else { len };
                sum.add_block(*index, &block[..cut], &mut parity).unwrap();
            }
            prop_assert!(sum.is_complete());
            prop_assert!(parity == expected, "{}", codec.kernel());
        }
    }
}

#[test]
fn blocks_of_padding_may_be_left_out() {
    let mut data = vec![vec![0; 64]; 4];
    data[0] = bytes(1, 64);
    let expected = &reference(&data, 2)[4..];
    let mut sum = Codec::new(layout(4, 2)).accumulate();
    let mut parity = vec![vec![0xEE; 64]; 2];
    sum.add_block(0, &data[0], &mut parity).unwrap();
    assert_eq!(parity, expected);
}

#[test]
fn data_shards_are_preferred_as_sources() {
    let codec = Codec::new(layout(4, 3));
    let decoder = codec.decoder(&[6, 5, 3, 1, 0], &[2]).unwrap();
    assert_eq!(decoder.sources(), [3, 1, 0, 6]);
}

#[test]
fn a_single_copy_has_nothing_to_code() {
    let codec = Codec::new(layout(1, 0));
    let mut none: [Vec<u8>; 0] = [];
    codec.encode(&[[7; 100]], &mut none).unwrap();
    codec
        .accumulate()
        .add_block(0, &[7; 100], &mut none)
        .unwrap();
    assert_eq!(
        codec.reconstruct::<Vec<u8>, Vec<u8>>(&[], &mut []),
        Err(CodecError::TooFewShards {
            present: 0,
            needed: 1
        })
    );
}

#[test]
fn wrong_counts_and_lengths_are_refused_and_nothing_is_written() {
    let codec = Codec::new(layout(2, 2));
    let (data, short) = ([[1; 64]; 2], [1; 63]);
    let mut parity = [vec![9; 64], vec![9; 64]];
    let count = |found, needed| Err(CodecError::BlockCount { found, needed });
    let len = |found, needed| Err(CodecError::BlockLen { found, needed });
    assert_eq!(codec.encode(&data[..1], &mut parity), count(1, 2));
    assert_eq!(codec.encode(&data, &mut parity[..1]), count(1, 2));
    assert_eq!(
        codec.encode(&[&data[0][..], &short], &mut parity),
        len(63, 64)
    );
    parity[1].truncate(10);
    assert_eq!(codec.encode(&data, &mut parity), len(10, 64));
    let mut sum = codec.accumulate();
    assert_eq!(sum.add_block(0, &data[0], &mut parity), len(10, 64));
    parity[1].resize(64, 9);
    assert_eq!(sum.add_block(0, &[1; 65], &mut parity), len(65, 64));
    assert_eq!(
        sum.add_block(2, &short, &mut parity),
        Err(CodecError::NoSuchShard(2))
    );
    assert_eq!(parity, [vec![9; 64], vec![9; 64]]);
    sum.add_block(1, &short, &mut parity).unwrap();
    assert_eq!(
        sum.add_block(1, &short, &mut parity),
        Err(CodecError::Repeated(1))
    );
    let mut other = [[0; 128]; 2];
    assert_eq!(sum.add_block(0, &data[0], &mut other), len(128, 64));
}

#[test]
fn decoders_that_cannot_be() {
    let codec = Codec::new(layout(3, 2));
    let refused = |present: &[u8], wanted: &[u8]| codec.decoder(present, wanted).err();
    let few = |present| Some(CodecError::TooFewShards { present, needed: 3 });
    assert_eq!(refused(&[0, 1], &[2]), few(2));
    assert_eq!(refused(&[], &[]), few(0));
    assert_eq!(refused(&[0, 1, 5], &[2]), Some(CodecError::NoSuchShard(5)));
    assert_eq!(
        refused(&[0, 1, 3], &[255]),
        Some(CodecError::NoSuchShard(255))
    );
    assert_eq!(refused(&[0, 1, 1], &[2]), Some(CodecError::Repeated(1)));
    assert_eq!(refused(&[0, 1, 3], &[1]), Some(CodecError::Repeated(1)));
    assert_eq!(refused(&[0, 1, 3], &[2, 2]), Some(CodecError::Repeated(2)));
    assert_eq!(refused(&[0, 1, 3], &[]), None);
}

#[test]
fn a_kernel_of_another_processor_is_refused() {
    let (kernel, present) = if cfg!(target_arch = "x86_64") {
        (Kernel::Neon, Kernel::Scalar)
    } else {
        (Kernel::GfniAvx512, Kernel::Scalar)
    };
    let layout = layout(4, 2);
    assert_eq!(
        Codec::with_kernel(layout, kernel).err(),
        Some(CodecError::KernelUnavailable(kernel))
    );
    assert_eq!(
        Codec::with_kernel(layout, present).unwrap().kernel(),
        present
    );
}
