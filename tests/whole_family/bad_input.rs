//! What people write by mistake: exit code 2, the line, and what would be right.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fixtures::{AptRepository, DebBuilder};

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::free_port;

/// A family whose only source is the fixture archive, and an image `app` with these lines.
fn bench(image: &str) -> Bench {
    let bench = Bench::new();
    bench.archive(debs(), &[]).spec("family.yaml", FAMILY).spec("app/image.yaml", image);
    bench
}

#[test]
fn an_entry_point_without_its_execute_bit_is_shown_where_it_is_put_in() {
    let script = "#!/bin/sh\nexec \"$@\"\n";
    for (files, entrypoint, place) in [
        ("{source: start.sh, target: /}", "[/start.sh, --now]", "app/image.yaml:3:5"),
        ("{source: start.sh, target: /bin/start}", "[/bin/start]", "app/image.yaml:3:5"),
        ("{source: ../app/scripts, target: /scripts}", "[/scripts/deep/start.sh]", "app/image.yaml:3:5"),
        ("{content: x, target: /start}", "[/start]", "app/image.yaml:3:5"),
        ("{content: x, target: /start, mode: \"0640\"}", "[/start]", "app/image.yaml:3:40"),
        ("{content: x, target: /start, mode: \"0640\"}", "/start --now", "app/image.yaml:3:40"),
    ] {
        let bench = bench(&format!("from: scratch\nfiles:\n  - {files}\nentrypoint: {entrypoint}\n"));
        bench.spec("app/start.sh", script).spec("app/scripts/deep/start.sh", script);
        let expected = [place, "cannot be executed: its mode is 06", "started here", "add `mode: \"0755\"`"];
        bench.build(&[]).failure(2, &expected);
        assert_eq!(bench.digests(), "");
    }
}

#[test]
fn an_entry_point_that_can_be_executed_or_that_nobody_knows_better_is_no_mistake() {
    for (files, entrypoint) in [
        ("{source: start.sh, target: /, mode: \"0755\"}", "[/start.sh]"),
        ("{source: executable.sh, target: /}", "[/executable.sh]"),
        ("{source: start.sh, target: /}", "[/bin/sh, /start.sh]"),
        ("{content: x, target: /data/start}", "[/start]"),
        ("{link: /usr/bin/hello, target: /start}", "[/start]"),
        ("{content: x, target: /start}\n  - {content: x, target: /start, mode: \"0700\"}", "[/start]"),
    ] {
        let bench = bench(&format!("from: scratch\nfiles:\n  - {files}\nentrypoint: {entrypoint}\n"));
        bench.spec("app/start.sh", "#!/bin/sh\n").spec("app/executable.sh", "#!/bin/sh\n");
        fs::set_permissions(bench.at("family/app/executable.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        bench.build(&[]).success();
    }
    // A command may change the mode; this one cannot run, for there is no shell, which is another mistake.
    let bench = bench("from: scratch\nfiles: [{content: x, target: /x}]\nrun: [chmod +x /x]\nentrypoint: [/x]\n");
    let failed = bench.build(&[]);
    assert!(failed.code != Some(0) && !failed.stderr.contains("cannot be executed: its mode"), "{}", failed.stderr);
}

#[test]
fn a_label_with_an_invalid_key_is_shown_with_its_line() {
    for key in ["\"net juniper\"", "\"\"", "\"a=b\""] {
        let image = format!("from: scratch\nlabels:\n  fine: x\n  {key}: y\n");
        bench(&image).build(&[]).failure(2, &["app/image.yaml:4:3", key.trim_matches('"')]);
    }
}

#[test]
fn a_package_of_a_source_that_the_image_does_not_use_is_shown_with_the_sources_that_it_does() {
    let bench = bench("from: scratch\npackages: [hello, elsewhere]\n");
    let packages = [DebBuilder::new("elsewhere", "1").build()];
    AptRepository::new().packages(packages).write_flat(&bench.at("flat"), "amd64").unwrap();
    let source = format!(
        "  other: {{type: apt, url: \"file://{}\", flat: amd64/, trusted: true}}\n",
        bench.at("flat").display()
    );
    bench.spec("family.yaml", &FAMILY.replace("defaults:\n", &format!("{source}defaults:\n")));
    let expected = [
        "app/image.yaml:2:19",
        "no source has a package `elsewhere`",
        "uses the sources: fixture; the family has others: other",
    ];
    bench.build(&[]).failure(2, &expected);
    bench.spec("app/image.yaml", "from: scratch\npackages: [hello, elsewhere]\nsources: [fixture, other]\n");
    bench.build(&[]).success();
}

#[test]
fn a_parent_outside_of_the_family_is_an_error_at_its_line() {
    // Outside of the family, a parent is an image of a registry; here, nobody listens.
    let elsewhere = format!("127.0.0.1:{}/base:v1", free_port());
    for (parent, code) in [("../other/base", 2), (elsewhere.as_str(), 1)] {
        let bench = bench(&format!("# a comment\nfrom: {parent}\n"));
        bench.spec("base/image.yaml", "from: scratch\n");
        fs::create_dir_all(bench.at("other/base")).unwrap();
        fs::write(bench.at("other/family.yaml"), FAMILY).unwrap();
        fs::write(bench.at("other/base/image.yaml"), "from: scratch\n").unwrap();
        bench.build(&[]).failure(code, &["app/image.yaml:2:7", parent]);
        assert_eq!(bench.digests(), "", "{parent}");
    }
}

#[test]
fn two_images_with_the_same_name_are_both_shown() {
    let bench = bench("from: scratch\n");
    bench.spec("other/image.yaml", "name: app\nfrom: scratch\n");
    bench.build(&[]).failure(2, &["other/image.yaml:1:7", "app"]);
}
