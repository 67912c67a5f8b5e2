//! Manifests and indexes, by tag and by digest.
//!
//! The layout's index says which manifests a repository has: those named by a tag or a digest, and those listed in
//! an index that it has. When a tag moves or goes, the manifest that it named stays, named by its digest, until it is
//! deleted by that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use content::Digest;
use http_body_util::BodyExt;
use oci::{Descriptor, Document, MAX_MANIFEST_SIZE, MediaType, MediaTypeExt, Reference, Repository};
use store::StoreError;

use crate::api_error::ApiError;
use crate::respond::{CONTENT_DIGEST, OCI_SUBJECT, Respond};
use crate::route::ManifestName;
use crate::router::{Server, header_text};

/// How deep indexes may lie in indexes.
const MAX_DEPTH: usize = 4;

/// `GET` and `HEAD` of a manifest.
pub(crate) async fn get(
    server: Arc<Server>,
    name: Repository,
    wanted: ManifestName,
    request: &Parts,
) -> Result<Response, ApiError> {
    let (descriptor, bytes) = server.blocking(move |server| server.read_manifest(&name, &wanted)).await?;
    let digest = descriptor.digest;
    let tag = format!("\"{digest}\"");
    if header_text(request, header::IF_NONE_MATCH).is_some_and(|known| known.contains(&tag)) {
        return Ok(Respond::with(StatusCode::NOT_MODIFIED).header(header::ETAG, tag).head());
    }
    let respond = Respond::with(StatusCode::OK)
        .header(header::CONTENT_TYPE, &descriptor.media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .header(header::ETAG, tag)
        .header(CONTENT_DIGEST, digest);
    Ok(if request.method == Method::HEAD { respond.head() } else { respond.body(bytes) })
}

/// `PUT` of a manifest.
pub(crate) async fn put(
    server: Arc<Server>,
    name: Repository,
    wanted: ManifestName,
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let media_type = header_text(request, header::CONTENT_TYPE).unwrap_or_default();
    let media_type = MediaType::from(media_type.split(';').next().unwrap_or_default().trim());
    if !media_type.is_manifest() && !media_type.is_index() {
        let message = format!("Content-Type `{media_type}` is neither an image manifest nor an index");
        return Err(ApiError::manifest_invalid(message));
    }
    let idle = server.options.body_idle;
    let limit = server.options.max_manifest_size.min(MAX_MANIFEST_SIZE);
    let body = http_body_util::Limited::new(body, limit as usize).collect();
    let bytes = match tokio::time::timeout(idle, body).await {
        Err(_) => return Err(ApiError::body_idle()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(ApiError::too_large(limit));
        }
        Ok(Err(error)) => return Err(ApiError::body(format!("the request's body broke off: {error}"))),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let size = bytes.len() as u64;
    server.metrics.received.fetch_add(size, Ordering::Relaxed);
    server.check_room(size).await?;
    let location = format!("/v2/{name}/manifests/{wanted}");
    let pushed = server.blocking(move |server| server.store_manifest(&name, &wanted, media_type, &bytes)).await?;
    let mut respond =
        Respond::with(StatusCode::CREATED).header(header::LOCATION, location).header(CONTENT_DIGEST, pushed.digest);
    if let Some(subject) = pushed.subject {
        respond = respond.header(OCI_SUBJECT, subject);
    }
    Ok(respond.empty())
}

/// `DELETE` of a tag, or of a manifest with all its tags.
pub(crate) async fn delete(server: Arc<Server>, name: Repository, wanted: ManifestName) -> Result<Response, ApiError> {
    server.blocking(move |server| server.delete_manifest(&name, &wanted)).await?;
    Ok(Respond::with(StatusCode::ACCEPTED).empty())
}

struct Pushed {
    digest: Digest,
    subject: Option<Digest>,
}

impl Server {
    /// Every named manifest of a repository, whatever registry its name says; the server's own names come first.
    pub(crate) fn repository(&self, name: &Repository) -> Result<Vec<(Reference, Descriptor)>, ApiError> {
        let mut references = self.layout.references()?;
        references.retain(|(reference, _)| reference.repository() == name);
        references.sort_by_key(|(reference, _)| reference.registry() != self.name());
        Ok(references)
    }

    fn read_manifest(&self, name: &Repository, wanted: &ManifestName) -> Result<(Descriptor, Vec<u8>), ApiError> {
        let references = self.repository(name)?;
        let unknown = || {
            if references.is_empty() { ApiError::name_unknown(name) } else { ApiError::manifest_unknown(wanted) }
        };
        let descriptor = match wanted {
            ManifestName::Tag(tag) => {
                let mut tagged = references.iter().filter(|(reference, _)| reference.tag() == Some(tag));
                tagged.next().map(|(_, descriptor)| descriptor.clone())
            }
            ManifestName::Digest(digest) => {
                let roots: Vec<Descriptor> = references.iter().map(|(_, descriptor)| descriptor.clone()).collect();
                self.find_below(&roots, *digest, MAX_DEPTH)
            }
        };
        let descriptor = descriptor.ok_or_else(unknown)?;
        match self.layout.read_small(descriptor.digest, MAX_MANIFEST_SIZE) {
            Err(StoreError::Missing { .. }) => Err(ApiError::manifest_unknown(wanted)),
            other => Ok((descriptor, other?)),
        }
    }

    /// Looks for a digest among these manifests and, if it is not there, in the indexes among them.
    fn find_below(&self, manifests: &[Descriptor], digest: Digest, depth: usize) -> Option<Descriptor> {
        if let Some(found) = manifests.iter().find(|descriptor| descriptor.digest == digest) {
            return Some(found.clone());
        }
        let deeper = depth.checked_sub(1)?;
        manifests.iter().filter(|descriptor| descriptor.media_type.is_index()).find_map(|descriptor| {
            let document = self.layout.read_document(descriptor).ok()?;
            self.find_below(document.manifests(), digest, deeper)
        })
    }

    fn store_manifest(
        &self,
        name: &Repository,
        wanted: &ManifestName,
        media_type: MediaType,
        bytes: &[u8],
    ) -> Result<Pushed, ApiError> {
        let document = Document::parse(bytes, Some(&media_type)).map_err(|error| ApiError::document(&error))?;
        let digest = match wanted {
            ManifestName::Digest(expected) => Digest::with(expected.algorithm(), bytes),
            ManifestName::Tag(_) => Digest::of(bytes),
        };
        if let ManifestName::Digest(expected) = wanted
            && *expected != digest
        {
            return Err(ApiError::digest_invalid(format!("expected {expected}, but the manifest hashes to {digest}")));
        }
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        // From here until something names them, its parts and itself must not be taken for garbage.
        let mut needed = vec![digest];
        needed.extend(document.blobs().into_iter().chain(document.manifests()).map(|part| part.digest));
        self.expect_name(&needed);
        self.check_parts(&document)?;
        self.layout.put_bytes_as(digest, bytes)?;
        let mut names = Vec::new();
        let by_digest = |digest| self.reference(name).with_digest(Some(digest));
        if let ManifestName::Tag(tag) = wanted {
            let tagged = self.reference(name).with_tag(Some(tag.clone()));
            if let Some(old) = self.layout.find(&tagged)?
                && old.digest != digest
            {
                names.push((by_digest(old.digest), old));
            }
            names.push((tagged, descriptor.clone()));
        }
        let subject = document.subject().map(|subject| subject.digest);
        if matches!(wanted, ManifestName::Digest(_)) || subject.is_some() {
            names.push((by_digest(digest), descriptor));
        }
        self.layout.set_references(&names)?;
        self.layout.named(&needed);
        Ok(Pushed { digest, subject })
    }

    /// Everything that a manifest needs must be here before it, so that whoever can pull it can pull all of it.
    fn check_parts(&self, document: &Document) -> Result<(), ApiError> {
        for part in document.blobs().into_iter().chain(document.manifests()) {
            if part.media_type.is_foreign_layer() || !part.urls.is_empty() {
                continue;
            }
            let Some(found) = self.layout.blob_size(part.digest) else {
                return Err(ApiError::manifest_blob_unknown(part.digest));
            };
            if found != part.size {
                let message = format!("{} has {found} bytes, the manifest says {}", part.digest, part.size);
                return Err(ApiError::size_invalid(message));
            }
        }
        Ok(())
    }

    fn delete_manifest(&self, name: &Repository, wanted: &ManifestName) -> Result<(), ApiError> {
        let references = self.repository(name)?;
        if references.is_empty() {
            return Err(ApiError::name_unknown(name));
        }
        let unwanted = |reference: &Reference, descriptor: &Descriptor| {
            reference.repository() == name
                && match wanted {
                    ManifestName::Tag(tag) => reference.tag() == Some(tag),
                    ManifestName::Digest(digest) => descriptor.digest == *digest,
                }
        };
        let removed: Vec<_> = references.iter().filter(|(reference, entry)| unwanted(reference, entry)).collect();
        let Some((_, descriptor)) = removed.first() else { return Err(ApiError::manifest_unknown(wanted)) };
        if matches!(wanted, ManifestName::Tag(_)) {
            let kept = self.reference(name).with_digest(Some(descriptor.digest));
            match self.layout.set_references(&[(kept, descriptor.clone())]) {
                Err(error) if !error.is_missing() => return Err(error.into()),
                _ => {}
            }
        }
        self.layout.remove_references(unwanted)?;
        Ok(())
    }

    fn reference(&self, name: &Repository) -> Reference {
        Reference::new(self.name().clone(), name.clone(), None, None)
    }
}
