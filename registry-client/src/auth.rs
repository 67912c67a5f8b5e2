//! Showing registries who comes: Basic, or Bearer tokens by scope.
//!
//! Nothing is shown before a registry asks. What it asked for is remembered, so that later requests come with the
//! right thing at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci::{Registry, Repository};
use reqwest::header::HeaderValue;
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::time::Instant;

use crate::challenge::Challenge;
use crate::client::Access;
use crate::error::is_transient_status;
use crate::reply::Reply;
use crate::transport::{Call, Transport};
use crate::{Credential, Error, Secret};

/// How long a token lasts that does not say.
const DEFAULT_LIFETIME: u64 = 60;
/// The largest answer of a token server.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;

/// What a request needs to be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The repository that credentials are looked up for.
    pub(crate) repository: Option<Repository>,
    scopes: BTreeSet<String>,
}

impl Scope {
    pub(crate) fn none() -> Self {
        Self { repository: None, scopes: BTreeSet::new() }
    }

    pub(crate) fn catalog() -> Self {
        Self { repository: None, scopes: ["registry:catalog:*".to_owned()].into() }
    }

    pub(crate) fn of(repository: &Repository, access: Access) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
            Access::Delete => "delete",
        };
        let scope = format!("repository:{repository}:{actions}");
        Self { repository: Some(repository.clone()), scopes: [scope].into() }
    }

    /// Also allowed to read another repository: a mount needs both in one token.
    pub(crate) fn and_pull(mut self, repository: &Repository) -> Self {
        self.scopes.insert(format!("repository:{repository}:pull"));
        self
    }
}

struct Token {
    text: Secret,
    until: Instant,
}

/// What is known about the registries' wishes.
#[derive(Default)]
pub(crate) struct Auth {
    challenges: Mutex<HashMap<Registry, Challenge>>,
    purses: Mutex<HashMap<(Registry, Scope), SharedPurse>>,
}

/// Locked while a token is bought: whoever wants the same one waits and finds it.
type SharedPurse = Arc<tokio::sync::Mutex<Purse>>;

