//! Families as graphs: what is built for a name, what a failure stops, and how long thinking takes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::family::Bench;

const FAMILY: &str = "drystone: 1\nregistry: localhost:5100\ntag: v1\n";

/// A file of its own, so that the image has a layer.
fn with_file(parent: &str, name: &str) -> String {
    format!("from: {parent}\nfiles: [{{content: {name}, target: /{name}}}]\n")
}

/// Two families in one: `nova` with two leaves that only change the configuration, and `cinder` with one.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.spec("family.yaml", FAMILY).spec("base/image.yaml", &with_file("scratch", "base"));
    for name in ["nova", "cinder"] {
        bench.spec(&format!("{name}/image.yaml"), &with_file("base", name));
    }
    for (leaf, parent) in [("nova-api", "nova"), ("nova-cert", "nova"), ("cinder-api", "cinder")] {
        bench.spec(&format!("{leaf}/image.yaml"), &format!("from: {parent}\ncmd: [{leaf}]\n"));
    }
    bench
}

/// The names of the images in the layout.
fn built(bench: &Bench) -> Vec<String> {
    let digests = bench.digests();
    let name = |line: &str| line.trim_start_matches("localhost:5100/").split(':').next().unwrap().to_owned();
    let mut names: Vec<String> = digests.lines().map(name).collect();
    names.sort();
    names
}

#[test]
fn one_image_is_built_with_its_parents_and_nothing_else() {
    let bench = bench();
    let said = bench.build(&["nova-api"]).success();
    assert_eq!(built(&bench), ["base", "nova", "nova-api"]);
    assert_eq!(said.stdout.lines().count(), 3, "{}", said.stdout);
    assert!(said.stderr.contains("built 3 of 3 images"), "{}", said.stderr);
}

#[test]
fn patterns_choose_images_and_their_parents_come_along() {
    for (patterns, expected) in [
        (&["nova*"][..], &["base", "nova", "nova-api", "nova-cert"][..]),
        (&["*-api"], &["base", "cinder", "cinder-api", "nova", "nova-api"]),
        (&["cinder", "nova-c?rt"], &["base", "cinder", "nova", "nova-cert"]),
        (&["*"], &["base", "cinder", "cinder-api", "nova", "nova-api", "nova-cert"]),
    ] {
        let bench = bench();
        bench.build(patterns).success();
        assert_eq!(built(&bench), expected, "{patterns:?}");
    }
}

#[test]
fn a_parent_is_the_one_of_the_graph_and_never_what_the_layout_has_under_its_name() {
    let bench = bench();
    bench.build(&[]).success();
    let stale = bench.manifest("base")["layers"].clone();
    bench.spec("base/image.yaml", &with_file("scratch", "changed"));
    bench.build(&["nova-cert"]).success();
    let layers = bench.manifest("nova-cert")["layers"].clone();
    assert_ne!(layers[0], stale[0]);
    assert_eq!(layers[0], bench.manifest("base")["layers"][0]);
    assert_eq!(bench.file("nova-cert", "changed").as_deref(), Some("changed"));
    assert_eq!(bench.file("nova-cert", "base"), None);
    // What was not asked for is still the earlier one.
    assert_eq!(bench.manifest("cinder")["layers"][0], stale[0]);
}

#[test]
fn a_failed_image_stops_its_children_and_no_one_else_and_the_summary_says_which_and_why() {
    let bench = bench();
    bench.spec("nova/image.yaml", "from: base\nfiles: [{source: absent, target: /}]\n");
    let failed = bench.build(&["--keep-going"]).failure(
        2,
        &["nova/image.yaml:2:18", "No such file", "1 image could not be built: nova (not tried: nova-api, nova-cert)"],
    );
    assert!(failed.stdout.is_empty(), "{}", failed.stdout);
    assert_eq!(built(&bench), ["base", "cinder", "cinder-api"]);

    // A second failure, of another kind: all reasons, then the summary.
    bench.spec("cinder-api/image.yaml", "from: cinder\nrun: [\"true\"]\n");
    let failed = bench.build(&["--keep-going"]).failure(
        1,
        &["nova/image.yaml:2:18", "error: cinder-api: ", "2 images could not be built: nova, cinder-api (not tried: "],
    );
    let last = failed.stderr.trim_end().lines().next_back().unwrap();
    assert!(last.starts_with("error: 2 images could not be built"), "{}", failed.stderr);
}

#[test]
fn without_keep_going_a_failure_names_nothing() {
    let bench = bench();
    bench.spec("nova/image.yaml", "from: base\nfiles: [{source: absent, target: /}]\n");
    let summary = "1 image could not be built: nova (not tried: cinder-api, nova-api, nova-cert)";
    bench.build(&["--jobs", "1"]).failure(2, &["No such file", summary]);
    assert!(built(&bench).is_empty());
}

/// Chains and breadths of images that only change the configuration: what is measured is the thinking.
#[test]
fn two_hundred_images_take_well_under_a_second() {
    let chain = |place: usize| if place == 0 { "scratch".to_owned() } else { format!("image-{:03}", place - 1) };
    let beside = |place: usize| if place == 0 { "scratch".to_owned() } else { "image-000".to_owned() };
    for parent in [&chain as &dyn Fn(usize) -> String, &beside] {
        let bench = Bench::new();
        bench.spec("family.yaml", FAMILY);
        let mut expected = String::new();
        for place in 0..200 {
            let parent = parent(place);
            bench.spec(
                &format!("image-{place:03}/image.yaml"),
                &format!("from: {parent}\nlabels: {{place: \"{place}\"}}\n"),
            );
            writeln!(expected, "image-{place:03}").unwrap();
        }
        // The last entry point is wrong, which is known only when everything has been thought through.
        bench.spec(
            "image-199/image.yaml",
            &format!("from: {}\nfiles: [{{content: x, target: /x}}]\nentrypoint: [/x]\n", parent(199)),
        );
        let started = Instant::now();
        bench.build(&[]).failure(2, &["image-199/image.yaml:2:", "`/x` cannot be executed"]);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(700), "{took:?}");

        bench.spec("image-199/image.yaml", &format!("from: {}\n", parent(199)));
        bench.build(&[]).success();
        assert_eq!(built(&bench).join("\n") + "\n", expected);
    }
}
