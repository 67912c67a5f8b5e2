//! Refusals in the form that the specification gives them: a status, and `{"errors":[{code, message, detail}]}`.

use std::io;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use oci::{DocumentError, ReferenceError};
use serde::Serialize;
use store::StoreError;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, String)>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    errors: [ErrorEntry<'a>; 1],
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    code: &'static str,
    message: &'a str,
    detail: Option<()>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "nothing is here: the API lies under /v2/")
    }

    pub(crate) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", format!("only {allowed} is possible here"))
            .with_header(header::ALLOW, allowed.to_owned())
    }

    pub(crate) fn read_only() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only")
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a name and a password are needed, and must be right")
            .with_header(header::WWW_AUTHENTICATE, "Basic realm=\"drystone\", charset=\"UTF-8\"".to_owned())
    }

    pub(crate) fn blob_needed(why: &str) -> Self {
        let message = format!("this blob cannot be deleted: {why}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
            .with_header(header::ALLOW, "GET, HEAD".to_owned())
    }

    pub(crate) fn no_room(limit: u64) -> Self {
        let message = format!(
            "the registry may hold {limit} bytes, and this would be more: delete what nobody needs, and collect garbage"
        );
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(crate) fn name_invalid(error: &ReferenceError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", error.to_string())
    }

    pub(crate) fn tag_invalid(error: &ReferenceError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "TAG_INVALID", error.to_string())
    }

    pub(crate) fn name_unknown(name: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("repository `{name}` is not known"))
    }

    pub(crate) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn blob_unknown(digest: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("blob {digest} is not known"))
    }

    pub(crate) fn manifest_unknown(reference: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("manifest `{reference}` is not known"))
    }

    pub(crate) fn manifest_blob_unknown(digest: impl std::fmt::Display) -> Self {
        let message = format!("the manifest needs {digest}, which was not pushed");
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message)
    }

    pub(crate) fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(crate) fn document(error: &DocumentError) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::manifest_invalid(format!("{error}{source}"))
    }

    pub(crate) fn size_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let message = format!("the content is larger than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    pub(crate) fn upload_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "this upload is not known to the registry")
    }

    pub(crate) fn upload_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn upload_busy() -> Self {
        Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
    }

    pub(crate) fn upload_offset(expected: u64, found: u64) -> Self {
        let message = format!("the upload continues at byte {expected}, but the request starts at {found}");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn too_many_uploads() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are open")
            .with_header(header::RETRY_AFTER, "5".to_owned())
    }

    pub(crate) fn range(size: u64) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", format!("the content has {size} bytes"))
            .with_header(header::CONTENT_RANGE, format!("bytes */{size}"))
    }

    pub(crate) fn pagination(value: &str) -> Self {
        let message = format!("`{}` is not a number of results", value.chars().take(40).collect::<String>());
        Self::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", message)
    }

    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNKNOWN", message)
    }

    pub(crate) fn body_idle() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "UNKNOWN", "the request's body stopped coming")
    }

    pub(crate) fn write(error: &io::Error) -> Self {
        tracing::error!(%error, "cannot write an upload");
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full");
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry cannot write")
    }

    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        let source = error.source().map(ToString::to_string);
        tracing::error!(%error, source, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry cannot read or write its store")
    }
}

/// What the store says when nobody expected it. Paths of this machine stay in the log.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Missing { digest } => Self::blob_unknown(digest),
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Self::write(source),
            _ => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let entry = ErrorEntry { code: self.code, message: &self.message, detail: None };
        let body = serde_json::to_vec(&ErrorBody { errors: [entry] }).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
