//! `serve`, `gc` and `verify` as people and other people's programs use them.

mod clients;
mod upkeep;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::family::{Bench, debs};
use crate::support::program::{Background, eventually, free_port, run, tool};

/// A registry of the binary's over a bench's layout.
pub struct Registry {
    pub port: u16,
    pub process: Background,
}

impl Registry {
    pub fn start(bench: &Bench, more: &[&str]) -> Self {
        Self::at(bench, free_port(), more)
    }

    /// What it says on standard error is in the file `serve.log` of the bench.
    pub fn at(bench: &Bench, port: u16, more: &[&str]) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(bench.at("serve.log")).unwrap();
        let mut command = bench.drystone();
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).args(more);
        let process = Background::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        eventually("serve listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        Self { port, process }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// A signal, and the exit code.
    pub fn end(mut self, signal: &str) -> Option<i32> {
        tool("kill", ["-s", signal, &self.process.0.id().to_string()]);
        self.process.0.wait().unwrap().code()
    }
}

/// A built family of three images, as `tests/build` has it.
pub fn built() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    bench
}

pub fn curl(arguments: &[&str]) -> String {
    run(Command::new("curl").args(["--silent", "--show-error"]).args(arguments)).success().stdout
}

#[test]
fn a_registry_that_is_killed_in_an_upload_goes_on_with_it_and_stops_gracefully_when_asked() {
    let bench = built();
    let registry = Registry::start(&bench, &["--access-log", "json"]);
    let headers = curl(&["--include", "--request", "POST", &registry.url("/v2/new/blobs/uploads/")]);
    let location = headers.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim().to_owned();
    let patch = ["--request", "PATCH", "--data-binary", "hello", "--header", "Content-Type: application/octet-stream"];
    curl(&[&patch[..], &[&registry.url(&location)]].concat());
    let port = registry.port;
    assert_eq!(registry.end("KILL"), None);
    let registry = Registry::at(&bench, port, &["--access-log", "json"]);
    let status = curl(&["--include", &registry.url(&location)]);
    assert!(status.contains("204") && status.contains("range: 0-4"), "{status}");
    let digest = content::Digest::of(b"hello");
    let url = format!("{}?digest={digest}", registry.url(&location));
    let code = ["--write-out", "%{http_code}", "--request", "PUT"];
    assert_eq!(curl(&[&code[..], &[&url]].concat()), "201");
    assert_eq!(curl(&[&registry.url(&format!("/v2/new/blobs/{digest}"))]), "hello");
    assert_eq!(registry.end("TERM"), Some(0));
    let log = fs::read_to_string(bench.at("serve.log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), 5, "{log}");
    assert_eq!((lines[1]["method"].as_str(), lines[1]["status"].as_u64()), (Some("PATCH"), Some(202)));
}

#[test]
fn with_users_and_a_certificate_skopeo_comes_in_with_the_right_password_only() {
    let bench = built();
    let file = bench.at("users");
    let (users, certificates) = (file.to_str().unwrap(), bench.at("certificates"));
    tool("htpasswd", ["-B", "-b", "-c", users, "ann", "correct horse"]);
    fs::create_dir(&certificates).unwrap();
    let (certificate, key) = (certificates.join("ca.crt"), bench.at("tls.key"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    let files = ["-out", certificate.to_str().unwrap(), "-keyout", key.to_str().unwrap()];
    tool("openssl", [&request[..], &names, &files].concat());
    let tls = ["--htpasswd", users, "--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let registry = Registry::start(&bench, &tls);
    let image = format!("docker://localhost:{}/app:v1", registry.port);
    let inspect = |credentials: &str| {
        let directory = format!("--cert-dir={}", certificates.display());
        run(Command::new("skopeo").args(["inspect", &directory, "--creds", credentials, &image]))
    };
    assert!(inspect("ann:correct horse").success().stdout.contains("\"tier\": \"front\""));
    inspect("ann:wrong").failure(1, &["unauthorized"]);
    // skopeo takes an authority's own certificate for a server's. We do not, and say what it is about.
    let host = format!("localhost:{}", registry.port);
    let ours = ["push", "--to", &host, "--secure-registry", &host, "--registry-ca", certificate.to_str().unwrap()];
    run(bench.drystone().args(ours)).failure(1, &["an authority's own certificate", "CA:FALSE"]);
    assert_eq!(registry.end("TERM"), Some(0));
    let log = fs::read_to_string(bench.at("serve.log")).unwrap();
    assert!(log.contains(" ann \"GET /v2/app/manifests/v1\" 200 "), "{log}");
    for secret in ["correct horse", "YW5uOmNvcnJlY3QgaG9yc2U="] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn what_cannot_be_served_is_said_with_what_to_do() {
    let bench = built();
    let serve = |more: &[&str]| run(bench.drystone().args(["serve", "--listen", "127.0.0.1:0"]).args(more));
    fs::write(bench.at("users"), "ann:secret\n").unwrap();
    let wrong = serve(&["--htpasswd", bench.at("users").to_str().unwrap()]);
    let wrong = wrong.failure(1, &["line 1: expected a hash by bcrypt", "htpasswd -B"]);
    assert!(!wrong.stderr.contains("secret"));
    serve(&["--htpasswd", "/absent"]).failure(1, &["/absent"]);
    serve(&["--tls-cert", "/absent"]).failure(2, &["--tls-key"]);
    serve(&["--tls-cert", "/absent", "--tls-key", "/absent"]).failure(1, &["/absent"]);
    serve(&["--max-total-size", "lots"]).failure(2, &["is not a size", "10GiB"]);
    serve(&["--max-manifest-size", "1G"]).failure(2, &["4MiB"]);
    serve(&["--upload-timeout", "soon"]).failure(2, &["is not a time"]);
}
