//! What is said of layers: `plan` before a build, the closing line of one, `images --sharing` and `inspect` after it.

use std::collections::BTreeMap;
use std::time::Duration;

use fixtures::DebBuilder;
use serde_json::{Value, json};

use crate::build::layers::{bench, debs};
use crate::support::family::{Bench, noise, read_json, walk};
use crate::support::program::{Background, Finished, eventually, free_port, run, tool};

fn plan(bench: &Bench, more: &[&str]) -> Finished {
    run(bench.drystone().args(["plan", "family"]).args(more)).success()
}

fn planned(bench: &Bench, more: &[&str]) -> Value {
    serde_json::from_str(&plan(bench, &[&["--format", "json"], more].concat()).stdout).unwrap()
}

fn image<'p>(plan: &'p Value, name: &str) -> &'p Value {
    plan["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap()
}

#[test]
fn a_plan_names_the_layers_and_who_shares_them_and_builds_nothing() {
    let bench = bench();
    let plan = planned(&bench, &[]);
    let right = image(&plan, "right");
    assert_eq!((&right["parent"], &right["packages"]), (&json!("base"), &json!({"state": "new"})));
    // The scripts of the base and of the image itself.
    assert_eq!(right["other_layers"], 2);
    let layers = right["layers"].as_array().unwrap();
    let ssl = layers.iter().find(|layer| layer["packages"] == json!(["ssl=1"])).unwrap();
    assert_eq!((&ssl["shared_with"], &ssl["measure"]), (&json!(["left", "other"]), &json!("debs")));
    assert_eq!(plan["totals"]["packages"], 7);
    assert_eq!(plan["totals"]["planned"], plan["totals"]["packages_once"]);
    assert_eq!(plan["totals"]["not_in_layout"], 4);
    assert!(!bench.at("oci").exists() && walk(&bench.at("cache/debs")).is_empty());

    let some = planned(&bench, &["left"]);
    let names: Vec<&Value> = some["images"].as_array().unwrap().iter().map(|image| &image["name"]).collect();
    assert_eq!(names, ["base", "left"]);
    // Cut as for the whole family.
    let packages = |plan: &Value| image(plan, "left")["layers"].as_array().unwrap().len();
    assert_eq!(packages(&some), packages(&plan));
}

#[test]
fn the_sums_of_a_plan_are_those_of_the_layers_that_were_built() {
    let bench = bench();
    let built = bench.build(&["--metadata-file", "metadata.json"]).success();
    let plan = planned(&bench, &[]);
    let metadata = read_json(&bench.at("metadata.json"));
    let (mut once, mut own) = (BTreeMap::new(), BTreeMap::new());
    for layer in metadata["images"].as_array().unwrap().iter().flat_map(|image| image["layers"].as_array().unwrap()) {
        let sizes = if layer["packages"].as_array().unwrap().is_empty() { &mut own } else { &mut once };
        sizes.insert(layer["digest"].as_str().unwrap(), layer["size"].as_u64().unwrap());
    }
    let totals = &plan["totals"];
    assert_eq!(totals["planned"], once.values().sum::<u64>());
    assert_eq!(totals["layout_own_layers"], own.values().sum::<u64>());
    assert_eq!(totals["not_in_layout"], 0);
    let blobs: u64 = walk(&bench.at("oci/blobs")).iter().map(|blob| blob.metadata().unwrap().len()).sum();
    assert_eq!(totals["layout_blobs"], blobs);
    let sum = |name: &str| totals[name].as_u64().unwrap();
    assert!(sum("whole") > sum("shared_by_parent") && sum("shared_by_parent") > sum("planned"), "{totals}");
    // Directories and the ends of archives are all that a layer has besides its segments.
    assert!(sum("planned") >= sum("packages_once") && sum("planned") < sum("packages_once") + 7000, "{totals}");
    for image in plan["images"].as_array().unwrap() {
        assert_eq!(image["packages"], json!({"state": "same"}), "{image}");
        assert!(image["layers"].as_array().unwrap().iter().all(|layer| layer["measure"] == "layout"), "{image}");
    }
    assert!(
        built.stderr.contains("stored (whole ") && built.stderr.contains(", shared by parent "),
        "{}",
        built.stderr
    );
}

