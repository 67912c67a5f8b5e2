//! What good specs mean.

use std::time::{Duration, Instant};

use spec::{
    AptIndex, CommandLine, Family, FileContent, Healthcheck, Image, MountKind, Network, Parent, SourceFile, Step,
    Trust, Variables, schema,
};

const FAMILY: &str = "
drystone: 1
registry: localhost:5100
tag: \"1.10\"
vars: {VENDOR: drystone, FULL_VENDOR: \"the ${VENDOR} project\"}
sources:
  debian: {type: apt, suites: [bookworm, bookworm-updates], keyring: ../keyrings/debian.gpg, priority: 900}
  vendor: {type: apt, url: \"${REPOSITORY:-http://127.0.0.1/x}/\", flat: amd64/, trusted: true}
defaults:
  sources: [debian]
  labels: {org.opencontainers.image.vendor: \"${FULL_VENDOR}\", color: grey}
  env: {LANG: C.UTF-8}
  annotations: {a.b: c}
  platforms: [linux/amd64]
";

fn assemble(family: &str, images: &[(&str, &str)], variables: &Variables) -> Family {
    let images = images
        .iter()
        .map(|(directory, text)| ((*directory).to_owned(), SourceFile::new(format!("{directory}/image.yaml"), *text)))
        .collect();
    Family::assemble(SourceFile::new("family.yaml", family), images, variables)
        .unwrap_or_else(|diagnostics| panic!("{}", spec::render(&diagnostics, false)))
}

fn one(text: &str) -> Image {
    assemble(FAMILY, &[("one", text)], &Variables::new()).images.remove(0)
}

fn pairs<K: std::fmt::Display>(entries: &[spec::Entry<K>]) -> Vec<String> {
    entries.iter().map(|entry| format!("{}={}", entry.key.value, entry.value.value)).collect()
}

#[test]
fn a_family_says_registry_tag_sources_and_trust() {
    let family = assemble(FAMILY, &[], &Variables::new());
    assert_eq!((family.registry.as_str(), family.tag.as_str()), ("localhost:5100", "1.10"));
    let debian = family.source("debian").unwrap();
    let AptIndex::Suites { suites, components } = &debian.index else { panic!("{debian:?}") };
    assert_eq!((suites[1].as_str(), components[0].as_str(), debian.priority), ("bookworm-updates", "main", 900));
    assert!(matches!(&debian.trust, Trust::Keyring(path) if path.as_str() == "../keyrings/debian.gpg"));
    let vendor = family.source("vendor").unwrap();
    assert!(matches!(&vendor.index, AptIndex::Flat(path) if path.value == "amd64/"));
    assert!(matches!(&vendor.trust, Trust::Unsigned(span) if span.text() == "true"));
    assert_eq!(vendor.url.as_ref().unwrap().value, "http://127.0.0.1/x/");
}

#[test]
fn variables_of_the_caller_win_over_those_of_the_family() {
    let variables: Variables = [("VENDOR", "somebody"), ("REPOSITORY", "https://x")].into_iter().collect();
    let family = assemble(FAMILY, &[("a", "from: scratch\nlabels: {v: \"${VENDOR}\"}")], &variables);
    assert_eq!(family.source("vendor").unwrap().url.as_ref().unwrap().value, "https://x/");
    let labels = pairs(&family.images[0].config.labels);
    assert_eq!(labels, ["org.opencontainers.image.vendor=the somebody project", "color=grey", "v=somebody"]);
}

#[test]
fn parents_come_first_and_then_names() {
    let images = [("z", "from: scratch"), ("a", "from: m"), ("m", "from: z"), ("b", "from: scratch"), ("c", "from: m")];
    let family = assemble(FAMILY, &images, &Variables::new());
    let names: Vec<&str> = family.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["b", "z", "m", "a", "c"]);
    let ancestors: Vec<&str> = family.ancestors(family.image("a").unwrap()).map(|image| image.name.as_str()).collect();
    assert_eq!(ancestors, ["m", "z"]);
}

#[test]
fn a_parent_is_scratch_a_sibling_or_a_reference() {
    let images =
        [("base", "from: scratch"), ("a", "from: base"), ("b", "from: registry.example/x/y:1"), ("c", "from: redis:7")];
    let family = assemble(FAMILY, &images, &Variables::new());
    let parent = |name: &str| family.image(name).unwrap().from.value.clone();
    assert_eq!(parent("base"), Parent::Scratch);
    assert!(matches!(parent("a"), Parent::Sibling(name) if name.as_str() == "base"));
    assert_eq!(parent("b"), Parent::External("registry.example/x/y:1".into()));
    assert_eq!(parent("c"), Parent::External("redis:7".into()));
}

#[test]
fn defaults_start_a_line_of_images_and_are_not_repeated_in_children() {
    let images = [("base", "from: scratch\nlabels: {color: red}"), ("child", "from: base\nlabels: {size: big}")];
    let family = assemble(FAMILY, &images, &Variables::new());
    let base = &family.image("base").unwrap().config;
    assert_eq!(pairs(&base.labels), ["org.opencontainers.image.vendor=the drystone project", "color=red"]);
    assert_eq!(pairs(&base.env), ["LANG=C.UTF-8"]);
    let child = family.image("child").unwrap();
    assert_eq!(pairs(&child.config.labels), ["size=big"]);
    assert!(child.config.env.is_empty());
    assert_eq!(pairs(&child.annotations), ["a.b=c"]);
    assert_eq!(child.platforms[0].as_str(), "linux/amd64");
}

#[test]
fn steps_have_a_fixed_order_unless_the_image_gives_one() {
    let fixed = one(
        "from: scratch\nrun: make\nfiles: [{content: x, target: /x}]\nusers: [{name: u}]\ngroups: [{name: g}]\npackages: [redis-server]",
    );
    let kinds: String = fixed.steps.iter().map(kind).collect();
    assert_eq!(kinds, "PGUFR");
    let own = one(
        "from: scratch\nsteps:\n  - files: [{directory: true, target: /etc/contrail}]\n  - packages: [redis-server]\n  - run: [one, [two, arg]]\n",
    );
    let kinds: String = own.steps.iter().map(kind).collect();
    assert_eq!(kinds, "FPRR");
    assert_eq!(own.packages().count(), 1);
    assert!(one("from: scratch\ncmd: [sh]").is_config_only());
}

fn kind(step: &Step) -> char {
    match step {
        Step::Packages(_) => 'P',
        Step::Groups(_) => 'G',
        Step::Users(_) => 'U',
        Step::Files(_) => 'F',
        Step::Run(_) => 'R',
    }
}

#[test]
fn files_know_their_origin_and_where_they_go() {
    let image = one("from: scratch
files:
  - {source: entrypoint.sh, target: /, mode: \"0755\"}
  - {source: ../common/x, target: /etc/y, owner: \"redis:adm\"}
  - {content: \"${RAW} $$\", target: /etc/z}
  - {link: ../bin, target: /sbin}
  - {url: \"https://x/y.tgz\", unpack: true, target: /opt/}
");
    let files: Vec<_> = image.files().collect();
    let FileContent::Source { path, unpack } = &files[0].content else { panic!("{:?}", files[0]) };
    assert_eq!((path.as_str(), *unpack), ("one/entrypoint.sh", false));
    assert_eq!(files[0].destination("entrypoint.sh").as_str(), "/entrypoint.sh");
    assert_eq!(files[0].mode.as_ref().unwrap().bits(), 0o755);
    assert!(matches!(&files[1].content, FileContent::Source { path, .. } if path.as_str() == "common/x"));
    assert_eq!(files[1].destination("x").as_str(), "/etc/y");
    assert_eq!(files[1].owner.as_ref().unwrap().to_string(), "redis:adm");
    assert!(matches!(&files[2].content, FileContent::Text(text) if text.value == "${RAW} $$"), "content stays raw");
    assert!(matches!(&files[3].content, FileContent::Link(link) if link.value == "../bin"));
    assert!(matches!(&files[4].content, FileContent::Url { unpack: true, sha256: None, .. }));
}

#[test]
fn commands_are_lines_lists_or_mappings_and_keep_their_dollar_signs() {
    let image = one("from: scratch
run:
  - echo ${HOME} $$
  - [echo, \"${HOME}\", 1.10]
  - command: make
    user: nobody:nogroup
    env: {A: \"${X:-y}\"}
    network: host
    mounts: [{type: cache, target: /root/.cache}, {type: bind, source: src, target: /src}, {type: secret, id: token}]
");
    let commands: Vec<_> = image
        .steps
        .iter()
        .map(|step| match step {
            Step::Run(command) => command,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(commands[0].line.arguments(), ["/bin/sh", "-c", "echo ${HOME} $$"]);
    assert_eq!(commands[1].line.value, CommandLine::Exec(vec!["echo".into(), "${HOME}".into(), "1.10".into()]));
    assert!(matches!(commands[1].network, Network::None));
    let detailed = commands[2];
    assert_eq!(detailed.line.arguments(), ["/bin/sh", "-c", "make"]);
    assert_eq!(detailed.user.as_ref().unwrap().to_string(), "nobody:nogroup");
    assert_eq!(pairs(&detailed.env), ["A=y"]);
    assert!(matches!(&detailed.network, Network::Host(span) if span.line() == 8));
    assert!(matches!(&detailed.mounts[1].kind, MountKind::Bind(path) if path.as_str() == "one/src"));
}

#[test]
fn configuration_is_checked_and_keeps_its_places() {
    let image = one("from: scratch
env: {RABBITMQ_LOGS: '-', VERSION: 1.10, YES: yes}
user: memcache
workdir: /data/
expose: [80, 53/udp, 8000-8001]
volumes: [/data]
stop_signal: SIGQUIT
healthcheck: {command: [redis-cli, ping], interval: 1m30s, retries: 3}
entrypoint: [/entrypoint.sh]
cmd: redis-server --port ${PORT}
on_build: [\"echo built\"]
build_only: true
layers: {budget: 12}
");
    assert_eq!(pairs(&image.config.env), ["LANG=C.UTF-8", "RABBITMQ_LOGS=-", "VERSION=1.10", "YES=yes"]);
    let ports: Vec<String> = image.config.expose.iter().flat_map(|port| port.value.each()).collect();
    assert_eq!(ports, ["80/tcp", "53/udp", "8000/tcp", "8001/tcp"]);
    assert_eq!(image.config.expose[1].span.to_string(), "one/image.yaml:5:14");
    assert_eq!(image.config.workdir.as_ref().unwrap().as_str(), "/data");
    let Some(Healthcheck::Check { interval, retries, .. }) = image.config.healthcheck.as_deref() else { panic!() };
    assert_eq!((*interval, *retries), (Some(Duration::from_secs(90)), Some(3)));
    let cmd = image.config.cmd.as_ref().unwrap();
    assert_eq!(cmd.arguments(), ["/bin/sh", "-c", "redis-server --port ${PORT}"]);
    assert_eq!(image.on_build.len(), 1);
    assert!(image.build_only);
    assert_eq!(image.layer_budget.as_ref().map(|budget| budget.value), Some(12));
}

#[test]
fn a_family_can_name_its_directories() {
    let family = format!("{FAMILY}images: [\"web*\", base]\n");
    let images = [("base", "from: scratch"), ("webui", "from: base"), ("old", "from: nowhere")];
    let family = assemble(&family, &images, &Variables::new());
    assert_eq!(family.images.len(), 2);
}

#[test]
fn a_name_may_differ_from_the_directory() {
    let images = [("base-2024", "from: scratch\nname: base"), ("x", "from: base")];
    let family = assemble(FAMILY, &images, &Variables::new());
    assert_eq!(family.image("base").unwrap().directory, "base-2024");
}

#[test]
fn a_thousand_images_in_a_chain_and_beside_each_other_assemble_in_less_than_a_second() {
    let text = |parent: &str| {
        format!(
            "from: {parent}\nfiles: [{{source: entrypoint.sh, target: /, mode: \"0755\"}}]\nentrypoint: [/entrypoint.sh]\nlabels: {{net.juniper.contrail: config, net.juniper.node: controller}}\n"
        )
    };
    let mut images = vec![(String::from("i0000"), String::from("from: scratch"))];
    images.extend((1..500).map(|number| (format!("i{number:04}"), text(&format!("i{:04}", number - 1)))));
    images.extend((500..1000).map(|number| (format!("i{number:04}"), text("i0000"))));
    let images: Vec<(&str, &str)> = images.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let start = Instant::now();
    let family = assemble(FAMILY, &images, &Variables::new());
    let elapsed = start.elapsed();
    assert_eq!(family.images.len(), 1000);
    assert_eq!(family.images.last().unwrap().name.as_str(), "i0499");
    assert!(elapsed < Duration::from_secs(1), "it took {elapsed:?}");
}

#[test]
fn the_schemas_refuse_unknown_keys_and_describe_the_known_ones() {
    for schema in [schema::family(), schema::image()] {
        assert_eq!(schema["additionalProperties"], false);
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{key} has no description");
        }
    }
    assert_eq!(schema::image()["required"], serde_json::json!(["from"]));
    assert_eq!(schema::family()["required"], serde_json::json!(["drystone", "registry"]));
}
