//! The images in registries: the embedded one, and Debian's `docker-registry`.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{IMAGES, REGISTRY, family, images, named};
use crate::support::program::{Background, drystone, eventually, free_port, opencontrail, run, tool};

#[test]
fn up_pushes_to_a_registry_that_already_listens_at_the_address() {
    family();
    let directory = tempfile::tempdir().unwrap();
    let other = DockerRegistry::start(directory.path());
    let layout = directory.path().join("layout");
    let mut up = drystone();
    up.arg("up").arg(opencontrail()).args(IMAGES).args(["--once", "--registry", &other.name, "--layout"]).arg(&layout);
    let up = run(&mut up).success();
    assert!(!up.stderr.contains("the embedded registry"), "{}", up.stderr);
    assert!(up.stdout.contains(&format!("{}/redis ", other.name)), "{}", up.stdout);
    // The registry's name is no part of an image.
    let expected = family().images();
    for (image, known) in images(&layout) {
        assert_eq!(known["digest"], expected[&image]["digest"], "{image}");
    }
    other.has_every_image();
}

#[test]
fn what_is_pushed_to_dockers_registry_comes_back_with_the_same_digests() {
    let directory = tempfile::tempdir().unwrap();
    family();
    let other = DockerRegistry::start(directory.path());
    run(family().drystone("push").args(["--to", &other.name])).success();
    other.has_every_image();
}

#[test]
fn a_read_only_registry_is_pulled_from_and_refuses_a_push() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let serve = ["--read-only", "--listen", &address, "--name", REGISTRY];
    let _server = background(family().drystone("serve").args(serve), &directory.path().join("log"), port);
    reads_every_image(&address, directory.path());
    let source = family().source("debian");
    let push = ["copy", "--dest-tls-verify=false", &source, &format!("docker://{address}/stranger:1")];
    run(Command::new("skopeo").args(push)).failure(1, &["read-only"]);
    assert!(!family().images().contains_key("stranger"));
}

/// Debian's `docker-registry`.
struct DockerRegistry {
    name: String,
    directory: tempfile::TempDir,
    _server: Background,
}

impl DockerRegistry {
    fn start(below: &Path) -> Self {
        let directory = tempfile::tempdir_in(below).unwrap();
        let port = free_port();
        let storage = directory.path().join("storage");
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 'localhost:{port}'}}\n",
            storage.display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        let server = background(command.arg("serve").arg(&config), &directory.path().join("log"), port);
        Self { name: format!("localhost:{port}"), directory, _server: server }
    }

    fn has_every_image(&self) {
        reads_every_image(&self.name, self.directory.path());
    }
}

/// Has skopeo copy every image from a registry, which checks each blob, and compares the digests with the layout's.
#[track_caller]
fn reads_every_image(registry: &str, scratch: &Path) {
    let listed = family().images();
    for image in IMAGES {
        let source = format!("docker://{}", named(registry, image));
        let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &source];
        assert_eq!(tool("skopeo", inspect).trim(), listed[image]["digest"], "{source}");
        let copy = format!("oci:{}:{image}", scratch.join("copies").display());
        tool("skopeo", ["copy", "--src-tls-verify=false", "--preserve-digests", &source, &copy]);
        let digest = tool("skopeo", ["inspect", "--format", "{{.Digest}}", &copy]);
        assert_eq!(digest.trim(), listed[image]["digest"], "{source}");
    }
}

/// Starts a server and waits until it listens.
fn background(command: &mut Command, log: &Path, port: u16) -> Background {
    let written = File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(written.try_clone().unwrap()).stderr(written);
    let mut server = Background::start(command);
    eventually(&format!("{command:?} listens"), Duration::from_secs(30), || {
        let said = || fs::read_to_string(log).unwrap_or_default();
        if let Some(status) = server.0.try_wait().unwrap() {
            panic!("{command:?} ended with {status}: {}", said());
        }
        TcpStream::connect(("localhost", port)).map_err(|error| format!("{error}: {}", said()))
    });
    server
}
