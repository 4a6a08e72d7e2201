//! What is taken, what is refused and how that reads.

use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use super::*;

const SECRET: &str = "an-example-secret-of-enough-bytes-0123";

const WHOLE: &str = r#"
listen = ["127.0.0.1:9600", "[::1]:9600"]
operator_listen = "127.0.0.1:9601"
name = "store-1"
server = "rack-7"
site = "north"
secret = "an-example-secret-of-enough-bytes-0123"
state_dir = "/var/lib/shardgate-agent"
cluster = "000000000000000000000000000000c1"
log = "debug"
log_format = "json"
check_secs = 7
index_dir = "/ssd/index"

[[disks]]
path = "/srv/disk-1"

[[disks]]
path = "/srv/disk-2"
medium = "rotating"
index_dir = "/nvme/index"

[limits]
connections = 9
calls_per_disk = 8
buffer_mib = 16
directory_mib = 32
scrub_days = 7
clock_skew_secs = 60
first_call_secs = 1
idle_secs = 2
body_secs = 3
write_stall_secs = 4
drain_secs = 5
"#;

const LEAST: &str = "listen = \"127.0.0.1:9600\"\nstate_dir = \"/s\"\n";

fn flags(args: &[&str]) -> Flags {
    Flags::try_parse_from(std::iter::once(&"agent").chain(args)).unwrap()
}

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_parts("agent.toml", text, Flags::default(), None)
}

#[test]
fn every_key_is_read() {
    let config = read(WHOLE).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.operator_listen.unwrap().port(), 9601);
    assert_eq!(
        [&config.name, &config.server, &config.site],
        ["store-1", "rack-7", "north"]
    );
    assert!(config.secret.is_some());
    assert_eq!(config.cluster, Some(ClusterId(0xc1)));
    assert_eq!(config.disks[1].medium, Some(Medium::Rotating));
    assert_eq!(config.disks[0].medium, None);
    let index_dirs = [0, 1].map(|disk| config.disks[disk].index_dir.clone());
    let wanted = ["/ssd/index", "/nvme/index"].map(|path| Some(PathBuf::from(path)));
    assert_eq!(index_dirs, wanted);
    assert!(config.log_json);
    assert_eq!(config.check_every, Duration::from_secs(7));
    let secs = Duration::from_secs;
    let limits = Limits {
        connections: 9,
        calls_per_disk: 8,
        buffer_bytes: 16 << 20,
        directory_bytes: 32 << 20,
        scrub_period: Duration::from_secs(7 * 86_400),
        clock_skew: secs(60),
        first_call: secs(1),
        idle: secs(2),
        body: secs(3),
        write_stall: secs(4),
        drain: secs(5),
    };
    assert_eq!(config.limits, limits);
}

#[test]
fn the_rest_has_defaults() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!([&config.name, &config.server], ["agent", "agent"]);
    assert_eq!(config.site, "default");
    assert!(config.secret.is_none());
    assert!(config.disks.is_empty());
    let disk = read(&format!("{LEAST}[[disks]]\npath = '/a'\n")).unwrap();
    assert_eq!(disk.disks[0].index_dir, None);
}

#[test]
fn flags_go_before_the_file() {
    let flags = flags(&[
        "--listen=127.0.0.1:1,127.0.0.2:2",
        "--name=other",
        "--disk=/a=flash",
        "--disk=/b=c",
        "--index-dir=/fast",
        "--connections=77",
    ]);
    let config = Config::from_parts("agent.toml", WHOLE, flags, None).unwrap();
    assert_eq!(config.listen[1].port(), 2);
    assert_eq!(config.name, "other");
    assert_eq!(config.limits.connections, 77);
    let path = |path: &str| PathBuf::from(path);
    assert_eq!(config.disks[0].path, path("/a"));
    assert_eq!(config.disks[0].medium, Some(Medium::Flash));
    assert_eq!(config.disks[1].path, path("/b=c"));
    assert_eq!(config.disks[1].index_dir, Some(path("/fast")));
}

