//! Whole images to registries: indexes after what they list, blobs from where they are, what is said about images.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use content::Digest;
use oci::{Descriptor, Index, Manifest, MediaType, Platform};
use registry_client::{
    BlobSource, BytesSource, Client, ImagePush, Options, Platforms, Pushed, Pusher, Remote, RemoteSource, UploadNote,
    UploadNotes,
};
use tokio::net::TcpListener;

use crate::bench::{Bench, Fault, breaking_proxy, digest, image, noise, quick, remote};

/// An index of two images of an address, under the tag `t`.
pub(crate) fn index(address: &str, name: &str) -> ImagePush {
    let machines = ["amd64", "arm64"];
    let images = machines.map(|machine| image(address, &format!("{name}-{machine}"), &[&noise(3000, 1)]));
    let entries = images.iter().zip(machines).map(|(image, machine)| {
        Descriptor::of(MediaType::ImageManifest, &image.manifest).with_platform(Platform::linux(machine))
    });
    let manifest: Bytes = Index::new(entries.collect()).to_bytes().into();
    let listed = |image: ImagePush| {
        let reference = format!("{address}/{name}@{}", digest(&image.manifest)).parse().unwrap();
        ImagePush { reference, ..image }
    };
    ImagePush {
        reference: format!("{address}/{name}:t").parse().unwrap(),
        media_type: MediaType::ImageIndex,
        manifest,
        blobs: Vec::new(),
        lists: images.into_iter().map(listed).collect(),
    }
}

