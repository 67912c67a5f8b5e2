//! Layers cut across a family: what is shared is stored once, whatever lies below it, and stays as it was cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::Duration;

use fixtures::{Deb, DebBuilder, Owner, TarEntry};
use serde_json::Value;

use crate::family::tree_of;
use crate::support::family::{Bench, FAMILY, noise, read_json};
use crate::support::program::{Background, eventually, free_port, run, tool};

/// Packages of their own size each, so that it shows which one is stored twice.
pub fn debs() -> Vec<Deb> {
    let sizes =
        [("libc", 9), ("shared", 7), ("ssl", 3), ("java", 5), ("left", 2), ("right", 1), ("other", 4), ("new", 6)];
    let deb = |(name, size): (&str, usize)| {
        let content = noise(size * 20_000).into_iter().rev().chain(name.bytes()).collect::<Vec<u8>>();
        DebBuilder::new(name, "1").file(&format!("usr/share/{name}/data"), 0o644, content).build()
    };
    sizes.into_iter().map(deb).collect()
}

/// Three images on one base, two of which share with each other what the third does not need.
pub fn bench() -> Bench {
    let bench = Bench::new();
    bench
        .archive(debs(), &[])
        .spec("family.yaml", FAMILY)
        .spec("base/image.yaml", "from: scratch\npackages: [libc]\n")
        .spec("left/image.yaml", "from: base\npackages: [shared, ssl, left]\n")
        .spec("right/image.yaml", "from: base\npackages: [right, java, ssl, shared]\n")
        .spec("other/image.yaml", "from: base\npackages: [other, java, ssl]\nfiles: [{content: x, target: /x}]\n");
    bench
}

/// The digests of an image's layers with the packages in each, from the manifest.
fn layers(bench: &Bench, image: &str) -> Vec<(String, String)> {
    let manifest = bench.manifest(image);
    let layer = |layer: &Value| {
        let packages = layer["annotations"]["dev.drystone.layer.packages"].as_str().unwrap_or_default();
        (layer["digest"].as_str().unwrap().to_owned(), packages.to_owned())
    };
    manifest["layers"].as_array().unwrap().iter().map(layer).collect()
}

fn packages(bench: &Bench, image: &str) -> Vec<String> {
    layers(bench, image).into_iter().map(|(_, packages)| packages).collect()
}

