//! What `demo` prints: lines to paste into a shell.

use std::net::SocketAddr;
use std::path::Path;

use time::OffsetDateTime;

use super::demo::KeySource;
use super::presign;
use crate::auth::RootCredentials;
use crate::pool::DiskCount;

/// What is served, and where.
pub(super) struct Served<'a> {
    /// The address to paste.
    pub(super) addr: SocketAddr,
    /// That of metrics and health.
    pub(super) operator: SocketAddr,
    /// The region.
    pub(super) region: &'a str,
    /// The folder of everything.
    pub(super) data: &'a Path,
    /// The disks that there are.
    pub(super) disks: DiskCount,
}

/// The lines that a first user pastes. The secret is in them only on the
/// start that made it.
pub(super) fn banner(keys: &RootCredentials, source: &KeySource, served: &Served<'_>) -> String {
    let Served {
        addr, region, data, ..
    } = *served;
    let host = addr.to_string();
    let link = |method: &str, path: &str| {
        let pair = (keys.access_key(), keys.secret().expose());
        presign::link(pair, region, method, &host, path, OffsetDateTime::now_utc())
    };
    format!(
        "\nShardgate serves S3 at http://{addr} from {disks} in {data}\n\
         {key_lines}\n\
         aws:\n\
         \x20 aws --endpoint-url http://{addr} s3 mb s3://photos\n\
         \x20 aws --endpoint-url http://{addr} s3 cp README.md s3://photos/\n\
         \x20 aws --endpoint-url http://{addr} s3 presign s3://photos/README.md\n\
         s3cmd:\n\
         \x20 s3cmd --access_key=\"$AWS_ACCESS_KEY_ID\" --secret_key=\"$AWS_SECRET_ACCESS_KEY\" \\\n\
         \x20   --no-ssl --host={addr} --host-bucket={addr} ls s3://photos\n\
         curl, with presigned links that are valid for a day:\n\
         \x20 curl -X PUT '{make}'\n\
         \x20 curl -T README.md '{put}'\n\
         \x20 curl -O '{get}'\n\
         PHP, after `composer require aws/aws-sdk-php`, as a file beside vendor/:\n\
         \x20 <?php require 'vendor/autoload.php';\n\
         \x20 $s3 = new Aws\\S3\\S3Client(['endpoint' => 'http://{addr}', 'region' => '{region}',\n\
         \x20   'use_path_style_endpoint' => true, 'credentials' => ['key' => getenv('AWS_ACCESS_KEY_ID'),\n\
         \x20   'secret' => getenv('AWS_SECRET_ACCESS_KEY')]]);\n\
         \x20 $s3->putObject(['Bucket' => 'photos', 'Key' => 'hello.txt', 'Body' => 'hello']);\n\n\
         The pool: {program} status --data {quoted}\n\
         Metrics and health: http://{operator}\n\
         Stop with Ctrl-C; data and keys stay.\n",
        disks = disks(served.disks),
        data = data.display(),
        program = program(),
        quoted = quoted(data),
        key_lines = key_lines(keys, source, region),
        make = link("PUT", "/links"),
        put = link("PUT", "/links/README.md"),
        get = link("GET", "/links/README.md"),
        operator = served.operator,
    )
}

fn disks(count: DiskCount) -> String {
    let DiskCount { living, all } = count;
    let noun = if all == 1 { "disk" } else { "disks" };
    match living == all {
        true => format!("{all} {noun}"),
        false => format!("{living} of {all} {noun} (`shardgate status` says what is missing)"),
    }
}

fn key_lines(keys: &RootCredentials, source: &KeySource, region: &str) -> String {
    match source {
        KeySource::Environment => format!(
            "The root keys are those of the environment. For the lines below:\n\
             \x20 export AWS_ACCESS_KEY_ID=\"$SHARDGATE_ROOT_ACCESS_KEY\" \\\n\
             \x20   AWS_SECRET_ACCESS_KEY=\"$SHARDGATE_ROOT_SECRET_KEY\" AWS_DEFAULT_REGION={region}\n"
        ),
        KeySource::Made(path) => format!(
            "New root keys, shown this once and kept in {path}:\n\
             \x20 access key {access}\n\
             \x20 secret key {secret}\n\
             For the lines below:\n\
             \x20 set -a; . {path}; AWS_DEFAULT_REGION={region}; set +a\n",
            path = quoted(path),
            access = keys.access_key(),
            secret = keys.secret().expose(),
        ),
        KeySource::Kept(path) => format!(
            "The root keys are in {path}. For the lines below:\n\
             \x20 set -a; . {path}; AWS_DEFAULT_REGION={region}; set +a\n",
            path = quoted(path),
        ),
    }
}

/// This program, as a shell finds it again.
fn program() -> String {
    match std::env::current_exe() {
        Ok(path) => quoted(&path),
        Err(_) => "shardgate".to_owned(),
    }
}

/// A path as one word of a shell. `.` looks for a bare name elsewhere.
fn quoted(path: &Path) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    let text = path.display().to_string();
    let text = match text.contains('/') {
        true => text,
        false => format!("./{text}"),
    };
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner_of(source: &KeySource, keys: &RootCredentials) -> String {
        let served = Served {
            addr: "127.0.0.1:9000".parse().expect("an address"),
            operator: "127.0.0.1:9001".parse().expect("an address"),
            region: "us-east-1",
            data: Path::new("/data"),
            disks: DiskCount { living: 6, all: 6 },
        };
        banner(keys, source, &served)
    }

    #[test]
    fn the_disks_that_are_there_are_counted() {
        for (living, all, words) in [
            (6, 6, "6 disks"),
            (1, 1, "1 disk"),
            (
                4,
                6,
                "4 of 6 disks (`shardgate status` says what is missing)",
            ),
        ] {
            assert_eq!(disks(DiskCount { living, all }), words);
        }
    }

    #[test]
    fn the_secret_is_shown_once_only() {
        let keys = RootCredentials::random();
        let file = Path::new("/data/credentials").to_owned();
        let shows = |source| banner_of(&source, &keys).contains(keys.secret().expose());
        assert!(shows(KeySource::Made(file.clone())));
        assert!(!shows(KeySource::Kept(file)));
        assert!(!shows(KeySource::Environment));
    }

    #[test]
    fn paths_are_one_word_of_a_shell() {
        for (path, word) in [
            ("/data/credentials", "/data/credentials"),
            ("credentials", "./credentials"),
            ("/my data/a", "'/my data/a'"),
            ("/it's", "'/it'\\''s'"),
            ("/$HOME", "'/$HOME'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
