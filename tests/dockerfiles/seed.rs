//! The Dockerfiles of the original family as they were written (`seed/`, where only one host's name is another), on
//! Debian in place of Ubuntu and with stand-ins in place of the private archive: analytics, its child, and the steps of
//! the transcript that builds libvirt.

use std::fs;
use std::path::Path;

use fixtures::http::FileServer;
use fixtures::{AptRepository, Deb, DebBuilder};
use serde_json::{Value, json};

use super::debian::{self, with_debian};
use super::{Buildah, Case, differences};
use crate::support::family::{Bench, read_json};
use crate::support::program::repository;

/// apt of 2015 warned where today's refuses.
const UBUNTU: &[(&str, &str)] = &[
    ("Dockerfile", "FROM debian:v1\nCOPY as-in-2015 /etc/apt/apt.conf.d/\nRUN rm -rf /etc/apt/sources.list*\n"),
    ("as-in-2015", "Acquire::AllowInsecureRepositories \"true\";\nAPT::Get::AllowUnauthenticated \"true\";\n"),
];

const ENTRYPOINT: &str = "#!/bin/sh\nexec \"$@\"\n";

/// What differs because two builds are two: logs with times, and what apt and ldconfig keep of files' times.
const TWO_BUILDS: [&str; 3] = ["/var/log/", "/var/cache/apt/", "/var/cache/ldconfig/"];

/// The archive's packages: names and files that the Dockerfiles mention.
fn stand_ins() -> Vec<Deb> {
    let package = |name: &str| DebBuilder::new(name, "3.0-2668");
    vec![
        package("contrail-utils").file("usr/bin/contrail-version", 0o755, "#!/bin/sh\necho 3.0-2668\n").build(),
        package("python-contrail").file("usr/bin/python", 0o755, "#!/bin/sh\nexec /bin/sh \"$@\"\n").build(),
        package("contrail-lib").file("usr/lib/libcontrail.so.1", 0o644, "a library").build(),
        package("contrail-analytics")
            .depends("contrail-lib, python-contrail")
            .file("usr/bin/contrail-analytics-api", 0o755, "#!/bin/sh\necho analytics \"$@\"\n")
            .conffile("etc/contrail/contrail-analytics-api.conf", "[DEFAULTS]\n")
            .build(),
        package("libvirt-bin")
            .depends("libvirt0")
            .field("Recommends", "no-such-package")
            .file("usr/sbin/libvirtd", 0o755, "#!/bin/sh\n")
            .conffile("etc/libvirt/libvirtd.conf", "# as it comes\n")
            .conffile("etc/libvirt/qemu.conf", "# as it comes\n")
            .build(),
        package("libvirt0").file("usr/lib/libvirt.so.0", 0o644, "a library").build(),
        package("python-libvirt").depends("libvirt0").build(),
        package("qemu-kvm").file("usr/bin/kvm", 0o755, "#!/bin/sh\n").build(),
    ]
}

/// Both builders, and what they build from.
struct Site {
    bench: Bench,
    buildah: Buildah,
    archive: FileServer,
}

impl Site {
    fn new() -> Self {
        let bench = with_debian(&[]);
        // Commands ask it as a proxy, so that the whole address is the path.
        let below = bench.at("proxy/http:/10.87.64.23/contrail-3.0-2668");
        AptRepository::new().packages(stand_ins()).write_flat(&below, "amd64").unwrap();
        let archive = FileServer::start(bench.at("proxy")).unwrap();
        debian::build(&bench, "ubuntu:14.04", UBUNTU, &[]);
        let buildah = Buildah { storage: bench.at("storage") };
        buildah.take(&bench, "localhost/ubuntu:14.04");
        Self { bench, buildah, archive }
    }

    /// Builds one of the Dockerfiles twice, and says what differs.
    fn build(&self, name: &str, tag: &str, files: &[(&str, &str)], on_purpose: &[&str]) {
        let directory = self.bench.at(name);
        for (file, text) in files {
            super::write(&directory, &format!("{file} 0755"), text);
        }
        super::write(&directory, "Dockerfile", &dockerfile(name));
        let flags = vec!["--build-arg".to_owned(), format!("http_proxy={}", self.archive.url())];
        let allowed = TWO_BUILDS.iter().chain(on_purpose).copied().map(str::to_owned).collect();
        let case = Case { name: name.to_owned(), flags, allowed, directory };
        let found = differences(&self.bench, debian::drystone(&self.bench), &self.buildah, &case, tag);
        assert!(found.is_empty(), "{name}:\n  {}", found.join("\n  "));
    }

    fn config(&self, image: &str) -> Value {
        let digest = self.bench.manifest(image)["config"]["digest"].as_str().unwrap().to_owned();
        read_json(&self.bench.blob(&digest))
    }
}

fn dockerfile(name: &str) -> String {
    let path = repository().join(Path::new("tests/dockerfiles/seed")).join(format!("{name}.Dockerfile"));
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_dockerfiles_of_the_seed_give_on_debian_what_buildah_makes_of_them() {
    let site = Site::new();

    site.build("analytics", "analytics", &[], &[]);
    site.build("analytics-api", "analytics-api", &[("entrypoint.sh", ENTRYPOINT)], &[]);
    let config = site.config("analytics-api");
    assert_eq!(config["config"]["Entrypoint"], json!(["/entrypoint.sh"]));
    assert_eq!(
        config["config"]["Labels"],
        json!({"net.juniper.contrail": "analytics", "net.juniper.node": "controller"})
    );
    let conf = "etc/contrail/contrail-analytics-api.conf";
    assert_eq!(site.bench.file("analytics-api", conf).as_deref(), Some("[DEFAULTS]\n"));
    let asked = site.archive.paths();
    assert!(asked.iter().any(|path| path.starts_with("http://10.87.64.23/") && path.ends_with(".deb")), "{asked:?}");

    let no_gateway = "#!/bin/sh\necho '0.0.0.0 127.0.0.1 0.0.0.0 UG 0 0 0 eth0'\n";
    let files = [("netstat", no_gateway), ("nc", "#!/bin/sh\ncat\n")];
    site.build("openstackbase", "muccg/openstackbase:kilo", &files, &[]);
    assert_eq!(site.config("openstackbase")["config"]["OnBuild"].as_array().map(Vec::len), Some(2));
    let files = [("openstack-config", "#!/bin/sh\n"), ("entrypoint.sh", ENTRYPOINT)];
    // buildah makes a place for a volume as soon as a command runs after it; BuildKit and we leave that to containers.
    site.build(
        "libvirt",
        "localhost:5100/libvirt:contrail-3.0-2668",
        &files,
        &["/sys/fs: ours None", "/sys/fs/cgroup: "],
    );
    let config = site.config("libvirt");
    assert_eq!(config["author"], "https://github.com/muccg/");
    assert_eq!(config["config"]["OnBuild"], Value::Null, "triggers are done");
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/sh", "-c", "/entrypoint.sh"]));
    assert_eq!(config["config"]["Cmd"], json!(["/bin/sh", "-c", "/usr/sbin/libvirtd -l"]));
    assert_eq!(config["config"]["Labels"], json!({"net.juniper.openstack": "nova", "net.juniper.node": "compute"}));
    assert_eq!(config["config"]["Volumes"], json!({"/sys/fs/cgroup": {}}));
    let qemu = site.bench.file("libvirt", "etc/libvirt/qemu.conf").unwrap();
    assert!(qemu.starts_with("# as it comes\nclear_emulator") && qemu.ends_with("\"/dev/net/tun\",\n]\n"), "{qemu}");
}
