//! The kernel and the limits of this process, as far as sandboxes and builds depend on them.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Check, Status};

/// The oldest kernel that has all that a sandbox needs.
const OLDEST_KERNEL: (u32, u32) = (5, 14);
/// As many open files as a build of several images at once may need.
const OPEN_FILES: u64 = 1024;
/// 1 January 2025: the program is newer, and so is the time.
const EARLIEST_NOW: i64 = 1_735_689_600;
/// As many subordinate ids as an image may use.
const SUBORDINATE_IDS: u64 = 65536;

/// The sysctls that can turn user namespaces off: where each is, its name, the value that does it, and the one that
/// does not.
const SETTINGS: [(&str, &str, &str, &str); 3] = [
    ("/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0", "1"),
    ("/proc/sys/user/max_user_namespaces", "user.max_user_namespaces", "0", "15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "0",
    ),
];

/// Everything that this process finds out about the machine it is on.
pub(super) fn checks(now: i64) -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    vec![
        kernel(&read("/proc/sys/kernel/osrelease").unwrap_or_default()),
        overlayfs(&fs::read_to_string("/proc/filesystems").unwrap_or_default()),
        notification(&read("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default()),
        user_namespaces(read),
        subordinate_ids(user),
        filter(&status),
        apparmor(),
        proc(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        open_files(getrlimit(Resource::Nofile).current),
        clock(now),
    ]
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn kernel(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_KERNEL;
    let wanted = format!("use Linux {major}.{minor} or later");
    match version {
        (0, 0) => Check::new("kernel", Status::Warn, "its version cannot be read from /proc").fix(wanted),
        found if found < OLDEST_KERNEL => Check::new("kernel", Status::Fail, format!("Linux {release}")).fix(wanted),
        _ => Check::new("kernel", Status::Ok, format!("Linux {release}")),
    }
}

fn overlayfs(filesystems: &str) -> Check {
    let known = filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay"));
    if known {
        return Check::new(
            "overlayfs",
            Status::Ok,
            "known to the kernel; user namespaces can mount it since Linux 5.11",
        );
    }
    let found = "not loaded; the first mount by root loads it, if this kernel has it";
    Check::new("overlayfs", Status::Warn, found).fix("as root: modprobe overlay")
}

fn notification(actions: &str) -> Check {
    let name = "seccomp notification";
    match actions.split_whitespace().any(|action| action == "user_notif") {
        true => Check::new(name, Status::Ok, "the kernel lets a supervisor answer system calls"),
        false => Check::new(name, Status::Warn, "the kernel does not say that it has it")
            .fix("use Linux 5.14 or later with seccomp filters; only `userns-single` needs it"),
    }
}

fn user_namespaces(read: impl Fn(&str) -> Option<String>) -> Check {
    let name = "user namespaces";
    let off = SETTINGS.iter().filter_map(|(path, name, off, on)| {
        let found = read(path)?;
        (found == *off).then(|| (format!("{name} is {found}"), format!("{name}={on}")))
    });
    let (found, wanted): (Vec<String>, Vec<String>) = off.unzip();
    if !found.is_empty() {
        let fix = format!("as root: sysctl -w {}", wanted.join(" "));
        return Check::new(name, Status::Warn, found.join(", ")).fix(fix);
    }
    match read(SETTINGS[1].0) {
        Some(most) => Check::new(name, Status::Ok, format!("allowed, up to {most}")),
        None => Check::new(name, Status::Warn, "the kernel does not say that it has them")
            .fix("use a kernel with user namespaces (CONFIG_USER_NS)"),
    }
}

fn subordinate_ids(user: u32) -> Check {
    let name_of_user = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name_of_user = name_of_user.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == user.to_string()).then(|| name.to_owned())
    });
    let count = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        subordinate_count(&text, name_of_user.as_deref(), user)
    };
    let helpers = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
    let has = |helper: &str| helpers.iter().any(|directory| fs::metadata(format!("{directory}/{helper}")).is_ok());
    let (uids, gids) = (count("/etc/subuid"), count("/etc/subgid"));
    let who = name_of_user.unwrap_or_else(|| user.to_string());
    of_subordinate_ids(&who, (uids, gids), has("newuidmap") && has("newgidmap"))
}

fn subordinate_count(text: &str, name: Option<&str>, user: u32) -> u64 {
    let number = user.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        (Some(who) == name || who == number).then(|| fields.nth(1)?.parse::<u64>().ok())?
    });
    ranges.sum()
}

