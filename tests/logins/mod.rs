//! Registries that want to know who comes: Debian's `docker-registry` with users, with TLS, and with certificates of
//! clients; logins as other tools keep them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::family::{Bench, debs};
use crate::support::program::{Background, Finished, eventually, free_port, run, tool};

/// `user` with the password `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
const PASSWORD: &str = "secret";

/// A helper that keeps a secret in the directory that it is in.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case "$1" in
store) cat >kept ;;
get) read -r server; grep -qs "\"$server\"" kept || { echo 'credentials not found in native keychain'; exit 1; }; cat kept ;;
erase) rm kept ;;
esac
"#;

/// A family in a layout, and a registry of Debian's.
struct World {
    bench: Bench,
    port: u16,
    _registry: Background,
}

impl World {
    /// With these lines at the end of the registry's configuration.
    fn with(bench: Bench, tls: &str, auth: &str) -> Self {
        bench.archive(debs(), &[]);
        bench.build(&[]).success();
        let port = free_port();
        let configuration = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{tls}}}\n{auth}",
            bench.at("registry").display()
        );
        fs::write(bench.at("registry.yml"), configuration).unwrap();
        let mut server = Command::new("docker-registry");
        server.arg("serve").arg(bench.at("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Background::start(&mut server);
        eventually("docker-registry listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        Self { bench, port, _registry: registry }
    }

    fn with_users() -> Self {
        let bench = Bench::with_family();
        fs::write(bench.at("htpasswd"), HTPASSWD).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", bench.at("htpasswd").display());
        Self::with(bench, "", &auth)
    }

    fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The binary, for somebody whose home is in the bench.
    fn drystone(&self, command: &str) -> Command {
        let mut drystone = self.bench.drystone();
        drystone.env("HOME", self.bench.at("home")).env_remove("XDG_RUNTIME_DIR").env_remove("DOCKER_CONFIG");
        drystone.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_CONFIG_HOME").arg(command);
        drystone
    }

    fn push(&self, more: &[&str]) -> Finished {
        run(self.drystone("push").args(["--to", &self.registry()]).args(more))
    }

    /// Logs in with a password on standard input.
    fn login(&self, password: &str, more: &[&str]) -> Finished {
        let file = self.bench.at("password");
        fs::write(&file, format!("{password}\n")).unwrap();
        let mut login = self.drystone("login");
        login.args([&self.registry(), "--username", "user", "--password-stdin"]).args(more);
        let output = login.stdin(fs::File::open(file).unwrap()).output().unwrap();
        Finished {
            line: format!("{login:?}"),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn config(&self) -> PathBuf {
        self.bench.at("home/.docker/config.json")
    }
}

#[test]
fn a_login_is_kept_when_the_registry_accepts_it_and_used_until_the_logout() {
    let world = World::with_users();
    let stranger = world.push(&[]);
    stranger.failure(1, &["was not authorized, with no credential", "drystone login 127.0.0.1:"]);

    world.login("wrong", &[]).failure(1, &["with user `user` from this command", "UNAUTHORIZED"]);
    assert!(!world.config().exists(), "what the registry refuses is not kept");

    let kept = world.login(PASSWORD, &[]).success();
    assert!(kept.stderr.contains("logged in to") && kept.stderr.contains("config.json"), "{}", kept.stderr);
    assert_eq!(fs::metadata(world.config()).unwrap().permissions().mode() & 0o777, 0o600);
    let (file, registry) = (world.config(), world.registry());
    let skopeo = ["login", "--get-login", "--authfile", file.to_str().unwrap(), &registry];
    assert_eq!(tool("skopeo", skopeo).trim(), "user", "others find it too");

    let pushed = world.push(&["-v"]).success();
    assert!(pushed.stderr.contains("pushed 3 images"), "{}", pushed.stderr);
    for said in [kept.stderr, pushed.stderr, pushed.stdout] {
        assert!(!said.contains(PASSWORD) && !said.contains("dXNlcjpzZWNyZXQ"), "{said}");
    }

    let out = run(world.drystone("logout").arg(world.registry())).success();
    assert!(out.stderr.contains("logged out of"), "{}", out.stderr);
    run(world.drystone("logout").arg(world.registry())).success();
    fs::remove_dir_all(world.bench.at("registry")).unwrap();
    world.push(&[]).failure(1, &["with no credential"]);
}

#[test]
fn logins_of_other_tools_are_found() {
    let world = World::with_users();
    let file = world.bench.at("auth.json");
    let arguments = ["login", "--tls-verify=false", "-u", "user", "-p", PASSWORD, "--authfile"];
    tool("skopeo", arguments.iter().copied().chain([file.to_str().unwrap(), &world.registry()]));
    world.push(&["--authfile", file.to_str().unwrap()]).success();
}

#[test]
fn a_credential_helper_keeps_the_password_and_the_file_does_not() {
    let world = World::with_users();
    let helpers = world.bench.at("helpers");
    fs::create_dir_all(&helpers).unwrap();
    fs::create_dir_all(world.config().parent().unwrap()).unwrap();
    fs::write(world.config(), r#"{"credsStore": "test"}"#).unwrap();
    let helper = helpers.join("docker-credential-test");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());

    let mut login = world.drystone("login");
    login.args([&world.registry(), "-u", "user", "--password-stdin"]).env("PATH", &path);
    fs::write(world.bench.at("password"), PASSWORD).unwrap();
    let output = login.stdin(fs::File::open(world.bench.at("password")).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("kept in `docker-credential-test`"), "{said}");
    assert!(fs::read_to_string(helpers.join("kept")).unwrap().contains(PASSWORD));
    assert_eq!(fs::read_to_string(world.config()).unwrap(), r#"{"credsStore": "test"}"#);

    run(world.drystone("push").args(["--to", &world.registry()]).env("PATH", &path)).success();
    run(world.drystone("logout").arg(world.registry()).env("PATH", &path)).success();
    assert!(!helpers.join("kept").exists());
    world.push(&[]).failure(1, &["the credential helper `docker-credential-test` is not installed"]);
}

#[test]
fn a_password_is_asked_for_at_a_terminal_and_not_shown() {
    let world = World::with_users();
    let script = "import pty, os, signal, sys\n\
         signal.alarm(60)\n\
         answers = [(b'Username: ', b'user\\n'), (b'Password: ', b'sekret\\x7f\\x7f\\x7f\\x7f\\x7fecret\\n')]\n\
         pid, terminal = pty.fork()\n\
         if pid == 0:\n    os.execvp(sys.argv[1], sys.argv[1:])\n\
         said = b''\n\
         while True:\n    \
             try:\n        more = os.read(terminal, 1024)\n    except OSError:\n        break\n    \
             if not more:\n        break\n    \
             said += more\n    \
             if answers and said.endswith(answers[0][0]):\n        os.write(terminal, answers.pop(0)[1])\n\
         print(said.decode())\n\
         sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let login = world.drystone("login");
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(login.get_program()).args(login.get_args()).arg(world.registry());
    for (name, value) in login.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    let asked = run(&mut python).success();
    assert!(asked.stdout.contains("logged in to") && !asked.stdout.contains("ecret"), "{}", asked.stdout);
    world.push(&[]).success();
}

#[test]
fn without_a_terminal_a_login_says_how_to_give_the_password() {
    let world = World::with_users();
    run(world.drystone("login").args([&world.registry(), "-u", "user"])).failure(2, &["--password-stdin"]);
    run(world.drystone("login").args([&world.registry(), "--password-stdin"])).failure(2, &["needs --username"]);
    world.login("", &[]).failure(2, &["the password is empty"]);
}

/// An authority, and certificates that it signed for the server and for a client.
fn certificates(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let openssl = |arguments: &str| {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(directory)).success();
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    fs::write(directory.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    fs::write(directory.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let bench = Bench::with_family();
    let at = |name: &str| bench.at("certificates").join(name).display().to_string();
    certificates(&bench.at("certificates"));
    let (ca, certificate, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let tls = format!(", tls: {{certificate: {}, key: {}, clientcas: [{ca}]}}", at("server.pem"), at("server.key"));
    let world = World::with(bench, &tls, "");
    let secure = ["--secure-registry", &world.registry()];
    let push = |more: &[&str]| world.push(&[&secure, more].concat());
    push(&[]).failure(1, &["got no answer", "--registry-ca FILE"]);
    push(&["--registry-ca", &ca]).failure(1, &["got no answer"]);
    push(&["--registry-ca", &key]).failure(2, &["client.key` has no certificate"]);
    let lonely = ["--registry-ca", &ca, "--registry-cert", &certificate];
    push(&lonely).failure(1, &["certificate and its key cannot be used", "--registry-key"]);
    push(&["--registry-ca", "missing.pem"]).failure(2, &["`missing.pem` cannot be used"]);
    let trusted = ["--registry-ca", &ca, "--registry-cert", &certificate, "--registry-key", &key];
    push(&trusted).success();
    let (image, elsewhere) =
        (format!("{}/app:v1", world.registry()), world.bench.at("elsewhere").display().to_string());
    let copy = format!("{}/copies/app:v1", world.registry());
    for arguments in
        [&["pull", &image, "--layout", &elsewhere][..], &["copy", &image, &copy], &["tags", &image[..image.len() - 3]]]
    {
        let here = |more: &[&str]| run(world.drystone(arguments[0]).args(&arguments[1..]).args(secure).args(more));
        here(&[]).failure(1, &["got no answer"]);
        here(&trusted).success();
    }
}
