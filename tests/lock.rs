//! `drystone lock`, and what builds make of a lock.

use std::fs;

use fixtures::{Deb, DebBuilder};
use serde_json::{Value, json};

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::{run, tool};
use crate::support::users;

/// Packages in this version, `app` of which needs the same version of `lib`.
fn versions(version: &str) -> Vec<Deb> {
    let deb = |name: &str, depends: &str| {
        let package = DebBuilder::new(name, version).file(&format!("usr/share/{name}"), 0o644, version);
        if depends.is_empty() { package.build() } else { package.depends(depends).build() }
    };
    vec![
        deb("app", &format!("lib (= {version}), tool")),
        deb("lib", ""),
        deb("tool", ""),
        deb("other", ""),
        deb("late", "tool"),
    ]
}

/// Two images of packages in version 1.
fn bench() -> Bench {
    let bench = Bench::new();
    bench
        .archive(versions("1"), &[])
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [tool]\n")
        .spec("app/image.yaml", "from: base\npackages: [app, other]\n");
    bench
}

/// A new archive, with version 2 beside the old packages, or without them.
fn publish(bench: &Bench, with_old: bool) {
    fs::remove_dir_all(bench.at("archive")).unwrap();
    let old = if with_old { versions("1") } else { Vec::new() };
    bench.archive(old.into_iter().chain(versions("2")), &[]);
}

/// The packages of the lock, as `name=version`.
fn locked(bench: &Bench) -> Vec<String> {
    let lines = bench.lock_text();
    let fields = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[0] == "package").then(|| format!("{}={}", fields[1], fields[2]))
    };
    lines.lines().filter(|line| !line.is_empty()).filter_map(fields).collect()
}

#[test]
fn a_build_writes_the_lock_and_later_ones_take_what_it_says() {
    let bench = bench();
    bench.build(&["--locked"]).failure(1, &["--locked: there is no lock", "drystone.lock", "hint: `drystone lock`"]);
    let built = bench.build(&[]).success();
    assert!(built.stderr.contains("wrote the lock `family/drystone.lock`: 4 packages"), "{}", built.stderr);
    assert_eq!(locked(&bench), ["app=1", "lib=1", "other=1", "tool=1"]);
    let (text, before) = (bench.lock_text(), bench.digests());
    publish(&bench, true);
    // Also with nothing but the lock.
    fs::remove_dir_all(bench.at("oci")).unwrap();
    fs::remove_dir_all(bench.at("cache")).unwrap();
    bench.build(&["--locked"]).success();
    assert_eq!((bench.digests(), bench.lock_text()), (before.clone(), text.clone()));
    let locked_again = bench.lock(&[]).success();
    assert!(locked_again.stdout.is_empty() && locked_again.stderr.contains("up to date"), "{}", locked_again.stderr);
    assert_eq!(bench.lock_text(), text);

    let updated = bench.lock(&["--update"]).success();
    let changed = ["app", "lib", "other", "tool"].map(|name| format!("changed {name} 1 -> 2\n")).concat();
    assert_eq!(updated.stdout, changed + "changed source fixture\n");
    bench.build(&["--locked"]).success();
    assert_ne!(bench.digests(), before);
}

