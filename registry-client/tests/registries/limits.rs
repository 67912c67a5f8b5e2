//! What a client does not do: open too many connections, read without end, go round in circles.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use registry_client::{Client, Error, ManifestName, Options};
use tokio::net::TcpListener;

use crate::bench::{blob, quick, remote};

async fn listen<F, A>(answer: F) -> String
where
    F: Fn(String) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(any(move |request: Request| {
        let answer = answer.clone();
        async move { answer(request.uri().to_string()).await }
    }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_are_open_than_allowed() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&open), Arc::clone(&most));
    let address = listen(move |_| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Response::new(Body::empty())
        }
    })
    .await;
    let client = Client::new(Options { connections_per_host: 3, ..quick() }).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, remote) = (client.clone(), remote(&address, "a"));
        tasks.spawn(async move { client.head_blob(&remote, &blob(b"").0).await.unwrap() });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_redirects_that_never_end_are_errors() {
    let address = listen(|uri| async move {
        if uri.contains("tags") {
            let body = Body::from(r#"{"tags":["x"]}"#);
            return Response::builder().header("link", "</v2/a/tags/list>; rel=\"next\"").body(body).unwrap();
        }
        Response::builder().status(302).header("location", uri).body(Body::empty()).unwrap()
    })
    .await;
    let client = Client::new(quick()).unwrap();
    let error = client.tags(&remote(&address, "a")).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let error = client.ping(&address.parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_end_is_not_read_to_its_end() {
    let address = listen(|_| async {
        let pieces =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 16])));
        Response::builder()
            .header("content-type", "application/vnd.oci.image.manifest.v1+json")
            .body(Body::from_stream(pieces))
            .unwrap()
    })
    .await;
    let client = Client::new(quick()).unwrap();
    let name = ManifestName::Tag("t".parse().unwrap());
    let error = client.get_manifest(&remote(&address, "a"), &name).await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    let error = client.pull_blob(&remote(&address, "a"), &blob(b"short").0, Vec::new()).await.unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
}

#[test]
fn plain_http_is_spoken_to_loopback_and_to_named_hosts_only() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = |options: Options, registry: &str| {
        let client = Client::new(options).unwrap();
        // Nobody resolves this name; the error tells the address that was tried.
        runtime.block_on(client.ping(&registry.parse().unwrap())).unwrap_err().to_string()
    };
    let once = || {
        let mut options = quick();
        options.retry.attempts = 1;
        options
    };
    assert!(address(once(), "registry.invalid").contains("GET https://registry.invalid/v2/"));
    let mut named = once();
    named.insecure.insert("registry.invalid".parse().unwrap());
    assert!(address(named, "registry.invalid").contains("GET http://registry.invalid/v2/"));
    let mut secure = once();
    secure.secure.insert("localhost:1".parse().unwrap());
    assert!(address(secure, "localhost:1").contains("GET https://localhost:1/v2/"));
    assert!(address(once(), "localhost:1").contains("GET http://localhost:1/v2/"));
    let mut moved = once();
    moved.endpoints.insert("registry.invalid".parse().unwrap(), "localhost:1".parse().unwrap());
    assert!(address(moved, "registry.invalid").contains("GET http://localhost:1/v2/"));
}
