//! Settings from all three sources: what is taken, and what is refused in
//! which words.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

fn from_text(text: &str) -> Result<Settings, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(text.as_bytes()).expect("write it");
    load(&Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    })
}

fn refusal(text: &str) -> String {
    from_text(text).expect_err("is refused").to_string()
}

#[test]
fn the_commented_example_is_the_defaults() {
    let example = include_str!("../../../docs/shardgate.toml.example");
    from_text(example).expect("the example is valid");
    // Every commented setting is valid too, and says the default.
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix("#: ") {
            Some(setting) => format!("{setting}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let settings = from_text(&uncommented).expect("what is commented out is valid");
    // All but what the example itself sets, for want of a default.
    let mut default = Settings::default();
    default.gateway.host_names = settings.gateway.host_names.clone();
    default.root = settings.root.clone();
    default.catalog.path = settings.catalog.path.clone();
    default.pool.disks = settings.pool.disks.clone();
    default.pool.agents = settings.pool.agents.clone();
    default.pool.secret_file = settings.pool.secret_file.clone();
    default.classes = settings.classes.clone();
    assert_eq!(format!("{settings:?}"), format!("{default:?}"));
}

#[test]
fn the_commented_example_names_every_setting() {
    let example = include_str!("../../../docs/shardgate.toml.example");
    let mut section = "";
    let mut named = Vec::new();
    for line in example.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        }
        let line = line.trim_start_matches("#:").trim_start_matches('#').trim();
        if let Some((name, _)) = line.split_once(" = ") {
            named.push(format!("{section}.{name}"));
        }
    }
    for key in super::layers::KEYS.iter().filter(|key| **key != "classes") {
        assert!(named.iter().any(|name| name == key), "{key} is in no line");
    }
}

#[test]
fn mistakes_are_refused_with_line_and_what_is_allowed() {
    let cases = [
        ("[gateway]\nlisen = \"127.0.0.1:1\"", "line 2", "listen"),
        ("\n[gatway]\n", "line 2", "gateway"),
        ("[gateway]\nlisten = \"nine\"", "line 2", "ADDR:PORT"),
        ("[gateway]\nlisten = 9000", "line 2", "string"),
        ("[limits]\n\nmemory_budget = \"many\"", "line 3", "MiB"),
        (
            "[limits]\nbody_timeout = \"10\"",
            "line 2",
            "ms, s, m, h or d",
        ),
        (
            "[classes.COLD]\nscheme = \"17+9\"",
            "line 2",
            "k of 1 to 16",
        ),
        (
            "[classes.COLD]\nscheme = \"4+2\"\nmedia = \"flash\"",
            "line 3",
            "medium",
        ),
        (
            "[pool]\nagents = [\"ftp://x\"]",
            "line 2",
            "http://HOST:PORT",
        ),
        (
            "[gateway]\nhost_names = [\"s3.example.com:80\"]",
            "line 2",
            "without a port",
        ),
        ("[log]\nformat = \"xml\"", "line 2", "json"),
        ("[gateway\n", "line 1", ""),
    ];
    for (text, line, allowed) in cases {
        let refusal = refusal(text);
        assert!(refusal.contains(line), "{text:?}: {refusal}");
        assert!(refusal.contains(allowed), "{text:?}: {refusal}");
    }
}

