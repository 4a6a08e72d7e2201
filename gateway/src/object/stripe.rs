//! Cuts a body into the blocks of its shards as it comes.
//!
//! Owns [`StripeCoder`]. A data block is given out as soon as it is full and
//! parity accumulates beside it, so that between two calls it holds one block
//! and m parity blocks, whatever the body's length. Invariant: what it gives
//! out for one shard is that shard's bytes in order, each block with its
//! checksums. No I/O; who sends the blocks is `writer`.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_erasure::{Accumulator, Codec, Geometry, Layout, MAX_LEN, Stripe, full_block};
use shardgate_wire::checksum::block_crcs;

use super::buffers::{Block, BlockPool};

/// A block of one shard, or of all of them where they are copies.
#[derive(Clone, Debug)]
pub struct CodedBlock {
    /// The shards that it belongs to.
    pub shards: Range<u8>,
    /// Where it begins in them.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Bytes,
    /// One checksum per 64 KiB.
    pub crcs: Arc<[u32]>,
}

impl CodedBlock {
    fn new(shards: Range<u8>, offset: u64, bytes: Bytes) -> Self {
        let crcs = block_crcs(&bytes).into();
        Self {
            shards,
            offset,
            bytes,
            crcs,
        }
    }
}

/// The data block that is filling up.
struct Filling {
    stripe: Stripe,
    data_index: u8,
    /// Bytes of the object that go into it.
    len: usize,
    block: Block,
}

/// See the module.
pub struct StripeCoder {
    codec: Codec,
    geometry: Geometry,
    pool: BlockPool,
    /// Bytes of the object taken so far.
    at: u64,
    filling: Option<Filling>,
    parity: Vec<Block>,
    accumulator: Accumulator,
}

impl StripeCoder {
    /// A coder of a body of `len` bytes. `None`: not known; then only whole
    /// stripes may be fed until [`Self::set_len`].
    ///
    /// # Panics
    /// If `len` is above the longest blob, which callers have refused.
    pub fn new(codec: Codec, len: Option<u64>, pool: BlockPool) -> Self {
        let geometry = Geometry::new(codec.layout(), len.unwrap_or(MAX_LEN))
            .expect("bodies are far shorter than the longest blob");
        let accumulator = codec.accumulate();
        Self {
            codec,
            geometry,
            pool,
            at: 0,
            filling: None,
            parity: Vec::new(),
            accumulator,
        }
    }

    /// Says how long the body is, between two stripes.
    pub fn set_len(&mut self, len: u64) {
        assert!(self.filling.is_none() && self.parity.is_empty());
        assert!(self.at <= len && self.at.is_multiple_of(stripe_bytes(self.layout())));
        self.geometry =
            Geometry::new(self.layout(), len).expect("bodies are far shorter than that");
    }

    /// The layout that it codes.
    pub fn layout(&self) -> Layout {
        self.codec.layout()
    }

    /// Bytes of the shards, once the length is known.
    pub fn shard_len(&self) -> u64 {
        self.geometry.shard_len()
    }

    /// Bytes that it holds now.
    pub fn held(&self) -> u64 {
        let filling = self.filling.as_ref().map_or(0, |it| it.stripe.block_len);
        let parity = self.parity.first().map_or(0, |block| block.len() as u64);
        filling + parity * self.parity.len() as u64
    }

    /// Bytes that it will take up with the next byte fed.
    pub fn needs(&self) -> u64 {
        if self.filling.is_some() {
            return 0;
        }
        let Some(at) = self.geometry.locate(self.at) else {
            return 0;
        };
        let stripe = self.geometry.stripe(at.stripe);
        let block_len = stripe.map_or_else(|| full_block(self.layout()), |stripe| stripe.block_len);
        let parity = match self.layout().is_copies() || !self.parity.is_empty() {
            true => 0,
            false => u64::from(self.layout().parity()),
        };
        (1 + parity) * block_len
    }

