//! `drystone doctor`: what it prints for people and for programs, and that it changes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::{Finished, free_port, run};

/// A family whose registry is at a port where nobody listens, and its archive.
fn bench() -> Bench {
    let bench = Bench::new();
    let family = FAMILY.replace("5100", &free_port().to_string());
    bench.archive(debs(), &[]).spec("family.yaml", &family).spec("hello/image.yaml", "from: scratch\n");
    bench
}

fn json(finished: &Finished) -> Value {
    let error = |error| panic!("{error}: {}", finished.stdout);
    serde_json::from_str(&finished.stdout).unwrap_or_else(error)
}

/// The check of this name.
#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let lists = ["sandboxes", "checks"].iter().flat_map(|list| report[*list].as_array().unwrap());
    lists.into_iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no `{name}` in {report:#}"))
}

#[track_caller]
fn assert_is(report: &Value, name: &str, status: &str, found: &str) {
    let check = check(report, name);
    let text = check["found"].as_str().unwrap();
    assert!(check["status"] == status && text.contains(found), "expected {status}, `{found}`: {check:#}");
}

/// The program as a plain user, with a home that is not there.
fn as_plain_user(bench: &Bench, arguments: &[&str]) -> Finished {
    let binary = bench.at("drystone");
    fs::copy(env!("CARGO_BIN_EXE_drystone"), &binary).unwrap();
    let mut command = Command::new("setpriv");
    bench.surround(&mut command);
    command.env_remove("HOME").env_remove("DRYSTONE_CACHE_DIR");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(binary).args(arguments);
    run(&mut command)
}

#[test]
fn root_gets_a_table_of_sandboxes_and_checks_and_nothing_is_made() {
    let bench = bench();
    let found = run(bench.drystone().args(["doctor", "family"])).success();
    let lines: Vec<&str> = found.stdout.lines().collect();
    let line = |start: &str| {
        let found = lines.iter().find(|line| line.split_whitespace().next() == Some(start));
        found.unwrap_or_else(|| panic!("no line `{start}` in\n{}", lines.join("\n")))
    };
    assert!(line("SANDBOX").contains("WORKS") && line("CHECK").contains("STATUS"), "{}", found.stdout);
    assert!(line("root").contains("yes") && line("root").contains("`auto` takes it"), "{}", found.stdout);
    for sandbox in ["userns", "userns-single", "chroot", "none"] {
        let line = line(sandbox);
        assert!(line.contains(" yes ") || line.contains(" no "), "{line}");
    }
    assert!(line("none").contains("runs nothing"));
    assert!(found.stdout.contains("mirror of stable") && found.stdout.contains("2025-05-17"), "{}", found.stdout);
    assert!(line("registry").contains("`drystone up` starts a registry there"), "{}", found.stdout);
    assert!(!found.stdout.contains('\u{1b}') && found.stderr.is_empty(), "{}", found.stderr);
    assert!(!bench.at("oci").exists() && !bench.at("cache").exists(), "a directory was made");
    let colored = run(bench.drystone().args(["doctor", "--color", "always"])).success();
    assert!(colored.stdout.contains("\u{1b}[32myes"), "{}", colored.stdout);
}

#[test]
fn every_entry_for_programs_has_a_name_a_status_what_was_found_and_a_fix_or_none() {
    let bench = bench();
    let report = json(&run(bench.drystone().args(["doctor", "family", "--format", "json"])).success());
    assert_eq!(report["sandbox"], "root");
    let rungs: Vec<&str> =
        report["sandboxes"].as_array().unwrap().iter().map(|rung| rung["sandbox"].as_str().unwrap()).collect();
    assert_eq!(rungs, ["root", "userns", "userns-single", "chroot", "none"]);
    let mut names = Vec::new();
    for entry in ["sandboxes", "checks"].iter().flat_map(|list| report[*list].as_array().unwrap()) {
        let name = entry["check"].as_str().unwrap();
        assert!(!names.contains(&name), "{name} is there twice");
        names.push(name);
        assert!(["ok", "warn", "fail", "info"].contains(&entry["status"].as_str().unwrap()), "{entry}");
        assert!(!entry["found"].as_str().unwrap().is_empty(), "{entry}");
        let has_fix = entry["fix"].as_str().is_some_and(|fix| !fix.is_empty());
        assert!(has_fix || entry["fix"].is_null(), "{entry}");
        let bad = ["warn", "fail"].contains(&entry["status"].as_str().unwrap());
        assert!(has_fix || !bad, "what is bad says what to do: {entry}");
    }
    for expected in ["kernel", "overlayfs", "user namespaces", "cache", "cache file system", "layout", "clock"] {
        assert!(names.contains(&expected), "no {expected} in {names:?}");
    }
}

