//! Who may come in, and what is said of them: passwords, TLS, the access log, figures, the page.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci::{Descriptor, ImageConfig, Manifest, MediaType, Platform};
use registry_server::{Access, AccessLog, Htpasswd, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Answer, Bench, MANIFEST};

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// `user:secret` and `user:wrong`.
const RIGHT: (&str, &str) = ("authorization", "Basic dXNlcjpzZWNyZXQ=");
const WRONG: (&str, &str) = ("authorization", "Basic dXNlcjp3cm9uZw==");

#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl AccessLog for Lines {
    fn request(&self, access: &Access<'_>) {
        assert!(access.peer.is_some_and(|peer| peer.ip().is_loopback()));
        self.0.lock().unwrap().push(format!("{access:?}"));
    }
}

async fn bench_with_users() -> (Bench, Arc<Lines>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(HTPASSWD.as_bytes()).unwrap();
    let users = Arc::new(Htpasswd::open(file.path()).unwrap());
    let lines = Arc::new(Lines::default());
    let log = Arc::clone(&lines);
    let bench = Bench::with(|options| {
        options.users = Some(users);
        options.log = Some(log);
    });
    (bench.await, lines)
}

#[tokio::test]
async fn a_registry_with_users_lets_in_only_those_with_the_right_password() {
    let (bench, lines) = bench_with_users().await;
    for path in ["/v2/", "/v2/_catalog", "/", "/metrics", "/v2/a/manifests/t"] {
        for headers in [&[][..], &[WRONG], &[("authorization", "Bearer dXNlcjpzZWNyZXQ=")]] {
            let answer = bench.send("GET", path, headers, b"").await;
            assert_eq!(answer.refusal(), (401, "UNAUTHORIZED".to_owned()), "{path}");
            assert!(answer.header("www-authenticate").starts_with("Basic realm="));
        }
    }
    assert_eq!(bench.send("POST", "/v2/a/blobs/uploads/", &[WRONG], b"").await.status, 401);
    assert_eq!(bench.send("GET", "/v2/", &[RIGHT], b"").await.status, 200);
    assert_eq!(bench.send("POST", "/v2/a/blobs/uploads/", &[RIGHT], b"").await.status, 202);
    assert_eq!(bench.get("/healthz").await.body, b"ok\n");
    let metrics = bench.send("GET", "/metrics", &[RIGHT], b"").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("drystone_registry_refused_logins_total 11\n"), "{metrics}");
    let lines = lines.0.lock().unwrap().join("\n");
    assert!(lines.contains("user: Some(\"user\")"), "{lines}");
    for secret in ["secret", "dXNlcj", "wrong"] {
        assert!(!lines.contains(secret), "{lines}");
    }
}

#[tokio::test]
async fn every_request_is_one_line_with_the_bytes_that_were_sent() {
    let lines = Arc::new(Lines::default());
    let log = Arc::clone(&lines);
    let bench = Bench::with(|options| options.log = Some(log)).await;
    let digest = bench.push_blob("a", &[7; 1_000_000]).await;
    let path = format!("/v2/a/blobs/{digest}");
    bench.get(&format!("{path}?token=secret")).await;
    bench.send("HEAD", &path, &[], b"").await;
    bench.get("/nothing").await;
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].contains("method: \"POST\"") && lines[0].contains("status: 201"), "{}", lines[0]);
    assert!(lines[1].contains("status: 200, bytes: 1000000") && lines[1].contains("broken: false"), "{}", lines[1]);
    assert!(!lines[1].contains("token"), "{}", lines[1]);
    assert!(lines[2].contains("bytes: 0") && lines[2].contains("broken: false"), "{}", lines[2]);
    assert!(lines[3].contains("status: 404"), "{}", lines[3]);
}

#[tokio::test]
async fn figures_are_in_prometheus_form() {
    let bench = Bench::new().await;
    bench.push_image("a", "t", "content").await;
    bench.get("/v2/none/manifests/t").await;
    let answer = bench.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "drystone_registry_http_requests_total{method=\"PUT\",route=\"manifest\",code=\"201\"} 1",
        "drystone_registry_http_requests_total{method=\"GET\",route=\"manifest\",code=\"404\"} 1",
        "drystone_registry_repositories 1",
        "drystone_registry_tags 1",
        "drystone_registry_uploads 0",
        "drystone_registry_http_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_a_line_too() {
    let lines = Arc::new(Lines::default());
    let log = Arc::clone(&lines);
    let bench = Bench::with(|options| options.log = Some(log)).await;
    let started = bench.send("POST", "/v2/a/blobs/uploads/", &[], b"").await;
    let mut connection = tokio::net::TcpStream::connect(&bench.address).await.unwrap();
    let head = format!("PATCH {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhello", started.header("location"));
    connection.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(connection);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("method: \"PATCH\"") && lines[1].contains("status: 400"), "{}", lines[1]);
}

