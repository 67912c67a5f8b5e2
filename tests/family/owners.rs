//! Who owns what: the same from root and from a plain user with one id.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{Tree, copy_downloads, family, images, tree};
use crate::support::program::{opencontrail, run, tool};

/// Images, paths, types, modes and owners by the image's own accounts, as the packages and their scripts want them.
const OWNERS: &[(&str, &str, &str, &str, &str)] = &[
    ("debian", "/usr/bin/su", "file", "4755", "root:root"),
    ("debian", "/usr/bin/passwd", "file", "4755", "root:root"),
    ("debian", "/usr/bin/chage", "file", "2755", "root:shadow"),
    ("debian", "/usr/sbin/unix_chkpwd", "file", "2755", "root:shadow"),
    ("debian", "/etc/shadow", "file", "0640", "root:shadow"),
    ("debian", "/etc/gshadow", "file", "0640", "root:shadow"),
    ("debian", "/etc/passwd", "file", "0644", "root:root"),
    ("debian", "/root", "directory", "0700", "root:root"),
    ("debian", "/tmp", "directory", "1777", "root:root"),
    ("debian", "/var/tmp", "directory", "1777", "root:root"),
    ("debian", "/var/local", "directory", "2775", "root:staff"),
    ("debian", "/var/mail", "directory", "2775", "root:mail"),
    ("redis", "/data", "directory", "0755", "redis:redis"),
    ("redis", "/etc/redis", "directory", "2770", "redis:redis"),
    ("redis", "/etc/redis/redis.conf", "file", "0640", "redis:redis"),
    ("redis", "/var/lib/redis", "directory", "0750", "redis:redis"),
    ("redis", "/var/log/redis", "directory", "2750", "redis:adm"),
    ("redis", "/entrypoint.sh", "file", "0755", "root:root"),
    ("memcached", "/entrypoint.sh", "file", "0755", "root:root"),
    ("rabbitmq", "/usr/bin/crontab", "file", "2755", "root:crontab"),
    ("rabbitmq", "/var/spool/cron/crontabs", "directory", "1730", "root:crontab"),
    ("rabbitmq", "/var/lib/rabbitmq", "directory", "0755", "rabbitmq:rabbitmq"),
    ("rabbitmq", "/var/lib/rabbitmq/mnesia", "directory", "0750", "rabbitmq:rabbitmq"),
    ("rabbitmq", "/etc/rabbitmq/rabbitmq-env.conf", "file", "0644", "rabbitmq:rabbitmq"),
    ("rabbitmq", "/root/.erlang.cookie", "symlink", "0777", "root:root"),
];

/// The images that a plain user builds too; the others take longer and show nothing else.
const BY_PLAIN_USER: [&str; 4] = ["debian", "memcached", "rabbitmq", "redis"];

/// A plain user without subordinate ids.
const NOBODY: &str = "65534";

#[test]
fn layers_carry_the_owners_and_modes_of_debian() {
    for image in BY_PLAIN_USER {
        has_the_owners_of_debian(image, &tree(&family().layout, image));
    }
}

#[test]
fn a_plain_user_builds_the_same_images_with_the_same_owners() {
    let directory = tempfile::Builder::new().prefix("drystone-plain-user").tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // The user may not be able to read the repository, nor the downloads of who runs this.
    tool("cp", [env!("CARGO_BIN_EXE_drystone").as_ref(), at("drystone").as_os_str()]);
    tool("cp", ["-r".as_ref(), opencontrail().parent().unwrap().as_os_str(), at("specs").as_os_str()]);
    copy_downloads(&at("cache"));
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    tool("chown", ["-R", &format!("{NOBODY}:{NOBODY}"), directory.path().to_str().unwrap()]);

    let mut build = Command::new("setpriv");
    build.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(at("drystone"));
    build.arg("build").arg(at("specs/opencontrail")).args(BY_PLAIN_USER).args(["--sandbox", "userns-single"]);
    build.arg("--layout").arg(at("layout")).arg("--cache-dir").arg(at("cache"));
    build.env("HOME", directory.path()).env_remove("XDG_CACHE_HOME").env_remove("SOURCE_DATE_EPOCH");
    run(build.current_dir(directory.path())).success();

    let (by_root, by_user) = (family().images(), images(&at("layout")));
    assert!(by_user.keys().eq(BY_PLAIN_USER), "{by_user:?}");
    for image in BY_PLAIN_USER {
        has_the_owners_of_debian(image, &tree(&at("layout"), image));
        assert_eq!(by_user[image]["digest"], by_root[image]["digest"], "{image}");
    }
}

#[track_caller]
fn has_the_owners_of_debian(image: &str, tree: &Tree) {
    for (_, path, kind, mode, owner) in OWNERS.iter().filter(|(of, ..)| *of == image) {
        let found = tree.get(*path).unwrap_or_else(|| panic!("{image} has no {path}"));
        let found = ["type", "mode", "owner"].map(|key| found[key].as_str().unwrap());
        assert_eq!(found, [*kind, *mode, *owner], "{image}: {path}");
    }
}
