//! Bounds under load: memory, connections. Times are measured by `bench/`.

use shardgate_tests::slow;

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
