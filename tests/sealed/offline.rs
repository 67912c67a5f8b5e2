//! `--offline`: no connection is opened, and what that makes impossible is said beforehand, all of it.

use std::fs;
use std::process::Command;

use fixtures::DebBuilder;
use fixtures::http::FileServer;

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::{Finished, repository, run};

/// A family that fetches an index, packages and a file, and runs a command.
fn bench() -> (Bench, FileServer) {
    let bench = Bench::with_family();
    let shell = DebBuilder::new("busybox", "1").file("usr/bin/busybox", 0o755, fs::read("/bin/busybox").unwrap());
    bench.archive(debs().into_iter().chain([shell.build()]), &[]);
    fs::write(bench.at("archive/data.txt"), "by address").unwrap();
    let server = bench.serve();
    let files = format!("files: [{{url: '{}/data.txt', target: /data.txt}}]\n", server.url());
    bench
        .spec("tools/image.yaml", &format!("from: base\npackages: [busybox]\n{files}run: [[busybox, touch, /made]]\n"));
    (bench, server)
}

/// `drystone` with a command for the family, where there is no network and the kernel kills whoever connects a socket.
fn cut_off(bench: &Bench, mirror: &str, command: &str, more: &[&str]) -> Finished {
    let mut program = Command::new("unshare");
    bench.surround(&mut program);
    program.args(["--net", "python3"]).arg(repository().join("tests/sealed/forbid.py"));
    program.args([env!("CARGO_BIN_EXE_drystone"), command, "family", "--offline", "--mirror", mirror]).args(more);
    run(&mut program)
}

#[test]
fn the_filter_kills_who_connects_a_socket() {
    let forbid = repository().join("tests/sealed/forbid.py");
    let forbidden = |script: &str| {
        let mut program = Command::new("python3");
        program.arg(&forbid).args(["python3", "-c", script]);
        run(&mut program).code
    };
    assert_eq!(forbidden("import socket; socket.socket().connect(('127.0.0.1', 1))"), None);
    assert_eq!(forbidden("import socket; socket.socket(socket.AF_UNIX).connect('/nowhere')"), None);
    assert_eq!(forbidden("import socket; socket.socketpair()"), Some(0));
}

#[test]
fn a_build_from_a_lock_and_a_cache_opens_no_socket() {
    let (bench, server) = bench();
    let mirror = server.url();
    bench.build_from(&mirror, &[]).success();
    let digests = bench.digests();
    drop(server);
    fs::remove_dir_all(bench.at("oci")).unwrap();
    cut_off(&bench, &mirror, "build", &["--locked"]).success();
    assert_eq!(bench.digests(), digests);
    cut_off(&bench, &mirror, "build", &["--locked", "--no-cache"]).success();
    assert_eq!(bench.digests(), digests);
    // A registry of this machine is asked what it has; any other is not.
    cut_off(&bench, &mirror, "plan", &["--locked", "--registry", "registry.example"]).success();
    // What is resolved anew is resolved with the indexes as they were kept.
    bench.spec("more/image.yaml", "from: base\npackages: [greeter]\n");
    let locked = cut_off(&bench, &mirror, "lock", &[]).success();
    assert_eq!(locked.stdout, "added image more\n");
    cut_off(&bench, &mirror, "lock", &["--update"]).success();
    cut_off(&bench, &mirror, "build", &["--locked"]).success();
}

#[test]
fn everything_that_is_missing_is_named_with_its_size_before_anything_is_built() {
    let (bench, server) = bench();
    let mirror = server.url();
    bench.build_from(&mirror, &[]).success();
    for path in ["oci", "cache"] {
        fs::remove_dir_all(bench.at(path)).unwrap();
    }
    let size = |name: &str| {
        let line =
            bench.lock_text().lines().find(|line| line.starts_with(&format!("package {name} "))).unwrap().to_owned();
        line.split(' ').nth(7).unwrap().to_owned()
    };
    let labels = [("hello", "1.0-1"), ("libhello", "1.2"), ("greeter", "2:3.0-1"), ("busybox", "1")];
    let mut expected: Vec<String> =
        labels.iter().map(|(name, version)| format!("\n  {name}={version} ({} bytes)", size(name))).collect();
    expected.push(format!("\n  {mirror}/data.txt (10 bytes)"));
    expected
        .extend(["--offline: the cache lacks 5 files, ".to_owned(), "hint: build once without --offline".to_owned()]);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    cut_off(&bench, &mirror, "build", &[]).failure(1, &expected);
    assert_eq!(bench.digests(), "");
    assert!(bench.cached("steps").is_empty());
    // Of what is not wanted, nothing is missing.
    let some = cut_off(&bench, &mirror, "build", &["base"]).failure(1, &["the cache lacks 2 files, "]);
    assert!(!some.stderr.contains("greeter"), "{}", some.stderr);
    // Without a lock, there is nothing to go by.
    fs::remove_file(bench.at("family/drystone.lock")).unwrap();
    cut_off(&bench, &mirror, "build", &[]).failure(1, &["InRelease is not in the cache", "hint: ", "--offline"]);
    drop(server);
}

