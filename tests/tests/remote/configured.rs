//! An agent from its configuration, to its first shard, and back down.

use std::time::Duration;

use shardgate::agents::AgentSettings;
use shardgate_agent::config::Config;
use shardgate_agent::flags::Flags;
use shardgate_agent::run::run;
use shardgate_wire::conformance::sample;
use shardgate_wire::message::{FolderState, FormatHead};
use shardgate_wire::{AgentId, DiskId, DiskIdentity, Medium, ShardStore};
use tokio_util::sync::CancellationToken;

use crate::agent::{SECRET, client, put};

fn free_port() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_forms_a_disk_and_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("disk");
    std::fs::create_dir(&folder).unwrap();
    let address = free_port();
    let text = format!(
        "listen = '{address}'\nname = 'store-1'\nsite = 'north'\nsecret = '{SECRET}'\n\
         state_dir = '{}'\n[[disks]]\npath = '{}'\n[[disks]]\npath = '{}'\n",
        dir.path().join("state").display(),
        folder.display(),
        dir.path().join("unmounted").display(),
    );
    let mut ids: Vec<AgentId> = Vec::new();
    for again in [false, true] {
        let config = Config::from_parts("agent.toml", &text, Flags::default(), None).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(config, stop.clone()));
        let client = client(address, AgentSettings::default());
        let mut tries = 0;
        let report = loop {
            match client.report().await {
                Ok(report) => break report,
                Err(error) => assert!(tries < 200, "{error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        ids.push(report.agent);
        assert_eq!(
            [&*report.name, &*report.server, &*report.site],
            ["store-1", "store-1", "north"]
        );
        assert_eq!(report.folders[1].state, FolderState::Missing);
        let disk = client.disk(DiskId(9));
        if again {
            assert!(matches!(report.folders[0].state, FolderState::Open(_)));
            assert_eq!(
                disk.stat(sample::key(1)).await.unwrap().header.key,
                sample::key(1)
            );
        } else {
            assert_eq!(report.folders[0].state, FolderState::Blank);
            let ctx = sample::context(1);
            let head = FormatHead {
                ctx,
                folder: report.folders[0].folder.clone(),
                identity: DiskIdentity {
                    cluster: ctx.cluster,
                    disk: DiskId(9),
                    medium: Medium::Flash,
                },
            };
            let health = client.format(&head).await.unwrap();
            assert_eq!(health.identity, head.identity);
            disk.assign(&ctx, &[sample::slot()]).await.unwrap();
            put(&disk, 1).await.unwrap();
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }
    assert_eq!(ids[0], ids[1]);
}
