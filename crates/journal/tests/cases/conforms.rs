//! The suite of every journal disk, on disks in memory.

use std::sync::Arc;

use async_trait::async_trait;
use shardgate_journal::memory::MemoryDisk;
use shardgate_wire::DiskId;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::journal_conformance::{JournalSubject, run};

struct InMemory(MemoryDisk);

#[async_trait]
impl JournalSubject for InMemory {
    fn disk(&self) -> Arc<dyn JournalDisk> {
        Arc::new(self.0.link())
    }

    async fn restart(&mut self) {
        self.0.lose_power();
        self.0.open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_in_memory_conforms() {
    run(|| async { InMemory(MemoryDisk::new(DiskId(1), 1, 256 * 1024)) }).await;
}
