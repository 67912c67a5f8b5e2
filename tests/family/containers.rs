//! The images in containers: Docker pulls each from the embedded registry, and each service answers.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{IMAGES, family, must_be_free, port, reference};
use crate::support::docker::{Container, Docker};
use crate::support::program::{Background, eventually, opencontrail, run, tool};

/// What the services listen at, of this machine's own ports since the containers have its network.
const PORTS: &[u16] = &[3000, 4369, 5000, 5672, 6379, 8080, 11211, 25672];

/// How long a service may take until it answers.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn docker_pulls_every_image_from_up_and_every_service_answers() {
    family();
    let _port = port();
    must_be_free(PORTS);
    let docker = Docker::start();

    let mut up = serving();
    for image in IMAGES {
        docker.run(["pull", "--quiet", &reference(image)]).success();
    }
    assert_eq!(ended_by_interrupt(&mut up), Some(0));
    lists_the_same_images(&docker);

    let debian = docker.run(["run", "--rm", "--network", "none", &reference("debian"), "cat", "/etc/os-release"]);
    assert!(debian.success().stdout.contains("VERSION_CODENAME=bookworm"));

    let redis = service(&docker, "redis", &[]);
    let memcached = service(&docker, "memcached", &[]);
    let rabbitmq = service(&docker, "rabbitmq", &[]);
    let keystone = service(&docker, "keystone", &["--env", "ADMIN_PASSWORD=a secret & more"]);
    let job = service(&docker, "webui-job", &[]);
    let server = service(&docker, "webui-server", &[]);

    redis.answers(&["redis-cli", "ping"], "PONG");
    is_the_only_service(&redis, "redis-server");
    has_a_working_dpkg(&redis);
    memcached_answers(&memcached);
    is_the_only_service(&memcached, "memcached");
    for (container, name, port) in [(&job, "webui-job", 3000), (&server, "webui-server", 8080)] {
        let said: Value = serde_json::from_str(&get(container, &format!("http://127.0.0.1:{port}/"))).unwrap();
        assert_eq!(said["name"], format!("contrail-{name}"));
        is_the_only_service(container, "nodejs");
    }
    rabbitmq.answers(&["rabbitmqctl", "status"], "RabbitMQ version: 3.");
    is_the_only_service(&rabbitmq, "beam.smp");
    let version: Value = serde_json::from_str(&get(&keystone, "http://127.0.0.1:5000/v3")).unwrap();
    assert!(version["version"]["id"].as_str().unwrap().starts_with("v3."), "{version}");
    is_the_only_service(&keystone, "uwsgi_python311");
    the_administrator_logs_in("a secret & more");
}

/// `drystone up` without `--once`, once it serves.
fn serving() -> Background {
    let log = family().layout.with_extension("log");
    let written = File::create(&log).unwrap();
    let mut up = family().drystone("up");
    up.arg(opencontrail()).args(IMAGES).stdin(Stdio::null()).stdout(Stdio::null()).stderr(written);
    let up = Background::start(&mut up);
    eventually("`drystone up` serves", Duration::from_secs(60), || {
        let said = std::fs::read_to_string(&log).unwrap();
        if said.contains("until Ctrl-C") { Ok(()) } else { Err(said) }
    });
    up
}

fn ended_by_interrupt(up: &mut Background) -> Option<i32> {
    tool("kill", ["-INT", &up.0.id().to_string()]);
    eventually("`drystone up` ends after Ctrl-C", Duration::from_secs(5), || match up.0.try_wait().unwrap() {
        Some(status) => Ok(status.code()),
        None => Err("it goes on".to_owned()),
    })
}

/// Docker and `drystone images` know the same names and ids, all of them and by label.
fn lists_the_same_images(docker: &Docker) {
    for filter in [None, Some("label=net.juniper.contrail=webui"), Some("label=net.juniper.node")] {
        let filter: Vec<&str> = filter.into_iter().flat_map(|filter| ["--filter", filter]).collect();
        let format = ["--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
        let theirs = docker.run(["images"].iter().chain(&format).chain(&filter).copied()).success().stdout;
        let ours = run(family().drystone("images").args(format).args(&filter)).success().stdout;
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours), sorted(&theirs), "{filter:?}");
        assert!(!ours.is_empty(), "{filter:?}");
    }
}

fn service<'a>(docker: &'a Docker, image: &str, options: &[&str]) -> Container<'a> {
    docker.container(image, options, &reference(image), &[])
}

/// The first process is the service itself: no shell, and nothing else that signals would have to pass.
#[track_caller]
fn is_the_only_service(container: &Container<'_>, program: &str) {
    assert_eq!(container.exec(&["cat", "/proc/1/comm"]).success().stdout.trim(), program);
}

fn has_a_working_dpkg(container: &Container<'_>) {
    let audit = container.exec(&["dpkg", "--audit"]).success();
    assert_eq!((audit.stdout.as_str(), audit.stderr.as_str()), ("", ""), "dpkg --audit");
    let check = container.exec(&["apt-get", "check"]).success();
    assert_eq!(check.stderr, "", "apt-get check");
}

fn memcached_answers(container: &Container<'_>) {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", 11211))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"version\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok::<_, std::io::Error>(line)
    };
    eventually("memcached", PATIENCE, || match ask() {
        Ok(line) if line.starts_with("VERSION 1.") => Ok(()),
        other => Err(format!("{other:?}\n{}", container.logs())),
    });
}

/// What a page says, once it is there.
fn get(container: &Container<'_>, page: &str) -> String {
    eventually(page, PATIENCE, || {
        let asked = run(Command::new("curl").args(["--silent", "--show-error", "--fail", "--noproxy", "*", page]));
        if asked.code == Some(0) { Ok(asked.stdout) } else { Err(format!("{}\n{}", asked.stderr, container.logs())) }
    })
}

fn the_administrator_logs_in(password: &str) {
    let domain = json!({"id": "default"});
    let user = json!({"name": "admin", "domain": domain, "password": password});
    let scope = json!({"project": {"name": "admin", "domain": domain}});
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let body = json!({"auth": {"identity": identity, "scope": scope}}).to_string();
    let page = "http://127.0.0.1:5000/v3/auth/tokens";
    let head = ["--header", "Content-Type: application/json", "--data", &body, "--noproxy", "*"];
    let answer = tool("curl", ["--silent", "--show-error"].iter().chain(&head).chain(&[page]));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["token"]["user"]["name"], "admin", "{answer}");
    assert!(answer["token"]["catalog"].to_string().contains("http://localhost:5000/v3/"), "{answer}");
}
