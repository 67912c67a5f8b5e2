//! Manifests and indexes: pushed, pulled, moved, deleted, wrong.

use content::Digest;
use oci::{Descriptor, Document, Index, Manifest, MediaType, Reference};

use crate::bench::{Bench, INDEX, MANIFEST};

#[tokio::test]
async fn an_image_is_pulled_as_it_was_pushed_by_tag_and_by_digest() {
    let bench = Bench::new().await;
    let (digest, bytes) = bench.push_image("team/app", "v1", "content").await;
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let answer = bench.get(&path).await;
        assert_eq!((answer.status, &answer.body), (200, &bytes));
        assert_eq!(answer.header("content-type"), MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        let head = bench.send("HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.header("content-length")), (200, bytes.len().to_string().as_str()));
        assert!(head.body.is_empty());
    }
    let named: Reference = format!("{}/team/app:v1", bench.address).parse().unwrap();
    assert_eq!(bench.layout.find(&named).unwrap().unwrap().digest, digest);
}

#[tokio::test]
async fn an_image_that_a_build_put_into_the_layout_under_another_registrys_name_is_served() {
    let bench = Bench::new().await;
    let (digest, _) = bench.push_image("a", "t", "content").await;
    let named: Reference = "localhost:5100/redis:7".parse().unwrap();
    let size = bench.layout.blob_size(digest).unwrap();
    bench.layout.set_references(&[(named, Descriptor::new(MediaType::ImageManifest, digest, size))]).unwrap();
    assert_eq!(bench.get("/v2/redis/manifests/7").await.status, 200);
    assert_eq!(bench.get(&format!("/v2/redis/manifests/{digest}")).await.status, 200);
}

#[tokio::test]
async fn a_manifest_is_refused_before_its_parts_are_there() {
    let bench = Bench::new().await;
    let config = Descriptor::of(MediaType::ImageConfig, b"{}");
    let layer = Descriptor::of(MediaType::ImageLayer, b"layer");
    let bytes = Manifest::new(config.clone(), vec![layer]).to_bytes();
    let answer = bench.put_manifest("a", "t", MANIFEST, &bytes).await;
    assert_eq!(answer.refusal(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    bench.push_blob("a", b"{}").await;
    bench.push_blob("a", b"layer").await;
    assert_eq!(bench.put_manifest("a", "t", MANIFEST, &bytes).await.status, 201);
    let lying = Descriptor::new(MediaType::ImageLayer, Digest::of(b"layer"), 6);
    let bytes = Manifest::new(config.clone(), vec![lying]).to_bytes();
    assert_eq!(bench.put_manifest("a", "t", MANIFEST, &bytes).await.refusal(), (400, "SIZE_INVALID".to_owned()));
    let foreign = Descriptor::of(MediaType::ImageLayerNonDistributableGzip, b"elsewhere");
    let bytes = Manifest::new(config, vec![foreign]).to_bytes();
    assert_eq!(bench.put_manifest("a", "t", MANIFEST, &bytes).await.status, 201);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"{}").await;
    let good = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), vec![]).to_bytes();
    let both = String::from_utf8(good.clone()).unwrap().replace("\"layers\"", "\"manifests\":[],\"layers\"");
    let huge = vec![b' '; (4 << 20) + 1];
    let wrong = Digest::of(b"other").to_string();
    let cases: [(&str, &str, &[u8], u16, &str); 7] = [
        ("t", MANIFEST, b"not json", 400, "MANIFEST_INVALID"),
        ("t", MANIFEST, b"{}", 400, "MANIFEST_INVALID"),
        ("t", "text/plain", &good, 400, "MANIFEST_INVALID"),
        ("t", INDEX, &good, 400, "MANIFEST_INVALID"),
        ("t", MANIFEST, both.as_bytes(), 400, "MANIFEST_INVALID"),
        ("t", MANIFEST, &huge, 413, "SIZE_INVALID"),
        (&wrong, MANIFEST, &good, 400, "DIGEST_INVALID"),
    ];
    for (reference, media_type, bytes, status, code) in cases {
        let answer = bench.put_manifest("a", reference, media_type, bytes).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
    }
    assert_eq!(bench.put_manifest("a", ".t", MANIFEST, &good).await.refusal(), (400, "TAG_INVALID".to_owned()));
    assert!(bench.layout.references().unwrap().is_empty());
}

#[tokio::test]
async fn a_tag_moves_and_the_old_manifest_stays_under_its_digest() {
    let bench = Bench::new().await;
    let (old, _) = bench.push_image("a", "t", "old").await;
    let (new, _) = bench.push_image("a", "t", "new").await;
    assert_eq!(bench.get("/v2/a/manifests/t").await.header("docker-content-digest"), new.to_string());
    assert_eq!(bench.get(&format!("/v2/a/manifests/{old}")).await.status, 200);
    assert_eq!(bench.get("/v2/a/tags/list").await.json()["tags"], serde_json::json!(["t"]));
}

