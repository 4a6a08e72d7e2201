//! Measures the kernels: GB (1e9 bytes) of object data per second, on one
//! core, for encoding whole stripes, accumulating block by block, and
//! reconstructing one and m lost data shards.
//!
//!     cargo run --release --example bench_kernels -- [SCHEME ...]
//!
//! Not a test: figures vary with the machine. `reed-solomon-erasure` runs in
//! the same process for comparison.

use std::hint::black_box;
use std::time::{Duration, Instant};

use reed_solomon_erasure::galois_8::ReedSolomon;
use shardgate_erasure::{Codec, Kernel, Layout, Scheme};

const BLOCK_LENS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const SAMPLE: Duration = Duration::from_millis(4);
const SAMPLES: usize = 16;

/// The best of many short samples, in GB/s: what disturbs only slows down.
fn measure(bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut best = 0.0_f64;
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        let mut rounds = 0_u32;
        while begin.elapsed() < SAMPLE {
            work();
            rounds += 1;
        }
        let done = f64::from(rounds) * bytes as f64;
        best = best.max(done / begin.elapsed().as_secs_f64() / 1e9);
    }
    best
}

fn blocks(count: u8, len: usize) -> Vec<Vec<u8>> {
    let byte = |block: usize, i: usize| ((block * 31 + i).wrapping_mul(0x9E37_79B9) >> 11) as u8;
    (0..usize::from(count))
        .map(|block| (0..len).map(|i| byte(block, i)).collect())
        .collect()
}

fn encode(codec: &Codec, len: usize) -> f64 {
    let layout = codec.layout();
    let data = blocks(layout.data(), len);
    let mut parity = blocks(layout.parity(), len);
    measure(len * data.len(), || {
        codec
            .encode(black_box(&data), black_box(&mut parity))
            .expect("equal lengths");
    })
}

fn accumulate(codec: &Codec, len: usize) -> f64 {
    let layout = codec.layout();
    let data = blocks(layout.data(), len);
    let mut parity = blocks(layout.parity(), len);
    measure(len * data.len(), || {
        let mut sum = codec.accumulate();
        for (index, block) in (0..).zip(&data) {
            sum.add_block(index, black_box(block), black_box(&mut parity))
                .expect("equal lengths");
        }
    })
}

/// The first `lost` data shards, from the others and as many parity shards.
fn reconstruct(codec: &Codec, len: usize, lost: u8) -> f64 {
    let layout = codec.layout();
    let sources = blocks(layout.data(), len);
    let mut found = blocks(lost, len);
    let present: Vec<u8> = (lost..layout.shards()).collect();
    let wanted: Vec<u8> = (0..lost).collect();
    measure(len * sources.len(), || {
        let decoder = codec.decoder(&present, &wanted).expect("enough shards");
        decoder
            .reconstruct(black_box(&sources), black_box(&mut found))
            .expect("equal lengths");
    })
}

fn reference(layout: Layout, len: usize) -> [f64; 3] {
    let (k, m) = (usize::from(layout.data()), usize::from(layout.parity()));
    let coder = ReedSolomon::new(k, m).expect("a layout of the reference");
    let mut shards = blocks(layout.shards(), len);
    let encode = measure(len * k, || {
        coder.encode(black_box(&mut shards)).expect("equal lengths");
    });
    let decode = |lost: usize| {
        let mut shards: Vec<_> = shards.iter().map(|s| (s.clone(), true)).collect();
        measure(len * k, || {
            for (_, present) in &mut shards[..lost] {
                *present = false;
            }
            let mut parts: Vec<(&mut [u8], bool)> =
                shards.iter_mut().map(|(s, p)| (&mut s[..], *p)).collect();
            coder
                .reconstruct_data(black_box(&mut parts))
                .expect("enough shards");
        })
    };
    [encode, decode(1), decode(m)]
}

fn row(scheme: Scheme, len: usize, name: &str, figures: [Option<f64>; 4]) {
    let figures = figures.map(|f| f.map_or("     -".into(), |f| format!("{f:6.1}")));
    println!(
        "{scheme:>5} {:>5} KiB  {name:<22}{}",
        len >> 10,
        figures.join("  ")
    );
}

fn main() {
    let named: Vec<Scheme> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("a scheme, as in 4+2"))
        .collect();
    let schemes = if named.is_empty() {
        ["4+2", "6+3", "8+4", "12+4"]
            .map(|text| text.parse().expect("a scheme"))
            .to_vec()
    } else {
        named
    };
    println!("GB/s of object data; best kernel here: {}", Kernel::best());
    println!("scheme    block  kernel                encode  accum.  lose 1  lose m");
    for scheme in schemes {
        let layout = Layout::full(scheme);
        for len in BLOCK_LENS {
            let codecs = Kernel::ALL
                .into_iter()
                .filter_map(|kernel| Codec::with_kernel(layout, kernel).ok());
            for codec in codecs {
                let figures = [
                    encode(&codec, len),
                    accumulate(&codec, len),
                    reconstruct(&codec, len, 1),
                    reconstruct(&codec, len, scheme.parity().min(scheme.data())),
                ];
                row(scheme, len, &codec.kernel().to_string(), figures.map(Some));
            }
            let [encoded, one, all] = reference(layout, len);
            let figures = [Some(encoded), None, Some(one), Some(all)];
            row(scheme, len, "reed-solomon-erasure", figures);
        }
    }
}
