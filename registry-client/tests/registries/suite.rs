//! What holds for every registry.

use std::sync::Arc;

use oci::{Descriptor, MediaType};
use registry_client::{
    BlobSource, Client, FileSource, ImagePush, ManifestName, Options, Platforms, Pushed, Pusher, Remote,
};

use crate::bench::{Bench, blob, digest, image, noise, quick, remote};
use crate::pushes::{index, statement};

/// Everything, against the registry at an address.
pub(crate) async fn run(address: &str, options: Options) {
    let client = Client::new(options).unwrap();
    client.ping(&address.parse().unwrap()).await.unwrap();
    blobs_go_in_and_come_out(&client, address).await;
    large_blobs_go_in_pieces(&client, address).await;
    blobs_are_mounted(&client, address).await;
    manifests_go_in_and_come_out(&client, address).await;
    a_family_is_pushed_once(&client, address).await;
    what_is_listed_is_there(&client, address).await;
    an_index_comes_after_what_it_lists(&client, address).await;
    what_is_said_about_an_image_is_listed(&client, address).await;
}

async fn pull(client: &Client, remote: &Remote, descriptor: &Descriptor) -> Vec<u8> {
    client.pull_blob(remote, descriptor, Vec::new()).await.unwrap()
}

async fn blobs_go_in_and_come_out(client: &Client, address: &str) {
    let remote = remote(address, "suite/blobs");
    for content in [&b""[..], b"x", &noise(300_000, 1)] {
        let (descriptor, source) = blob(content);
        assert!(!client.head_blob(&remote, &descriptor).await.unwrap());
        assert_eq!(client.push_blob(&remote, &descriptor, &source, None).await.unwrap(), Pushed::Uploaded);
        assert_eq!(client.push_blob(&remote, &descriptor, &source, None).await.unwrap(), Pushed::AlreadyThere);
        assert_eq!(pull(client, &remote, &descriptor).await, content);
    }
}

async fn large_blobs_go_in_pieces(client: &Client, address: &str) {
    let remote = remote(address, "suite/large");
    let content = noise(5_000_000, 2);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let descriptor = Descriptor::of(MediaType::ImageLayerGzip, &content);
    let source: Arc<dyn BlobSource> = Arc::new(FileSource(file.path().to_owned()));
    assert_eq!(client.push_blob(&remote, &descriptor, &source, None).await.unwrap(), Pushed::Uploaded);
    assert_eq!(pull(client, &remote, &descriptor).await, content);
}

async fn blobs_are_mounted(client: &Client, address: &str) {
    let (from, to) = (remote(address, "suite/from"), remote(address, "suite/to"));
    let (descriptor, source) = blob(b"mounted");
    client.push_blob(&from, &descriptor, &source, None).await.unwrap();
    let pushed = client.push_blob(&to, &descriptor, &source, Some(&from.repository)).await.unwrap();
    assert_eq!(pushed, Pushed::Mounted);
    assert_eq!(pull(client, &to, &descriptor).await, b"mounted");
    let (descriptor, source) = blob(b"not there to be mounted");
    let pushed = client.push_blob(&to, &descriptor, &source, Some(&from.repository)).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(pull(client, &to, &descriptor).await, b"not there to be mounted");
}

