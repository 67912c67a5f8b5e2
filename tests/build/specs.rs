//! Specs that are wrong: exit code 2, and the place.

use fixtures::DebBuilder;

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::run;

/// Builds one image with these lines, and expects them to be wrong.
#[track_caller]
fn wrong(image: &str, expected: &[&str]) {
    let bench = Bench::new();
    bench.archive(debs(), &[]).spec("family.yaml", FAMILY).spec("hello/image.yaml", image);
    let failed = bench.build(&[]).failure(2, expected);
    assert!(failed.stdout.is_empty(), "{}", failed.stdout);
    assert!(!bench.at("oci/index.json").exists() || bench.digests().is_empty());
}

#[test]
fn an_unknown_package_is_shown_where_it_is_asked_for_with_a_suggestion() {
    wrong(
        "from: scratch\npackages: [libhello, helo]\n",
        &["no source has a package `helo`", "hello/image.yaml:2:22", "`hello`", "uses the sources: fixture"],
    );
}

#[test]
fn a_version_that_no_source_has_is_shown_with_those_that_there_are() {
    wrong("from: scratch\npackages: [hello=2.0]\n", &["image.yaml:2:12", "version 2.0", "1.0-1"]);
}

#[test]
fn packages_that_conflict_are_both_named() {
    let bench = Bench::with_image("sendmail, postfix");
    let agent = |name| DebBuilder::new(name, "1").field("Provides", "mta").field("Conflicts", "mta");
    bench.archive([agent("postfix").build(), agent("sendmail").build()], &[]);
    bench.build(&[]).failure(2, &["cannot be installed together", "sendmail", "postfix", "hello/image.yaml:2:"]);
}

#[test]
fn an_unmet_dependency_tells_the_chain_that_asked_for_it() {
    let bench = Bench::with_image("outer");
    let outer = DebBuilder::new("outer", "1").depends("middle").build();
    let middle = DebBuilder::new("middle", "2").depends("absent (>= 3)").build();
    bench.archive([outer, middle], &[]);
    bench.build(&[]).failure(2, &["outer", "middle", "absent (>= 3)", "hello/image.yaml:2:"]);
}

#[test]
fn two_packages_with_the_same_file_are_both_named() {
    let bench = Bench::with_image("one, two");
    let package = |name| DebBuilder::new(name, "1").file("usr/bin/tool", 0o755, name).build();
    bench.archive([package("one"), package("two")], &[]);
    bench.build(&[]).failure(1, &["one=1", "two=1", "both ship /usr/bin/tool"]);
    bench.is_whole();
}

#[test]
fn mistakes_in_yaml_are_shown_with_their_line() {
    wrong("from: scratch\npackages: [hello\n", &["hello/image.yaml:", "packages: [hello"]);
    wrong("from: scratch\npackges: [hello]\n", &["hello/image.yaml:2:1", "packges", "`packages`"]);
    wrong("from: scratch\npackages: {hello: 1}\n", &["hello/image.yaml:2:"]);
    wrong("from: debain\n", &["hello/image.yaml:1:7", "debain"]);
    wrong("from: hello\n", &["hello/image.yaml:1:7", "hello"]);
    wrong("\u{0}", &["hello/image.yaml"]);
}

#[test]
fn files_that_are_missing_or_outside_of_the_family_are_shown_where_they_are_named() {
    let entry = |source: &str| format!("from: scratch\nfiles:\n  - {{source: {source}, target: /}}\n");
    wrong(&entry("entrypoint.sh"), &["hello/image.yaml:3:", "entrypoint.sh", "relative to the directory of the image"]);
    wrong(&entry("../../outside"), &["hello/image.yaml:3:", "../../outside"]);
    wrong(&entry("/etc/passwd"), &["hello/image.yaml:3:", "/etc/passwd"]);
}

#[test]
fn a_link_does_not_lead_out_of_the_family() {
    let bench = Bench::new();
    bench.spec("family.yaml", FAMILY).spec("hello/image.yaml", "from: scratch\nfiles: [{source: link, target: /x}]\n");
    std::fs::write(bench.at("secret"), "not for images").unwrap();
    std::os::unix::fs::symlink(bench.at("secret"), bench.at("family/hello/link")).unwrap();
    bench.build(&[]).failure(2, &["hello/image.yaml:2:", "is outside of the family's directory"]);
}

#[test]
fn an_owner_that_the_image_does_not_know_is_shown_where_it_is_named() {
    wrong(
        "from: scratch\npackages: [hello]\nfiles:\n  - {content: x, target: /x, owner: redis}\n",
        &["hello/image.yaml:4:", "redis"],
    );
}

#[test]
fn a_family_without_images_says_so() {
    let bench = Bench::new();
    bench.archive(debs(), &[]).spec("family.yaml", FAMILY);
    bench.build(&[]).failure(2, &["the family `family` has no images", "image.yaml"]);
}

#[test]
fn what_is_no_family_or_no_image_of_it_is_a_mistake_on_the_command_line() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    run(bench.drystone().args(["build", "elsewhere"])).failure(2, &["`elsewhere` is not a family", "family.yaml"]);
    run(bench.drystone().args(["build", "family", "wroker"])).failure(2, &["`wroker`", "app, base, worker"]);
    run(bench.drystone().args(["build", "--no-such-flag"])).failure(2, &["--no-such-flag"]);
    run(bench.drystone().args(["build", "family"]).env("SOURCE_DATE_EPOCH", "today"))
        .failure(2, &["SOURCE_DATE_EPOCH is `today`"]);
}
