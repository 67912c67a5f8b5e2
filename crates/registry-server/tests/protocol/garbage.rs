//! Garbage collection, restarts and limits while clients push.

use std::time::Duration;

use content::Digest;
use oci::{Descriptor, Manifest, MediaType};
use store::{Collect, Layout};

use crate::bench::{Bench, MANIFEST};

fn collect(layout: &Layout) -> usize {
    let now = layout.time().unwrap();
    let how = Collect { now, dry_run: false, untagged: false, upload_rest: Duration::from_secs(3600) };
    layout.collect(how).unwrap().removed.len()
}

#[tokio::test]
async fn what_was_pushed_asked_for_or_mounted_stays_until_its_manifest_comes() {
    let bench = Bench::new().await;
    bench.push_blob("a", b"pushed").await;
    let (asked, _) = bench.layout.put_bytes(b"asked for").unwrap();
    let (mounted, _) = bench.layout.put_bytes(b"mounted").unwrap();
    bench.layout.put_bytes(b"nobody's").unwrap();
    bench.push_blob("a", b"{}").await;
    assert_eq!(bench.send("HEAD", &format!("/v2/a/blobs/{asked}"), &[], b"").await.status, 200);
    let answer = bench.send("POST", &format!("/v2/a/blobs/uploads/?mount={mounted}&from=b"), &[], b"").await;
    assert_eq!(answer.status, 201);
    assert_eq!(collect(&bench.layout), 1);
    let layers = [&b"pushed"[..], b"asked for", b"mounted"].map(|bytes| Descriptor::of(MediaType::ImageLayer, bytes));
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, b"{}"), layers.to_vec()).to_bytes();
    assert_eq!(bench.put_manifest("a", "t", MANIFEST, &manifest).await.status, 201);
    assert_eq!(collect(&bench.layout), 0);
    bench.send("DELETE", &format!("/v2/a/manifests/{}", Digest::of(&manifest)), &[], b"").await;
    assert_eq!(collect(&bench.layout), 5, "what a deleted image had does not wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_go_on_while_garbage_is_collected_without_a_pause() {
    let bench = Bench::new().await;
    let layout = Layout::open(bench.layout.root()).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let collecting = std::thread::spawn(move || {
        while stopped.try_recv().is_err() {
            collect(&layout);
        }
    });
    for round in 0..15 {
        let (digest, _) = bench.push_image("a", "t", &format!("content {round}")).await;
        assert_eq!(bench.get(&format!("/v2/a/manifests/{digest}")).await.status, 200);
        bench.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").await;
    }
    stop.send(()).unwrap();
    collecting.join().unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_after_the_server_was_restarted() {
    let mut bench = Bench::new().await;
    let started = bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let location = started.header("location").to_owned();
    assert_eq!(bench.send("PATCH", &location, &[], b"hello").await.status, 202);
    bench.restart(|_| {}).await;
    assert_eq!(bench.get(&location.replace("/a/", "/b/")).await.status, 404, "it belongs to its repository");
    let answer = bench.get(&location).await;
    assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
    let answer = bench.send("PATCH", &location, &[("content-range", "5-6")], b", ").await;
    assert_eq!(answer.status, 202);
    bench.restart(|_| {}).await;
    let digest = Digest::of(b"hello, world");
    let answer = bench.send("PUT", &format!("{location}?digest={digest}"), &[], b"world").await;
    assert_eq!(answer.status, 201);
    assert_eq!(bench.layout.read_small(digest, 100).unwrap(), b"hello, world");
}

#[tokio::test]
async fn an_upload_that_rests_is_removed_without_anybody_asking_also_after_a_restart() {
    let mut bench = Bench::new().await;
    bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    bench.restart(|options| options.upload_idle = Duration::from_millis(400)).await;
    bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!(bench.layout.uploads().unwrap(), 2);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if bench.layout.uploads().unwrap() == 0 {
            return;
        }
    }
    panic!("{} uploads are left", bench.layout.uploads().unwrap());
}

#[tokio::test]
async fn a_push_that_needs_more_than_the_layout_may_hold_is_refused() {
    let bench = Bench::with(|options| options.max_total_size = Some(100_000)).await;
    bench.push_blob("a", &[1; 60_000]).await;
    let denied = (403, "DENIED".to_owned());
    let large = vec![2; 50_000];
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(&large));
    assert_eq!(bench.send("POST", &path, &[], &large).await.refusal(), denied);
    // One that does not say how much will come.
    let started = bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let answer = bench.send_chunked("PATCH", started.header("location"), large).await;
    assert_eq!(answer.refusal(), denied);
    assert_eq!(bench.blobs(), 1);
    bench.push_blob("a", &[3; 5_000]).await;
}
