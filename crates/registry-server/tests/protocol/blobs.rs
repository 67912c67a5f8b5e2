//! Downloads.

use content::Digest;

use crate::bench::Bench;

#[tokio::test]
async fn the_base_says_that_the_api_is_here() {
    let bench = Bench::new().await;
    for path in ["/v2/", "/v2"] {
        assert_eq!(bench.get(path).await.status, 200);
    }
    assert_eq!(bench.get("/").await.refusal(), (404, "UNSUPPORTED".to_owned()));
    assert_eq!(bench.send("POST", "/v2/", &[], b"").await.status, 405);
}

#[tokio::test]
async fn a_blob_comes_whole_with_its_digest() {
    let bench = Bench::new().await;
    let digest = bench.push_blob("a/b", b"hello").await;
    let answer = bench.get(&format!("/v2/a/b/blobs/{digest}")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(answer.header("content-length"), "5");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    let head = bench.send("HEAD", &format!("/v2/other/blobs/{digest}"), &[], b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "5", 0));
    let known = format!("\"{digest}\"");
    let answer = bench.send("GET", &format!("/v2/a/b/blobs/{digest}"), &[("if-none-match", &known)], b"").await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
}

#[tokio::test]
async fn parts_of_a_blob_come_as_asked() {
    let bench = Bench::new().await;
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let digest = bench.push_blob("a", &content).await;
    let path = format!("/v2/a/blobs/{digest}");
    let cases = [
        ("bytes=0-9", 206, 0..10, "bytes 0-9/1000000"),
        ("bytes=999990-", 206, 999_990..1_000_000, "bytes 999990-999999/1000000"),
        ("bytes=-5", 206, 999_995..1_000_000, "bytes 999995-999999/1000000"),
        ("bytes=300000-700000", 206, 300_000..700_001, "bytes 300000-700000/1000000"),
    ];
    for (range, status, part, content_range) in cases {
        let answer = bench.send("GET", &path, &[("range", range)], b"").await;
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range));
        assert_eq!(answer.body, content[part], "{range}");
    }
    let answer = bench.send("GET", &path, &[("range", "bytes=1000000-")], b"").await;
    assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */1000000"));
    let answer = bench.send("GET", &path, &[("range", "bytes=0-1,5-6")], b"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 1_000_000));
}

#[tokio::test]
async fn what_is_not_there_or_not_a_digest_is_refused_with_its_code() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"absent");
    let cases = [
        ("GET", format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:0".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", format!("/v2/A/blobs/{digest}"), 400, "NAME_INVALID"),
        ("DELETE", format!("/v2/a/blobs/{digest}"), 405, "UNSUPPORTED"),
        ("PUT", format!("/v2/a/blobs/{digest}"), 405, "UNSUPPORTED"),
    ];
    for (method, path, status, code) in cases {
        assert_eq!(bench.send(method, &path, &[], b"").await.refusal(), (status, code.to_owned()), "{method} {path}");
    }
}
