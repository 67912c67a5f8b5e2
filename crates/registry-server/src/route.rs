//! What a path asks for. Repository names hold slashes, so paths are read from the right.

use content::Digest;
use oci::{Repository, Tag};

use crate::api_error::ApiError;

/// A place in the API.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Repository, ManifestName),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Repository, String),
}

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestName {
    /// By tag, which may move.
    Tag(Tag),
    /// By digest, which cannot.
    Digest(Digest),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Route {
    /// What kind of place it is, for figures.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Referrers(..) => "referrers",
            Self::Blob(..) => "blob",
            Self::Uploads(_) => "uploads",
            Self::Upload(..) => "upload",
        }
    }

    /// Reads a request's path.
    pub(crate) fn parse(path: &str) -> Result<Self, ApiError> {
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let Some(rest) = path.strip_prefix("/v2") else { return Err(ApiError::not_found()) };
        match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let parts: Vec<&str> = rest.strip_prefix('/').ok_or_else(ApiError::not_found)?.split('/').collect();
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", id] => Ok(Self::Upload(repository(name)?, (*id).to_owned())),
            [name @ .., "blobs", digest] => Ok(Self::Blob(repository(name)?, parse_digest(digest)?)),
            [name @ .., "referrers", digest] => Ok(Self::Referrers(repository(name)?, parse_digest(digest)?)),
            [name @ .., "manifests", reference] => Ok(Self::Manifest(repository(name)?, manifest_name(reference)?)),
            _ => Err(ApiError::not_found()),
        }
    }
}

fn repository(parts: &[&str]) -> Result<Repository, ApiError> {
    parts.join("/").parse().map_err(|error| ApiError::name_invalid(&error))
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: content::DigestError| ApiError::digest_invalid(error.to_string()))
}

fn manifest_name(text: &str) -> Result<ManifestName, ApiError> {
    if text.contains(':') {
        return parse_digest(text).map(ManifestName::Digest);
    }
    text.parse().map(ManifestName::Tag).map_err(|error| ApiError::tag_invalid(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_right() {
        let digest = Digest::of(b"");
        let name = |text: &str| -> Repository { text.parse().unwrap() };
        let tag = |text: &str| ManifestName::Tag(text.parse().unwrap());
        let cases = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
            ("/v2/a/b/manifests/latest".to_owned(), Route::Manifest(name("a/b"), tag("latest"))),
            (format!("/v2/a/manifests/{digest}"), Route::Manifest(name("a"), ManifestName::Digest(digest))),
            (
                format!("/v2/manifests/manifests/{digest}"),
                Route::Manifest(name("manifests"), ManifestName::Digest(digest)),
            ),
            (format!("/v2/a/blobs/{digest}"), Route::Blob(name("a"), digest)),
            (format!("/v2/a/blobs/sha256%3A{}", digest.hex()), Route::Blob(name("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/b/blobs/uploads/0f".to_owned(), Route::Upload(name("a/b"), "0f".to_owned())),
            (format!("/v2/a/b/c/referrers/{digest}"), Route::Referrers(name("a/b/c"), digest)),
        ];
        for (path, expected) in cases {
            assert_eq!(Route::parse(&path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn paths_that_mean_nothing_are_refused() {
        for path in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/a",
            "/v2//tags/list",
            "/v2/A/tags/list",
            "/v2/tags/list",
            "/v2/../x/tags/list",
            "/v2/a/blobs/",
            "/v2/a/blobs/x",
            "/v2/a/manifests/",
            "/v2/a/manifests/.x",
            "/v2/a/manifests/sha256:0",
            "/v2/a/%2e%2e/tags/list",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