    /// Takes bytes up to the end of the block in hand. Says how many, and
    /// gives the blocks that became whole.
    ///
    /// # Panics
    /// If more is fed than the body's length; callers have checked it.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, Vec<CodedBlock>) {
        if bytes.is_empty() {
            return (0, Vec::new());
        }
        let mut filling = match self.filling.take() {
            Some(filling) => filling,
            None => self.begin_block(),
        };
        let taken = bytes.len().min(filling.len - filling.block.len());
        filling.block.extend(&bytes[..taken]);
        self.at += taken as u64;
        if filling.block.len() < filling.len {
            self.filling = Some(filling);
            return (taken, Vec::new());
        }
        (taken, self.end_block(filling))
    }

    fn begin_block(&mut self) -> Filling {
        let at = self.geometry.locate(self.at).expect("within the body");
        let stripe = self.geometry.stripe(at.stripe).expect("its stripe");
        let range = stripe.block_range(at.data_index);
        let block_len = stripe.block_len as usize;
        if self.parity.is_empty() && !self.layout().is_copies() {
            let parity = 0..self.layout().parity();
            self.parity = parity.map(|_| self.zeroes(block_len)).collect();
            self.accumulator = self.codec.accumulate();
        }
        Filling {
            stripe,
            data_index: at.data_index,
            len: (range.end - range.start) as usize,
            block: self.pool.take(block_len),
        }
    }

    fn zeroes(&self, len: usize) -> Block {
        let mut block = self.pool.take(len);
        block.resize(len);
        block
    }

    fn end_block(&mut self, filling: Filling) -> Vec<CodedBlock> {
        let Filling {
            stripe,
            data_index,
            mut block,
            ..
        } = filling;
        let (offset, block_len) = (stripe.shard_offset, stripe.block_len as usize);
        let layout = self.layout();
        if layout.is_copies() {
            block.resize(block_len);
            return vec![CodedBlock::new(0..layout.shards(), offset, block.freeze())];
        }
        self.accumulator
            .add_block(data_index, block.as_ref(), &mut self.parity)
            .expect("blocks come once, in order, and fit");
        block.resize(block_len);
        let mut coded = vec![CodedBlock::new(
            data_index..data_index + 1,
            offset,
            block.freeze(),
        )];
        if self.at < stripe.object_offset + stripe.data_len {
            return coded;
        }
        // What is left of the stripe is padding: shards are equally long.
        for padding in data_index + 1..layout.data() {
            let block = self.zeroes(block_len).freeze();
            coded.push(CodedBlock::new(padding..padding + 1, offset, block));
        }
        for (shard, block) in (layout.data()..).zip(std::mem::take(&mut self.parity)) {
            coded.push(CodedBlock::new(shard..shard + 1, offset, block.freeze()));
        }
        coded
    }
}

/// Bytes of the object in a full stripe.
pub fn stripe_bytes(layout: Layout) -> u64 {
    u64::from(layout.data()) * full_block(layout)
}

/// Bytes to reserve for a body of one stripe that is padded to its blocks.
pub fn padded_len(geometry: &Geometry) -> usize {
    let block = geometry.stripe(0).map_or(0, |stripe| stripe.block_len);
    block as usize * usize::from(geometry.layout().data())
}

