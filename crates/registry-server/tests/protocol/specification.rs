//! The table of endpoints of the OCI distribution specification 1.1, one test a row: what it asks for, what is answered
//! when all is well, and each refusal that the row names.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#endpoints>

use content::Digest;
use oci::{Descriptor, Manifest, MediaType};

use crate::bench::{Answer, Bench, MANIFEST};

fn absent() -> Digest {
    Digest::of(b"absent")
}

async fn refused(bench: &Bench, method: &str, path: &str, expected: &[(u16, &str)]) {
    let answer = bench.send(method, path, &[], b"").await;
    let (status, code) = answer.refusal();
    assert!(expected.contains(&(status, code.as_str())), "{method} {path}: {status} {code}");
    assert_eq!(answer.header("content-type"), "application/json");
}

async fn start(bench: &Bench) -> String {
    let answer = bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(answer.status, 202);
    answer.header("location").to_owned()
}

async fn put(bench: &Bench, location: &str, digest: &str, bytes: &[u8]) -> Answer {
    bench.send("PUT", &format!("{location}?digest={digest}"), &[], bytes).await
}

#[tokio::test]
async fn end_1_the_api_is_here() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn end_2_blobs_are_pulled() {
    let bench = Bench::new().await;
    let digest = bench.push_blob("a", b"blob").await;
    let path = format!("/v2/a/blobs/{digest}");
    let (get, head) = (bench.get(&path).await, bench.send("HEAD", &path, &[], b"").await);
    assert_eq!((get.status, get.body.as_slice()), (200, &b"blob"[..]));
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "4", 0));
    assert_eq!(head.header("docker-content-digest"), digest.to_string());
    refused(&bench, "GET", &format!("/v2/a/blobs/{}", absent()), &[(404, "BLOB_UNKNOWN")]).await;
    let head = bench.send("HEAD", &format!("/v2/a/blobs/{}", absent()), &[], b"").await;
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[tokio::test]
async fn end_3_manifests_are_pulled_by_tag_and_digest() {
    let bench = Bench::new().await;
    let (digest, bytes) = bench.push_image("a", "t", "content").await;
    for reference in ["t".to_owned(), digest.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        let (get, head) = (bench.get(&path).await, bench.send("HEAD", &path, &[], b"").await);
        assert_eq!((get.status, &get.body), (200, &bytes));
        assert_eq!((head.status, head.header("content-length")), (200, bytes.len().to_string().as_str()));
        assert_eq!((get.header("content-type"), head.header("content-type")), (MANIFEST, MANIFEST));
    }
    refused(&bench, "GET", "/v2/a/manifests/none", &[(404, "MANIFEST_UNKNOWN")]).await;
    refused(&bench, "GET", "/v2/none/manifests/t", &[(404, "NAME_UNKNOWN")]).await;
}

#[tokio::test]
async fn end_4a_an_upload_is_started() {
    let bench = Bench::new().await;
    assert!(start(&bench).await.starts_with("/v2/a/blobs/uploads/"));
    refused(&bench, "POST", "/v2/A/blobs/uploads/", &[(400, "NAME_INVALID"), (404, "NAME_INVALID")]).await;
}

#[tokio::test]
async fn end_4b_a_blob_is_pushed_in_one_request() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"blob");
    let answer = bench.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], b"blob").await;
    assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    refused(&bench, "POST", "/v2/a/blobs/uploads/?digest=sha256:0", &[(400, "DIGEST_INVALID")]).await;
    refused(&bench, "POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[(400, "DIGEST_INVALID")]).await;
}

#[tokio::test]
async fn end_5_chunks_follow_each_other() {
    let bench = Bench::new().await;
    let location = start(&bench).await;
    let chunk = async |range: &'static str, bytes: &[u8]| {
        bench.send("PATCH", &location, &[("content-range", range)], bytes).await
    };
    let answer = chunk("0-2", b"abc").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-2"));
    assert!(answer.header("location").starts_with("/v2/a/blobs/uploads/"));
    let answer = chunk("5-6", b"xy").await;
    assert_eq!((answer.status, answer.header("range")), (416, "0-2"));
    assert_eq!(chunk("3-4", b"de").await.status, 202);
    refused(&bench, "PATCH", "/v2/a/blobs/uploads/0123", &[(404, "BLOB_UPLOAD_UNKNOWN")]).await;
}

