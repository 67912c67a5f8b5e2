//! The original's three tables: what its labels find, image by image.

use super::{BASES, names, whole};
use crate::support::program::run;

/// The images that OpenContrail needs.
pub const CONTRAIL: [&str; 24] = [
    "analytics-alarm",
    "analytics-api",
    "analytics-collector",
    "analytics-query",
    "analytics-snmp",
    "analytics-topology",
    "cassandra",
    "config-api",
    "config-device-manager",
    "config-discovery",
    "config-schema",
    "config-svc-monitor",
    "control-control",
    "control-dns",
    "control-named",
    "ifmap",
    "keystone",
    "memcached",
    "rabbitmq",
    "redis",
    "vrouter-agent",
    "webui-job",
    "webui-server",
    "zookeeper",
];

/// The images of its configuration.
pub const CONFIG: [&str; 6] =
    ["config-api", "config-device-manager", "config-discovery", "config-schema", "config-svc-monitor", "ifmap"];

/// The images that run on a controller.
pub const CONTROLLER: [&str; 29] = [
    "analytics-alarm",
    "analytics-api",
    "analytics-collector",
    "analytics-query",
    "analytics-snmp",
    "analytics-topology",
    "cassandra",
    "config-api",
    "config-device-manager",
    "config-discovery",
    "config-schema",
    "config-svc-monitor",
    "control-control",
    "control-dns",
    "control-named",
    "ifmap",
    "keystone",
    "memcached",
    "neutron-server",
    "nova-api",
    "nova-cert",
    "nova-conductor",
    "nova-consoleauth",
    "nova-novncproxy",
    "nova-scheduler",
    "redis",
    "webui-job",
    "webui-server",
    "zookeeper",
];

/// A filter and what it finds.
pub const TABLES: [(&str, &[&str]); 3] = [
    ("label=net.juniper.contrail", &CONTRAIL),
    ("label=net.juniper.contrail=config", &CONFIG),
    ("label=net.juniper.node=controller", &CONTROLLER),
];

#[test]
fn the_labels_find_what_they_find_in_the_original() {
    for (filter, expected) in TABLES {
        assert_eq!(whole().labelled(&[filter]), expected, "{filter}");
    }
}

#[test]
fn a_filtered_table_has_the_originals_columns_and_a_row_for_each_image() {
    let listed = run(whole().drystone("images").args(["--filter", "label=net.juniper.contrail=config"])).success();
    let rows: Vec<Vec<&str>> = listed
        .stdout
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(rows[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "VIRTUAL SIZE"]);
    let first: String = rows[1..].iter().map(|row| format!("{}\n", row[0])).collect();
    assert_eq!(names(&first), CONFIG);
    for row in &rows[1..] {
        assert!(row[0].starts_with("localhost:5100/") && row[1] == "contrail-3.0-2668", "{row:?}");
        assert!(row[2].len() == 12 && row[3].ends_with(" ago") && row[4].ends_with("MB"), "{row:?}");
    }
}

#[test]
fn several_filters_must_all_be_met() {
    let cases: [(&[&str], &[&str]); 6] = [
        (&["label=net.juniper.contrail", "label=net.juniper.node=compute"], &["vrouter-agent"]),
        (&["label=net.juniper.openstack=nova", "label=net.juniper.node=compute"], &["libvirt", "nova-compute"]),
        (
            &["label=net.juniper.contrail=common", "label=net.juniper.openstack=common"],
            &["keystone", "memcached", "rabbitmq", "redis"],
        ),
        (
            &["label=net.juniper.contrail=common", "label=net.juniper.node=controller"],
            &["keystone", "memcached", "redis"],
        ),
        (&["label=net.juniper.contrail=config", "label=net.juniper.node=controller"], &CONFIG),
        (&["label=net.juniper.contrail=config", "label=net.juniper.node=compute"], &[]),
    ];
    for (filters, expected) in cases {
        assert_eq!(whole().labelled(filters), expected, "{filters:?}");
    }
}

#[test]
fn the_family_has_thirty_seven_images_with_a_process_and_nine_that_others_are_built_on() {
    let images = whole().images();
    assert_eq!(images.len(), 37 + BASES.len(), "{:?}", images.keys());
    for base in BASES {
        let labels = images[base]["labels"].as_object().unwrap();
        assert!(labels.keys().all(|key| !key.starts_with("net.juniper.")), "{base}: {labels:?}");
    }
    let known = |name: &str| images.contains_key(name);
    assert!(CONTRAIL.iter().chain(&CONTROLLER).all(|name| known(name)));
}