#[test]
fn images_that_others_made_are_missing_like_everything_else() {
    let (bench, server) = bench();
    let mirror = server.url();
    bench.build_from(&mirror, &["--registry", "others.example"]).success();
    // On two of them others are built, by a spec and by a Dockerfile.
    let foreign = Bench::new();
    fs::rename(bench.at("oci"), foreign.at("oci")).unwrap();
    foreign.archive(debs(), &[]).spec("family.yaml", FAMILY);
    let files = format!("files: [{{url: '{mirror}/data.txt', target: /data.txt}}]\n");
    foreign.spec("on/image.yaml", &format!("from: others.example/base:v1\npackages: [greeter]\n{files}"));
    foreign.spec("above/image.yaml", "from: on\n");
    foreign.spec("docker/Dockerfile", "FROM others.example/app:v1\nLABEL docker=1\n");
    fs::copy(bench.at("archive/data.txt"), foreign.at("archive/data.txt")).unwrap();
    run(foreign.drystone().args(["build", "family", "--mirror", &mirror])).success();
    let lock = foreign.lock_text();
    let parent = |name: &str| {
        let line = lock.lines().find(|line| line.starts_with(&format!("parent {name} "))).expect("the lock has it");
        let size = line.split(' ').nth(4).expect("the lock has its size");
        format!("\n  {name} for linux/amd64 ({size} bytes)")
    };
    let (base, app) = (parent("others.example/base:v1"), parent("others.example/app:v1"));
    fs::remove_dir_all(foreign.at("oci")).unwrap();
    // The packages are kept; the steps that need them may be too, which only the base could tell.
    cut_off(&foreign, &mirror, "build", &["on"]).failure(1, &["the cache lacks 1 file, ", &base, "hint: "]);
    cut_off(&foreign, &mirror, "build", &["docker"]).failure(1, &["the cache lacks 1 file, ", &app, "hint: "]);
    let both = ["the cache lacks 2 files, ", &base, &app];
    cut_off(&foreign, &mirror, "build", &[]).failure(1, &both);
    fs::remove_dir_all(foreign.at("cache")).unwrap();
    let data = format!("\n  {mirror}/data.txt (10 bytes)");
    let everything = ["the cache lacks 3 files, ", &base, "\n  greeter=2:3.0-1 (", &data];
    cut_off(&foreign, &mirror, "build", &["above"]).failure(1, &everything);
    drop(server);
}

#[test]
fn a_registry_of_this_machine_may_be_spoken_to_and_no_other() {
    let (bench, server) = bench();
    let mirror = server.url();
    bench.build_from(&mirror, &[]).success();
    drop(server);
    let program = env!("CARGO_BIN_EXE_drystone");
    let script = "ip link set lo up; \"$0\" up family --offline --locked --once; \
                  \"$0\" serve --listen 127.0.0.1:5111 --layout other & sleep 1; \"$0\" push --offline --to localhost:5111; kill $!";
    let mut shell = Command::new("unshare");
    bench.surround(&mut shell);
    fs::create_dir(bench.at("other")).unwrap();
    let pushed = run(shell.args(["--net", "sh", "-ec", script, program])).success();
    assert!(pushed.stdout.contains("localhost:5111/worker:v1 sha256:"), "{}", pushed.stdout);
    let expected = ["--offline: registry.example is not on this machine", "hint: "];
    run(bench.drystone().args(["push", "--offline", "--to", "registry.example"])).failure(1, &expected);
    for flag in ["--cache-from", "--cache-to"] {
        let caching = ["build", "family", "--offline", "--mirror", &mirror, flag, "registry.example/cache:main"];
        run(bench.drystone().args(caching)).failure(1, &expected);
    }
    let far = FAMILY.replace("localhost:5100", "registry.example");
    bench.spec("family.yaml", &far);
    run(bench.drystone().args(["up", "family", "--offline", "--once", "--mirror", &mirror])).failure(1, &expected);
}
