//! From requests to handlers.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::Registry;
use store::Layout;

use crate::Options;
use crate::access::Trace;
use crate::api_error::ApiError;
use crate::htpasswd::Entry;
use crate::metrics::{Levels, Metrics};
use crate::respond::Respond;
use crate::route::Route;
use crate::uploads::Uploads;
use crate::usage::Usage;
use crate::{blobs, listing, manifests, page, uploads};

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What every handler knows.
pub(crate) struct Server {
    pub(crate) layout: Arc<Layout>,
    pub(crate) options: Options,
    pub(crate) uploads: Uploads,
    pub(crate) pool: Arc<blobs::Pool>,
    pub(crate) usage: Usage,
    pub(crate) metrics: Metrics,
    /// Held while the page is made, which reads all images.
    pub(crate) page: tokio::sync::Semaphore,
}

impl Server {
    pub(crate) fn name(&self) -> &Registry {
        &self.options.name
    }

    /// Writes down that these blobs will be named soon, so that nobody takes them for garbage. If that cannot be done,
    /// the push goes on: should garbage be collected meanwhile, the manifest is refused, and the push can be repeated.
    pub(crate) fn expect_name(&self, digests: &[content::Digest]) {
        if let Err(error) = self.layout.expect_name(digests) {
            tracing::warn!(%error, "cannot keep what is being pushed from garbage collection");
        }
    }

    /// Whether so many bytes may come.
    pub(crate) async fn check_room(self: &Arc<Self>, bytes: u64) -> Result<(), ApiError> {
        let Some(limit) = self.usage.limit() else { return Ok(()) };
        let used = self.blocking(|server| Ok(server.usage.measure(&server.layout)?)).await?;
        if used.saturating_add(bytes) > limit { Err(ApiError::no_room(limit)) } else { Ok(()) }
    }

    fn levels(&self) -> Result<Levels, ApiError> {
        let references = self.layout.references()?;
        let repositories: BTreeSet<&str> = references.iter().map(|(name, _)| name.repository().as_str()).collect();
        Ok(Levels {
            uploads: self.layout.uploads()? as u64,
            layout_bytes: self.usage.measure(&self.layout)?,
            layout_limit: self.usage.limit(),
            repositories: repositories.len() as u64,
            tags: references.iter().filter(|(name, _)| name.tag().is_some()).count() as u64,
        })
    }

    /// Does something that waits for the disk, on a thread that may wait.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Server) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let server = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&server)).await;
        done.map_err(|error| ApiError::internal(&error))?
    }
}

/// The registry API over a layout, with a page for people at `/`, `/healthz` and `/metrics`. To be called on a tokio
/// runtime: a task removes uploads that rest too long, for as long as the router lives.
pub fn router(layout: Arc<Layout>, options: Options) -> Router {
    let server = Arc::new(Server {
        uploads: Uploads::new(options.max_uploads, options.upload_idle),
        pool: Arc::default(),
        usage: Usage::new(options.max_total_size),
        metrics: Metrics::default(),
        page: tokio::sync::Semaphore::new(1),
        layout,
        options,
    });
    if !server.options.read_only {
        tokio::spawn(tidy(Arc::downgrade(&server), server.uploads.period()));
    }
    Router::new().fallback(answer).with_state(server)
}

async fn tidy(server: Weak<Server>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(server) = server.upgrade() else { return };
        if let Err(error) = server.blocking(|server| Ok(server.uploads.tidy(&server.layout)?)).await {
            tracing::warn!(?error, "cannot remove uploads that rest");
        }
    }
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let mut trace = Trace::begin(&server, &request);
    let mut response = match dispatch(server, request, body, &mut trace).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // Bytes that somebody pushed must never be taken for a page of ours.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    trace.follow(response)
}

async fn dispatch(server: Arc<Server>, request: Parts, body: Body, trace: &mut Trace) -> Result<Response, ApiError> {
    let path = request.uri.path().to_owned();
    let method = request.method.clone();
    let reads = method == Method::GET || method == Method::HEAD;
    // For whoever only asks whether we live, and has no password.
    if path == "/healthz" && reads {
        trace.route("healthz");
        return Ok(Respond::with(StatusCode::OK).header(header::CONTENT_TYPE, "text/plain").body("ok\n"));
    }
    if let Some(users) = &server.options.users {
        match users.check(&request.headers).await {
            Entry::User(user) => trace.user(user),
            Entry::Refused => {
                // A request without a name is how clients ask what is wanted.
                if request.headers.contains_key(header::AUTHORIZATION) {
                    server.metrics.refused_logins.fetch_add(1, Ordering::Relaxed);
                }
                return Err(ApiError::unauthorized());
            }
        }
    }
    match path.as_str() {
        "/" if reads => {
            trace.route("page");
            return page::get(server, &request).await;
        }
        "/metrics" if reads => {
            trace.route("metrics");
            let text = server.blocking(|server| Ok(server.metrics.text(&server.levels()?))).await?;
            return Ok(Respond::with(StatusCode::OK).header(header::CONTENT_TYPE, METRICS_TYPE).body(text));
        }
        "/" | "/metrics" | "/healthz" => return Err(ApiError::method("GET, HEAD")),
        _ => {}
    }
    let route = Route::parse(&path)?;
    trace.route(route.name());
    if server.options.read_only && !reads {
        return Err(ApiError::read_only());
    }
    match route {
        Route::Base if reads => {
            Ok(Respond::with(StatusCode::OK).header(header::CONTENT_TYPE, "application/json").body("{}"))
        }
        Route::Catalog if reads => listing::catalog(server, &request).await,
        Route::Tags(name) if reads => listing::tags(server, name, &request).await,
        Route::Referrers(name, digest) if reads => listing::referrers(server, name, digest, &request).await,
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => Err(ApiError::method("GET")),
        Route::Manifest(name, reference) => match method {
            Method::GET | Method::HEAD => manifests::get(server, name, reference, &request).await,
            Method::PUT => manifests::put(server, name, reference, &request, body).await,
            Method::DELETE => manifests::delete(server, name, reference).await,
            _ => Err(ApiError::method("GET, HEAD, PUT, DELETE")),
        },
        Route::Blob(_, digest) => match method {
            Method::GET | Method::HEAD => blobs::get(server, digest, &request).await,
            Method::DELETE => blobs::delete(server, digest).await,
            _ => Err(ApiError::method("GET, HEAD, DELETE")),
        },
        Route::Uploads(name) => match method {
            Method::POST => uploads::start(server, name, &request, body).await,
            _ => Err(ApiError::method("POST")),
        },
        Route::Upload(name, id) => match method {
            Method::GET => uploads::status(server, name, id).await,
            Method::PATCH => uploads::append(server, name, id, &request, body).await,
            Method::PUT => uploads::finish(server, name, id, &request, body).await,
            Method::DELETE => uploads::cancel(server, name, id).await,
            _ => Err(ApiError::method("GET, PATCH, PUT, DELETE")),
        },
    }
}

/// The value of a parameter in a request's query.
pub(crate) fn parameter(request: &Parts, name: &str) -> Option<String> {
    let query = request.uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// A request's header, if it is there and readable.
pub(crate) fn header_text(request: &Parts, name: HeaderName) -> Option<&str> {
    request.headers.get(name)?.to_str().ok()
}
