//! What sandboxed steps leave behind that does not belong into an image: logs, locks, backups, caches with dates, and
//! secrets that must differ between machines and so must not come from an image.
//!
//! The list is part of the documentation (`ARCHITECTURE.md`, "Scrubbed").

use layer::entry::ImagePath;

/// Files below these directories are dropped; the directories stay.
const EMPTIED: &[&str] = &["run", "tmp", "var/tmp", "var/log", "var/lib/apt/lists", "var/cache/apt"];

/// Files that are dropped.
const DROPPED: &[&str] = &[
    // Locks and backups of programs that rewrite their files.
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/sgml-base/supercatalog.old",
    // Caches that remember times and inodes. The second is postfix's of /etc/aliases, and `newaliases` makes it.
    "var/cache/ldconfig/aux-cache",
    "etc/aliases.db",
    // The identity of a machine, and its secrets: whoever starts a container makes its own.
    "etc/bind/rndc.key",
    "etc/hostid",
    "etc/iscsi/initiatorname.iscsi",
    "etc/machine-id",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "var/lib/dbus/machine-id",
    "var/lib/rabbitmq/.erlang.cookie",
    "var/lib/systemd/random-seed",
];

/// Whether something that a sandboxed step made, changed or removed at `path` belongs into the layer.
pub fn keeps(path: &ImagePath, is_directory: bool) -> bool {
    let Ok(text) = std::str::from_utf8(path.as_bytes()) else { return true };
    if DROPPED.contains(&text) || text.starts_with("etc/ssh/ssh_host_") {
        return false;
    }
    let emptied =
        EMPTIED.iter().any(|directory| text.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/')));
    let transient = ["run/", "tmp/", "var/tmp/"].iter().any(|directory| text.starts_with(directory));
    !transient && (!emptied || is_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_locks_and_secrets_stay_behind_and_all_else_goes_in() {
        let cases = [
            ("var/log/dpkg.log", false, false),
            ("var/log/redis", true, true),
            ("var/log", true, true),
            ("run/lock", true, false),
            ("etc/machine-id", false, false),
            ("etc/ssh/ssh_host_rsa_key", false, false),
            ("etc/passwd-", false, false),
            ("etc/aliases", false, true),
            ("etc/aliases.db", false, false),
            ("etc/passwd", false, true),
            ("var/lib/rabbitmq", true, true),
            ("var/lib/apt/lists/lock", false, false),
            ("var/lib/apt/lists/partial", true, true),
            ("runner/file", false, true),
        ];
        for (path, is_directory, expected) in cases {
            assert_eq!(keeps(&path.parse().unwrap(), is_directory), expected, "{path}");
        }
    }
}