#[tokio::test]
async fn a_tag_or_a_manifest_can_be_deleted() {
    let bench = Bench::new().await;
    let (digest, _) = bench.push_image("a", "one", "content").await;
    bench.push_image("a", "two", "content").await;
    bench.push_image("b", "one", "content").await;
    let delete = async |reference: &str| bench.send("DELETE", &format!("/v2/a/manifests/{reference}"), &[], b"").await;
    assert_eq!(delete("one").await.status, 202);
    assert_eq!(delete("one").await.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(bench.get("/v2/a/manifests/one").await.status, 404);
    assert_eq!(bench.get(&format!("/v2/a/manifests/{digest}")).await.status, 200);
    assert_eq!(delete(&digest.to_string()).await.status, 202);
    assert_eq!(bench.get(&format!("/v2/a/manifests/{digest}")).await.status, 404);
    assert_eq!(bench.get("/v2/a/manifests/two").await.status, 404);
    assert_eq!(bench.get("/v2/b/manifests/one").await.status, 200);
}

#[tokio::test]
async fn a_manifest_belongs_to_its_repository() {
    let bench = Bench::new().await;
    let (digest, _) = bench.push_image("a", "t", "content").await;
    bench.push_image("b", "t", "other").await;
    let path = format!("/v2/b/manifests/{digest}");
    assert_eq!(bench.get(&path).await.refusal(), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(bench.get("/v2/c/manifests/t").await.refusal(), (404, "NAME_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn an_index_leads_to_its_images() {
    let bench = Bench::new().await;
    let (digest, bytes) = bench.push_image("a", "temporary", "content").await;
    let child = Descriptor::of(MediaType::ImageManifest, &bytes).with_platform("linux/amd64".parse().unwrap());
    let index = Index::new(vec![child]).to_bytes();
    assert_eq!(bench.put_manifest("a", "multi", INDEX, &index).await.status, 201);
    bench.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await;
    assert_eq!(bench.get("/v2/a/manifests/multi").await.header("content-type"), INDEX);
    assert_eq!(bench.get(&format!("/v2/a/manifests/{digest}")).await.header("content-type"), MANIFEST);
    let absent = Index::new(vec![Descriptor::of(MediaType::ImageManifest, b"absent")]).to_bytes();
    let answer = bench.put_manifest("a", "x", INDEX, &absent).await;
    assert_eq!(answer.refusal(), (404, "MANIFEST_BLOB_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn referrers_are_found_by_their_subject_and_filtered_by_type() {
    let bench = Bench::new().await;
    let (subject, bytes) = bench.push_image("a", "t", "content").await;
    bench.push_blob("a", b"{}").await;
    for artifact in ["application/sbom", "application/signature"] {
        let mut manifest = Manifest::new(Descriptor::of(MediaType::EmptyJSON, b"{}"), vec![]);
        manifest.artifact_type = Some(artifact.to_owned());
        manifest.subject = Some(Descriptor::of(MediaType::ImageManifest, &bytes));
        let manifest = manifest.to_bytes();
        let answer = bench.put_manifest("a", &Digest::of(&manifest).to_string(), MANIFEST, &manifest).await;
        assert_eq!((answer.status, answer.header("oci-subject")), (201, subject.to_string().as_str()));
    }
    let answer = bench.get(&format!("/v2/a/referrers/{subject}")).await;
    let Document::Index(index) = Document::parse(&answer.body, Some(&MediaType::ImageIndex)).unwrap() else {
        panic!("{answer:?}")
    };
    assert_eq!(index.manifests.len(), 2);
    let answer = bench.get(&format!("/v2/a/referrers/{subject}?artifactType=application/sbom")).await;
    assert_eq!(answer.header("oci-filters-applied"), "artifactType");
    assert_eq!(answer.json()["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json()["manifests"][0]["artifactType"], "application/sbom");
    let answer = bench.get(&format!("/v2/other/referrers/{subject}")).await;
    assert_eq!((answer.status, answer.json()["manifests"].as_array().unwrap().len()), (200, 0));
}

#[tokio::test]
async fn a_damaged_manifest_is_an_error_of_ours_that_tells_no_paths() {
    let bench = Bench::new().await;
    let (digest, _) = bench.push_image("a", "t", "content").await;
    let path = bench.layout.blob_path(digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "{}").unwrap();
    let answer = bench.get("/v2/a/manifests/t").await;
    assert_eq!(answer.refusal(), (500, "UNKNOWN".to_owned()));
    assert!(!String::from_utf8(answer.body).unwrap().contains(bench.layout.root().to_str().unwrap()));
}
