//! What every [`ShardStore`] must do, as one suite.
//!
//! [`run`] makes a fresh store for each case and asserts the documented
//! behaviour through the trait alone; a panic names the case. What lies
//! beneath the trait (files, messages) is tested where it is written.

pub mod sample;

mod notes;
mod order;
mod reading;
mod rules;
mod writing;

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::check::CheckPage;
use crate::disk::DiskIdentity;
use crate::shard::ShardKey;
use crate::store::{CallContext, ShardStore, StoreError};

/// A store that is put through the suite.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store, as its callers have it.
    fn store(&self) -> Arc<dyn ShardStore>;

    /// Flips a bit of the byte at `offset` of a stored shard's data.
    async fn damage(&self, key: ShardKey, offset: u64);

    /// Stops and starts what holds the disk; what was answered stays.
    async fn restart(&mut self);
}

/// One case: a fresh store whose slots are assigned, and its caller.
struct Case<S> {
    subject: S,
    store: Arc<dyn ShardStore>,
    ctx: CallContext,
}

impl<S: Subject> Case<S> {
    async fn restart(&mut self) {
        self.subject.restart().await;
        self.store = self.subject.store();
    }
}

/// Says which case runs when one panics.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("conformance case failed: {}", self.0);
        }
    }
}

/// Runs the suite. `fresh` makes an empty disk of the given identity, under
/// no epoch, with at least 64 MiB of space.
///
/// # Panics
/// When the store breaks a rule.
pub async fn run<F, Fut, S>(fresh: F)
where
    F: Fn(DiskIdentity) -> Fut,
    Fut: Future<Output = S>,
    S: Subject,
{
    macro_rules! cases {
        ($($area:ident: $($case:ident),+;)+) => {$($({
            let _named = Named(concat!(stringify!($area), "::", stringify!($case)));
            let subject = fresh(sample::identity()).await;
            let case = Case { store: subject.store(), subject, ctx: sample::context(1) };
            case.store.assign(&case.ctx, &[sample::slot()]).await.expect("a fresh disk takes a slot");
            Box::pin($area::$case(case)).await;
        })+)+};
    }
    cases! {
        writing: appends_make_a_shard, an_empty_shard, repeats_are_done, offsets_are_exact,
            bad_bytes_are_refused, ends_are_exact, a_finished_shard_stays, an_open_one_begins_anew,
            abort_gives_up, put_stores_at_once, put_many_at_once, put_repeats, delete_forgets;
        reading: ranges_are_bounded, unfinished_is_not_served, damage_is_corrupt,
            damage_is_known_until_it_is_deleted, finished_survive_a_restart;
        rules: other_clusters_are_refused, stale_epochs_are_refused, a_higher_epoch_is_taken,
            generations_are_exact, a_moved_slot_ends_writing, headers_are_checked,
            rules_survive_a_restart, health_tells;
        order: lists_in_order, pages_join, bounds_of_batches;
        notes: what_is_noted_is_listed, a_deleted_blob_takes_no_shards, notes_are_bounded,
            many_notes_come_in_pages, slots_are_listed;
    }
}

/// Checks a whole disk, page after page.
///
/// # Panics
/// When the disk does not answer.
pub async fn check_whole(store: &dyn ShardStore, ctx: &CallContext, repair: bool) -> CheckPage {
    let mut all = CheckPage::default();
    loop {
        let page = store.check(ctx, all.next.take(), repair).await;
        let page = page.expect("the disk is checked");
        all.volumes += page.volumes;
        all.shards += page.shards;
        all.bytes += page.bytes;
        all.findings.extend(page.findings);
        all.next = page.next;
        if all.next.is_none() {
            return all;
        }
    }
}

/// Asserts that a call broke a bound.
#[track_caller]
fn assert_bad_call<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(
        matches!(answer, Err(StoreError::BadCall { .. })),
        "{answer:?}"
    );
}
