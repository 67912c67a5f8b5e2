//! Manifests and indexes, by tag and by digest.

use bytes::Bytes;
use content::{Algorithm, Digest};
use oci::{Descriptor, Document, MAX_MANIFEST_SIZE, MediaType, Reference, Tag};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};

use crate::client::Access;
use crate::referrers::entry_for;
use crate::reply::Reply;
use crate::transport::Call;
use crate::{Client, Error, Remote};

/// How a manifest is named in its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestName {
    /// By tag, which may move.
    Tag(Tag),
    /// By digest, which cannot.
    Digest(Digest),
}

impl From<&Reference> for ManifestName {
    /// The digest if there is one; else the tag, which is `latest` if there is none.
    fn from(reference: &Reference) -> Self {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Self::Digest(digest),
            (None, Some(tag)) => Self::Tag(tag.clone()),
            (None, None) => Self::Tag(Tag::latest()),
        }
    }
}

impl ManifestName {
    /// The digest of a manifest of this name, by the algorithm of the name.
    pub(crate) fn of(&self, manifest: &[u8]) -> Digest {
        match self {
            Self::Tag(_) => Digest::of(manifest),
            Self::Digest(digest) => Digest::with(digest.algorithm(), manifest),
        }
    }
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or index as a registry sent it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// Its kind, digest and size.
    pub descriptor: Descriptor,
    /// Its bytes; pass these on, not the document written anew.
    pub bytes: Bytes,
    /// What they mean.
    pub document: Document,
}

impl Client {
    /// What a tag names, without fetching it. `None` if it names nothing.
    pub async fn head_manifest(&self, remote: &Remote, name: &ManifestName) -> Result<Option<Descriptor>, Error> {
        let call = self.call(Method::HEAD, remote, &path(name), Access::Pull)?;
        let reply = self.send(call.header("accept", Document::accepted().join(", "))).await?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let reply = reply.expect(&[200]).await?;
        let size = reply.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        match (reply.digest(), size) {
            (Some(digest), Some(size)) => Ok(Some(Descriptor::new(media_type(&reply), digest, size))),
            _ => {
                drop(reply);
                Ok(self.get_manifest(remote, name).await?.map(|fetched| fetched.descriptor))
            }
        }
    }

    /// Fetches a manifest or index, verified. `None` if it is not there.
    pub async fn get_manifest(&self, remote: &Remote, name: &ManifestName) -> Result<Option<FetchedManifest>, Error> {
        let call = self.call(Method::GET, remote, &path(name), Access::Pull)?;
        match self.fetch_manifest(remote, name, call).await {
            Err(error) if error.status() == Some(404) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Fetches a manifest or index that has to be there, verified, from a mirror if there is one. Its absence is an error
    /// with the registry's words.
    pub async fn manifest_of(&self, remote: &Remote, name: &ManifestName) -> Result<FetchedManifest, Error> {
        let call = self.call(Method::GET, remote, &path(name), Access::Pull)?;
        match self.fetch_manifest(remote, name, call.clone().mirrored()).await {
            // A mirror that gives something else than what was asked for fails, too.
            Err(Error::Damaged { .. } | Error::Document { .. }) if self.has_mirror(remote) => {
                self.fetch_manifest(remote, name, call).await
            }
            other => other,
        }
    }

    fn has_mirror(&self, remote: &Remote) -> bool {
        self.options().mirrors.contains_key(&remote.registry)
    }

    async fn fetch_manifest(&self, remote: &Remote, name: &ManifestName, call: Call) -> Result<FetchedManifest, Error> {
        let reply = self.send(call.header("accept", Document::accepted().join(", "))).await?.expect(&[200]).await?;
        let (announced, called, registry) = (announced(&reply), reply.digest(), reply.asked.clone());
        let bytes = reply.bytes(MAX_MANIFEST_SIZE).await?;
        let expected = match name {
            ManifestName::Digest(digest) => Some(*digest),
            ManifestName::Tag(_) => called,
        };
        let digest = Digest::with(expected.map_or(Algorithm::Sha256, |expected| expected.algorithm()), &bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::Damaged { registry, expected, found: digest });
        }
        let document = Document::parse(&bytes, announced.as_ref())
            .map_err(|source| Error::Document { what: format!("{remote} {name}"), source })?;
        let media_type = announced.unwrap_or_else(|| document.media_type());
        Ok(FetchedManifest { descriptor: Descriptor::new(media_type, digest, bytes.len() as u64), bytes, document })
    }

    /// Stores a manifest or index, whose blobs and manifests must be there. If it says something about another manifest,
    /// and the registry does not keep a list of such, it is written into the list that clients keep.
    pub async fn put_manifest(
        &self,
        remote: &Remote,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let descriptor = Descriptor::new(media_type.clone(), name.of(&bytes), bytes.len() as u64);
        // A document of a kind that we do not know is stored all the same.
        let document = Document::parse(&bytes, Some(media_type)).ok();
        let lists_referrers = self.put_bytes(remote, name, media_type, bytes).await?;
        if let Some(document) = document
            && let Some(subject) = document.subject().map(|subject| subject.digest)
            && !lists_referrers
        {
            self.list_referrer(remote, subject, entry_for(&descriptor, &document)).await?;
        }
        Ok(descriptor.digest)
    }

    /// Stores a document. Whether the registry took note of what it is about.
    pub(crate) async fn put_bytes(
        &self,
        remote: &Remote,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<bool, Error> {
        let digest = name.of(&bytes);
        let call = self.call(Method::PUT, remote, &path(name), Access::Push)?;
        let reply = self.send(call.header("content-type", media_type).body(bytes)).await?;
        let reply = reply.expect(&[200, 201, 202]).await?;
        match reply.digest() {
            Some(found) if found != digest => Err(reply.protocol(format!("the registry calls {digest} {found}"))),
            _ => Ok(reply.headers().contains_key("oci-subject")),
        }
    }

    /// Deletes a tag, or a manifest with all its tags. Whether it was there.
    pub async fn delete_manifest(&self, remote: &Remote, name: &ManifestName) -> Result<bool, Error> {
        let subject = match name {
            ManifestName::Tag(_) => None,
            ManifestName::Digest(digest) => self.subject_of(remote, *digest).await.map(|subject| (subject, *digest)),
        };
        let reply = self.send(self.call(Method::DELETE, remote, &path(name), Access::Delete)?).await?;
        if reply.status() == 404 {
            return Ok(false);
        }
        reply.expect(&[200, 202, 204]).await?;
        if let Some((subject, digest)) = subject {
            self.unlist_referrer(remote, subject, digest).await?;
        }
        Ok(true)
    }

    /// What a manifest says something about. One that cannot be read can be deleted all the same.
    async fn subject_of(&self, remote: &Remote, digest: Digest) -> Option<Digest> {
        let fetched = self.get_manifest(remote, &ManifestName::Digest(digest)).await.ok()??;
        fetched.document.subject().map(|subject| subject.digest)
    }
}

fn path(name: &ManifestName) -> String {
    format!("manifests/{name}")
}

fn media_type(reply: &Reply) -> MediaType {
    let text = reply.header(CONTENT_TYPE).unwrap_or_default();
    MediaType::from(text.split(';').next().unwrap_or_default().trim())
}

/// The kind that the registry says it sends. A server of plain files has no word for it; then the document's own counts.
fn announced(reply: &Reply) -> Option<MediaType> {
    let media_type = media_type(reply);
    let unknown = ["", "application/json", "application/octet-stream", "text/plain"];
    (!unknown.contains(&media_type.as_ref())).then_some(media_type)
}
