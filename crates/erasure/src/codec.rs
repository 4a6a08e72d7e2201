//! Encoding the blocks of a stripe, and reconstructing lost ones.
//!
//! Owns the checks of what callers pass in, and which factors the kernels
//! are given. Invariant: parity bytes depend on the data and the layout
//! alone, never on the kernel. The code works byte by byte, so every call
//! here may be about whole blocks or about the same part of each block.
//!
//! It does not verify: a wrong byte in makes wrong bytes out. Whoever reads
//! shards checks their checksums first.

use std::sync::Arc;

use thiserror::Error;

use crate::field::interpolate;
use crate::kernels::{Factors, Kernel, Matrix, Mode, Runnable, multiply};
use crate::layout::Layout;
use crate::scheme::MAX_SHARDS;

/// Why blocks cannot be coded.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CodecError {
    /// This processor lacks the instructions.
    #[error("kernel {0} is not available on this processor")]
    KernelUnavailable(Kernel),
    /// More or fewer blocks were passed than the layout has.
    #[error("{found} blocks where the layout has {needed}")]
    BlockCount {
        /// What was passed.
        found: usize,
        /// What the layout asks for.
        needed: usize,
    },
    /// A block is longer or shorter than the others.
    #[error("a block of {found} bytes among blocks of {needed}")]
    BlockLen {
        /// The length of the odd one.
        found: usize,
        /// The length of the others.
        needed: usize,
    },
    /// The layout has no such shard, or no such data shard where one is
    /// asked for.
    #[error("shard {0} is not of this layout")]
    NoSuchShard(u8),
    /// A shard was passed or asked for twice.
    #[error("shard {0} is named twice")]
    Repeated(u8),
    /// Fewer than k' shards are present.
    #[error("{present} shards are present, {needed} are needed")]
    TooFewShards {
        /// How many are there.
        present: usize,
        /// k' of the layout.
        needed: usize,
    },
}

/// Encoder and decoder of one layout. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Codec {
    layout: Layout,
    kernel: Runnable,
    /// From all data shards to all parity shards.
    parity: Arc<Matrix>,
}

