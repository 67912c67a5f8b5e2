//! What is wrong with a Dockerfile or its context is said at its line, and nothing outside of the context is read.

use std::fs;
use std::os::unix::fs::symlink;

use fixtures::TarEntry;

use super::with_base;
use crate::support::family::Bench;
use crate::support::program::{Finished, run};

/// Builds a Dockerfile in a context of its own.
fn build(bench: &Bench, dockerfile: &str, more: &[&str]) -> Finished {
    fs::create_dir_all(bench.at("context")).unwrap();
    fs::write(bench.at("context/Dockerfile"), dockerfile).unwrap();
    run(bench.drystone().args(["build", "-t", "test", "context"]).args(more))
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let bench = with_base();
    fs::create_dir_all(bench.at("context")).unwrap();
    fs::write(bench.at("context/.dockerignore"), "hidden\n").unwrap();
    fs::write(bench.at("context/hidden"), "x").unwrap();
    fs::write(bench.at("context/file"), "x").unwrap();
    fs::write(bench.at("secret"), "x").unwrap();
    symlink("../secret", bench.at("context/up")).unwrap();
    symlink("/etc/passwd", bench.at("context/absolute")).unwrap();
    let cases = [
        ("FROM base\nRUNN x\n", 2, vec!["Dockerfile:2:1", "RUNN"]),
        ("FROM base\nCOPY --frm=x a /b\n", 2, vec!["Dockerfile:2:", "--frm"]),
        ("FROM base\nCOPY missing /\n", 2, vec!["Dockerfile:2:6", "`missing` is not there", "file"]),
        ("FROM base\nCOPY hidden /\n", 2, vec!["Dockerfile:2:6", "`hidden` is not there", ".dockerignore"]),
        ("FROM base\nCOPY up /\n", 2, vec!["Dockerfile:2:6", "`up` is not there"]),
        ("FROM base\nCOPY absolute /\n", 2, vec!["Dockerfile:2:6", "`absolute` is not there"]),
        ("FROM base\nCOPY ../secret /\n", 2, vec!["Dockerfile:2:6", "is not there"]),
        ("FROM base\nCOPY *.none /\n", 2, vec!["Dockerfile:2:6", "nothing fits"]),
        ("FROM base\nCOPY file hidden /both\n", 2, vec!["Dockerfile:2:"]),
        ("FROM base\nCOPY --chown=nobody file /\n", 2, vec!["Dockerfile:2:", "nobody"]),
        ("FROM base\nCOPY --chmod=999 file /\n", 2, vec!["Dockerfile:2:", "`999` is not a mode"]),
        ("FROM base\nUSER nobody\nRUN true\n", 2, vec!["Dockerfile:", "nobody"]),
        ("FROM base\nUSER nobody\n", 2, vec!["Dockerfile:2:6", "nobody"]),
        ("FROM base\nCOPY --from=absent file /\n", 1, vec!["Dockerfile:2:13", "absent"]),
        (
            "FROM later\nFROM base AS later\nCOPY --from=0 x /\n",
            2,
            vec!["Dockerfile:1:6", "`later` stands further down"],
        ),
        ("FROM base AS me\nCOPY --from=me x /\n", 2, vec!["Dockerfile:2:1", "from itself"]),
        ("FROM registry.invalid/none:1\n", 1, vec!["Dockerfile:1:6", "registry.invalid/none:1"]),
        ("ARG name\nFROM ${name}\n", 2, vec!["Dockerfile:2:6", "empty"]),
        ("FROM base\nRUN <<EOF\necho\n", 2, vec!["Dockerfile:2:", "EOF"]),
        ("FROM base\nEXPOSE web\n", 2, vec!["Dockerfile:2:8", "`web` is not a port"]),
        ("FROM base\nSTOPSIGNAL SIGNOT\n", 2, vec!["Dockerfile:2:", "SIGNOT"]),
        ("FROM base\nENV A=${A?must be given}\n", 2, vec!["Dockerfile:2:", "must be given"]),
        (
            "FROM base\nRUN --mount=type=secret,id=token,required=true true\n",
            2,
            vec!["Dockerfile:2:", "`token`", "--secret"],
        ),
        ("FROM base\nRUN --mount=type=bind,source=missing,target=/x true\n", 2, vec!["Dockerfile:2:", "`missing`"]),
        ("FROM base\nRUN --security=insecure true\n", 2, vec!["Dockerfile:2:", "insecure"]),
        ("FROM base\nADD https://registry.example/x.git /x\n", 2, vec!["Dockerfile:2:5", "git repository"]),
        ("FROM base\nADD --checksum=sha256:0 http://127.0.0.1:1/x /x\n", 2, vec!["Dockerfile:2:", "not a checksum"]),
        ("FROM base\nADD http://127.0.0.1:1/x /x\n", 1, vec!["Dockerfile:2:5", "http://127.0.0.1:1/x"]),
        ("", 2, vec!["Dockerfile"]),
        ("FROM base\nCOPY file /etc/passwd/x\n", 2, vec!["Dockerfile:2:1", "/etc/passwd"]),
        ("FROM base\nCOPY file /etc/\nCOPY . /etc/file\n", 2, vec!["Dockerfile:3:1", "should become a directory"]),
        ("FROM base\nWORKDIR /etc/passwd\n", 2, vec!["Dockerfile:2:1", "is not a directory"]),
    ];
    for (dockerfile, code, texts) in cases {
        let failed = build(&bench, dockerfile, &[]);
        assert_eq!(failed.code, Some(code), "{dockerfile}\n{}", failed.stderr);
        for text in texts {
            assert!(failed.stderr.contains(text), "{dockerfile}: no `{text}` in\n{}", failed.stderr);
        }
        assert!(failed.stdout.is_empty(), "{dockerfile}: {}", failed.stdout);
    }
    build(&bench, "FROM base\n", &["--target", "none"]).failure(2, &["there is no stage `none`"]);
    build(&bench, "FROM base\n", &["--platform", "linux/arm64"]).failure(1, &["linux/arm64", "linux/amd64"]);
    bench.is_whole();
}

