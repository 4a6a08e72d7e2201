//! Tables of the borders, and properties over all layouts and lengths.

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1024;

fn geometry(layout: (u8, u8), len: u64) -> Geometry {
    let layout = Layout::new(layout.0, layout.1).unwrap();
    Geometry::new(layout, len).unwrap()
}

#[test]
fn shards_of_known_blobs() {
    for (layout, len, stripes, shard_len) in [
        ((4, 2), 0, 0, 0),
        ((4, 2), 1, 1, 64),
        ((4, 2), 256, 1, 64),
        ((4, 2), 257, 1, 128),
        ((4, 2), 1024 * KIB - 1, 1, 256 * KIB),
        ((4, 2), 1024 * KIB, 1, 256 * KIB),
        ((4, 2), 1024 * KIB + 1, 2, 256 * KIB + 64),
        ((1, 2), 65, 1, 128),
        ((1, 2), 256 * KIB + 1, 2, 256 * KIB + 64),
        ((3, 2), 1000, 1, 384),
        ((16, 8), 5 << 40, 2_621_440, (5 << 40) / 16),
    ] {
        let blob = geometry(layout, len);
        let found = (blob.stripes(), blob.shard_len());
        assert_eq!(found, (stripes, shard_len), "{layout:?} of {len}");
    }
}

#[test]
fn the_last_stripe_pads_with_zeroes() {
    // 4 blocks of 64: one full, one of 6 bytes, two of nothing but padding.
    let blob = geometry((4, 2), 1024 * KIB + 70);
    let last = blob.stripe(1).unwrap();
    assert_eq!((last.data_len, last.block_len), (70, 64));
    let lens: Vec<u64> = (0..4)
        .map(|i| {
            let range = last.block_range(i);
            range.end - range.start
        })
        .collect();
    assert_eq!(lens, [64, 6, 0, 0]);
    assert_eq!(blob.object_offset(1, 256 * KIB + 5), Some(1024 * KIB + 69));
    assert_eq!(blob.object_offset(1, 256 * KIB + 6), None);
    assert_eq!(blob.object_offset(2, 256 * KIB), None);
    assert_eq!(blob.object_offset(4, 0), None);
    assert_eq!(blob.stripe(2), None);
}

#[test]
fn too_long_is_an_error_and_the_longest_does_not_overflow() {
    let copies = Layout::new(1, 2).unwrap();
    assert_eq!(Geometry::new(copies, u64::MAX), Err(TooLong(u64::MAX)));
    assert!(shard_len(copies, u64::MAX) > MAX_LEN);
    for data in 1..=16 {
        let blob = geometry((data, 2), MAX_LEN);
        let last = blob.locate(MAX_LEN - 1).unwrap();
        assert!(last.shard_offset < blob.shard_len());
        let piece = blob.pieces(MAX_LEN - 1..u64::MAX).next().unwrap();
        assert_eq!(piece.len, 1);
        assert!(blob.check_range(piece.shard_range()).end <= blob.shard_len());
    }
}

#[test]
fn check_ranges() {
    let blob = geometry((1, 1), 200 * KIB);
    for (range, expected) in [
        (0..1, 0..64 * KIB),
        (64 * KIB - 1..64 * KIB, 0..64 * KIB),
        (64 * KIB - 1..64 * KIB + 1, 0..128 * KIB),
        (64 * KIB..65 * KIB, 64 * KIB..128 * KIB),
        (199 * KIB..200 * KIB, 192 * KIB..200 * KIB),
        (199 * KIB..u64::MAX, 192 * KIB..200 * KIB),
        (5..5, 0..0),
        (200 * KIB..201 * KIB, 0..0),
    ] {
        assert_eq!(blob.check_range(range.clone()), expected, "{range:?}");
    }
}

#[test]
fn pieces_of_an_empty_or_turned_range() {
    let blob = geometry((4, 2), 1000);
    assert_eq!(blob.pieces(10..10).next(), None);
    assert_eq!(blob.pieces(1000..2000).next(), None);
    #[allow(clippy::reversed_empty_ranges)]
    let turned = 20..10;
    assert_eq!(blob.pieces(turned).next(), None);
    assert_eq!(geometry((4, 2), 0).pieces(0..1).next(), None);
}

/// Any layout.
fn layouts() -> impl Strategy<Value = Layout> {
    prop_oneof![
        8 => (1..=16_u8, 1..=8_u8),
        1 => Just((1, 0)),
    ]
    .prop_map(|(data, parity)| Layout::new(data, parity).unwrap())
}

/// Lengths, many of them near a border of a block or a stripe.
fn lengths() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..2_000_u64,
        0..40_000_000_u64,
        0..=MAX_LEN,
        (0..200_u64, 0..130_u64)
            .prop_map(|(blocks, off)| (blocks * BLOCK + off).saturating_sub(65)),
    ]
}

fn blobs() -> impl Strategy<Value = Geometry> {
    (layouts(), lengths()).prop_map(|(l, len)| Geometry::new(l, len).unwrap())
}