fn of_subordinate_ids(who: &str, (uids, gids): (u64, u64), helpers: bool) -> Check {
    let helpers_text = if helpers { "newuidmap and newgidmap are there" } else { "newuidmap or newgidmap is missing" };
    let found = format!("{who} has {uids} users and {gids} groups; {helpers_text}");
    let check = Check::new("subordinate ids", Status::Ok, found);
    let mut fixes = Vec::new();
    if uids < SUBORDINATE_IDS || gids < SUBORDINATE_IDS {
        fixes.push(format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"));
    }
    if !helpers {
        fixes.push("apt-get install uidmap".to_owned());
    }
    match fixes.is_empty() {
        true => check,
        // Only `userns` needs them.
        false => Check { status: Status::Info, ..check }.fix(format!("for `userns`, as root: {}", fixes.join(" && "))),
    }
}

fn filter(status: &str) -> Check {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    match mode {
        Some("2") => Check::new("seccomp filter", Status::Info, "one watches this process, as in a container"),
        Some(_) => Check::new("seccomp filter", Status::Ok, "none on this process"),
        None => Check::new("seccomp filter", Status::Info, "the kernel does not say"),
    }
}

fn apparmor() -> Check {
    let label = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"].into_iter().find_map(read);
    match label.as_deref().map(|label| label.trim_end_matches('\0')) {
        None | Some("") => Check::new("AppArmor", Status::Ok, "not in use"),
        Some("unconfined") => Check::new("AppArmor", Status::Ok, "no profile on this process"),
        Some(profile) => Check::new("AppArmor", Status::Info, format!("the profile {profile} is on this process")),
    }
}

/// Whether a container hides parts of `/proc`, or makes them read-only: then the kernel shows no other one.
fn proc(mountinfo: &str) -> Check {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut hidden: Vec<&str> = points.filter(|point| point.starts_with("/proc/")).collect();
    // The kernel keeps these empty for others to mount over.
    hidden.retain(|point| !point.starts_with("/proc/sys/fs/") && !point.starts_with("/proc/fs/"));
    hidden.sort_unstable();
    hidden.dedup();
    if hidden.is_empty() {
        return Check::new("/proc", Status::Ok, "nothing of it is hidden");
    }
    Check::new("/proc", Status::Info, format!("mounted over: {}", hidden.join(", "))).fix(
        "if this stops a sandbox: start the container with --security-opt systempaths=unconfined (podman: unmask=ALL)",
    )
}

fn open_files(limit: Option<u64>) -> Check {
    match limit {
        Some(limit) if limit < OPEN_FILES => {
            Check::new("open files", Status::Warn, format!("at most {limit}")).fix(format!("ulimit -n {OPEN_FILES}"))
        }
        Some(limit) => Check::new("open files", Status::Ok, format!("at most {limit}")),
        None => Check::new("open files", Status::Ok, "unlimited"),
    }
}

fn clock(now: i64) -> Check {
    let shown = crate::image::rfc3339(now);
    match now < EARLIEST_NOW {
        true => Check::new("clock", Status::Fail, format!("{shown}, which is long past"))
            .fix("set the clock: signatures and certificates seem to be of the future"),
        false => Check::new("clock", Status::Ok, shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_found_by_their_version() {
        for (release, expected) in [
            ("6.1.0-28-amd64", Status::Ok),
            ("5.14.0", Status::Ok),
            ("6.12-rc1", Status::Ok),
            ("5.13.19", Status::Fail),
            ("4.18.0-553.el8", Status::Fail),
            ("", Status::Warn),
        ] {
            assert_eq!(kernel(release).status, expected, "{release}");
        }
    }

    #[test]
    fn features_are_read_from_the_kernels_own_lists() {
        assert_eq!(overlayfs("nodev\tproc\n\text4\nnodev\toverlay\n").status, Status::Ok);
        assert_eq!(overlayfs("nodev\toverlayish\n").status, Status::Warn);
        assert_eq!(notification("kill_process user_notif log allow").status, Status::Ok);
        assert_eq!(notification("").status, Status::Warn);
        assert_eq!(filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n").status, Status::Info);
        assert_eq!(filter("Seccomp:\t0\n").status, Status::Ok);
    }

    #[test]
    fn every_setting_that_is_off_is_named_and_turned_on_by_one_command() {
        let check = user_namespaces(|path| Some(if path.contains("apparmor") { "1" } else { "0" }.to_owned()));
        assert_eq!(check.status, Status::Warn);
        let expected = "as root: sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000 \
                        kernel.apparmor_restrict_unprivileged_userns=0";
        assert_eq!(check.fix.as_deref(), Some(expected));
        let usual = user_namespaces(|path| path.contains("max_user").then(|| "63000".to_owned()));
        assert_eq!((usual.status, usual.found.as_str()), (Status::Ok, "allowed, up to 63000"));
    }

    #[test]
    fn subordinate_ids_count_by_name_and_by_number() {
        let text = "ann:100000:65536\n1000:300000:10\nbob:1:7\nann:nonsense\n";
        assert_eq!(subordinate_count(text, Some("ann"), 1000), 65546);
        assert_eq!(subordinate_count(text, None, 1000), 10);
        let enough = of_subordinate_ids("ann", (65536, 65536), true);
        assert_eq!((enough.status, enough.fix), (Status::Ok, None));
        let none = of_subordinate_ids("ann", (0, 0), false);
        assert_eq!(none.status, Status::Info);
        let fix = none.fix.unwrap();
        assert!(fix.contains("--add-subuids") && fix.contains("apt-get install uidmap"), "{fix}");
    }

    #[test]
    fn what_a_container_hides_in_proc_is_named_once() {
        let line = |point: &str| format!("30 20 0:5 / {point} rw - tmpfs tmpfs rw\n");
        let usual = line("/") + &line("/proc") + &line("/proc/sys/fs/binfmt_misc");
        assert_eq!(proc(&usual).status, Status::Ok);
        let masked = usual + &line("/proc/kcore") + &line("/proc/kcore") + &line("/proc/acpi");
        assert_eq!(proc(&masked).found, "mounted over: /proc/acpi, /proc/kcore");
    }

    #[test]
    fn a_small_limit_and_a_clock_that_was_never_set_are_told() {
        assert_eq!(open_files(Some(256)).fix.as_deref(), Some("ulimit -n 1024"));
        assert_eq!(open_files(None).status, Status::Ok);
        assert_eq!(clock(0).status, Status::Fail);
        assert_eq!(clock(0).found, "1970-01-01T00:00:00Z, which is long past");
        assert_eq!(clock(EARLIEST_NOW).status, Status::Ok);
    }
}
