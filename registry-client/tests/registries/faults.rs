//! Networks and registries that misbehave: every push and pull ends right or with a clear error, and nothing wrong is
//! ever stored.

use std::sync::Arc;
use std::time::Duration;

use oci::{Descriptor, MediaType};
use registry_client::{BlobSource, Client, Error, FileSource, ManifestName, Options, Pushed, Pusher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, Fault, blob, breaking_proxy, digest, image, noise, quick, remote};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_again_and_again_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    let breaks = vec![(0, 0), (300_000, u64::MAX), (5, u64::MAX), (900_000, u64::MAX), (1_200_000, 300)];
    let door = breaking_proxy(&bench.address, breaks).await;
    let content = noise(6_000_000, 1);
    let (descriptor, source) = blob(&content);
    let client = Client::new(Options { chunk_size: 2_000_000, ..bench.options() }).unwrap();
    let pushed = client.push_blob(&remote(&door, "a"), &descriptor, &source, None).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(bench.layout.read_small(descriptor.digest, 10_000_000).unwrap(), content);
    assert!(*bench.log.sent.lock().unwrap() < 12_000_000, "a break must not cost the whole blob");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_breaks_again_and_again_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    let content = noise(6_000_000, 2);
    bench.layout.put_bytes(&content).unwrap();
    let breaks = vec![(u64::MAX, 1_000_000), (u64::MAX, 2_000_000), (u64::MAX, 10), (u64::MAX, 2_500_000)];
    let door = breaking_proxy(&bench.address, breaks).await;
    let (descriptor, _) = blob(&content);
    let pulled = bench.client().pull_blob(&remote(&door, "a"), &descriptor, Vec::new()).await.unwrap();
    assert_eq!(digest(&pulled), descriptor.digest);
    assert_eq!(bench.log.retries.lock().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_busy_gets_the_pause_that_it_asks_for() {
    let bench = Bench::new().await;
    let busy = |value: &str| Fault::Status(429, vec![("retry-after", value.to_owned())]);
    bench.fault("POST", "uploads", busy("1"));
    let date = vec![
        ("date", "Wed, 21 Oct 2026 07:28:00 GMT".to_owned()),
        ("retry-after", "Wed, 21 Oct 2026 07:28:02 GMT".to_owned()),
    ];
    bench.fault("PUT", "manifests", Fault::Status(503, date));
    let report = Pusher::new(bench.client()).push(image(&bench.address, "a", &[])).await.unwrap();
    assert!(!report.unchanged);
    let waits = bench.log.retries.lock().unwrap().clone();
    assert_eq!(waits, [Duration::from_secs(1), Duration::from_secs(2)]);
    bench.fault("HEAD", "manifests", busy("3600"));
    let name = ManifestName::Tag("t".parse().unwrap());
    let error = bench.client().head_manifest(&bench.remote("a"), &name).await.unwrap_err();
    assert!(matches!(error, Error::TryLater { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_moment_are_tried_again_and_lasting_ones_end_clearly() {
    let bench = Bench::new().await;
    for status in [500, 502, 503, 504, 408] {
        bench.fault("HEAD", "blobs", Fault::Status(status, vec![]));
        let (descriptor, source) = blob(format!("{status}").as_bytes());
        bench.fault("PUT", "uploads", Fault::Status(status, vec![]));
        let pushed = bench.client().push_blob(&bench.remote("a"), &descriptor, &source, None).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded, "{status}");
        assert!(bench.layout.has_blob(descriptor.digest, descriptor.size));
    }
    for _ in 0..4 {
        bench.fault("GET", "blobs", Fault::Status(500, vec![]));
    }
    let (descriptor, _) = blob(b"500");
    let error = bench.client().pull_blob(&bench.remote("a"), &descriptor, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("was refused with status 500"), "{error}");
    bench.fault("GET", "blobs", Fault::Status(403, vec![]));
    bench.log.clear();
    let error = bench.client().pull_blob(&bench.remote("a"), &descriptor, Vec::new()).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert_eq!(bench.log.count("GET"), 1, "a refusal for good is not tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_last_answer_was_lost_is_found_to_be_done() {
    let bench = Bench::new().await;
    bench.fault("PUT", "uploads", Fault::LoseAnswer);
    let (descriptor, source) = blob(b"done");
    bench.client().push_blob(&bench.remote("a"), &descriptor, &source, None).await.unwrap();
    assert_eq!(bench.log.count("PUT"), 1);
    bench.fault("PATCH", "uploads", Fault::LoseAnswer);
    let (descriptor, source) = blob(&noise(1000, 7));
    let client = Client::new(Options { chunk_size: 400, ..bench.options() }).unwrap();
    client.push_blob(&bench.remote("a"), &descriptor, &source, None).await.unwrap();
    assert_eq!(bench.log.count("PATCH"), 3, "the piece whose answer was lost is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_registry_forgot_starts_again() {
    let bench = Bench::new().await;
    let (descriptor, source) = blob(&noise(1000, 8));
    bench.fault("PATCH", "uploads", Fault::Status(404, vec![]));
    bench.fault("GET", "uploads", Fault::Status(404, vec![]));
    let client = Client::new(Options { chunk_size: 400, ..bench.options() }).unwrap();
    client.push_blob(&bench.remote("a"), &descriptor, &source, None).await.unwrap();
    assert_eq!(bench.log.count("POST"), 2);
    assert!(bench.layout.has_blob(descriptor.digest, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_noticed_in_both_directions() {
    let bench = Bench::new().await;
    let (descriptor, source) = blob(b"right");
    bench.layout.put_bytes(b"right").unwrap();
    let from = bench.remote("a");
    bench.fault("GET", "blobs", Fault::Corrupt);
    let error = bench.client().pull_blob(&from, &descriptor, Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    bench.fault("GET", "blobs", Fault::Lengthen);
    let error = bench.client().pull_blob(&from, &descriptor, Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
    for _ in 0..2 {
        bench.fault("GET", "blobs", Fault::Truncate(2));
    }
    let pulled = bench.client().pull_blob(&from, &descriptor, Vec::new()).await.unwrap();
    assert_eq!(pulled, b"right", "a body that ends too early is gone on with");
    for _ in 0..4 {
        bench.fault("GET", "blobs", Fault::Truncate(0));
    }
    let error = bench.client().pull_blob(&from, &descriptor, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("ends after 0 of 5 bytes"), "{error}");
    let lying = Descriptor::new(MediaType::ImageLayer, digest(b"announced"), 5);
    let error = bench.client().push_blob(&from, &lying, &source, None).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert!(!bench.layout.has_blob(lying.digest, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_other_bytes_than_its_name_is_refused() {
    let bench = Bench::new().await;
    let push = image(&bench.address, "a", &[]);
    let name = digest(&push.manifest);
    Pusher::new(bench.client()).push(push).await.unwrap();
    for name in [ManifestName::Digest(name), ManifestName::Tag("t".parse().unwrap())] {
        bench.fault("GET", "manifests", Fault::Corrupt);
        let error = bench.client().get_manifest(&bench.remote("a"), &name).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_shrank_or_went_is_the_senders_fault_and_not_tried_again() {
    let bench = Bench::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"short").unwrap();
    let source: Arc<dyn BlobSource> = Arc::new(FileSource(file.path().to_owned()));
    let long = Descriptor::new(MediaType::ImageLayer, digest(b"x"), 500_000);
    let error = bench.client().push_blob(&bench.remote("a"), &long, &source, None).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    drop(file);
    let error = bench.client().push_blob(&bench.remote("a"), &long, &source, None).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    assert!(bench.log.retries.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_is_an_error_with_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::new(quick()).unwrap().ping(&free.to_string().parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    assert!(error.to_string().contains(&format!("GET http://{free}/v2/")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_falls_silent_is_an_error_in_the_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    let client = Client::new(Options { stall: Duration::from_millis(100), ..quick() }).unwrap();
    let error = client.ping(&address.parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_is_there_costs_one_head_per_image_and_no_bytes() {
    let bench = Bench::new().await;
    let layer = noise(100_000, 9);
    let push = async || {
        let pusher = Pusher::new(bench.client());
        for name in ["a", "b", "c"] {
            pusher.push(image(&bench.address, name, &[&layer])).await.unwrap();
        }
    };
    push().await;
    bench.log.clear();
    push().await;
    assert_eq!(bench.log.requests.lock().unwrap().len(), 3);
    assert_eq!(bench.log.count("HEAD"), 3);
    assert_eq!(*bench.log.sent.lock().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_push_repeated_sends_only_what_is_missing() {
    let bench = Bench::new().await;
    let (first, second) = (noise(300_000, 10), noise(300_000, 11));
    let (descriptor, source) = blob(&first);
    bench.client().push_blob(&bench.remote("a"), &descriptor, &source, None).await.unwrap();
    bench.log.clear();
    Pusher::new(bench.client()).push(image(&bench.address, "a", &[&first, &second])).await.unwrap();
    assert!((300_000..301_000).contains(&*bench.log.sent.lock().unwrap()));
}

/// A server that answers each connection with these bytes and closes it.
async fn raw(answers: Vec<Vec<u8>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut answers = answers.into_iter().cycle();
        while let Ok((mut connection, _)) = listener.accept().await {
            let answer = answers.next().unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(&answer).await;
            });
        }
    });
    address
}

fn answer(length: u64, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_a_lie_is_an_error_and_not_an_image() {
    let content = noise(5000, 12);
    let (descriptor, _) = blob(&content);
    // More is promised than comes, less is promised than there is, and the right number of other bytes.
    let cases = [
        (answer(9000, &content[..4000]), "got no answer"),
        (answer(4000, &content), "ends after 4000 of 5000 bytes"),
        (answer(5000, &noise(5000, 13)), "wrong bytes"),
    ];
    for (lie, expected) in cases {
        let address = raw(vec![lie]).await;
        let client = Client::new(quick()).unwrap();
        let error = client.pull_blob(&remote(&address, "a"), &descriptor, Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // Two that break off, and a third that knows no ranges and starts again.
    let address =
        raw(vec![answer(5000, &content[..100]), answer(5000, &content[..3000]), answer(5000, &content)]).await;
    let client = Client::new(quick()).unwrap();
    let pulled = client.pull_blob(&remote(&address, "a"), &descriptor, Vec::new()).await.unwrap();
    assert_eq!(pulled, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_no_broken_one_as_long_as_something_moves() {
    let content = noise(3000, 14);
    let (descriptor, _) = blob(&content);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let slow = answer(3000, &content);
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 8192]).await;
        for piece in slow.chunks(300) {
            connection.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let client = Client::new(Options { stall: Duration::from_millis(600), ..quick() }).unwrap();
    let begun = std::time::Instant::now();
    let pulled = client.pull_blob(&remote(&address, "a"), &descriptor, Vec::new()).await.unwrap();
    assert_eq!(pulled, content);
    assert!(begun.elapsed() > Duration::from_millis(700), "it took longer than nothing may move");
}
