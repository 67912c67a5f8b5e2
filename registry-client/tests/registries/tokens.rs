//! Debian's `docker-registry` with a token server of our own: tokens for the scopes that were asked for, signed with a
//! key that the registry knows, and so short-lived that pushes outlast them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use registry_client::{Client, Error};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bench::{blob, quick, remote};
use crate::debian::{one_user, start_with};
use crate::suite;

/// `user:secret`, as Basic encodes it.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

fn openssl(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let piped = command.args(arguments).current_dir(directory).stdin(Stdio::piped());
    let mut child = piped.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl; tests/run installs it");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

/// A JSON Web Token that allows these scopes.
fn token(directory: &Path, scopes: &[String]) -> String {
    let certificate = openssl(directory, &["x509", "-in", "cert.pem", "-outform", "DER"], b"");
    let access: Vec<Value> = scopes
        .iter()
        .filter_map(|scope| {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
        })
        .collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(certificate)]});
    // The tests know no time. The client believes `expires_in`; for the registry the token is good until the year 2100.
    let claims = json!({"iss": "the test", "sub": "user", "aud": "registry", "exp": 4_102_444_800_u64, "nbf": 0, "iat": 0,
        "jti": "1", "access": access});
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = openssl(directory, &["dgst", "-sha256", "-sign", "key.pem"], signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Sells tokens to the user, and notes the queries.
async fn sell(directory: PathBuf, queries: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(any(move |request: Request| {
        let (directory, queries) = (directory.clone(), Arc::clone(&queries));
        async move {
            if request.headers().get(AUTHORIZATION).is_none_or(|shown| shown != BASIC) {
                return Response::builder().status(401).body(Body::from("no such user")).unwrap();
            }
            let url = url::Url::parse(&format!("http://x{}", request.uri())).unwrap();
            queries.lock().unwrap().push(url.query().unwrap_or_default().to_owned());
            let scopes = url.query_pairs().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.into_owned());
            let scopes: Vec<String> = scopes.collect();
            let made = tokio::task::spawn_blocking(move || token(&directory, &scopes)).await.unwrap();
            Response::new(Body::from(json!({"token": made, "expires_in": 1}).to_string()))
        }
    }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_with_tokens_that_last_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"];
    openssl(directory.path(), &[&request[..], &["-subj", "/CN=test", "-days", "2"]].concat(), b"");
    let queries = Arc::new(Mutex::new(Vec::new()));
    let seller = sell(directory.path().to_owned(), Arc::clone(&queries)).await;
    let auth = format!(
        "auth: {{token: {{realm: 'http://{seller}/token', service: registry, issuer: the test, rootcertbundle: {}}}}}\n",
        directory.path().join("cert.pem").display()
    );
    let registry = start_with(&auth).await;
    suite::run(&registry.address, one_user(&registry.address, "secret")).await;
    let sold = queries.lock().unwrap().clone();
    let asked = |scope: &str| sold.iter().filter(|query| query.contains(scope)).count();
    assert!(
        asked("scope=repository%3Asuite%2Ffrom%3Apull&scope=repository%3Asuite%2Fto%3Apull%2Cpush") >= 1,
        "{sold:?}"
    );
    assert!(asked("scope=registry%3Acatalog%3A*") >= 1, "{sold:?}");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let before = queries.lock().unwrap().len();
    let client = Client::new(one_user(&registry.address, "secret")).unwrap();
    for _ in 0..2 {
        client.head_blob(&remote(&registry.address, "suite/to"), &blob(b"x").0).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1000)).await;
    }
    assert_eq!(queries.lock().unwrap().len(), before + 2, "each outlasted its token");
    for (options, credential) in [(quick(), "no credential"), (one_user(&registry.address, "wrong"), "user `user`")] {
        let client = Client::new(options).unwrap();
        let error = client.head_blob(&remote(&registry.address, "a"), &blob(b"x").0).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains(credential) && error.to_string().contains("no such user"), "{error}");
    }
}
