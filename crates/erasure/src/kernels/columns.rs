//! The loop that all vector kernels share, written once over a [`Lane`].
//!
//! It goes through the shards in columns of a few vectors. The sums of a
//! column, for up to [`Lane::OUTPUTS`] outputs, stay in registers while all
//! inputs are added to them, so that each input byte is read once and each
//! output byte is written once. What is left at the end goes through the
//! same loop in a small buffer: no byte outside of the slices is touched.
//!
//! Everything is inlined into the `target_feature` functions of `x86` and
//! `neon`; nothing here may be called from elsewhere.
#![allow(unsafe_code)]

use super::{Factor, Job, MAX_INPUTS, MAX_OUTPUTS, Mode};

/// The widest vector in bytes.
const WIDEST: usize = 64;
/// Where there are more outputs than [`Lane::OUTPUTS`], the bytes of each
/// input that are gone through for all outputs before the next: 16 inputs
/// of it stay in a first-level cache.
const CHUNK: usize = 1024;

/// A vector of bytes and what can be done with it.
///
/// # Safety
/// All functions may be called only where the processor has the features of
/// the implementation, and `load` and `store` only with pointers to `WIDTH`
/// bytes that may be read, or written. No alignment is needed.
pub(super) unsafe trait Lane: Copy {
    /// Bytes of a vector, at most [`WIDEST`].
    const WIDTH: usize;
    /// The most outputs whose sums fit into the registers: 8 or 4.
    const OUTPUTS: usize;
    /// A factor in registers.
    type Multiplier: Copy;
    /// An input in the form that it is multiplied in.
    type Source: Copy;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn source(self) -> Self::Source;
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier;
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self;
}

/// The bytes of a job as pointers, for some of its outputs.
struct Span<'a> {
    inputs: &'a [*const u8],
    outputs: &'a [*mut u8],
    factors: &'a [Factor],
    /// Factors from one input to the next.
    stride: usize,
    mode: Mode,
}

/// Does `job` with vectors of `L`.
///
/// # Safety
/// The processor has the features of `L`.
#[inline(always)]
pub(super) unsafe fn run<L: Lane>(job: Job<'_, '_, '_>) {
    let mut inputs = [std::ptr::null(); MAX_INPUTS];
    for (to, from) in inputs.iter_mut().zip(job.inputs) {
        *to = from.as_ptr();
    }
    let mut outputs = [std::ptr::null_mut(); MAX_OUTPUTS];
    for (to, from) in outputs.iter_mut().zip(job.outputs.iter_mut()) {
        *to = from.as_mut_ptr();
    }
    let inputs = &inputs[..job.inputs.len()];
    let outputs = &outputs[..job.outputs.len()];
    let chunk = if outputs.len() > L::OUTPUTS {
        CHUNK
    } else {
        usize::MAX
    };
    let mut from = 0;
    while from < job.len {
        let to = job.len.min(from.saturating_add(chunk));
        for (group, outputs) in outputs.chunks(L::OUTPUTS).enumerate() {
            let span = Span {
                inputs,
                outputs,
                factors: &job.factors.factors[group * L::OUTPUTS..],
                stride: job.factors.outputs,
                mode: job.mode,
            };
            // SAFETY: features as promised. All slices are `job.len` long
            // (checked in `multiply`), and the outputs, being `&mut`,
            // overlap nothing.
            unsafe { by_outputs::<L>(&span, from, to) };
        }
        from = to;
    }
}

/// # Safety
/// As [`columns`].
#[inline(always)]
unsafe fn by_outputs<L: Lane>(span: &Span<'_>, from: usize, to: usize) {
    // Sums, sources and a multiplier must fit: 32 registers where OUTPUTS is
    // 8, else 16.
    // SAFETY: the caller's promise is handed on.
    unsafe {
        match (L::OUTPUTS, span.outputs.len()) {
            (8, 1) => all::<L, 1, 4>(span, from, to),
            (8, 2) => all::<L, 2, 4>(span, from, to),
            (8, 3) => all::<L, 3, 4>(span, from, to),
            (8, 4) => all::<L, 4, 4>(span, from, to),
            (8, 5) => all::<L, 5, 2>(span, from, to),
            (8, 6) => all::<L, 6, 2>(span, from, to),
            (8, 7) => all::<L, 7, 2>(span, from, to),
            (8, 8) => all::<L, 8, 2>(span, from, to),
            (4, 1) => all::<L, 1, 2>(span, from, to),
            (4, 2) => all::<L, 2, 2>(span, from, to),
            (4, 3) => all::<L, 3, 2>(span, from, to),
            (4, 4) => all::<L, 4, 2>(span, from, to),
            (most, count) => unreachable!("{count} outputs of at most {most}"),
        }
    }
}

