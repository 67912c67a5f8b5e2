//! The database written here is the one dpkg writes, and dpkg goes on with it as with its own.
//!
//! dpkg works in a directory of its own here, on packages without scripts. It wants to be root: as another user these
//! tests run it in a user namespace.
#![expect(clippy::unwrap_used, reason = "the helpers here are parts of tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use debian::DebReader;
use debian::dpkg::{
    ConffileEntry, INFO_FORMAT, Md5Sum, PackageState, Status, StatusEntry, TriggerDatabase, info_file, list_file,
    parse_conffiles, parse_triggers,
};

/// A package to build: its control fields, control files and data files.
struct Source {
    name: &'static str,
    fields: &'static str,
    control: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
}

const WATCHER: Source = Source {
    name: "watcher",
    fields: "Architecture: amd64\nMulti-Arch: same\nVersion: 1:1.0-2\nProvides: looker (= 1)\nHomepage: https://example.org\n",
    control: &[("triggers", "interest-noawait /usr/share/seen\ninterest /usr/share/awaited\ninterest call\n")],
    files: &[("usr/share/watcher/file", "x")],
};

const LATE: Source = Source {
    name: "late",
    fields: "Architecture: all\nVersion: 3\nEssential: no\nSource: latesource (2)\n",
    control: &[("triggers", "interest call\ninterest-noawait /usr/share/seen\n")],
    files: &[("usr/share/seen/late", "x")],
};

const USER: Source = Source {
    name: "user",
    fields: "Architecture: all\nVersion: 2.0\nDepends: watcher (>= 1:1.0), late | nothing\nSection: misc\nPriority: extra\n",
    control: &[
        ("triggers", "activate call\nactivate-noawait nobody\n"),
        ("conffiles", "/etc/user.conf\nremove-on-upgrade /etc/user.old\n"),
    ],
    files: &[
        ("etc/user.conf", "key = value\n"),
        ("usr/share/seen/deep/file", "x"),
        ("usr/share/awaited/file", "y"),
        ("usr/share/unseen/file", "z"),
    ],
};

impl Source {
    fn build(&self, directory: &Path) -> PathBuf {
        let tree = directory.join(self.name);
        let write = |path: PathBuf, content: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let control = format!(
            "Package: {}\n{}Maintainer: Jane Doe <jane@example.org>\nDescription: a test\n with\n .\n lines\n",
            self.name, self.fields
        );
        write(tree.join("DEBIAN/control"), &control);
        for (name, content) in self.control {
            write(tree.join("DEBIAN").join(name), content);
        }
        for (path, content) in self.files {
            write(tree.join(path), content);
        }
        let file = directory.join(format!("{}.deb", self.name));
        let output = Command::new("dpkg-deb").args(["-b", "--root-owner-group"]).arg(&tree).arg(&file).output();
        let output = output.expect("these tests compare with dpkg: `dpkg-deb` is missing on this machine");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        file
    }
}

