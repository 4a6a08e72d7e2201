//! Bounds under load: memory, connections. Times are measured by `bench/`.

use shardgate_tests::{large, slow};

const MIB: f64 = 512.0;

/// 50 KB/s each: a slow client costs one unit of memory, and no socket.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_cost_no_memory_and_no_connections() {
    let load = slow::Load {
        gets: 2000,
        puts: 200,
        rate: 50_000,
        seconds: 5,
    };
    let outcome = slow::measure(&load)
        .await
        .expect("the slow clients are served");
    println!("{outcome:?}");
    assert_eq!(
        outcome.served,
        load.gets + load.puts,
        "slow clients were cut off"
    );
    assert!(outcome.peak_mib < MIB, "{outcome:?}");
    assert!(outcome.connections_to_an_agent <= 64, "{outcome:?}");
}

/// Size and number of objects do not show in the gateway's memory. `make
/// bench` does the same with objects of 1 GiB.
#[tokio::test(flavor = "multi_thread")]
async fn large_objects_cost_no_memory() {
    let load = large::Load {
        clients: 32,
        mib: 128,
        rounds: 1,
    };
    let outcome = large::measure(load).await.expect("all clients are served");
    println!("{outcome:?}");
    assert!(outcome.peak_mib < MIB, "{outcome:?}");
}
