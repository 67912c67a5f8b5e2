//! What is wrong with a Dockerfile or its context is said at its line, and nothing outside of the context is read.

use std::fs;
use std::os::unix::fs::symlink;

use fixtures::TarEntry;
use fixtures::http::FileServer;

use super::with_base;
use crate::support::family::Bench;
use crate::support::program::{Finished, docker_registry, run};

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
        ("FROM base\nCOPY up /\n", 2, vec!["Dockerfile:2:6", "`up` leads out of the context"]),
        ("FROM base\nCOPY absolute /\n", 2, vec!["Dockerfile:2:6", "`absolute` is a link to `/etc/passwd`"]),
        ("FROM base\nCOPY ../secret /\n", 2, vec!["Dockerfile:2:6", "leads out of the context", "-f"]),
        ("FROM base\nCOPY *.none /\n", 2, vec!["Dockerfile:2:6", "nothing fits"]),
        ("FROM base\nCOPY file hidden /both\n", 2, vec!["Dockerfile:2:"]),
        ("FROM base\nCOPY --chown=nobody file /\n", 2, vec!["Dockerfile:2:", "nobody"]),
        ("FROM base\nCOPY --chmod=999 file /\n", 2, vec!["Dockerfile:2:", "`999` is not a mode"]),
        ("FROM base\nUSER nobody\nRUN true\n", 2, vec!["Dockerfile:", "nobody"]),
        ("FROM base\nUSER nobody\n", 2, vec!["Dockerfile:2:6", "nobody"]),
        ("FROM base AS me\nCOPY --from=me x /\n", 2, vec!["Dockerfile:2:1", "from itself"]),
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
fn what_stands_for_no_stage_and_no_image_is_said_word_for_word() {
    let bench = with_base();
    // A registry that has nothing; names without one would mean a registry of the world's.
    fs::create_dir(bench.at("nothing")).unwrap();
    let registry = FileServer::start(bench.at("nothing")).unwrap();
    let none = format!("{}/none:1", registry.address());
    build(&bench, &format!("FROM {none}\n"), &[]).failure(1, &["Dockerfile:1:6", &none, "404"]);
    build(&bench, &format!("FROM base\nCOPY --from={none} a /\n"), &[]).failure(1, &["Dockerfile:2:13", &none, "404"]);
    for (dockerfile, expected) in [
        (
            "FROM base AS build\nFROM base\nCOPY --from=biuld a /b\n",
            "error: `biuld` is no stage above, and no image that can be had: `biuld` is not in the layout, and no registry \
             may be asked for it
 --> context/Dockerfile:3:13
  |
3 | COPY --from=biuld a /b
  |             ^^^^^
  |
  = help: did you mean the stage `build`?
",
        ),
        (
            "FROM b AS a\nFROM a AS b\n",
            "error: the stage `b` stands further down
 --> context/Dockerfile:1:6
  |
1 | FROM b AS a
  |      ^
  |
  = help: a stage can only be built on those above it, or copy from them
",
        ),
        (
            "FROM base AS a\nRUN --mount=from=b,target=/x true\nFROM a AS b\n",
            "error: the stage `b` stands further down
 --> context/Dockerfile:2:13
  |
2 | RUN --mount=from=b,target=/x true
  |             ^^^^^^^^^^^^^^^^
  |
  = help: a stage can only be built on those above it, or copy from them
",
        ),
        (
            "FROM base AS a\nCOPY --from=a x /\n",
            "error: the stage `a` takes files from itself
 --> context/Dockerfile:2:1
  |
2 | COPY --from=a x /
  | ^^^^^^^^^^^^^^^^^
  |
  = help: `--from` names an earlier stage, or an image
",
        ),
    ] {
        says(build(&bench, dockerfile, &["--offline"]), expected);
    }
    bench.is_whole();
}

