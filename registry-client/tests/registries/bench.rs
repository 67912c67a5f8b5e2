//! Registries to talk to: our own server in this process, with faults in front of it where a test wants them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use content::Digest;
use oci::{Descriptor, ImageConfig, Manifest, MediaType, Platform};
use registry_client::{BlobSource, BytesSource, Client, Event, Events, ImagePush, Options, Remote, RetryPolicy};
use store::Layout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Writes down what passes.
#[derive(Default)]
pub(crate) struct Log {
    /// `METHOD path` of each request that reached the server.
    pub(crate) requests: Mutex<Vec<String>>,
    pub(crate) sent: Mutex<u64>,
    pub(crate) retries: Mutex<Vec<Duration>>,
}

impl Events for Log {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Sent { bytes, .. } => *self.sent.lock().unwrap() += bytes,
            Event::Retrying { wait, .. } => self.retries.lock().unwrap().push(wait),
            _ => {}
        }
    }
}

impl Log {
    pub(crate) fn count(&self, what: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.contains(what)).count()
    }

    pub(crate) fn clear(&self) {
        self.requests.lock().unwrap().clear();
        *self.sent.lock().unwrap() = 0;
    }
}

/// What happens to a request instead of, or after, the right thing.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answer with this status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// Answer rightly, but end the body after so many bytes.
    Truncate(usize),
    /// Answer rightly, but with a byte of the body changed.
    Corrupt,
    /// Answer rightly, but the body has more bytes.
    Lengthen,
    /// No fault: the next one is for the next request.
    Pass,
    /// Answer with this.
    Body(Bytes),
    /// Do the right thing, but lose the answer.
    LoseAnswer,
}

/// Faults for the next requests that match: method and a part of the path.
pub(crate) type Faults = Arc<Mutex<VecDeque<(&'static str, &'static str, Fault)>>>;

pub(crate) struct Bench {
    pub(crate) layout: Arc<Layout>,
    pub(crate) address: String,
    pub(crate) log: Arc<Log>,
    pub(crate) faults: Faults,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Arc::new(Layout::open_or_create(directory.path().join("oci")).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, faults) = (Arc::new(Log::default()), Faults::default());
        let options = registry_server::Options::new(address.parse().unwrap());
        let (seen, queue) = (Arc::clone(&log), Arc::clone(&faults));
        let router = registry_server::router(Arc::clone(&layout), options).layer(middleware::from_fn(
            move |request: Request, next: Next| with_faults(request, next, Arc::clone(&seen), Arc::clone(&queue)),
        ));
        tokio::spawn(registry_server::serve(listener, router, std::future::pending()));
        Self { layout, address, log, faults, _directory: directory }
    }

    pub(crate) fn fault(&self, method: &'static str, path: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push_back((method, path, fault));
    }

    pub(crate) fn options(&self) -> Options {
        Options { events: Arc::clone(&self.log) as Arc<dyn Events>, ..quick() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }

    pub(crate) fn remote(&self, repository: &str) -> Remote {
        remote(&self.address, repository)
    }
}

async fn with_faults(request: Request, next: Next, log: Arc<Log>, faults: Faults) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    log.requests.lock().unwrap().push(format!("{method} {path}"));
    let fault = {
        let mut faults = faults.lock().unwrap();
        let position = faults.iter().position(|(wanted, part, _)| *wanted == method && path.contains(part));
        position.and_then(|position| faults.remove(position)).map(|(_, _, fault)| fault)
    };
    match fault {
        None | Some(Fault::Pass) => next.run(request).await,
        Some(Fault::Status(status, headers)) => {
            // The body must be read, or the connection ends with it.
            let _ = axum::body::to_bytes(request.into_body(), 1 << 30).await;
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::empty()).unwrap()
        }
        Some(Fault::Body(bytes)) => Response::new(Body::from(bytes)),
        Some(Fault::LoseAnswer) => {
            let _ = next.run(request).await;
            Response::builder().status(502).body(Body::empty()).unwrap()
        }
        Some(fault) => changed(next.run(request).await, &fault).await,
    }
}

async fn changed(response: Response, fault: &Fault) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut bytes = axum::body::to_bytes(body, 1 << 30).await.unwrap().to_vec();
    match fault {
        Fault::Truncate(length) => bytes.truncate(*length),
        Fault::Corrupt => bytes[0] ^= 1,
        Fault::Lengthen => bytes.extend_from_slice(b"more"),
        Fault::Status(..) | Fault::Body(_) | Fault::LoseAnswer | Fault::Pass => unreachable!(),
    }
    parts.headers.remove("content-length");
    Response::from_parts(parts, Body::from(bytes))
}

/// Options that do not wait long.
pub(crate) fn quick() -> Options {
    Options {
        retry: RetryPolicy {
            attempts: 4,
            base: Duration::from_millis(5),
            cap: Duration::from_millis(50),
            max_wait: Duration::from_secs(3),
        },
        stall: Duration::from_secs(5),
        ..Options::default()
    }
}

pub(crate) fn remote(address: &str, repository: &str) -> Remote {
    Remote { registry: address.parse().unwrap(), repository: repository.parse().unwrap() }
}

pub(crate) fn blob(bytes: &[u8]) -> (Descriptor, Arc<dyn BlobSource>) {
    let source = BytesSource(Bytes::copy_from_slice(bytes));
    (Descriptor::of(MediaType::ImageLayerGzip, bytes), Arc::new(source))
}

/// Bytes that differ at every place where a transfer could go wrong.
pub(crate) fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) fn image(address: &str, name: &str, layers: &[&[u8]]) -> ImagePush {
    let mut config = ImageConfig::new(&Platform::linux("amd64"), Vec::new());
    config.config.labels.insert("name".to_owned(), name.to_owned());
    let config = config.to_bytes();
    let mut blobs: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    let descriptors = blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect();
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config), descriptors);
    blobs.push((manifest.config.clone(), Arc::new(BytesSource(config.into()))));
    ImagePush {
        reference: format!("{address}/{name}:t").parse().unwrap(),
        media_type: MediaType::ImageManifest,
        manifest: manifest.to_bytes().into(),
        blobs,
        lists: Vec::new(),
    }
}

/// A door to a registry that falls shut: each connection passes so many bytes towards the registry (`up`) or back
/// (`down`), then breaks. When the list is used up, connections pass everything.
pub(crate) async fn breaking_proxy(target: &str, budgets: Vec<(u64, u64)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.to_owned();
    tokio::spawn(async move {
        let mut budgets = budgets.into_iter();
        while let Ok((client, _)) = listener.accept().await {
            let (up, down) = budgets.next().unwrap_or((u64::MAX, u64::MAX));
            let Ok(server) = TcpStream::connect(&target).await else { return };
            tokio::spawn(async move {
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                // The first direction that ends takes the other one with it.
                tokio::select! {
                    () = pass(client_read, server_write, up) => {}
                    () = pass(server_read, client_write, down) => {}
                }
            });
        }
    });
    address
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, mut budget: u64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        let passed = (read as u64).min(budget) as usize;
        if read == 0 || to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        budget -= passed as u64;
        if budget == 0 {
            return;
        }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}
