//! The commit of a write, detached from its client.
//!
//! Owns what happens between durable shards and the answer. Invariants: once
//! a commit is handed over, the client's leaving changes nothing; a write
//! that the catalog refused is cleared away; one whose outcome is not known
//! is left alone, since it may have happened (PROTOCOL.md 3).

use std::future::Future;
use std::sync::Arc;

use shardgate_catalog::model::UploadPartRow;
use shardgate_catalog::{BucketRef, CatalogError, Publish, PublishBody, Published, WrittenBlob};
use shardgate_wire::VersionUid;
use tracing::{error, warn};

use super::core::Core;
use super::error::ObjectError;
use super::writer::BlobWriter;

/// How often a group may move under one write.
const MOVES: usize = 4;

/// Runs work that goes on when its caller leaves.
pub(super) async fn detached<T: Send + 'static>(
    core: &Core,
    work: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
) -> Result<T, ObjectError> {
    match core.tracker.spawn(work).await {
        Ok(result) => result,
        Err(failure) => {
            error!(%failure, "commit task ended without an answer");
            Err(ObjectError::Unavailable {
                why: "the commit's outcome is not known".into(),
            })
        }
    }
}

/// Commits what names a written blob. `commit` may be called several times.
async fn commit_blob<T, F>(
    mut writer: Box<BlobWriter>,
    commit: impl Fn(WrittenBlob) -> F,
) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, CatalogError>>,
{
    for _ in 0..MOVES {
        match commit(writer.written()).await {
            Ok(done) => {
                writer.published();
                return Ok(done);
            }
            Err(CatalogError::GroupMoved { current }) if writer.moved_to(&current) => {}
            Err(error @ CatalogError::Unavailable { .. }) => {
                warn!(%error, "outcome of a commit is not known, its blob stays");
                writer.published();
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ObjectError::Unavailable {
        why: "the group keeps moving".into(),
    })
}

/// Publishes an object.
pub(super) async fn publish(
    core: &Arc<Core>,
    publish: Publish,
    writer: Option<Box<BlobWriter>>,
) -> Result<Published, ObjectError> {
    core.check_in_force()?;
    let catalog = core.catalog.clone();
    detached(core, async move {
        match writer {
            None => Ok(catalog.publish(publish).await?),
            Some(writer) => {
                let commit = |written| {
                    let mut publish = publish.clone();
                    publish.body = PublishBody::Blob(written);
                    catalog.publish(publish)
                };
                commit_blob(writer, commit).await
            }
        }
    })
    .await
}

/// Stores the row of a part.
pub(super) async fn publish_part(
    core: &Arc<Core>,
    (bucket, key, upload): (BucketRef, String, VersionUid),
    row: UploadPartRow,
    writer: Option<Box<BlobWriter>>,
) -> Result<(), ObjectError> {
    core.check_in_force()?;
    let catalog = core.catalog.clone();
    detached(core, async move {
        let put = async |written: Option<WrittenBlob>| {
            let row = row.clone();
            catalog
                .put_part(&bucket, &key, upload, row, written.as_ref())
                .await
        };
        match writer {
            None => put(None).await?,
            Some(writer) => commit_blob(writer, |written| put(Some(written))).await?,
        };
        Ok(())
    })
    .await
}