/// A root directory with a dpkg database.
struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["info", "updates", "triggers"] {
            fs::create_dir_all(directory.path().join("var/lib/dpkg").join(name)).unwrap();
        }
        let root = Self { directory };
        root.write("status", "");
        root.write("info/format", INFO_FORMAT);
        root
    }

    fn database(&self, name: &str) -> PathBuf {
        self.directory.path().join("var/lib/dpkg").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.database(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.database(name), content).unwrap();
    }

    fn dpkg(&self, arguments: &[&str]) {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root { Command::new("dpkg") } else { Command::new("unshare") };
        if !is_root {
            command.args(["--map-root-user", "dpkg"]);
        }
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.arg(format!("--root={}", self.directory.path().display())).args(["--force-architecture"]);
        let output = command.args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dpkg {arguments:?} fails (root or user namespaces are needed): {stderr}");
    }

    fn dpkg_on(&self, action: &str, deb: &Path) {
        self.dpkg(&["--no-triggers", action, deb.to_str().unwrap()]);
    }

    /// Unpacks as dpkg would, into the database only, and with conffiles in place.
    fn unpack_natively(&self, deb: &Path) {
        let reader = DebReader::new(fs::File::open(deb).unwrap()).unwrap();
        let control = reader.control().clone();
        let mut status = Status::parse(&self.read("status")).unwrap();
        let mut tree = tar::Archive::new(reader.data(1 << 20).unwrap());
        tree.set_preserve_ownerships(false);
        let mut paths = Vec::new();
        for entry in tree.entries().unwrap() {
            let mut entry = entry.unwrap();
            paths.push(entry.path().unwrap().display().to_string());
            entry.unpack_in(self.directory.path()).unwrap();
        }
        let conffiles = control.text("conffiles").map_or(Vec::new(), |text| parse_conffiles(text).unwrap());
        let conffiles = conffiles.iter().map(|conffile| {
            if conffile.remove_on_upgrade {
                return ConffileEntry::to_remove(&conffile.path);
            }
            let content = fs::read(self.directory.path().join(&conffile.path[1..])).unwrap();
            ConffileEntry::in_place(&conffile.path, Md5Sum::of(&content))
        });
        let stanza = control.stanza().unwrap();
        let entry = StatusEntry::from_control(&stanza, PackageState::Unpacked, conffiles.collect()).unwrap();
        let name = entry.database_name();
        self.write(
            &format!("info/{}", info_file(&name, "list")),
            &list_file(paths.iter().map(String::as_str)).unwrap(),
        );
        for (kind, file) in control.files().filter(|(kind, _)| *kind != "control") {
            fs::write(self.database(&format!("info/{}", info_file(&name, kind))), &file.bytes).unwrap();
        }
        self.trigger_natively(&name, control.text("triggers").unwrap_or_default(), &paths, &status);
        status.insert(entry);
        self.write("status", &status.to_string());
    }

    fn trigger_natively(&self, name: &str, triggers: &str, paths: &[String], status: &Status) {
        let mut database = TriggerDatabase::new();
        for entry in fs::read_dir(self.database("triggers")).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let text = self.read(&format!("triggers/{file}"));
            match file.as_str() {
                "File" => database.read_file(&text).unwrap(),
                "Unincorp" => database.read_unincorp(&text).unwrap(),
                "Lock" => {}
                _ => database.read_named(&file, &text).unwrap(),
            }
        }
        let triggers = parse_triggers(triggers).unwrap();
        let is_configured = |package: &str| status.can_be_triggered(package);
        for activation in &triggers.activations {
            database.activate(activation, name, is_configured);
        }
        for path in paths {
            database.activate_path(path, name, is_configured);
        }
        database.set_interests(name, &triggers.interests);
        self.write("triggers/File", &database.file());
        self.write("triggers/Unincorp", &database.unincorp());
        for (trigger, text) in database.named() {
            self.write(&format!("triggers/{trigger}"), &text);
        }
    }

    /// All files of `info/` and `triggers/` that matter, and `status`.
    fn contents(&self) -> Vec<(String, String)> {
        let mut contents = vec![("status".to_owned(), sorted_triggers(&self.read("status")))];
        for directory in ["info", "triggers"] {
            for entry in fs::read_dir(self.database(directory)).unwrap() {
                let name = format!("{directory}/{}", entry.unwrap().file_name().into_string().unwrap());
                // dpkg-deb adds md5sums to no package here; dpkg itself makes them.
                if !name.ends_with("/Lock") && !name.ends_with(".md5sums") {
                    let content = self.read(&name);
                    contents.push((name, content));
                }
            }
        }
        contents.retain(|(name, content)| !(name.starts_with("triggers/") && content.is_empty()));
        contents.sort();
        contents
    }
}

/// The order of pending triggers follows that in which dpkg saw them, and means nothing.
fn sorted_triggers(status: &str) -> String {
    let sorted = status.lines().map(|line| match line.strip_prefix("Triggers-Pending: ") {
        Some(triggers) => {
            let mut words: Vec<_> = triggers.split(' ').collect();
            words.sort_unstable();
            format!("Triggers-Pending: {}\n", words.join(" "))
        }
        None => format!("{line}\n"),
    });
    sorted.collect()
}

#[test]
fn dpkg_goes_on_with_a_native_unpacking_as_with_its_own() {
    let packages = tempfile::tempdir().unwrap();
    let [watcher, late, user] = [WATCHER, LATE, USER].map(|source| source.build(packages.path()));
    let (theirs, ours) = (Root::new(), Root::new());
    // The parent image: installed by dpkg in both.
    for root in [&theirs, &ours] {
        root.dpkg_on("--install", &watcher);
    }
    for deb in [&late, &user] {
        theirs.dpkg_on("--unpack", deb);
        ours.unpack_natively(deb);
    }
    assert!(ours.read("triggers/Unincorp").contains("/usr/share/awaited user"));
    for name in ["triggers/File", "triggers/call", "info/user.list", "info/late.list", "info/user.conffiles"] {
        assert_eq!(ours.read(name), theirs.read(name), "{name}");
    }
    for root in [&theirs, &ours] {
        root.dpkg(&["--no-triggers", "--configure", "late", "user"]);
    }
    assert!(theirs.read("status").contains("Status: install ok triggers-pending"));
    assert_eq!(ours.contents(), theirs.contents());
    for root in [&theirs, &ours] {
        root.dpkg(&["--configure", "--pending"]);
        root.dpkg(&["--audit"]);
    }
    assert_eq!(ours.contents(), theirs.contents());
    assert!(!ours.read("status").contains("triggers-"));
}

#[test]
fn a_first_image_is_configured_from_nothing() {
    let packages = tempfile::tempdir().unwrap();
    let debs = [WATCHER, LATE, USER].map(|source| source.build(packages.path()));
    let (theirs, ours) = (Root::new(), Root::new());
    for deb in &debs {
        theirs.dpkg_on("--unpack", deb);
        ours.unpack_natively(deb);
    }
    assert_eq!(ours.read("triggers/Unincorp"), "");
    for root in [&theirs, &ours] {
        root.dpkg(&["--configure", "--pending"]);
    }
    assert_eq!(ours.contents(), theirs.contents());
}
