//! What images are made of: `inspect --packages`, `diff`, `sbom`, and what builds say beside them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use fixtures::{Deb, DebBuilder};
use serde_json::Value;

use crate::support::family::{Bench, debs, read_json, walk};
use crate::support::program::{Background, eventually, free_port, run, tool};

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2025 A
License: GPL-2+
";

/// The usual packages; those of `greeter` and a library of another source have copyright files.
fn packages() -> Vec<Deb> {
    let mut packages = debs();
    packages.retain(|package| package.name() != "greeter");
    packages.push(
        DebBuilder::new("greeter", "2:3.0-1")
            .depends("hello, libgreet")
            .field("Source", "greetings (2:3.0)")
            .file("usr/share/doc/greeter/copyright", 0o644, COPYRIGHT)
            .file("usr/bin/greet", 0o755, "#!/bin/sh\n")
            .build(),
    );
    packages.push(DebBuilder::new("libgreet", "1.0+b1").symlink("usr/share/doc/libgreet", "greeter").build());
    packages
}

fn bench() -> Bench {
    let bench = Bench::with_family();
    bench.archive(packages(), &[]);
    bench
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What dpkg says of the packages in an image that umoci has unpacked.
fn by_dpkg(bench: &Bench, image: &str) -> BTreeSet<String> {
    let bundle = bench.at(&format!("unpacked-{image}"));
    let source = bench.at(&format!("oci:localhost:5100/{image}:v1"));
    tool("umoci", ["unpack".as_ref(), "--image".as_ref(), source.as_os_str(), bundle.as_os_str()]);
    let database = format!("--admindir={}", bundle.join("rootfs/var/lib/dpkg").display());
    let format = "--showformat=${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\\n";
    tool("dpkg-query", [database.as_str(), "-W", format]).lines().map(str::to_owned).collect()
}

#[test]
fn the_packages_are_those_that_dpkg_finds_in_the_unpacked_image() {
    let bench = bench();
    bench.build(&[]).success();
    let expected = by_dpkg(&bench, "app");
    assert_eq!(expected.len(), 4);
    let inspected = run(bench.drystone().args(["inspect", "app", "--packages", "--format", "json"])).success();
    let line = |package: &Value| {
        let keys = ["name", "version", "architecture", "source", "source_version"];
        keys.map(|key| package[key].as_str().unwrap()).join(" ")
    };
    let found: BTreeSet<String> = json(&inspected.stdout).as_array().unwrap().iter().map(line).collect();
    assert_eq!(found, expected);
    let layers = bench.manifest("app")["layers"].clone();
    for package in json(&inspected.stdout).as_array().unwrap() {
        assert!(layers.as_array().unwrap().iter().any(|layer| layer["digest"] == package["layer"]), "{package}");
    }
    let named = |text: &str| text.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let expected: BTreeSet<String> = expected.iter().map(|line| named(line)).collect();
    for (format, list, version) in [("spdx", "packages", "versionInfo"), ("cyclonedx", "components", "version")] {
        let bill = run(bench.drystone().args(["sbom", "app", "--format", format])).success();
        let packages = json(&bill.stdout)[list].clone();
        let of_debian = |package: &&Value| package.to_string().contains("pkg:deb/");
        let name =
            |package: &Value| format!("{} {}", package["name"].as_str().unwrap(), package[version].as_str().unwrap());
        let found: BTreeSet<String> = packages.as_array().unwrap().iter().filter(of_debian).map(name).collect();
        assert_eq!(found, expected, "{format}");
        assert_eq!(bill.stdout.matches("GPL-2.0-or-later").count(), 2, "{}", bill.stdout);
    }
    let text = run(bench.drystone().args(["inspect", "app", "--packages"])).success().stdout;
    assert!(text.lines().next().unwrap().starts_with("PACKAGE "), "{text}");
    assert!(text.contains("greeter    2:3.0-1   amd64"), "{text}");
}

#[test]
fn statements_are_referrers_and_change_neither_images_nor_lists() {
    let bench = bench();
    bench.build(&[]).success();
    let (plain, listed) = (bench.digests(), run(bench.drystone().arg("images")).success().stdout);
    let said = ["--sbom", "spdx,cyclonedx", "--provenance"];
    bench.build(&said).success();
    assert_eq!(run(bench.drystone().arg("images")).success().stdout, listed);
    let with_statements = bench.digests();
    assert_eq!(with_statements.lines().count(), plain.lines().count() * 4);
    assert!(plain.lines().all(|line| with_statements.contains(line)));
    bench.layout_is_valid();
    let index = fs::read(bench.at("oci/index.json")).unwrap();
    let again = bench.build(&said).success();
    assert!(again.stderr.contains("nothing to build") && !again.stderr.contains("statements"), "{}", again.stderr);
    assert!(fs::read(bench.at("oci/index.json")).unwrap() == index);
    // The same from an empty layout and cache.
    for directory in ["oci", "cache"] {
        fs::rename(bench.at(directory), bench.at(&format!("old-{directory}"))).unwrap();
    }
    bench.build(&said).success();
    assert!(fs::read(bench.at("oci/index.json")).unwrap() == index);
    // What was said of an image that is gone goes with it.
    bench.spec("worker/image.yaml", "from: app\ncmd: [other]\n");
    bench.build(&said).success();
    assert_eq!(bench.digests().lines().count(), with_statements.lines().count());
}

#[test]
fn provenance_names_packages_parents_files_and_specs_by_digest() {
    let bench = bench();
    bench.build(&["--provenance"]).success();
    let statement = |image: &str| {
        let blobs = walk(&bench.at("oci/blobs")).into_iter().filter_map(|path| fs::read_to_string(path).ok());
        let mut statements = blobs.filter(|text| text.contains("in-toto.io/Statement")).map(|text| json(&text));
        statements.find(|statement| statement["subject"][0]["name"] == image).unwrap()
    };
    let (app, index) = (statement("app"), read_json(&bench.at("oci/index.json")));
    let digest = |image: &str| {
        bench
            .digests()
            .lines()
            .find_map(|line| line.strip_prefix(&format!("localhost:5100/{image}:v1 sha256:")).map(str::to_owned))
    };
    assert_eq!(app["subject"][0]["digest"]["sha256"].as_str(), digest("app").as_deref(), "{index}");
    let inputs = app["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap().clone();
    let find = |uri: &str| inputs.iter().find(|input| input["uri"].as_str().unwrap().starts_with(uri));
    let sha256 = |uri: &str| find(uri).unwrap_or_else(|| panic!("no {uri}: {inputs:?}"))["digest"]["sha256"].clone();
    assert_eq!(sha256("pkg:oci/base@"), digest("base").unwrap());
    let of_file = |path: &str| content::Digest::of(&fs::read(bench.at(path)).unwrap()).hex();
    assert_eq!(sha256("file:app/entrypoint.sh"), of_file("family/app/entrypoint.sh"));
    assert_eq!(sha256("file:app/image.yaml"), of_file("family/app/image.yaml"));
    assert_eq!(sha256("file:family.yaml"), of_file("family/family.yaml"));
    let deb = walk(&bench.at("archive")).into_iter().find(|path| path.to_string_lossy().contains("greeter_")).unwrap();
    assert_eq!(sha256("pkg:deb/debian/greeter@2%3A3.0-1"), content::Digest::of(&fs::read(deb).unwrap()).hex());
    assert!(find("pkg:deb/debian/hello@").is_none(), "the parent's packages are the parent's inputs");
}

#[test]
fn a_push_brings_statements_along_and_the_registry_lists_them_as_referrers() {
    let bench = bench();
    bench.build(&["--sbom", "cyclonedx", "--provenance"]).success();
    let address = format!("127.0.0.1:{}", free_port());
    let mut serve = bench.drystone();
    serve.args(["serve", "--listen", &address, "--layout"]).arg(bench.at("other"));
    tool("umoci", ["init", "--layout", bench.at("other").to_str().unwrap()]);
    let _serving = Background::start(&mut serve);
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map_err(|error| error.to_string())
    });
    let pushed = run(bench.drystone().args(["push", "--to", &format!("{address}/team")])).success();
    assert!(pushed.stderr.contains("pushed 3 images"), "{}", pushed.stderr);
    let digest = pushed.stdout.lines().find_map(|line| line.split_once("/app:v1 ")).unwrap().1.to_owned();
    let url = format!("http://{address}/v2/team/app/referrers/{digest}");
    let referrers = json(&tool("curl", ["--fail", "--silent", &url]));
    let mut kinds: Vec<&str> =
        referrers["manifests"].as_array().unwrap().iter().map(|m| m["artifactType"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]);
    let again = run(bench.drystone().args(["push", "--to", &format!("{address}/team")])).success();
    assert!(again.stderr.contains("0 B sent"), "{}", again.stderr);
}

