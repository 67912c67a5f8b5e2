//! A registry over an empty layout, and an HTTP client that hides nothing.

use std::sync::Arc;

use content::Digest;
use oci::{Descriptor, ImageConfig, Manifest, MediaType, Platform};
use registry_server::{Options, Tls};
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use store::Layout;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) struct Bench {
    pub(crate) layout: Arc<Layout>,
    pub(crate) address: String,
    directory: tempfile::TempDir,
    served: Option<Served>,
}

/// A server that runs.
struct Served {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The status, and the code of the first error if there is one.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        (self.status, json["errors"][0]["code"].as_str().unwrap().to_owned())
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::start(change, None).await
    }

    pub(crate) async fn over_tls(tls: Tls) -> Self {
        Self::start(|_| {}, Some(tls)).await
    }

    async fn start(change: impl FnOnce(&mut Options), tls: Option<Tls>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Arc::new(Layout::open_or_create(directory.path().join("oci")).unwrap());
        let mut bench = Self { layout, address: "127.0.0.1:0".to_owned(), directory, served: None };
        bench.serve(change, tls).await;
        bench
    }

    async fn serve(&mut self, change: impl FnOnce(&mut Options), tls: Option<Tls>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        let mut options = Options::new(self.address.parse().unwrap());
        change(&mut options);
        let router = registry_server::router(Arc::clone(&self.layout), options);
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(async move {
            match tls {
                Some(tls) => registry_server::serve_tls(listener, tls, router, stopped).await,
                None => registry_server::serve(listener, router, stopped).await,
            }
        });
        self.served = Some(Served { stop, ended });
    }

    /// Ends the server, and starts another one over the same layout at another address.
    pub(crate) async fn restart(&mut self, change: impl FnOnce(&mut Options)) {
        let Some(Served { stop, ended }) = self.served.take() else { panic!("nothing runs") };
        stop.send(()).unwrap();
        ended.await.unwrap().unwrap();
        self.layout = Arc::new(Layout::open(self.directory.path().join("oci")).unwrap());
        self.serve(change, None).await;
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap()
    }

    /// Sends a body whose length is not said beforehand.
    pub(crate) async fn send_chunked(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let pieces = body.chunks(8192).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), format!("http://{}{path}", self.address)).body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", self.address) };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.body(body.to_vec()).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let answer = self.send("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}"), &[], bytes).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Pushes an image of one layer that holds `content`; the tag may be a digest.
    pub(crate) async fn push_image(&self, name: &str, tag: &str, content: &str) -> (Digest, Vec<u8>) {
        let config = ImageConfig::new(&Platform::linux("amd64"), Vec::new()).to_bytes();
        self.push_blob(name, &config).await;
        self.push_blob(name, content.as_bytes()).await;
        let manifest = Manifest::new(
            Descriptor::of(MediaType::ImageConfig, &config),
            vec![Descriptor::of(MediaType::ImageLayer, content.as_bytes())],
        )
        .to_bytes();
        let answer = self.put_manifest(name, tag, MANIFEST, &manifest).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        (Digest::of(&manifest), manifest)
    }

    pub(crate) async fn put_manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Answer {
        self.send("PUT", &format!("/v2/{name}/manifests/{tag}"), &[("content-type", media_type)], bytes).await
    }

    /// How many blobs are visible.
    pub(crate) fn blobs(&self) -> usize {
        std::fs::read_dir(self.layout.root().join("blobs/sha256")).unwrap().count()
    }
}
