//! Mirrors are asked first, the registry itself for what they lack, and neither gets to see what is for the other.

use std::sync::Arc;

use oci::{Descriptor, MediaType};
use registry_client::{
    BlobSource, BytesSource, Client, Credential, Credentials, CredentialsError, ManifestName, Options, Pusher, Remote,
};

use crate::bench::{Bench, Fault, blob, image};

/// A registry whose images are at `there`, and a client that asks `mirror` first.
fn with_mirror(there: &Bench, mirror: &str) -> (Client, Remote) {
    let mut options = there.options();
    options.mirrors.insert(there.address.parse().unwrap(), vec![mirror.parse().unwrap()]);
    (Client::new(options).unwrap(), there.remote("team/app"))
}

async fn push(bench: &Bench, layers: &[&[u8]]) -> Descriptor {
    let push = image(&bench.address, "team/app", layers);
    let descriptor = Descriptor::of(MediaType::ImageManifest, &push.manifest);
    Pusher::new(bench.client()).push(push).await.unwrap();
    bench.log.clear();
    descriptor
}

fn tag() -> ManifestName {
    ManifestName::Tag("t".parse().unwrap())
}

#[tokio::test]
async fn what_a_mirror_has_is_not_asked_of_the_registry() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    let named = push(&origin, &[b"layer"]).await;
    push(&mirror, &[b"layer"]).await;
    let (client, remote) = with_mirror(&origin, &mirror.address);
    assert_eq!(client.manifest_of(&remote, &tag()).await.unwrap().descriptor.digest, named.digest);
    let (layer, _) = blob(b"layer");
    assert_eq!(client.pull_blob(&remote, &layer, Vec::new()).await.unwrap(), b"layer");
    assert_eq!((origin.log.count("/v2/"), mirror.log.count("GET /v2/team/app")), (0, 2));
}

#[tokio::test]
async fn what_a_mirror_lacks_is_read_from_the_registry() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    let named = push(&origin, &[b"layer"]).await;
    let (client, remote) = with_mirror(&origin, &mirror.address);
    assert_eq!(client.manifest_of(&remote, &tag()).await.unwrap().descriptor.digest, named.digest);
    assert_eq!(client.manifest_of(&remote, &tag()).await.unwrap().descriptor.digest, named.digest);
    // It lacks one thing, and may have another.
    assert_eq!((origin.log.count("manifests/t"), mirror.log.count("manifests/t")), (2, 2));
}

#[tokio::test]
async fn a_mirror_that_fails_is_asked_once() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    let named = push(&origin, &[b"layer"]).await;
    mirror.fault("GET", "manifests", Fault::Status(500, vec![]));
    for mirror in [mirror.address.as_str(), "127.0.0.1:1"] {
        let (client, remote) = with_mirror(&origin, mirror);
        for _ in 0..2 {
            assert_eq!(client.manifest_of(&remote, &tag()).await.unwrap().descriptor.digest, named.digest);
        }
    }
    assert_eq!(mirror.log.count("manifests"), 1);
}

#[tokio::test]
async fn a_mirror_that_lies_is_found_out() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    let named = push(&origin, &[b"layer"]).await;
    push(&mirror, &[b"layer"]).await;
    mirror.fault("GET", "manifests", Fault::Corrupt);
    mirror.fault("GET", "blobs", Fault::Corrupt);
    let (client, remote) = with_mirror(&origin, &mirror.address);
    let by_digest = ManifestName::Digest(named.digest);
    assert_eq!(client.manifest_of(&remote, &by_digest).await.unwrap().descriptor.digest, named.digest);
    assert_eq!(origin.log.count("manifests"), 1, "the registry itself is asked");
    let (layer, _) = blob(b"layer");
    let error = client.pull_blob(&remote, &layer, Vec::new()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("{} sent wrong bytes", mirror.address)), "{error}");
}

#[tokio::test]
async fn nothing_is_pushed_to_a_mirror_nor_judged_by_it() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    push(&mirror, &[b"layer"]).await;
    let (client, remote) = with_mirror(&origin, &mirror.address);
    let source: Arc<dyn BlobSource> = Arc::new(BytesSource(b"layer".as_slice().into()));
    let (layer, _) = blob(b"layer");
    client.push_blob(&remote, &layer, &source, None).await.unwrap();
    assert!(client.get_manifest(&remote, &tag()).await.unwrap().is_none());
    assert_eq!(mirror.log.count("/v2/"), 0);
}

/// Knows one password, for one host.
struct Only(String);

impl Credentials for Only {
    fn lookup(
        &self,
        registry: &oci::Registry,
        _: Option<&oci::Repository>,
    ) -> Result<Option<Credential>, CredentialsError> {
        assert_eq!(registry.as_str(), self.0, "a password is looked up for the host that gets to see it");
        Ok(None)
    }
}

#[tokio::test]
async fn credentials_are_those_of_the_host_that_is_asked() {
    let (origin, mirror) = (Bench::new().await, Bench::new().await);
    push(&origin, &[b"layer"]).await;
    let basic = || vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    mirror.fault("GET", "manifests", Fault::Status(401, basic()));
    let (_, remote) = with_mirror(&origin, &mirror.address);
    let mut options = origin.options();
    options.mirrors.insert(remote.registry.clone(), vec![mirror.address.parse().unwrap()]);
    options.credentials = Arc::new(Only(mirror.address.clone()));
    Client::new(options).unwrap().manifest_of(&remote, &tag()).await.unwrap();

    let moved = Options {
        endpoints: [("registry.invalid".parse().unwrap(), origin.address.parse().unwrap())].into(),
        credentials: Arc::new(Only(origin.address.clone())),
        ..origin.options()
    };
    origin.fault("GET", "manifests", Fault::Status(401, basic()));
    let elsewhere = Remote { registry: "registry.invalid".parse().unwrap(), ..remote };
    Client::new(moved).unwrap().manifest_of(&elsewhere, &tag()).await.unwrap();
}
