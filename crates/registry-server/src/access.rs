//! What is known of a request when its answer has ended: for the log and for the figures.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::options::Access;
use crate::router::Server;

/// Where a connection comes from; an extension of its requests.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// One request, from its head to the end of its answer.
pub(crate) struct Trace {
    server: Arc<Server>,
    started: Instant,
    peer: Option<SocketAddr>,
    method: Method,
    path: String,
    agent: Option<String>,
    user: Option<String>,
    route: &'static str,
    status: u16,
    sent: u64,
    /// Whether the answer has not ended.
    broken: bool,
}

/// What stands for the status of an answer if the client went away before there was one; a custom of other servers.
const GONE: u16 = 499;

impl Trace {
    pub(crate) fn begin(server: &Arc<Server>, request: &Parts) -> Self {
        server.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        let agent = request.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            server: Arc::clone(server),
            started: Instant::now(),
            peer: request.extensions.get::<Peer>().map(|peer| peer.0),
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            agent: agent.map(str::to_owned),
            user: None,
            route: "other",
            status: GONE,
            sent: 0,
            broken: true,
        }
    }

    pub(crate) fn user(&mut self, user: String) {
        self.user = Some(user);
    }

    pub(crate) fn route(&mut self, route: &'static str) {
        self.route = route;
    }

    /// Goes on to the end of the answer's body.
    pub(crate) fn follow(mut self, response: Response) -> Response {
        self.status = response.status().as_u16();
        let length = response.headers().get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
        response.map(|inner| {
            // The body of an answer to HEAD is never asked for.
            self.broken = !inner.is_end_stream() && self.method != Method::HEAD;
            Body::new(Followed { inner, length, trace: self })
        })
    }
}

/// Said however the request ends: a client that goes away takes the work on its answer with it.
impl Drop for Trace {
    fn drop(&mut self) {
        let (metrics, duration) = (&self.server.metrics, self.started.elapsed());
        metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        metrics.sent.fetch_add(self.sent, Ordering::Relaxed);
        metrics.ended(known_method(&self.method), self.route, self.status, duration);
        let Some(log) = &self.server.options.log else { return };
        log.request(&Access {
            peer: self.peer,
            user: self.user.as_deref(),
            method: self.method.as_str(),
            path: &self.path,
            status: self.status,
            bytes: self.sent,
            duration,
            agent: self.agent.as_deref(),
            broken: self.broken,
        });
    }
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// A body that is counted while it is sent.
struct Followed {
    inner: Body,
    /// What the head of the answer promised.
    length: Option<u64>,
    trace: Trace,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.trace.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                // Whoever knows the length does not ask again after the last byte.
                let is_all = self.length.is_some_and(|length| self.trace.sent >= length);
                self.trace.broken = !(is_all || self.inner.is_end_stream());
            }
            Poll::Ready(None) => self.trace.broken = false,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
