//! The rung `none`: what needs no commands is built, the same bytes as elsewhere; what needs some is refused before
//! anything is done, at its line.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use fixtures::DebBuilder;

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::{Finished, run, tool};

/// A family that needs no commands, over a layer whose modes, owners and device a plain user could not make.
fn files_only() -> Bench {
    let bench = Bench::new();
    bench
        .archive(debs(), &[])
        .spec("family.yaml", FAMILY)
        .spec(
            "base/image.yaml",
            "from: scratch\npackages: [hello]\nfiles:\n  - {source: tree.tar, target: /, unpack: true}\n",
        )
        .spec("base/passwd", "app:x:500:501::/:/bin/sh\n")
        .spec(
            "app/image.yaml",
            "from: base\npackages: [greeter]\nfiles:\n  - {content: found, target: /way/there, owner: app}\n",
        )
        .spec("worker/image.yaml", "from: app\ncmd: [work]\n");
    let make_tree = "set -e; mkdir -p tree/closed/below tree/etc; cp family/base/passwd tree/etc/passwd; \
                     ln -s closed tree/way; echo x > tree/closed/below/read-only; echo s > tree/closed/setuid; \
                     mknod tree/closed/null c 1 3; chmod 0444 tree/closed/null tree/closed/below/read-only; \
                     chmod 4511 tree/closed/setuid; chmod 0555 tree/closed tree/closed/below; \
                     tar --mtime=@1000000000 --owner=77 --group=78 --sort=name -cf family/base/tree.tar -C tree .";
    run(Command::new("sh").args(["-c", make_tree]).current_dir(bench.at(""))).success();
    bench
}

/// A family with a command, in an image that has nothing but a shell.
fn with_command() -> Bench {
    let bench = Bench::new();
    bench
        .spec("family.yaml", FAMILY)
        .spec("shell/image.yaml", "from: scratch\nfiles:\n  - {source: sh, target: /bin/, mode: \"0755\"}\n")
        .spec("web/image.yaml", "from: shell\nenv: {A: b}\nrun:\n  - echo made > /made\n")
        .spec("worker/image.yaml", "from: web\ncmd: [work]\nrun:\n  - echo more > /more\n");
    std::fs::copy("/bin/busybox", bench.at("family/shell/sh")).unwrap();
    bench
}

/// The program as a user who may do nothing but read and write that user's own files.
fn as_plain_user(bench: &Bench, arguments: &[&str]) -> Finished {
    assert_eq!(std::fs::metadata("/proc/self").unwrap().uid(), 0, "run tests/run as root");
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(bench.at(""))).success();
    let binary = bench.at("drystone");
    std::fs::copy(env!("CARGO_BIN_EXE_drystone"), &binary).unwrap();
    let mut command = Command::new("setpriv");
    bench.surround(&mut command);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(binary).args(arguments);
    run(&mut command)
}

/// The program where no sandbox works: in a user namespace with one id that has no namespaces left to give, and
/// without capabilities in it.
fn where_nothing_works(bench: &Bench, arguments: &str) -> Finished {
    let script =
        format!("echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \"$0\" {arguments}");
    let mut command = Command::new("unshare");
    bench.surround(&mut command);
    run(command.args(["--user", "--map-root-user", "sh", "-c", &script, env!("CARGO_BIN_EXE_drystone")]))
}

#[test]
fn what_needs_no_commands_is_the_same_without_a_sandbox_for_root_and_for_a_plain_user() {
    let usual = files_only();
    let built = usual.build(&["--sandbox", "root"]).success();
    assert!(built.stderr.starts_with("sandbox root: asked for"), "{}", built.stderr);
    let listing = usual.listing("app");
    for expected in ["cr--r--r-- 77/78", "-r-s--x--x 77/78", "dr-xr-xr-x 77/78", "500/501"] {
        assert!(listing.contains(expected), "no `{expected}` in\n{listing}");
    }

    let root = files_only();
    let built = root.build(&["--sandbox", "none"]).success();
    assert!(built.stderr.starts_with("sandbox none: asked for"), "{}", built.stderr);
    assert_eq!(root.digests(), usual.digests(), "root without a sandbox");
    root.is_whole();

    let plain = files_only();
    as_plain_user(&plain, &["build", "family", "--sandbox", "none"]).success();
    assert_eq!(plain.digests(), usual.digests(), "a plain user without a sandbox");
    plain.is_whole();
}

