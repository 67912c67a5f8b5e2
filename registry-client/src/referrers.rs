//! Manifests that say something about another one: signatures, lists of contents. A registry keeps their list itself
//! (the referrers API of distribution-spec 1.1), or its clients do, in an index under a tag made of the subject's digest.

use std::collections::BTreeSet;

use content::Digest;
use oci::{Descriptor, Document, Index, MAX_MANIFEST_SIZE, MediaType, Tag};
use reqwest::Method;

use crate::client::Access;
use crate::manifests::ManifestName;
use crate::{Client, Error, FetchedManifest, Remote};

/// How many manifests may say something about an image, and about each other.
const MAX_REFERRERS: usize = 4096;

impl Client {
    /// The manifests that say something about another one.
    pub async fn referrers(&self, remote: &Remote, subject: Digest) -> Result<Vec<Descriptor>, Error> {
        match self.referrers_api(remote, subject).await? {
            Some(referrers) => Ok(referrers),
            None => Ok(self.tagged_referrers(remote, subject).await?.map(|index| index.manifests).unwrap_or_default()),
        }
    }

    /// Everything that is said about these manifests, and about what is said: each manifest once, and what it lists.
    pub async fn statements_about(
        &self,
        remote: &Remote,
        subjects: &[FetchedManifest],
    ) -> Result<Vec<FetchedManifest>, Error> {
        let mut known: BTreeSet<Digest> = subjects.iter().map(|subject| subject.descriptor.digest).collect();
        let mut asked: Vec<Digest> = known.iter().copied().collect();
        let mut found = Vec::new();
        while let Some(subject) = asked.pop() {
            for entry in self.referrers(remote, subject).await? {
                if known.contains(&entry.digest) || found.len() >= MAX_REFERRERS {
                    continue;
                }
                let named = self.manifest_of(remote, &ManifestName::Digest(entry.digest)).await?;
                for document in self.everything(remote, &named).await? {
                    if known.insert(document.descriptor.digest) {
                        asked.push(document.descriptor.digest);
                        found.push(document);
                    }
                }
            }
        }
        Ok(found)
    }

    /// What the registry itself knows; `None` if it has no such list.
    async fn referrers_api(&self, remote: &Remote, subject: Digest) -> Result<Option<Vec<Descriptor>>, Error> {
        let call = self.call(Method::GET, remote, &format!("referrers/{subject}"), Access::Pull)?;
        let reply = self.send(call.header("accept", MediaType::ImageIndex)).await?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let reply = reply.expect(&[200]).await?;
        let request = reply.request.clone();
        let bytes = reply.bytes(MAX_MANIFEST_SIZE).await?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Protocol { request, reason: format!("it is no index: {error}") })?;
        Ok(Some(index.manifests))
    }

    async fn tagged_referrers(&self, remote: &Remote, subject: Digest) -> Result<Option<Index>, Error> {
        let name = ManifestName::Tag(fallback_tag(subject));
        match self.get_manifest(remote, &name).await?.map(|fetched| fetched.document) {
            Some(Document::Index(index)) => Ok(Some(index)),
            _ => Ok(None),
        }
    }

    /// Writes a referrer into the list that clients keep, where the registry keeps none. Other
    /// clients that do so at the same time may lose our entry: the protocol has nothing against that.
    pub(crate) async fn list_referrer(&self, remote: &Remote, subject: Digest, entry: Descriptor) -> Result<(), Error> {
        let _alone = self.transport.lists.lock().await;
        let mut index = self.tagged_referrers(remote, subject).await?.unwrap_or_else(|| Index::new(Vec::new()));
        if index.manifests.iter().any(|listed| listed.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        self.put_list(remote, subject, &index).await
    }

    /// Takes a referrer that is gone out of the list that clients keep, if there is one.
    pub(crate) async fn unlist_referrer(&self, remote: &Remote, subject: Digest, gone: Digest) -> Result<(), Error> {
        let _alone = self.transport.lists.lock().await;
        let Some(mut index) = self.tagged_referrers(remote, subject).await? else { return Ok(()) };
        let before = index.manifests.len();
        index.manifests.retain(|listed| listed.digest != gone);
        if index.manifests.len() == before { Ok(()) } else { self.put_list(remote, subject, &index).await }
    }

    async fn put_list(&self, remote: &Remote, subject: Digest, index: &Index) -> Result<(), Error> {
        let name = ManifestName::Tag(fallback_tag(subject));
        self.put_bytes(remote, &name, &MediaType::ImageIndex, index.to_bytes().into()).await.map(drop)
    }
}

/// How a list of referrers says what this document is.
pub(crate) fn entry_for(descriptor: &Descriptor, document: &Document) -> Descriptor {
    let mut entry = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
    entry.artifact_type = document.artifact_type();
    entry.annotations = document.annotations().clone();
    entry
}

/// A tag has room for 64 digits, which are all of a sha256.
fn fallback_tag(subject: Digest) -> Tag {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm().name(), &hex[..64]).parse().expect("these are the characters of a tag")
}
