//! Requests as such: addresses, connections, retries, redirects, and showing who comes.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use oci::Registry;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{self, Auth, Scope};
use crate::backoff::{Backoff, Next, retry_after};
use crate::clients::Clients;
use crate::error::{is_transient_status, tamed};
use crate::reply::Reply;
use crate::source::Flow;
use crate::{Error, Event, Options, RequestName};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// How many times the stall limit a registry may take to answer once it has everything: it may have to move a blob.
const PATIENCE_AFTER_BODY: u32 = 5;

/// One request, and what it is for.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) registry: Registry,
    pub(crate) scope: Scope,
    headers: HeaderMap,
    body: Bytes,
    /// Whether this goes to the registry itself, and so may carry what we show to it.
    to_registry: bool,
    /// Whether the one who sends this tries again itself, because trying again is more than sending again.
    once: bool,
    /// Whether a mirror of the registry may answer instead.
    mirrored: bool,
}

impl Call {
    /// A request to a registry.
    pub(crate) fn new(method: Method, url: Url, registry: &Registry, scope: Scope) -> Self {
        Self {
            method,
            url,
            registry: registry.clone(),
            scope,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            to_registry: true,
            once: false,
            mirrored: false,
        }
    }

    /// A request to somebody else on a registry's behalf.
    pub(crate) fn elsewhere(method: Method, url: Url, registry: &Registry) -> Self {
        Self { to_registry: false, ..Self::new(method, url, registry, Scope::none()) }
    }

    /// With a header; one whose value is no valid header is left out.
    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.as_ref()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(crate) fn secret_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(mut value) = HeaderValue::try_from(value) {
            value.set_sensitive(true);
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sent once: failures of the moment are answers too.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Answered by a mirror of the registry, if there is one that can: for what is read to be used, and not for what is
    /// read to be written again.
    pub(crate) fn mirrored(mut self) -> Self {
        self.mirrored = true;
        self
    }

    pub(crate) fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    pub(crate) fn name(&self) -> RequestName {
        RequestName::new(&self.method, &self.url)
    }
}

/// Sends requests.
pub(crate) struct Transport {
    pub(crate) options: Options,
    pub(crate) auth: Auth,
    clients: Clients,
    permits: Mutex<HashMap<Registry, Arc<Semaphore>>>,
    /// Mirrors that failed, and are not asked again.
    failed_mirrors: Mutex<BTreeSet<Registry>>,
    /// Held while a list that clients keep is read and written.
    pub(crate) lists: tokio::sync::Mutex<()>,
}

impl Transport {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let clients = Clients::new(&options)?;
        Ok(Self {
            options,
            auth: Auth::default(),
            clients,
            permits: Mutex::default(),
            failed_mirrors: Mutex::default(),
            lists: tokio::sync::Mutex::default(),
        })
    }

    /// Whether a registry is spoken to without TLS.
    pub(crate) fn is_plain(&self, registry: &Registry) -> bool {
        let endpoint = self.endpoint(registry);
        let listed = |list: &BTreeSet<Registry>| list.contains(registry) || list.contains(endpoint);
        listed(&self.options.insecure) || (endpoint.is_loopback() && !listed(&self.options.secure))
    }

    /// Who is reached when a registry is meant.
    pub(crate) fn endpoint<'a>(&'a self, registry: &'a Registry) -> &'a Registry {
        self.options.endpoints.get(registry).unwrap_or(registry)
    }

    /// The address of something in a registry.
    pub(crate) fn url(&self, registry: &Registry, path: &str) -> Result<Url, Error> {
        let scheme = if self.is_plain(registry) { "http" } else { "https" };
        let text = format!("{scheme}://{}{path}", self.endpoint(registry).api_host());
        Url::parse(&text).map_err(|_| Error::Address { text, reason: "it is no valid URL" })
    }

