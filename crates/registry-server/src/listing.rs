//! What there is: repositories, tags, referrers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use content::Digest;
use oci::{Descriptor, Index, MediaType, Repository};
use serde::Serialize;

use crate::api_error::ApiError;
use crate::respond::{OCI_FILTERS, Respond};
use crate::router::{Server, parameter};

#[derive(Serialize)]
struct Catalog {
    repositories: Vec<String>,
}

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: Vec<String>,
}

/// `GET /v2/_catalog`
pub(crate) async fn catalog(server: Arc<Server>, request: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(request)?;
    let names = server
        .blocking(|server| {
            let references = server.layout.references()?;
            Ok(references.into_iter().map(|(reference, _)| reference.repository().to_string()).collect())
        })
        .await?;
    let (repositories, next) = page.cut(names);
    Ok(json(&Catalog { repositories }, next.map(|next| format!("/v2/_catalog?{next}"))))
}

/// `GET /v2/<name>/tags/list`
pub(crate) async fn tags(server: Arc<Server>, name: Repository, request: &Parts) -> Result<Response, ApiError> {
    let page = Page::of(request)?;
    let wanted = name.clone();
    let references = server.blocking(move |server| server.repository(&wanted)).await?;
    if references.is_empty() {
        return Err(ApiError::name_unknown(&name));
    }
    let names = references.iter().filter_map(|(reference, _)| reference.tag().map(ToString::to_string)).collect();
    let (tags, next) = page.cut(names);
    let next = next.map(|next| format!("/v2/{name}/tags/list?{next}"));
    Ok(json(&Tags { name: name.as_str(), tags }, next))
}

/// `GET /v2/<name>/referrers/<digest>`: the manifests that have this one as their subject.
pub(crate) async fn referrers(
    server: Arc<Server>,
    name: Repository,
    subject: Digest,
    request: &Parts,
) -> Result<Response, ApiError> {
    let filter = parameter(request, "artifactType");
    let mut found = server.blocking(move |server| server.find_referrers(&name, subject)).await?;
    if let Some(filter) = &filter {
        found.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(filter));
    }
    let mut respond = Respond::with(StatusCode::OK).header(header::CONTENT_TYPE, MediaType::ImageIndex);
    if filter.is_some() {
        respond = respond.header(OCI_FILTERS, "artifactType");
    }
    Ok(respond.body(Index::new(found).to_bytes()))
}

impl Server {
    fn find_referrers(&self, name: &Repository, subject: Digest) -> Result<Vec<Descriptor>, ApiError> {
        let mut found = BTreeMap::new();
        for (_, named) in self.repository(name)? {
            // A manifest that is damaged or gone refers to nothing that a client could use.
            let Ok(document) = self.layout.read_document(&named) else { continue };
            if document.subject().is_none_or(|descriptor| descriptor.digest != subject) {
                continue;
            }
            let mut descriptor = Descriptor::new(document.media_type(), named.digest, named.size);
            descriptor.artifact_type = document.artifact_type();
            descriptor.annotations = document.annotations().clone();
            found.insert(named.digest, descriptor);
        }
        Ok(found.into_values().collect())
    }
}

/// Which part of a list a client wants.
struct Page {
    number: Option<usize>,
    last: Option<String>,
}

impl Page {
    fn of(request: &Parts) -> Result<Self, ApiError> {
        let number = match parameter(request, "n") {
            Some(text) => Some(text.parse().map_err(|_| ApiError::pagination(&text))?),
            None => None,
        };
        Ok(Self { number, last: parameter(request, "last") })
    }

    /// The page, in the order of bytes, and the query of the next one if there is more.
    fn cut(&self, names: BTreeSet<String>) -> (Vec<String>, Option<String>) {
        let mut rest = names.into_iter().filter(|name| self.last.as_ref().is_none_or(|last| name > last)).peekable();
        let Some(number) = self.number else { return (rest.collect(), None) };
        let page: Vec<String> = rest.by_ref().take(number).collect();
        let next = match page.last() {
            Some(last) if rest.peek().is_some() => {
                let last: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
                Some(format!("n={number}&last={last}"))
            }
            _ => None,
        };
        (page, next)
    }
}

fn json<T: Serialize>(value: &T, next: Option<String>) -> Response {
    let mut respond = Respond::with(StatusCode::OK).header(header::CONTENT_TYPE, "application/json");
    if let Some(next) = next {
        respond = respond.header(header::LINK, format!("<{next}>; rel=\"next\""));
    }
    respond.body(serde_json::to_vec(value).expect("lists of strings are valid JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_list() {
        let names: BTreeSet<String> = ["b", "a", "c", "B"].map(str::to_owned).into();
        let page = |number, last: Option<&str>| Page { number, last: last.map(str::to_owned) }.cut(names.clone());
        assert_eq!(page(None, None).0, ["B", "a", "b", "c"]);
        assert_eq!(page(Some(2), None), (vec!["B".to_owned(), "a".to_owned()], Some("n=2&last=a".to_owned())));
        assert_eq!(page(Some(2), Some("a")), (vec!["b".to_owned(), "c".to_owned()], None));
        assert_eq!(page(Some(0), None), (vec![], None));
        assert_eq!(page(None, Some("zz")), (vec![], None));
        assert_eq!(page(None, Some("aa")).0, ["b", "c"]);
    }
}
