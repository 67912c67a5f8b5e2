//! Every image that has a process, in a container: Docker pulls it from `drystone up`, it becomes its one process, and
//! that does its work as far as it can alone.
//!
//! The containers have no network but their own loopback interface, so that their ports are nobody else's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::labels::TABLES;
use super::services::{GROUPS, Probe, Service, VARIABLES};
use super::{BASES, names, whole};
use crate::family::{port, reference};
use crate::support::docker::Docker;
use crate::support::program::{Background, Finished, eventually, opencontrail, run};

/// How long a service may take until it answers, on a machine that does other things meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn docker_pulls_every_image_from_up_and_every_process_does_what_it_can() {
    the_table_has_every_image_that_has_a_process();
    let _port = port();
    let docker = Docker::start();
    let _up = serving();
    // These stay while the groups come and go: their layers are below all others.
    pull(&docker, "debian");
    pull(&docker, "openstackbase");
    for group in GROUPS {
        for service in *group {
            pull(&docker, service.image);
            let container = Running::start(&docker, service);
            for probe in service.probes {
                container.shows(probe);
            }
            container.is_its_process(service.process);
        }
        docker_finds_the_same_by_label(&docker, group);
        let images: Vec<String> = group.iter().map(|service| reference(service.image)).collect();
        docker.run(["rmi"].into_iter().chain(images.iter().map(String::as_str))).success();
    }
}

fn the_table_has_every_image_that_has_a_process() {
    let listed: BTreeSet<&str> = GROUPS.iter().flat_map(|group| group.iter().map(|service| service.image)).collect();
    let images = whole().images();
    let built: BTreeSet<&str> = images.keys().map(String::as_str).filter(|name| !BASES.contains(name)).collect();
    assert_eq!(listed, built);
}

/// `drystone up` of the whole family, once it serves. All of it is there already.
fn serving() -> Background {
    let log = whole().layout.with_extension("log");
    let written = File::create(&log).unwrap();
    let mut up = whole().drystone("up");
    up.arg(opencontrail()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(written);
    let up = Background::start(&mut up);
    eventually("`drystone up` serves", Duration::from_secs(120), || {
        let said = fs::read_to_string(&log).unwrap();
        if said.contains("until Ctrl-C") { Ok(()) } else { Err(said) }
    });
    up
}

fn pull(docker: &Docker, image: &str) {
    docker.run(["pull", "--quiet", &reference(image)]).success();
}

/// Of the images that Docker has now, its filters find those that ours do.
fn docker_finds_the_same_by_label(docker: &Docker, group: &[Service]) {
    for (filter, expected) in TABLES {
        let listed = docker.run(["images", "--format", "{{.Repository}}", "--filter", filter]).success();
        let mut present: Vec<&str> = group.iter().map(|service| service.image).collect();
        present.retain(|image| expected.contains(image));
        present.sort_unstable();
        assert_eq!(names(&listed.stdout), present, "{filter}");
    }
}

/// A running container. It is taken away when dropped.
struct Running<'a> {
    docker: &'a Docker,
    image: &'static str,
}

impl<'a> Running<'a> {
    fn start(docker: &'a Docker, service: &Service) -> Self {
        let variables = VARIABLES.iter().filter(|(name, _)| !service.variables.iter().any(|(own, _)| own == name));
        let variables: Vec<String> =
            variables.chain(service.variables).map(|(name, value)| format!("--env={name}={value}")).collect();
        let reference = reference(service.image);
        let fixed = ["run", "--detach", "--network", "none", "--name", service.image];
        let running = Self { docker, image: service.image };
        docker.run(fixed.into_iter().chain(variables.iter().map(String::as_str)).chain([reference.as_str()])).success();
        running
    }

    /// The first process is the service itself: no shell is left, and no init. Asked when the service answers, since
    /// until then the entry point may still be at work.
    #[track_caller]
    fn is_its_process(&self, (name, part): (&str, &str)) {
        let process = format!("/proc/{}", self.pid());
        let comm = fs::read_to_string(format!("{process}/comm")).unwrap();
        assert_eq!(comm.trim(), name, "{}", self.image);
        let command = fs::read(format!("{process}/cmdline")).unwrap();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(command.contains(part), "{}: `{command}` without `{part}`", self.image);
    }

