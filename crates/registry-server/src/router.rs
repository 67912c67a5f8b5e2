//! From requests to handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::Registry;
use store::Layout;

use crate::Options;
use crate::api_error::ApiError;
use crate::respond::Respond;
use crate::route::Route;
use crate::uploads::Uploads;
use crate::{blobs, listing, manifests, uploads};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What every handler knows.
pub(crate) struct Server {
    pub(crate) layout: Arc<Layout>,
    pub(crate) options: Options,
    pub(crate) uploads: Uploads,
}

impl Server {
    pub(crate) fn name(&self) -> &Registry {
        &self.options.name
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

/// The registry API over a layout.
pub fn router(layout: Arc<Layout>, options: Options) -> Router {
    let uploads = Uploads::new(options.max_uploads, options.upload_idle);
    Router::new().fallback(answer).with_state(Arc::new(Server { layout, options, uploads }))
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match dispatch(server, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // Bytes that somebody pushed must never be taken for a page of ours.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    tracing::info!(%method, path, status = response.status().as_u16(), "request");
    response
}

async fn dispatch(server: Arc<Server>, request: Request) -> Result<Response, ApiError> {
    let (request, body) = request.into_parts();
    let route = Route::parse(request.uri.path())?;
    let method = request.method.clone();
    let reads = method == Method::GET || method == Method::HEAD;
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
            Method::DELETE => Err(ApiError::blob_delete()),
            _ => Err(ApiError::method("GET, HEAD")),
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
