//! Replaying a journal into an engine.

use std::time::{Duration, Instant};

use shardgate_catalog::engine::log::{ChainPosition, Record};
use shardgate_catalog::engine::{EngineError, RocksStopped};
use shardgate_journal::recover::Replay;

use super::start::JournalStartError;

/// Between two words about how far it is.
const SAY: Duration = Duration::from_secs(2);

/// Applies everything that the journal has behind the engine's position, in
/// order, and says how far it is. The position that the replay was asked from
/// must be the engine's.
///
/// # Errors
/// The engine is not on the journal's chain, a segment that is needed is
/// missing, or the engine failed. What was applied is on the chain.
pub async fn replay_into(
    replay: &mut Replay,
    mut engine: RocksStopped,
) -> Result<RocksStopped, JournalStartError> {
    let (from, tail) = (engine.applied().number.0, replay.tail().number.0);
    let began = Instant::now();
    let mut said = began;
    while let Some(records) = replay.next().await? {
        let records: Vec<Record> = records.into_iter().map(of_catalog).collect();
        let applied = tokio::task::spawn_blocking(move || {
            engine.apply(&records)?;
            Ok::<_, EngineError>(engine)
        });
        let ended = |error: tokio::task::JoinError| EngineError::Unavailable(error.to_string());
        engine = applied.await.map_err(ended)??;
        if said.elapsed() >= SAY {
            said = Instant::now();
            let at = engine.applied().number.0;
            tracing::info!(at, from, tail, "replaying the journal");
        }
    }
    if tail > from {
        let commits = tail - from;
        tracing::info!(commits, took = ?began.elapsed(), "journal replayed");
    }
    Ok(engine)
}

fn of_catalog(record: shardgate_journal::Record) -> Record {
    Record {
        position: ChainPosition {
            number: record.position.number,
            hash: record.position.hash,
        },
        payload: record.payload,
    }
}
