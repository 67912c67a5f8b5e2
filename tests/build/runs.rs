//! `run` steps: what is mounted meanwhile, what they print, and what happens when one fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use fixtures::DebBuilder;
use serde_json::Value;

use crate::support::family::{Bench, FAMILY, walk};
use crate::support::program::{Finished, run};

/// The ways to run a command that root has here.
const RUNGS: [&str; 2] = ["root", "userns-single"];

/// What the secrets of these tests hold, and nothing else does.
const TOKEN: &str = "tr0ub4dor-and-3";
const KEY: &str = "-----BEGIN THE KEY OF THIS TEST-----\ncorrect-horse\nbattery-staple\n-----END-----\n";

/// A family with `base`, which has a shell, and `app` on it.
fn bench(app: &str) -> Bench {
    let bench = Bench::new();
    let busybox = fs::read("/bin/busybox").expect("tests/run installs busybox-static");
    let shell = DebBuilder::new("shell", "1")
        .file("bin/busybox", 0o755, busybox)
        .symlink("bin/sh", "busybox")
        .directory("tmp", 0o1777);
    bench.archive([shell.build()], &[]);
    bench
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [shell]\nenv: {PATH: /bin}\n")
        .spec("app/image.yaml", &format!("from: base\n{app}"));
    fs::write(bench.at("token"), TOKEN).unwrap();
    fs::write(bench.at("key"), KEY).unwrap();
    bench
}

/// Builds with the secrets `token` and `key`.
fn build(bench: &Bench, rung: &str, more: &[&str]) -> Finished {
    let mut command = bench.drystone();
    command.args([
        "build",
        "family",
        "--sandbox",
        rung,
        "--secret",
        "id=token,src=token",
        "--secret",
        "id=key,env=KEY",
    ]);
    run(command.env("KEY", KEY).args(more))
}

