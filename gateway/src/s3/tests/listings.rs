//! Listings over HTTP.

use super::client::Server;

async fn filled() -> Server {
    let server = Server::with_bucket().await;
    for key in ["a/1", "a/2", "b", "c d+é", "d/x/y"] {
        assert_eq!(
            server.put(&format!("/bucket/{key}"), b"x").await.status,
            200
        );
    }
    server
}

#[tokio::test]
async fn pages_follow_each_other() {
    let server = filled().await;
    for second_version in [false, true] {
        let mut seen = Vec::new();
        let mut place: Option<String> = None;
        for _ in 0..10 {
            let mut call = server
                .request("GET", "/bucket")
                .query("max-keys", "2")
                .query("delimiter", "/");
            if second_version {
                call = call.query("list-type", "2");
            }
            if let Some(place) = &place {
                let name = if second_version {
                    "continuation-token"
                } else {
                    "marker"
                };
                call = call.query(name, place);
            }
            let page = call.send().await;
            assert_eq!(page.status, 200, "{page:?}");
            seen.extend(page.elements("Key"));
            let common = page.elements("CommonPrefixes");
            seen.extend(
                common
                    .iter()
                    .map(|text| text.replace("<Prefix>", "").replace("</Prefix>", "")),
            );
            if page.element("IsTruncated").as_deref() == Some("false") {
                break;
            }
            let next = if second_version {
                "NextContinuationToken"
            } else {
                "NextMarker"
            };
            place = Some(page.element(next).unwrap());
        }
        seen.sort();
        assert_eq!(
            seen,
            ["a/", "b", "c d+é", "d/"],
            "version 2: {second_version}"
        );
    }
}

#[tokio::test]
async fn names_are_encoded_when_asked() {
    let server = filled().await;
    let listed = server
        .request("GET", "/bucket")
        .query("encoding-type", "url")
        .query("prefix", "c d")
        .query("start-after", "a b")
        .query("list-type", "2")
        .send()
        .await;
    assert_eq!(
        listed.elements("Key"),
        ["c+d%2B%C3%A9"],
        "{}",
        listed.text()
    );
    assert_eq!(listed.element("Prefix").as_deref(), Some("c+d"));
    assert_eq!(listed.element("StartAfter").as_deref(), Some("a+b"));
    assert_eq!(listed.element("EncodingType").as_deref(), Some("url"));
}

#[tokio::test]
async fn a_key_that_xml_cannot_carry_breaks_no_listing() {
    let server = filled().await;
    assert_eq!(server.put("/bucket/bell\u{7}\r", b"x").await.status, 200);
    for (query, value) in [("list-type", "2"), ("marker", ""), ("versions", "")] {
        let listed = server
            .request("GET", "/bucket")
            .query(query, value)
            .send()
            .await;
        assert_eq!(listed.status, 200, "{query}");
        assert!(
            listed.elements("Key").contains(&"bell%07%0D".to_owned()),
            "{}",
            listed.text()
        );
        assert_eq!(listed.element("EncodingType").as_deref(), Some("url"));
    }
    let begun = server
        .request("POST", "/bucket/bell\u{7}")
        .query("uploads", "")
        .send()
        .await;
    assert_eq!(
        (begun.status, begun.element("Key").as_deref()),
        (200, Some("bell%07"))
    );
    let uploads = server
        .request("GET", "/bucket")
        .query("uploads", "")
        .send()
        .await;
    assert_eq!(
        (uploads.status, uploads.element("Key").as_deref()),
        (200, Some("bell%07"))
    );
}

#[tokio::test]
async fn entries_say_what_s3_says() {
    let server = filled().await;
    let plain = server
        .request("GET", "/bucket")
        .query("list-type", "2")
        .send()
        .await;
    assert_eq!(plain.elements("StorageClass").len(), 5);
    assert_eq!(plain.elements("Owner").len(), 0);
    assert_eq!(plain.element("KeyCount").as_deref(), Some("5"));
    let owned = server
        .request("GET", "/bucket")
        .query("list-type", "2")
        .query("fetch-owner", "true")
        .send()
        .await;
    assert_eq!(owned.elements("Owner").len(), 5);
    let none = server
        .request("GET", "/bucket")
        .query("max-keys", "0")
        .send()
        .await;
    assert_eq!(
        (
            none.elements("Key").len(),
            none.element("IsTruncated").as_deref()
        ),
        (0, Some("false"))
    );
    let negative = server
        .request("GET", "/bucket")
        .query("max-keys", "-1")
        .send()
        .await;
    negative.refused(400, "InvalidArgument");
    let encoding = server
        .request("GET", "/bucket")
        .query("encoding-type", "base64");
    encoding.send().await.refused(400, "InvalidArgument");
    let token = server
        .request("GET", "/bucket")
        .query("list-type", "2")
        .query("continuation-token", "??");
    token.send().await.refused(400, "InvalidArgument");
    server.get("/absent").await.refused(404, "NoSuchBucket");
    let versions = server
        .request("GET", "/bucket")
        .query("versions", "")
        .send()
        .await;
    assert_eq!(versions.elements("VersionId"), ["null"; 5]);
}

// What a request names comes back in its answer, also what XML cannot hold.
#[tokio::test]
async fn markers_with_control_characters_are_answered() {
    let server = Server::with_bucket().await;
    let odd = "x\u{1}<y>";
    for (path, parameters) in [
        (
            "/bucket",
            &[
                ("uploads", ""),
                ("key-marker", odd),
                ("upload-id-marker", odd),
            ][..],
        ),
        (
            "/bucket",
            &[
                ("versions", ""),
                ("key-marker", odd),
                ("version-id-marker", odd),
            ],
        ),
        (
            "/bucket",
            &[("marker", odd), ("prefix", odd), ("delimiter", odd)],
        ),
        (
            "/bucket",
            &[("list-type", "2"), ("start-after", odd), ("prefix", odd)],
        ),
        ("/", &[("prefix", odd)]),
    ] {
        let mut call = server.request("GET", path);
        for (name, value) in parameters {
            call = call.query(name, value);
        }
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{parameters:?}: {answer:?}");
        assert!(answer.text().contains("x%01%3Cy%3E"), "{answer:?}");
    }
}
