//! `drystone bundle`: a family in one file, loaded and built again on a machine that has nothing else.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use fixtures::http::FileServer;
use fixtures::{Deb, DebBuilder};
use serde_json::Value;

use crate::support::family::{Bench, debs, walk};
use crate::support::program::{Finished, drystone, run, tool};

/// A built family with a file by address, whose keyring lies outside of it.
fn bench() -> (Bench, FileServer) {
    let bench = Bench::with_family();
    let mut packages: Vec<Deb> = debs();
    packages.push(DebBuilder::new("spare", "1.0").file("usr/share/spare", 0o644, "spare").build());
    bench.archive(packages, &[]);
    fs::create_dir(bench.at("keyrings")).unwrap();
    fs::rename(bench.at("family/archive.gpg"), bench.at("keyrings/archive.gpg")).unwrap();
    let family = fs::read_to_string(bench.at("family/family.yaml")).unwrap();
    bench.spec("family.yaml", &family.replace("archive.gpg", "../keyrings/archive.gpg"));
    fs::write(bench.at("archive/notes.txt"), "notes\n").unwrap();
    let server = bench.serve();
    let sha256 = content::Digest::of(b"notes\n").hex();
    let files = format!("from: app\nfiles: [{{url: \"{}/notes.txt\", sha256: {sha256}, target: /}}]\n", server.url());
    bench.spec("worker/image.yaml", &files);
    bench.build(&["--sbom", "spdx"]).success();
    (bench, server)
}

fn save(bench: &Bench, file: &str, more: &[&str]) -> Finished {
    run(bench.drystone().args(["bundle", "save", file, "family"]).args(more))
}

/// The binary on a machine of its own: another directory, an empty cache and layout, no mirror.
fn elsewhere(directory: &Path) -> Command {
    let mut command = drystone();
    command.current_dir(directory).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", directory);
    command
}

/// A registry over a layout of its own, and a push to it. The port is free, since nobody else is in the namespace.
const SERVE_AND_PUSH: &str = "\
umoci init --layout other
\"$0\" serve --layout other --listen 127.0.0.1:5199 &
curl --silent --output /dev/null --retry 50 --retry-connrefused --retry-delay 1 http://127.0.0.1:5199/v2/
\"$0\" push --to 127.0.0.1:5199
code=$?
kill $!
exit $code
";

/// Another program in the surroundings of a command.
fn with_program(command: &Command, program: &str, arguments: &[&str]) -> Command {
    let mut other = Command::new(program);
    other.args(arguments).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other.current_dir(command.get_current_dir().expect("the test says where"));
    other
}

/// A command where there is no network but loopback.
fn without_network(command: &Command) -> Command {
    let mut alone = Command::new("unshare");
    alone.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(command.get_program());
    let arguments: Vec<&str> = alone.get_args().chain(command.get_args()).filter_map(OsStr::to_str).collect();
    with_program(command, "unshare", &arguments)
}

#[test]
fn a_family_is_loaded_changed_built_and_served_where_there_is_no_network() {
    let (bench, server) = bench();
    save(&bench, "family.bundle", &["--with-sources"]).success();
    drop(server);
    let there = tempfile::tempdir().unwrap();
    let bundle = bench.at("family.bundle");
    let load = |more: &[&str]| {
        let mut command = elsewhere(there.path());
        run(without_network(command.args(["bundle", "load"]).arg(&bundle).args(more)).current_dir(there.path()))
    };
    let loaded = load(&[]).success();
    assert_eq!(loaded.stdout.lines().count(), 3, "{}", loaded.stdout);
    let index = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(index(&there.path().join("oci/index.json")), index(&bench.at("oci/index.json")));
    // Loaded again, nothing is different.
    assert_eq!(load(&[]).success().stdout, loaded.stdout);
    // Built from the sources alone, into an empty layout.
    let mut build = elsewhere(there.path());
    let built = run(&mut without_network(build.args(["build", "family", "--layout", "again"]))).success();
    let mut digests: Vec<&str> = built.stdout.lines().collect();
    digests.sort_unstable();
    assert_eq!(digests, loaded.stdout.lines().collect::<Vec<_>>());
    // Pushed to a registry on loopback, all within one network namespace.
    let shell = with_program(&elsewhere(there.path()), "sh", &["-c", SERVE_AND_PUSH, env!("CARGO_BIN_EXE_drystone")]);
    let pushed = run(&mut without_network(&shell)).success();
    assert_eq!(pushed.stdout, loaded.stdout.replace("localhost:5100", "127.0.0.1:5199"));
    assert!(pushed.stderr.contains("pushed 3 images, 0 were there"), "{}", pushed.stderr);
    // Changed and built again; a package that did not come along is told of.
    fs::write(there.path().join("family/app/entrypoint.sh"), "#!/bin/sh\nexec echo \"$@\"\n").unwrap();
    let build = || {
        let mut build = elsewhere(there.path());
        run(&mut without_network(build.args(["build", "family"])))
    };
    let changed = build().success();
    assert!(changed.stderr.contains("built 2 of 3 images"), "{}", changed.stderr);
    let image = there.path().join("family/base/image.yaml");
    fs::write(&image, fs::read_to_string(&image).unwrap().replace("[hello]", "[hello, spare]")).unwrap();
    build().failure(1, &["spare_1.0", "does not exist"]);
    load(&[]).failure(1, &["was changed since it was loaded (`drystone/family/app/entrypoint.sh`)"]);
}