async fn manifests_go_in_and_come_out(client: &Client, address: &str) {
    let ImagePush { manifest, media_type, blobs, .. } = image(address, "suite/manifests", &[b"layer"]);
    let remote = remote(address, "suite/manifests");
    let tag = ManifestName::Tag("v1".parse().unwrap());
    assert!(client.head_manifest(&remote, &tag).await.unwrap().is_none());
    assert!(client.get_manifest(&remote, &tag).await.unwrap().is_none());
    let refused = client.put_manifest(&remote, &tag, &media_type, manifest.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{refused}");
    for (descriptor, source) in &blobs {
        client.push_blob(&remote, descriptor, source, None).await.unwrap();
    }
    let put = client.put_manifest(&remote, &tag, &media_type, manifest.clone()).await.unwrap();
    assert_eq!(put, digest(&manifest));
    for name in [tag, ManifestName::Digest(put)] {
        let head = client.head_manifest(&remote, &name).await.unwrap().unwrap();
        let fetched = client.get_manifest(&remote, &name).await.unwrap().unwrap();
        assert_eq!((head.digest, head.size), (put, manifest.len() as u64));
        assert_eq!(fetched.bytes, manifest);
        assert_eq!(fetched.descriptor, head);
        assert_eq!(fetched.document.blobs().len(), 2);
    }
    assert!(client.delete_manifest(&remote, &ManifestName::Digest(put)).await.unwrap());
    assert!(client.head_manifest(&remote, &ManifestName::Digest(put)).await.unwrap().is_none());
}

async fn a_family_is_pushed_once(client: &Client, address: &str) {
    let (base, own) = (noise(400_000, 3), noise(1000, 4));
    let images = || {
        [
            image(address, "suite/one", &[&base]),
            image(address, "suite/two", &[&base, &own]),
            image(address, "suite/three", &[&base, &own]),
        ]
    };
    let pusher = Pusher::new(client.clone());
    let [one, two, three] = images();
    let reports = tokio::join!(pusher.push(one), pusher.push(two), pusher.push(three));
    let reports = [reports.0.unwrap(), reports.1.unwrap(), reports.2.unwrap()];
    let base = digest(&base);
    let ways: Vec<Pushed> = reports
        .iter()
        .flat_map(|report| &report.blobs)
        .filter(|blob| blob.0.digest == base)
        .map(|blob| blob.1)
        .collect();
    assert_eq!(ways.iter().filter(|way| **way == Pushed::Uploaded).count(), 1, "{ways:?}");
    assert_eq!(ways.iter().filter(|way| **way == Pushed::Mounted).count(), 2, "{ways:?}");
    let pusher = Pusher::new(client.clone());
    for image in images() {
        assert!(pusher.push(image).await.unwrap().unchanged);
    }
}

async fn what_is_listed_is_there(client: &Client, address: &str) {
    let registry = address.parse().unwrap();
    assert_eq!(client.tags(&remote(address, "suite/one")).await.unwrap(), Some(vec!["t".to_owned()]));
    assert_eq!(client.tags(&remote(address, "suite/none")).await.unwrap(), None);
    let catalog = client.catalog(&registry).await.unwrap();
    assert!(["suite/one", "suite/three", "suite/two"].iter().all(|name| catalog.contains(&(*name).to_owned())));
    let absent = client.referrers(&remote(address, "suite/one"), digest(b"nothing")).await.unwrap();
    assert!(absent.is_empty());
}

async fn an_index_comes_after_what_it_lists(client: &Client, address: &str) {
    let index = index(address, "suite/index");
    let (bytes, reference) = (index.manifest.clone(), index.reference.clone());
    Pusher::new(client.clone()).push(index).await.unwrap();
    let resolved = client.resolve(&reference, &Platforms::All).await.unwrap();
    assert_eq!(resolved.taken().bytes, bytes);
    assert_eq!(resolved.documents.len(), 3);
}

/// At the same time, and in a list of the registry's or of its clients'.
async fn what_is_said_about_an_image_is_listed(client: &Client, address: &str) {
    let image = image(address, "suite/subject", &[]);
    let (subject, remote) = (image.manifest.clone(), remote(address, "suite/subject"));
    let pusher = Pusher::new(client.clone());
    pusher.push(image).await.unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|says| statement(address, "suite/subject", &subject, says));
    let gone = digest(&one.manifest);
    let pushed = tokio::join!(pusher.push(one), pusher.push(two), pusher.push(three));
    assert!(pushed.0.is_ok() && pushed.1.is_ok() && pushed.2.is_ok());
    let listed = client.referrers(&remote, digest(&subject)).await.unwrap();
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert!(listed.iter().all(|entry| entry.artifact_type.as_deref() == Some("application/vnd.example.statement")));
    assert!(listed.iter().any(|entry| entry.annotations["says"] == "two"));
    assert!(client.delete_manifest(&remote, &ManifestName::Digest(gone)).await.unwrap());
    assert_eq!(client.referrers(&remote, digest(&subject)).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_against_our_own_server() {
    let bench = Bench::new().await;
    run(&bench.address, bench.options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_when_blobs_go_in_small_pieces_over_one_connection() {
    let bench = Bench::new().await;
    run(&bench.address, Options { chunk_size: 70_000, connections_per_host: 1, ..quick() }).await;
}
