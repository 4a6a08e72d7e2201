//! Bounds on memory while large objects are moved. Alone in its program: what
//! `load` measures would suffer from it.

use shardgate_tests::large::{Load, measure};

const MIB: f64 = 512.0;

/// Size and number of objects do not show in the gateway's memory. `make
/// bench` does the same with objects of 1 GiB.
#[tokio::test(flavor = "multi_thread")]
async fn large_objects_cost_no_memory() {
    let load = Load {
        clients: 32,
        mib: 128,
        rounds: 1,
    };
    let outcome = measure(load).await.expect("all clients are served");
    println!("{outcome:?}");
    assert!(outcome.peak_mib < MIB, "{outcome:?}");
}
