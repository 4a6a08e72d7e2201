//! When a checkpoint is taken, and when writes must wait for one: decided
//! here, without I/O (PROTOCOL.md 4 and 10).

use std::time::Duration;

/// Journal between two checkpoints of a large pool, bytes.
const MOST_EVERY: u64 = 4 << 30;
/// The least of a small one, bytes.
const LEAST_EVERY: u64 = 64 << 20;
/// The bound of the journal, in such distances: two checkpoints are kept, and
/// one may be late.
const BOUND_EVERY: u64 = 4;
/// A segment is a file of its full length however little is in it, and disks
/// that fail begin new ones: so many must fit below the bound.
const LEAST_SEGMENTS: u64 = 16;
/// Of the files that a disk keeps, the share that the bound leaves alone.
const FILES_SHARE: (u64, u64) = (3, 4);

/// What the operator may set of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of journal between two checkpoints.
    pub every_bytes: u64,
    /// Time between two, if something was committed.
    pub every: Duration,
    /// Bytes that the journal may take.
    pub bound_bytes: u64,
}

/// What the limits depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    /// Capacity of the smallest journal disk, bytes; 0: not known.
    pub smallest_disk: u64,
    /// The longest file that a segment may be, bytes.
    pub segment_bytes: u64,
    /// Files that a disk keeps at most.
    pub most_files: u64,
}

/// What was set; `None`: by the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wished {
    /// As [`Limits::every_bytes`].
    pub every_bytes: Option<u64>,
    /// As [`Limits::every`].
    pub every: Duration,
    /// As [`Limits::bound_bytes`].
    pub bound_bytes: Option<u64>,
}

/// The limits of a pool.
pub fn limits(wished: Wished, basis: Basis) -> Limits {
    let segments = |count: u64| basis.segment_bytes.saturating_mul(count);
    let one_percent = (basis.smallest_disk / 100).clamp(LEAST_EVERY, MOST_EVERY);
    let every_bytes = wished.every_bytes.unwrap_or(one_percent);
    let wanted = wished.bound_bytes.unwrap_or_else(|| {
        let distances = every_bytes.saturating_mul(BOUND_EVERY);
        distances.max(segments(LEAST_SEGMENTS))
    });
    let most = segments(basis.most_files) / FILES_SHARE.1 * FILES_SHARE.0;
    let bound_bytes = match most {
        0 => wanted,
        // With fewer than these the journal would be full from the start.
        most => wanted.max(segments(BOUND_EVERY)).min(most),
    };
    Limits {
        every_bytes: match wished.every_bytes {
            Some(every) => every,
            None => every_bytes.min(bound_bytes / BOUND_EVERY),
        },
        every: wished.every,
        bound_bytes,
    }
}

/// How the disks of the kept checkpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All take writes.
    #[default]
    Whole,
    /// One does not now, and may again.
    Away,
    /// One is lost, or a file of theirs cannot be read.
    Lost,
}

/// What is known when it is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of journal behind the newest checkpoint.
    pub since_bytes: u64,
    /// Bytes of all of it.
    pub total_bytes: u64,
    /// Bytes that go once there is one more checkpoint.
    pub freed_next: u64,
    /// Time since the newest was taken; without one, since the start.
    pub age: Duration,
    /// Whether anything was committed behind it but by checkpoints.
    pub changed: bool,
    /// The disks of both.
    pub health: Health,
    /// Whether the operator asked.
    pub asked: bool,
}

/// Why one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The operator asked.
    Asked,
    /// A disk with files of a kept one is lost.
    Lost,
    /// The journal has become long.
    Length,
    /// The journal is long altogether, and one more makes it shorter.
    Bound,
    /// Time has passed.
    Age,
}

/// Whether one is due, and why.
pub fn due(facts: &Facts, limits: &Limits) -> Option<Due> {
    // With a disk away the next is taken early, so that its files lie
    // elsewhere before the journal has passed half its bound.
    let every = match facts.health {
        Health::Away => limits.every_bytes / 2,
        Health::Whole | Health::Lost => limits.every_bytes,
    };
    if facts.asked {
        Some(Due::Asked)
    } else if facts.health == Health::Lost {
        Some(Due::Lost)
    } else if facts.since_bytes >= every {
        Some(Due::Length)
    } else if is_long(facts.total_bytes, limits) && facts.freed_next > 0 {
        Some(Due::Bound)
    } else if facts.age >= limits.every && facts.changed {
        Some(Due::Age)
    } else {
        None
    }
}

/// Whether a checkpoint must not wait for clients any more: they would soon
/// wait for it.
pub fn is_long(total_bytes: u64, limits: &Limits) -> bool {
    total_bytes >= limits.bound_bytes / 2
}

