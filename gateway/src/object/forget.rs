//! Forgets completed uploads when their repeats are over.
//!
//! Owns how long a completion is remembered: a client that did not get its
//! answer asks again, and is answered the same until then. Without an end the
//! catalog would keep a row for every upload there ever was.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::core::Core;
use super::error::ObjectError;

/// How long a repeated completion is answered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often is looked for older ones.
const EVERY: Duration = Duration::from_secs(3600);
/// Rows that one step looks at.
const AT_ONCE: usize = 1000;
/// Pause between two steps: clients come first.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs until the stop token is cancelled.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if core.calls.is_fenced() {
            return;
        }
        if let Err(error) = pass(&core).await {
            warn!(%error, "completed uploads were not forgotten, goes on later");
        }
    }
}

async fn pass(core: &Core) -> Result<(), ObjectError> {
    let remembered = u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX);
    let before = core.clock.now_ms().saturating_sub(remembered);
    let mut cursor: Option<Vec<u8>> = None;
    while !core.stop.is_cancelled() {
        let step = core
            .catalog
            .forget_completed(before, cursor.as_deref(), AT_ONCE);
        cursor = step.await?;
        if cursor.is_none() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    debug!(before, "completed uploads forgotten");
    Ok(())
}
