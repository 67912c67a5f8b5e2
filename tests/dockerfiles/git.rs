//! Git repositories, as sources of `ADD` and as contexts, from a server on this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::flags::{context, steps};
use super::with_base;
use crate::support::family::Bench;
use crate::support::program::{Background, eventually, free_port, run};

/// A server with the repository `app.git`, which has a working copy to write commits in.
struct Server {
    address: String,
    work: PathBuf,
    _serving: Background,
}

impl Server {
    fn start(bench: &Bench) -> Self {
        let (work, served) = (bench.at("work"), bench.at("served"));
        fs::create_dir_all(work.join("sub")).unwrap();
        fs::create_dir_all(&served).unwrap();
        let port = free_port();
        let mut daemon = Command::new("git");
        daemon.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", "--informative-errors"]);
        daemon.arg(format!("--port={port}")).arg(format!("--base-path={}", served.display())).arg(&served);
        let serving = Background(daemon.stderr(Stdio::null()).spawn().expect("tests/run installs git"));
        let server = Self { address: format!("git://127.0.0.1:{port}/app.git"), work, _serving: serving };
        server.git(&["init", "--quiet", "--initial-branch=main"]);
        fs::write(server.work.join("program"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(server.work.join("program"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(server.work.join("sub/inner"), "inner\n").unwrap();
        fs::write(server.work.join("sub/Dockerfile"), "FROM base\nCOPY inner /inner\nRUN test ! -e /.git\n").unwrap();
        symlink("file", server.work.join("link")).unwrap();
        symlink("/etc", server.work.join("outside")).unwrap();
        server.commit("one");
        server.git(&["tag", "-a", "-m", "first", "v1"]);
        run(Command::new("git").args(["clone", "--quiet", "--bare"]).arg(&server.work).arg(served.join("app.git")))
            .success();
        server.git(&["remote", "add", "served", served.join("app.git").to_str().unwrap()]);
        eventually("the server listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        server
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@git.example"]).args(arguments).current_dir(&self.work);
        run(&mut git).success().stdout.trim().to_owned()
    }

    /// Commits a new content of `file`. Gives the commit's id.
    fn commit(&self, content: &str) -> String {
        fs::write(self.work.join("file"), format!("{content}\n")).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", content]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn publish(&self) {
        self.git(&["push", "--quiet", "served", "main", "--tags"]);
    }
}

#[test]
fn repositories_are_added_by_their_commit_and_are_the_same_bytes_each_time() {
    let bench = with_base();
    let server = Server::start(&bench);
    server.commit("two");
    server.publish();
    let dockerfile = format!(
        "FROM base\n\
         ADD {0}#v1 /v1/\n\
         ADD --keep-git-dir=true {0}?tag=v1 /kept/\n\
         ADD --chown=7:8 {0}#main:sub /sub/\n\
         ADD {0} /new\n\
         RUN test \"$(cat /v1/file /v1/link)\" = \"$(printf 'one\\none')\" && test \"$(cat /new/file)\" = two\n\
         RUN test \"$(stat -c %a /v1/program /v1/file | tr '\\n' ' ')\" = '755 644 '\n\
         RUN test \"$(stat -c %u:%g /sub/inner)\" = 7:8 && test ! -e /v1/.git && test ! -e /sub/.git\n\
         RUN test -f /kept/.git/HEAD && test ! -e /kept/.git/hooks && test ! -e /kept/.git/FETCH_HEAD\n",
        server.address
    );
    context(&bench, &[("Dockerfile", &dockerfile)]);
    let cached = |more: &[&str]| steps(&bench, more).iter().map(|step| step.1).collect::<Vec<_>>();
    assert_eq!(cached(&[])[..4], [false; 4]);
    let first = bench.digests();
    assert!(cached(&[]).into_iter().all(|is_cached| is_cached), "a commit is known, and not fetched again");
    assert_eq!(cached(&["--no-cache"])[..4], [false; 4]);
    assert_eq!(bench.digests(), first, "and gives the same bytes if it is");
    server.commit("two again");
    server.publish();
    assert_eq!(cached_until_failure(&bench), [true, true, true], "a branch that has moved is another input");
}

/// The steps that were taken from the cache of a build whose check of the content then fails.
fn cached_until_failure(bench: &Bench) -> Vec<bool> {
    let built = run(bench.drystone().args(["build", "-t", "test", "--progress", "plain", "-v", "context"]));
    assert_eq!(built.code, Some(1), "{}", built.stderr);
    built.stderr.lines().filter(|line| line.contains("ADD ") && line.contains("(cached)")).map(|_| true).collect()
}

#[test]
fn what_cannot_be_had_of_a_repository_is_said_where_it_is_asked_for() {
    let bench = with_base();
    let server = Server::start(&bench);
    let id = server.git(&["rev-parse", "HEAD"]);
    let address = &server.address;
    let wrong_end = format!("{address}?ref=main&branch=main");
    let cases = [
        (format!("ADD {address}#absent /"), vec!["no branch or tag `absent`", "Dockerfile:2:5"]),
        (format!("ADD --checksum=0000000 {address}#v1 /"), vec!["is the commit", "should be 0000000"]),
        (format!("ADD --checksum=sha256:00 {address} /"), vec!["not the id of a commit", "Dockerfile:2:16"]),
        (format!("ADD {wrong_end} /"), vec!["two references"]),
        (format!("ADD {address}#--upload-pack=touch /"), vec!["cannot be a branch"]),
        (format!("ADD {address}#main:absent /"), vec!["is not there"]),
        (format!("ADD {address}#main:outside/passwd /"), vec!["leads out"]),
        (format!("ADD {} /", address.replace("app.git", "none.git")), vec!["git cannot read", "Dockerfile:2:5"]),
    ];
    for (line, expected) in cases {
        context(&bench, &[("Dockerfile", &format!("FROM base\n{line}\n"))]);
        let built = run(bench.drystone().args(["build", "-t", "test", "context"]));
        assert!(built.code != Some(0), "{line}");
        for text in expected {
            assert!(built.stderr.contains(text), "{line}: {}", built.stderr);
        }
    }
    let good = format!("FROM base\nADD --checksum={} {address}#main /\nADD {address}#{id} /again/\n", &id[..10]);
    context(&bench, &[("Dockerfile", &good)]);
    run(bench.drystone().args(["build", "-t", "test", "context"])).success();
    run(bench.drystone().args(["build", "-t", "test", "--offline", "context"])).failure(2, &["--offline"]);
    let without = run(bench.drystone().args(["build", "-t", "test", "context"]).env("PATH", bench.at("")));
    assert!(without.stderr.contains("program `git`"), "{}", without.stderr);
}

#[test]
fn git_runs_nothing_that_the_user_has_configured() {
    let bench = with_base();
    let server = Server::start(&bench);
    let (home, marker) = (bench.at("home-of-git"), bench.at("ran"));
    fs::create_dir_all(home.join("hooks")).unwrap();
    let hook = home.join("hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let configuration = format!(
        "[core]\n\thooksPath = {0}\n\tfsmonitor = {1}\n[url \"/nowhere\"]\n\tinsteadOf = git://127.0.0.1\n",
        home.join("hooks").display(),
        hook.display()
    );
    fs::write(home.join(".gitconfig"), configuration).unwrap();
    context(&bench, &[("Dockerfile", &format!("FROM base\nADD {} /app/\n", server.address))]);
    let mut build = bench.drystone();
    build.args(["build", "-t", "test", "context"]).env("HOME", &home).env("GIT_DIR", bench.at("nowhere"));
    run(&mut build).success();
    assert!(!marker.exists());
}

#[test]
fn a_context_may_be_a_directory_of_a_repository() {
    let bench = with_base();
    let server = Server::start(&bench);
    let address = &server.address;
    run(bench.drystone().args(["build", "-t", "one", &format!("{address}#main:sub")])).success();
    run(bench.drystone().args(["build", "-t", "two", "-f", "sub/Dockerfile", address])).failure(2, &["`inner`"]);
    let executor = ["executor", "--no-push", "--context-sub-path", "sub", "--destination", "localhost/three"];
    run(bench.drystone().args(executor).args(["--context", &format!("{address}#v1")])).failure(1, &["git cannot read"]);
    run(bench.drystone().args(["build", "-t", "x", &format!("{address}#main:absent")])).failure(1, &["absent"]);
    run(bench.drystone().args(["build", "-t", "x", &format!("{address}#main:outside")])).failure(1, &["outside"]);
    symlink("/etc/passwd", server.work.join("Dockerfile")).unwrap();
    server.commit("hostile");
    server.publish();
    let built = run(bench.drystone().args(["build", "-t", "x", address]));
    assert!(built.code != Some(0) && !built.stderr.contains("root:x:"), "{}", built.stderr);
}
