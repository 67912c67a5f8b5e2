//! Uploads: in one request, in two, in chunks; broken off, cancelled, mounted, wrong.

use std::time::Duration;

use content::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Answer, Bench};

async fn start(bench: &Bench, name: &str) -> String {
    let answer = bench.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
    assert!(!answer.header("docker-upload-uuid").is_empty());
    answer.header("location").to_owned()
}

async fn patch(bench: &Bench, location: &str, range: &str, bytes: &[u8]) -> Answer {
    bench.send("PATCH", location, &[("content-range", range)], bytes).await
}

#[tokio::test]
async fn a_blob_is_taken_in_one_request() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"hello");
    let answer = bench.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], b"hello").await;
    assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert!(bench.layout.has_blob(digest, 5));
}

#[tokio::test]
async fn a_blob_is_taken_in_two_requests() {
    let bench = Bench::new().await;
    let location = start(&bench, "a").await;
    let digest = Digest::of(b"hello");
    let answer = bench.send("PUT", &format!("{location}?digest={digest}"), &[], b"hello").await;
    assert_eq!(answer.status, 201);
    assert!(bench.layout.has_blob(digest, 5));
    assert_eq!(bench.get(&location).await.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_blob_is_taken_in_chunks_that_must_follow_each_other() {
    let bench = Bench::new().await;
    let location = start(&bench, "a/b").await;
    let answer = patch(&bench, &location, "0-4", b"hello").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4"));
    let answer = patch(&bench, &location, "7-9", b"abc").await;
    assert_eq!((answer.status, answer.header("range")), (416, "0-4"));
    let answer = patch(&bench, &location, "0-4", b"hello").await;
    assert_eq!(answer.refusal(), (416, "BLOB_UPLOAD_INVALID".to_owned()));
    let answer = patch(&bench, &location, "nonsense", b"x").await;
    assert_eq!(answer.refusal(), (400, "BLOB_UPLOAD_INVALID".to_owned()));
    let answer = patch(&bench, &location, "5-9", b"too long").await;
    assert_eq!(answer.refusal(), (400, "SIZE_INVALID".to_owned()));
    let answer = bench.get(&location).await;
    assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
    let answer = bench.send("PATCH", &location, &[], b", wor").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-9"));
    let digest = Digest::of(b"hello, world");
    let last = [("content-range", "10-11")];
    let answer = bench.send("PUT", &format!("{location}?digest={digest}"), &last, b"ld").await;
    assert_eq!(answer.status, 201);
    assert_eq!(bench.layout.read_small(digest, 100).unwrap(), b"hello, world");
}

#[tokio::test]
async fn wrong_bytes_are_never_visible() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"right");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = bench.send("POST", &path, &[], b"wrong").await;
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".to_owned()));
    let location = start(&bench, "a").await;
    let answer = bench.send("PUT", &format!("{location}?digest={digest}"), &[], b"wrong").await;
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(bench.get(&location).await.status, 404, "an upload with wrong bytes is over");
    let location = start(&bench, "a").await;
    for query in ["", "?digest=", "?digest=md5:0"] {
        let answer = bench.send("PUT", &format!("{location}{query}"), &[], b"right").await;
        assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".to_owned()));
    }
    assert_eq!(bench.blobs(), 0);
}

#[tokio::test]
async fn a_cancelled_upload_is_gone_with_its_bytes() {
    let bench = Bench::new().await;
    let location = start(&bench, "a").await;
    patch(&bench, &location, "0-4", b"hello").await;
    assert_eq!(bench.send("DELETE", &location, &[], b"").await.status, 204);
    for method in ["GET", "DELETE", "PATCH"] {
        let answer = bench.send(method, &location, &[], b"").await;
        assert_eq!(answer.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()), "{method}");
    }
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let bench = Bench::new().await;
    let location = start(&bench, "a").await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(bench.get(&elsewhere).await.status, 404);
    assert_eq!(bench.get(&location).await.status, 204);
}

#[tokio::test]
async fn a_known_blob_is_mounted_and_an_unknown_one_is_asked_for() {
    let bench = Bench::new().await;
    let digest = bench.push_blob("a", b"hello").await;
    for query in [format!("mount={digest}&from=a"), format!("mount={digest}")] {
        let answer = bench.send("POST", &format!("/v2/b/blobs/uploads/?{query}"), &[], b"").await;
        assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/b/blobs/{digest}").as_str()));
    }
    let absent = Digest::of(b"absent");
    let answer = bench.send("POST", &format!("/v2/b/blobs/uploads/?mount={absent}&from=a"), &[], b"").await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("location").starts_with("/v2/b/blobs/uploads/"));
}

#[tokio::test]
async fn what_arrived_before_a_broken_connection_stays_and_can_be_gone_on_with() {
    let bench = Bench::new().await;
    let location = start(&bench, "a").await;
    let mut connection = tokio::net::TcpStream::connect(&bench.address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.flush().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(connection);
    let answer = bench.get(&location).await;
    assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
    let digest = Digest::of(b"hello, world");
    let rest = [("content-range", "5-11")];
    let answer = bench.send("PUT", &format!("{location}?digest={digest}"), &rest, b", world").await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_client_that_stops_sending_is_sent_away() {
    let bench = Bench::with(|options| options.body_idle = Duration::from_millis(100)).await;
    let location = start(&bench, "a").await;
    let mut connection = tokio::net::TcpStream::connect(&bench.address).await.unwrap();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), "HTTP/1.1 408");
}

#[tokio::test]
async fn limits_hold() {
    let bench = Bench::with(|options| {
        options.max_blob_size = 10;
        options.max_uploads = 2;
        options.upload_idle = Duration::from_millis(300);
    })
    .await;
    let location = start(&bench, "a").await;
    let answer = bench.send("PATCH", &location, &[], b"more than ten bytes").await;
    assert_eq!(answer.refusal(), (413, "SIZE_INVALID".to_owned()));
    start(&bench, "a").await;
    let answer = bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(answer.refusal(), (429, "TOOMANYREQUESTS".to_owned()));
    assert_eq!(answer.header("retry-after"), "5");
    tokio::time::sleep(Duration::from_millis(400)).await;
    start(&bench, "a").await;
    assert_eq!(bench.get(&location).await.status, 404, "an upload that rested too long is gone");
}

#[tokio::test]
async fn a_read_only_registry_takes_nothing() {
    let bench = Bench::with(|options| options.read_only = true).await;
    let digest = Digest::of(b"x");
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{digest}")),
    ] {
        assert_eq!(bench.send(method, &path, &[], b"").await.refusal(), (405, "UNSUPPORTED".to_owned()));
    }
    bench.layout.put_bytes(b"x").unwrap();
    assert_eq!(bench.get(&format!("/v2/a/blobs/{digest}")).await.status, 200);
}

#[tokio::test]
async fn two_clients_may_push_the_same_blob_at_once() {
    let bench = Bench::new().await;
    let content = vec![7; 3 << 20];
    let (first, second) = tokio::join!(bench.push_blob("a", &content), bench.push_blob("b", &content));
    assert_eq!(first, second);
    assert_eq!(bench.blobs(), 1);
}