/// The token for one scope.
#[derive(Default)]
struct Purse {
    token: Option<Token>,
    /// What the registry asked for when it did not take a token for the scope alone.
    more: BTreeSet<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Transport {
    /// The `Authorization` for a request, if the registry asked for one before and we have it.
    pub(crate) async fn authorization(&self, call: &Call) -> Result<Option<HeaderValue>, Error> {
        let challenge = {
            let challenges = self.auth.challenges.lock().unwrap_or_else(PoisonError::into_inner);
            challenges.get(&call.registry).cloned()
        };
        let text = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => match self.credential(call).await? {
                Some(Credential::Password { username, password, .. }) => basic(&username, &password),
                _ => return Ok(None),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let token = self.token(call, &realm, service.as_deref(), scope.as_deref()).await?;
                bearer(&token)
            }
        };
        let unusable = |_| Error::Address { text: call.registry.to_string(), reason: "its token is no valid header" };
        let mut value = HeaderValue::try_from(text).map_err(unusable)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Takes note of a 401. It is an error if there is nothing to show that was not shown.
    pub(crate) async fn challenged(&self, call: &Call, reply: Reply) -> Result<(), Error> {
        let Some(challenge) = Challenge::of(reply.headers()) else { return Err(self.unauthorized(call, reply).await) };
        if challenge == Challenge::Basic && reply.shown.is_some() {
            return Err(self.unauthorized(call, reply).await);
        }
        let shown = reply.shown.clone();
        // The answer counts as an open connection, and whoever buys the token that we wait for may need that one.
        drop(reply);
        if let (Challenge::Bearer { scope, .. }, Some(shown)) = (&challenge, shown) {
            let purse = self.purse(call);
            let mut purse = purse.lock().await;
            // Somebody else may have bought a new one meanwhile.
            if purse.token.as_ref().is_some_and(|token| bearer(&token.text) == shown) {
                purse.token = None;
                purse.more.extend(scope.iter().flat_map(|asked| asked.split(' ')).map(str::to_owned));
            }
        }
        self.auth.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert(call.registry.clone(), challenge);
        Ok(())
    }

    fn purse(&self, call: &Call) -> SharedPurse {
        let mut purses = self.auth.purses.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(purses.entry((call.registry.clone(), call.scope.clone())).or_default())
    }

    /// Who we are to this registry.
    pub(crate) async fn credential(&self, call: &Call) -> Result<Option<Credential>, Error> {
        let credentials = Arc::clone(&self.options.credentials);
        // What one host may see is never shown to the one that stands in for it.
        let (registry, repository) = (self.endpoint(&call.registry).clone(), call.scope.repository.clone());
        let looked = tokio::task::spawn_blocking(move || credentials.lookup(&registry, repository.as_ref())).await;
        let found = looked.unwrap_or_else(|panicked| {
            let source = Some(Box::new(panicked) as _);
            Err(crate::CredentialsError { message: "looking for credentials went wrong".to_owned(), source })
        });
        found.map_err(|source| Error::Credentials { registry: call.registry.clone(), source })
    }

    async fn token(
        &self,
        call: &Call,
        realm: &str,
        service: Option<&str>,
        asked: Option<&str>,
    ) -> Result<Secret, Error> {
        let purse = self.purse(call);
        let mut purse = purse.lock().await;
        if let Some(token) = purse.token.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.text.clone());
        }
        let mut scopes: BTreeSet<String> = call.scope.scopes.union(&purse.more).cloned().collect();
        // The registry's own wish counts only where we have none: it may be left from another repository's request.
        if scopes.is_empty() {
            scopes.extend(asked.into_iter().flat_map(|asked| asked.split(' ')).map(str::to_owned));
        }
        let answer = self.buy_token(call, realm, service, &scopes).await?;
        let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).clamp(1, 24 * 60 * 60);
        let until = Instant::now() + Duration::from_secs(lifetime) * 9 / 10;
        let text = answer.token.or(answer.access_token).filter(|text| !text.is_empty());
        let text = Secret::new(text.ok_or_else(|| Error::Address {
            text: realm.to_owned(),
            reason: "the token server answers without a token",
        })?);
        purse.token = Some(Token { text: text.clone(), until });
        Ok(text)
    }

    async fn buy_token(
        &self,
        call: &Call,
        realm: &str,
        service: Option<&str>,
        scopes: &BTreeSet<String>,
    ) -> Result<TokenAnswer, Error> {
        let url = self.realm_url(call, realm)?;
        let credential = self.credential(call).await?;
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        pairs.extend(service.map(|service| ("service", service)));
        let request = match &credential {
            Some(Credential::IdentityToken { token, .. }) => {
                let joined = scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                pairs.extend([("grant_type", "refresh_token"), ("refresh_token", token.reveal())]);
                pairs.extend([("client_id", "drystone"), ("scope", joined.as_str())]);
                let mut form = Url::parse("form:").expect("this constant is a URL");
                form.query_pairs_mut().extend_pairs(&pairs);
                Call::elsewhere(Method::POST, url, &call.registry)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            other => {
                let mut url = url;
                pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
                if !pairs.is_empty() {
                    url.query_pairs_mut().extend_pairs(&pairs);
                }
                let request = Call::elsewhere(Method::GET, url, &call.registry);
                match other {
                    Some(Credential::Password { username, password, .. }) => {
                        request.secret_header("authorization", &basic(username, password))
                    }
                    _ => request,
                }
            }
        };
        let reply = self.send_retrying(&request).await?;
        let status = reply.status();
        if status == 200 {
            let request = reply.request.clone();
            let bytes = reply.bytes(MAX_TOKEN_ANSWER).await?;
            return serde_json::from_slice(&bytes)
                .map_err(|_| Error::Protocol { request, reason: "it is no token".to_owned() });
        }
        if is_transient_status(status) || !matches!(status, 400..=403) {
            return Err(reply.refused().await);
        }
        Err(refused(reply, credential.as_ref()).await)
    }

    /// Where tokens are sold. The registry says where, so it must not send passwords over an open line that it does
    /// not use itself.
    fn realm_url(&self, call: &Call, realm: &str) -> Result<Url, Error> {
        let unusable = |reason| Error::Address { text: crate::error::tamed(realm), reason };
        let url = Url::parse(realm).map_err(|_| unusable("the registry's token server has no valid address"))?;
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.is_plain(&call.registry) => Ok(url),
            _ => Err(unusable("the registry's token server must be reached over https")),
        }
    }
}

/// The error for an answer that does not let us in, with who we said we are.
pub(crate) async fn refused(reply: Reply, credential: Option<&Credential>) -> Error {
    let (request, anonymous) = (reply.request.clone(), credential.is_none());
    let credential = credential.map_or_else(|| "no credential".to_owned(), Credential::describe);
    Error::Unauthorized { request, credential, anonymous, errors: reply.errors().await }
}

fn bearer(token: &Secret) -> String {
    format!("Bearer {}", token.reveal())
}

fn basic(username: &str, password: &Secret) -> String {
    format!("Basic {}", BASE64.encode(format!("{username}:{}", password.reveal())))
}