#[test]
fn a_command_that_fails_shows_the_instruction_its_last_lines_and_how_it_ended() {
    let bench = with_base();
    let failed = build(&bench, "FROM base\n\nRUN echo working && \\\n  echo broken && exit 7\n", &[]);
    failed.failure(1, &["Dockerfile:3:1", "RUN echo working", "broken", "exit status 7", ".log"]);
    build(&bench, "FROM base\nRUN no-such-program\n", &[])
        .failure(1, &["Dockerfile:2:1", "exit status 127", "not found"]);
    build(&bench, "FROM base\nRUN [\"/no/such\"]\n", &[]).failure(1, &["Dockerfile:2:1", "/no/such"]);
}

#[test]
fn hostile_archives_are_refused_and_change_nothing_outside() {
    let bench = with_base();
    fs::create_dir_all(bench.at("context")).unwrap();
    let outside = bench.at("outside");
    fs::create_dir(&outside).unwrap();
    let up = fixtures::tar(&[TarEntry::file("../../outside/x", 0o644, "x")]);
    fs::write(bench.at("context/up.tar"), up).unwrap();
    build(&bench, "FROM base\nADD up.tar /\n", &[]).failure(2, &["Dockerfile:2:", "up.tar", ".."]);
    let through =
        fixtures::tar(&[TarEntry::symlink("way", outside.to_str().unwrap()), TarEntry::file("way/x", 0o644, "x")]);
    fs::write(bench.at("context/through.tar"), &through).unwrap();
    build(&bench, "FROM base\nADD through.tar /\nRUN true\n", &[]).success();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // Six hundred megabytes of nothing in half a megabyte.
    let zeros = "truncate -s 600M zeros && tar -cf - zeros | gzip -1 > context/bomb.tar.gz && rm zeros";
    run(std::process::Command::new("sh").args(["-c", zeros]).current_dir(bench.at(""))).success();
    build(&bench, "FROM base\nADD bomb.tar.gz /\n", &[]).failure(2, &["Dockerfile:2:", "bomb.tar.gz", "larger than"]);
    fs::write(bench.at("context/Dockerfile"), [0xff, 0xfe, 0, 1]).unwrap();
    run(bench.drystone().args(["build", "-t", "test", "context"])).failure(2, &["Dockerfile", "binary"]);
    bench.is_whole();
}