#[test]
fn the_lock_names_everything_by_digest_with_the_signature_and_the_layers() {
    let bench = bench();
    bench.lock(&[]).success();
    let text = bench.lock_text();
    let release = fs::read(bench.at("archive/dists/stable/InRelease")).unwrap();
    let digest = |bytes: &[u8]| content::Digest::of(bytes).hex();
    let release = format!("  release stable 2025-05-17T08:53:20Z {} {} ", release.len(), digest(&release));
    let index = fs::read(bench.at("archive/dists/stable/main/binary-amd64/Packages.gz")).unwrap();
    let index = format!("  index stable main/binary-amd64/Packages.gz {} {}\n", index.len(), digest(&index));
    let deb = versions("1").remove(0);
    let place = "fixture stable pool/main/a/app/app_1_amd64.deb";
    let package = format!("package app 1 amd64 {place} {} {}\n", deb.bytes().len(), digest(deb.bytes()));
    let source = "source fixture suites=stable components=main\n".to_owned();
    for expected in [release, index, package, source] {
        assert!(text.contains(&expected), "no `{expected}` in\n{text}");
    }
    let image = "\
image app linux/amd64
  from base
  budget 40
  sources fixture
  recommends no
  step 1
    ask app
    ask other
    python by-scripts
    layer app
    lay lib app
    lay app app
    lay other app
";
    assert!(text.contains(image), "{text}");
    assert!(!text.contains(bench.at("archive").to_str().unwrap()), "{text}");
    // The signer is a key of the keyring.
    let signer = text.lines().find(|line| line.starts_with("  release")).unwrap().split(' ').next_back().unwrap();
    assert!(signer.len() == 40 && signer.bytes().all(|byte| byte.is_ascii_hexdigit()), "{signer}");
}

#[test]
fn one_package_is_updated_with_what_it_strictly_needs_and_nothing_else() {
    let bench = bench();
    bench.lock(&[]).success();
    publish(&bench, true);
    bench.lock(&["--update=nobody"]).failure(2, &["--update=nobody", "has no such package"]);
    let updated = bench.lock(&["--update=lib", "--format", "json"]).success();
    let report: Value = serde_json::from_str(&updated.stdout).unwrap();
    let changed = |name: &str| json!({"name": name, "from": "1", "to": "2"});
    assert_eq!(report["changes"]["changed"], json!([changed("app"), changed("lib")]), "{report}");
    assert_eq!((&report["changes"]["added"], &report["is_changed"]), (&json!([]), &json!(true)));
    assert_eq!(locked(&bench), ["app=2", "lib=2", "other=1", "tool=1"]);
    bench.lock(&["--update=other", "--update=tool"]).success();
    assert_eq!(locked(&bench), ["app=2", "lib=2", "other=2", "tool=2"]);
}

#[test]
fn what_is_new_in_the_specs_is_added_and_what_is_locked_stays() {
    let bench = bench();
    bench.build(&[]).success();
    let before = bench.lock_text();
    publish(&bench, true);
    bench.spec("late/image.yaml", "from: base\npackages: [late, other]\n");
    let failed = bench.build(&["--locked"]).failure(1, &["would change:\n  added late=2\n  added image late"]);
    assert!(failed.stderr.contains("hint: "), "{}", failed.stderr);
    assert_eq!(bench.lock_text(), before);
    let built = bench.build(&[]).success();
    assert!(built.stderr.contains("drystone.lock` changed: added late=2, added image late"), "{}", built.stderr);
    assert_eq!(locked(&bench), ["app=1", "late=2", "lib=1", "other=1", "tool=1"]);
    // Nothing but new lines, and those of the archive, which was asked.
    let changed = |line: &&str| !bench.lock_text().contains(*line);
    let changed: Vec<&str> = before.lines().filter(changed).collect();
    assert!(changed.iter().all(|line| line.starts_with("  release ") || line.starts_with("  index ")), "{changed:?}");

    fs::remove_dir_all(bench.at("family/late")).unwrap();
    bench.build(&["--locked"]).failure(1, &["removed late=2", "removed image late"]);
    bench.build(&[]).success();
    assert_eq!(locked(&bench), ["app=1", "lib=1", "other=1", "tool=1"]);
}

#[test]
fn a_version_that_the_archive_no_longer_has_is_an_error_that_says_what_to_do() {
    let bench = bench();
    bench.build(&[]).success();
    publish(&bench, false);
    // What is kept is as good as what is there, also for an image that is new.
    bench.spec("late/image.yaml", "from: app\npackages: [late]\n");
    bench.build(&[]).success();
    assert_eq!(locked(&bench), ["app=1", "late=2", "lib=1", "other=1", "tool=1"]);
    fs::remove_dir_all(bench.at("oci")).unwrap();
    fs::remove_dir_all(bench.at("cache")).unwrap();
    let expected = ["tool 1 is no longer there", "tool_1_amd64.deb does not exist", "`drystone lock --update=tool`"];
    bench.build(&["-j1"]).failure(1, &expected);
    bench.spec("later/image.yaml", "from: app\npackages: [late]\n");
    bench.build(&["-j1"]).failure(1, &expected);
    bench.lock(&["--update"]).success();
    bench.build(&["--locked"]).success();
}

