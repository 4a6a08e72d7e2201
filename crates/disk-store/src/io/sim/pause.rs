//! Where a thread that uses a simulated disk lets others go first.

use std::cell::RefCell;
use std::sync::Arc;

type Pause = Arc<dyn Fn()>;

thread_local! {
    static PAUSE: RefCell<Option<Pause>> = const { RefCell::new(None) };
}

/// Runs `run`; before each call that it makes of a simulated disk, and where
/// it waits for a lock ([`pause`]), `at` is called.
pub fn with_pauses<T>(at: Arc<dyn Fn()>, run: impl FnOnce() -> T) -> T {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            PAUSE.with(|pause| pause.borrow_mut().take());
        }
    }
    PAUSE.with(|pause| *pause.borrow_mut() = Some(at));
    let _ends = Ends;
    run()
}

/// Lets others go first if this thread was asked to; false if it was not.
pub fn pause() -> bool {
    let at = PAUSE.with(|pause| pause.borrow().clone());
    if let Some(at) = &at {
        at();
    }
    at.is_some()
}