    #[track_caller]
    fn shows(&self, probe: &Probe) {
        match probe {
            Probe::StandIn { name, ports, values } => self.is_stand_in(name, ports, values),
            Probe::Page(port, path, text) => {
                self.eventually(text, || self.get(*port, path));
            }
            Probe::Line(port, asked, text) => {
                self.eventually(text, || self.inside(&["python3", "-c", TALK, &port.to_string(), asked, text]));
            }
            Probe::Nameserver(text) => {
                self.eventually(text, || self.inside(&["python3", "-c", ASK_VERSION]));
            }
            Probe::Command(command, text) => {
                self.eventually(text, || self.exec(command));
            }
            Probe::Log(text) => {
                self.eventually(text, || self.logs());
            }
        }
    }

    #[track_caller]
    fn is_stand_in(&self, name: &str, ports: &[u16], values: &[super::services::Value]) {
        for port in ports {
            let said = self.eventually("\"stand_in\": true", || self.get(*port, ""));
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&said["name"], &said["port"]), (&name.into(), &(*port).into()), "{}", self.image);
            for (file, key, expected) in values {
                let found = value(&said["configuration"][file], key);
                assert_eq!(found, Some(*expected), "{}: {key} in {file}: {said}", self.image);
            }
        }
    }

    /// What a program said, as soon as that contains a text.
    #[track_caller]
    fn eventually(&self, text: &str, ask: impl Fn() -> Finished) -> String {
        eventually(&format!("{}: `{text}`", self.image), PATIENCE, || {
            let asked = ask();
            let said = asked.stdout + &asked.stderr;
            if asked.code == Some(0) && said.contains(text) {
                return Ok(said);
            }
            let log = self.logs();
            Err(format!("{}: {said}\n--- the container's log\n{}{}", asked.line, log.stdout, log.stderr))
        })
    }

    fn get(&self, port: u16, path: &str) -> Finished {
        let page = format!("http://127.0.0.1:{port}/{path}");
        self.inside(&["curl", "--silent", "--show-error", "--location", "--noproxy", "*", "--max-time", "5", &page])
    }

    /// Runs a program of this machine in the network of the container.
    fn inside(&self, command: &[&str]) -> Finished {
        run(Command::new("nsenter").args(["--net", "--target", &self.pid()]).args(command))
    }

    /// Runs a program of the container.
    fn exec(&self, command: &[&str]) -> Finished {
        self.docker.run(["exec", self.image].iter().chain(command).copied())
    }

    fn logs(&self) -> Finished {
        self.docker.run(["logs", self.image])
    }

    /// The first process, as this machine numbers it.
    #[track_caller]
    fn pid(&self) -> String {
        let inspected = self.docker.run(["inspect", "--format", "{{.State.Pid}}", self.image]).success();
        let pid = inspected.stdout.trim().to_owned();
        let ended = || {
            let log = self.logs();
            format!("{} has ended\n--- its log\n{}{}", self.image, log.stdout, log.stderr)
        };
        assert_ne!(pid, "0", "{}", ended());
        pid
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.docker.run(["rm", "--force", "--volumes", self.image]);
    }
}

/// A value by its key and the sections before that, or by a key that has dots of its own.
fn value<'a>(configuration: &'a Value, key: &str) -> Option<&'a str> {
    let whole = configuration.get(key).and_then(Value::as_str);
    whole.or_else(|| key.split('.').try_fold(configuration, |value, part| value.get(part))?.as_str())
}

/// Sends a text to a port, and prints the answer until it has another text.
const TALK: &str = "\
import socket, sys
port, asked, wanted = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode()
stream = socket.create_connection(('127.0.0.1', port), timeout=5)
stream.sendall(asked)
said = b''
while wanted not in said and (more := stream.recv(4096)):
    said += more
print(said.decode(errors='replace'))
";

/// Asks a name server for its version, which is a text in the class CHAOS, over UDP and over TCP.
const ASK_VERSION: &str = "\
import socket
question = bytes.fromhex('123401000001000000000000') + b'\\x07version\\x04bind\\x00' + bytes.fromhex('00100003')
over_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
over_udp.settimeout(5)
over_udp.sendto(question, ('127.0.0.1', 53))
first = over_udp.recv(512)
over_tcp = socket.create_connection(('127.0.0.1', 53), timeout=5)
over_tcp.sendall(len(question).to_bytes(2, 'big') + question)
second = over_tcp.recv(512)[2:]
assert first[:2] == second[:2] == question[:2] and first[2] & 0x80, (first, second)
assert first[12:] == second[12:], (first, second)
print(first.decode('latin-1'))
";
