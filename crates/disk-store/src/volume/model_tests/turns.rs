//! Threads that take turns, as a seed says: one runs at a time, from one call
//! of the simulated disk to the next, or to where it waits for a lock. The
//! same seed gives the same order, whatever the machine does.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::world::Random;
use crate::io::sim::with_pauses;

/// Who runs.
struct Order {
    random: Random,
    /// Those that have not ended.
    alive: Vec<usize>,
    running: usize,
}

impl Order {
    /// Mostly the same one, so that whole calls are between those of others
    /// as well.
    fn choose(&mut self, now: usize) -> usize {
        let stays = self.alive.contains(&now) && self.random.below(3) > 0;
        if stays || self.alive.is_empty() {
            return now;
        }
        self.alive[self.random.below(self.alive.len() as u64) as usize]
    }
}

struct Turns {
    order: Mutex<Order>,
    wakes: Vec<Condvar>,
}

impl Turns {
    fn wait(&self, me: usize) {
        let mut order = self.order.lock();
        while order.running != me {
            self.wakes[me].wait(&mut order);
        }
    }

    fn pass(&self, me: usize) {
        let mut order = self.order.lock();
        let next = order.choose(me);
        if next == me {
            return;
        }
        order.running = next;
        self.wakes[next].notify_one();
        while order.running != me {
            self.wakes[me].wait(&mut order);
        }
    }

    fn end(&self, me: usize) {
        let mut order = self.order.lock();
        order.alive.retain(|task| *task != me);
        order.running = order.choose(me);
        let next = order.running;
        if next != me {
            self.wakes[next].notify_one();
        }
    }
}

/// Its turn ends, also by a panic.
struct Turn(Arc<Turns>, usize);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

pub(super) type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs all tasks, in turns, and returns when each has ended.
pub(super) fn take_turns(seed: u64, tasks: Vec<Task<'_>>) {
    let turns = Arc::new(Turns {
        order: Mutex::new(Order {
            random: Random(seed),
            alive: (0..tasks.len()).collect(),
            running: 0,
        }),
        wakes: tasks.iter().map(|_| Condvar::new()).collect(),
    });
    std::thread::scope(|scope| {
        let all: Vec<_> = tasks
            .into_iter()
            .enumerate()
            .map(|(me, task)| {
                let turns = Arc::clone(&turns);
                scope.spawn(move || {
                    let _turn = Turn(Arc::clone(&turns), me);
                    turns.wait(me);
                    let passes = Arc::clone(&turns);
                    with_pauses(Arc::new(move || passes.pass(me)), task);
                })
            })
            .collect();
        for task in all {
            if let Err(panic) = task.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn the_seed_alone_says_who_goes_first() {
    let order = |seed| {
        let seen = Mutex::new(Vec::new());
        let task = |name: u32| -> Task<'_> {
            let seen = &seen;
            Box::new(move || {
                for _ in 0..20 {
                    seen.lock().push(name);
                    crate::io::sim::pause();
                }
            })
        };
        take_turns(seed, vec![task(1), task(2), task(3)]);
        seen.into_inner()
    };
    let first = order(7);
    assert_eq!(first.len(), 60);
    assert_eq!(order(7), first);
    assert_ne!(order(8), first);
    let changes = first.windows(2).filter(|two| two[0] != two[1]).count();
    assert!(changes > 10, "{first:?}");
}