async fn push_labelled(bench: &Bench, name: &str, label: (&str, &str)) {
    let mut config = ImageConfig::new(&Platform::linux("amd64"), Vec::new());
    config.config.labels.insert(label.0.to_owned(), label.1.to_owned());
    let config = config.to_bytes();
    bench.push_blob(name, &config).await;
    let manifest = Manifest::new(Descriptor::of(MediaType::ImageConfig, &config), vec![]).to_bytes();
    assert_eq!(bench.put_manifest(name, "v1", MANIFEST, &manifest).await.status, 201);
}

#[tokio::test]
async fn the_page_lists_images_and_filters_them_and_runs_nothing_that_was_pushed() {
    let bench = Bench::new().await;
    push_labelled(&bench, "team/web", ("tier", "front")).await;
    push_labelled(&bench, "team/db", ("note", "<script>alert(1)</script>")).await;
    let page = |answer: Answer| {
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
        String::from_utf8(answer.body).unwrap()
    };
    let all = page(bench.get("/").await);
    assert!(all.contains("<td>team/web") && all.contains("<td>team/db") && all.contains("2 images"), "{all}");
    assert!(!all.contains("<script") && all.contains("&lt;script&gt;"), "{all}");
    let some = page(bench.get("/?q=tier%3Dfront").await);
    assert!(some.contains("<td>team/web") && !some.contains("<td>team/db"), "{some}");
    assert!(some.contains("1 of 2 images") && some.contains("value=\"tier=front\""), "{some}");
    let none = page(bench.get("/?q=%22%3E%3Cscript%3E").await);
    assert!(none.contains("0 of 2 images") && !none.contains("<script"), "{none}");
    assert_eq!(bench.send("POST", "/", &[], b"").await.status, 405);
}

#[tokio::test]
async fn over_tls_the_same_registry_answers_and_plain_http_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    make_certificate(&certificate, &key);
    assert!(Tls::read(&key, &key).is_err());
    assert!(Tls::read(&certificate, &certificate).is_err());
    let bench = Bench::over_tls(Tls::read(&certificate, &key).unwrap()).await;
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&certificate).unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", bench.port());
    let answer = Answer::of(client.get(url("/v2/")).send().await.unwrap()).await;
    assert_eq!(answer.status, 200);
    let blob = vec![7; 3 << 20];
    let digest = content::Digest::of(&blob);
    let path = url(&format!("/v2/a/blobs/uploads/?digest={digest}"));
    assert_eq!(Answer::of(client.post(path).body(blob.clone()).send().await.unwrap()).await.status, 201);
    let got = Answer::of(client.get(url(&format!("/v2/a/blobs/{digest}"))).send().await.unwrap()).await;
    assert_eq!(got.body, blob);
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://localhost:{}/v2/", bench.port())).send().await.is_err());
}

async fn raw(bench: &Bench, text: &[u8]) -> String {
    let mut connection = tokio::net::TcpStream::connect(&bench.address).await.unwrap();
    // A server that has heard enough closes, and the rest cannot be sent.
    let _ = connection.write_all(text).await;
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_that_mean_harm_are_refused() {
    let bench = Bench::new().await;
    let secret = bench.layout.root().parent().unwrap().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    for path in [
        "/v2/a/blobs/../../../secret",
        "/v2/a/blobs/%2e%2e%2f%2e%2e%2fsecret",
        "/v2/../secret/blobs/sha256:../../../secret",
        "/v2/a/blobs/uploads/..%2f..%2f..%2findex.json",
        "/v2/a/blobs/uploads/../../lock",
        "/v2/a/manifests/..%2fx",
        "//secret",
        "/%00",
    ] {
        let answer =
            raw(&bench, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
        assert!(!answer.contains("\r\n\r\nsecret"), "{path}: {answer}");
    }
    let huge = format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(2 << 20));
    assert!(raw(&bench, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..2000).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = raw(&bench, format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = raw(&bench, format!("GET /v2/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a/".repeat(100_000)).as_bytes()).await;
    assert!(long.starts_with("HTTP/1.1 414") || long.starts_with("HTTP/1.1 4"), "{long}");
    assert_eq!(bench.get("/v2/").await.status, 200, "and the server lives");
}

fn make_certificate(certificate: &Path, key: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .expect("openssl of the Debian package of that name; tests/run installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (certificate, key) = (at("cert.pem"), at("key.pem"));
    make_certificate(&certificate, &key);
    let first = std::fs::read(&certificate).unwrap();
    let bench = Bench::over_tls(Tls::read(&certificate, &key).unwrap()).await;
    let trusts = async |pem: &[u8]| {
        let authority = reqwest::Certificate::from_pem(pem).unwrap();
        // A new client each time: connections that are open keep what they were shown.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
        client.get(format!("https://localhost:{}/v2/", bench.port())).send().await.is_ok()
    };
    make_certificate(&at("new.pem"), &at("new-key.pem"));
    let second = std::fs::read(at("new.pem")).unwrap();
    assert!(trusts(&first).await && !trusts(&second).await);
    // Half of a renewal: the key does not fit yet, and what was shown before is shown on.
    std::fs::rename(at("new.pem"), &certificate).unwrap();
    assert!(trusts(&first).await);
    std::fs::rename(at("new-key.pem"), &key).unwrap();
    assert!(trusts(&second).await && !trusts(&first).await);
}
