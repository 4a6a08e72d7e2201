//! What the data path and the pool know, as numbers for Prometheus.

use shardgate_wire::{CommitNumber, DiskId, Purpose};

use crate::background::Jobs;
use crate::checkpoint::{CheckpointStatus, Checkpoints};
use crate::journal::Keeper;
use crate::object::ObjectService;
use crate::pool::{DiskReading, Pool};
use crate::server::{Reading, ReadingSource};

/// Sources of the numbers beside those of requests.
pub fn readings(
    pool: &Pool,
    keeper: &Keeper,
    objects: &ObjectService,
    jobs: &Jobs,
    checkpoints: &Checkpoints,
) -> Vec<ReadingSource> {
    let checkpoints = checkpoints.clone();
    let (pool, keeper) = (pool.clone(), keeper.clone());
    let (objects, jobs) = (objects.clone(), jobs.clone());
    let (noted, grouped) = (objects.clone(), pool.clone());
    vec![
        Box::new(move || data_path(&objects)),
        Box::new(move || background(&jobs)),
        Box::new(move || notes(&noted)),
        Box::new(move || disks(&pool)),
        Box::new(move || groups(&grouped)),
        Box::new(move || journal(&keeper)),
        Box::new(move || checkpoint(&checkpoints.status())),
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
    if let Some(owed) = jobs.owing().last() {
        numbers.push(plain(
            "owed_slots",
            "Slots that lack shards of acknowledged objects: what is not fully stored",
            owed.slots as f64,
        ));
        numbers.push(plain(
            "owed_groups",
            "Groups with such a slot",
            owed.groups as f64,
        ));
    }
    let counted = jobs.mend().counts().into_iter();
    numbers.extend(counted.map(|(name, value)| Reading {
        name: "repair_events",
        help: "What was done about damaged and missing shards since the start",
        labels: vec![("event", name.to_owned())],
        value: value as f64,
    }));
    let counted = fill.counts().into_iter();
    numbers.extend(counted.map(|(name, value)| Reading {
        name: "owed_events",
        help: "What the filling of owed slots counted since the start",
        labels: vec![("event", name.to_owned())],
        value: value as f64,
    }));
    numbers
}

fn notes(objects: &ObjectService) -> Vec<Reading> {
    let standing = objects.notes();
    let reading = |(disk, told): (&DiskId, &CommitNumber)| Reading {
        name: "notes_behind_commits",
        help: "Commits of which a disk does not know yet what they did to its blobs",
        labels: vec![("disk", disk.to_string())],
        value: standing.committed.0.saturating_sub(told.0) as f64,
    };
    standing.told.iter().map(reading).collect()
}

fn disks(pool: &Pool) -> Vec<Reading> {
    let disks = pool.disk_readings();
    let of = |name, help, value: fn(&DiskReading) -> f64| {
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
        "What shards of clients may still take",
        |disk| disk.free_bytes as f64,
    ))
    .chain(disks.iter().flat_map(rooms))
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
    .chain(of(
        "disk_damaged_shards",
        "Shards that the disk knows to be damaged",
        |disk| f64::from(disk.damaged),
    ))
    .chain(of(
        "disk_scrub_passes",
        "How often the disk has read everything that it keeps",
        |disk| f64::from(disk.scrub.passes),
    ))
    .chain(of(
        "disk_scrub_ended_seconds",
        "When it last had, seconds since 1970; 0 if it never did",
        |disk| (disk.scrub.ended_ms / 1000) as f64,
    ))
    .chain(of(
        "disk_scrub_read_bytes",
        "Bytes that the present pass has read",
        |disk| disk.scrub.read_bytes as f64,
    ))
    .chain(of(
        "disk_scrub_pass_bytes",
        "Bytes that a pass has to read; 0 if none runs",
        |disk| disk.scrub.pass_bytes as f64,
    ))
    .collect()
}