/// The files below a directory that hold a text, as they are or compressed.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let mut found = Vec::new();
    for path in walk(directory) {
        let mut bytes = fs::read(&path).unwrap_or_default();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes = Command::new("gzip").arg("-dc").stdin(fs::File::open(&path).unwrap()).output().unwrap().stdout;
        }
        if holds(&bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

const USES_SECRETS: &str = r#"
run:
  - command: |
      set -e
      cat /run/secrets/token; echo; cat /root/.key >&2
      printf 'in colour: %s\033[1m%s\n' "$(cut -c1-5 /run/secrets/token)" "$(cut -c6- /run/secrets/token)"
      stat -c '%a %u:%g' /run/secrets/token
      grep -q ' /run/secrets/token .* tmpfs ' /proc/self/mountinfo
      ! echo x 2>/dev/null > /run/secrets/token
      echo "found-in-the-layer $(wc -c < /run/secrets/token)" > /size
    mounts: [{type: secret, id: token}, {type: secret, id: key, target: /root/.key}]
  - command: "! ls /run/secrets 2>/dev/null"
"#;

#[test]
fn a_secret_is_seen_by_its_command_and_is_nowhere_afterwards() {
    let mut digests = Vec::new();
    for rung in RUNGS {
        let bench = bench(USES_SECRETS);
        let plain = build(&bench, rung, &["-v", "--metadata-file", "metadata.json"]).success();
        assert!(plain.stderr.contains("app: | ***\n"), "{}", plain.stderr);
        assert!(plain.stderr.contains("app: | in colour: ***\n"), "{}", plain.stderr);
        assert!(plain.stderr.contains("app: | 400 0:0\n"), "{}", plain.stderr);
        let raw = build(&bench, rung, &["--progress", "rawjson", "--no-cache"]).success();
        assert!(raw.stderr.contains("step-output"), "{}", raw.stderr);
        let printed = [&plain.stdout, &plain.stderr, &raw.stdout, &raw.stderr];
        for secret in [TOKEN, "correct-horse", "battery-staple", "KEY OF THIS TEST"] {
            for directory in ["oci", "cache"] {
                assert_eq!(files_with(&bench.at(directory), secret), [""; 0], "{rung}: {secret}");
            }
            assert!(!fs::read_to_string(bench.at("metadata.json")).unwrap().contains(secret), "{rung}: {secret}");
            assert!(!printed.iter().any(|text| text.contains(secret)), "{rung}: {secret}: {printed:?}");
        }
        // The search finds what is there: in a layer, which is compressed, and in the log.
        assert!(!files_with(&bench.at("oci"), "found-in-the-layer 15").is_empty());
        assert!(!files_with(&bench.at("cache/logs"), "in colour: ***").is_empty());
        assert!(!bench.listing("app").contains("secrets"), "{}", bench.listing("app"));
        bench.is_whole();
        // Another value is no other step.
        fs::write(bench.at("token"), "another-value").unwrap();
        assert!(build(&bench, rung, &[]).success().stderr.contains("nothing to build"));
        digests.push(bench.digests());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_secret_belongs_to_the_user_of_its_command() {
    let command = "stat -c '%a %u:%g' /run/secrets/token; wc -c < /run/secrets/token";
    let yaml =
        format!("run:\n  - {{command: \"{command}\", user: '105:106', mounts: [{{type: secret, id: token}}]}}\n");
    for rung in RUNGS {
        let built = build(&bench(&yaml), rung, &["-v"]).success();
        assert!(
            built.stderr.contains("app: | 400 105:106\n") && built.stderr.contains("app: | 15\n"),
            "{}",
            built.stderr
        );
    }
}

#[test]
fn a_secret_that_fails_a_step_is_not_in_what_is_said_of_it() {
    let yaml = "run:\n  - {command: \"cat /run/secrets/token; exit 3\", mounts: [{type: secret, id: token}]}\n";
    let bench = bench(yaml);
    let failed = build(&bench, "root", &[]).failure(1, &["app: | ***", "exit status 3"]);
    assert!(!failed.stderr.contains(TOKEN), "{}", failed.stderr);
    assert_eq!(files_with(&bench.at("cache"), TOKEN), [""; 0]);
}

#[test]
fn a_secret_that_was_not_given_is_shown_where_it_is_asked_for() {
    let bench = bench("run:\n  - command: cat /run/secrets/toke\n    mounts: [{type: secret, id: toke}]\n");
    let expected =
        ["app/image.yaml:4:", "the secret `toke`", "--secret id=toke,src=FILE", "--secret id=toke,env=VARIABLE"];
    bench.build(&[]).failure(2, &expected);
    build(&bench, "root", &[]).failure(2, &["those given are: key, token"]);
    assert!(bench.digests().is_empty());
    let wrong = [
        ("id=toke,src=absent", "cannot read `absent`"),
        ("id=toke,env=ABSENT", "ABSENT is not set"),
        ("toke", "expected id=NAME,src=FILE"),
    ];
    for (given, text) in wrong {
        bench.build(&["--secret", given]).failure(2, &[text]);
    }
    bench.build(&["--secret", "id=toke,src=token", "--secret", "id=toke,src=key"]).failure(2, &["given twice"]);
}

#[test]
fn a_cache_is_kept_between_builds_and_is_not_in_the_image() {
    let yaml = r#"
run:
  - command: |
      set -e
      count=$(cat /var/cache/counter/n 2>/dev/null || echo 0)
      echo $((count + 1)) > /var/cache/counter/n
      chown 7:8 /var/cache/counter/n
      stat -c 'owned %u:%g' /var/cache/counter/n
    mounts: [{type: cache, target: /var/cache/counter}]
  - command: echo "again $(cat /kept/n)"
    mounts: [{type: cache, id: /var/cache/counter, target: /kept}]
  - command: echo "nobody's $(ls /kept | wc -l)"; echo x > /kept/mine
    user: "105:106"
    mounts: [{type: cache, id: /var/cache/counter, target: /kept}]
"#;
    for rung in RUNGS {
        let bench = bench(yaml);
        let first = build(&bench, rung, &["-v"]).success();
        assert!(first.stderr.contains("app: | again 1\n"), "{}", first.stderr);
        // A cache is its user's.
        assert!(first.stderr.contains("app: | nobody's 0\n"), "{}", first.stderr);
        let before = bench.digests();
        let second = build(&bench, rung, &["-v", "--no-cache"]).success();
        assert!(second.stderr.contains("app: | again 2\n"), "{}", second.stderr);
        assert!(second.stderr.contains("app: | owned 7:8\n"), "{}", second.stderr);
        assert!(second.stderr.contains("app: | nobody's 1\n"), "{}", second.stderr);
        assert_eq!(bench.digests(), before);
        assert!(!bench.listing("app").contains("kept") && !bench.listing("app").contains("counter"));
        // What was written under one way of storing owners is not seen under the other.
        let other = RUNGS.iter().find(|other| **other != rung).unwrap();
        let third = build(&bench, other, &["-v", "--no-cache"]).success();
        assert!(third.stderr.contains("app: | again 1\n"), "{}", third.stderr);
    }
}

#[test]
fn two_commands_do_not_use_a_cache_at_once() {
    let step = "run:\n  - command: mkdir /c/busy && sleep 0.3 && rmdir /c/busy && echo NAME\n    mounts: [{type: cache, id: shared, target: /c}, {type: cache, id: other, target: /d}]\n";
    let bench = bench(&step.replace("NAME", "app"));
    for name in ["two", "three"] {
        // The same caches in the other order.
        let step = step.replace(
            "{type: cache, id: shared, target: /c}, {type: cache, id: other, target: /d}",
            "{type: cache, id: other, target: /d}, {type: cache, id: shared, target: /c}",
        );
        bench.spec(&format!("{name}/image.yaml"), &format!("from: base\n{}", step.replace("NAME", name)));
    }
    build(&bench, "root", &["-j", "4"]).success();
}

#[test]
fn what_a_bind_mount_shows_is_an_input_of_the_step() {
    let yaml = r#"
run:
  - command: |
      set -e
      find /src -exec stat -c '%n %a %u:%g %Y' {} + | sort
      ! echo x 2>/dev/null > /src/sub/file
      cat /src/sub/file /one > /copied
      cp -a /src/sub /sub
    mounts: [{type: bind, source: source, target: /src}, {type: bind, source: source/script.sh, target: /one}]
"#;
    let mut digests = Vec::new();
    for rung in RUNGS {
        let bench = bench(yaml);
        bench.spec("app/source/sub/file", "content\n").spec("app/source/script.sh", "script\n");
        std::os::unix::fs::symlink("sub/file", bench.at("family/app/source/link")).unwrap();
        let first = build(&bench, rung, &["-v"]).success();
        for line in ["/src 755 0:0 ", "/src/link 777 0:0 ", "/src/script.sh 644 0:0 ", "/src/sub/file 644 0:0 "] {
            assert!(first.stderr.contains(&format!("app: | {line}")), "{line}: {}", first.stderr);
        }
        assert_eq!(bench.file("app", "copied").as_deref(), Some("content\nscript\n"));
        let listing = bench.listing("app");
        assert!(listing.contains(" sub/file") && !listing.contains(" src") && !listing.contains(" one"), "{listing}");
        digests.push(bench.digests());
        let again = |expected: &str| {
            let built = build(&bench, rung, &[]).success();
            assert!(built.stderr.contains(expected), "{expected}: {}", built.stderr);
        };
        // Times, and modes that `files` would not keep either, are no change.
        run(Command::new("touch").arg(bench.at("family/app/source/sub/file"))).success();
        fs::set_permissions(bench.at("family/app/source/sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
        again("nothing to build");
        bench.spec("app/source/sub/file", "changed\n");
        again("built 1 of 2");
        assert_eq!(bench.file("app", "copied").as_deref(), Some("changed\nscript\n"));
        fs::set_permissions(bench.at("family/app/source/script.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        again("built 1 of 2");
        bench.spec("app/source/new", "");
        again("built 1 of 2");
        bench.is_whole();
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_cannot_be_mounted_is_shown_where_it_is_named() {
    let mount = |mount: &str| bench(&format!("run:\n  - {{command: \"true\", mounts: [{mount}]}}\n"));
    let cases = [
        ("{type: bind, source: absent, target: /x}", "absent"),
        ("{type: bind, source: ../../token, target: /x}", "outside the family"),
        ("{type: tmpfs, target: /proc/x}", "nothing can be mounted at `/proc/x`"),
        ("{type: tmpfs, target: /}", "nothing can be mounted at `/`"),
        ("{type: tmpfs, target: /x}, {type: cache, target: /x/}", "two mounts at `/x`"),
        ("{type: cache}", "this mount has no target"),
    ];
    for (text, expected) in cases {
        mount(text).build(&[]).failure(2, &["app/image.yaml:3:", expected]);
    }
}

#[test]
fn a_directory_in_memory_is_empty_for_each_command_and_leaves_nothing() {
    let yaml = r#"
run:
  - {command: "ls -A /scratch | wc -l; echo x > /scratch/x", user: "105:106", mounts: [{type: tmpfs, target: /scratch}]}
  - {command: "ls -A /scratch | wc -l; stat -c %a /scratch; echo kept > /scratch/../kept", mounts: [{type: tmpfs, target: /scratch}]}
"#;
    let mut digests = Vec::new();
    for rung in RUNGS {
        let bench = bench(yaml);
        let built = build(&bench, rung, &["-v"]).success();
        assert_eq!(built.stderr.matches("app: | 0\n").count(), 2, "{}", built.stderr);
        assert!(built.stderr.contains("app: | 1777\n"), "{}", built.stderr);
        assert!(bench.listing("app").contains(" kept") && !bench.listing("app").contains("scratch"));
        digests.push(bench.digests());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_failing_command_shows_its_last_lines_its_code_and_where_all_of_it_is() {
    let bench =
        bench("run:\n  - |\n      i=0; while [ $i -lt 50 ]; do echo line-$i.; i=$((i + 1)); done\n      exit 7\n");
    let failed = bench.build(&[]).failure(1, &["app: | line-49.", "app: | line-20.", "exit status 7", "--shell-fail"]);
    assert!(!failed.stderr.contains("line-19."), "{}", failed.stderr);
    let log = bench.at("cache/logs/localhost:5100/app:v1.log");
    assert!(failed.stderr.contains(&format!("all of its output is in `{}`", log.display())), "{}", failed.stderr);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("\nline-0.\n") && text.contains("\nline-49.\n") && text.contains("exit status 7"), "{text}");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    // The next build's takes its place, and puts it aside.
    bench.spec("app/image.yaml", "from: base\nrun: [echo better]\n");
    let raw = run(bench.drystone().args(["build", "family", "--progress", "rawjson"])).success();
    assert!(fs::read_to_string(&log).unwrap().contains("\nbetter\n"));
    assert_eq!(fs::read_to_string(bench.at("cache/logs/localhost:5100/app:v1.log.1")).unwrap(), text);
    let finished = raw.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let finished: Vec<Value> = finished.filter(|event| event["event"] == "image-finished").collect();
    let log_of = |image: &str| finished.iter().find(|event| event["image"] == image).unwrap()["log"].clone();
    assert_eq!(log_of("app").as_str(), log.to_str());
    assert!(log_of("base").is_null(), "base was there already");
}

#[test]
fn what_a_command_prints_does_not_reach_the_terminal_raw() {
    let yaml = r#"
run:
  - "printf '\\033[31mred\\033[0m \\033]0;title\\007plain \\010\\033[2J\\n'; printf 'bell\\007\\n' >&2"
"#;
    let bench = bench(yaml);
    for more in [["-v", "--no-cache"], ["--progress=tty", "-v"]] {
        let built = bench.build(&more).success();
        assert!(!built.stderr.contains('\u{7}') && !built.stderr.contains("\u{1b}[31m"), "{:?}", built.stderr);
        assert!(!built.stderr.contains("title\u{7}") && !built.stderr.contains("\u{1b}[2J"), "{:?}", built.stderr);
    }
    let log = fs::read_to_string(bench.at("cache/logs/localhost:5100/app:v1.log")).unwrap();
    assert!(log.contains("\nred plain \n") && log.contains("\nbell\n"), "{log:?}");
}

#[test]
fn looking_around_needs_a_terminal() {
    bench("run: ['true']\n").build(&["--shell-fail"]).failure(2, &["--shell-fail needs a terminal"]);
}

/// Starts the program on a terminal of its own, types each text once the one before it has been answered, and prints
/// what was shown and the exit code.
const DRIVER: &str = r#"
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
shown = b''
def wait(text):
    global shown
    end = time.time() + 60
    while text not in shown:
        if not select.select([terminal], [], [], max(0, end - time.time()))[0]:
            sys.exit(f'no {text!r} in {shown!r}')
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b''
        if not data:
            if text:
                return
        shown += data
def type(text):
    os.write(terminal, text)
wait(b'(failed) #')
type(b'pwd; cat /left; echo "$MARK" up-$((40 + 2)); id -u; wc -c < /run/secrets/token; sleep 600\r')
wait(b'up-42')
time.sleep(0.5)
type(b'\x03')
type(b'echo alive-$((40 + 2)); test -t 0 && echo changed > /left; exit 5\r')
wait(b'alive-42')
wait(b'never shown, so that this waits for the end')
sys.stdout.buffer.write(shown)
print('code', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_shell_opens_where_a_command_failed_when_nothing_else_runs() {
    let yaml = r#"
run:
  - command: "echo left-behind > /left; echo last words; exit 9"
    workdir: /tmp
    env: {MARK: marked}
    mounts: [{type: secret, id: token}]
"#;
    for rung in RUNGS {
        let bench = bench(yaml);
        bench.spec("slow/image.yaml", "from: base\nrun: [sleep 2; echo slow-done]\n");
        let mut driver = Command::new("python3");
        bench.surround(&mut driver);
        driver.env("TERM", "xterm").args(["-c", DRIVER, env!("CARGO_BIN_EXE_drystone"), "build", "family", "-j", "2"]);
        driver.args(["-v", "--shell-fail", "--sandbox", rung, "--secret", "id=token,src=token"]);
        let seen = run(&mut driver).success().stdout;
        for text in [
            "failed: exit status 9",
            "app: | last words",
            "/tmp\r\n",
            "left-behind\r\n",
            "marked up-42\r\n",
            "alive-42\r\n",
        ] {
            assert!(seen.contains(text), "{rung}: no {text:?} in\n{seen}");
        }
        assert!(seen.contains("\r\n0\r\n15\r\n"), "{rung}: {seen}");
        let (done, opened) = (seen.find("slow: | slow-done"), seen.find("This is a shell where it failed"));
        assert!(done.is_some() && done < opened, "{rung}: {seen}");
        assert!(seen.contains("all of its output is in") && seen.trim_end().ends_with("code 1"), "{rung}: {seen}");
        assert!(bench.digests().is_empty(), "{rung}: a failed build names nothing");
        bench.is_whole();
    }
}
