//! The plain kernel: one look-up per byte and factor, no unsafe code. The
//! others are measured against it, so it stays simple.

use super::{Job, Mode};
use crate::field::PRODUCTS;

pub(super) fn multiply(job: Job<'_, '_, '_>) {
    for (o, output) in job.outputs.iter_mut().enumerate() {
        if job.mode == Mode::Set {
            output.fill(0);
        }
        for (i, input) in job.inputs.iter().enumerate() {
            let factor = job.factors.factors[i * job.factors.outputs + o].byte;
            let products = &PRODUCTS[usize::from(factor)];
            for (to, from) in output.iter_mut().zip(*input) {
                *to ^= products[usize::from(*from)];
            }
        }
    }
}