#[test]
fn where_no_sandbox_works_the_first_line_says_why_and_files_are_built_all_the_same() {
    let usual = files_only();
    usual.build(&[]).success();
    let bench = files_only();
    let built = where_nothing_works(&bench, "build family").success();
    let first = built.stderr.lines().next().unwrap_or_default();
    for expected in ["none: nothing can be run; root: ", "userns-single: the sysctl user.max_user_namespaces is 0"] {
        assert!(first.contains(expected), "no `{expected}` in {first}");
    }
    assert_eq!(bench.digests(), usual.digests());
}

#[test]
fn a_command_is_refused_at_its_line_before_anything_is_built() {
    let bench = with_command();
    let expected = [
        "web: `RUN echo made > /made` cannot be run",
        "family/web/image.yaml:4:5",
        "the sandbox `none` was asked for",
        "leave `--sandbox none` away",
    ];
    let failed = bench.build(&["--sandbox", "none"]).failure(1, &expected);
    assert!(!failed.stderr.contains("worker"), "only the first step of a line of images: {}", failed.stderr);
    assert!(bench.cached("layers").is_empty() && bench.digests().is_empty(), "something was done");

    let expected = [
        "web: `RUN echo made > /made` cannot be run",
        "family/web/image.yaml:4:5",
        "no sandbox is possible here: root: ",
        "for `root`: ",
        "for `userns-single`: as root: sysctl -w user.max_user_namespaces=",
    ];
    where_nothing_works(&bench, "build family").failure(1, &expected);
    assert!(bench.cached("layers").is_empty() && bench.digests().is_empty(), "something was done");
    where_nothing_works(&bench, "build family shell").success();
    where_nothing_works(&bench, "build family --keep-going").failure(1, &["web/image.yaml:4:5", "worker"]);
}

#[test]
fn packages_whose_scripts_must_run_are_refused_where_they_are_asked_for() {
    let bench = Bench::with_image("hello, dpkg");
    let dpkg = DebBuilder::new("dpkg", "1.21").file("usr/bin/dpkg", 0o755, "#!/bin/sh\n").build();
    bench.archive(debs().into_iter().chain([dpkg]), &[]);
    let expected = ["hello: the scripts of 3 packages cannot be run", "family/hello/image.yaml:2:12", "asked for"];
    bench.build(&["--sandbox", "none"]).failure(1, &expected);
    assert!(bench.cached("debs").is_empty() && bench.cached("layers").is_empty(), "something was fetched or built");
}

#[test]
fn a_command_whose_result_is_kept_need_not_be_run() {
    let bench = with_command();
    bench.build(&[]).success();
    let digests = bench.digests();
    std::fs::remove_dir_all(bench.at("oci")).unwrap();
    bench.build(&["--sandbox", "none"]).success();
    assert_eq!(bench.digests(), digests);
    bench.build(&["--sandbox", "none", "--no-cache"]).failure(1, &["web/image.yaml:4:5"]);

    // A child that is only files can be added; a new command cannot.
    bench.spec("child/image.yaml", "from: worker\nfiles:\n  - {content: x, target: /made}\n");
    bench.build(&["--sandbox", "none"]).success();
    bench.spec("child/image.yaml", "from: worker\nfiles:\n  - {content: x, target: /made}\nrun:\n  - cat /made\n");
    bench.build(&["--sandbox", "none"]).failure(1, &["child: `RUN cat /made` cannot be run", "child/image.yaml:5:5"]);
    assert!(tool("cat", [bench.at("oci/index.json")]).contains("child"), "what was there stays");
}
