//! Arithmetic in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1
//! (0x11D), and the code that is built on it.
//!
//! Owns what fixes the parity bytes for ever: the field, and the rule that
//! shard x of a stripe is P(x), where P is the polynomial of degree below k
//! with P(i) = data shard i. That is the systematic Vandermonde code, byte
//! for byte the one of the crate `reed-solomon-erasure`; and it makes every
//! shard, parity or lost, the same interpolation from any k others.

/// Low eight bits of the polynomial.
const POLYNOMIAL: u8 = 0x1D;

const fn double(x: u8) -> u8 {
    (x << 1) ^ if x & 0x80 != 0 { POLYNOMIAL } else { 0 }
}

/// All products: `PRODUCTS[a][b]`.
pub(crate) static PRODUCTS: [[u8; 256]; 256] = {
    let mut table = [[0; 256]; 256];
    let mut a = 0;
    while a < 256 {
        let mut b = 1;
        while b < 256 {
            let odd = if b & 1 != 0 { a as u8 } else { 0 };
            table[a][b] = double(table[a][b >> 1]) ^ odd;
            b += 1;
        }
        a += 1;
    }
    table
};

pub(crate) fn mul(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// 1/a, as a^254: the non-zero elements are a group of 255.
fn invert(a: u8) -> u8 {
    assert!(a != 0, "two shards with one index");
    let (mut power, mut result) = (a, 1);
    // 254 = 0b1111_1110
    for _ in 0..7 {
        power = mul(power, power);
        result = mul(result, power);
    }
    result
}

/// By which factors the shards `present` add up to shard `wanted`
/// (Lagrange's basis at that point). Their indices are distinct, and as many
/// as there are data shards.
pub(crate) fn interpolate(present: &[u8], wanted: u8) -> impl Iterator<Item = u8> {
    // In this field a difference is an exclusive or.
    present.iter().map(move |own| {
        let others = present.iter().filter(move |other| *other != own);
        let (above, below) = others.fold((1, 1), |(above, below), other| {
            (mul(above, wanted ^ other), mul(below, own ^ other))
        });
        mul(above, invert(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as at school: shift, add, take the remainder.
    fn slow_mul(a: u8, b: u8) -> u8 {
        let mut product = 0_u16;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product >> bit & 1 == 1 {
                product ^= 0x11D << (bit - 8);
            }
        }
        product as u8
    }

    #[test]
    fn products_are_those_of_polynomials() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(mul(a, b), slow_mul(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn inverses() {
        for a in 1..=255 {
            assert_eq!(mul(a, invert(a)), 1, "{a}");
        }
    }

    #[test]
    fn a_present_shard_is_itself() {
        let factors: Vec<u8> = interpolate(&[7, 2, 9, 0], 9).collect();
        assert_eq!(factors, [0, 0, 1, 0]);
    }

    #[test]
    fn a_copy_is_a_copy() {
        for wanted in 0..24 {
            assert_eq!(interpolate(&[3], wanted).collect::<Vec<_>>(), [1]);
        }
    }
}