/// Bytes `from..to`, in columns of U vectors, then of one, then the rest.
///
/// # Safety
/// As [`columns`].
#[inline(always)]
unsafe fn all<L: Lane, const O: usize, const U: usize>(span: &Span<'_>, from: usize, to: usize) {
    // SAFETY: the caller's promise is handed on; the stops are within
    // `from..to`.
    unsafe {
        let at = columns::<L, O, U>(span, from, to);
        let at = columns::<L, O, 1>(span, at, to);
        if at < to {
            rest::<L, O>(span, at, to - at);
        }
    }
}

/// Goes from `from` as far towards `to` as whole columns of U vectors
/// reach, and says how far that is.
///
/// # Safety
/// The processor has the features of `L`. There are O outputs. All inputs
/// may be read, and all outputs written, from `from` to `to`, and no output
/// overlaps any other of them. There is a factor for each input and output.
#[inline(always)]
unsafe fn columns<L: Lane, const O: usize, const U: usize>(
    span: &Span<'_>,
    from: usize,
    to: usize,
) -> usize {
    let outputs: &[*mut u8; O] = span.outputs.try_into().expect("O outputs");
    let mut at = from;
    while to - at >= L::WIDTH * U {
        // SAFETY: features as promised; every access is to WIDTH bytes from
        // `at + u * WIDTH` on, which end at or before `to`.
        unsafe {
            let mut sums = [[L::zero(); U]; O];
            if span.mode == Mode::Add {
                for (sums, output) in sums.iter_mut().zip(outputs) {
                    for (u, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(output.add(at + u * L::WIDTH));
                    }
                }
            }
            for (i, input) in span.inputs.iter().enumerate() {
                let mut sources = [L::zero().source(); U];
                for (u, source) in sources.iter_mut().enumerate() {
                    *source = L::load(input.add(at + u * L::WIDTH)).source();
                }
                for (o, sums) in sums.iter_mut().enumerate() {
                    let factor = span.factors.get_unchecked(i * span.stride + o);
                    let by = L::multiplier(factor);
                    for (sum, source) in sums.iter_mut().zip(sources) {
                        *sum = sum.add_product(source, by);
                    }
                }
            }
            for (sums, output) in sums.iter().zip(outputs) {
                for (u, sum) in sums.iter().enumerate() {
                    sum.store(output.add(at + u * L::WIDTH));
                }
            }
        }
        at += L::WIDTH * U;
    }
    at
}

/// Fewer bytes than a vector has.
///
/// # Safety
/// As [`columns`], with `len < L::WIDTH` bytes from `from` on.
#[inline(always)]
unsafe fn rest<L: Lane, const O: usize>(span: &Span<'_>, from: usize, len: usize) {
    let mut sources = [[0_u8; WIDEST]; MAX_INPUTS];
    let mut sums = [[0_u8; WIDEST]; O];
    // SAFETY: `len` is less than WIDTH, so at most WIDEST; the caller
    // promises the other side.
    unsafe {
        for (to, input) in sources.iter_mut().zip(span.inputs) {
            input.add(from).copy_to_nonoverlapping(to.as_mut_ptr(), len);
        }
        for (to, output) in sums.iter_mut().zip(span.outputs) {
            output
                .add(from)
                .copy_to_nonoverlapping(to.as_mut_ptr(), len);
        }
        let inputs: [*const u8; MAX_INPUTS] = std::array::from_fn(|i| sources[i].as_ptr());
        let mut outputs = [std::ptr::null_mut(); O];
        for (to, sum) in outputs.iter_mut().zip(&mut sums) {
            *to = sum.as_mut_ptr();
        }
        let buffered = Span {
            inputs: &inputs[..span.inputs.len()],
            outputs: &outputs,
            ..*span
        };
        columns::<L, O, 1>(&buffered, 0, L::WIDTH);
        for (from_sum, output) in outputs.iter().zip(span.outputs) {
            from_sum.copy_to_nonoverlapping(output.add(from), len);
        }
    }
}