/// An artifact that says something about a manifest.
pub(crate) fn statement(address: &str, name: &str, subject: &[u8], says: &str) -> ImagePush {
    let blob = |text: &'static str| -> (Descriptor, Arc<dyn BlobSource>) {
        let descriptor = Descriptor::of(MediaType::EmptyJSON, text.as_bytes());
        (descriptor, Arc::new(BytesSource(Bytes::from_static(text.as_bytes()))))
    };
    let config = blob("{}");
    let mut manifest = Manifest::new(config.0.clone(), vec![config.0.clone()]);
    manifest.artifact_type = Some("application/vnd.example.statement".to_owned());
    manifest.subject = Some(Descriptor::of(MediaType::ImageManifest, subject));
    manifest.annotations.insert("says".to_owned(), says.to_owned());
    let manifest: Bytes = manifest.to_bytes().into();
    ImagePush {
        reference: format!("{address}/{name}@{}", digest(&manifest)).parse().unwrap(),
        media_type: MediaType::ImageManifest,
        manifest,
        blobs: vec![config],
        lists: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_there_costs_one_head() {
    let bench = Bench::new().await;
    let push = async || Pusher::new(bench.client()).push(index(&bench.address, "many")).await.unwrap();
    assert!(!push().await.unchanged);
    bench.log.clear();
    assert!(push().await.unchanged);
    assert_eq!(*bench.log.requests.lock().unwrap(), ["HEAD /v2/many/manifests/t"]);
}

/// A registry that lets a blob be taken from a repository only once a manifest there has it, or never.
async fn sharing_by_manifest(bench: &Bench, never: bool) -> String {
    let (target, is_named) = (bench.address.clone(), Arc::new(AtomicBool::new(false)));
    let layout = Arc::clone(&bench.layout);
    let options = registry_server::Options::new(target.parse().unwrap());
    let log = Arc::clone(&bench.log);
    let gate = move |request: Request, next: Next| {
        let (is_named, log) = (Arc::clone(&is_named), Arc::clone(&log));
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            log.requests.lock().unwrap().push(line.clone());
            if line.contains("mount=") && (never || !is_named.load(Ordering::SeqCst)) {
                return Response::builder().status(if never { 403 } else { 404 }).body(Body::empty()).unwrap();
            }
            // Its blobs are shared by the whole layout; this one's are not.
            if line.starts_with("HEAD /v2/child/blobs") {
                return Response::builder().status(404).body(Body::empty()).unwrap();
            }
            let is_base = line.starts_with("PUT /v2/base/manifests");
            if is_base {
                // The child comes to its mount before that.
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
            let response = next.run(request).await;
            is_named.fetch_or(is_base, Ordering::SeqCst);
            response
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router: Router = registry_server::router(layout, options).layer(middleware::from_fn(gate));
    tokio::spawn(registry_server::serve(listener, router, std::future::pending()));
    address
}

async fn push_base_and_child(client: Client, address: &str) -> [Vec<Pushed>; 2] {
    let layer = noise(100_000, 1);
    let own = noise(1000, 2);
    let pusher = Pusher::new(client);
    let base = pusher.push(image(address, "base", &[&layer]));
    let child = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        pusher.push(image(address, "child", &[&layer, &own])).await
    };
    let (base, child) = tokio::join!(base, child);
    [base.unwrap(), child.unwrap()].map(|report| report.blobs.into_iter().map(|(_, pushed)| pushed).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_shared_by_manifests_only_waits_for_the_base() {
    let bench = Bench::new().await;
    let address = sharing_by_manifest(&bench, false).await;
    let [_, child] = push_base_and_child(bench.client(), &address).await;
    assert_eq!(child, [Pushed::Mounted, Pushed::Uploaded, Pushed::Uploaded]);
    assert_eq!(bench.log.count("mount="), 2, "once too early, and once after the base");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_forbids_mounts_gets_the_bytes() {
    let bench = Bench::new().await;
    let address = sharing_by_manifest(&bench, true).await;
    let [_, child] = push_base_and_child(bench.client(), &address).await;
    assert_eq!(child, [Pushed::Uploaded; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_flows_from_registry_to_registry_over_bad_lines() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let layer = noise(2_000_000, 7);
    Pusher::new(from.client()).push(image(&from.address, "a", &[&layer])).await.unwrap();
    let read = breaking_proxy(&from.address, vec![(u64::MAX, 9000), (u64::MAX, 700_000), (u64::MAX, 300_000)]).await;
    let write = breaking_proxy(&to.address, vec![(400_000, u64::MAX), (900_000, u64::MAX)]).await;
    let source = Client::new(quick()).unwrap();
    let remote: Remote = remote(&read, "a");
    let platforms = Platforms::One(Platform::linux("amd64"));
    let resolved = source.resolve(&format!("{read}/a:t").parse().unwrap(), &platforms).await.unwrap();
    let taken = resolved.taken();
    let stream = |descriptor: &Descriptor| -> (Descriptor, Arc<dyn BlobSource>) {
        let (client, remote) = (source.clone(), remote.clone());
        (descriptor.clone(), Arc::new(RemoteSource { client, remote, descriptor: descriptor.clone() }))
    };
    let push = ImagePush {
        reference: format!("{write}/b:t").parse().unwrap(),
        media_type: taken.descriptor.media_type.clone(),
        manifest: taken.bytes.clone(),
        blobs: taken.document.blobs().into_iter().map(stream).collect(),
        lists: Vec::new(),
    };
    let client = Client::new(Options { chunk_size: 500_000, ..quick() }).unwrap();
    let report = Pusher::new(client).push(push).await.unwrap();
    assert_eq!(report.digest, taken.descriptor.digest);
    assert_eq!(to.layout.read_small(digest(&layer), 1 << 30).unwrap(), layer);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_on_their_way_through_are_stored_nowhere() {
    let (from, to) = (Bench::new().await, Bench::new().await);
    let layer = noise(50_000, 8);
    from.layout.put_bytes(&layer).unwrap();
    from.fault("GET", "blobs", Fault::Corrupt);
    let descriptor = Descriptor::of(MediaType::ImageLayerGzip, &layer);
    let source: Arc<dyn BlobSource> =
        Arc::new(RemoteSource { client: from.client(), remote: from.remote("a"), descriptor: descriptor.clone() });
    let error = to.client().push_blob(&to.remote("b"), &descriptor, &source, None).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert!(!to.layout.has_blob(descriptor.digest, descriptor.size));
}

/// Notes in memory, whoever asks.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<(String, Digest), String>>>);

struct OneNote(Notes, (String, Digest));

impl UploadNotes for Notes {
    fn take(&self, remote: &Remote, digest: Digest) -> Option<Box<dyn UploadNote>> {
        Some(Box::new(OneNote(self.clone(), (remote.to_string(), digest))))
    }
}

impl UploadNote for OneNote {
    fn read(&self) -> Option<String> {
        self.0.0.lock().unwrap().get(&self.1).cloned()
    }

    fn write(&self, address: &str) {
        self.0.0.lock().unwrap().insert(self.1.clone(), address.to_owned());
    }

    fn remove(&self) {
        self.0.0.lock().unwrap().remove(&self.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_ended_sends_only_what_the_registry_has_not_got_of_a_blob() {
    let bench = Bench::new().await;
    let layer = noise(1_000_000, 3);
    let notes = Notes::default();
    let options = || Options { notes: Some(Arc::new(notes.clone())), chunk_size: 300_000, ..bench.options() };
    let push = async || Pusher::new(Client::new(options()).unwrap()).push(image(&bench.address, "a", &[&layer])).await;
    let taken = async || {
        // Two pieces come; at the third the registry is of another mind, which ends a push.
        bench.fault("PATCH", "uploads", Fault::Pass);
        bench.fault("PATCH", "uploads", Fault::Pass);
        bench.fault("PATCH", "uploads", Fault::Status(403, vec![]));
        push().await.unwrap_err();
        bench.log.clear();
    };
    taken().await;
    assert_eq!(notes.0.lock().unwrap().len(), 1);
    push().await.unwrap();
    assert_eq!(bench.layout.read_small(digest(&layer), 1 << 30).unwrap(), layer);
    let sent = *bench.log.sent.lock().unwrap();
    assert!((400_000..401_000).contains(&sent), "{sent}");
    assert!(notes.0.lock().unwrap().is_empty(), "what has ended is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_about_an_upload_that_is_gone_or_elsewhere_does_no_harm() {
    let other = Bench::new().await;
    for (place, address) in [
        "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef".to_owned(),
        format!("http://{}/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef", other.address),
        "http://127.0.0.1:1/".to_owned(),
        "no address at all: \u{0}".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let bench = Bench::new().await;
        let layer = noise(500_000, place as u32);
        let notes = Notes::default();
        notes.0.lock().unwrap().insert((bench.remote("a").to_string(), digest(&layer)), address.clone());
        let options = Options { notes: Some(Arc::new(notes.clone())), chunk_size: 200_000, ..bench.options() };
        let push = image(&bench.address, "a", &[&layer]);
        Pusher::new(Client::new(options).unwrap()).push(push).await.expect(&address);
        assert_eq!(bench.layout.read_small(digest(&layer), 1 << 30).unwrap(), layer, "{address}");
    }
}