#[test]
fn differences_are_named_and_the_exit_code_is_that_of_diff() {
    let bench = bench();
    bench.build(&[]).success();
    let diff = |more: &[&str]| run(bench.drystone().arg("diff").args(more));
    let same = diff(&["app", "localhost:5100/app:v1"]).success();
    assert!(same.stdout.contains("packages: the same\n\nfiles: the same"), "{}", same.stdout);
    let different = diff(&["base", "app"]).failure(1, &[]);
    for expected in
        ["+ greeter 2:3.0-1", "+ /usr/bin/greet (file, 0755, 0:0, 10 B)", "+ /data (directory, 0750, 33:44)"]
    {
        assert!(different.stdout.contains(expected), "no {expected} in {}", different.stdout);
    }
    assert!(different.stderr.is_empty(), "{}", different.stderr);
    let config = json(&diff(&["app", "worker", "--format", "json"]).failure(1, &[]).stdout);
    assert_eq!((&config["packages"], &config["files"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    let keys: Vec<&str> = config["config"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["config.Cmd", "config.Labels.role", "config.Labels.tier"]);
    diff(&["app", "nobody"]).failure(2, &["no image in", "`nobody`"]);
    let quiet = diff(&["app", "worker", "--quiet"]).failure(1, &[]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    // An image of another layout, in which one file has another content, mode and owner.
    bench.spec("app/entrypoint.sh", "#!/bin/sh\nexec \"$0\"\n");
    let changed = "{source: entrypoint.sh, target: /, mode: \"0700\", owner: \"7:8\"}";
    let image = fs::read_to_string(bench.at("family/app/image.yaml")).unwrap();
    let image = image.replace("{source: entrypoint.sh, target: /, mode: \"0755\"}", changed);
    bench.spec("app/image.yaml", &image);
    bench.build(&["app", "--layout", "elsewhere"]).success();
    let elsewhere = diff(&["app", "oci:elsewhere:app"]).failure(1, &[]).stdout;
    let line = elsewhere.lines().find(|line| line.contains("/entrypoint.sh")).unwrap();
    assert!(line.contains("mode 0755 → 0700, owner 0:0 → 7:8, content"), "{line}");
    assert!(elsewhere.contains("files: 1 differ"), "{elsewhere}");
}

#[test]
fn an_image_without_dpkg_says_so_and_has_a_bill_without_packages() {
    let bench = Bench::new();
    let family = "drystone: 1\nregistry: localhost:5100\ntag: v1\n";
    bench.spec("family.yaml", family).spec("plain/image.yaml", "from: scratch\nfiles: [{source: a, target: /}]\n");
    bench.spec("plain/a", "a");
    bench.build(&[]).success();
    run(bench.drystone().args(["inspect", "plain", "--packages"])).failure(1, &["has no dpkg database"]);
    let bill = json(&run(bench.drystone().args(["sbom", "plain"])).success().stdout);
    assert_eq!(bill["packages"].as_array().unwrap().len(), 1);
    assert!(
        bill["packages"][0]["annotations"][0]["comment"].as_str().unwrap().contains("0 packages, 1 files of 1 bytes")
    );
    run(Command::new(env!("CARGO_BIN_EXE_drystone")).args(["sbom", "x", "--format", "xml"]))
        .failure(2, &["spdx and cyclonedx"]);
}
