//! What a registry has: tags, repositories.

use oci::Registry;
use reqwest::header::LINK;
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::auth::Scope;
use crate::client::Access;
use crate::transport::Call;
use crate::{Client, Error, Remote};

/// The largest page of a list.
const MAX_PAGE: u64 = 16 << 20;
/// How many pages a list may have.
const MAX_PAGES: usize = 10_000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Client {
    /// The tags of a repository; `None` if the registry does not know it.
    pub async fn tags(&self, remote: &Remote) -> Result<Option<Vec<String>>, Error> {
        let call = self.call(Method::GET, remote, "tags/list", Access::Pull)?;
        self.pages(call, |page: Tags| page.tags.unwrap_or_default()).await
    }

    /// The repositories of a registry. Many registries do not say.
    pub async fn catalog(&self, registry: &Registry) -> Result<Vec<String>, Error> {
        let url = self.transport.url(registry, "/v2/_catalog")?;
        let call = Call::new(Method::GET, url, registry, Scope::catalog());
        let names = self.pages(call, |page: Catalog| page.repositories.unwrap_or_default()).await?;
        names.ok_or_else(|| Error::Missing {
            what: "the catalog".to_owned(),
            place: registry.to_string(),
            said: Vec::new(),
        })
    }

    async fn pages<T: for<'a> Deserialize<'a>>(
        &self,
        mut call: Call,
        names: impl Fn(T) -> Vec<String>,
    ) -> Result<Option<Vec<String>>, Error> {
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let reply = self.send(call.clone()).await?;
            if reply.status() == 404 && all.is_empty() {
                return Ok(None);
            }
            let reply = reply.expect(&[200]).await?;
            let next = reply.header(LINK).and_then(next_page).map(|next| call.url.join(next));
            let (request, unreadable) = (reply.request.clone(), "it is no list");
            let bytes = reply.bytes(MAX_PAGE).await?;
            let page = serde_json::from_slice(&bytes)
                .map_err(|_| Error::Protocol { request: request.clone(), reason: unreadable.to_owned() })?;
            all.extend(names(page));
            call.url = match next {
                None => return Ok(Some(all)),
                Some(Ok(url)) if same_place(&url, &call.url) && url != call.url => url,
                Some(_) => return Err(Error::Protocol { request, reason: "its next page lies elsewhere".to_owned() }),
            };
        }
        Err(Error::Protocol { request: call.name(), reason: format!("it has more than {MAX_PAGES} pages") })
    }
}

fn same_place(next: &Url, current: &Url) -> bool {
    next.origin() == current.origin()
}

/// The address in `<address>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        let cases = [
            ("</v2/a/tags/list?n=2&last=b>; rel=\"next\"", Some("/v2/a/tags/list?n=2&last=b")),
            ("</x>; rel=next", Some("/x")),
            ("</x>; rel=\"prev\", </y>; rel=\"next\"", Some("/y")),
            ("</x>; rel=\"prev\"", None),
            ("nonsense", None),
        ];
        for (link, expected) in cases {
            assert_eq!(next_page(link), expected, "{link}");
        }
    }
}