impl Codec {
    /// A codec with the fastest kernel of this processor.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self::with(layout, Runnable::best())
    }

    /// A codec with a given kernel, for tests and measurements.
    ///
    /// # Errors
    /// [`CodecError::KernelUnavailable`].
    pub fn with_kernel(layout: Layout, kernel: Kernel) -> Result<Self, CodecError> {
        Runnable::new(kernel)
            .map(|kernel| Self::with(layout, kernel))
            .ok_or(CodecError::KernelUnavailable(kernel))
    }

    fn with(layout: Layout, kernel: Runnable) -> Self {
        let data: Vec<u8> = (0..layout.data()).collect();
        let rows: Vec<Vec<u8>> = (layout.data()..layout.shards())
            .map(|shard| interpolate(&data, shard).collect())
            .collect();
        Self {
            layout,
            kernel,
            parity: Arc::new(Matrix::new(&rows)),
        }
    }

    /// The layout it codes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The kernel it codes with.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel.kernel()
    }

    /// Computes the m parity blocks of k' data blocks, all of one length.
    /// What stood in `parity` is overwritten.
    ///
    /// # Errors
    /// A count or a length does not match; `parity` is untouched.
    pub fn encode<D, P>(&self, data: &[D], parity: &mut [P]) -> Result<(), CodecError>
    where
        D: AsRef<[u8]>,
        P: AsMut<[u8]>,
    {
        check_count(data.len(), self.layout.data().into())?;
        check_count(parity.len(), self.layout.parity().into())?;
        let inputs: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(AsMut::as_mut).collect();
        check_lens(&inputs, &outputs)?;
        self.run(self.parity.all(), &inputs, &mut outputs, Mode::Set);
        Ok(())
    }

    /// Starts the parity of a stripe whose data blocks come one by one.
    #[must_use]
    pub fn accumulate(&self) -> Accumulator {
        Accumulator {
            codec: self.clone(),
            added: 0,
            len: 0,
        }
    }

    /// Prepares to compute the shards `wanted` from any k' of the shards
    /// `present`, data shards preferred. For many blocks with the same
    /// shards lost, one decoder serves.
    ///
    /// # Errors
    /// Too few shards are present, or an index is named twice, in one list
    /// or in both, or is not of the layout.
    pub fn decoder(&self, present: &[u8], wanted: &[u8]) -> Result<Decoder, CodecError> {
        let mut seen = [false; MAX_SHARDS as usize];
        for &shard in present.iter().chain(wanted) {
            if shard >= self.layout.shards() {
                return Err(CodecError::NoSuchShard(shard));
            }
            if std::mem::replace(&mut seen[usize::from(shard)], true) {
                return Err(CodecError::Repeated(shard));
            }
        }
        let needed = usize::from(self.layout.data());
        if present.len() < needed {
            return Err(CodecError::TooFewShards {
                present: present.len(),
                needed,
            });
        }
        let mut sources = present.to_vec();
        // Stable: among parity shards the caller's order decides.
        sources.sort_by_key(|shard| *shard >= self.layout.data());
        sources.truncate(needed);
        let rows: Vec<Vec<u8>> = wanted
            .iter()
            .map(|shard| interpolate(&sources, *shard).collect())
            .collect();
        Ok(Decoder {
            codec: self.clone(),
            sources,
            wanted: wanted.to_vec(),
            matrix: Matrix::new(&rows),
        })
    }

    /// Computes the blocks of the shards `wanted` from any k' of `present`,
    /// each with its index in the layout. What stood in `wanted` is
    /// overwritten.
    ///
    /// # Errors
    /// As [`Codec::decoder`], or the lengths differ; `wanted` is untouched.
    pub fn reconstruct<D, P>(
        &self,
        present: &[(u8, D)],
        wanted: &mut [(u8, P)],
    ) -> Result<(), CodecError>
    where
        D: AsRef<[u8]>,
        P: AsMut<[u8]>,
    {
        let indices: Vec<u8> = present.iter().map(|(shard, _)| *shard).collect();
        let lost: Vec<u8> = wanted.iter().map(|(shard, _)| *shard).collect();
        let decoder = self.decoder(&indices, &lost)?;
        let sources: Vec<&[u8]> = decoder
            .sources
            .iter()
            .filter_map(|source| present.iter().find(|(shard, _)| shard == source))
            .map(|(_, block)| block.as_ref())
            .collect();
        let mut blocks: Vec<&mut P> = wanted.iter_mut().map(|(_, block)| block).collect();
        decoder.reconstruct(&sources, &mut blocks)
    }

    /// Lengths and counts have been checked.
    fn run(&self, factors: Factors<'_>, inputs: &[&[u8]], outputs: &mut [&mut [u8]], mode: Mode) {
        if outputs.is_empty() {
            return;
        }
        if self.layout.is_copies() {
            // One input, and nothing but factors of 1.
            for output in outputs {
                output.copy_from_slice(inputs[0]);
            }
            return;
        }
        multiply(self.kernel, factors, inputs, outputs, mode);
    }
}

/// The parity of one stripe, growing with each data block, so that a writer
/// holds m parity blocks and the block in hand, not the stripe.
#[derive(Clone, Debug)]
pub struct Accumulator {
    codec: Codec,
    /// A bit for each data block that is in.
    added: u32,
    /// The bytes of each parity block, known from the first call on.
    len: usize,
}

