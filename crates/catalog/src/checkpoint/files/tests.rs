//! The life of a checkpoint file's rows.

use shardgate_wire::{BlobId, BlobLayout, DiskId, GroupId, Medium};

use super::*;
use crate::model::GroupState;

fn group(generation: u32) -> GroupRow {
    GroupRow {
        id: GroupId(1),
        generation: Generation(generation),
        data: 2,
        parity: 1,
        medium: Medium::Flash,
        slots: vec![DiskId(1), DiskId(2), DiskId(3)],
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    }
}

fn blob(id: u128) -> BlobRef {
    BlobRef {
        group: GroupId(1),
        blob: BlobId(id),
        layout: BlobLayout { data: 2, parity: 1 },
        len: 1000,
    }
}

async fn catalog() -> Catalog {
    let catalog = Catalog::in_memory();
    catalog.put_group(&group(1), None).await.unwrap();
    catalog
}

#[tokio::test]
async fn a_file_is_known_before_it_is_sent_and_until_it_is_condemned() {
    let catalog = catalog().await;
    let hash = ContentHash::of(b"content");
    catalog
        .register_checkpoint_file(hash, &blob(5))
        .await
        .unwrap();
    let state = |stored| {
        BlobState::Checkpoint(CheckpointBlob {
            file: hash.0,
            layout: blob(5).layout,
            len: 1000,
            stored,
        })
    };
    let known = catalog.blob(GroupId(1), BlobId(5)).await.unwrap();
    assert_eq!(known, Some(state(false)));
    assert_eq!(known.unwrap().extent(), None, "not to be repaired yet");
    // Nobody else can have or condemn the blob.
    let again = catalog.register_checkpoint_file(hash, &blob(5)).await;
    assert_eq!(again, Err(CatalogError::Conflict));
    let row = crate::model::CondemnedRow {
        group: GroupId(1),
        blob: BlobId(5),
        layout: blob(5).layout,
        reason: CondemnReason::NeverPublished,
    };
    assert_eq!(catalog.condemn(&[row]).await, Err(CatalogError::Conflict));

    let five = blob(5);
    let stored = catalog.checkpoint_file_stored(hash, &five, Generation(1));
    stored.await.unwrap();
    let known = catalog.blob(GroupId(1), BlobId(5)).await.unwrap().unwrap();
    assert_eq!(known.extent(), Some((blob(5).layout, 1000)));
    // Another blob with the same content, sent because a disk is gone.
    catalog
        .register_checkpoint_file(hash, &blob(6))
        .await
        .unwrap();
    let files = catalog.checkpoint_files().await.unwrap();
    let of = |id, stored| CheckpointFile {
        hash,
        blob: blob(id),
        stored,
    };
    assert_eq!(files, [of(5, true), of(6, false)]);

    // One that is not as it is said takes none of the others with it.
    let wrong = [of(5, true), of(6, true)];
    let refused = catalog.condemn_checkpoint_files(&wrong).await;
    assert_eq!(refused, Err(CatalogError::Conflict));
    assert_eq!(catalog.checkpoint_files().await.unwrap(), files);
    catalog.condemn_checkpoint_files(&files[..1]).await.unwrap();
    assert_eq!(catalog.checkpoint_files().await.unwrap(), files[1..]);
    assert_eq!(catalog.blob(GroupId(1), BlobId(5)).await, Ok(None));
    let condemned = catalog.condemned(None, 10).await.unwrap();
    assert_eq!(condemned.len(), 1);
    assert_eq!(condemned[0].row.blob, BlobId(5));
    assert_eq!(condemned[0].row.reason, CondemnReason::CheckpointDropped);
}

#[tokio::test]
async fn a_file_is_stored_only_on_the_slots_that_the_group_has() {
    let catalog = catalog().await;
    let hash = ContentHash::of(b"content");
    let nowhere = BlobRef {
        group: GroupId(2),
        ..blob(5)
    };
    let refused = catalog.register_checkpoint_file(hash, &nowhere).await;
    assert_eq!(refused, Err(CatalogError::NoSuchGroup));
    let five = blob(5);
    let unknown = catalog.checkpoint_file_stored(hash, &five, Generation(1));
    assert_eq!(unknown.await, Err(CatalogError::Conflict));
    catalog
        .register_checkpoint_file(hash, &blob(5))
        .await
        .unwrap();
    catalog.put_group(&group(2), Some(&group(1))).await.unwrap();
    let moved = catalog.checkpoint_file_stored(hash, &five, Generation(1));
    let moved = moved.await.unwrap_err();
    assert!(
        matches!(moved, CatalogError::GroupMoved { .. }),
        "{moved:?}"
    );
    assert!(!catalog.checkpoint_files().await.unwrap()[0].stored);
}