#[test]
fn a_bundle_is_an_archive_of_images_with_the_specs_beside_and_little_more() {
    let (bench, _server) = bench();
    save(&bench, "plain.bundle", &[]).success();
    let first = fs::read(bench.at("plain.bundle")).unwrap();
    save(&bench, "plain.bundle", &[]).success();
    assert!(fs::read(bench.at("plain.bundle")).unwrap() == first, "the same family gave another bundle");
    let source = format!("oci-archive:{}:localhost:5100/app:v1", bench.at("plain.bundle").display());
    let inspected: Value = serde_json::from_str(&tool("skopeo", ["inspect", &source])).unwrap();
    assert_eq!(inspected["Labels"]["role"], "app");
    let listed = run(Command::new("tar").arg("-tf").arg(bench.at("plain.bundle"))).success().stdout;
    for expected in ["oci-layout", "drystone/family/app/entrypoint.sh", "drystone/keyrings/archive.gpg"] {
        assert!(listed.lines().any(|line| line == expected), "no {expected} in {listed}");
    }
    assert!(!listed.contains("mirror/"), "{listed}");
    save(&bench, "sources.bundle", &["--with-sources"]).success();
    let bytes =
        |paths: Vec<std::path::PathBuf>| paths.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    let debs = walk(&bench.at("cache/debs")).into_iter().collect();
    let content = bytes(walk(&bench.at("oci/blobs"))) + bytes(debs);
    let size = fs::metadata(bench.at("sources.bundle")).unwrap().len();
    // The specs, the list, and what tar takes for each file.
    assert!(size < content + 80_000, "{size} for {content}");
    let described = run(bench.drystone().args(["bundle", "inspect", "sources.bundle", "--format", "json"])).success();
    let described: Value = serde_json::from_str(&described.stdout).unwrap();
    assert_eq!((&described["family"], &described["with_sources"]), (&"family".into(), &true.into()));
    assert_eq!(described["contents"]["blobs"]["files"], walk(&bench.at("oci/blobs")).len());
    assert_eq!(described["images"].as_array().unwrap().len(), 3);
}

#[test]
fn a_later_bundle_has_only_what_the_earlier_one_lacks_and_needs_it() {
    let (bench, _server) = bench();
    save(&bench, "old.bundle", &["--with-sources"]).success();
    bench.spec("app/entrypoint.sh", "#!/bin/sh\nexec echo \"$@\"\n");
    bench.build(&["--sbom", "spdx"]).success();
    let saved = save(&bench, "new.bundle", &["--with-sources", "--since", "old.bundle"]).success();
    assert!(saved.stderr.contains("more are in the earlier bundle"), "{}", saved.stderr);
    let size = |file: &str| fs::metadata(bench.at(file)).unwrap().len();
    assert!(size("new.bundle") < size("old.bundle") / 4, "{} after {}", size("new.bundle"), size("old.bundle"));
    let there = tempfile::tempdir().unwrap();
    let load = |file: &str| run(elsewhere(there.path()).args(["bundle", "load"]).arg(bench.at(file)));
    load("new.bundle").failure(1, &["what it builds on is not here", "load the bundle that was named with --since"]);
    load("old.bundle").success();
    load("new.bundle").success();
    let index = |path: &Path| fs::read_to_string(path).unwrap();
    let named = |text: String| text.matches("localhost:5100/app:v1").count();
    assert_eq!(named(index(&there.path().join("oci/index.json"))), 1);
    let script = fs::read_to_string(there.path().join("family/app/entrypoint.sh")).unwrap();
    assert!(script.contains("exec echo"), "{script}");
    let built = run(elsewhere(there.path()).args(["build", "family", "--layout", "again"])).success();
    assert_eq!(built.stdout, bench.build(&[]).success().stdout);
}

#[test]
fn what_is_missing_or_no_bundle_is_told() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    save(&bench, "x", &[]).failure(1, &["drystone build"]);
    bench.build(&["base"]).success();
    save(&bench, "x", &[]).failure(1, &["localhost:5100/app:v1 is not in the layout", "`drystone build` makes it"]);
    bench.build(&["base", "--output", "type=oci-archive,dest=images.tar"]).success();
    fs::write(bench.at("text"), "no bundle").unwrap();
    let there = tempfile::tempdir().unwrap();
    for (file, expected) in
        [("images.tar", "an archive of images, but not a bundle"), ("text", "cannot be read"), ("no", "No such file")]
    {
        run(elsewhere(there.path()).args(["bundle", "load"]).arg(bench.at(file))).failure(1, &[expected]);
    }
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0, "something was left behind");
}
