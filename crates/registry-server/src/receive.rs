//! A request's body on its way to the disk: the network is read here, hashing and writing happen on a thread of their
//! own, and no more than a few pieces are ever between the two.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;

use crate::api_error::ApiError;
use crate::router::Server;
use crate::uploads::Session;

/// The least that a body must bring in a second, on average: one that trickles would hold a place for ever.
const MIN_RATE: f64 = 256.0;
/// How many pieces may wait to be written.
const PIECES: usize = 8;

/// The limits of one body.
pub(crate) struct Limits {
    /// The most that the whole upload may have.
    pub(crate) upload: u64,
    /// Exactly how many bytes this body must have, if it said so.
    pub(crate) body: Option<u64>,
    /// How long nothing may come.
    pub(crate) idle: Duration,
}

/// Appends a body to an upload. What was received stays, even if the client goes away in the middle: then this future
/// is dropped, the writing thread sees the end of the pieces, and releases the session as far as it came.
pub(crate) async fn receive(
    server: &Server,
    body: Body,
    session: OwnedMutexGuard<Session>,
    limits: Limits,
) -> Result<OwnedMutexGuard<Session>, ApiError> {
    let start = session.size();
    let (pieces, received) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || write(session, received));
    let forwarded = forward(server, body, pieces, start, &limits).await;
    let (session, written) = writing.await.map_err(|error| ApiError::internal(&error))?;
    // When writing fails, forwarding stops too; the cause is the better answer.
    written.map_err(|error| ApiError::write(&error))?;
    forwarded?;
    Ok(session)
}

fn write(
    mut session: OwnedMutexGuard<Session>,
    mut received: mpsc::Receiver<Bytes>,
) -> (OwnedMutexGuard<Session>, std::io::Result<()>) {
    while let Some(piece) = received.blocking_recv() {
        let Some(writer) = session.writer_mut() else { break };
        if let Err(error) = writer.write_all(&piece) {
            // Nobody knows how much of the piece was written: the upload cannot go on.
            session.discard();
            return (session, Err(error));
        }
    }
    (session, Ok(()))
}

async fn forward(
    server: &Server,
    body: Body,
    pieces: mpsc::Sender<Bytes>,
    start: u64,
    limits: &Limits,
) -> Result<(), ApiError> {
    let mut stream = body.into_data_stream();
    let (mut count, started) = (0u64, Instant::now());
    loop {
        let next = tokio::time::timeout(limits.idle, stream.next()).await.map_err(|_| ApiError::body_idle())?;
        let Some(piece) = next else { break };
        let piece = piece.map_err(|error| ApiError::body(format!("the request's body broke off: {error}")))?;
        count += piece.len() as u64;
        let elapsed = started.elapsed();
        if elapsed > limits.idle && (count as f64) < elapsed.as_secs_f64() * MIN_RATE {
            return Err(ApiError::body_idle());
        }
        if start.saturating_add(count) > limits.upload {
            return Err(ApiError::too_large(limits.upload));
        }
        if limits.body.is_some_and(|expected| count > expected) {
            return Err(ApiError::size_invalid("the body is longer than its Content-Range"));
        }
        let length = piece.len() as u64;
        if !server.usage.take(length) {
            return Err(ApiError::no_room(server.usage.limit().unwrap_or_default()));
        }
        server.metrics.received.fetch_add(length, Ordering::Relaxed);
        if pieces.send(piece).await.is_err() {
            return Err(ApiError::upload_unknown());
        }
    }
    match limits.body {
        Some(expected) if count != expected => {
            Err(ApiError::size_invalid(format!("the body has {count} bytes, its Content-Range says {expected}")))
        }
        _ => Ok(()),
    }
}
