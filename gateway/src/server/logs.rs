//! Where log lines go, and which never get there.
//!
//! Invariant: nothing of s3s is logged, whatever the filter says: its debug
//! lines hold `Authorization`, and it calls every refused request an error.

use thiserror::Error;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The filter cannot be read.
    #[error("log filter {filter:?}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody was first.
    #[error("logging was begun before")]
    Begun(#[from] TryInitError),
}

/// Targets whose lines could show secrets.
fn may_be_logged(target: &str) -> bool {
    let of = |name: &str| {
        target
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
    };
    !of("s3s")
}

/// Begins logging to standard error. `filter` is as in `RUST_LOG`, for
/// example `info` or `shardgate=debug`.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), LogsError> {
    subscriber(format, filter, std::io::stderr)?.try_init()?;
    Ok(())
}

/// Lines to a writer, of what the filter wants and what may be logged.
pub(super) fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl tracing::Subscriber + Send + Sync + use<W>, LogsError>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogsError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let filter = wanted.and(filter_fn(|meta| may_be_logged(meta.target())));
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 95: secrets in logs.
    #[test]
    fn nothing_of_s3s_is_logged() {
        for (target, logged) in [
            ("s3s", false),
            ("s3s::ops", false),
            ("s3s::ops::signature", false),
            ("s3s_sigv4::methods", false),
            ("shardgate::s3::front", true),
            ("s3sync", true),
            ("hyper", true),
        ] {
            assert_eq!(may_be_logged(target), logged, "{target}");
        }
    }
}