#[test]
fn refusals_say_where_and_what_is_allowed() {
    let with = |line: &str| format!("{LEAST}{line}\n");
    let cases = [
        (
            with("lisen = 1"),
            "agent.toml:3: unknown field `lisen`, expected one of `listen`",
        ),
        (
            with("[limits]\nconnection = 1"),
            "agent.toml:4: unknown field `connection`",
        ),
        (
            with("[limits]\nconnections = 0"),
            "agent.toml:4: connections is 0, allowed are 1 to 65536",
        ),
        (with("[limits]\ndrain_secs = -1"), "agent.toml:4: "),
        (
            with("name = 'a b'"),
            "agent.toml:3: name is \"a b\", allowed are",
        ),
        (
            with("cluster = 'xyz'"),
            "agent.toml:3: cluster is \"xyz\", allowed is an id",
        ),
        (
            with("log = 'inof'"),
            "agent.toml:3: log is \"inof\", allowed is error, warn",
        ),
        (
            with("log_format = 'xml'"),
            "agent.toml:3: log_format is \"xml\", allowed are text, json",
        ),
        (
            with("[[disks]]\npath = '/a'\nmedium = 'tape'"),
            "agent.toml:5: unknown variant `tape`, expected",
        ),
        (
            with("[[disks]]\npath = 'a'"),
            "agent.toml:3: the path of a disk is absolute",
        ),
        (
            with("[[disks]]\npath = '/a'\n[[disks]]\npath = '/a'"),
            "agent.toml:5: a disk is there twice",
        ),
        (
            "listen = '1.2.3'\nstate_dir='/s'".into(),
            "agent.toml:1: listen is \"1.2.3\", allowed is ADDRESS:PORT",
        ),
        (
            "listen = []\nstate_dir='/s'".into(),
            "agent.toml:1: listen is empty",
        ),
        ("state_dir='/s'".into(), "agent.toml: listen is missing"),
        (
            "listen = '127.0.0.1:1'".into(),
            "agent.toml: state_dir is missing",
        ),
    ];
    for (text, wanted) in cases {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}\nis not\n{wanted}");
    }
    let flags = flags(&["--drain-secs=9999"]);
    let error = Config::from_parts("agent.toml", LEAST, flags, None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--drain-secs or SHARDGATE_AGENT_DRAIN_SECS: "),
        "{error}"
    );
}

/// Attack 69: without a secret nobody but this machine is listened to.
#[test]
fn attack_069_no_secret_no_start() {
    let open = |address: &str| format!("listen = ['127.0.0.1:1', '{address}']\nstate_dir='/s'");
    for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "192.168.0.9:1"] {
        let error = read(&open(address)).unwrap_err().to_string();
        assert!(error.contains("no secret"), "{error}");
        let secret = Some(SECRET.to_owned());
        let with = Config::from_parts("f", &open(address), Flags::default(), secret);
        assert!(with.is_ok(), "{address}");
    }
    assert!(read(&open("[::1]:1")).is_ok());
}

#[test]
fn attack_069_weak_secrets_are_refused_and_never_shown() {
    for weak in [
        "",
        "short-secret",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        let error = read(&format!("{LEAST}secret = '{weak}'")).unwrap_err();
        assert!(
            error.to_string().starts_with("agent.toml:3: a secret"),
            "{error}"
        );
        assert!(weak.is_empty() || !error.to_string().contains(weak));
    }
    let text = format!("{LEAST}secret = '{SECRET}' x");
    let error = read(&text).unwrap_err().to_string();
    assert!(!error.contains(SECRET), "{error}");
    let config = read(&format!("{LEAST}secret = '{SECRET}'")).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn the_commented_example_is_the_defaults() {
    let example = include_str!("../../../docs/agent.toml.example");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let example = example.replace("/etc/shardgate/pool.secret", &path.display().to_string());
    let config = read(&example).unwrap();
    // Every commented setting is valid too, and says the default.
    let uncommented = read(&example.replace("\n#: ", "\n")).unwrap();
    assert_eq!(format!("{config:?}"), format!("{uncommented:?}"));
}

#[test]
fn a_secret_file_is_the_owners() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let text = format!("{LEAST}secret_file = '{}'", path.display());
    let set = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o644);
    let error = read(&text).unwrap_err().to_string();
    assert!(error.contains("is open to every user"), "{error}");
    set(0o600);
    assert!(read(&text).unwrap().secret.is_some());
    let both = format!("{text}\nsecret = '{SECRET}'");
    assert!(read(&both).unwrap_err().to_string().contains("both set"));
    let gone = format!("{LEAST}secret_file = '/no/such/file'");
    assert!(read(&gone).is_err());
}