#[test]
fn a_package_that_several_images_need_is_in_one_layer_that_all_of_them_have() {
    let bench = bench();
    bench.build(&["--metadata-file", "metadata.json"]).success();
    // The last layer of each step is what installing the packages changed.
    assert_eq!(packages(&bench, "base"), ["libc=1", ""]);
    assert_eq!(packages(&bench, "left"), ["libc=1", "", "ssl=1", "shared=1", "left=1", ""]);
    assert_eq!(packages(&bench, "right"), ["libc=1", "", "ssl=1", "java=1", "shared=1", "right=1", ""]);
    assert_eq!(packages(&bench, "other"), ["libc=1", "", "ssl=1", "java=1", "other=1", "", ""]);
    let images = ["base", "left", "right", "other"];
    let all: Vec<(String, String)> = images.iter().flat_map(|image| layers(&bench, image)).collect();
    for package in ["libc=1", "ssl=1", "shared=1", "java=1"] {
        let digests: BTreeSet<&String> = all.iter().filter(|layer| layer.1 == package).map(|layer| &layer.0).collect();
        assert_eq!(digests.len(), 1, "{package}");
    }
    // What is unpacked to run scripts over is shared as well.
    let distinct: BTreeSet<&String> = all.iter().map(|layer| &layer.0).collect();
    let trees =
        fs::read_dir(bench.at("cache/trees")).unwrap().flat_map(|group| fs::read_dir(group.unwrap().path()).unwrap());
    assert!(trees.count() <= distinct.len());
    for image in read_json(&bench.at("metadata.json"))["images"].as_array().unwrap() {
        let name = image["name"].as_str().unwrap();
        let list = |layer: &Value| {
            let labels = layer["packages"].as_array().unwrap().iter();
            labels.map(|label| label.as_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let listed: Vec<String> = image["layers"].as_array().unwrap().iter().map(list).collect();
        assert_eq!(listed, packages(&bench, name), "{name}");
    }
    bench.is_whole();
}

#[test]
fn other_tools_read_shared_layers_and_find_the_same_tree() {
    let bench = bench();
    bench.build(&[]).success();
    for image in ["left", "right", "other"] {
        let (layout, reference) = (bench.at("oci"), format!("localhost:5100/{image}:v1"));
        // Python's gzip, tarfile and hashlib check every digest and diff ID.
        let tree = tree_of(&layout, &reference);
        let copy = bench.at(&format!("copy-{image}"));
        let source = format!("oci:{}:{reference}", layout.display());
        tool("skopeo", ["copy", "--insecure-policy", &source, &format!("dir:{}", copy.display())]);
        let bundle = bench.at(&format!("bundle-{image}"));
        let source = format!("{}:{reference}", layout.display());
        tool("umoci", ["unpack".as_ref(), "--image".as_ref(), source.as_ref(), bundle.as_os_str()]);
        for (path, facts) in &tree {
            let found = fs::symlink_metadata(bundle.join("rootfs").join(path.trim_start_matches('/'))).unwrap();
            assert_eq!(found.is_dir(), facts["type"] == "directory", "{image}: {path}");
            if !found.is_symlink() {
                let mode = format!("{:04o}", found.permissions().mode() & 0o7777);
                assert_eq!((mode.as_str(), found.uid()), (facts["mode"].as_str().unwrap(), 0), "{image}: {path}");
            }
        }
        let status = bench.file(image, "var/lib/dpkg/status").unwrap();
        for package in ["libc", "ssl", image] {
            assert!(tree.contains_key(&format!("/usr/share/{package}/data")), "{image}: {package}");
            assert!(tree.contains_key(&format!("/var/lib/dpkg/info/{package}.list")), "{image}: {package}");
            assert!(status.contains(&format!("Package: {package}\n")), "{image}: {package}");
        }
        // GNU tar reads every layer, and no layer has an entry twice.
        for (digest, _) in layers(&bench, image) {
            let listed = run(Command::new("tar").arg("-tzf").arg(bench.blob(&digest))).success();
            let paths: Vec<&str> = listed.stdout.lines().collect();
            assert_eq!(paths.len(), paths.iter().collect::<BTreeSet<_>>().len(), "{image}: {digest}");
            assert_eq!(listed.stderr, "", "{image}: {digest}");
        }
    }
}

/// A directory's owner, group and mode in an image, as Python's `tarfile` finds them from the lowest layer up.
fn directory(bench: &Bench, image: &str, path: &str) -> String {
    let reference = format!("localhost:5100/{image}:v1");
    let tree = tree_of(&bench.at("oci"), &reference);
    let found = &tree[path];
    format!("{}:{} {}", found["uid"], found["gid"], found["mode"].as_str().unwrap_or("absent"))
}

#[test]
fn a_directory_has_the_attributes_that_dpkg_would_give_it_whatever_the_layers_of_packages_say() {
    let owned = |path: &str, mode, uid| {
        let mut entry = TarEntry::directory(path, mode);
        entry.owner = Owner::new(uid, uid, "", "");
        entry
    };
    // By name, `a-late` comes first; as it needs `z-early`, it is unpacked after it.
    let early =
        DebBuilder::new("z-early", "1").entry(owned("srv/state", 0o750, 7)).entry(owned("srv/deep/below", 0o700, 8));
    let late = DebBuilder::new("a-late", "1")
        .depends("z-early")
        .directory("srv/state", 0o755)
        .directory("srv/deep/below", 0o755);
    let third = DebBuilder::new("third", "1").entry(owned("srv/state", 0o711, 9)).directory("srv/new", 0o2775);
    let bench = Bench::new();
    bench
        .archive([early.build(), late.build(), third.build(), DebBuilder::new("plain", "1").build()], &[])
        .spec("family.yaml", FAMILY)
        .spec("together/image.yaml", "from: scratch\npackages: [a-late]\n")
        .spec("early/image.yaml", "from: scratch\npackages: [z-early]\n")
        .spec("above/image.yaml", "from: early\npackages: [a-late, third]\n")
        .spec("leaf/image.yaml", "from: above\npackages: [plain]\n")
        .spec("third/image.yaml", "from: scratch\npackages: [third]\n");
    bench.build(&[]).success();
    for (image, path, expected) in [
        ("together", "/srv/state", "7:7 0750"),
        ("together", "/srv/deep/below", "8:8 0700"),
        ("together", "/srv/deep", "0:0 0755"),
        ("above", "/srv/state", "7:7 0750"),
        ("above", "/srv/deep/below", "8:8 0700"),
        ("above", "/srv/new", "0:0 2775"),
        ("leaf", "/srv/state", "7:7 0750"),
        ("third", "/srv/state", "9:9 0711"),
    ] {
        assert_eq!(directory(&bench, image, path), expected, "{image}: {path}");
    }
}

#[test]
fn a_directory_that_is_a_link_in_the_image_stays_one() {
    let bench = Bench::new();
    let link = DebBuilder::new("links", "1").directory("run/real", 0o755).symlink("var/run", "/run");
    let through = DebBuilder::new("through", "1").file("var/run/real/file", 0o644, "through a link");
    bench
        .archive([link.build(), through.build()], &[])
        .spec("family.yaml", FAMILY)
        .spec("below/image.yaml", "from: scratch\npackages: [links]\n")
        .spec("above/image.yaml", "from: below\npackages: [through]\n");
    bench.build(&[]).success();
    let bundle = bench.at("bundle");
    let source = format!("{}:localhost:5100/above:v1", bench.at("oci").display());
    tool("umoci", ["unpack".as_ref(), "--image".as_ref(), source.as_ref(), bundle.as_os_str()]);
    assert!(bundle.join("rootfs/var/run").is_symlink());
    assert_eq!(fs::read_to_string(bundle.join("rootfs/run/real/file")).unwrap(), "through a link");
}

#[test]
fn one_image_added_changed_or_removed_leaves_the_layers_of_the_others_as_they_were() {
    let bench = bench();
    bench.build(&[]).success();
    let unrelated = |bench: &Bench| ["base", "left", "right"].map(|image| layers(bench, image));
    let before = unrelated(&bench);
    bench.spec("added/image.yaml", "from: base\npackages: [left, java, new]\n");
    bench.build(&[]).success();
    assert_eq!(unrelated(&bench), before);
    assert_eq!(packages(&bench, "added")[2..], ["java=1", "left=1", "new=1", ""]);
    bench.spec("other/image.yaml", "from: base\npackages: [other, ssl, new]\n");
    bench.build(&[]).success();
    assert_eq!(unrelated(&bench), before);
    for image in ["other", "added"] {
        fs::remove_dir_all(bench.at("family").join(image)).unwrap();
        bench.build(&[]).success();
        assert_eq!(unrelated(&bench), before, "without {image}");
    }
    // Anew, what only two images need now lies together.
    bench.build(&["--recut"]).success();
    assert_eq!(packages(&bench, "left"), ["libc=1", "", "shared=1 ssl=1", "left=1", ""]);
    assert_eq!(packages(&bench, "right"), ["libc=1", "", "shared=1 ssl=1", "java=1 right=1", ""]);
}

#[test]
fn another_version_of_a_package_changes_its_layer_and_what_is_made_of_it_and_no_other() {
    let bench = bench();
    bench.build(&[]).success();
    let before = layers(&bench, "right");
    let mut debs = debs();
    debs.push(DebBuilder::new("java", "2").file("usr/share/java/data", 0o644, "new").build());
    bench.archive(debs, &[]);
    bench.lock(&["--update"]).success();
    bench.build(&["--locked"]).success();
    let after = layers(&bench, "right");
    let expected = ["libc=1", "", "ssl=1", "java=2", "shared=1", "right=1", ""];
    assert_eq!(packages(&bench, "right"), expected);
    let changed: Vec<usize> = (0..after.len()).filter(|place| before[*place].0 != after[*place].0).collect();
    assert_eq!(changed, [3, 6], "{before:?} {after:?}");
}

/// Every blob of every image but manifests, with its size.
fn blobs(bench: &Bench) -> BTreeMap<String, u64> {
    let mut blobs = BTreeMap::new();
    for image in ["base", "left", "right", "other"] {
        let manifest = bench.manifest(image);
        for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            blobs.insert(blob["digest"].as_str().unwrap().to_owned(), blob["size"].as_u64().unwrap());
        }
    }
    blobs
}

#[test]
fn after_another_version_of_a_package_a_push_sends_its_layer_and_what_is_made_of_it_and_nothing_else() {
    let bench = bench();
    bench.build(&[]).success();
    let registry = Bench::new();
    let address = format!("127.0.0.1:{}", free_port());
    let _serving = Background::start(registry.drystone().args(["serve", "--listen", &address]));
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    let push = || {
        run(bench.drystone().args(["push", "--to", &address, "--metadata-file", "pushed.json"])).success();
        read_json(&bench.at("pushed.json"))["totals"]["pushed_bytes"].as_u64().unwrap()
    };
    let before = blobs(&bench);
    assert_eq!(push(), before.values().sum::<u64>());
    assert_eq!(push(), 0);
    let new = DebBuilder::new("java", "2").file("usr/share/java/data", 0o644, noise(50_000)).build();
    bench.archive(debs().into_iter().chain([new]), &[]);
    bench.lock(&["--update"]).success();
    bench.build(&[]).success();
    let after = blobs(&bench);
    let fresh: u64 = after.iter().filter(|(digest, _)| !before.contains_key(*digest)).map(|(_, size)| size).sum();
    let java = layers(&bench, "right").into_iter().find(|layer| layer.1 == "java=2").unwrap().0;
    let own = fresh - after[&java];
    assert!((50_000..60_000).contains(&after[&java]) && own < 10_000, "{fresh} bytes, {} of java", after[&java]);
    assert_eq!(push(), fresh);
}

#[test]
fn an_image_has_no_more_layers_than_its_budget_and_the_smallest_package_is_stored_twice() {
    let bench = bench();
    // One layer of the base, and three of packages, the last of them with what the scripts changed.
    bench.spec("right/image.yaml", "from: base\npackages: [right, java, ssl, shared]\nlayers: {budget: 4}\n");
    bench.build(&[]).success();
    assert_eq!(layers(&bench, "right").len(), 4);
    assert_eq!(packages(&bench, "base"), ["libc=1"]);
    assert_eq!(layers(&bench, "left").len(), 5);
    let all: BTreeSet<(String, String)> =
        ["left", "right", "other"].iter().flat_map(|image| layers(&bench, image)).collect();
    let copies = |package: &str| all.iter().filter(|layer| layer.1.split(' ').any(|label| label == package)).count();
    assert_eq!(["ssl=1", "shared=1", "java=1", "left=1"].map(copies), [2, 1, 1, 1], "{all:?}");

    bench.build(&["--layer-budget", "3"]).success();
    for image in ["base", "left", "right", "other"] {
        assert!(layers(&bench, image).len() <= 3, "{image}");
    }
    bench.is_whole();
}

#[test]
fn images_with_few_layers_have_the_same_files_as_with_many() {
    let bench = bench();
    bench.spec(
        "other/image.yaml",
        "from: base\npackages: [other, java, ssl]\nfiles: [{content: x, target: /x}, {link: x, target: /y}]\n",
    );
    bench.build(&[]).success();
    let trees = |bench: &Bench| {
        ["base", "left", "right", "other"].map(|image| {
            let mut tree = tree_of(&bench.at("oci"), &format!("localhost:5100/{image}:v1"));
            // It need not be named to be there.
            tree.remove("/");
            tree
        })
    };
    let before = trees(&bench);
    for budget in ["4", "3", "2"] {
        bench.build(&["--layer-budget", budget]).success();
        for image in ["base", "left", "right", "other"] {
            assert!(layers(&bench, image).len() <= budget.parse().unwrap(), "{image} with {budget}");
            // Whoever is built on another begins with its layers.
            let (base, all) = (layers(&bench, "base"), layers(&bench, image));
            assert_eq!(all[..base.len()], base, "{image} with {budget}");
        }
        for (now, before) in trees(&bench).iter().zip(&before) {
            let differs = |path: &&String| now.get(*path) != before.get(*path);
            let different: Vec<&String> = now.keys().chain(before.keys()).filter(differs).collect();
            assert!(different.is_empty(), "with {budget}: {different:?}");
        }
        bench.layout_is_valid();
    }
    let digests = bench.digests();
    bench.build(&["--layer-budget", "2", "--no-cache"]).success();
    assert_eq!(bench.digests(), digests);
    // No step ran again because of a budget.
    let again = bench.build(&["--layer-budget", "4", "--metadata-file", "metadata.json"]).success();
    assert!(
        again.stderr.contains("nothing to build") || !again.stderr.contains("maintainer scripts"),
        "{}",
        again.stderr
    );
}

#[test]
fn a_budget_that_no_cut_can_meet_is_an_error_that_says_how_much_is_needed() {
    let bench = bench();
    bench.spec(
        "other/image.yaml",
        "from: base\npackages: [other]\nfiles: [{content: x, target: /x}]\nlayers: {budget: 1}\n",
    );
    bench.build(&[]).failure(2, &["other/image.yaml:4:", "other needs 2 layers, and may have 1"]);
    bench.build(&["--layer-budget", "1"]).failure(2, &["left needs 2 layers, and may have 1"]);
    bench.build(&["--layer-budget", "0"]).failure(2, &["--layer-budget"]);
    bench.build(&["--layer-budget", "2"]).success();
}
