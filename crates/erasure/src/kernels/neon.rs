//! The kernel of aarch64: `tbl` looks both halves of each byte up in a table
//! of 16.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::columns::{Lane, run};
use super::{Factor, Job};

#[target_feature(enable = "neon")]
pub(super) fn neon(job: Job<'_, '_, '_>) {
    // SAFETY: this function has the features of the lane.
    unsafe { run::<Table>(job) }
}

#[derive(Clone, Copy)]
struct Table(uint8x16_t);

// SAFETY: needs NEON; `load` and `store` need no alignment.
unsafe impl Lane for Table {
    const WIDTH: usize = 16;
    const OUTPUTS: usize = 4;
    type Multiplier = (uint8x16_t, uint8x16_t);
    type Source = (uint8x16_t, uint8x16_t);

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: features by the trait's contract.
        Self(unsafe { vdupq_n_u8(0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: features and pointer by the trait's contract.
        Self(unsafe { vld1q_u8(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: features and pointer by the trait's contract.
        unsafe { vst1q_u8(to, self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self::Source {
        // SAFETY: features by the trait's contract.
        unsafe { (vandq_u8(self.0, vdupq_n_u8(0x0F)), vshrq_n_u8::<4>(self.0)) }
    }

    #[inline(always)]
    unsafe fn multiplier(factor: &Factor) -> Self::Multiplier {
        // SAFETY: features by the trait's contract; both tables have 16
        // bytes.
        unsafe {
            (
                vld1q_u8(factor.nibbles.low.as_ptr()),
                vld1q_u8(factor.nibbles.high.as_ptr()),
            )
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, source: Self::Source, by: Self::Multiplier) -> Self {
        // SAFETY: features by the trait's contract.
        unsafe {
            let low = vqtbl1q_u8(by.0, source.0);
            let high = vqtbl1q_u8(by.1, source.1);
            Self(veorq_u8(self.0, veorq_u8(low, high)))
        }
    }
}
