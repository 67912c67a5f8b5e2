//! What tests build with: a small root filesystem, trees, and builders of all kinds.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The plain user as whom the builder runs on `userns-single`.
pub(crate) const PLAIN_USER: u32 = 65534;

/// The plain user who has a range of subordinate ids, in an `/etc` that only the tests see.
pub(crate) const RANGED_USER: u32 = 4242;

/// Two ranges, one by name and one by number, which are enough together.
pub(crate) const RANGES: &str = "root:100000:65536\nstone:300000:40000\n4242:400000:30000\n";

/// The rungs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// Root, on the rung `root`.
    Root,
    /// A plain user with a range of subordinate ids, on the rung `userns`.
    RangedUser,
    /// A plain user, on the rung `userns-single`.
    PlainUser,
    /// Root, on the rung `chroot`.
    Chroot,
}

/// The rungs that have namespaces, and with them a `/proc` of their own.
pub(crate) const WITH_NAMESPACES: [As; 3] = [As::Root, As::RangedUser, As::PlainUser];

pub(crate) const ALL: [As; 4] = [As::Root, As::RangedUser, As::PlainUser, As::Chroot];

impl As {
    pub(crate) fn rung(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::RangedUser => "userns",
            Self::PlainUser => "userns-single",
            Self::Chroot => "chroot",
        }
    }

    fn uid(self) -> u32 {
        match self {
            Self::Root | Self::Chroot => 0,
            Self::RangedUser => RANGED_USER,
            Self::PlainUser => PLAIN_USER,
        }
    }
}

/// Programs of the host that are put into the root filesystem, with their libraries.
const TOOLS: [&str; 23] = [
    "/usr/bin/dash",
    "/usr/bin/chgrp",
    "/usr/bin/chmod",
    "/usr/bin/chown",
    "/usr/bin/cp",
    "/usr/bin/id",
    "/usr/bin/install",
    "/usr/bin/ln",
    "/usr/bin/mkdir",
    "/usr/bin/mkfifo",
    "/usr/bin/mknod",
    "/usr/bin/mv",
    "/usr/bin/rm",
    "/usr/bin/setpriv",
    "/usr/bin/stat",
    "/usr/bin/su",
    "/usr/bin/tar",
    "/usr/bin/touch",
    "/usr/sbin/chroot",
    "/usr/sbin/getcap",
    "/usr/sbin/setcap",
    "/usr/sbin/start-stop-daemon",
    "/usr/lib/x86_64-linux-gnu/security/pam_rootok.so",
];

const BUSYBOX: &str = "/bin/busybox";

/// Fails, with what to do, if the machine cannot run these tests.
pub(crate) fn require_tools() {
    assert!(rustix::process::geteuid().is_root(), "these tests need root, to run builders as root and as a plain user");
    let missing: Vec<&str> = TOOLS
        .into_iter()
        .chain([BUSYBOX, "/usr/bin/newuidmap", "/usr/bin/setpriv", "/usr/bin/unshare"])
        .filter(|tool| !Path::new(tool).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "missing: {missing:?}; apt-get install busybox-static dash coreutils tar util-linux dpkg libcap2-bin libpam-modules uidmap"
    );
    let libraries = libraries_of(Path::new(BUSYBOX));
    assert!(libraries.is_empty(), "{BUSYBOX} is not static; apt-get install busybox-static");
}

/// A directory for one test, removed afterwards.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    who: As,
}

impl Bench {
    pub(crate) fn new(who: As) -> Self {
        let directory = tempfile::Builder::new().prefix("drystone-sandbox-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(directory.path(), Some(who.uid()), Some(who.uid())).unwrap();
        Self { directory, who }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An empty tree.
    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.builder("make-tree").arg(&path).run();
        path
    }

    /// A tree with the root filesystem.
    pub(crate) fn base(&self) -> PathBuf {
        let path = self.path("base");
        self.builder("make-tree").arg(&path).arg(template()).run();
        path
    }

    /// A builder as the user of this bench.
    pub(crate) fn builder(&self, action: &str) -> Builder {
        let program = template().join("probe");
        let mut command = match self.who {
            As::Root | As::Chroot => Command::new(program),
            As::RangedUser => ranged_user(etc(), "", &[], program.as_path()),
            As::PlainUser => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
                command
            }
        };
        command.args(["builder", action, "--rung", self.who.rung()]).current_dir("/");
        Builder { command, what: Vec::new() }
    }

    /// A run over the base, with changes in a fresh tree `upper`.
    pub(crate) fn run(&self, lowers: &[&Path], upper: &Path) -> Builder {
        let mut builder = self.builder("run");
        for lower in lowers {
            builder = builder.arg("--lower").arg(lower);
        }
        builder.arg("--upper").arg(upper)
    }

    /// Runs a shell script over the base; it must succeed. Returns what it printed.
    pub(crate) fn shell(&self, lowers: &[&Path], upper: &Path, script: &str) -> String {
        self.run(lowers, upper).shell(script).run()
    }

    /// Every path of a tree, with all that a layer stores.
    pub(crate) fn dump(&self, tree: &Path) -> String {
        self.builder("dump").arg(tree).run()
    }

