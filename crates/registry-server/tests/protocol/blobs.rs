//! Downloads.

use content::{Algorithm, Digest};
use oci::{Descriptor, Manifest, MediaType};

use crate::bench::{Bench, MANIFEST};

#[tokio::test]
async fn the_base_says_that_the_api_is_here() {
    let bench = Bench::new().await;
    for path in ["/v2/", "/v2"] {
        assert_eq!(bench.get(path).await.status, 200);
    }
    for path in ["/v1/", "/x", "/v2x"] {
        assert_eq!(bench.get(path).await.refusal(), (404, "UNSUPPORTED".to_owned()));
    }
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
        ("DELETE", format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("PUT", format!("/v2/a/blobs/{digest}"), 405, "UNSUPPORTED"),
    ];
    for (method, path, status, code) in cases {
        assert_eq!(bench.send(method, &path, &[], b"").await.refusal(), (status, code.to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_blob_goes_only_when_no_image_of_any_repository_needs_it() {
    let bench = Bench::new().await;
    let (image, _) = bench.push_image("a", "t", "content").await;
    let path = format!("/v2/b/blobs/{}", Digest::of(b"content"));
    let answer = bench.send("DELETE", &path, &[], b"").await;
    assert_eq!(answer.refusal(), (405, "UNSUPPORTED".to_owned()));
    assert!(!String::from_utf8(answer.body).unwrap().contains("localhost"), "names of other repositories stay secret");
    assert_eq!(bench.send("DELETE", &format!("/v2/a/manifests/{image}"), &[], b"").await.status, 202);
    assert_eq!(bench.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(bench.get(&path).await.status, 404);
}

#[tokio::test]
async fn content_may_be_named_by_its_sha512() {
    let bench = Bench::new().await;
    let (config, layer) = (b"{}", b"some layer");
    let named = |bytes: &[u8]| Digest::with(Algorithm::Sha512, bytes);
    for blob in [&config[..], &layer[..]] {
        let path = format!("/v2/a/blobs/uploads/?digest={}", named(blob));
        assert_eq!(bench.send("POST", &path, &[], b"other").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
        let answer = bench.send("POST", &path, &[], blob).await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (201, named(blob).to_string().as_str()));
        let answer = bench.get(&format!("/v2/a/blobs/{}", named(blob))).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, blob));
    }
    let descriptor = |kind, bytes: &[u8]| Descriptor::new(kind, named(bytes), bytes.len() as u64);
    let layers = vec![descriptor(MediaType::ImageLayer, layer)];
    let manifest = Manifest::new(descriptor(MediaType::ImageConfig, config), layers).to_bytes();
    let name = named(&manifest).to_string();
    assert_eq!(bench.put_manifest("a", &named(b"x").to_string(), MANIFEST, &manifest).await.status, 400);
    let answer = bench.put_manifest("a", &name, MANIFEST, &manifest).await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, name.as_str()));
    let answer = bench.get(&format!("/v2/a/manifests/{name}")).await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, name.as_str()));
    assert_eq!(answer.body, manifest);
    assert!(bench.layout.verify(1, &|_| {}).unwrap().damage.is_empty());
}
