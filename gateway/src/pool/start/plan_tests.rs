//! Tests of the decisions of a start.

use super::*;
use crate::pool::place::{Found, MakeFolders};

const OURS: ClusterId = ClusterId(1);

fn identity(cluster: u128, disk: u128) -> FoundState {
    FoundState::Disk(DiskIdentity {
        cluster: ClusterId(cluster),
        disk: DiskId(disk),
        medium: Medium::Flash,
    })
}

fn place(folders: &[(&str, FoundState)]) -> Result<Survey, String> {
    Ok(survey(None, folders))
}

/// As of a demo that was told a number of disks.
fn growing(folders: &[(&str, FoundState)]) -> Result<Survey, String> {
    Ok(Survey {
        makes: MakeFolders::ForNewDisks,
        ..survey(None, folders)
    })
}

fn survey(agent: Option<u128>, folders: &[(&str, FoundState)]) -> Survey {
    Survey {
        agent: agent.map(AgentId),
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
        makes: MakeFolders::Never,
    }
}

fn plan(rows: &[DiskRow], surveys: &[Result<Survey, String>]) -> Plan {
    super::plan(
        Known {
            cluster: OURS,
            rows,
            held: false,
        },
        surveys,
    )
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
    let plan = plan(&[row(1, "a"), row(2, "b")], &found);
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
    let plan = plan(&[row(1, "a"), row(2, "b")], &found);
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
    let plan = plan(&[lost], &found);
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
    let plan = plan(&[row(1, "a")], &found);
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
    let plan = plan(&[row(1, "a"), row(2, "b"), lost], &found);
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
    let plan = plan(&[row(1, "a")], &found);
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
    let plan = plan(&[agents], &found);
    assert!(plan.missing[0].1.contains("agent x"), "{:?}", plan.missing);
}

#[test]
fn a_folder_that_is_nowhere_is_warned_of() {
    let found = [place(&[("a", identity(1, 1)), ("b", FoundState::Missing)])];
    let plan = plan(&[row(1, "a")], &found);
    assert!(plan.format.is_empty() && plan.missing.is_empty());
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("there is no folder b"));
    assert!(plan.warnings[0].contains("not mounted"));
}

/// A known disk's missing folder is told as its state, and not twice.
#[test]
fn a_missing_folder_of_a_known_disk_is_no_mistake() {
    for found in [
        [place(&[("a", FoundState::Missing)])],
        [growing(&[("a", FoundState::Missing)])],
    ] {
        let plan = plan(&[row(1, "a")], &found);
        assert!(plan.format.is_empty() && plan.warnings.is_empty());
        assert_eq!(plan.missing[0].1, "there is no folder a");
    }
}

#[test]
fn a_pool_that_is_told_more_disks_makes_their_folders() {
    let disks = [
        ("a", identity(1, 1)),
        ("b", FoundState::Missing),
        ("c", FoundState::Missing),
    ];
    let rows = [row(1, "a"), row(2, "b")];
    let made = plan(&rows, &[growing(&disks)]);
    assert_eq!(folders(made.format.iter().map(|(at, _)| at)), ["c"]);
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);

    // A new cluster only, and no pool of a configuration file, makes none.
    let new_only = Survey {
        makes: MakeFolders::ForNewCluster,
        ..survey(None, &disks)
    };
    for found in [Ok(new_only), place(&disks)] {
        let plan = plan(&rows, &[found]);
        assert!(plan.format.is_empty());
        assert!(plan.warnings[0].contains("there is no folder c"));
    }
    // Disks may have been that the catalog does not know.
    let known = Known {
        cluster: OURS,
        rows: &rows,
        held: true,
    };
    let plan = super::plan(known, &[growing(&disks)]);
    assert!(plan.format.is_empty());
    assert!(plan.warnings[0].contains("nothing is reclaimed"));
}

/// The whole pool was moved, and one of its disks is not there: its new
/// folder is not that of a new disk.
#[test]
fn no_folder_is_made_while_a_disk_has_none() {
    let found = [growing(&[
        ("/new/1", identity(1, 1)),
        ("/new/2", FoundState::Missing),
    ])];
    let plan = plan(&[row(1, "/old/1"), row(2, "/old/2")], &found);
    assert!(plan.format.is_empty());
    let warning = &plan.warnings[0];
    assert!(
        warning.contains("/old/2") && warning.contains("not made"),
        "{warning}"
    );
}