proptest! {
    #[test]
    fn stripes_join_up(layout in layouts(), len in 0..40_000_000_u64) {
        let blob = Geometry::new(layout, len).unwrap();
        let (mut object, mut shard) = (0, 0);
        for index in 0..blob.stripes() {
            let stripe = blob.stripe(index).unwrap();
            prop_assert_eq!(stripe.object_offset, object);
            prop_assert_eq!(stripe.shard_offset, shard);
            prop_assert_eq!(stripe.block_len % ALIGN, 0);
            let full = full_block(blob.layout());
            prop_assert!(stripe.block_len <= full);
            prop_assert!(stripe.block_len == full || index + 1 == blob.stripes());
            // Not longer than need be.
            let k = u64::from(layout.data());
            prop_assert!(stripe.block_len * k < stripe.data_len + k * ALIGN);
            for i in 0..layout.data() {
                let range = stripe.block_range(i);
                prop_assert_eq!(range.start, object);
                prop_assert!(range.end - range.start <= stripe.block_len);
                object = range.end;
            }
            shard += stripe.block_len;
        }
        prop_assert_eq!(object, len);
        prop_assert_eq!(shard, blob.shard_len());
    }

    #[test]
    fn a_byte_is_where_it_is_located(blob in blobs(), at: u64) {
        prop_assume!(!blob.is_empty());
        let at = at % blob.len();
        let found = blob.locate(at).unwrap();
        let stripe = blob.stripe(found.stripe).unwrap();
        prop_assert!(found.data_index < blob.layout().data());
        prop_assert!(found.block_offset < stripe.block_len);
        prop_assert_eq!(found.shard_offset, stripe.shard_offset + found.block_offset);
        prop_assert!(found.shard_offset < blob.shard_len());
        prop_assert_eq!(blob.object_offset(found.data_index, found.shard_offset), Some(at));
        prop_assert_eq!(blob.locate(blob.len()), None);
    }

    #[test]
    fn each_place_holds_at_most_one_byte(blob in blobs(), index: u8, at: u64) {
        let index = index % 20;
        let at = at % (blob.shard_len() + 1000);
        if let Some(offset) = blob.object_offset(index, at) {
            let found = blob.locate(offset).unwrap();
            prop_assert_eq!((found.data_index, found.shard_offset), (index, at));
        }
    }

    #[test]
    fn pieces_cover_a_range_once(
        blob in blobs(),
        start: u64,
        span in 0..20_000_000_u64,
    ) {
        let start = start % (blob.len() + 1);
        let mut next = start;
        for piece in blob.pieces(start..start + span) {
            prop_assert_eq!(piece.object_offset, next);
            prop_assert!(piece.len >= 1 && piece.len <= BLOCK);
            // Its first and last byte, so all of it, lie where it says.
            for off in [0, piece.len - 1] {
                prop_assert_eq!(
                    blob.object_offset(piece.data_index, piece.shard_offset + off),
                    Some(next + off)
                );
            }
            prop_assert_eq!(blob.locate(next).unwrap().stripe, piece.stripe);
            let check = blob.check_range(piece.shard_range());
            prop_assert!(check.start <= piece.shard_offset);
            prop_assert!(check.end >= piece.shard_offset + piece.len);
            prop_assert!(check.end - check.start <= BLOCK);
            prop_assert_eq!(check.start % CHECK_BLOCK, 0);
            prop_assert!(
                check.end.is_multiple_of(CHECK_BLOCK) || check.end == blob.shard_len()
            );
            next += piece.len;
        }
        prop_assert_eq!(next, (start + span).min(blob.len()));
    }

    #[test]
    fn a_chosen_layout_is_the_smallest_that_fits(
        scheme in layouts(),
        len in lengths(),
        target in 0..600_000_u64,
    ) {
        let scheme = crate::Scheme::new(scheme.data(), scheme.parity()).unwrap();
        let chosen = Layout::choose(scheme, Some(len), target);
        prop_assert_eq!(chosen.parity(), scheme.parity());
        let k = chosen.data();
        if k < scheme.data() {
            prop_assert!(k.is_power_of_two());
            prop_assert!(shard_len(chosen, len) <= target);
        }
        for smaller in [1, 2, 4, 8].into_iter().filter(|s| *s < k) {
            let smaller = Layout::new(smaller, scheme.parity()).unwrap();
            prop_assert!(shard_len(smaller, len) > target);
        }
    }
}

#[test]
fn wide_stripes_have_shorter_blocks() {
    for (data, block) in [(1, 256), (4, 256), (5, 128), (8, 128), (16, 128)] {
        let layout = Layout::new(data, 4).unwrap();
        assert_eq!(full_block(layout), block << 10, "{layout}");
        let two = Geometry::new(layout, 2 * u64::from(data) * (block << 10)).unwrap();
        assert_eq!(two.stripes(), 2, "{layout}");
        assert_eq!(two.shard_len(), 2 * (block << 10), "{layout}");
    }
}
