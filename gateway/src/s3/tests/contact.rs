//! A gateway out of contact with its journal answers nothing.

use std::time::Duration;

use super::client::Server;
use crate::s3::Answers;

#[tokio::test]
async fn out_of_contact_nothing_is_answered_and_the_client_is_told_to_come_again() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    let contact = server.store.contact.clone();
    contact.set(Answers::Nothing);
    for (method, path) in [
        ("GET", "/bucket/key"),
        ("HEAD", "/bucket/key"),
        ("GET", "/bucket/missing"),
        ("GET", "/bucket"),
        ("GET", "/"),
        ("PUT", "/bucket/new"),
        ("DELETE", "/bucket/key"),
    ] {
        let answer = server.request(method, path).send().await;
        assert_eq!(answer.status, 503, "{method} {path}");
        assert_eq!(answer.header("retry-after"), Some("3"), "{method} {path}");
    }
    contact.set(Answers::Reads);
    assert_eq!(server.get("/bucket/key").await.status, 200);
    assert_eq!(server.put("/bucket/new", b"x").await.status, 503);
    contact.set(Answers::All);
    assert_eq!(server.get("/bucket/key").await.status, 200, "nothing went");
    assert_eq!(server.get("/bucket/new").await.status, 404);
}

/// What was read before contact went may be old by the time it is answered.
#[tokio::test]
async fn what_was_in_work_when_contact_went_is_not_answered() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    let contact = server.store.contact.clone();
    server.store.hold(true);
    let get = server.request("GET", "/bucket/key");
    let asked = tokio::spawn(async move { get.send().await });
    while !server.store.is_held() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    contact.set(Answers::Nothing);
    server.store.hold(false);
    assert_eq!(asked.await.expect("an answer").status, 503);
}

/// One that waits for what does not come is not kept waiting; contact that
/// goes for a moment cuts nothing off.
#[tokio::test]
async fn what_waits_when_contact_went_is_told_to_come_again() {
    let server = Server::with_bucket().await;
    server.put("/bucket/key", b"hello").await;
    let contact = server.store.contact.clone();
    server.store.hold(true);
    let ask = || {
        let get = server.request("GET", "/bucket/key");
        tokio::spawn(async move { get.send().await })
    };
    let asked = ask();
    while !server.store.is_held() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    contact.set(Answers::Nothing);
    let answer = asked.await.expect("an answer");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("3"))
    );
    contact.set(Answers::All);
    let asked = ask();
    tokio::time::sleep(Duration::from_millis(100)).await;
    contact.set(Answers::Nothing);
    tokio::time::sleep(Duration::from_secs(2)).await;
    contact.set(Answers::All);
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.store.hold(false);
    assert_eq!(asked.await.expect("an answer").text(), "hello");
}