#[test]
fn a_misspelt_stage_is_said_at_once_where_no_registry_can_be_reached() {
    let bench = with_base();
    // Nothing listens there.
    let build = |dockerfile: &str, more: &[&str]| {
        fs::create_dir_all(bench.at("context")).unwrap();
        fs::write(bench.at("context/Dockerfile"), dockerfile).unwrap();
        let mut build = bench.drystone();
        build.env("HTTPS_PROXY", "http://127.0.0.1:1").args(["build", "-t", "test", "context"]).args(more);
        run(&mut build)
    };
    for dockerfile in [
        "FROM base AS build\nFROM biuld\n",
        "FROM base AS build\nFROM base\nCOPY --from=biuld a /\n",
        "FROM base AS build\nFROM base\nRUN --mount=from=biuld,target=/x true\n",
    ] {
        let failed = build(dockerfile, &[]);
        let failed = failed.failure(2, &["`biuld` is no stage above", "docker.io", "did you mean the stage `build`?"]);
        assert!(!failed.stderr.contains("trying again"), "{}", failed.stderr);
    }
    let failed = build("FROM later\nFROM base AS later\n", &["--target", "0"]);
    let failed = failed.failure(2, &["the stage `later` stands further down"]);
    assert!(!failed.stderr.contains("trying again"), "{}", failed.stderr);
    build("FROM base AS build\nFROM base\n", &["--target", "biuld"]).failure(2, &["no stage `biuld`", "mean `build`?"]);
    // In a family it is said when its bases are looked for, which a lock does first.
    bench.spec("family.yaml", "drystone: 1\nregistry: localhost:5100\ntag: v1\n");
    bench.spec("app/Dockerfile", "FROM base AS build\nFROM biuld\n");
    let locked = run(bench.drystone().env("HTTPS_PROXY", "http://127.0.0.1:1").args(["lock", "family"]));
    let locked = locked.failure(2, &["app/Dockerfile:2:6", "did you mean the stage `build`?"]);
    assert!(!locked.stderr.contains("trying again"), "{}", locked.stderr);
}

#[test]
fn an_image_that_is_called_nearly_like_a_stage_is_pulled_all_the_same() {
    let bench = with_base();
    let (registry, _process) = docker_registry(&bench.at(""));
    let there = format!("{registry}/library/biuld:latest");
    run(bench.drystone().args(["copy", "oci:oci:localhost/base:latest", &there])).success();
    let mirror = format!("docker.io={registry}");
    build(&bench, "FROM base AS build\nFROM biuld\n", &["--registry-mirror", &mirror]).success();
    assert_eq!(
        bench.manifest_of("localhost/test:latest")["layers"],
        bench.manifest_of("localhost/base:latest")["layers"]
    );
}

/// The text of the error, from its first line to the end.
#[track_caller]
fn says(failed: Finished, expected: &str) {
    let said = failed.stderr.find("error: ").map_or("", |start| &failed.stderr[start..]);
    assert_eq!(said, expected, "all of it:\n{}", failed.stderr);
    assert_eq!(failed.code, Some(2));
}

#[test]
fn what_leads_out_of_the_context_and_who_is_unknown_is_said_word_for_word() {
    let bench = with_base();
    fs::create_dir_all(bench.at("context/sub")).unwrap();
    fs::create_dir(bench.at("outside")).unwrap();
    fs::write(bench.at("outside/secret"), "x").unwrap();
    fs::write(bench.at("context/.dockerignore"), "Dockerfile\nhidden\n").unwrap();
    fs::write(bench.at("context/hidden"), "x").unwrap();
    symlink("../../outside", bench.at("context/sub/way")).unwrap();
    symlink("round", bench.at("context/round")).unwrap();
    let at = |line: &str, text: &str, signs: &str, help: &str| {
        format!(
            "error: {text}\n --> context/Dockerfile:2:{}\n  |\n2 | {line}\n  | {signs}\n{help}",
            signs.len() - signs.trim_start().len() + 1
        )
    };
    let help = |text: &str| format!("  |\n  = help: {text}\n");
    for (line, text, signs, advice) in [
        ("COPY missing /", "`missing` is not there", "     ^^^^^^^", "there are: .dockerignore, round, sub"),
        (
            "COPY ../outside/secret /",
            "`../outside/secret` leads out of the context, where nothing is read",
            "     ^^^^^^^^^^^^^^^^^",
            "build with the directory above as the context, and name the Dockerfile with -f",
        ),
        (
            "ADD sub/way/secret /",
            "`sub/way/secret` leads out of the context, where nothing is read",
            "    ^^^^^^^^^^^^^^",
            "`sub/way` is a link to `../../outside`; have the file itself in the context",
        ),
        ("COPY round /", "`round` cannot be found: /round: too many symbolic links", "     ^^^^^", ""),
        ("COPY hidden /", "`hidden` is not there", "     ^^^^^^", "`context/.dockerignore` leaves it out"),
        ("COPY Dockerfile /", "`Dockerfile` is not there", "     ^^^^^^^^^^", "`context/.dockerignore` leaves it out"),
        (
            "COPY --chown=nobody sub /",
            "the image has no user `nobody` at this point",
            "             ^^^^^^",
            "make the account first with RUN, or give its number",
        ),
        (
            "COPY --chown=app:wheel sub /",
            "the image has no group `wheel` at this point",
            "             ^^^^^^^^^",
            "make the account first with RUN, or give its number",
        ),
        (
            "USER app:wheel\nRUN true",
            "USER: the image has no group `wheel` at this point",
            "     ^^^^^^^^^",
            "make the account first with RUN, or give its number",
        ),
    ] {
        let failed = build(&bench, &format!("FROM base\n{line}\n"), &[]);
        let advice = if advice.is_empty() { String::new() } else { help(advice) };
        says(failed, &at(line.lines().next().unwrap(), text, signs, &advice));
    }
    // A .dockerignore that leaves out the Dockerfile does not keep it from being built.
    build(&bench, "FROM base\nCOPY . /x/\n", &[]).success();
    assert!(!bench.listing("test").contains("x/Dockerfile"));
}