#[test]
fn what_is_wrong_beside_the_rest_is_refused_with_its_line_too() {
    for (text, line, part) in [
        (
            "[pool]\nsecret = \"a\"\nsecret_file = \"b\"",
            "line 3",
            "only one",
        ),
        ("[catalog]\ninline_max = \"17KiB\"", "line 2", "16KiB"),
        ("[limits]\nmemory_budget = \"1MiB\"", "line 2", "32MiB"),
        ("[limits]\nbackground_rate = \"1KiB\"", "line 2", "64KiB"),
        ("[limits]\nscrub_period = \"59m\"", "line 2", "365d"),
        ("[limits]\nscrub_period = \"366d\"", "line 2", "365d"),
        ("[limits]\n\nconnections = 0", "line 3", "1 to 1000000"),
        ("limits.body_timeout = \"0s\"", "line 1", "more than 0s"),
        ("\n[classes.cold]\nscheme = \"4+2\"", "line 2", "upper-case"),
        (
            "[root]\naccess_key = \"operator\"\nsecret_key = \"weak\"",
            "line 3",
            "16 characters",
        ),
        ("[pool]\nsecret = \"short\"", "line 2", "32 to"),
        ("[log]\nlevel = \"loud\"", "line 2", "debug"),
        ("[log]\nlevel = \"info,a=b=c\"", "line 2", "debug"),
        // A disk is known by its folder's path.
        ("[pool]\ndisks = [\"/a\", \"b\"]", "line 2", "absolute"),
        ("[pool]\ndisks = [\"/a/../b\"]", "line 2", "without .."),
        (
            "[pool]\ndisks = [\"/a\", \"/b\", \"/a//\"]",
            "line 2",
            "twice",
        ),
        (
            "[[pool.disks]]\npath = \"/a\"\n[[pool.disks]]\npath = \"/a\"",
            "line 1",
            "twice",
        ),
        // s3s knows no such region and would take any.
        ("[gateway]\nregion = \"EU-West\"", "line 2", "lower-case"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(line), "{text:?}: {refusal}");
        assert!(refusal.contains(part), "{text:?}: {refusal}");
    }
    let flag = Sources {
        flags: vec!["limits.requests=0".into()],
        ..Sources::default()
    };
    let variable = Sources {
        environment: vec![("SHARDGATE_LIMITS_REQUESTS".into(), "0".into())],
        ..Sources::default()
    };
    for (sources, name) in [
        (flag, "--set limits.requests: "),
        (variable, "SHARDGATE_LIMITS_REQUESTS: "),
    ] {
        let refusal = load(&sources).expect_err("is refused").to_string();
        assert!(refusal.starts_with(name), "{refusal}");
    }
}

// ATTACKS 95: a secret without quotes, in the message that refuses it.
#[test]
fn a_refused_secret_is_not_shown() {
    for secret in ["1234567890123456", "1234567.25", "true"] {
        for key in ["[root]\nsecret_key", "[pool]\nsecret"] {
            let refusal = refusal(&format!("{key} = {secret}"));
            assert!(refusal.contains("line 2"), "{refusal}");
            assert!(refusal.contains("in quotes"), "{refusal}");
            assert!(!refusal.contains(secret), "{refusal}");
        }
    }
    let sources = Sources {
        environment: vec![(
            "SHARDGATE_ROOT_SECRET_KEY".into(),
            "1234567890123456".into(),
        )],
        ..Sources::default()
    };
    let settings = load(&sources).expect("a text in the environment needs no quotes");
    let secret = settings.root.secret_key.expect("is set");
    assert_eq!(secret.expose(), "1234567890123456");
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(
        b"[gateway]\nregion = \"file\"\nlisten = \"127.0.0.1:1\"\n[limits]\nrequests = 7",
    )
    .expect("write it");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: vec![
            ("SHARDGATE_GATEWAY_REGION".into(), "environment".into()),
            ("SHARDGATE_GATEWAY_LISTEN".into(), "127.0.0.1:2".into()),
            ("SHARDGATE_POOL_DISKS".into(), "[\"/a\", \"/b\"]".into()),
            ("SHARDGATE_AGENT_NAME".into(), "not ours".into()),
            ("SHARDGATE_PORT_9000_TCP".into(), "not ours".into()),
            ("SHARDGATE_SERVICE_HOST".into(), "not ours".into()),
            ("PATH".into(), "/bin".into()),
        ],
        flags: vec![
            "gateway.listen=127.0.0.1:3".into(),
            "classes.COLD.scheme=8+4".into(),
            "limits.body_timeout=90s".into(),
            "pool.index_dir=/ssd/index".into(),
        ],
    };
    let settings = load(&sources).expect("valid");
    assert_eq!(settings.gateway.region, "environment");
    assert_eq!(settings.gateway.listen.0.port(), 3);
    assert_eq!(settings.limits.requests, 7);
    assert_eq!(settings.limits.body_timeout.0, Duration::from_secs(90));
    assert_eq!(settings.pool.disks.len(), 2);
    let index_dir = settings.pool.index_dir.as_deref();
    assert_eq!(index_dir, Some(std::path::Path::new("/ssd/index")));
    assert!(settings.classes.contains_key("COLD"));
}