    /// Where a registry sends us. Never from TLS to the open line.
    pub(crate) fn follow(&self, from: &Url, location: &str) -> Result<Url, Error> {
        let unusable = |reason| Error::Address { text: tamed(location), reason };
        let url = from.join(location).map_err(|_| unusable("the registry sends us to no valid address"))?;
        match (from.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => Ok(url),
            _ => Err(unusable("the registry sends us away from https")),
        }
    }

    /// Sends a request until it is answered: retries, redirects and a challenge are dealt with, refusals are answers.
    pub(crate) async fn send(&self, call: Call) -> Result<Reply, Error> {
        if call.mirrored
            && let Some(reply) = self.send_to_mirrors(&call).await
        {
            return Ok(reply);
        }
        self.send_following(call).await
    }

    /// The first answer of a mirror that has what is asked for. One that fails is not asked again.
    async fn send_to_mirrors(&self, call: &Call) -> Option<Reply> {
        for mirror in self.options.mirrors.get(&call.registry)? {
            if self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner).contains(mirror) {
                continue;
            }
            let answer = match self.url(mirror, call.url.path()) {
                Ok(url) => self.send_following(Call { url, registry: mirror.clone(), ..call.clone() }.once()).await,
                Err(error) => Err(error),
            };
            let cause = match answer {
                Ok(reply) if matches!(reply.status(), 200 | 206) => return Some(reply),
                Ok(reply) if reply.status() == 404 => continue,
                Ok(reply) => format!("status {}", reply.status()),
                Err(error) => error.whole(),
            };
            tracing::warn!(%mirror, registry = %call.registry, cause, "the mirror fails: the registry itself is asked");
            self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.clone());
        }
        None
    }

    /// Takes note that a mirror gives wrong bytes: it is not asked again.
    pub(crate) fn distrust(&self, mirror: &Registry, cause: &Error) {
        tracing::warn!(%mirror, %cause, "the mirror gives something else than what was asked for");
        self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.clone());
    }

    async fn send_following(&self, call: Call) -> Result<Reply, Error> {
        let mut call = call;
        for _ in 0..MAX_REDIRECTS {
            let reply = self.send_authorized(&call).await?;
            let redirected = matches!(reply.status(), 301 | 302 | 303 | 307 | 308);
            if !redirected || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok(reply);
            }
            let Some(location) = reply.header(LOCATION) else {
                return Err(reply.protocol("a redirect without a Location"));
            };
            call.url = self.follow(&call.url, location)?;
        }
        Err(Error::Protocol { request: call.name(), reason: format!("more than {MAX_REDIRECTS} redirects") })
    }

    async fn send_authorized(&self, call: &Call) -> Result<Reply, Error> {
        let reply = self.send_retrying(call).await?;
        if reply.status() != 401 || !self.is_home(call) {
            return Ok(reply);
        }
        self.challenged(call, reply).await?;
        let reply = self.send_retrying(call).await?;
        if reply.status() == 401 { Err(self.unauthorized(call, reply).await) } else { Ok(reply) }
    }

    pub(crate) async fn unauthorized(&self, call: &Call, reply: Reply) -> Error {
        let credential = self.credential(call).await.ok().flatten();
        auth::refused(reply, credential.as_ref()).await
    }

    pub(crate) async fn send_retrying(&self, call: &Call) -> Result<Reply, Error> {
        let mut backoff = Backoff::new(&self.options.retry);
        loop {
            let outcome = self.attempt(call, None).await;
            if call.once {
                return outcome;
            }
            let (asked, cause) = match &outcome {
                Ok(reply) if is_transient_status(reply.status()) => (
                    retry_after(reply.headers()),
                    format!("`{}` was refused with status {}", call.name(), reply.status()),
                ),
                Err(error) if error.is_transient() => (None, error.whole()),
                _ => return outcome,
            };
            match self.pause(&mut backoff, asked, &call.name(), &cause).await? {
                true => drop(outcome),
                false => return outcome,
            }
        }
    }

    /// Waits before the next attempt; `false` if there is none.
    pub(crate) async fn pause(
        &self,
        backoff: &mut Backoff<'_>,
        asked: Option<Duration>,
        request: &RequestName,
        cause: &str,
    ) -> Result<bool, Error> {
        match backoff.failed(asked) {
            Next::GiveUp => Ok(false),
            Next::TooLong(wait) => Err(Error::TryLater { request: request.clone(), wait }),
            Next::Wait(wait) => {
                let attempt = backoff.attempt();
                tracing::debug!(%request, attempt, ?wait, cause, "trying again");
                self.options.events.event(Event::Retrying { request, attempt, wait, cause });
                tokio::time::sleep(wait).await;
                Ok(true)
            }
        }
    }

    /// Sends a request once. A streamed body takes the place of the call's own.
    pub(crate) async fn attempt(
        &self,
        call: &Call,
        streamed: Option<(reqwest::Body, Arc<Flow>)>,
    ) -> Result<Reply, Error> {
        let client = self.clients.of(&call.url, &self.options)?;
        let mut request = client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        let mut shown = None;
        if self.is_home(call)
            && let Some(authorization) = self.authorization_unless_given(call).await?
        {
            shown = Some(authorization.clone());
            request = request.header(AUTHORIZATION, authorization);
        }
        let flow = match streamed {
            Some((body, flow)) => {
                request = request.header(reqwest::header::CONTENT_LENGTH, flow.length).body(body);
                flow
            }
            None => {
                let sends = !matches!(call.method, Method::GET | Method::HEAD);
                if sends {
                    request = request.header(reqwest::header::CONTENT_LENGTH, call.body.len()).body(call.body.clone());
                }
                let flow = Flow::new(call.body.len() as u64);
                flow.sent.store(flow.length, Ordering::Relaxed);
                flow
            }
        };
        let permit = self.permit(&call.registry).await;
        let name = call.name();
        let answered = self.watched(request.send(), &flow, &name).await?;
        let response =
            answered.map_err(|source| Error::Connection { request: name.clone(), source: source.without_url() })?;
        tracing::debug!(request = %name, status = response.status().as_u16(), "answered");
        let asked = call.registry.clone();
        Ok(Reply { response, request: name, asked, shown, stall: self.options.stall, _permit: permit })
    }

    async fn authorization_unless_given(&self, call: &Call) -> Result<Option<HeaderValue>, Error> {
        if call.headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        // A token is bought by another call, through this very function; boxing ends the recursion of types.
        Box::pin(self.authorization(call)).await
    }

    /// Whether a request goes to the registry itself. Nobody else is shown what the registry is shown, also not the
    /// same host on another port.
    pub(crate) fn is_home(&self, call: &Call) -> bool {
        call.to_registry && self.url(&call.registry, "/").is_ok_and(|home| home.origin() == call.url.origin())
    }

    /// Waits for an answer as long as something moves.
    async fn watched<T>(
        &self,
        answer: impl Future<Output = T>,
        flow: &Flow,
        request: &RequestName,
    ) -> Result<T, Error> {
        let stall = self.options.stall;
        let mut answer = std::pin::pin!(answer);
        let (mut seen, mut quiet) = (flow.sent.load(Ordering::Relaxed), 0);
        loop {
            if let Ok(answer) = tokio::time::timeout(stall, &mut answer).await {
                return Ok(answer);
            }
            let sent = flow.sent.load(Ordering::Relaxed);
            quiet = if sent == seen { quiet + 1 } else { 0 };
            seen = sent;
            let patience = if sent == flow.length && flow.length > 0 { PATIENCE_AFTER_BODY } else { 1 };
            if quiet >= patience {
                return Err(Error::Stalled { request: request.clone(), waited: stall * quiet });
            }
        }
    }

    async fn permit(&self, registry: &Registry) -> OwnedSemaphorePermit {
        let semaphore = {
            let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Semaphore::new(self.options.connections_per_host.max(1)));
            Arc::clone(permits.entry(registry.clone()).or_insert_with(fresh))
        };
        semaphore.acquire_owned().await.expect("this semaphore is never closed")
    }
}