    /// The bytes of the layer that a tree is over another one.
    pub(crate) fn layer(&self, tree: &Path, below: &Path) -> Vec<u8> {
        let output = self.builder("layer").arg(below).arg(tree).output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// The command line of a builder.
pub(crate) struct Builder {
    pub(crate) command: Command,
    what: Vec<std::ffi::OsString>,
}

impl Builder {
    pub(crate) fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(&argument);
        self.what.push(argument.as_ref().to_os_string());
        self
    }

    pub(crate) fn args(self, arguments: &[&str]) -> Self {
        arguments.iter().fold(self, |builder, argument| builder.arg(argument))
    }

    pub(crate) fn shell(self, script: &str) -> Self {
        self.args(&["--", "/bin/sh", "-ec", script])
    }

    pub(crate) fn output(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Must succeed.
    pub(crate) fn run(mut self) -> String {
        let output = self.command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{:?}: {}\n{out}{err}", self.what, output.status);
        out.into_owned()
    }
}

/// A program as the user with a range, where `/etc` is another one, after root has run a script in mounts of its own.
/// `options` are more of setpriv's.
pub(crate) fn ranged_user(etc: &Path, script: &str, options: &[&str], program: &Path) -> Command {
    let script =
        format!("cp /usr/bin/setpriv \"$0/setpriv\"; mount --bind \"$0\" /etc\n{script}\nexec /etc/setpriv \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]).arg(etc);
    command.args(["--reuid", "4242", "--regid", "4242", "--clear-groups"]).args(options).arg(program);
    command
}

/// A copy of `/etc` in which there is a user `stone`, and these are the ranges.
pub(crate) fn etc_with(ranges: &str) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("drystone-etc-").tempdir_in("/var/tmp").unwrap();
    let copied = Command::new("cp").args(["-a", "/etc/."]).arg(directory.path()).status().unwrap();
    assert!(copied.success());
    let at = |name: &str| directory.path().join(name);
    let mut accounts = fs::read_to_string("/etc/passwd").unwrap();
    accounts.push_str("stone:x:4242:4242::/nonexistent:/usr/sbin/nologin\n");
    fs::write(at("passwd"), accounts).unwrap();
    fs::write(at("subuid"), ranges).unwrap();
    fs::write(at("subgid"), ranges).unwrap();
    directory
}

fn etc() -> &'static Path {
    static ETC: OnceLock<tempfile::TempDir> = OnceLock::new();
    ETC.get_or_init(|| etc_with(RANGES)).path()
}

/// The root filesystem as plain files, readable by everybody; made once.
pub(crate) fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("drystone-template-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fill(directory.path());
        directory
    });
    made.path()
}

/// Removes what is made once: a static value is not dropped.
pub(crate) fn remove_what_is_shared() {
    let _ = fs::remove_dir_all(template());
    let _ = fs::remove_dir_all(etc());
}

fn fill(root: &Path) {
    for name in ["bin", "etc/pam.d", "tmp", "root", "home", "var/lib", "usr/bin", "usr/sbin", "work"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name)).unwrap();
        symlink(Path::new("usr").join(name), root.join(name)).unwrap();
    }
    put(Path::new(BUSYBOX), &root.join("bin/busybox"));
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
    for applet in
        String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| !["busybox", "sh"].contains(applet))
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    // Busybox' own shell would take its own applets for all these tools.
    symlink("/usr/bin/dash", root.join("bin/sh")).unwrap();
    let own = std::env::current_exe().unwrap();
    put(&own, &root.join("probe"));
    for tool in TOOLS.iter().map(Path::new).chain([own.as_path()]) {
        if *tool != *own {
            put(tool, &root.join(tool.strip_prefix("/").unwrap()));
        }
        for library in libraries_of(tool) {
            put(&library, &root.join(library.strip_prefix("/").unwrap()));
        }
    }
    for module in ["pam_permit.so", "pam_deny.so"] {
        let directory = Path::new("/usr/lib/x86_64-linux-gnu/security");
        put(&directory.join(module), &root.join(directory.strip_prefix("/").unwrap()).join(module));
    }
    let files = [
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\nredis:x:105:106::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\nadm:x:4:\nredis:x:106:\nextra:x:200:redis\nnogroup:x:65534:\n"),
        (
            "etc/pam.d/su",
            "auth sufficient pam_rootok.so\naccount required pam_permit.so\nsession required pam_permit.so\n",
        ),
        ("etc/motd", "hello\n"),
    ];
    for (name, content) in files {
        fs::write(root.join(name), content).unwrap();
    }
}

fn put(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    // The template is made by root; a plain user has no setuid programs, so the copy must not have one either.
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Processes of this machine whose command line or environment holds a text.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let read = |name: &str| String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned();
        if path.join("cmdline").exists() && read("cmdline").contains(text) {
            found.push(format!("{}: {}", path.display(), read("cmdline")));
        }
    }
    found
}

/// Processes of this machine that see a mount whose description holds a text.
pub(crate) fn mounts_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("mountinfo");
        let mounts = fs::read_to_string(path).unwrap_or_default();
        found.extend(mounts.lines().filter(|line| line.contains(text)).map(str::to_owned));
    }
    found
}

/// Waits up to a few seconds for something to become true.
pub(crate) fn eventually(what: impl Fn() -> bool) -> bool {
    for _ in 0..200 {
        if what() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    false
}
