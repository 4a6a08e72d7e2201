//! What an agent counts, in Prometheus' text form.
//!
//! Owns the registry. Per disk the handles are made once, when its lane opens,
//! so that a call looks nothing up. Gauges that only the disk knows (space,
//! queue) are asked for when someone scrapes.

use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use shardgate_wire::message::Call;
use shardgate_wire::{DiskHealth, DiskId, DiskRoom, Purpose};

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct DiskLabel(DiskId);

impl EncodeLabelValue for DiskLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        write!(encoder, "{}", self.0)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DiskLabels {
    disk: DiskLabel,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    disk: DiskLabel,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    disk: DiskLabel,
    call: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoomLabels {
    disk: DiskLabel,
    purpose: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    status: u16,
}

/// 50 microseconds to about 13 seconds.
fn latency_buckets() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 19))
}

/// Everything that is counted.
pub struct Metrics {
    registry: Mutex<Registry>,
    calls: Family<CallLabels, Counter>,
    latency: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    bytes_in: Family<DiskLabels, Counter>,
    bytes_out: Family<DiskLabels, Counter>,
    capacity: Family<DiskLabels, Gauge<i64>>,
    free: Family<DiskLabels, Gauge<i64>>,
    room: Family<RoomLabels, Gauge<i64>>,
    queued: Family<DiskLabels, Gauge<i64>>,
    errors: Family<DiskLabels, Gauge<i64>>,
    damaged: Family<DiskLabels, Gauge<i64>>,
    scrub_passes: Family<DiskLabels, Gauge<i64>>,
    scrub_ended: Family<DiskLabels, Gauge<i64>>,
    scrub_read: Family<DiskLabels, Gauge<i64>>,
    scrub_pass: Family<DiskLabels, Gauge<i64>>,
    fenced: Family<DiskLabels, Gauge<i64>>,
    up: Family<DiskLabels, Gauge<i64>>,
    refusals: Family<RefusalLabels, Counter>,
    /// Connections that are open now.
    pub connections: Gauge<i64>,
    /// Connections that were closed at once because there were too many.
    pub turned_away: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("shardgate_agent")),
            calls: Family::default(),
            latency: Family::new_with_constructor(latency_buckets),
            bytes_in: Family::default(),
            bytes_out: Family::default(),
            capacity: Family::default(),
            free: Family::default(),
            room: Family::default(),
            queued: Family::default(),
            errors: Family::default(),
            damaged: Family::default(),
            scrub_passes: Family::default(),
            scrub_ended: Family::default(),
            scrub_read: Family::default(),
            scrub_pass: Family::default(),
            fenced: Family::default(),
            up: Family::default(),
            refusals: Family::default(),
            connections: Gauge::default(),
            turned_away: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let r = &mut *self.registry.lock();
        r.register(
            "disk_calls",
            "Calls by disk and outcome",
            self.calls.clone(),
        );
        r.register_with_unit(
            "disk_call_duration",
            "Time that a disk took for a call",
            Unit::Seconds,
            self.latency.clone(),
        );
        r.register_with_unit(
            "disk_received",
            "Shard bytes received for a disk",
            Unit::Bytes,
            self.bytes_in.clone(),
        );
        r.register_with_unit(
            "disk_sent",
            "Shard bytes sent from a disk",
            Unit::Bytes,
            self.bytes_out.clone(),
        );
        r.register_with_unit(
            "disk_capacity",
            "Size of the disk's file system",
            Unit::Bytes,
            self.capacity.clone(),
        );
        r.register_with_unit(
            "disk_free",
            "Bytes that shards of clients may still take",
            Unit::Bytes,
            self.free.clone(),
        );
        r.register_with_unit(
            "disk_room",
            "Bytes that may still be taken by whom: client, background, checkpoint, journal",
            Unit::Bytes,
            self.room.clone(),
        );
        r.register(
            "disk_queued",
            "Calls that wait for the disk or are in it",
            self.queued.clone(),
        );
        r.register(
            "disk_errors",
            "Calls that failed by the disk's fault, and damage that was found, since it was opened",
            self.errors.clone(),
        );
        r.register(
            "disk_damaged_shards",
            "Shards that the disk knows to be damaged",
            self.damaged.clone(),
        );
        r.register(
            "disk_scrub_passes",
            "How often the disk has read everything that it keeps",
            self.scrub_passes.clone(),
        );
        r.register_with_unit(
            "disk_scrub_ended",
            "When it last had, since 1970; 0 if it never did",
            Unit::Seconds,
            self.scrub_ended.clone(),
        );
        r.register_with_unit(
            "disk_scrub_read",
            "Bytes that the present pass has read",
            Unit::Bytes,
            self.scrub_read.clone(),
        );
        r.register_with_unit(
            "disk_scrub_pass",
            "Bytes that a pass has to read; 0 if none runs",
            Unit::Bytes,
            self.scrub_pass.clone(),
        );
        r.register(
            "disk_fenced",
            "1 while the disk refuses writes",
            self.fenced.clone(),
        );
        r.register(
            "disk_up",
            "1 while the disk answers its health",
            self.up.clone(),
        );
        r.register(
            "refusals",
            "Requests that were not taken to a disk, by HTTP status",
            self.refusals.clone(),
        );
        r.register(
            "connections",
            "Connections that are open",
            self.connections.clone(),
        );
        r.register(
            "connections_turned_away",
            "Connections closed because there were too many",
            self.turned_away.clone(),
        );
    }

    /// The handles of one disk.
    pub fn lane(&self, disk: DiskId) -> LaneMetrics {
        let disk = DiskLabel(disk);
        let calls = Call::ALL.map(|call| {
            let call = call.name();
            let counter = |outcome| {
                let labels = CallLabels {
                    disk,
                    call,
                    outcome,
                };
                self.calls.get_or_create_owned(&labels)
            };
            CallMetrics {
                done: counter("done"),
                failed: counter("failed"),
                latency: self
                    .latency
                    .get_or_create_owned(&LatencyLabels { disk, call }),
            }
        });
        LaneMetrics {
            calls,
            bytes_in: self.bytes_in.get_or_create_owned(&DiskLabels { disk }),
            bytes_out: self.bytes_out.get_or_create_owned(&DiskLabels { disk }),
        }
    }

    /// Drops a disk's gauges, so that a closed disk does not look alive.
    pub fn forget(&self, disk: DiskId) {
        let labels = DiskLabels {
            disk: DiskLabel(disk),
        };
        for family in [
            &self.capacity,
            &self.free,
            &self.queued,
            &self.errors,
            &self.damaged,
            &self.scrub_passes,
            &self.scrub_ended,
            &self.scrub_read,
            &self.scrub_pass,
            &self.fenced,
            &self.up,
        ] {
            family.remove(&labels);
        }
        for (purpose, _) in rooms(&DiskRoom::default()) {
            let disk = labels.disk;
            self.room.remove(&RoomLabels { disk, purpose });
        }
    }

    /// Notes what a disk says of itself; `None` if it does not answer.
    pub fn observe_health(&self, disk: DiskId, health: Option<&DiskHealth>) {
        let labels = DiskLabels {
            disk: DiskLabel(disk),
        };
        let set = |family: &Family<DiskLabels, Gauge<i64>>, value: u64| {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(value);
        };
        set(&self.up, u64::from(health.is_some()));
        if let Some(health) = health {
            set(&self.capacity, health.capacity_bytes);
            set(&self.free, health.free_bytes);
            for (purpose, bytes) in rooms(&health.room) {
                let disk = labels.disk;
                let room = self.room.get_or_create(&RoomLabels { disk, purpose });
                room.set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            set(&self.queued, u64::from(health.queued));
            set(&self.errors, health.errors);
            set(&self.damaged, u64::from(health.damaged));
            set(&self.scrub_passes, u64::from(health.scrub.passes));
            set(&self.scrub_ended, health.scrub.ended_ms / 1000);
            set(&self.scrub_read, health.scrub.read_bytes);
            set(&self.scrub_pass, health.scrub.pass_bytes);
            set(&self.fenced, u64::from(health.fenced.is_some()));
        }
    }

    /// Counts a request that came to no disk.
    pub fn refused(&self, status: u16) {
        self.refusals.get_or_create(&RefusalLabels { status }).inc();
    }

    /// All of it as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock()).expect("writing into a string does not fail");
        text
    }
}

