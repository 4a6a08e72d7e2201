//! Bounds under load: memory, connections. Times are measured by `bench/`.

use std::time::Duration;

use shardgate_tests::slow;

const MIB: f64 = 512.0;

/// 50 KB/s each: a slow client costs one unit of memory, and no socket.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_cost_no_memory_and_no_connections() {
    let load = slow::Load {
        gets: 2000,
        puts: 200,
        rate: 50_000,
        // As those of the world: not all in one instant.
        ramp: Duration::from_secs(5),
    };
    let outcome = slow::measure(&load, 15)
        .await
        .expect("the slow clients are served");
    println!("{outcome:?}");
    let all = load.gets + load.puts;
    assert_eq!(outcome.ended.served, all, "slow clients were cut off");
    assert!(outcome.peak_mib < MIB);
    assert!(outcome.connections_to_an_agent <= 64);
}
