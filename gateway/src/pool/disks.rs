//! What the object path asks of the pool: its port, answered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardgate_wire::{CallContext, DiskId, GroupId, Medium, ShardStore};

use super::groups::PlaceError;
use super::latency::SizeClass;
use super::media::medium_profile;
use super::state::Pool;
use crate::object::error::ObjectError;
use crate::object::ports::{CallKind, CallReport, ClassChoice, Disks, GroupView};

/// A read is raced when it takes longer than this share of its like.
const HEDGE_QUANTILE: f64 = 0.95;

#[async_trait]
impl Disks for Pool {
    fn context(&self) -> CallContext {
        Pool::context(self)
    }

    fn disks(&self) -> Vec<DiskId> {
        let members = self.members();
        let here = members.iter().filter(|member| !member.is_lost_for_good());
        here.map(|member| member.id()).collect()
    }

    fn store(&self, disk: DiskId) -> Option<Arc<dyn ShardStore>> {
        self.member(disk)?.store()
    }

    fn is_living(&self, disk: DiskId) -> bool {
        self.member(disk).is_some_and(|member| member.is_living())
    }

    fn is_lost_for_good(&self, disk: DiskId) -> bool {
        self.is_gone_for_good(disk)
    }

    fn report(&self, disk: DiskId, report: CallReport<'_>) {
        match report {
            CallReport::Done { kind, took, bytes } => {
                if kind == CallKind::Read
                    && let Some(member) = self.member(disk)
                {
                    self.inner.latencies.note_read(member.medium, bytes, took);
                }
            }
            CallReport::Failed(error) => self.note_error(disk, error),
            CallReport::Late => self.note_late(disk),
        }
    }

    fn hedge_delay(&self, medium: Medium, bytes: usize) -> Duration {
        let profile = medium_profile(medium);
        let class = SizeClass::of(bytes);
        let usual = self.inner.latencies.quantile(medium, class, HEDGE_QUANTILE);
        let delay = usual.unwrap_or(profile.hedge_most);
        delay.clamp(profile.hedge_least, profile.hedge_most)
    }

    fn shard_target(&self, medium: Medium) -> u64 {
        medium_profile(medium).shard_target_bytes
    }

    async fn class(&self, name: Option<&str>) -> Result<ClassChoice, ObjectError> {
        let found = self.inner.classes.by_name(name);
        let (number, _) = found.map_err(|_| ObjectError::UnknownClass)?;
        self.class_by_number(*number).await
    }

    async fn class_by_number(&self, number: u16) -> Result<ClassChoice, ObjectError> {
        let found = self.inner.classes.by_number(number);
        let (_, class) = found.ok_or(ObjectError::UnknownClass)?;
        let snapshot = self.snapshot();
        let Some(scheme) = snapshot.schemes.get(&number) else {
            return Err(ObjectError::Unavailable {
                why: format!("class {} has no disks of its medium", class.name),
            });
        };
        Ok(ClassChoice {
            number,
            name: class.name.clone(),
            scheme: *scheme,
            medium: class.medium,
        })
    }

    async fn group_for_write(
        &self,
        class: &ClassChoice,
        len: Option<u64>,
        prefer: Option<GroupId>,
    ) -> Result<Arc<GroupView>, ObjectError> {
        Ok(Pool::group_for_write(self, class, len, prefer).await?)
    }

    async fn group_for_keeping(&self, len: u64) -> Result<Arc<GroupView>, ObjectError> {
        Ok(Pool::group_for_keeping(self, len).await?)
    }

    async fn group(&self, id: GroupId) -> Result<Arc<GroupView>, ObjectError> {
        Ok(Pool::group(self, id).await?)
    }

    async fn stale_generation(&self, group: GroupId) -> Result<(), ObjectError> {
        Ok(Pool::stale_generation(self, group).await?)
    }
}

impl Pool {
    /// The name that objects of a class number show.
    pub fn class_name(&self, number: u16) -> String {
        self.inner.classes.name(number).to_owned()
    }
}

impl From<PlaceError> for ObjectError {
    fn from(error: PlaceError) -> Self {
        let why = error.to_string();
        match error {
            PlaceError::TakenOver => Self::Fenced,
            PlaceError::NoSpace => Self::NoSpace,
            PlaceError::NoSuchGroup(_) | PlaceError::Damaged(_) => Self::Damaged { why },
            PlaceError::TooFewDisks { .. }
            | PlaceError::Unassigned
            | PlaceError::Slot { .. }
            | PlaceError::Catalog(_) => Self::Unavailable { why },
        }
    }
}