#[test]
fn a_blank_folder_waits_while_disks_may_be_unknown() {
    let found = [place(&[("a", identity(1, 1)), ("b", FoundState::Blank)])];
    let known = Known {
        cluster: OURS,
        rows: &[row(1, "a")],
        held: true,
    };
    let plan = super::plan(known, &found);
    assert!(plan.format.is_empty());
    assert!(
        plan.warnings[0].contains("disk replace b"),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn a_path_that_is_spelt_otherwise_is_the_same_folder() {
    for (one, other, same) in [
        ("/mnt/a", "/mnt/a/", true),
        ("/mnt/a", "/mnt//a", true),
        ("/mnt/a", "/mnt/./a", true),
        ("/mnt/a", "/mnt/b/../a", true),
        ("/mnt/a", "/mnt/b", false),
        ("/mnt/a", "/mnt/a/a", false),
        ("/mnt/a", "mnt/a", false),
        ("/", "/..", true),
    ] {
        assert_eq!(same_folder(one, other), same, "{one} {other}");
        let found = [place(&[(other, FoundState::Blank)])];
        let plan = plan(&[row(1, one)], &found);
        assert_eq!(plan.format.is_empty(), same, "{one} {other}");
        assert_eq!(plan.warnings.is_empty(), !same, "{:?}", plan.warnings);
    }
}

/// An agent that lost its own folder has another id; what its server's disks
/// were stays what they were, and so do their mount points.
#[test]
fn a_new_agent_on_the_same_server_has_the_old_ones_folders() {
    let of = |agent, id, path| DiskRow {
        agent: Some(AgentId(agent)),
        ..row(id, path)
    };
    let rows = [of(5, 1, "/a"), of(5, 2, "/b")];
    let empty = [
        ("/a", FoundState::Blank),
        ("/b/", FoundState::Missing),
        ("/c", FoundState::Blank),
    ];
    let planned = plan(&rows, &[Ok(survey(Some(6), &empty))]);
    assert_eq!(folders(planned.format.iter().map(|(at, _)| at)), ["/c"]);
    let why: Vec<_> = planned.missing.iter().map(|(_, why)| &why[..]).collect();
    assert_eq!(why, ["/a is blank", "there is no folder /b"]);
    assert_eq!(planned.warnings.len(), 1, "{:?}", planned.warnings);
    assert!(planned.warnings[0].contains("of another agent"));

    // Two agents of one server may both have a folder of that name.
    let both = [
        Ok(survey(
            Some(5),
            &[("/a", identity(1, 1)), ("/b", identity(1, 2))],
        )),
        Ok(survey(Some(6), &[("/a", FoundState::Blank)])),
    ];
    let planned = plan(&rows, &both);
    assert_eq!(folders(planned.format.iter().map(|(at, _)| at)), ["/a"]);
    assert!(planned.warnings.is_empty(), "{:?}", planned.warnings);
}

/// However far it came before it was cut off.
#[test]
fn a_first_start_that_makes_its_folders_goes_on_where_it_was() {
    let (made, to_make) = (identity(9, 1), FoundState::Missing);
    for (begun, states, expected) in [
        (None, [&to_make, &to_make, &to_make], &["a", "b", "c"][..]),
        (
            None,
            [&FoundState::Blank, &to_make, &to_make],
            &["a", "b", "c"],
        ),
        (
            Some(ClusterId(9)),
            [&made, &FoundState::Blank, &to_make],
            &["b", "c"],
        ),
    ] {
        let states = ["a", "b", "c"].into_iter().zip(states.map(Clone::clone));
        let found = Survey {
            makes: MakeFolders::ForNewCluster,
            ..survey(None, &states.collect::<Vec<_>>())
        };
        let new = plan_new(begun, &[Ok(found)]).unwrap();
        assert_eq!(folders(new.iter().map(|(at, _)| at)), expected);
    }
    // A disk of a cluster whose catalog is gone: nothing is made.
    let found = [growing(&[("a", made), ("b", to_make)])];
    assert!(matches!(
        plan_new(None, &found),
        Err(PlanError::CatalogGone { .. })
    ));
}