#[test]
fn a_plan_says_which_packages_differ_from_the_layouts() {
    let bench = bench();
    bench.build(&[]).success();
    bench.archive(debs().into_iter().chain([DebBuilder::new("java", "2").build()]), &[]);
    bench.lock(&["--update=java"]).success();
    bench.spec("left/image.yaml", "from: base\npackages: [shared, left, new]\n");
    let plan = planned(&bench, &[]);
    assert_eq!(image(&plan, "base")["packages"], json!({"state": "same"}));
    let expected = json!({"state": "changed", "added": ["java=2"], "removed": ["java=1"]});
    assert_eq!(image(&plan, "right")["packages"], expected);
    let expected = json!({"state": "changed", "added": ["new=1"], "removed": ["ssl=1"]});
    assert_eq!(image(&plan, "left")["packages"], expected);
    let text = self::plan(&bench, &[]).stdout;
    assert!(text.contains("right from base: packages differ from the layout's: + java=2 - java=1\n"), "{text}");
    assert!(text.contains("base: packages as in the layout\n"), "{text}");
    assert!(text.lines().any(|line| line.contains("ssl") && line.ends_with("also in right")), "{text}");
    assert!(text.contains("4 images, 8 packages in 8 layers; whole "), "{text}");
}

#[test]
fn a_plan_says_which_steps_would_run_and_why() {
    let bench = bench();
    let runs = |plan: &Value, name: &str| -> Vec<String> {
        let steps = image(plan, name)["rebuild"].as_array().unwrap().iter();
        steps
            .map(|step| {
                format!("{} {}", step["kind"].as_str().unwrap(), step["reasons"][0]["reason"].as_str().unwrap())
            })
            .collect()
    };
    let before = planned(&bench, &[]);
    assert_eq!(runs(&before, "base"), ["packages new", "configure new", "config new"]);
    bench.build(&[]).success();
    let built = planned(&bench, &[]);
    for name in ["base", "left", "right", "other"] {
        assert_eq!(runs(&built, name), [""; 0], "{name}");
    }
    assert!(plan(&bench, &[]).stdout.contains("nothing would run\n"));
    bench.spec("other/image.yaml", "from: base\npackages: [other, java, ssl]\nfiles: [{content: y, target: /x}]\n");
    let changed = planned(&bench, &[]);
    assert_eq!(runs(&changed, "other"), ["files input"]);
    assert_eq!(runs(&changed, "left"), [""; 0]);
    let text = plan(&bench, &[]).stdout;
    assert!(text.contains("  runs: files (") && text.contains("\n1 step would run\n"), "{text}");
}

#[test]
fn a_plan_says_what_a_push_would_send() {
    let bench = bench();
    let registry = Bench::new();
    let address = format!("127.0.0.1:{}", free_port());
    let more = ["--registry", address.as_str()];
    // Nobody listens there.
    let alone = plan(&bench, &more);
    assert!(alone.stderr.contains(&format!("what a push would send is not known: {address}: ")), "{}", alone.stderr);
    assert_eq!(planned(&bench, &more)["totals"]["upload"], Value::Null);
    let _serving = Background::start(registry.drystone().args(["serve", "--listen", &address]));
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    let empty = planned(&bench, &more);
    assert_eq!(empty["totals"]["upload"], empty["totals"]["planned"]);
    let left = &image(&empty, "left")["upload"];
    assert_eq!((&left["unchanged"], &left["layers"], &left["unknown_layers"]), (&json!(false), &json!(4), &json!(2)));

    bench.build(&more).success();
    let built = planned(&bench, &more);
    let blobs = &built["totals"];
    let layers = blobs["planned"].as_u64().unwrap() + blobs["layout_own_layers"].as_u64().unwrap();
    assert_eq!(blobs["upload"], layers);
    run(bench.drystone().args(["push"])).success();
    let pushed = planned(&bench, &more);
    assert_eq!(pushed["totals"]["upload"], 0);
    for name in ["base", "left", "right", "other"] {
        let expected = json!({"unchanged": true, "layers": 0, "bytes": 0, "unknown_layers": 0});
        assert_eq!(image(&pushed, name)["upload"], expected, "{name}");
    }

    let java = DebBuilder::new("java", "2").file("usr/share/java/data", 0o644, noise(50_000)).build();
    bench.archive(debs().into_iter().chain([java]), &[]);
    bench.lock(&["--update"]).success();
    let changed = planned(&bench, &more);
    assert_eq!(image(&changed, "left")["upload"]["unchanged"], true);
    let right = &image(&changed, "right")["upload"];
    assert_eq!((&right["unchanged"], &right["layers"]), (&json!(false), &json!(1)));
    assert!((50_000..60_000).contains(&right["bytes"].as_u64().unwrap()), "{right}");
    assert_eq!(changed["totals"]["upload"], right["bytes"]);
    let text = plan(&bench, &more).stdout;
    assert!(text.contains("  push: nothing\n") && text.contains("  push: 1 layer, "), "{text}");
    assert!(text.contains("and what steps make, and change 2 images\n"), "{text}");
}

