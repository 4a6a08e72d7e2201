//! Numbers for Prometheus.
//!
//! Counters of requests live here; what other parts know (disks, memory
//! budget) comes as [`Reading`]s when somebody asks. Labels have few values:
//! operations and status codes, never buckets or keys.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::process;

/// One number that another part of the program knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its name, without the prefix `shardgate_`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// Gives readings when asked. Those of one name must come together.
pub type ReadingSource = Box<dyn Fn() -> Vec<Reading> + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    operation: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

/// The numbers of the server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    durations: Family<Operation, Histogram>,
    received: Counter<u64, AtomicU64>,
    sent: Counter<u64, AtomicU64>,
    /// Requests that are being served.
    pub(crate) in_flight: Gauge,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Requests refused because there were too many.
    pub(crate) refused: Counter,
}

/// Upper bounds of the classes of durations, seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];

impl Metrics {
    /// Registers everything.
    pub(crate) fn new(sources: Vec<ReadingSource>) -> Arc<Self> {
        let mut registry = Registry::with_prefix("shardgate");
        let requests = Family::<Outcome, Counter>::default();
        let durations =
            Family::<Operation, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        let received = Counter::default();
        let sent = Counter::default();
        let in_flight = Gauge::default();
        let connections = Gauge::default();
        let refused = Counter::default();
        registry.register("requests", "S3 requests answered", requests.clone());
        registry.register(
            "request_seconds",
            "Time from the head of a request to the end of its answer",
            durations.clone(),
        );
        registry.register(
            "received_bytes",
            "Bytes of request bodies",
            received.clone(),
        );
        registry.register("sent_bytes", "Bytes of answers' bodies", sent.clone());
        registry.register(
            "requests_in_flight",
            "Requests being served",
            in_flight.clone(),
        );
        registry.register(
            "connections",
            "Open client connections",
            connections.clone(),
        );
        registry.register(
            "requests_refused",
            "Requests answered SlowDown because too many were being served",
            refused.clone(),
        );
        registry.register_collector(Box::new(Readings(sources)));
        Arc::new(Self {
            registry,
            requests,
            durations,
            received,
            sent,
            in_flight,
            connections,
            refused,
        })
    }

    /// Counts a request that has ended.
    pub(crate) fn ended(&self, ended: &Ended) {
        self.requests
            .get_or_create(&Outcome {
                operation: ended.operation,
                status: ended.status,
            })
            .inc();
        self.durations
            .get_or_create(&Operation {
                operation: ended.operation,
            })
            .observe(ended.took.as_secs_f64());
        self.received.inc_by(ended.received);
        self.sent.inc_by(ended.sent);
    }

    /// All numbers as OpenMetrics text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A request that has ended.
pub(crate) struct Ended {
    pub(crate) operation: &'static str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// The readings of all parts, and of the process.
struct Readings(Vec<ReadingSource>);

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readings({})", self.0.len())
    }
}

fn of_process() -> Vec<Reading> {
    let reading = |name, help, value: Option<f64>| {
        value.map(|value| Reading {
            name,
            help,
            labels: Vec::new(),
            value,
        })
    };
    [
        reading(
            "process_resident_memory_bytes",
            "Resident memory of the process",
            process::resident_bytes().map(|bytes| bytes as f64),
        ),
        reading(
            "process_open_files",
            "Files that the process has open",
            process::open_files().map(|files| files as f64),
        ),
        reading(
            "process_cpu_time_seconds",
            "Processor time that the process took",
            process::cpu_seconds(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut readings = of_process();
        for source in &self.0 {
            readings.extend(source());
        }
        for of_one_name in readings.chunk_by(|a, b| a.name == b.name) {
            let first = &of_one_name[0];
            let mut metric =
                encoder.encode_descriptor(first.name, first.help, None, MetricType::Gauge)?;
            for reading in of_one_name {
                let gauge = ConstGauge::new(reading.value);
                if reading.labels.is_empty() {
                    gauge.encode(metric.encode_family(&NO_LABELS)?)?;
                } else {
                    gauge.encode(metric.encode_family(&reading.labels)?)?;
                }
            }
        }
        Ok(())
    }
}

const NO_LABELS: [(&str, &str); 0] = [];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_as_text() {
        let disk = |id: &str, value| Reading {
            name: "disk_living",
            help: "Whether the disk takes writes",
            labels: vec![("disk", id.to_owned())],
            value,
        };
        let source: ReadingSource = Box::new(move || vec![disk("a", 1.0), disk("b", 0.0)]);
        let metrics = Metrics::new(vec![source]);
        metrics.in_flight.inc();
        metrics.ended(&Ended {
            operation: "GetObject",
            status: 206,
            took: Duration::from_millis(3),
            received: 0,
            sent: 4096,
        });
        let text = metrics.text().unwrap();
        for line in [
            "shardgate_requests_total{operation=\"GetObject\",status=\"206\"} 1",
            "shardgate_request_seconds_bucket{le=\"0.005\",operation=\"GetObject\"} 1",
            "shardgate_sent_bytes_total 4096",
            "shardgate_requests_in_flight 1",
            "shardgate_disk_living{disk=\"a\"} 1.0",
            "shardgate_disk_living{disk=\"b\"} 0.0",
            "shardgate_process_resident_memory_bytes",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE shardgate_disk_living").count(), 1);
    }
}
