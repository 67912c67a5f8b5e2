//! Whole images from registries: the right one, byte for byte, or a clear error.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use content::{Algorithm, Digest, Hash};
use oci::{Descriptor, ImageConfig, Index, Manifest, MediaType, Platform, Reference, docker};
use registry_client::{Client, Error, Incoming, Platforms, PullReport, Pusher, Sink};

use crate::bench::{Bench, Fault, breaking_proxy, digest, image, noise};

/// Content in memory, and what came of content before it broke off.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>, Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>);

struct Pending(Memory, Digest, Vec<u8>);

impl Memory {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.clone())
    }

    fn get(&self, digest: Digest) -> Vec<u8> {
        self.0.lock().unwrap()[&digest].clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Sink for Memory {
    fn has(&self, descriptor: &Descriptor) -> bool {
        self.0.lock().unwrap().contains_key(&descriptor.digest)
    }

    fn begin(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Incoming>> {
        let begun = self.1.lock().unwrap().remove(&descriptor.digest).unwrap_or_default();
        Ok(Box::new(Pending(self.clone(), descriptor.digest, begun)))
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.2.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Incoming for Pending {
    fn so_far(&self) -> Option<(Hash, u64)> {
        let mut hash = Hash::new(self.1.algorithm());
        hash.update(&self.2);
        Some((hash, self.2.len() as u64))
    }

    fn commit(mut self: Box<Self>) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.2);
        assert_eq!(Digest::with(self.1.algorithm(), &bytes), self.1);
        self.0.0.lock().unwrap().insert(self.1, bytes);
        Ok(())
    }

    fn discard(mut self: Box<Self>) {
        self.2.clear();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.1.lock().unwrap().insert(self.1, std::mem::take(&mut self.2));
    }
}

fn amd64() -> Platforms {
    Platforms::One(Platform::linux("amd64"))
}

fn reference(address: &str, rest: &str) -> Reference {
    format!("{address}/{rest}").parse().unwrap()
}

async fn pull(bench: &Bench, rest: &str, platforms: &Platforms, into: &Memory) -> Result<PullReport, Error> {
    bench.client().pull(&reference(&bench.address, rest), platforms, into.sink()).await
}

/// Puts an image of Docker's kinds, with the spaces that its tools write, straight into the registry's layout.
fn put_dockers_image(bench: &Bench, architecture: &str, layers: &[Descriptor]) -> Descriptor {
    let config = ImageConfig::new(&Platform::linux(architecture), Vec::new()).to_bytes();
    bench.layout.put_bytes(&config).unwrap();
    let mut manifest = Manifest::new(Descriptor::of(docker::CONFIG.into(), &config), layers.to_vec());
    manifest.media_type = Some(docker::MANIFEST.into());
    let bytes = serde_json::to_string_pretty(&serde_json::to_value(&manifest).unwrap()).unwrap();
    bench.layout.put_bytes(bytes.as_bytes()).unwrap();
    Descriptor::of(docker::MANIFEST.into(), bytes.as_bytes()).with_platform(Platform::linux(architecture))
}

fn name(bench: &Bench, rest: &str, descriptor: &Descriptor) {
    bench.layout.set_references(&[(reference(&bench.address, rest), descriptor.clone())]).unwrap();
}

/// The name of an index of Docker's for three machines, one of which nobody knows.
fn put_dockers_index(bench: &Bench) -> (Descriptor, Vec<Descriptor>) {
    let layer = Descriptor::of(docker::LAYER_ZSTD.into(), &noise(5000, 1));
    bench.layout.put_bytes(&noise(5000, 1)).unwrap();
    let images: Vec<Descriptor> =
        ["amd64", "arm64"].map(|machine| put_dockers_image(bench, machine, std::slice::from_ref(&layer))).to_vec();
    let attestation = Platform { os: "unknown".into(), ..Platform::linux("unknown") };
    let listed = [images.clone(), vec![put_dockers_image(bench, "unknown", &[]).with_platform(attestation)]].concat();
    let mut index = Index::new(listed.clone());
    index.media_type = Some(docker::INDEX.into());
    let bytes = index.to_bytes();
    bench.layout.put_bytes(&bytes).unwrap();
    let index = Descriptor::of(docker::INDEX.into(), &bytes);
    name(bench, "many:t", &index);
    (index, listed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_as_it_was_pushed_and_only_once() {
    let bench = Bench::new().await;
    let pushed = image(&bench.address, "a", &[&noise(300_000, 1), &noise(10, 2)]);
    let (manifest, blobs) = (pushed.manifest.clone(), pushed.blobs.len());
    Pusher::new(bench.client()).push(pushed).await.unwrap();
    let memory = Memory::default();
    let report = pull(&bench, "a:t", &amd64(), &memory).await.unwrap();
    let taken = report.resolved.taken();
    assert_eq!(taken.descriptor, report.resolved.named.descriptor);
    assert_eq!((&taken.bytes, memory.get(taken.descriptor.digest)), (&manifest, manifest.to_vec()));
    assert_eq!(memory.len(), blobs + 1);
    assert!(report.fetched_bytes() > 300_000);
    assert_eq!(report.resolved.config.unwrap().1.platform(), Platform::linux("amd64"));
    bench.log.clear();
    let by_digest = format!("a@{}", digest(&manifest));
    let report = pull(&bench, &by_digest, &amd64(), &memory).await.unwrap();
    assert_eq!(report.fetched_bytes(), 0);
    assert_eq!(bench.log.requests.lock().unwrap().len(), 2, "the manifest and the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_is_chosen_from_dockers_index() {
    let bench = Bench::new().await;
    let (index, images) = put_dockers_index(&bench);
    let arm = Platforms::One("linux/arm64/v8".parse().unwrap());
    let memory = Memory::default();
    let report = pull(&bench, "many:t", &arm, &memory).await.unwrap();
    assert_eq!(report.resolved.named.descriptor.digest, index.digest);
    assert_eq!(report.resolved.taken().descriptor.digest, images[1].digest);
    assert_eq!(memory.len(), 3, "a manifest, a configuration, a layer");
    let error = pull(&bench, "many:t", &Platforms::One("linux/s390x".parse().unwrap()), &memory).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("many:t has no image for linux/s390x; it has images for: linux/amd64, linux/arm64"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine_is_not_taken_for_the_right_one() {
    let bench = Bench::new().await;
    let alone = put_dockers_image(&bench, "arm64", &[]);
    name(&bench, "alone:t", &alone);
    let error = pull(&bench, "alone:t", &amd64(), &Memory::default()).await.unwrap_err();
    assert!(error.to_string().contains("no image for linux/amd64; it has images for: linux/arm64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_come_with_the_index_last() {
    let bench = Bench::new().await;
    let (inner, images) = put_dockers_index(&bench);
    let outer = Index::new(vec![inner.clone(), images[0].clone()]).to_bytes();
    bench.layout.put_bytes(&outer).unwrap();
    name(&bench, "outer:t", &Descriptor::of(MediaType::ImageIndex, &outer));
    let memory = Memory::default();
    let report = pull(&bench, "outer:t", &Platforms::All, &memory).await.unwrap();
    let order: Vec<Digest> = report.resolved.documents.iter().map(|fetched| fetched.descriptor.digest).collect();
    let expected = [&images[0], &images[1], &images[2], &inner].map(|descriptor| descriptor.digest);
    assert_eq!(order, [&expected[..], &[digest(&outer)]].concat());
    assert_eq!(memory.get(inner.digest), bench.layout.read_small(inner.digest, 1 << 20).unwrap());
    assert_eq!(memory.len(), 5 + 3 + 1, "documents, configurations, the one layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_end_is_given_up() {
    let bench = Bench::new().await;
    let mut inner = put_dockers_image(&bench, "amd64", &[]);
    for _ in 0..6 {
        let bytes = Index::new(vec![inner]).to_bytes();
        bench.layout.put_bytes(&bytes).unwrap();
        inner = Descriptor::of(MediaType::ImageIndex, &bytes);
    }
    name(&bench, "deep:t", &inner);
    for platforms in [amd64(), Platforms::All] {
        let error = pull(&bench, "deep:t", &platforms, &Memory::default()).await.unwrap_err();
        assert!(matches!(error, Error::TooManyManifests { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_has_no_platform_and_comes_all_the_same() {
    let bench = Bench::new().await;
    let (config, content) = (b"{}".to_vec(), noise(700, 3));
    let layer = Descriptor::of("application/vnd.example.data".into(), &content);
    let mut manifest = Manifest::new(Descriptor::of("application/vnd.oci.empty.v1+json".into(), &config), vec![layer]);
    manifest.artifact_type = Some("application/vnd.example".into());
    let bytes = manifest.to_bytes();
    for blob in [&config, &content, &bytes] {
        bench.layout.put_bytes(blob).unwrap();
    }
    name(&bench, "artifact:t", &Descriptor::of(MediaType::ImageManifest, &bytes));
    let memory = Memory::default();
    pull(&bench, "artifact:t", &amd64(), &memory).await.unwrap();
    assert_eq!(memory.get(digest(&content)), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_may_not_be_passed_on_is_fetched_from_where_it_may() {
    let bench = Bench::new().await;
    let content = noise(4000, 4);
    // Any server of files will do, for example another registry.
    let other = Bench::new().await;
    other.layout.put_bytes(&content).unwrap();
    let mut layer = Descriptor::of(docker::LAYER_FOREIGN.into(), &content);
    layer.urls = vec!["ftp://127.0.0.1/x".into(), format!("http://{}/v2/x/blobs/{}", other.address, layer.digest)];
    let descriptor = put_dockers_image(&bench, "amd64", std::slice::from_ref(&layer));
    name(&bench, "foreign:t", &descriptor);
    let memory = Memory::default();
    pull(&bench, "foreign:t", &amd64(), &memory).await.unwrap();
    assert_eq!(memory.get(layer.digest), content);
    other.fault("GET", "blobs", Fault::Corrupt);
    let memory = Memory::default();
    let error = pull(&bench, "foreign:t", &amd64(), &memory).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(&layer.urls[1]), "{error}");
    assert!(!memory.has(&layer));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_over_a_bad_line_ends_right_and_wrong_bytes_are_never_kept() {
    let bench = Bench::new().await;
    let layers = [noise(900_000, 5), noise(800_000, 6)];
    Pusher::new(bench.client()).push(image(&bench.address, "a", &[&layers[0], &layers[1]])).await.unwrap();
    let door = breaking_proxy(&bench.address, vec![(u64::MAX, 5000), (u64::MAX, 300_000), (0, 0), (900, 40_000)]).await;
    // The registry keeps names of the address under which it was pushed to.
    let through = reference(&door, "a:t");
    let memory = Memory::default();
    bench.client().pull(&through, &amd64(), memory.sink()).await.unwrap();
    assert_eq!(memory.get(digest(&layers[0])), layers[0]);
    assert_eq!(memory.get(digest(&layers[1])), layers[1]);
    let memory = Memory::default();
    for _ in 0..2 {
        bench.fault("GET", "blobs", Fault::Corrupt);
        let error = pull(&bench, "a:t", &amd64(), &memory).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    for (digest, content) in memory.0.lock().unwrap().iter() {
        assert_eq!(*digest, Digest::of(content));
    }
    pull(&bench, "a:t", &amd64(), &memory).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_in_the_registrys_words() {
    let bench = Bench::new().await;
    let error = pull(&bench, "nothing:t", &amd64(), &Memory::default()).await.unwrap_err().to_string();
    assert!(error.contains("GET http://") && error.contains("404"), "{error}");
    assert!(error.contains("MANIFEST_UNKNOWN") || error.contains("NAME_UNKNOWN"), "{error}");
    let missing = Descriptor::of(MediaType::ImageLayerGzip, b"missing");
    let descriptor = put_dockers_image(&bench, "amd64", &[missing]);
    name(&bench, "half:t", &descriptor);
    let error = pull(&bench, "half:t", &amd64(), &Memory::default()).await.unwrap_err().to_string();
    assert!(error.contains("is not in") && error.contains("BLOB_UNKNOWN"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_manifest_format_is_refused_by_name() {
    let bench = Bench::new().await;
    bench.fault("GET", "manifests", Fault::Body(Bytes::from_static(br#"{"schemaVersion":1,"name":"x"}"#)));
    let client: Client = bench.client();
    let error = client.resolve(&reference(&bench.address, "old:t"), &amd64()).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("schema version 1"), "{error}: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_broke_off_goes_on_in_the_middle_of_a_blob() {
    let bench = Bench::new().await;
    let layer = noise(3_000_000, 5);
    Pusher::new(bench.client()).push(image(&bench.address, "a", &[&layer])).await.unwrap();
    let memory = Memory::default();
    let path: &str = format!("blobs/{}", digest(&layer)).leak();
    bench.fault("GET", path, Fault::Truncate(1_000_000));
    (0..4).for_each(|_| bench.fault("GET", path, Fault::Status(500, vec![])));
    pull(&bench, "a:t", &amd64(), &memory).await.unwrap_err();
    assert_eq!(memory.1.lock().unwrap()[&digest(&layer)].len(), 1_000_000);
    bench.faults.lock().unwrap().clear();

    let report = pull(&bench, "a:t", &amd64(), &memory).await.unwrap();
    assert_eq!(memory.get(digest(&layer)), layer);
    assert!((2_000_000..2_001_000).contains(&report.fetched_bytes()), "{}", report.fetched_bytes());
    assert!((1_000_000..1_001_000).contains(&report.present_bytes()), "with the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_was_wrong_is_thrown_away_and_all_fetched_again() {
    let bench = Bench::new().await;
    let layer = noise(300_000, 5);
    Pusher::new(bench.client()).push(image(&bench.address, "a", &[&layer])).await.unwrap();
    for wrong in [noise(1000, 9), noise(300_000, 9), noise(400_000, 9)] {
        let memory = Memory::default();
        memory.1.lock().unwrap().insert(digest(&layer), wrong);
        let report = pull(&bench, "a:t", &amd64(), &memory).await.unwrap();
        assert_eq!(memory.get(digest(&layer)), layer);
        assert!(report.fetched_bytes() >= 300_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_named_by_sha512_comes_as_it_is() {
    let bench = Bench::new().await;
    let put = |media_type: MediaType, bytes: &[u8]| {
        let digest = Digest::with(Algorithm::Sha512, bytes);
        bench.layout.put_bytes_as(digest, bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    };
    let layer = put(MediaType::ImageLayerGzip, &noise(5000, 1));
    let config = put(MediaType::ImageConfig, &ImageConfig::new(&Platform::linux("amd64"), Vec::new()).to_bytes());
    let manifest = put(MediaType::ImageManifest, &Manifest::new(config, vec![layer.clone()]).to_bytes());
    name(&bench, "long:t", &manifest);
    for rest in ["long:t".to_owned(), format!("long@{}", manifest.digest)] {
        let memory = Memory::default();
        let report = pull(&bench, &rest, &amd64(), &memory).await.unwrap();
        assert_eq!(report.resolved.taken().descriptor.digest, manifest.digest, "{rest}");
        assert_eq!(memory.get(layer.digest), noise(5000, 1));
    }
    bench.fault("GET", "blobs/sha512:", Fault::Corrupt);
    let error = pull(&bench, "long:t", &amd64(), &Memory::default()).await.unwrap_err();
    assert!(error.to_string().contains("sent wrong bytes for sha512:"), "{error}");
    bench.fault("GET", "manifests/sha512:", Fault::Corrupt);
    let by_digest = format!("long@{}", manifest.digest);
    assert!(pull(&bench, &by_digest, &amd64(), &Memory::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_mirror_falsified_is_fetched_from_the_registry() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    for bench in [&origin, &mirror] {
        Pusher::new(bench.client()).push(image(&bench.address, "a", &[&noise(50_000, 1)])).await.unwrap();
    }
    let mut options = origin.options();
    options.mirrors.insert(origin.address.parse().unwrap(), vec![mirror.address.parse().unwrap()]);
    for fault in [Fault::Corrupt, Fault::Lengthen] {
        origin.log.clear();
        mirror.fault("GET", "blobs", fault.clone());
        mirror.fault("GET", "blobs", fault);
        let memory = Memory::default();
        let client = Client::new(options.clone()).unwrap();
        client.pull(&reference(&origin.address, "a:t"), &amd64(), memory.sink()).await.unwrap();
        assert_eq!(memory.get(digest(&noise(50_000, 1))), noise(50_000, 1));
        assert!(origin.log.count("blobs") > 0);
    }
}