/// Whether clients' writes must wait for a checkpoint.
pub fn is_full(total_bytes: u64, limits: &Limits) -> bool {
    total_bytes >= limits.bound_bytes / 8 * 7
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn wished() -> Wished {
        Wished {
            every_bytes: None,
            every: Duration::from_secs(6 * 3600),
            bound_bytes: None,
        }
    }

    fn basis(smallest_disk: u64) -> Basis {
        Basis {
            smallest_disk,
            segment_bytes: 64 * MIB,
            most_files: 4096,
        }
    }

    #[test]
    fn limits_follow_the_smallest_journal_disk() {
        for (disk, every, bound) in [
            (0, 64 * MIB, GIB),
            (4 * GIB, 64 * MIB, GIB),
            (10 * GIB, 10 * GIB / 100, GIB),
            (100 * GIB, GIB, 4 * GIB),
            (400 * GIB, 4 * GIB, 16 * GIB),
            (20_000 * GIB, 4 * GIB, 16 * GIB),
        ] {
            let limits = limits(wished(), basis(disk));
            assert_eq!(limits.every_bytes, every, "{disk}");
            assert_eq!(limits.bound_bytes, bound, "{disk}");
        }
    }

    #[test]
    fn what_is_set_counts_below_what_a_disk_can_keep() {
        let of = |every_bytes, bound_bytes| {
            let wished = Wished {
                every_bytes,
                bound_bytes,
                ..wished()
            };
            let limits = limits(wished, basis(100 * GIB));
            (limits.every_bytes, limits.bound_bytes)
        };
        assert_eq!(of(Some(MIB), None), (MIB, GIB));
        assert_eq!(of(Some(100 * GIB), None), (100 * GIB, 192 * GIB));
        assert_eq!(of(None, Some(8 * GIB)), (GIB, 8 * GIB));
        // What is not set gives way to what is.
        assert_eq!(of(None, Some(2 * GIB)), (GIB / 2, 2 * GIB));
        assert_eq!(of(Some(MIB), Some(2 * MIB)), (MIB, 256 * MIB));
        assert_eq!(of(None, Some(1000 * GIB)), (GIB, 192 * GIB));
    }

    #[test]
    fn when_one_is_due() {
        let limits = Limits {
            every_bytes: 100,
            every: Duration::from_secs(60),
            bound_bytes: 400,
        };
        let old = Duration::from_secs(60);
        let quiet = Facts::default();
        for (facts, expected) in [
            (quiet, None),
            (
                Facts {
                    since_bytes: 99,
                    ..quiet
                },
                None,
            ),
            (
                Facts {
                    since_bytes: 100,
                    ..quiet
                },
                Some(Due::Length),
            ),
            // Early where a disk is away, not at once.
            (
                Facts {
                    since_bytes: 49,
                    health: Health::Away,
                    ..quiet
                },
                None,
            ),
            (
                Facts {
                    since_bytes: 50,
                    health: Health::Away,
                    ..quiet
                },
                Some(Due::Length),
            ),
            // At once where one is lost.
            (
                Facts {
                    health: Health::Lost,
                    ..quiet
                },
                Some(Due::Lost),
            ),
            // Age alone does not do: something must have been committed.
            (Facts { age: old, ..quiet }, None),
            (
                Facts {
                    age: old,
                    changed: true,
                    ..quiet
                },
                Some(Due::Age),
            ),
            (
                Facts {
                    age: old / 2,
                    changed: true,
                    ..quiet
                },
                None,
            ),
            // A long journal that another checkpoint would not shorten.
            (
                Facts {
                    total_bytes: 399,
                    ..quiet
                },
                None,
            ),
            (
                Facts {
                    total_bytes: 200,
                    freed_next: 1,
                    ..quiet
                },
                Some(Due::Bound),
            ),
            (
                Facts {
                    total_bytes: 199,
                    freed_next: 1,
                    ..quiet
                },
                None,
            ),
            (
                Facts {
                    asked: true,
                    ..quiet
                },
                Some(Due::Asked),
            ),
        ] {
            assert_eq!(due(&facts, &limits), expected, "{facts:?}");
        }
    }

    #[test]
    fn writes_wait_near_the_bound() {
        let limits = Limits {
            every_bytes: 100,
            every: Duration::ZERO,
            bound_bytes: 800,
        };
        for (total, long, full) in [
            (0, false, false),
            (399, false, false),
            (400, true, false),
            (699, true, false),
            (700, true, true),
            (900, true, true),
        ] {
            assert_eq!(is_long(total, &limits), long, "{total}");
            assert_eq!(is_full(total, &limits), full, "{total}");
        }
    }
}
