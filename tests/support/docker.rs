//! Docker itself as a judge: a daemon of the test's own, with nothing shared with one of the machine's.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::program::{Background, Finished, eventually, run};

/// A daemon, stopped and forgotten when dropped.
pub struct Docker {
    directory: tempfile::TempDir,
    daemon: Background,
}

impl Docker {
    /// Starts a daemon. Needs root and Debian's `docker.io`.
    pub fn start() -> Self {
        assert!(rustix_is_root(), "Docker as a judge needs root: run tests/run as root");
        let directory = tempfile::Builder::new().prefix("drystone-docker").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let log = std::fs::File::create(at("log")).unwrap();
        // Ended with this thread, should the whole process of the tests be killed.
        let daemon = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd", "--data-root"])
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("-p")
            .arg(at("pid"))
            .arg("-H")
            .arg(format!("unix://{}", at("socket").display()))
            .args(["--bridge=none", "--iptables=false", "--storage-driver=overlay2"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd of Debian's docker.io; tests/run installs it");
        let docker = Self { directory, daemon: Background(daemon) };
        eventually("dockerd answers", Duration::from_secs(60), || {
            let asked = docker.run(["version"]);
            let log = || std::fs::read_to_string(docker.at("log")).unwrap_or_default();
            if asked.code == Some(0) { Ok(()) } else { Err(format!("{}\n{}", asked.stderr, log())) }
        });
        docker
    }

    /// Takes away what is still mounted below the directory, which could not be removed otherwise: dockerd keeps the
    /// network namespace of the host there.
    fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let left: Vec<&str> = points.filter(|point| PathBuf::from(point).starts_with(self.directory.path())).collect();
        for point in left.into_iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(point).status();
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command for this daemon.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.at("socket").display())).args(arguments);
        command
    }

    /// Runs a command for this daemon.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        run(&mut self.command(arguments))
    }

    /// Starts a container on the host's network; it ends with the returned guard.
    pub fn container(&self, name: &str, options: &[&str], image: &str, arguments: &[&str]) -> Container<'_> {
        let fixed = ["run", "--detach", "--network", "host", "--name", name];
        let all = fixed.iter().chain(options).chain([&image]).chain(arguments).copied();
        self.run(all).success();
        Container { docker: self, name: name.to_owned() }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // dockerd ends its containers and mounts when it is asked to, and leaves them when it is killed.
        let pid = self.daemon.0.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        for _ in 0..100 {
            if matches!(self.daemon.0.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.unmount();
    }
}

/// A running container.
pub struct Container<'a> {
    docker: &'a Docker,
    name: String,
}

impl Container<'_> {
    /// Runs a command in the container.
    pub fn exec(&self, arguments: &[&str]) -> Finished {
        let fixed = ["exec", &self.name];
        self.docker.run(fixed.iter().chain(arguments).copied())
    }

    /// What it printed so far.
    pub fn logs(&self) -> String {
        let logs = self.docker.run(["logs", &self.name]);
        logs.stdout + &logs.stderr
    }

    /// Asks until a command in the container prints this text.
    #[track_caller]
    pub fn answers(&self, arguments: &[&str], expected: &str) {
        eventually(&format!("{}: {arguments:?}", self.name), Duration::from_secs(90), || {
            let asked = self.exec(arguments);
            let said = format!("{}{}", asked.stdout, asked.stderr);
            if asked.code == Some(0) && said.contains(expected) {
                return Ok(());
            }
            Err(format!("{said}\n--- the container's log\n{}", self.logs()))
        });
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.docker.run(["rm", "--force", "--volumes", &self.name]);
    }
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}