#[test]
fn a_dockerfile_that_is_none_is_said_and_not_read() {
    let bench = with_base();
    let usage = |text: &str| format!("error: {text}\n\nFor more information, try '--help'.\n");
    fs::create_dir_all(bench.at("context")).unwrap();
    let build = || run(bench.drystone().args(["build", "-t", "test", "context"]));
    says(build(), &usage("`context` has neither a Dockerfile nor a family.yaml"));
    fs::write(bench.at("context/dockerfile"), "FROM base\n").unwrap();
    says(build(), &usage("`context` has no Dockerfile, but `dockerfile`: rename it, or name it with -f"));
    fs::create_dir(bench.at("context/Dockerfile")).unwrap();
    fs::remove_file(bench.at("context/dockerfile")).unwrap();
    says(build(), &usage("`context/Dockerfile` is no file that could be read"));
    fs::remove_dir(bench.at("context/Dockerfile")).unwrap();
    fs::write(bench.at("secret"), "root:hash:1::::::\n").unwrap();
    symlink("../secret", bench.at("context/Dockerfile")).unwrap();
    let text = "`context/Dockerfile` is a link that leads out of the context: if you mean that file, name it with -f";
    says(build(), &usage(text));
    fs::remove_file(bench.at("context/Dockerfile")).unwrap();
    fs::File::create(bench.at("context/Dockerfile")).unwrap().set_len(3 << 30).unwrap();
    says(build(), &usage("`context/Dockerfile` is larger than 16777216 bytes"));
    let at =
        |place: &str, line: &str, signs: &str| format!(" --> context/Dockerfile:{place}\n  |\n{line}\n  | {signs}\n");
    for (bytes, title, place) in [
        (&b""[..], "this file has no instructions", at("1:1", "1 |", "^ expected a `FROM`")),
        (b"# nothing\n", "this file has no instructions", at("1:1", "1 | # nothing", "^ expected a `FROM`")),
        (
            b"FROM base\nLABEL a=\xff\n",
            "this file is binary: it is no text in UTF-8",
            at("2:9", "2 | LABEL a=\u{fffd}", "        ^ expected a text"),
        ),
        (
            b"\x7fELF\x00",
            "this file is binary: it holds a NUL character",
            at("1:5", "1 | \u{2421}ELF\u{2400}", "    ^ expected a text in UTF-8"),
        ),
        (
            b"FROM base\nCOPY <<END /x\ntext\nENDE\n",
            "the heredoc `END` has no end",
            at("2:6", "2 | COPY <<END /x", "     ^^^^^ expected a line `END` after it"),
        ),
    ] {
        fs::write(bench.at("context/Dockerfile"), bytes).unwrap();
        says(build(), &format!("error: {title}\n{place}"));
    }
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