#[test]
fn wrong_overrides_are_refused_by_name() {
    let environment = |name: &str, value: &str| Sources {
        environment: vec![(name.into(), value.into())],
        ..Sources::default()
    };
    let flag = |flag: &str| Sources {
        flags: vec![flag.into()],
        ..Sources::default()
    };
    let cases = [
        (
            environment("SHARDGATE_GATEWAY_LISEN", "x"),
            "SHARDGATE_GATEWAY_LISTEN",
        ),
        (environment("SHARDGATE_GATEWAY_LISTEN", "x"), "ADDR:PORT"),
        (flag("gateway.listen=x"), "--set gateway.listen: "),
        (flag("gateway.lisen=x"), "unknown setting"),
        (flag("gateway.listen"), "SECTION.KEY=VALUE"),
    ];
    for (sources, part) in cases {
        let refusal = load(&sources).expect_err("is refused").to_string();
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[test]
fn root_credentials_come_whole_or_not_at_all() {
    let mut file = tempfile::NamedTempFile::new().expect("make a file");
    file.write_all(b"q7Rw-2mZx_9LtKv4\n").expect("write it");
    let path = file.path().display();
    for (text, expected) in [
        ("", "missing"),
        ("[root]\naccess_key = \"operator\"", "missing"),
        (
            "[root]\naccess_key = \"\"\nsecret_key = \"q7Rw-2mZx_9LtKv4\"",
            "missing",
        ),
        (
            "[root]\naccess_key = \"operator\"\nsecret_key_file = \"/nowhere\"",
            "/nowhere",
        ),
    ] {
        let settings = from_text(text).expect("a valid file");
        let refusal = settings
            .root_credentials()
            .expect_err("is refused")
            .to_string();
        assert!(refusal.contains(expected), "{text}: {refusal}");
    }
    let text = format!("[root]\naccess_key = \"operator\"\nsecret_key_file = \"{path}\"");
    let keys = from_text(&text)
        .expect("valid")
        .root_credentials()
        .expect("strong");
    assert_eq!(keys.secret().expose(), "q7Rw-2mZx_9LtKv4");
}

/// The same file is the agents' too, and they take it in the same way.
#[test]
fn files_of_secrets_are_the_owners_and_have_one_line() {
    let dir = tempfile::tempdir().expect("make a folder");
    let path = dir.path().join("secret");
    let refusal = |text: &str, mode: u32| {
        std::fs::write(&path, text).expect("write it");
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).expect("set its mode");
        let set = format!(
            "[root]\naccess_key = \"operator\"\nsecret_key_file = \"{0}\"\n[pool]\nsecret_file = \"{0}\"",
            path.display()
        );
        let settings = from_text(&set).expect("valid");
        let said = |error: ConfigError| error.to_string();
        (
            settings.root_credentials().map(drop).map_err(said).err(),
            settings.pool_secret().map(drop).map_err(said).err(),
        )
    };
    let secret = "q7Rw-2mZx_9LtKv4-8dHs5jWn0bYcXe3A";
    assert_eq!(refusal(secret, 0o600), (None, None));
    assert_eq!(refusal(&format!(" {secret} \n"), 0o640), (None, None));
    for (text, mode, why) in [
        (secret.to_owned(), 0o644, "every user"),
        (format!("{secret}\n{secret}\n"), 0o600, "several lines"),
        ("short".to_owned(), 0o600, "line 1"),
    ] {
        let (root, pool) = refusal(&text, mode);
        for refused in [root, pool] {
            let refused = refused.expect("it is refused");
            assert!(refused.contains(why), "{refused}");
            assert!(refused.contains(&path.display().to_string()), "{refused}");
            assert!(!refused.contains(secret), "{refused}");
        }
    }
}
