//! Checks of the source tree itself: what a reviewer would otherwise have to remember.
//!
//! Owns the rules about files, names and allowed imports; `make check` runs it and shows the longest files
//! and functions. It reads text and does not parse Rust: rules are written so that this is enough, since
//! every file has been through rustfmt. What a crate may depend on is also refused by `deny.toml`.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, functions, tree};

/// Above this a file is shown as one to split.
const LONG_FILE_LINES: usize = 500;
/// Above this it is refused.
const LONGEST_FILE_LINES: usize = 700;
/// Above this a function is shown as one to split.
const LONG_FUNCTION_LINES: usize = 70;
/// Above this it is refused.
const LONGEST_FUNCTION_LINES: usize = 150;
/// Names that say nothing about what a file owns.
const EMPTY_NAMES: [&str; 5] = ["util", "common", "helper", "manager", "misc"];
/// Macros that stand for work not done.
const UNDONE: [&str; 2] = [concat!("todo", "!("), concat!("unimplemented", "!(")];

fn refuse(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn found(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    tree().iter().flat_map(check).collect()
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = found(|file| {
        let first = file.lines.iter().find(|line| !line.trim().is_empty());
        match first {
            Some(line) if line.starts_with("//! ") => vec![],
            _ => vec![file.path.clone()],
        }
    });
    refuse("files without a module doc (//!) at their top", &silent);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut lengths: Vec<(usize, String)> = tree()
        .into_iter()
        .map(|file| (file.lines.len(), file.path))
        .collect();
    lengths.sort_by(|a, b| b.cmp(a));
    println!(
        "longest files (median {} lines):",
        lengths[lengths.len() / 2].0
    );
    for (lines, path) in lengths.iter().take(10) {
        let mark = if *lines > LONG_FILE_LINES {
            "  <- split it"
        } else {
            ""
        };
        println!("{lines:6}  {path}{mark}");
    }
    let too_long: Vec<String> = lengths
        .iter()
        .filter(|(lines, _)| *lines > LONGEST_FILE_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    refuse("files over 700 lines", &too_long);
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut lengths: Vec<(usize, String)> = Vec::new();
    for file in tree() {
        for function in functions(&file) {
            let place = format!("{}:{} {}", file.path, function.line, function.name);
            lengths.push((function.lines, place));
        }
    }
    lengths.sort_by(|a, b| b.cmp(a));
    let long = lengths
        .iter()
        .filter(|(lines, _)| *lines > LONG_FUNCTION_LINES)
        .count();
    println!(
        "longest of {} functions ({long} over {LONG_FUNCTION_LINES} lines):",
        lengths.len()
    );
    for (lines, place) in lengths.iter().take(15) {
        let mark = if *lines > LONG_FUNCTION_LINES {
            "  <- split it"
        } else {
            ""
        };
        println!("{lines:6}  {place}{mark}");
    }
    let too_long: Vec<String> = lengths
        .iter()
        .filter(|(lines, _)| *lines > LONGEST_FUNCTION_LINES)
        .map(|(lines, place)| format!("{place}: {lines} lines"))
        .collect();
    refuse("functions over 150 lines", &too_long);
}

#[test]
fn names_say_what_a_file_owns() {
    let empty = found(|file| {
        let name = file.path.to_lowercase();
        let named = EMPTY_NAMES.iter().any(|word| name.contains(word));
        if named {
            vec![file.path.clone()]
        } else {
            vec![]
        }
    });
    refuse("file names that say nothing", &empty);
}

#[test]
fn nothing_is_left_undone() {
    let undone = found(|file| {
        file.code_lines()
            .filter(|(_, code)| UNDONE.iter().any(|mark| code.contains(mark)))
            .map(|(line, code)| format!("{}:{line} {}", file.path, code.trim()))
            .collect()
    });
    refuse("work that is not done", &undone);
}

#[test]
fn layers_import_only_what_they_may() {
    refuse(
        "imports that the layout forbids",
        &found(imports::forbidden),
    );
}

#[test]
fn crates_depend_in_one_direction() {
    refuse(
        "dependencies against the layout",
        &imports::wrong_dependencies(),
    );
}