#[test]
fn a_plain_user_without_a_home_learns_what_is_missing() {
    let bench = bench();
    fs::set_permissions(bench.at("family"), fs::Permissions::from_mode(0o755)).unwrap();
    let found = as_plain_user(&bench, &["doctor", "family", "--format", "json"]);
    let report = json(&found);
    assert_is(&report, "sandbox root", "info", "CAP_SYS_ADMIN");
    assert_eq!(report["sandbox"].as_str().map(|rung| rung.starts_with("userns")), Some(true), "{report:#}");
    assert_is(&report, "cache", "fail", "neither XDG_CACHE_HOME nor HOME is set");
    assert_is(&report, "layout", "fail", "cannot be made: Permission denied");
    assert_eq!(found.code, Some(0), "a sandbox works: {}", found.stderr);
    assert!(!bench.at("oci").exists());
}

#[test]
fn where_only_none_works_the_exit_code_says_so() {
    let bench = bench();
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \"$0\" doctor";
    let mut command = Command::new("unshare");
    bench.surround(&mut command);
    command.args(["--user", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_drystone")]);
    let found = run(&mut command).failure(1, &["no sandbox but `none` works"]);
    for expected in ["`auto` takes it: nothing can be run", "fix: as root: sysctl -w user.max_user_namespaces="] {
        assert!(found.stdout.contains(expected), "no `{expected}` in\n{}", found.stdout);
    }
}

#[test]
fn a_cache_that_cannot_be_written_and_a_file_in_the_place_of_the_layout_are_failures() {
    let bench = bench();
    fs::create_dir(bench.at("cache")).unwrap();
    fs::write(bench.at("oci"), "").unwrap();
    let command = "mount --bind cache cache && mount -o remount,bind,ro cache && exec \"$0\" doctor --format json";
    let mut shell = Command::new("unshare");
    bench.surround(&mut shell);
    let found = run(shell.args(["--mount", "sh", "-c", command, env!("CARGO_BIN_EXE_drystone")])).success();
    let report = json(&found);
    assert_is(&report, "cache", "fail", "cache cannot be written to: Read-only file system");
    assert!(check(&report, "cache")["fix"].as_str().unwrap().contains("--cache-dir"));
    assert_is(&report, "layout", "fail", "Not a directory");
}

#[test]
fn mirrors_and_registries_that_do_not_serve_say_why_and_show_no_password() {
    let bench = bench();
    let mirror = format!("http://ann:secret@127.0.0.1:{}/debian", free_port());
    // It takes connections and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("127.0.0.1:{}", mute.local_addr().unwrap().port());
    let started = Instant::now();
    let arguments = ["doctor", "--format", "json", "--registry", &mute, "--mirror", &mirror];
    let found = run(bench.drystone().args(arguments)).success();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let report = json(&found);
    assert_is(&report, "mirror of bookworm", "fail", "Connection refused");
    assert!(!found.stdout.contains("secret") && !found.stdout.contains("ann"), "{}", found.stdout);
    assert_is(&report, "registry", "fail", "no answer within 3 s");

    let wrong = bench.serve();
    let found = run(bench
        .drystone()
        .args(["doctor", "--format", "json", "--mirror", &wrong.url(), "--registry"])
        .arg(wrong.url().trim_start_matches("http://").trim_end_matches('/')));
    let report = json(&found.success());
    assert_is(&report, "mirror of bookworm", "fail", "the server answered 404");
    assert_is(&report, "registry", "fail", "is not a registry that can be used");
}

#[test]
fn without_mirrors_it_says_how_to_name_one() {
    let bench = bench();
    let script = "mount -t tmpfs none /etc/apt && exec \"$0\" doctor --format json";
    let mut shell = Command::new("unshare");
    bench.surround(&mut shell);
    shell.env_remove("DRYSTONE_MIRROR").args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_drystone")]);
    let report = json(&run(&mut shell).success());
    assert_is(&report, "mirror", "fail", "none is known");
    assert!(check(&report, "mirror")["fix"].as_str().unwrap().contains("--mirror URL"));
}

#[test]
fn a_family_that_is_none_and_a_mirror_that_is_none_are_mistakes_on_the_command_line() {
    let bench = bench();
    run(bench.drystone().args(["doctor", "elsewhere"])).failure(2, &["`elsewhere` is not a family"]);
    run(bench.drystone().args(["doctor", "--mirror", "nonsense"])).failure(2, &["`nonsense` is not a mirror"]);
}

#[test]
fn a_machine_without_certificates_is_told_and_reaches_what_needs_none() {
    let bench = bench();
    let server = bench.serve();
    let without = |arguments: &[&str]| run(bench.drystone().env("SSL_CERT_FILE", "/dev/null").args(arguments));
    let report = json(&without(&["doctor", "family", "--format", "json", "--mirror", &server.url()]).success());
    assert_is(&report, "certificates", "warn", "this machine has none");
    assert_is(&report, "mirror of stable", "ok", "has it, of 2025-05-17");
    bench.spec("hello/image.yaml", "from: scratch\npackages: [hello]\n");
    without(&["up", "family", "--once", "--mirror", &server.url()]).success();
}
