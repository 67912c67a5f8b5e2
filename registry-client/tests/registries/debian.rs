//! The client against Debian's `docker-registry`. Skipped, aloud, where it is not installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use oci::{Registry, Repository};
use registry_client::{Client, Credential, Credentials, CredentialsError, Error, Options, Secret};

use crate::bench::{blob, quick, remote};
use crate::suite;

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

pub(crate) struct DockerRegistry {
    process: Child,
    pub(crate) address: String,
    _directory: tempfile::TempDir,
    _password: Option<tempfile::TempDir>,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(address: &str, data: &Path, more: &str) -> String {
    format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: \"{address}\"}}\n{more}",
        data.display()
    )
}

async fn start(authenticated: bool) -> DockerRegistry {
    let directory = tempfile::tempdir().unwrap();
    if !authenticated {
        return start_with("").await;
    }
    let file = directory.path().join("htpasswd");
    std::fs::write(&file, HTPASSWD).unwrap();
    let mut registry = start_with(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())).await;
    registry._password = Some(directory);
    registry
}

/// With these lines at the end of its configuration.
pub(crate) async fn start_with(more: &str) -> DockerRegistry {
    let directory = tempfile::tempdir().unwrap();
    // The port is free now, and nobody else is likely to take it before the registry does.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = free.to_string();
    let file = directory.path().join("config.yml");
    std::fs::write(&file, configuration(&address, &directory.path().join("data"), more)).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).env("OTEL_TRACES_EXPORTER", "none");
    let process = command.spawn().expect("docker-registry of the Debian package of that name; tests/run installs it");
    let registry = DockerRegistry { process, address, _directory: directory, _password: None };
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(&registry.address).await.is_ok() {
            return registry;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("docker-registry does not listen on {}", registry.address);
}

/// Options of somebody who is `user` to a registry, with this password.
pub(crate) fn one_user(address: &str, password: &'static str) -> Options {
    Options { credentials: Arc::new(One(address.parse().unwrap(), password)), ..quick() }
}

/// One user of one registry.
struct One(Registry, &'static str);

impl Credentials for One {
    fn lookup(&self, registry: &Registry, _: Option<&Repository>) -> Result<Option<Credential>, CredentialsError> {
        let credential = || Credential::Password {
            username: "user".to_owned(),
            password: Secret::new(self.1),
            origin: "the test".to_owned(),
        };
        Ok((*registry == self.0).then(credential))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_against_debians_docker_registry() {
    let registry = start(false).await;
    suite::run(&registry.address, quick()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_holds_when_blobs_go_in_pieces() {
    let registry = start(false).await;
    suite::run(&registry.address, Options { chunk_size: 1 << 20, ..quick() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_password_gets_in_and_nobody_else() {
    let registry = start(true).await;
    let with = |password| one_user(&registry.address, password);
    suite::run(&registry.address, with("secret")).await;
    let (descriptor, source) = blob(b"x");
    let to = remote(&registry.address, "a");
    for (options, credential) in [(quick(), "no credential"), (with("wrong"), "user `user` from the test")] {
        let client = Client::new(options).unwrap();
        let error = client.push_blob(&to, &descriptor, &source, None).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains(credential), "{error}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
}
