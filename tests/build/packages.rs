//! Images of packages without a system around them, and packages that need one.

use fixtures::{AptRepository, DebBuilder, Script};

use crate::support::family::{Bench, FAMILY, debs};
use crate::support::program::{opencontrail, run, shared_cache};

#[test]
fn an_image_without_dpkg_takes_packages_without_scripts_and_lists_them_as_installed() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    let status = bench.file("worker", "var/lib/dpkg/status").unwrap();
    let packages: Vec<&str> = status.lines().filter_map(|line| line.strip_prefix("Package: ")).collect();
    assert_eq!(packages, ["greeter", "hello", "libhello"]);
    assert_eq!(status.matches("Status: install ok installed").count(), 3, "{status}");
    let listing = bench.listing("worker");
    for (mode, owner, path) in [
        ("-rwsr-xr-x", "0/0", "usr/bin/setuid"),
        ("-rw-r-----", "100/101", "var/lib/hello/state"),
        ("-rwxr-xr-x", "0/0", "entrypoint.sh"),
        ("drwxr-x---", "33/44", "data/"),
        ("lrwxrwxrwx", "0/0", "usr/bin/hi -> hello"),
        ("-rw-r--r--", "0/0", "var/lib/dpkg/info/hello.conffiles"),
    ] {
        let fits = |line: &str| line.starts_with(&format!("{mode} {owner} ")) && line.ends_with(&format!(" {path}"));
        assert!(listing.lines().any(fits), "no {mode} {owner} {path} in\n{listing}");
    }
    assert!(!listing.contains("policy-rc.d"), "{listing}");
}

#[test]
fn a_child_begins_with_its_parents_layers_and_one_that_only_changes_the_configuration_adds_none() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    let layers = |image| bench.manifest(image)["layers"].as_array().unwrap().clone();
    assert!(layers("app").starts_with(&layers("base")) && layers("app").len() > layers("base").len());
    assert_eq!(layers("worker"), layers("app"));
}

#[test]
fn a_package_with_a_script_needs_dpkg_and_is_named() {
    for (script, name) in [(Script::PreInst, "preinst"), (Script::PostInst, "postinst"), (Script::Config, "config")] {
        let bench = Bench::with_image("plain, scripted");
        let scripted = DebBuilder::new("scripted", "7").script(script, "#!/bin/sh\nexit 0\n").build();
        bench.archive([DebBuilder::new("plain", "1").build(), scripted], &[]);
        let expected = format!("hello: the package scripted=7 has a {name} script, which needs dpkg and a shell");
        bench.build(&[]).failure(1, &[&expected, "add the package `dpkg`"]);
        bench.is_whole();
    }
}

#[test]
fn a_file_that_a_package_replaces_is_the_new_ones_alone() {
    let bench = Bench::new();
    let old = DebBuilder::new("old", "1").file("usr/bin/tool", 0o755, "old").file("usr/bin/kept", 0o755, "kept");
    let new = DebBuilder::new("new", "2").field("Replaces", "old (<< 2)").file("usr/bin/tool", 0o755, "new");
    bench
        .archive([old.build(), new.build()], &[])
        .spec("family.yaml", FAMILY)
        .spec("together/image.yaml", "from: scratch\npackages: [old, new]\n")
        .spec("below/image.yaml", "from: scratch\npackages: [old]\n")
        .spec("above/image.yaml", "from: below\npackages: [new]\n");
    bench.build(&[]).success();
    for image in ["together", "above"] {
        assert_eq!(bench.file(image, "usr/bin/tool").as_deref(), Some("new"), "{image}");
        assert_eq!(bench.file(image, "usr/bin/kept").as_deref(), Some("kept"), "{image}");
        let list = bench.file(image, "var/lib/dpkg/info/old.list").unwrap();
        assert!(list.contains("/usr/bin/kept\n") && !list.contains("/usr/bin/tool\n"), "{image}: {list}");
    }
}

/// With Debian itself below, from a mirror: what is fetched is kept between runs.
#[test]
fn a_script_that_fails_shows_its_package_its_exit_code_and_its_last_lines() {
    let bench = Bench::new();
    let failing = |name: &str, script, code: u8| {
        let text = format!("#!/bin/sh\necho speaking from {name}\nexit {code}\n");
        DebBuilder::new(name, "1").architecture("all").script(script, text).build()
    };
    let good = "#!/bin/sh\nset -e\necho configured > /etc/good\n";
    let debs = [
        failing("bad-preinst", Script::PreInst, 3),
        failing("bad-postinst", Script::PostInst, 4),
        DebBuilder::new("good", "1").script(Script::PostInst, good).build(),
    ];
    AptRepository::new().packages(debs).write_flat(&bench.at("flat"), "amd64").unwrap();
    let debian = std::fs::read_to_string(opencontrail().join("family.yaml")).unwrap();
    let keyring = opencontrail().join("../keyrings/debian-archive.gpg");
    std::fs::create_dir_all(bench.at("family")).unwrap();
    std::fs::copy(keyring, bench.at("family/archive.gpg")).unwrap();
    let flat = format!(
        "sources:\n  flat: {{type: apt, url: \"file://{}\", flat: amd64/, trusted: true}}\n",
        bench.at("flat").display()
    );
    let family = debian.replace("../keyrings/debian-archive.gpg", "archive.gpg").replacen("sources:\n", &flat, 1);
    let base = std::fs::read_to_string(opencontrail().join("debian/image.yaml")).unwrap();
    let child = |package: &str| format!("from: debian\nsources: [flat, debian]\npackages: [{package}]\n");
    bench
        .spec("family.yaml", &family)
        .spec("debian/image.yaml", &base)
        .spec("first/image.yaml", &child("bad-preinst"))
        .spec("second/image.yaml", &child("bad-postinst"))
        .spec("third/image.yaml", &child("good"));
    let build = |more: &[&str]| {
        let mut command = bench.drystone();
        command.env("DRYSTONE_CACHE_DIR", shared_cache()).env_remove("DRYSTONE_MIRROR");
        if let Some(mirror) = std::env::var_os("DRYSTONE_MIRROR") {
            command.env("DRYSTONE_MIRROR", mirror);
        }
        run(command.args(["build", "family"]).args(more))
    };
    let expected = ["first: the preinst script of bad-preinst failed: exit status 3", "| speaking from bad-preinst"];
    build(&["first"]).failure(1, &expected);
    let expected =
        ["second: configuring the package bad-postinst failed", "| speaking from bad-postinst", "exit status 4"];
    build(&["second"]).failure(1, &expected);
    // What does not depend on a failure is built when asked to, and the exit code still tells of it.
    build(&["--keep-going"]).failure(1, &["2 images could not be built: first, second"]);
    build(&["third"]).success();
    assert_eq!(bench.file("third", "etc/good").as_deref(), Some("configured\n"));
    bench.layout_is_valid();
}