impl Accumulator {
    /// Adds data block `data_index` to the m `parity` blocks, which are the
    /// same in every call. The first call overwrites what stands in them. A
    /// block may be shorter than they are: what it lacks is padding. A block
    /// that is nothing but padding need not be added.
    ///
    /// # Errors
    /// The block is in already or is no data block, a count or a length does
    /// not match; `parity` is untouched.
    pub fn add_block<P>(
        &mut self,
        data_index: u8,
        block: &[u8],
        parity: &mut [P],
    ) -> Result<(), CodecError>
    where
        P: AsMut<[u8]>,
    {
        let layout = self.codec.layout;
        check_count(parity.len(), layout.parity().into())?;
        if data_index >= layout.data() {
            return Err(CodecError::NoSuchShard(data_index));
        }
        let bit = 1 << data_index;
        if self.added & bit != 0 {
            return Err(CodecError::Repeated(data_index));
        }
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(AsMut::as_mut).collect();
        let first = self.added == 0;
        let len = match outputs.first() {
            Some(output) if first => output.len(),
            Some(_) => self.len,
            // No parity (1+0): nothing to compute.
            None => block.len(),
        };
        outputs
            .iter()
            .try_for_each(|output| check_len(output.len(), len))?;
        if block.len() > len {
            check_len(block.len(), len)?;
        }
        let mode = if first { Mode::Set } else { Mode::Add };
        for output in &mut outputs {
            let (own, padding) = std::mem::take(output).split_at_mut(block.len());
            if first {
                padding.fill(0);
            }
            *output = own;
        }
        let factors = self.codec.parity.input(usize::from(data_index));
        self.codec.run(factors, &[block], &mut outputs, mode);
        self.added |= bit;
        self.len = len;
        Ok(())
    }

    /// Whether every data block is in.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.added.count_ones() == u32::from(self.codec.layout.data())
    }
}

/// Computes certain shards of a layout from certain others.
#[derive(Clone, Debug)]
pub struct Decoder {
    codec: Codec,
    sources: Vec<u8>,
    wanted: Vec<u8>,
    matrix: Matrix,
}

impl Decoder {
    /// The k' shards that it reads, in the order in which it takes them.
    #[must_use]
    pub fn sources(&self) -> &[u8] {
        &self.sources
    }

    /// The shards that it computes, in the order in which it gives them.
    #[must_use]
    pub fn wanted(&self) -> &[u8] {
        &self.wanted
    }

    /// Computes the wanted blocks from those of the sources, all of one
    /// length. What stood in `wanted` is overwritten.
    ///
    /// # Errors
    /// A count or a length does not match; `wanted` is untouched.
    pub fn reconstruct<D, P>(&self, sources: &[D], wanted: &mut [P]) -> Result<(), CodecError>
    where
        D: AsRef<[u8]>,
        P: AsMut<[u8]>,
    {
        check_count(sources.len(), self.sources.len())?;
        check_count(wanted.len(), self.wanted.len())?;
        let inputs: Vec<&[u8]> = sources.iter().map(AsRef::as_ref).collect();
        let mut outputs: Vec<&mut [u8]> = wanted.iter_mut().map(AsMut::as_mut).collect();
        check_lens(&inputs, &outputs)?;
        self.codec
            .run(self.matrix.all(), &inputs, &mut outputs, Mode::Set);
        Ok(())
    }
}

fn check_count(found: usize, needed: usize) -> Result<(), CodecError> {
    if found == needed {
        Ok(())
    } else {
        Err(CodecError::BlockCount { found, needed })
    }
}

fn check_len(found: usize, needed: usize) -> Result<(), CodecError> {
    if found == needed {
        Ok(())
    } else {
        Err(CodecError::BlockLen { found, needed })
    }
}

/// All lengths are that of the first input.
fn check_lens(inputs: &[&[u8]], outputs: &[&mut [u8]]) -> Result<(), CodecError> {
    let needed = inputs.first().map_or(0, |input| input.len());
    let outputs = outputs.iter().map(|output| output.len());
    inputs
        .iter()
        .map(|input| input.len())
        .chain(outputs)
        .try_for_each(|found| check_len(found, needed))
}

#[cfg(test)]
mod tests;
