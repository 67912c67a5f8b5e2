//! Running the binary and other programs, with errors that say what was run and what it printed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the builder is a directory of the repository").to_path_buf()
}

/// The family of the repository: a copy for this process, so that no lock of an earlier day is in it, and the one that
/// these tests make is in nobody's way.
pub fn opencontrail() -> PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = |id: &str| format!("specs-{id}");
        for left in std::fs::read_dir(kept).into_iter().flatten().flatten() {
            let id = left.file_name().to_string_lossy().strip_prefix(&name("")).map(str::to_owned);
            if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                let _ = std::fs::remove_dir_all(left.path());
            }
        }
        let copy = kept.join(name(&std::process::id().to_string()));
        tool("cp", ["-r".as_ref(), repository().join("specs").as_os_str(), copy.as_os_str()]);
        let _ = std::fs::remove_file(copy.join("opencontrail/drystone.lock"));
        copy
    });
    copy.join("opencontrail")
}

/// The binary, with a cache that tests keep between runs so that packages are fetched once.
pub fn drystone() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
    command.env("DRYSTONE_CACHE_DIR", shared_cache()).env_remove("SOURCE_DATE_EPOCH").env_remove("DRYSTONE_LAYOUT");
    command
}

/// What of this process's environment says how a mirror is reached, with its values.
pub fn mirror_variables() -> Vec<(&'static str, String)> {
    let names = ["DRYSTONE_MIRROR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];
    names.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?))).collect()
}

/// Where tests keep downloads between runs.
pub fn shared_cache() -> PathBuf {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    caches.unwrap_or_else(std::env::temp_dir).join("drystone-tests")
}

/// What a program printed, and whether it succeeded.
pub struct Finished {
    pub line: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Panics with everything the program printed unless it succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.stdout, self.stderr);
        self
    }

    /// Panics unless the exit code is this one and all texts are in what it printed on standard error.
    #[track_caller]
    pub fn failure(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "{}: no `{text}` in\n{}", self.line, self.stderr);
        }
        self
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output: Output = output.unwrap_or_else(|error| panic!("{line}: {error}; tests/run installs what tests need"));
    finished(line, output)
}

/// Runs a command to its end, and says how much memory that one process had at most, in KiB.
#[track_caller]
pub fn run_measured(command: &mut Command) -> (Finished, u64) {
    let line = format!("{command:?}");
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let output = std::thread::spawn(|| child.wait_with_output());
    let mut peak = 0;
    while !output.is_finished() {
        // The kernel keeps the maximum; it is gone with the process, so it is read until then.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let most = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(most.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    (finished(line, output.join().expect("waiting does not panic").unwrap()), peak)
}

fn finished(line: String, output: Output) -> Finished {
    Finished {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs another program that must succeed, and gives what it printed.
#[track_caller]
pub fn tool<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    run(Command::new(program).args(arguments)).success().stdout
}

/// Asks again and again until there is an answer; panics with the last reason after the time is up.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(reason) if started.elapsed() > within => panic!("{what}: not within {within:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A child that is killed when the test is over, however it ends.
pub struct Background(pub std::process::Child);

impl Background {
    /// Starts a command.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs what tests need")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts Debian's registry, which keeps what it has in `directory`. Returns its name.
pub fn docker_registry(directory: &Path) -> (String, Background) {
    let port = free_port();
    let configuration = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
        directory.join("registry").display()
    );
    std::fs::write(directory.join("registry.yml"), configuration).unwrap();
    let mut server = Command::new("docker-registry");
    server.arg("serve").arg(directory.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Background::start(&mut server);
    eventually("docker-registry listens", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
    });
    (format!("127.0.0.1:{port}"), process)
}
