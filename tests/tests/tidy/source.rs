//! The project's Rust files as text, with their functions.
//!
//! Relies on rustfmt: a function ends at the first line that is its closing brace at its own indentation.

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
pub struct Source {
    /// From the project's root, with `/`.
    pub path: String,
    pub lines: Vec<String>,
}

impl Source {
    /// Lines with comments cut off, numbered from 1.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, code(line)))
    }
}

/// A function's name, first line and length.
#[derive(Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// The folder of the workspace's Cargo.toml.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package lies in the workspace")
        .to_path_buf()
}

/// Every Rust file of the project, in the order of their paths.
pub fn tree() -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for folder in [
        "gateway",
        "storage-agent",
        "crates",
        "tests",
        "s3-compat-tests",
        "bench",
    ] {
        gather(&root.join(folder), &root, &mut files);
    }
    assert!(
        files.len() > 10,
        "the tree was not found under {}",
        root.display()
    );
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn gather(folder: &Path, root: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a folder of the project is readable") {
        let path = entry.expect("its entries too").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "vendor") {
                gather(&path, root, files);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            let relative = path.strip_prefix(root).expect("found under the root");
            files.push(Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                lines: text.lines().map(str::to_owned).collect(),
            });
        }
    }
}

/// A line without its comment. `//` inside of a string is kept when a URL's colon is before it.
fn code(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//") {
        let at = from + at;
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// Whether `word` stands in `code` with no name's letter before it.
pub fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    })
}

/// The functions of a file, nested ones included.
pub fn functions(file: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (index, line) in file.lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let declared = format!("{indent}) ");
        let mut end = index;
        if !(line.ends_with('}') || line.ends_with(';')) {
            end += 1;
            while end < file.lines.len() {
                let last = &file.lines[end];
                let body_less = last.starts_with(&declared) && last.ends_with(';');
                if *last == closing || body_less {
                    break;
                }
                end += 1;
            }
        }
        found.push(Function {
            name,
            line: index + 1,
            lines: end - index + 1,
        });
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    const BEFORE: [&str; 7] = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "const",
        "async",
        "unsafe",
        "extern \"C\"",
    ];
    let mut rest = line.trim_start();
    while let Some(after) = BEFORE
        .iter()
        .find_map(|word| rest.strip_prefix(&format!("{word} ")))
    {
        rest = after;
    }
    let name = rest.strip_prefix("fn ")?;
    let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    (end > 0).then(|| name[..end].to_owned())
}

fn source_of(text: &str) -> Source {
    Source {
        path: "x.rs".into(),
        lines: text.lines().map(str::to_owned).collect(),
    }
}

#[test]
fn functions_are_found_with_their_length() {
    let text = "fn one() {}\nimpl X {\n    pub(crate) async fn two(\n        a: u8,\n    ) -> u8 {\n        \
                if a > 0 {\n        }\n        a\n    }\n    fn three(&self);\n}\n";
    let found = functions(&source_of(text));
    let expected =
        [("one", 1, 1), ("two", 3, 7), ("three", 10, 1)].map(|(name, line, lines)| Function {
            name: name.into(),
            line,
            lines,
        });
    assert_eq!(found, expected);
}

#[test]
fn comments_are_no_code() {
    for (line, expected) in [
        ("let a = 1; // s3s::dto", "let a = 1; "),
        ("//! s3s::dto", ""),
        ("get(\"http://x\") // why", "get(\"http://x\") "),
    ] {
        assert_eq!(code(line), expected);
    }
}

#[test]
fn words_are_matched_from_their_start() {
    assert!(names("use s3s::dto;", "s3s::"));
    assert!(names("fn x(a: s3s::S3Error)", "s3s::"));
    assert!(!names("use my_s3s::dto;", "s3s::"));
}
