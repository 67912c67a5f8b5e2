//! The rung `chroot`, in the container it is made for: Docker's own seccomp profile and capabilities, no options but a
//! volume.

mod dockerfiles;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::docker::Docker;
use crate::support::program::{Finished, drystone, mirror_variables, opencontrail, run, shared_cache, tool};

/// What is built: packages whose scripts make users and give files away, and a step that does so itself.
const IMAGES: [&str; 3] = ["debian", "redis", "accounts"];

/// Everything that a plain user could not do, and things that differ between machines.
const ACCOUNTS: &str = r#"
from: debian
run:
  - |
    groupadd --system stone && useradd --system --gid stone --home-dir /srv/stone --create-home mason
    install -o mason -g stone -m 4750 /bin/true /srv/stone/setuid
    echo one > /srv/stone/one && ln /srv/stone/one /srv/stone/two && chown mason /srv/stone/one
    mknod -m 640 /srv/stone/null c 1 3 && mkfifo -m 600 /srv/stone/fifo && ln -s one /srv/stone/link
    chown -h mason:stone /srv/stone/link && touch -h /srv/stone/link && hostname > /srv/stone/host
    printf '\001\000\000\002\000\040\000\000\000\000\000\000\000\000\000\000\000\000\000\000' > /tmp/value
    perl -e 'open F, "/tmp/value"; read F, $v, 20; require "syscall.ph" if 0;
             $n = "security.capability\0"; $p = "/srv/stone/capable\0"; open G, ">/srv/stone/capable"; close G;
             syscall(188, $p, $n, $v, 20, 0) == 0 or die "setxattr: $!"'
    su mason -s /bin/sh -c 'echo mine > /srv/stone/mine; id > /srv/stone/id'
    rm -r /etc/cron.daily && mkdir /etc/cron.daily && echo '#!/bin/sh' > /etc/cron.daily/stone
    rm /etc/debian_version && ln -s os-release /etc/debian_version && rm /etc/issue && mkdir /etc/issue
    mv /usr/share/common-licenses /srv/licenses && chmod 700 /usr/games
    truncate -s 1M /srv/stone/sparse && echo end >> /srv/stone/sparse
    sed -i s/x/x/ /etc/passwd && cat /etc/group > /etc/group.new && mv /etc/group.new /etc/group
    echo to the log > /dev/stdout && echo through > /proc/self/fd/2
    (sleep 600 &) && (setsid sleep 600 &)
  - |
    ! perl -MSocket -e 'socket S, PF_INET, SOCK_STREAM, 0; connect(S, sockaddr_in(80, inet_aton("192.0.2.1"))) or die "$!\n"'
"#;

/// A directory with the program, the specs with our image, and downloads.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        // Not below /tmp, which may be in memory: the copied roots are large.
        let directory = tempfile::Builder::new().prefix("drystone-chroot").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let site = Self { directory };
        tool("cp", [env!("CARGO_BIN_EXE_drystone").as_ref(), site.at("drystone").as_os_str()]);
        tool("cp", ["-r".as_ref(), opencontrail().parent().unwrap().as_os_str(), site.at("specs").as_os_str()]);
        fs::create_dir(site.at("specs/opencontrail/accounts")).unwrap();
        fs::write(site.at("specs/opencontrail/accounts/image.yaml"), ACCOUNTS).unwrap();
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Builds as root outside, each step anew.
    fn build_outside(&self) -> Finished {
        self.copy_downloads("outside");
        let family = self.at("specs/opencontrail");
        let layout = self.at("outside/oci");
        let mut command = drystone();
        command.env("DRYSTONE_CACHE_DIR", self.at("outside/cache")).args(["build", "--sandbox", "root", "--layout"]);
        let finished = run(command.arg(layout).arg(family).args(IMAGES)).success();
        // What was fetched is for the next run too.
        for name in ["debs", "indexes", "segments"] {
            let _ = fs::create_dir_all(shared_cache());
            tool(
                "cp",
                [
                    "-rnT".as_ref(),
                    self.at("outside/cache").join(name).as_os_str(),
                    shared_cache().join(name).as_os_str(),
                ],
            );
        }
        finished
    }

    fn copy_downloads(&self, place: &str) {
        let cache = self.at(place).join("cache");
        fs::create_dir_all(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["debs", "indexes", "segments"] {
            if shared_cache().join(name).is_dir() {
                tool("cp", ["-r".as_ref(), shared_cache().join(name).as_os_str(), cache.as_os_str()]);
            }
        }
    }

    /// The images' manifests, by name.
    fn manifests(&self, place: &str) -> Vec<(String, String)> {
        let index = fs::read_to_string(self.at(place).join("oci/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let manifests = index["manifests"].as_array().unwrap().iter().map(|manifest| {
            let name = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            (name.to_owned(), manifest["digest"].as_str().unwrap().to_owned())
        });
        let mut manifests: Vec<_> = manifests.collect();
        manifests.sort();
        manifests
    }
}