#[tokio::test]
async fn end_6_an_upload_is_finished_with_its_digest() {
    let bench = Bench::new().await;
    let digest = Digest::of(b"blob").to_string();
    let location = start(&bench).await;
    let answer = put(&bench, &location, &digest, b"blob").await;
    assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    assert_eq!(put(&bench, &location, &digest, b"blob").await.refusal(), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    let location = start(&bench).await;
    assert_eq!(put(&bench, &location, "", b"blob").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
    let path = format!("{location}?digest={digest}");
    let answer = bench.send("PUT", &path, &[("content-range", "9-12")], b"blob").await;
    assert_eq!(answer.refusal(), (416, "BLOB_UPLOAD_INVALID".to_owned()));
    assert_eq!(put(&bench, &location, &digest, b"wrong").await.refusal(), (400, "DIGEST_INVALID".to_owned()));
}

#[tokio::test]
async fn end_7_a_manifest_is_pushed() {
    let bench = Bench::with(|options| options.max_manifest_size = 2000).await;
    let (digest, bytes) = bench.push_image("a", "t", "content").await;
    let answer = bench.put_manifest("a", "u", MANIFEST, &bytes).await;
    assert_eq!((answer.status, answer.header("location")), (201, "/v2/a/manifests/u"));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    let layers = vec![Descriptor::of(MediaType::ImageLayer, b"absent")];
    let needs = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), layers).to_bytes();
    let answer = bench.put_manifest("a", "u", MANIFEST, &needs).await;
    assert_eq!(answer.refusal(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    let answer = bench.put_manifest("a", "u", MANIFEST, &[b' '; 2001]).await;
    assert_eq!(answer.refusal(), (413, "SIZE_INVALID".to_owned()));
}

#[tokio::test]
async fn end_8a_tags_are_listed() {
    let bench = Bench::new().await;
    bench.push_image("a", "2", "content").await;
    bench.push_image("a", "1", "content").await;
    let answer = bench.get("/v2/a/tags/list").await;
    assert_eq!(answer.json(), serde_json::json!({"name": "a", "tags": ["1", "2"]}));
    refused(&bench, "GET", "/v2/none/tags/list", &[(404, "NAME_UNKNOWN")]).await;
}

#[tokio::test]
async fn end_8b_tags_are_listed_in_pages() {
    let bench = Bench::new().await;
    for tag in ["a", "b", "c"] {
        bench.push_image("a", tag, "content").await;
    }
    let answer = bench.get("/v2/a/tags/list?n=2").await;
    assert_eq!(answer.json()["tags"], serde_json::json!(["a", "b"]));
    let next = answer.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    let answer = bench.get(&next).await;
    assert_eq!(answer.json()["tags"], serde_json::json!(["c"]));
    assert!(!answer.headers.contains_key("link"));
    assert_eq!(bench.get("/v2/a/tags/list?n=0").await.json()["tags"], serde_json::json!([]));
    refused(&bench, "GET", "/v2/none/tags/list?n=2&last=a", &[(404, "NAME_UNKNOWN")]).await;
}

#[tokio::test]
async fn end_9_manifests_and_tags_are_deleted() {
    let bench = Bench::new().await;
    let (digest, _) = bench.push_image("a", "t", "content").await;
    let delete = async |reference: &str| bench.send("DELETE", &format!("/v2/a/manifests/{reference}"), &[], b"").await;
    assert_eq!(delete("t").await.status, 202);
    assert_eq!(bench.get("/v2/a/manifests/t").await.status, 404);
    assert_eq!(delete(&digest.to_string()).await.status, 202);
    assert_eq!(bench.get(&format!("/v2/a/manifests/{digest}")).await.status, 404);
    assert_eq!(delete(&digest.to_string()).await.status, 404);
    let bench = Bench::with(|options| options.read_only = true).await;
    refused(&bench, "DELETE", "/v2/a/manifests/t", &[(405, "UNSUPPORTED")]).await;
}

#[tokio::test]
async fn end_10_blobs_are_deleted() {
    let bench = Bench::new().await;
    let digest = bench.push_blob("a", b"blob").await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(bench.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(bench.send("HEAD", &path, &[], b"").await.status, 404);
    refused(&bench, "DELETE", &path, &[(404, "BLOB_UNKNOWN")]).await;
}

#[tokio::test]
async fn end_11_blobs_are_mounted() {
    let bench = Bench::new().await;
    let digest = bench.push_blob("a", b"blob").await;
    for query in [format!("mount={digest}&from=a"), format!("mount={digest}")] {
        let answer = bench.send("POST", &format!("/v2/b/blobs/uploads/?{query}"), &[], b"").await;
        assert_eq!((answer.status, answer.header("location")), (201, format!("/v2/b/blobs/{digest}").as_str()));
    }
    let answer = bench.send("POST", &format!("/v2/b/blobs/uploads/?mount={}&from=a", absent()), &[], b"").await;
    assert_eq!(answer.status, 202);
    assert!(answer.header("location").starts_with("/v2/b/blobs/uploads/"));
}

/// An image with two artifacts that say something about it.
async fn with_referrers(bench: &Bench) -> Digest {
    let (subject, bytes) = bench.push_image("a", "t", "content").await;
    bench.push_blob("a", b"{}").await;
    for artifact in ["application/sbom", "application/signature"] {
        let mut manifest = Manifest::new(Descriptor::of(MediaType::EmptyJSON, b"{}"), vec![]);
        manifest.artifact_type = Some(artifact.to_owned());
        manifest.annotations.insert("about".to_owned(), artifact.to_owned());
        manifest.subject = Some(Descriptor::of(MediaType::ImageManifest, &bytes));
        let manifest = manifest.to_bytes();
        let answer = bench.put_manifest("a", &Digest::of(&manifest).to_string(), MANIFEST, &manifest).await;
        assert_eq!((answer.status, answer.header("oci-subject")), (201, subject.to_string().as_str()));
    }
    subject
}

#[tokio::test]
async fn end_12a_referrers_are_listed() {
    let bench = Bench::new().await;
    let subject = with_referrers(&bench).await;
    let answer = bench.get(&format!("/v2/a/referrers/{subject}")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/vnd.oci.image.index.v1+json"));
    let index = answer.json();
    assert_eq!((index["schemaVersion"].as_u64(), index["manifests"].as_array().unwrap().len()), (Some(2), 2));
    for entry in index["manifests"].as_array().unwrap() {
        assert_eq!(entry["artifactType"], entry["annotations"]["about"]);
    }
    let answer = bench.get(&format!("/v2/a/referrers/{}", absent())).await;
    assert_eq!((answer.status, answer.json()["manifests"].as_array().unwrap().len()), (200, 0));
    refused(&bench, "GET", "/v2/a/referrers/latest", &[(400, "DIGEST_INVALID")]).await;
}

#[tokio::test]
async fn end_12b_referrers_are_filtered() {
    let bench = Bench::new().await;
    let subject = with_referrers(&bench).await;
    let answer = bench.get(&format!("/v2/a/referrers/{subject}?artifactType=application/sbom")).await;
    assert_eq!((answer.status, answer.header("oci-filters-applied")), (200, "artifactType"));
    let index = answer.json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(index["manifests"][0]["artifactType"], "application/sbom");
    refused(&bench, "GET", "/v2/a/referrers/x?artifactType=y", &[(400, "DIGEST_INVALID")]).await;
}

#[tokio::test]
async fn end_13_an_upload_says_how_far_it_is() {
    let bench = Bench::new().await;
    let location = start(&bench).await;
    bench.send("PATCH", &location, &[], b"12345").await;
    let answer = bench.get(&location).await;
    assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
    assert_eq!(answer.header("location"), location);
    refused(&bench, "GET", "/v2/a/blobs/uploads/0123", &[(404, "BLOB_UPLOAD_UNKNOWN")]).await;
}
