//! Tests of the decisions of a start.

use super::*;
use crate::pool::place::Found;

const OURS: ClusterId = ClusterId(1);

fn identity(cluster: u128, disk: u128) -> FoundState {
    FoundState::Disk(DiskIdentity {
        cluster: ClusterId(cluster),
        disk: DiskId(disk),
        medium: Medium::Flash,
    })
}

fn place(folders: &[(&str, FoundState)]) -> Result<Survey, String> {
    Ok(Survey {
        agent: None,
        name: String::new(),
        server: "s".into(),
        site: "h".into(),
        folders: folders
            .iter()
            .map(|(folder, state)| Found {
                folder: (*folder).into(),
                medium: None,
                state: state.clone(),
            })
            .collect(),
    })
}

fn row(disk: u128, path: &str) -> DiskRow {
    DiskRow {
        id: DiskId(disk),
        agent: None,
        path: path.into(),
        server: "s".into(),
        site: "h".into(),
        medium: Medium::Flash,
        state: DiskState::Member,
    }
}

fn folders<'a>(at: impl IntoIterator<Item = &'a At>) -> Vec<&'a str> {
    at.into_iter().map(|at| at.folder.as_str()).collect()
}

#[test]
fn all_blank_and_no_catalog_is_a_new_cluster() {
    let found = [place(&[("a", FoundState::Blank), ("b", FoundState::Blank)])];
    let blank = plan_new(None, &found).unwrap();
    assert_eq!(folders(blank.iter().map(|(at, _)| at)), ["a", "b"]);
    // A start of it that was cut short had made the first.
    let found = [place(&[("a", identity(9, 1)), ("b", FoundState::Blank)])];
    let blank = plan_new(Some(ClusterId(9)), &found).unwrap();
    assert_eq!(folders(blank.iter().map(|(at, _)| at)), ["b"]);
    assert!(plan_new(Some(ClusterId(8)), &found).is_err());
}

#[test]
fn disks_without_their_catalog_are_never_made_anew() {
    let found = [place(&[("a", FoundState::Blank), ("b", identity(9, 1))])];
    let error = plan_new(None, &found).unwrap_err();
    assert!(matches!(&error, PlanError::CatalogGone { folders, .. } if folders == &["b"]));
    assert!(error.to_string().contains("restored"), "{error}");
}

#[test]
fn a_new_cluster_begins_with_all_that_is_configured() {
    let failed = FoundState::Failed {
        why: "b is strange".into(),
    };
    for (found, problem) in [
        (
            vec![place(&[
                ("a", FoundState::Blank),
                ("b", FoundState::Missing),
            ])],
            "no folder b",
        ),
        (
            vec![place(&[("a", FoundState::Blank), ("b", failed)])],
            "b is strange",
        ),
        (
            vec![
                place(&[("a", FoundState::Blank)]),
                Err("agent x does not answer".into()),
            ],
            "agent x",
        ),
    ] {
        let error = plan_new(None, &found).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    assert_eq!(plan_new(None, &[]), Err(PlanError::NoDisks));
}

#[test]
fn swapped_disks_are_known_by_their_identity() {
    let found = [place(&[("a", identity(1, 2)), ("b", identity(1, 1))])];
    let plan = plan(OURS, &[row(1, "a"), row(2, "b")], &found);
    let opened: Vec<_> = plan
        .open
        .iter()
        .map(|(row, _, at)| (row.id.0, &at.folder[..]))
        .collect();
    assert_eq!(opened, [(1, "b"), (2, "a")]);
    assert!(plan.missing.is_empty() && plan.format.is_empty() && plan.warnings.is_empty());
}

#[test]
fn a_blank_folder_where_a_disk_was_is_a_lost_disk() {
    let found = [place(&[("a", FoundState::Blank), ("b", identity(1, 2))])];
    let plan = plan(OURS, &[row(1, "a"), row(2, "b")], &found);
    assert!(plan.format.is_empty());
    assert_eq!(plan.missing.len(), 1);
    assert_eq!(plan.missing[0].1, "a is blank");
    assert!(
        plan.warnings[0].contains("disk replace a"),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn a_blank_folder_of_a_disk_declared_lost_waits_for_the_operator() {
    let lost = DiskRow {
        state: DiskState::Lost,
        ..row(1, "a")
    };
    let found = [place(&[("a", FoundState::Blank)])];
    let plan = plan(OURS, &[lost], &found);
    assert!(plan.format.is_empty() && plan.missing.is_empty());
    assert!(
        plan.warnings[0].contains("disk replace a"),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn a_blank_folder_at_a_new_path_joins() {
    let found = [place(&[("a", identity(1, 1)), ("c", FoundState::Blank)])];
    let plan = plan(OURS, &[row(1, "a")], &found);
    assert_eq!(folders(plan.format.iter().map(|(at, _)| at)), ["c"]);
}

#[test]
fn what_is_not_ours_is_left_untouched() {
    let lost = DiskRow {
        state: DiskState::Lost,
        ..row(3, "c")
    };
    let found = [place(&[
        ("a", identity(1, 1)),
        ("b", identity(7, 2)),
        ("c", identity(1, 3)),
        ("d", identity(1, 4)),
        ("e", identity(1, 4)),
        ("f", identity(1, 5)),
    ])];
    let plan = plan(OURS, &[row(1, "a"), row(2, "b"), lost], &found);
    assert_eq!(plan.open.len(), 1);
    assert!(plan.format.is_empty());
    assert_eq!(
        plan.missing[0].1,
        "b holds disk 00000000000000000000000000000002"
    );
    let all = plan.warnings.join("\n");
    for part in ["another cluster", "declared lost", "found at d and at e"] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(folders(plan.stray.iter().map(|(_, at)| at)), ["f"]);
}

#[test]
fn a_copied_disk_is_not_used_at_either_place() {
    let found = [place(&[("a", identity(1, 1)), ("b", identity(1, 1))])];
    let plan = plan(OURS, &[row(1, "a")], &found);
    assert!(plan.open.is_empty());
    assert!(plan.missing[0].1.contains("one is a copy"));
}

#[test]
fn a_silent_agent_is_named() {
    let agents = DiskRow {
        agent: Some(AgentId(5)),
        ..row(1, "a")
    };
    let found = [place(&[]), Err("agent x does not answer".into())];
    let plan = plan(OURS, &[agents], &found);
    assert!(plan.missing[0].1.contains("agent x"), "{:?}", plan.missing);
}
