//! Listening: who may connect, for how long, and how it ends with good manners.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service;

use crate::Tls;
use crate::access::Peer;
use crate::patient::Patient;

/// How long requests in progress may go on after the server was asked to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How many connections there may be at once; further ones wait.
const CONNECTIONS: usize = 1024;
/// How long a client may take for the head of a request, and for the beginning of TLS. A connection that rests between
/// two requests may do so for as long.
const HEAD: Duration = Duration::from_secs(30);
/// The largest head of a request over HTTP/2, in bytes: more than any token, less than what would fill memory.
const MAX_HEAD: u32 = 64 << 10;
/// The same over HTTP/1, where it is also how much of an answer waits to be written.
const MAX_BUFFER: usize = 512 << 10;
/// How many requests there may be at once over one connection of HTTP/2.
const STREAMS: u32 = 100;
/// How long a client may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait when the system has no more files.
const OUT_OF_FILES: Duration = Duration::from_millis(200);

/// Serves until `shutdown` is ready; requests in progress then have ten seconds to end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    listen(listener, None, router, shutdown).await
}

/// The same over TLS.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Tls,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    listen(listener, Some(tls), router, shutdown).await
}

async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = Box::pin(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
                tokio::spawn(async move {
                    Connection { peer, router, watcher }.accept(stream, tls).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                // If the error was of one connection, another will do. If of all, they may get better.
                if !is_of_one(&error) {
                    tokio::time::sleep(OUT_OF_FILES).await;
                }
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
}

impl Connection {
    async fn accept(self, stream: TcpStream, tls: Option<Tls>) {
        // Small answers must not wait for the acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let stream = Patient::new(stream, PATIENCE);
        let Some(tls) = tls else { return self.talk(stream).await };
        // The files may have changed, and a disk makes us wait.
        let Ok(tls) = tokio::task::spawn_blocking(move || tls.current()).await else { return };
        match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.talk(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer, "no TLS"),
            Err(_) => tracing::debug!(peer = %self.peer, "no TLS in time"),
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (peer, router) = (self.peer, self.router);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            router.clone().call(request.map(Body::new))
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_BUFFER);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(MAX_HEAD).max_concurrent_streams(STREAMS);
        builder.http2().keep_alive_interval(HEAD).keep_alive_timeout(HEAD);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection.into_owned()).await {
            tracing::debug!(%error, %peer, "a connection broke");
        }
    }
}
