//! Every kernel that runs here against one multiplication per byte.

use proptest::prelude::*;

use super::*;
use crate::field::mul;

/// A buffer whose bytes from `skip` on are the operand, with room behind.
#[derive(Clone, Debug, PartialEq)]
struct Buffer {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Buffer {
    fn operand(&self) -> &[u8] {
        &self.bytes[self.skip..self.skip + self.len]
    }

    fn operand_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..self.skip + self.len]
    }
}

fn buffer(len: usize) -> impl Strategy<Value = Buffer> {
    (0..70_usize, prop::collection::vec(any::<u8>(), len + 140))
        .prop_map(move |(skip, bytes)| Buffer { bytes, skip, len })
}

#[derive(Clone, Debug)]
struct Case {
    rows: Vec<Vec<u8>>,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
    mode: Mode,
}

fn cases() -> impl Strategy<Value = Case> {
    let len = prop_oneof![0..200_usize, 200..2_500_usize];
    (1..=MAX_INPUTS, 1..=MAX_OUTPUTS, len, any::<bool>()).prop_flat_map(
        |(inputs, outputs, len, add)| {
            let factor = prop_oneof![Just(0), Just(1), any::<u8>()];
            let row = prop::collection::vec(factor, inputs);
            (
                prop::collection::vec(row, outputs),
                prop::collection::vec(buffer(len), inputs),
                prop::collection::vec(buffer(len), outputs),
            )
                .prop_map(move |(rows, inputs, outputs)| Case {
                    rows,
                    inputs,
                    outputs,
                    mode: if add { Mode::Add } else { Mode::Set },
                })
        },
    )
}

/// The outputs as they must be, all bytes around the operands untouched.
fn expected(case: &Case) -> Vec<Buffer> {
    let mut outputs = case.outputs.clone();
    for (o, output) in outputs.iter_mut().enumerate() {
        for (x, byte) in output.operand_mut().iter_mut().enumerate() {
            let mut sum = if case.mode == Mode::Add { *byte } else { 0 };
            for (i, input) in case.inputs.iter().enumerate() {
                sum ^= mul(case.rows[o][i], input.operand()[x]);
            }
            *byte = sum;
        }
    }
    outputs
}

fn found(kernel: Runnable, case: &Case) -> Vec<Buffer> {
    let mut outputs = case.outputs.clone();
    let matrix = Matrix::new(&case.rows);
    let inputs: Vec<&[u8]> = case.inputs.iter().map(Buffer::operand).collect();
    let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(Buffer::operand_mut).collect();
    multiply(kernel, matrix.all(), &inputs, &mut slices, case.mode);
    outputs
}

fn runnable() -> impl Iterator<Item = Runnable> {
    Kernel::ALL.into_iter().filter_map(Runnable::new)
}

proptest! {
    #[test]
    fn every_kernel_agrees_with_single_products(case in cases()) {
        let expected = expected(&case);
        for kernel in runnable() {
            // Not prop_assert_eq: buffers of kilobytes are no help to read.
            prop_assert!(found(kernel, &case) == expected, "{}", kernel.kernel());
        }
    }
}

#[test]
fn all_products_in_every_kernel() {
    let bytes: Vec<u8> = (0..=255).collect();
    for kernel in runnable() {
        for factor in 0..=255 {
            let matrix = Matrix::new(&[vec![factor]]);
            let mut output = [0; 256];
            let mut slices = [&mut output[..]];
            multiply(kernel, matrix.all(), &[&bytes], &mut slices, Mode::Set);
            for (byte, product) in (0..=255).zip(output) {
                assert_eq!(product, mul(factor, byte), "{} {factor}", kernel.kernel());
            }
        }
    }
}

#[test]
fn the_best_kernel_runs_and_the_scalar_one_always_does() {
    assert!(Kernel::best().is_available());
    assert!(Kernel::Scalar.is_available());
    let available = Kernel::ALL.into_iter().find(|k| k.is_available());
    assert_eq!(available, Some(Kernel::best()));
    for kernel in Kernel::ALL {
        assert_eq!(Runnable::new(kernel).is_some(), kernel.is_available());
    }
}

#[test]
#[should_panic(expected = "input.len() == len")]
fn a_short_input_is_refused() {
    let matrix = Matrix::new(&[vec![1, 1]]);
    let (long, short, mut output) = ([0; 64], [0; 63], [0; 64]);
    let mut slices = [&mut output[..]];
    multiply(
        Runnable::best(),
        matrix.all(),
        &[&long, &short],
        &mut slices,
        Mode::Set,
    );
}
