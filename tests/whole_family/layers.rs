//! What the images share: layers, and the commands that a base wants run in its children.

use serde_json::{Value, json};

use super::whole;
use crate::support::family::read_json;
use crate::support::program::{opencontrail, tool};

/// Built on `openstackbase`.
const CHILDREN: [&str; 7] = ["cinder", "glance", "keystone", "libvirt", "neutron-server", "nova", "nova-compute"];

/// Built on one of those.
const GRANDCHILDREN: [&str; 10] = [
    "cinder-api",
    "cinder-scheduler",
    "glance-api",
    "glance-registry",
    "nova-api",
    "nova-cert",
    "nova-conductor",
    "nova-consoleauth",
    "nova-novncproxy",
    "nova-scheduler",
];

/// The digests of an image's layers.
fn layers(image: &str) -> Vec<Value> {
    let layers = &whole().metadata()[image]["layers"];
    layers.as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect()
}

#[test]
fn the_six_leaves_of_nova_have_exactly_its_layers() {
    let nova = layers("nova");
    for leaf in GRANDCHILDREN.iter().filter(|name| name.starts_with("nova-")) {
        assert_eq!(layers(leaf), nova, "{leaf}");
    }
}

#[test]
fn every_image_begins_with_its_parents_layers() {
    let images = whole().metadata();
    for name in images.keys() {
        let spec = std::fs::read_to_string(opencontrail().join(name).join("image.yaml")).unwrap();
        let parent = spec.lines().find_map(|line| line.strip_prefix("from: ")).unwrap();
        if parent != "scratch" {
            assert!(layers(name).starts_with(&layers(parent)), "{name} on {parent}");
        }
    }
    let nova = images["nova-compute"]["layers"].as_array().unwrap();
    assert!(nova.iter().all(|layer| layer["from"] != "nova"), "nova-compute is not built on nova");
}

#[test]
fn the_triggers_of_openstackbase_run_in_its_direct_children_only() {
    let images = whole().images();
    let config = |image: &str| read_json(&whole().blob(&images[image]["id"]))["config"].clone();
    let triggers = config("openstackbase")["OnBuild"].clone();
    assert_eq!(triggers.as_array().map(Vec::len), Some(2), "{triggers}");
    assert!(triggers[0].as_str().unwrap().starts_with("RUN awk "), "{triggers}");

    let metadata = whole().metadata();
    let commands = |image: &str| {
        let steps = metadata[image]["steps"].as_array().unwrap();
        steps.iter().take_while(|step| step["kind"] == "run").count()
    };
    // The second only prints something, and leaves no layer.
    let own = |image: &str, parent: &str| layers(image)[layers(parent).len()..].to_vec();
    let list = |layer: &Value| tool("tar", ["-tzf".as_ref(), whole().blob(layer).as_os_str()]);
    for child in CHILDREN {
        assert_eq!(config(child)["OnBuild"], json!(null), "{child}");
        assert_eq!(commands(child), 2, "{child}");
        assert_eq!(list(&own(child, "openstackbase")[0]), "build_host.txt\n", "{child}");
    }
    for grandchild in GRANDCHILDREN {
        assert_eq!(config(grandchild)["OnBuild"], json!(null), "{grandchild}");
        assert_eq!(commands(grandchild), 0, "{grandchild}");
    }
    for layer in own("openstackbase", "debian") {
        assert!(!list(&layer).contains("build_host.txt"));
    }
}
