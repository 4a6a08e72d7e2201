//! Who may import what: the layout of ARCHITECTURE.md as two tables.
//!
//! Crate borders refuse most wrong imports by themselves; these rules hold inside `gateway`, and keep the
//! borders where they are.

use std::fs;

use super::source::{Source, names, root};

/// Names that only some folders may use.
struct Rule {
    /// What is forbidden, as it stands in code.
    words: &'static [&'static str],
    /// Where the rule holds: prefixes of paths.
    within: &'static [&'static str],
    /// Where it does not: prefixes of paths.
    except: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["s3s::"],
        within: &["gateway/", "storage-agent/", "crates/"],
        except: &["gateway/src/s3/", "gateway/src/server"],
        why: "S3's types stay in gateway/src/s3",
    },
    Rule {
        words: &["hyper::client", "hyper_util::client", "TcpStream::connect"],
        within: &["gateway/src/"],
        // The command line asks a running gateway; tests are their own clients.
        except: &[
            "gateway/src/agents/",
            "gateway/src/cli/operator.rs",
            "gateway/src/s3/tests/",
            "gateway/src/server/tests",
        ],
        why: "agent connections are opened in gateway/src/agents alone",
    },
    Rule {
        words: &["rocksdb::"],
        within: &[
            "gateway/",
            "storage-agent/",
            "crates/",
            "tests/src/",
            "bench/",
        ],
        except: &["crates/catalog/"],
        why: "RocksDB stays behind the catalog's Engine trait",
    },
    Rule {
        words: &["shardgate_agent::"],
        within: &["gateway/", "crates/", "bench/"],
        except: &[],
        why: "the gateway reaches agents over the network only",
    },
    Rule {
        words: &[
            "shardgate_wire",
            "shardgate_catalog",
            "tokio::",
            "std::fs",
            "std::io",
            "std::net",
        ],
        within: &["crates/erasure/"],
        except: &[],
        why: "erasure is pure: bytes in, bytes out",
    },
    Rule {
        words: &["tokio::", "std::fs", "std::net", "hyper", "async fn"],
        within: &["gateway/src/placement/"],
        except: &[],
        why: "placement decides and does no I/O",
    },
    Rule {
        words: &["tokio::", "std::fs", "std::net", "hyper", "async fn"],
        within: &["gateway/src/object/layout", "gateway/src/object/quorum"],
        except: &[],
        why: "geometry and quorum are decided without I/O",
    },
    Rule {
        words: &["crate::s3"],
        within: &[
            "gateway/src/object/",
            "gateway/src/placement/",
            "gateway/src/agents/",
        ],
        except: &[],
        why: "the object path does not know S3",
    },
];

/// What each package may depend on, of this workspace.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("crates/wire", &[]),
    ("crates/erasure", &[]),
    ("crates/disk-store", &["shardgate-wire"]),
    ("crates/catalog", &["shardgate-wire"]),
    // Its tests run on real disks, too.
    (
        "crates/journal",
        &["shardgate-wire", "shardgate-disk-store"],
    ),
    (
        "storage-agent",
        &[
            "shardgate-wire",
            "shardgate-disk-store",
            "shardgate-erasure",
        ],
    ),
    (
        "gateway",
        &[
            "shardgate-wire",
            "shardgate-disk-store",
            "shardgate-erasure",
            "shardgate-catalog",
            "shardgate-journal",
        ],
    ),
    ("s3-compat-tests", &["shardgate-tests"]),
    // The disk store and what it is compared with run inside the benchmark.
    (
        "bench",
        &[
            "shardgate-tests",
            "shardgate-catalog",
            "shardgate-disk-store",
            "shardgate-journal",
            "shardgate-wire",
        ],
    ),
    (
        "tests",
        &[
            "shardgate",
            "shardgate-agent",
            "shardgate-disk-store",
            "shardgate-wire",
        ],
    ),
];

/// The forbidden names that a file uses.
pub fn forbidden(file: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for rule in RULES {
        let starts =
            |prefixes: &[&str]| prefixes.iter().any(|prefix| file.path.starts_with(prefix));
        if !starts(rule.within) || starts(rule.except) {
            continue;
        }
        for (line, code) in file.code_lines() {
            if rule.words.iter().any(|word| names(code, word)) {
                found.push(format!(
                    "{}:{line} {} ({})",
                    file.path,
                    code.trim(),
                    rule.why
                ));
            }
        }
    }
    found
}

/// The dependencies of packages that go against the layout.
pub fn wrong_dependencies() -> Vec<String> {
    let mut found = Vec::new();
    for (package, allowed) in DEPENDENCIES {
        let path = root().join(package).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("a package has a manifest");
        for dependency in workspace_dependencies(&manifest) {
            // A package names itself to switch on its own features in its tests.
            let itself = manifest.contains(&format!("name = \"{dependency}\""));
            if !itself && !allowed.contains(&dependency.as_str()) {
                found.push(format!("{package} depends on {dependency}"));
            }
        }
    }
    found
}

/// Packages of this workspace that a manifest names as dependencies, for tests too.
fn workspace_dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.starts_with("shardgate") {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            found.push(line[..end].to_owned());
        }
    }
    found
}

#[test]
fn a_forbidden_import_is_found() {
    let file = |path: &str, line: &str| Source {
        path: path.into(),
        lines: vec![line.into()],
    };
    for (path, line, count) in [
        ("gateway/src/object/write.rs", "use s3s::dto;", 1),
        ("gateway/src/s3/put.rs", "use s3s::dto;", 0),
        ("gateway/src/object/layout.rs", "    tokio::spawn(x);", 1),
        ("gateway/src/object/write.rs", "    tokio::spawn(x);", 0),
        (
            "gateway/src/placement/choice.rs",
            "// tokio::spawn is not for here",
            0,
        ),
        ("crates/disk-store/src/lib.rs", "use rocksdb::DB;", 1),
    ] {
        assert_eq!(forbidden(&file(path, line)).len(), count, "{path}: {line}");
    }
}

#[test]
fn dependencies_are_read_from_every_section() {
    let manifest = "[package]\nname = \"shardgate\"\n[dependencies]\nshardgate-wire.workspace = true\n\
                    [dev-dependencies]\nshardgate-agent = { workspace = true }\n[features]\nshardgate = []\n";
    assert_eq!(
        workspace_dependencies(manifest),
        ["shardgate-wire", "shardgate-agent"]
    );
}
