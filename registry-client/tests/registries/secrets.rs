//! What is never written down: passwords, tokens, signatures in addresses, not even at the most verbose level.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use axum::routing::any;
use registry_client::{Client, Credential, Credentials, CredentialsError, Options, Secret};
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use crate::bench::{blob, quick, remote};

thread_local! {
    /// Everything that was told on this thread.
    static TOLD: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Listener;

impl Visit for Listener {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        TOLD.with_borrow_mut(|told| write!(told, " {field}={value:?}").unwrap());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Self);
        TOLD.with_borrow_mut(|told| told.push('\n'));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Listener {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        TOLD.with_borrow_mut(|told| writeln!(told, "{} {}", record.target(), record.args()).unwrap());
    }

    fn flush(&self) {}
}

struct Known;

impl Credentials for Known {
    fn lookup(&self, _: &oci::Registry, _: Option<&oci::Repository>) -> Result<Option<Credential>, CredentialsError> {
        let password = Secret::new("pass-Word-9");
        Ok(Some(Credential::Password { username: "somebody".to_owned(), password, origin: "the test".to_owned() }))
    }
}

async fn listen(answer: impl Fn(&str, Option<&str>) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(any(move |request: Request| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let _ = axum::body::to_bytes(body, 1 << 20).await;
            let shown = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            answer(&format!("{} {}", parts.method, parts.uri), shown)
        }
    }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// On one thread, so that what others of these tests tell is not heard.
#[tokio::test]
async fn secrets_are_in_no_trace_at_the_most_verbose_level() {
    // Only one logger can be set in a process, and nobody else sets one.
    log::set_logger(&Listener).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let _heard = tracing::subscriber::set_default(Listener);
    // With a single listener, whether a place tells is decided on whichever thread comes there first, and by that
    // thread's listener: that of another test, which has none.
    let _second = tracing::Dispatch::new(Listener);
    let tokens = listen(|_, _| Response::new(Body::from(r#"{"token":"toKen-12345","expires_in":300}"#))).await;
    let store = listen(|_, _| Response::builder().status(201).body(Body::empty()).unwrap()).await;
    let registry = listen(move |request, shown| {
        let response = Response::builder();
        match (shown, request.starts_with("POST")) {
            (Some("Bearer toKen-12345"), true) => {
                response.status(202).header("location", format!("http://{store}/put?signature=siGnature-77"))
            }
            (Some("Bearer toKen-12345"), false) => response.status(404),
            _ => response.status(401).header("www-authenticate", format!("Bearer realm=\"http://{tokens}/token\"")),
        }
        .body(Body::empty())
        .unwrap()
    })
    .await;
    let client = Client::new(Options { credentials: Arc::new(Known), ..quick() }).unwrap();
    let (descriptor, source) = blob(b"content");
    client.push_blob(&remote(&registry, "a"), &descriptor, &source, None).await.unwrap();
    let error = client.pull_blob(&remote(&registry, "a"), &descriptor, Vec::new()).await.unwrap_err();
    let told = TOLD.with_borrow(|told| format!("{told}{error}{error:?}"));
    assert!(told.contains("answered") && told.lines().count() > 20, "nothing was heard: {told}");
    // The last is the name and the password as Basic encodes them.
    for secret in ["pass-Word-9", "toKen-12345", "siGnature-77", "c29tZWJvZHk6cGFzcy1Xb3JkLTk"] {
        let line = told.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