#[test]
fn a_graph_has_the_images_their_parents_and_the_layers_that_images_lay() {
    let bench = bench();
    let graph = plan(&bench, &["--format", "dot"]).stdout;
    assert!(graph.starts_with("digraph family {\n") && graph.ends_with("}\n"), "{graph}");
    assert!(graph.contains("  \"base\" -> \"left\";\n"), "{graph}");
    let ssl = graph.lines().find(|line| line.contains("label=\"ssl=1\\n")).unwrap();
    let id = ssl.split('"').nth(1).unwrap();
    assert_eq!(graph.matches(&format!("\"{id}\" -> ")).count(), 3, "{graph}");
}

#[test]
fn a_plan_keeps_to_a_budget_or_says_that_it_cannot() {
    let bench = bench();
    let plan = planned(&bench, &["--layer-budget", "3"]);
    for image in plan["images"].as_array().unwrap() {
        let layers = image["layers"].as_array().unwrap().len() as u64 + image["other_layers"].as_u64().unwrap();
        assert!(layers <= 3, "{image}");
    }
    assert!(plan["totals"]["planned"].as_u64() > plan["totals"]["packages_once"].as_u64());
    run(bench.drystone().args(["plan", "family", "--layer-budget", "1"]))
        .failure(2, &["needs 2 layers, and may have 1"]);
}

#[test]
fn images_say_how_much_of_them_others_have() {
    let bench = bench();
    bench.build(&[]).success();
    let listed = run(bench.drystone().args(["images", "--sharing", "--format", "json"])).success();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let images = listed["images"].as_array().unwrap();
    let sum = |image: &Value, name: &str| image[name].as_u64().unwrap();
    for image in images {
        assert_eq!(sum(image, "shared_size") + sum(image, "unique_size"), sum(image, "virtual_size"), "{image}");
    }
    let unique: BTreeMap<&str, u64> =
        images.iter().map(|image| (image["repository"].as_str().unwrap(), sum(image, "unique_size"))).collect();
    // Every child has the whole base; `left` has 40 kB of its own, and what it shares is not counted.
    assert_eq!(unique["localhost:5100/base"], 0);
    assert!((40_000..50_000).contains(&unique["localhost:5100/left"]), "{unique:?}");
    let whole: u64 = images.iter().map(|image| sum(image, "virtual_size")).sum();
    assert_eq!(listed["totals"]["virtual_size"], whole);
    assert!(sum(&listed["totals"], "layers_once") < whole / 2);
    let table = run(bench.drystone().args(["images", "--sharing"])).success().stdout;
    assert!(table.lines().next().unwrap().ends_with("VIRTUAL SIZE   SHARED SIZE   UNIQUE SIZE"), "{table}");
    assert!(table.contains("4 images: ") && table.contains(" with each layer once\n"), "{table}");
    run(bench.drystone().args(["images", "--sharing", "--format", "{{.ID}}"])).failure(2, &["`table` and `json`"]);
}

#[test]
fn inspect_shows_which_packages_are_in_which_layer_whoever_made_the_manifest() {
    let bench = bench();
    bench.build(&[]).success();
    let shown = run(bench.drystone().args(["inspect", "left", "--layers"])).success().stdout;
    let below = |text: &str, package: &str| {
        let lines: Vec<&str> = text.lines().collect();
        let place = lines.iter().position(|line| line.trim() == package).unwrap_or_else(|| panic!("{package}: {text}"));
        lines[..place].iter().rev().find(|line| !line.starts_with(' ')).unwrap().to_string()
    };
    assert!(below(&shown, "ssl=1").ends_with("drystone: 1 package"), "{shown}");
    assert_ne!(below(&shown, "ssl=1"), below(&shown, "shared=1"));

    // Another tool's manifest has no annotations.
    let archive = format!("docker-archive:{}", bench.at("left.tar").display());
    let source = format!("oci:{}:localhost:5100/left:v1", bench.at("oci").display());
    tool("skopeo", ["copy", "--insecure-policy", &source, &format!("{archive}:localhost:5100/left:v1")]);
    let target = format!("oci:{}:localhost:5100/left:v1", bench.at("foreign").display());
    tool("skopeo", ["copy", "--insecure-policy", &archive, &target]);
    let foreign = run(bench.drystone().args(["inspect", "left", "--layers", "--layout", "foreign"])).success().stdout;
    assert!(!foreign.contains("ssl=1"), "{foreign}");
    assert_ne!(below(&foreign, "ssl"), below(&foreign, "shared"));

    let documents = run(bench.drystone().args(["inspect", "localhost:5100/left:v1"])).success().stdout;
    let documents: Value = serde_json::from_str(&documents).unwrap();
    assert_eq!(documents["manifest"], bench.manifest("left"));
    assert_eq!(documents["config"]["os"], "linux");
    run(bench.drystone().args(["inspect", "absent"])).failure(1, &["no image in", "is called `absent`"]);
    run(bench.drystone().args(["inspect", "*t"])).failure(2, &["means several images"]);
}
