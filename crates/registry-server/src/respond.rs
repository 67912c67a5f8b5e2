//! Small helpers to write responses with.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

/// The digest of the content that a response is about.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The name of an upload.
pub(crate) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The subject of a manifest that was just pushed; tells the client that referrers are kept.
pub(crate) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Which filters a list of referrers went through.
pub(crate) const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// A response under construction. Header values that are no valid headers are left out; all of ours are valid.
pub(crate) struct Respond(Response);

impl Respond {
    /// Starts a response without a body.
    pub(crate) fn with(status: StatusCode) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        Self(response)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    /// Ends with a body.
    pub(crate) fn body(self, body: impl Into<Body>) -> Response {
        self.0.map(|_| body.into())
    }

    /// Ends with no body and says so: a missing length keeps some clients waiting.
    pub(crate) fn empty(self) -> Response {
        self.header(header::CONTENT_LENGTH, 0).0
    }

    /// Ends as the answer to a HEAD: the length is the one that the headers already tell.
    pub(crate) fn head(self) -> Response {
        self.0
    }
}