/// What each may still take, by its word.
fn rooms(room: &DiskRoom) -> impl Iterator<Item = (&'static str, u64)> {
    let shards = Purpose::ALL.map(|purpose| (purpose.name(), room.of(purpose)));
    shards.into_iter().chain([("journal", room.journal_bytes)])
}

struct CallMetrics {
    done: Counter,
    failed: Counter,
    latency: Histogram,
}

/// The handles of one disk.
pub struct LaneMetrics {
    calls: [CallMetrics; Call::ALL.len()],
    bytes_in: Counter,
    bytes_out: Counter,
}

impl LaneMetrics {
    /// Counts a call and what it carried.
    pub fn observe(&self, call: Call, took: Duration, done: bool, bytes_in: u64, bytes_out: u64) {
        let metrics = &self.calls[call as usize];
        if done { &metrics.done } else { &metrics.failed }.inc();
        metrics.latency.observe(took.as_secs_f64());
        self.bytes_in.inc_by(bytes_in);
        self.bytes_out.inc_by(bytes_out);
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::conformance::sample;

    use super::*;

    fn health() -> DiskHealth {
        DiskHealth {
            identity: sample::identity(),
            epoch: Default::default(),
            told: Default::default(),
            capacity_bytes: 1000,
            free_bytes: 100,
            room: DiskRoom {
                client_bytes: 100,
                background_bytes: 200,
                checkpoint_bytes: 300,
                journal_bytes: 400,
                journal_kept_bytes: 50,
            },
            device: 1,
            queued: 0,
            p50_us: 0,
            p99_us: 0,
            errors: 0,
            damaged: 3,
            scrub: Default::default(),
            fenced: None,
        }
    }

    #[test]
    fn a_call_is_counted_under_its_own_name() {
        let metrics = Metrics::default();
        for (at, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, at, "{call:?} indexes its handles");
        }
        let lane = metrics.lane(DiskId(0xab));
        lane.observe(Call::Append, Duration::from_millis(1), true, 4096, 0);
        lane.observe(Call::Append, Duration::from_millis(1), false, 0, 0);
        metrics.refused(401);
        metrics.observe_health(DiskId(0xab), Some(&health()));
        let text = metrics.text();
        let disk = DiskId(0xab);
        for line in [
            format!(
                "shardgate_agent_disk_calls_total{{disk=\"{disk}\",call=\"append\",outcome=\"done\"}} 1"
            ),
            format!(
                "shardgate_agent_disk_calls_total{{disk=\"{disk}\",call=\"append\",outcome=\"failed\"}} 1"
            ),
            format!("shardgate_agent_disk_received_bytes_total{{disk=\"{disk}\"}} 4096"),
            "shardgate_agent_refusals_total{status=\"401\"} 1".to_owned(),
            format!("shardgate_agent_disk_free_bytes{{disk=\"{disk}\"}} 100"),
            format!("shardgate_agent_disk_damaged_shards{{disk=\"{disk}\"}} 3"),
            format!("shardgate_agent_disk_scrub_ended_seconds{{disk=\"{disk}\"}} 0"),
            format!(
                "shardgate_agent_disk_room_bytes{{disk=\"{disk}\",purpose=\"background\"}} 200"
            ),
            format!("shardgate_agent_disk_room_bytes{{disk=\"{disk}\",purpose=\"journal\"}} 400"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        metrics.forget(disk);
        let text = metrics.text();
        assert!(!text.contains("disk_room_bytes{") && !text.contains("disk_damaged_shards{"));
    }
}
