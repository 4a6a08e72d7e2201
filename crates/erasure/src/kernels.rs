//! The inner loop: outputs = matrix x inputs, over GF(2^8), byte by byte.
//!
//! Owns the choice of the instructions at run time and the checks that make
//! the unsafe loops sound: equal lengths, counts within bounds, and a
//! [`Runnable`] in hand only where the processor has the instructions.
//! Every kernel gives the same bytes. It knows nothing of codes or shards.

use std::fmt;

use crate::field::PRODUCTS;
use crate::scheme::{MAX_DATA, MAX_PARITY};

mod columns;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) const MAX_INPUTS: usize = MAX_DATA as usize;
pub(crate) const MAX_OUTPUTS: usize = MAX_PARITY as usize;

/// The instructions that the coding is done with.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kernel {
    /// Table look-ups, everywhere.
    Scalar,
    /// x86-64 with SSSE3: shuffles of 16 bytes.
    Ssse3,
    /// x86-64 with AVX2: shuffles of 32 bytes.
    Avx2,
    /// x86-64 with GFNI and AVX2: affine transforms of 32 bytes.
    GfniAvx2,
    /// x86-64 with GFNI and AVX-512: affine transforms of 64 bytes.
    GfniAvx512,
    /// aarch64: table look-ups of 16 bytes.
    Neon,
}

impl Kernel {
    /// All kernels, the fastest first.
    pub const ALL: [Self; 6] = [
        Self::GfniAvx512,
        Self::GfniAvx2,
        Self::Avx2,
        Self::Ssse3,
        Self::Neon,
        Self::Scalar,
    ];

    /// The fastest kernel that this processor can run.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.is_available())
            .unwrap_or(Self::Scalar)
    }

    /// Whether this processor can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Ssse3 => is_x86_feature_detected!("ssse3"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::GfniAvx2 => is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::GfniAvx512 => {
                is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512f")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Ssse3 => "ssse3",
            Self::Avx2 => "avx2",
            Self::GfniAvx2 => "gfni-avx2",
            Self::GfniAvx512 => "gfni-avx512",
            Self::Neon => "neon",
        })
    }
}

/// A kernel that was found to run here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Runnable(Kernel);

impl Runnable {
    pub(crate) fn new(kernel: Kernel) -> Option<Self> {
        kernel.is_available().then_some(Self(kernel))
    }

    pub(crate) fn best() -> Self {
        Self(Kernel::best())
    }

    pub(crate) fn kernel(self) -> Kernel {
        self.0
    }
}

/// The products of one factor with 0 to 15, and with 0, 16, ... 240.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
struct Nibbles {
    low: [u8; 16],
    high: [u8; 16],
}

impl Nibbles {
    fn new(factor: u8) -> Self {
        let products = &PRODUCTS[usize::from(factor)];
        Self {
            low: std::array::from_fn(|i| products[i]),
            high: std::array::from_fn(|i| products[i << 4]),
        }
    }
}

/// Multiplication by a factor as the 8 x 8 bit matrix that `gf2p8affineqb`
/// takes: byte 7 - i has a bit for each bit of the operand that bit i of
/// the product depends on.
fn affine(factor: u8) -> u64 {
    let products = &PRODUCTS[usize::from(factor)];
    let mut rows = [0_u8; 8];
    for (i, row) in rows.iter_mut().rev().enumerate() {
        for j in 0..8 {
            *row |= (products[1 << j] >> i & 1) << j;
        }
    }
    u64::from_le_bytes(rows)
}

/// One factor in the forms that the kernels take it in.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    nibbles: Nibbles,
    affine: u64,
    byte: u8,
}

impl Factor {
    fn new(byte: u8) -> Self {
        Self {
            nibbles: Nibbles::new(byte),
            affine: affine(byte),
            byte,
        }
    }
}

/// Factors of a number of outputs, ready for the kernels.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    outputs: usize,
    /// Input after input; of each input, output after output.
    factors: Box<[Factor]>,
}

impl Matrix {
    /// `rows[o][i]` is what input i is multiplied by for output o.
    pub(crate) fn new(rows: &[Vec<u8>]) -> Self {
        let inputs = rows.first().map_or(0, Vec::len);
        assert!(rows.iter().all(|row| row.len() == inputs));
        let factors = (0..inputs)
            .flat_map(|i| rows.iter().map(move |row| Factor::new(row[i])))
            .collect();
        Self {
            outputs: rows.len(),
            factors,
        }
    }

    /// The factors of all inputs.
    pub(crate) fn all(&self) -> Factors<'_> {
        Factors {
            outputs: self.outputs,
            factors: &self.factors,
        }
    }

    /// The factors of input `input` alone.
    pub(crate) fn input(&self, input: usize) -> Factors<'_> {
        let start = input * self.outputs;
        Factors {
            outputs: self.outputs,
            factors: &self.factors[start..start + self.outputs],
        }
    }
}

/// A matrix, or one column of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors<'a> {
    outputs: usize,
    factors: &'a [Factor],
}

/// What happens to the bytes that stand in the outputs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// They are replaced.
    Set,
    /// The products are added to them.
    Add,
}

/// A multiplication whose lengths and counts have been checked.
struct Job<'a, 'b, 'c> {
    factors: Factors<'a>,
    inputs: &'a [&'b [u8]],
    outputs: &'a mut [&'c mut [u8]],
    len: usize,
    mode: Mode,
}

/// Multiplies `inputs` by `factors` into `outputs`.
///
/// # Panics
/// If the counts are not those of `factors` or out of bounds, or the lengths
/// differ.
pub(crate) fn multiply(
    kernel: Runnable,
    factors: Factors<'_>,
    inputs: &[&[u8]],
    outputs: &mut [&mut [u8]],
    mode: Mode,
) {
    assert_eq!(outputs.len(), factors.outputs);
    assert_eq!(inputs.len() * outputs.len(), factors.factors.len());
    assert!((1..=MAX_INPUTS).contains(&inputs.len()));
    assert!((1..=MAX_OUTPUTS).contains(&outputs.len()));
    let len = inputs[0].len();
    assert!(inputs.iter().all(|input| input.len() == len));
    assert!(outputs.iter().all(|output| output.len() == len));
    dispatch(
        kernel,
        Job {
            factors,
            inputs,
            outputs,
            len,
            mode,
        },
    );
}

// Calling into a `target_feature` function is what is unsafe here.
#[allow(unsafe_code)]
fn dispatch(kernel: Runnable, job: Job<'_, '_, '_>) {
    match kernel.kernel() {
        // SAFETY: a Runnable exists only where its kernel is available, that
        // is, where the processor has the features of the function.
        #[cfg(target_arch = "x86_64")]
        Kernel::Ssse3 => unsafe { x86::ssse3(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => unsafe { x86::avx2(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::GfniAvx2 => unsafe { x86::gfni_avx2(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::GfniAvx512 => unsafe { x86::gfni_avx512(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => unsafe { neon::neon(job) },
        _ => scalar::multiply(job),
    }
}

#[cfg(test)]
mod tests;
