//! What the data path and the pool know, as numbers for Prometheus.

use crate::background::Jobs;
use crate::object::ObjectService;
use crate::pool::Pool;
use crate::server::{Reading, ReadingSource};

/// Sources of the numbers beside those of requests.
pub fn readings(pool: &Pool, objects: &ObjectService, jobs: &Jobs) -> Vec<ReadingSource> {
    let (pool, objects, jobs) = (pool.clone(), objects.clone(), jobs.clone());
    vec![
        Box::new(move || data_path(&objects)),
        Box::new(move || background(&jobs)),
        Box::new(move || disks(&pool)),
    ]
}

fn plain(name: &'static str, help: &'static str, value: f64) -> Reading {
    Reading {
        name,
        help,
        labels: Vec::new(),
        value,
    }
}

fn data_path(objects: &ObjectService) -> Vec<Reading> {
    let (held, all) = objects.memory();
    let mut numbers = vec![
        plain(
            "memory_held_bytes",
            "Memory budget that requests hold",
            held as f64,
        ),
        plain("memory_budget_bytes", "Memory budget in all", all as f64),
        plain(
            "catalog_full",
            "Whether writes are refused because the catalog's file system is full",
            f64::from(u8::from(objects.check_room().is_err())),
        ),
        plain(
            "open_reads",
            "Reads that are open",
            objects.open_reads() as f64,
        ),
    ];
    let counted = objects.metrics().all().into_iter();
    numbers.extend(counted.map(|(name, value)| Reading {
        name: "data_path_events",
        help: "What the data path counted since the start",
        labels: vec![("event", name.to_owned())],
        value: value as f64,
    }));
    numbers
}

fn background(jobs: &Jobs) -> Vec<Reading> {
    let fill = jobs.fill();
    let mut numbers = vec![plain(
        "owed_filling",
        "Whether an owed slot is being filled",
        f64::from(u8::from(fill.now().is_some())),
    )];
    let counted = fill.counts().into_iter();
    numbers.extend(counted.map(|(name, value)| Reading {
        name: "owed_events",
        help: "What the filling of owed slots counted since the start",
        labels: vec![("event", name.to_owned())],
        value: value as f64,
    }));
    numbers
}

fn disks(pool: &Pool) -> Vec<Reading> {
    let disks = pool.disk_readings();
    let of = |name, help, value: fn(&crate::pool::DiskReading) -> f64| {
        disks.iter().map(move |disk| Reading {
            name,
            help,
            labels: vec![
                ("disk", disk.id.to_string()),
                ("server", disk.server.clone()),
            ],
            value: value(disk),
        })
    };
    of("disk_living", "Whether the disk takes new writes", |disk| {
        f64::from(u8::from(disk.living))
    })
    .chain(of(
        "disk_free_bytes",
        "What shards may still take",
        |disk| disk.free_bytes as f64,
    ))
    .chain(of(
        "disk_capacity_bytes",
        "Size of the file system",
        |disk| disk.capacity_bytes as f64,
    ))
    .chain(of(
        "disk_queued",
        "Calls that wait for it or are in it",
        |disk| f64::from(disk.queued),
    ))
    .collect()
}