/// Makes the image `bare`, which holds what `drystone` in that directory needs to run, and nothing else.
fn make_image(docker: &Docker, directory: &Path) {
    let root = directory.join("image");
    fs::create_dir_all(root.join("tmp")).unwrap();
    let libraries = tool("ldd", [directory.join("drystone")]);
    let mut needed: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect();
    needed.extend(["/etc/apt", "/etc/ssl"].into_iter().filter(|path| Path::new(path).exists()));
    for path in needed {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        tool("cp", ["-rL", path, to.to_str().unwrap()]);
    }
    let archive = directory.join("image.tar");
    tool("tar", ["-C".as_ref(), root.as_os_str(), "-cf".as_ref(), archive.as_os_str(), ".".as_ref()]);
    docker.run(["import", archive.to_str().unwrap(), "bare"]).success();
}

/// The program in a container of that image where the directory is `/site`, with these options for `docker run` and
/// arguments for itself.
fn in_container(docker: &Docker, directory: &Path, options: &[&str], arguments: &[&str]) -> Finished {
    let volume = format!("{}:/site", directory.display());
    let fixed = ["run", "--rm", "--network", "host", "-v", &volume, "-e", "HOME=/tmp"];
    let mut command: Command = docker.command(fixed.iter().chain(options).copied());
    for (name, value) in mirror_variables() {
        command.arg("-e").arg(format!("{name}={value}"));
    }
    run(command.args(["bare", "/site/drystone"]).args(arguments))
}

#[test]
fn a_default_container_builds_the_same_images_as_root() {
    let site = Site::new();
    let docker = Docker::start();
    make_image(&docker, site.directory.path());
    site.build_outside();
    site.copy_downloads("inside");
    let fixed =
        ["build", "--layout", "/site/inside/oci", "--cache-dir", "/site/inside/cache", "/site/specs/opencontrail"];
    let arguments: Vec<&str> = fixed.into_iter().chain(IMAGES).collect();

    let built = in_container(&docker, site.directory.path(), &["--hostname", "quarry"], &arguments).success();
    let first = built.stderr.lines().next().unwrap_or_default();
    assert!(first.contains("chroot: root: needs CAP_SYS_ADMIN"), "{first}\n{}", built.stderr);
    assert_eq!(site.manifests("inside"), site.manifests("outside"));

    // In the container's own files nothing can be kept that deletes; a volume is asked for.
    let elsewhere: Vec<&str> =
        arguments.iter().map(|argument| argument.strip_prefix("/site/inside").unwrap_or(argument)).collect();
    in_container(&docker, site.directory.path(), &[], &elsewhere)
        .failure(1, &["overlayfs, which cannot hold", "a volume"]);

    // A plain user is told why nothing can be run, and the ways out.
    fs::create_dir(site.at("open")).unwrap();
    fs::set_permissions(site.at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let open: Vec<String> = arguments.iter().map(|argument| argument.replace("/site/inside", "/site/open")).collect();
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    let ways = ["chroot: needs user id 0, this process has 65534", "seccomp=unconfined", "--user 0"];
    in_container(&docker, site.directory.path(), &["--user", "65534"], &open).failure(1, &ways);

    // What is in the cache needs no sandbox; without it, root is told the same.
    let dropped = ["--cap-drop", "MKNOD", "--cap-drop", "SETFCAP"];
    let lacking = in_container(&docker, site.directory.path(), &dropped, &[&arguments[..], &["--no-cache"]].concat());
    lacking.failure(1, &["root lacks the capabilities MKNOD,SETFCAP", "--cap-add MKNOD --cap-add SETFCAP"]);
    let cached = in_container(&docker, site.directory.path(), &dropped, &arguments).success();
    assert!(cached.stderr.contains("nothing to build"), "{}", cached.stderr);
}