/// Codes a body of at most one stripe that is in memory: its data blocks are
/// slices of it.
///
/// # Panics
/// If `padded` is not the body with zeroes up to [`padded_len`].
pub fn code_whole(
    codec: &Codec,
    geometry: &Geometry,
    padded: &Bytes,
    pool: &BlockPool,
) -> Vec<CodedBlock> {
    let layout = geometry.layout();
    assert!(geometry.stripes() == 1 && padded.len() == padded_len(geometry));
    let block_len = padded.len() / usize::from(layout.data());
    if layout.is_copies() {
        return vec![CodedBlock::new(0..layout.shards(), 0, padded.clone())];
    }
    let data: Vec<Bytes> = (0..usize::from(layout.data()))
        .map(|index| padded.slice(index * block_len..(index + 1) * block_len))
        .collect();
    let mut parity: Vec<Block> = (0..layout.parity())
        .map(|_| {
            let mut block = pool.take(block_len);
            block.resize(block_len);
            block
        })
        .collect();
    codec
        .encode(&data, &mut parity)
        .expect("all blocks are of one length");
    let blocks = data
        .into_iter()
        .chain(parity.into_iter().map(Block::freeze));
    (0..)
        .zip(blocks)
        .map(|(shard, bytes)| CodedBlock::new(shard..shard + 1, 0, bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All shards of a body, fed in frames.
    fn shards(layout: Layout, body: &[u8], frames: &[usize], known: bool) -> Vec<Vec<u8>> {
        let pool = BlockPool::new(2 << 20);
        let known_len = known.then_some(body.len() as u64);
        let mut coder = StripeCoder::new(Codec::new(layout), known_len, pool);
        let mut shards = vec![Vec::new(); layout.shards().into()];
        let mut at = 0;
        let mut frames = frames.iter().cycle();
        let stripe = stripe_bytes(layout) as usize;
        while at < body.len() {
            if !known && at.is_multiple_of(stripe) && body.len() - at < stripe {
                coder.set_len(body.len() as u64);
            }
            let end = (at + frames.next().unwrap()).min(body.len());
            let need = coder.needs();
            let held = coder.held();
            let (taken, coded) = coder.feed(&body[at..end]);
            assert!(coder.held() <= held + need);
            at += taken;
            for block in coded {
                assert_eq!(*block.crcs, *block_crcs(&block.bytes));
                for shard in block.shards {
                    let shard = &mut shards[usize::from(shard)];
                    assert_eq!(shard.len() as u64, block.offset);
                    shard.extend_from_slice(&block.bytes);
                }
            }
        }
        assert_eq!(coder.held(), 0);
        shards
    }

    /// The same by the codec over whole stripes.
    fn expected(layout: Layout, body: &[u8]) -> Vec<Vec<u8>> {
        let geometry = Geometry::new(layout, body.len() as u64).unwrap();
        let codec = Codec::new(layout);
        let mut shards = vec![Vec::new(); layout.shards().into()];
        for stripe in (0..geometry.stripes()).map(|index| geometry.stripe(index).unwrap()) {
            let data: Vec<Vec<u8>> = (0..layout.data())
                .map(|index| {
                    let range = stripe.block_range(index);
                    let mut block = body[range.start as usize..range.end as usize].to_vec();
                    block.resize(stripe.block_len as usize, 0);
                    block
                })
                .collect();
            let mut parity = vec![vec![0; stripe.block_len as usize]; layout.parity().into()];
            codec.encode(&data, &mut parity).unwrap();
            for (shard, block) in shards.iter_mut().zip(data.iter().chain(&parity)) {
                shard.extend_from_slice(block);
            }
        }
        shards
    }

    fn body(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i * 7 + i / 251 + i / 65_521) as u8)
            .collect()
    }

    #[test]
    fn lengths_around_every_border() {
        for (data, parity) in [(1, 0), (1, 2), (2, 2), (4, 2), (8, 4)] {
            let layout = Layout::new(data, parity).unwrap();
            let stripe = stripe_bytes(layout) as usize;
            for len in [
                1,
                63,
                64,
                65,
                65_537,
                stripe - 1,
                stripe,
                stripe + 1,
                2 * stripe + 77,
            ] {
                let body = body(len);
                let expected = expected(layout, &body);
                for known in [true, false] {
                    let found = shards(layout, &body, &[100_000, 1, 300_000], known);
                    assert!(found == expected, "{layout} of {len}, known: {known}");
                }
                let geometry = Geometry::new(layout, len as u64).unwrap();
                if geometry.stripes() == 1 {
                    let mut padded = body.clone();
                    padded.resize(padded_len(&geometry), 0);
                    let pool = BlockPool::new(2 << 20);
                    let coded = code_whole(&Codec::new(layout), &geometry, &padded.into(), &pool);
                    for block in coded {
                        for shard in block.shards {
                            assert!(block.bytes == expected[usize::from(shard)]);
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn frames_do_not_matter(
            data in 1..5_u8, parity in 1..3_u8, len in 1..3_000_000_usize,
            frames in proptest::collection::vec(1..400_000_usize, 1..5),
        ) {
            let layout = Layout::new(data, parity).unwrap();
            let body = body(len);
            prop_assert!(shards(layout, &body, &frames, true) == expected(layout, &body));
        }
    }
}
