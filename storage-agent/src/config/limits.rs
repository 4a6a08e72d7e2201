//! The table `[limits]` of an agent's configuration.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Sources};
use crate::flags::Flags;
use crate::limits::Limits;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitTable {
    connections: Option<Spanned<u64>>,
    calls_per_disk: Option<Spanned<u64>>,
    buffer_mib: Option<Spanned<u64>>,
    directory_mib: Option<Spanned<u64>>,
    scrub_days: Option<Spanned<u64>>,
    clock_skew_secs: Option<Spanned<u64>>,
    first_call_secs: Option<Spanned<u64>>,
    idle_secs: Option<Spanned<u64>>,
    body_secs: Option<Spanned<u64>>,
    write_stall_secs: Option<Spanned<u64>>,
    drain_secs: Option<Spanned<u64>>,
}

/// The limits as flags, variables and file set them.
pub(super) fn limits(
    sources: &Sources<'_>,
    flags: &Flags,
    file: LimitTable,
) -> Result<Limits, ConfigError> {
    let (flags, default) = (&flags.limits, Limits::default());
    let count = |key, flag, file, default: usize, allowed| {
        let number = sources.number(key, flag, file, default as u64, allowed);
        number.map(|number| number as usize)
    };
    let seconds = |key, flag, file, default: Duration, allowed| {
        let number = sources.number(key, flag, file, default.as_secs(), allowed);
        number.map(Duration::from_secs)
    };
    let days = |key, flag, file, default, allowed| {
        let number = sources.number(key, flag, file, default, allowed);
        number.map(|number| number as u32)
    };
    macro_rules! set {
        ($read:ident, $key:ident, $default:expr, $allowed:expr) => {
            $read(stringify!($key), flags.$key, file.$key, $default, $allowed)?
        };
    }
    let mib = 1024 * 1024;
    Ok(Limits {
        connections: set!(count, connections, default.connections, 1..=65_536),
        calls_per_disk: set!(count, calls_per_disk, default.calls_per_disk, 1..=65_536),
        // The longest message must fit.
        buffer_bytes: set!(count, buffer_mib, default.buffer_bytes / mib, 4..=4095) * mib,
        directory_bytes: set!(
            count,
            directory_mib,
            default.directory_bytes / mib,
            0..=1 << 20
        ) * mib,
        scrub_period: DAY
            * set!(
                days,
                scrub_days,
                default.scrub_period.as_secs() / DAY.as_secs(),
                0..=365
            ),
        clock_skew: set!(seconds, clock_skew_secs, default.clock_skew, 1..=3600),
        first_call: set!(seconds, first_call_secs, default.first_call, 1..=600),
        idle: set!(seconds, idle_secs, default.idle, 1..=3600),
        body: set!(seconds, body_secs, default.body, 1..=600),
        write_stall: set!(seconds, write_stall_secs, default.write_stall, 1..=600),
        drain: set!(seconds, drain_secs, default.drain, 0..=3600),
    })
}
