//! Tokens: bought where the registry says, with the right scopes, shown to the registry and to nobody else.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use axum::routing::any;
use oci::{Registry, Repository};
use registry_client::{Client, Credential, Credentials, CredentialsError, Error, Options, Secret};
use tokio::net::TcpListener;

use crate::bench::{blob, digest, quick, remote};

/// What strangers saw: `METHOD uri authorization body`.
type Seen = Arc<Mutex<Vec<String>>>;

async fn listen(seen: Seen, answer: impl Fn(&str, Option<&str>) -> Response + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(any(move |request: Request| {
        let (seen, answer) = (Arc::clone(&seen), answer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let shown = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let line = format!("{} {} {shown:?} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
            seen.lock().unwrap().push(line);
            answer(&parts.uri.to_string(), shown.as_deref())
        }
    }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn status(status: u16) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn challenge(realm: &str) -> Response {
    let value = format!("Bearer realm=\"http://{realm}/token\",service=\"the registry\"");
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you","detail":{}}]}"#;
    Response::builder().status(401).header("www-authenticate", value).body(Body::from(body)).unwrap()
}

struct Known(Credential);

impl Credentials for Known {
    fn lookup(&self, _: &Registry, _: Option<&Repository>) -> Result<Option<Credential>, CredentialsError> {
        Ok(Some(self.0.clone()))
    }
}

fn password() -> Options {
    let credential = Credential::Password {
        username: "user".to_owned(),
        password: Secret::new("hunter2"),
        origin: "the test".to_owned(),
    };
    Options { credentials: Arc::new(Known(credential)), ..quick() }
}

const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bought_once_for_its_scope_and_shown_with_every_request() {
    let seen = Seen::default();
    let sold = Seen::default();
    let tokens =
        listen(Arc::clone(&sold), |_, _| Response::new(Body::from(r#"{"token":"T0KEN","expires_in":300}"#))).await;
    let registry = listen(Arc::clone(&seen), move |_, shown| match shown {
        Some("Bearer T0KEN") => status(200),
        _ => challenge(&tokens),
    })
    .await;
    let client = Client::new(password()).unwrap();
    let (descriptor, _) = blob(b"");
    for _ in 0..3 {
        assert!(client.head_blob(&remote(&registry, "team/app"), &descriptor).await.unwrap());
    }
    assert_eq!(seen.lock().unwrap().len(), 4, "one stranger's request, then only known ones");
    let sold = sold.lock().unwrap();
    assert_eq!(sold.len(), 1, "{sold:?}");
    let expected = "GET /token?service=the+registry&scope=repository%3Ateam%2Fapp%3Apull";
    assert!(sold[0].starts_with(expected) && sold[0].contains(BASIC), "{sold:?}");
    assert!(!seen.lock().unwrap().iter().any(|line| line.contains("Basic")), "the registry gets no password");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_asks_for_both_repositories_and_a_push_for_both_actions() {
    let seen = Seen::default();
    let sold = Seen::default();
    let tokens = listen(Arc::clone(&sold), |_, _| Response::new(Body::from(r#"{"access_token":"T"}"#))).await;
    let registry = listen(Arc::clone(&seen), move |_, shown| match shown {
        Some("Bearer T") => status(201),
        _ => challenge(&tokens),
    })
    .await;
    let (descriptor, source) = blob(b"x");
    let from: Repository = "other".parse().unwrap();
    let client = Client::new(quick()).unwrap();
    client.push_blob(&remote(&registry, "a"), &descriptor, &source, Some(&from)).await.unwrap();
    let sold = sold.lock().unwrap();
    assert!(sold[0].contains("scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Aother%3Apull"), "{sold:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_buys_tokens_by_post() {
    let sold = Seen::default();
    let tokens = listen(Arc::clone(&sold), |_, _| Response::new(Body::from(r#"{"access_token":"T"}"#))).await;
    let registry = listen(Seen::default(), move |_, shown| match shown {
        Some("Bearer T") => status(200),
        _ => challenge(&tokens),
    })
    .await;
    let credential = Credential::IdentityToken { token: Secret::new("id&token"), origin: "the test".to_owned() };
    let client = Client::new(Options { credentials: Arc::new(Known(credential)), ..quick() }).unwrap();
    client.head_blob(&remote(&registry, "a"), &blob(b"").0).await.unwrap();
    let sold = sold.lock().unwrap();
    assert!(sold[0].starts_with("POST /token None "), "{sold:?}");
    assert!(sold[0].contains("grant_type=refresh_token&refresh_token=id%26token"), "{sold:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_is_bought_again() {
    let count = Arc::new(Mutex::new(0));
    let tokens = listen(Seen::default(), move |_, _| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Response::new(Body::from(format!(r#"{{"token":"T{count}","expires_in":3600}}"#)))
    })
    .await;
    let valid = Arc::new(Mutex::new("Bearer T1"));
    let accepted = Arc::clone(&valid);
    let registry = listen(Seen::default(), move |_, shown| {
        if shown == Some(*accepted.lock().unwrap()) { status(200) } else { challenge(&tokens) }
    })
    .await;
    let client = Client::new(quick()).unwrap();
    let there = async || client.head_blob(&remote(&registry, "a"), &blob(b"").0).await;
    there().await.unwrap();
    *valid.lock().unwrap() = "Bearer T2";
    there().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let elsewhere = Seen::default();
    let store = listen(Arc::clone(&elsewhere), |_, _| Response::new(Body::from("content"))).await;
    let registry = listen(Seen::default(), move |_, shown| match shown {
        Some(BASIC) => Response::builder()
            .status(307)
            .header("location", format!("http://{store}/bucket?signature=s3cret"))
            .body(Body::empty())
            .unwrap(),
        _ => Response::builder().status(401).header("www-authenticate", "Basic realm=x").body(Body::empty()).unwrap(),
    })
    .await;
    let client = Client::new(password()).unwrap();
    let pulled = client.pull_blob(&remote(&registry, "a"), &blob(b"content").0, Vec::new()).await.unwrap();
    assert_eq!(pulled, b"content");
    assert_eq!(*elsewhere.lock().unwrap(), ["GET /bucket?signature=s3cret None "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_elsewhere_carries_no_credentials_and_no_way_leads_off_to_files() {
    let elsewhere = Seen::default();
    let store = listen(Arc::clone(&elsewhere), |_, _| status(201)).await;
    let target = Arc::new(Mutex::new(format!("http://{store}/put?x=1")));
    let location = Arc::clone(&target);
    let registry = listen(Seen::default(), move |uri, shown| match (uri.contains("uploads"), shown) {
        (_, None) => {
            Response::builder().status(401).header("www-authenticate", "Basic realm=x").body(Body::empty()).unwrap()
        }
        (true, _) => Response::builder()
            .status(202)
            .header("location", location.lock().unwrap().as_str())
            .body(Body::empty())
            .unwrap(),
        (false, _) => status(404),
    })
    .await;
    let client = Client::new(password()).unwrap();
    let (descriptor, source) = blob(b"content");
    client.push_blob(&remote(&registry, "a"), &descriptor, &source, None).await.unwrap();
    let expected = format!("PUT /put?x=1&digest=sha256%3A{} None content", digest(b"content").hex());
    assert_eq!(*elsewhere.lock().unwrap(), [expected]);
    for location in ["file:///etc/passwd", "ftp://x/", "http://"] {
        *target.lock().unwrap() = location.to_owned();
        let error = client.push_blob(&remote(&registry, "a"), &descriptor, &source, None).await.unwrap_err();
        assert!(matches!(error, Error::Address { .. }), "{location}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_is_told_who_he_was_and_what_the_registry_said() {
    let tokens = listen(Seen::default(), |_, _| {
        let body = r#"{"errors":[{"code":"DENIED","message":"wrong password"}]}"#;
        Response::builder().status(401).body(Body::from(body)).unwrap()
    })
    .await;
    let registry = listen(Seen::default(), move |_, _| challenge(&tokens)).await;
    let client = Client::new(password()).unwrap();
    let error = client.head_blob(&remote(&registry, "a"), &blob(b"").0).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("user `user` from the test") && text.contains("DENIED: wrong password"), "{text}");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_over_few_connections_share_one_token() {
    let sold = Seen::default();
    let tokens = listen(Arc::clone(&sold), |_, _| Response::new(Body::from(r#"{"token":"T","expires_in":300}"#))).await;
    let registry = listen(Seen::default(), move |_, shown| match shown {
        Some("Bearer T") => status(200),
        _ => challenge(&tokens),
    })
    .await;
    let client = Client::new(Options { connections_per_host: 2, ..password() }).unwrap();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (client, remote) = (client.clone(), remote(&registry, "a"));
        running.spawn(async move { client.head_blob(&remote, &blob(b"").0).await });
    }
    let all = async {
        while let Some(done) = running.join_next().await {
            assert!(done.unwrap().unwrap());
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("nobody waits for somebody who waits");
    assert_eq!(sold.lock().unwrap().len(), 1);
}