#[test]
fn a_merge_with_conflicts_is_refused_by_builds_and_repaired_by_lock() {
    let bench = bench();
    bench.build(&[]).success();
    let (ours, digests) = (bench.lock_text(), bench.digests());
    publish(&bench, true);
    bench.spec("late/image.yaml", "from: base\npackages: [late]\n");
    bench.lock(&["--update=other"]).success();
    fs::write(bench.at("theirs"), bench.lock_text()).unwrap();
    fs::write(bench.at("base"), ours.replace("\nimage", "\n# the base\nimage")).unwrap();
    let marked = ours.replace("other 1 amd64", "other 1.5 amd64");
    fs::write(bench.at("ours"), &marked).unwrap();
    let at = |name: &str| bench.at(name).into_os_string();
    let merge = ["merge-file".into(), "-p".into(), at("ours"), at("base"), at("theirs")];
    let merged = run(std::process::Command::new("git").args(merge)).stdout;
    assert!(merged.contains("<<<<<<<"), "{merged}");
    fs::write(bench.at("family/drystone.lock"), &merged).unwrap();
    let expected = ["drystone.lock:", "the marks of a merge with conflicts", "`drystone lock` repairs it"];
    bench.build(&[]).failure(2, &expected);
    bench.lock(&[]).success();
    assert!(!bench.lock_text().contains("<<<<<<<"));
    bench.build(&["--locked"]).success();
    assert!(locked(&bench).contains(&"tool=1".to_owned()), "{:?}", locked(&bench));
    assert_ne!(bench.digests(), digests);
}

#[test]
fn what_a_hand_has_broken_is_shown_at_its_line() {
    let bench = bench();
    bench.build(&[]).success();
    let good = bench.lock_text();
    let broken = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        fs::write(bench.at("family/drystone.lock"), good.replacen(from, to, 1)).unwrap();
    };
    broken("drystone-lock 1", "drystone-lock 9");
    bench.build(&[]).failure(2, &["drystone.lock:3:15", "has the format 9", "knows 1"]);
    broken("package app 1", "pakage app 1");
    bench.build(&[]).failure(2, &["drystone.lock:9:1", "`pakage`", "did you mean `package`?"]);
    fs::write(bench.at("family/drystone.lock"), [0xff, 0xfe]).unwrap();
    bench.build(&[]).failure(1, &["cannot read the lock", "drystone.lock"]);
    // A digest that is none of the package's.
    let digest = versions("1")[0].digest().hex();
    broken(&digest, &digest.replace(|digit: char| digit.is_ascii_digit(), "0"));
    bench.build(&[]).failure(1, &["app_1_amd64.deb is not what its index says, or the lock", "hash to", "hint: "]);
}

#[test]
fn a_family_in_a_directory_that_cannot_be_written_is_built_all_the_same() {
    let bench = bench();
    fs::copy(env!("CARGO_BIN_EXE_drystone"), bench.at("drystone")).unwrap();
    users::give(&bench.at(""), users::PLAIN);
    // Somebody else's, who lets others read it.
    users::give(&bench.at("family"), 0);
    let as_plain = |more: &[&str]| {
        let mut program = users::plain(bench.at("drystone"));
        bench.surround(&mut program);
        run(program.args(["build", "family"]).args(more))
    };
    let built = as_plain(&[]).success();
    assert!(built.stderr.contains("cannot write the lock `family/drystone.lock`"), "{}", built.stderr);
    assert!(!bench.at("family/drystone.lock").exists());
    as_plain(&["--lock-file", "elsewhere.lock"]).success();
    as_plain(&["--lock-file", "elsewhere.lock", "--locked"]).success();
}