fn groups(pool: &Pool) -> Vec<Reading> {
    let counts = pool.group_counts();
    let states = [("open", counts.open), ("sealed", counts.sealed)];
    let by_state = states.map(|(state, count)| Reading {
        name: "groups",
        help: "Placement groups",
        labels: vec![("state", state.to_owned())],
        value: count as f64,
    });
    let mut numbers = Vec::from(by_state);
    numbers.push(plain(
        "groups_narrow",
        "Groups of fewer shards than their class asks for",
        counts.narrow as f64,
    ));
    numbers.push(plain(
        "groups_degraded",
        "Groups with a slot on a disk that is not there",
        counts.degraded as f64,
    ));
    let room = pool.class_room().into_iter();
    numbers.extend(room.map(|(class, bytes)| Reading {
        name: "class_free_bytes",
        help: "Bytes of objects that can still be stored in the class",
        labels: vec![("class", class)],
        value: bytes as f64,
    }));
    numbers
}

/// What each may still take of a disk.
fn rooms(disk: &DiskReading) -> Vec<Reading> {
    let Some(room) = disk.room else {
        return Vec::new();
    };
    let shards = Purpose::ALL.map(|purpose| (purpose.name(), room.of(purpose)));
    let all = shards.into_iter().chain([("journal", room.journal_bytes)]);
    let reading = |(purpose, bytes): (&str, u64)| Reading {
        name: "disk_room_bytes",
        help: "What may still be taken, by whom",
        labels: vec![
            ("disk", disk.id.to_string()),
            ("server", disk.server.clone()),
            ("purpose", purpose.to_owned()),
        ],
        value: bytes as f64,
    };
    all.map(reading).collect()
}

fn journal(keeper: &Keeper) -> Vec<Reading> {
    let status = keeper.status();
    let answers = match status.answers.as_str() {
        "all" => 2.0,
        "reads" => 1.0,
        _ => 0.0,
    };
    vec![
        plain(
            "journal_answers",
            "What may be answered: 2 everything, 1 reads, 0 nothing",
            answers,
        ),
        plain(
            "journal_commit",
            "The last commit that every member has durably",
            status.commit as f64,
        ),
        plain(
            "journal_disks",
            "Disks that keep the journal",
            status.disks.len() as f64,
        ),
        plain(
            "journal_members",
            "Disks that keep the segment that is written now",
            status.members.len() as f64,
        ),
        plain(
            "journal_segments",
            "Segments that get no further batch",
            status.segments as f64,
        ),
        plain(
            "journal_bytes",
            "Bytes of one copy of all segments",
            status.bytes as f64,
        ),
        plain(
            "journal_segments_not_fully_stored",
            "Segments that too few living disks hold",
            status.not_fully_stored.len() as f64,
        ),
    ]
}

fn checkpoint(status: &CheckpointStatus) -> Vec<Reading> {
    let newest = status.kept.first();
    let mut numbers = vec![
        plain(
            "checkpoints_kept",
            "Checkpoints of the catalog that are kept in the pool",
            status.kept.len() as f64,
        ),
        plain(
            "checkpoint_commit",
            "The last commit in the newest checkpoint; 0 before the first",
            newest.map_or(0.0, |of| of.commit as f64),
        ),
        plain(
            "checkpoint_running",
            "Whether a checkpoint is being taken",
            f64::from(u8::from(status.progress.is_some())),
        ),
        plain(
            "journal_behind_checkpoint_bytes",
            "Bytes of journal behind the newest checkpoint",
            status.journal_since_bytes as f64,
        ),
        plain(
            "journal_length_bytes",
            "Bytes of the journal, which its bound is compared with",
            status.journal_bytes as f64,
        ),
        plain(
            "journal_bound_bytes",
            "Bytes that the journal may take: near it writes wait",
            status.journal_bound_bytes as f64,
        ),
        plain(
            "journal_full",
            "Whether writes wait because the journal is near its bound",
            f64::from(u8::from(status.writes_wait)),
        ),
    ];
    if let Some(newest) = newest {
        numbers.push(plain(
            "checkpoint_age_seconds",
            "Since the newest checkpoint was taken",
            newest.age_seconds as f64,
        ));
    }
    let counted = [
        ("taken", status.taken),
        ("failed", status.failed),
        ("sent_bytes", status.sent_bytes),
    ];
    numbers.extend(counted.map(|(name, value)| Reading {
        name: "checkpoint_events",
        help: "What checkpoints counted since the start",
        labels: vec![("event", name.to_owned())],
        value: value as f64,
    }));
    numbers
}
