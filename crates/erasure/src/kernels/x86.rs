//! The kernels of x86-64. Two ways to multiply 16 or more bytes by one
//! factor: `pshufb` looks both halves of each byte up in a table of 16
//! (SSSE3, AVX2), `gf2p8affineqb` multiplies by a matrix of bits (GFNI).
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::columns::{Lane, run};
use super::{Factor, Job};

#[target_feature(enable = "ssse3")]
pub(super) fn ssse3(job: Job<'_, '_, '_>) {
    // SAFETY: this function has the features of the lane.
    unsafe { run::<Shuffle128>(job) }
}

#[target_feature(enable = "avx2")]
pub(super) fn avx2(job: Job<'_, '_, '_>) {
    // SAFETY: this function has the features of the lane.
    unsafe { run::<Shuffle256>(job) }
}

#[target_feature(enable = "gfni,avx2")]
pub(super) fn gfni_avx2(job: Job<'_, '_, '_>) {
    // SAFETY: this function has the features of the lane.
    unsafe { run::<Affine256>(job) }
}

#[target_feature(enable = "gfni,avx512f")]
pub(super) fn gfni_avx512(job: Job<'_, '_, '_>) {
    // SAFETY: this function has the features of the lane.
    unsafe { run::<Affine512>(job) }
}

#[derive(Clone, Copy)]
struct Shuffle128(__m128i);

// SAFETY: needs SSSE3; `load` and `store` are the unaligned ones.
unsafe impl Lane for Shuffle128 {
    const WIDTH: usize = 16;
    const OUTPUTS: usize = 4;
    type Multiplier = (__m128i, __m128i);
    type Source = (__m128i, __m128i);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: features by the trait's contract.
        Self(unsafe { _mm_setzero_si128() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: features and pointer by the trait's contract.
        Self(unsafe { _mm_loadu_si128(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: features and pointer by the trait's contract.
        unsafe { _mm_storeu_si128(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self::Source {
        // SAFETY: features by the trait's contract.
        unsafe {
            let mask = _mm_set1_epi8(0x0F);
            let high = _mm_srli_epi64::<4>(self.0);
            (_mm_and_si128(self.0, mask), _mm_and_si128(high, mask))
        }
    }

    #[inline(always)]
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier {
        // SAFETY: features by the trait's contract; both tables have 16
        // bytes.
        unsafe {
            (
                _mm_loadu_si128(factor.nibbles.low.as_ptr().cast()),
                _mm_loadu_si128(factor.nibbles.high.as_ptr().cast()),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self {
        // SAFETY: features by the trait's contract.
        unsafe {
            let low = _mm_shuffle_epi8(by.0, source.0);
            let high = _mm_shuffle_epi8(by.1, source.1);
            Self(_mm_xor_si128(self.0, _mm_xor_si128(low, high)))
        }
    }
}

#[derive(Clone, Copy)]
struct Shuffle256(__m256i);

// SAFETY: needs AVX2; `load` and `store` are the unaligned ones.
unsafe impl Lane for Shuffle256 {
    const WIDTH: usize = 32;
    const OUTPUTS: usize = 4;
    type Multiplier = (__m256i, __m256i);
    type Source = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: features by the trait's contract.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: features and pointer by the trait's contract.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: features and pointer by the trait's contract.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self::Source {
        // SAFETY: features by the trait's contract.
        unsafe {
            let mask = _mm256_set1_epi8(0x0F);
            let high = _mm256_srli_epi64::<4>(self.0);
            (_mm256_and_si256(self.0, mask), _mm256_and_si256(high, mask))
        }
    }

    #[inline(always)]
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier {
        // SAFETY: features by the trait's contract; both tables have 16
        // bytes.
        unsafe {
            let low = _mm_loadu_si128(factor.nibbles.low.as_ptr().cast());
            let high = _mm_loadu_si128(factor.nibbles.high.as_ptr().cast());
            (
                _mm256_broadcastsi128_si256(low),
                _mm256_broadcastsi128_si256(high),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self {
        // SAFETY: features by the trait's contract.
        unsafe {
            let low = _mm256_shuffle_epi8(by.0, source.0);
            let high = _mm256_shuffle_epi8(by.1, source.1);
            Self(_mm256_xor_si256(self.0, _mm256_xor_si256(low, high)))
        }
    }
}

#[derive(Clone, Copy)]
struct Affine256(__m256i);

// SAFETY: needs AVX2 and GFNI; `load` and `store` are the unaligned ones.
unsafe impl Lane for Affine256 {
    const WIDTH: usize = 32;
    const OUTPUTS: usize = 4;
    type Multiplier = __m256i;
    type Source = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: features by the trait's contract.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: features and pointer by the trait's contract.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: features and pointer by the trait's contract.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self::Source {
        self.0
    }

    #[inline(always)]
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier {
        // SAFETY: features by the trait's contract.
        unsafe { _mm256_set1_epi64x(factor.affine.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self {
        // SAFETY: features by the trait's contract.
        unsafe {
            let product = _mm256_gf2p8affine_epi64_epi8::<0>(source, by);
            Self(_mm256_xor_si256(self.0, product))
        }
    }
}

#[derive(Clone, Copy)]
struct Affine512(__m512i);

// SAFETY: needs AVX-512F and GFNI; `load` and `store` are the unaligned ones.
unsafe impl Lane for Affine512 {
    const WIDTH: usize = 64;
    const OUTPUTS: usize = 8;
    type Multiplier = __m512i;
    type Source = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: features by the trait's contract.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: features and pointer by the trait's contract.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: features and pointer by the trait's contract.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self::Source {
        self.0
    }

    #[inline(always)]
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier {
        // SAFETY: features by the trait's contract.
        unsafe { _mm512_set1_epi64(factor.affine.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self {
        // SAFETY: features by the trait's contract.
        unsafe {
            let product = _mm512_gf2p8affine_epi64_epi8::<0>(source, by);
            Self(_mm512_xor_si512(self.0, product))
        }
    }
}