#[test]
fn files_by_address_are_pinned_where_the_spec_does_not_say_what_they_are() {
    let bench = bench();
    let server = bench.serve();
    fs::write(bench.at("archive/tool.txt"), "first").unwrap();
    let url = format!("{}/tool.txt", server.url());
    bench.spec("app/image.yaml", &format!("from: base\nfiles: [{{url: '{url}', target: /tool.txt}}]\n"));
    bench.build(&[]).success();
    let digest = content::Digest::of(b"first").hex();
    assert!(bench.lock_text().contains(&format!("\nfile {url} 5 {digest}\n")), "{}", bench.lock_text());
    assert_eq!(bench.file("app", "tool.txt").unwrap(), "first");
    fs::write(bench.at("archive/tool.txt"), "other").unwrap();
    bench.build(&["--no-cache", "--locked"]).success();
    assert_eq!(bench.file("app", "tool.txt").unwrap(), "first");
    fs::remove_dir_all(bench.at("cache")).unwrap();
    bench.build(&["--no-cache"]).failure(1, &["app/image.yaml:2:", &format!("expected sha256:{digest}")]);
    assert!(bench.lock(&["--update"]).success().stdout.contains(&format!("changed file {url}")));
    bench.build(&["--locked"]).success();
    assert_eq!(bench.file("app", "tool.txt").unwrap(), "other");
}

#[test]
fn layers_are_cut_as_the_lock_says_whatever_the_layout_held() {
    let bench = crate::build::layers::bench();
    bench.build(&[]).success();
    bench.spec("added/image.yaml", "from: base\npackages: [left, java, new]\n");
    bench.build(&[]).success();
    let (grown, lock) = (bench.digests(), bench.lock_text());
    fs::remove_dir_all(bench.at("oci")).unwrap();
    bench.build(&["--locked"]).success();
    assert_eq!(bench.digests(), grown);
    bench.build(&["--recut", "--locked"]).failure(2, &["--recut"]);
    bench.build(&["--recut"]).success();
    assert_ne!(bench.digests(), grown);
    assert_ne!(bench.lock_text(), lock);
    let anew = bench.digests();
    bench.build(&["--locked"]).success();
    assert_eq!(bench.digests(), anew);
    // A budget of the command line is a trial: the lock keeps what the specs say.
    let lock = bench.lock_text();
    bench.build(&["--layer-budget", "5", "--locked"]).success();
    assert_ne!(bench.digests(), anew);
    assert_eq!(bench.lock_text(), lock);
}

#[test]
fn a_lock_is_of_today_where_nothing_else_is_asked_for_and_a_plan_follows_it() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let plan = |more: &[&str]| run(bench.drystone().args(["plan", "family"]).args(more));
    plan(&[]).success();
    assert!(!bench.at("family/drystone.lock").exists(), "a plan writes nothing");
    plan(&["--locked"]).failure(1, &["there is no lock"]);
    let first = bench.lock(&["--format", "json"]).success();
    let report: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!((&report["packages"], &report["images"]), (&json!(3), &json!(3)));
    fs::remove_dir_all(bench.at("archive")).unwrap();
    let planned = plan(&["--locked"]).success().stdout;
    assert!(planned.contains("3 images, 3 packages"), "{planned}");
    // A link stays a link.
    fs::rename(bench.at("family/drystone.lock"), bench.at("kept.lock")).unwrap();
    std::os::unix::fs::symlink(bench.at("kept.lock"), bench.at("family/drystone.lock")).unwrap();
    bench.archive(debs(), &[]);
    bench.spec("worker/image.yaml", "from: base\n");
    bench.lock(&[]).success();
    assert!(bench.at("family/drystone.lock").is_symlink());
    assert!(tool("cat", [bench.at("kept.lock")]).contains("image worker linux/amd64\n  from base\n"));
}
