//! What the programs show of themselves, and whether the documents say it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use shardgate_tests::process::free_addr;

use crate::place::{Place, make_bucket, write};

fn metrics(addr: SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    )
    .expect("ask for metrics");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn of_gateway(place: &Place) -> String {
    let token = fs::read_to_string(place.path("catalog/operator-token"));
    metrics(
        place.operator,
        token.expect("the gateway has started").trim(),
    )
}

/// The sum over all labels of a metric.
fn value(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    let numbers = lines.map(|line| line.rsplit_once(' ').expect("a value").1);
    numbers
        .map(|number| number.parse::<f64>().expect("a number"))
        .sum()
}

/// Names as Prometheus has them, and the events that are counted.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| line.starts_with("shardgate_"));
    let mut names = BTreeSet::new();
    for sample in samples {
        let end = sample.find(['{', ' ']).expect("a name ends");
        let name = &sample[..end];
        let of_histogram = ["_bucket", "_sum", "_count"];
        let name = of_histogram
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        names.insert(name.to_owned());
        let event = sample
            .split_once("event=\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        names.extend(event.map(|(event, _)| event.to_owned()));
    }
    names
}

#[tokio::test]
async fn every_metric_is_documented() {
    let place = Place::new();
    place.make(&["a", "b"]);
    let (addr, operator) = (free_addr(), free_addr());
    let agent = place.agent_with("agent", addr, &["a", "b"], operator);
    place.configure(&format!("agents = ['http://{addr}']"));
    let gateway = place.serve();
    make_bucket(&place).await;
    write(&place, 0).await;
    let (done, said) = place.command(&["catalog", "checkpoint"]);
    assert!(done, "{said}");
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = fs::read_to_string(manual).expect("the manual");
    let shown = [of_gateway(&place), metrics(operator, "")];
    let shown: BTreeSet<String> = shown.iter().flat_map(|text| names(text)).collect();
    assert!(shown.len() > 60, "{shown:?}");
    let silent = |name: &&String| !manual.contains(&format!("`{name}`"));
    let undocumented: Vec<_> = shown.iter().filter(silent).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
    gateway.stop();
    agent.stop();
}

#[tokio::test]
async fn metrics_tell_what_is_not_fully_stored() {
    let place = Place::new();
    let gateway = place.demo(&["--disks", "6"]);
    make_bucket(&place).await;
    write(&place, 0).await;
    let before = of_gateway(&place);
    for name in [
        "owed_slots",
        "owed_groups",
        "groups_degraded",
        "groups_narrow",
    ] {
        let name = format!("shardgate_{name}");
        assert!(names(&before).contains(&name), "{before}");
        assert_eq!(value(&before, &name), 0.0, "{name}");
    }
    assert!(value(&before, "shardgate_groups") >= 1.0);
    let free = "shardgate_class_free_bytes{class=\"STANDARD\"}";
    let free = |text: &str| value(text, free);
    assert!(free(&before) > 0.0, "{before}");

    // One at a time: with one away its groups still have their quorum, and
    // with two of six they are done without.
    let mut now = before.clone();
    for (disk, expected) in [("disk-1", "owed_groups"), ("disk-2", "groups_narrow")] {
        let away = place.path(&format!("{disk}.away"));
        fs::rename(place.path(disk), away).expect("take a disk away");
        let until = Instant::now() + Duration::from_secs(60);
        while value(&now, &format!("shardgate_{expected}")) < 1.0 {
            assert!(Instant::now() < until, "{now}");
            write(&place, 1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            now = of_gateway(&place);
        }
    }
    let told = |name: &str| value(&now, &format!("shardgate_{name}"));
    assert!(told("owed_slots") >= told("owed_groups"), "{now}");
    assert!(told("groups_degraded") >= 1.0, "{now}");
    assert_eq!(told("disk_living"), 4.0, "{now}");
    assert!(free(&now) < free(&before), "{now}");
    gateway.stop();
}
