//! The one-command pool: its folders, its banner, its end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;

use crate::place::{Place, disks_in, make_bucket, read, write};

#[tokio::test]
async fn a_pool_grows_by_the_disks_that_a_start_names() {
    let place = Place::new();
    let gateway = place.demo(&["--disks", "3"]);
    assert!(
        gateway.output().contains("from 3 disks in"),
        "{}",
        gateway.output()
    );
    make_bucket(&place).await;
    write(&place, 0).await;
    gateway.stop();

    let gateway = place.demo(&["--disks", "5"]);
    assert!(
        gateway.output().contains("from 5 disks in"),
        "{}",
        gateway.output()
    );
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 5, "{status}");
    assert!(!status.contains("  ! "), "{status}");
    write(&place, 1).await;
    read(&place, 0).await;
    gateway.stop();

    // A disk that was there is lost, whatever number is named.
    fs::rename(place.path("disk-2"), place.path("away")).expect("take a disk away");
    let gateway = place.demo(&["--disks", "5"]);
    assert!(
        gateway.output().contains("from 4 of 5 disks"),
        "{}",
        gateway.output()
    );
    assert!(!place.path("disk-2").exists());
    read(&place, 0).await;
    read(&place, 1).await;
    gateway.stop();
    fs::rename(place.path("away"), place.path("disk-2")).expect("bring it back");

    // Those that are there are never left out.
    let mut refused = place.spawn_demo(&["--disks", "4"]);
    assert!(!refused.wait_end());
    assert!(
        refused.output().contains("--disks 5"),
        "{}",
        refused.output()
    );
    // No number is no wish for more: what is missing is said.
    let gateway = place.demo(&[]);
    assert!(
        gateway.output().contains("from 5 disks in"),
        "{}",
        gateway.output()
    );
    let status = place.status();
    let missing = format!("there is no folder {}", place.text("disk-6"));
    assert!(status.contains(&missing), "{status}");
    assert!(!place.path("disk-6").exists());
    read(&place, 1).await;
    gateway.stop();
}

/// Whenever a first start ends, the next one goes on.
#[tokio::test]
async fn a_first_start_that_is_cut_off_is_gone_over() {
    let place = Place::new();
    // As one leaves it that made two folders of six.
    place.make(&["disk-1", "disk-2"]);
    for ms in (0..400).step_by(25) {
        let gateway = place.spawn_demo(&[]);
        std::thread::sleep(Duration::from_millis(ms));
        gateway.kill();
    }
    let gateway = place.demo(&[]);
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 6, "{status}");
    make_bucket(&place).await;
    write(&place, 0).await;
    read(&place, 0).await;
    gateway.stop();
}

/// Ctrl-C: what runs comes to its end, and the next start has nothing to do.
#[tokio::test]
async fn an_interrupt_drains_and_stops_cleanly() {
    let place = Place::new();
    let mut gateway = place.demo(&["--disks", "4"]);
    make_bucket(&place).await;
    let path = place.client().presign(&Method::PUT, "/kept/slow", 600);
    let (addr, half) = (place.addr, vec![7; 500_000]);
    let mut upload = TcpStream::connect(addr).expect("connect");
    write!(
        upload,
        "PUT {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n"
    )
    .and_then(|()| upload.write_all(&half))
    .expect("send half a body");
    std::thread::sleep(Duration::from_millis(300));
    gateway.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        TcpStream::connect(addr).is_err(),
        "nobody is let in any more"
    );
    upload.write_all(&half).expect("send the rest");
    let mut answer = String::new();
    upload.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(gateway.wait_end(), "{}", gateway.output());
    assert!(
        gateway.output().contains("journal closed"),
        "{}",
        gateway.output()
    );

    let gateway = place.demo(&["--disks", "4"]);
    let got = place.client().get("kept", "slow").send().await;
    assert!(got.expect("an answer").expect_status(200).body == vec![7; 1_000_000]);
    gateway.stop();
}
