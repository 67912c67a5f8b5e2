//! Dockerfiles, and what buildah makes of them: the same configuration, and the same files to the last mode and owner.
//!
//! Each file below `cases/` is a case: a Dockerfile and its context. To add one, add a file:
//!
//! ```text
//! # what it shows
//! flags: --build-arg NAME=VALUE --target stage
//! --- Dockerfile
//! FROM base
//! COPY file /
//! --- file 0755
//! content
//! --- link -> target
//! --- directory/
//! --- archive.tar.gz = directory
//! ```
//!
//! What Debian's buildah does not know is written for it in another way, as `Dockerfile.plain`; we build the `Dockerfile`.
//! `base` is an image with busybox, root, and the user `app` (1000:1001). A line `differs: TEXT` allows a difference
//! that begins with the text, and says after ` because ` why it is ours on purpose.

mod debian;
mod errors;
mod explain;
mod family;
mod flags;
mod git;
mod outputs;
mod programs;
mod seed;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::family::Bench;
use crate::support::program::{Finished, repository, run, tool};

/// What every case may build on.
const BASE: &str = "\
FROM scratch
COPY busybox /bin/busybox
COPY passwd group /etc/
COPY shadow /etc/
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN mkdir -m 1777 /tmp && mkdir -p /var/tmp /root /home/app && chown app:app /home/app
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
";

/// A bench whose layout has `localhost/base:latest`.
pub fn with_base() -> Bench {
    let bench = Bench::new();
    let context = bench.at("base");
    fs::create_dir_all(&context).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).expect("tests/run installs busybox-static");
    fs::write(context.join("passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n").unwrap();
    fs::write(context.join("group"), "root:x:0:\napp:x:1001:\nextra:x:2002:app\n").unwrap();
    fs::write(context.join("shadow"), "root:*:::::::\napp:*:::::::\n").unwrap();
    fs::write(context.join("Dockerfile"), BASE).unwrap();
    run(bench.drystone().args(["build", "-t", "base", "base"])).success();
    bench
}

/// A case as its file has it.
struct Case {
    name: String,
    flags: Vec<String>,
    allowed: Vec<String>,
    directory: PathBuf,
}

impl Case {
    /// Reads a case, and writes its context below `place`.
    fn read(path: &Path, place: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let directory = place.join(&name);
        fs::create_dir_all(&directory).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let (head, files) = text.split_once("--- ").unwrap_or_else(|| panic!("{name} has no files"));
        let field = |field: &str| {
            let lines = head.lines().filter_map(move |line| line.strip_prefix(field));
            lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        for file in files.split("\n--- ") {
            let (head, content) = file.split_once('\n').unwrap_or((file, ""));
            write(&directory, head.trim(), content);
        }
        let flags = field("flags:").iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect();
        let allowed = field("differs:").iter().map(|line| line.split(" because ").next().unwrap().to_owned()).collect();
        Self { name, flags, allowed, directory }
    }
}

/// Writes one file of a case; `head` is its name, and perhaps a mode or a link's target.
fn write(directory: &Path, head: &str, content: &str) {
    let head = head.trim_start();
    if head.is_empty() {
        return;
    }
    if let Some((name, target)) = head.split_once(" -> ") {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return symlink(target, path).unwrap();
    }
    if let Some((name, packed)) = head.split_once(" = ") {
        let packing = "chown -R 33:44 \"$1\" && tar -caf \"$0\" -C \"$1\" . && rm -r \"$1\"";
        run(Command::new("sh").args(["-c", packing, name, packed]).current_dir(directory)).success();
        return;
    }
    let usual = if head.ends_with('/') { 0o755 } else { 0o644 };
    // A name may hold blanks; what follows the last one is a mode if it looks like one.
    let (name, mode) = match head.rsplit_once(' ') {
        Some((name, mode)) if mode.len() == 4 && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) => {
            (name, u32::from_str_radix(mode, 8).unwrap())
        }
        _ => (head, usual),
    };
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if name.ends_with('/') {
        fs::create_dir_all(&path).unwrap();
    } else {
        let content =
            if content.is_empty() || content.ends_with('\n') { content.to_owned() } else { format!("{content}\n") };
        fs::write(&path, content).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// buildah with a storage of its own.
struct Buildah {
    storage: PathBuf,
}

impl Buildah {
    fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        let (root, run) = (self.storage.join("root"), self.storage.join("run"));
        command.arg("--root").arg(root).arg("--runroot").arg(run).args(["--storage-driver", "overlay"]);
        command
    }

    /// Takes an image of a bench's layout.
    fn take(&self, bench: &Bench, reference: &str) {
        let (root, temporary) = (self.storage.join("root"), self.storage.join("run"));
        let from = format!("oci:{}:{reference}", bench.at("oci").display());
        let to = format!("containers-storage:[overlay@{}+{}]{reference}", root.display(), temporary.display());
        tool("skopeo", ["copy", "-q", &from, &to]);
    }

    /// Builds a case, and writes the image as a `dir:`.
    fn build(&self, case: &Case, tag: &str) -> Result<PathBuf, Finished> {
        let mut build = self.command();
        build.args(["bud", "-q", "--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false"]);
        let plain = case.directory.join("Dockerfile.plain");
        if plain.is_file() {
            build.arg("-f").arg(plain);
        }
        let built = run(build.args(["-t", tag]).args(&case.flags).arg(&case.directory).current_dir(&case.directory));
        if built.code != Some(0) {
            return Err(built);
        }
        let out = self.storage.join(&case.name);
        run(self.command().args(["push", "-q", "-D", tag, &format!("dir:{}", out.display())])).success();
        Ok(out)
    }
}

/// What differs between our image of a case and buildah's, both with this tag.
fn differences(bench: &Bench, mut drystone: Command, buildah: &Buildah, case: &Case, tag: &str) -> Vec<String> {
    let ours = run(drystone.args(["build", "-q", "-t", tag]).args(&case.flags).arg(&case.directory));
    if ours.code != Some(0) {
        return vec![format!("we fail: {}", ours.stderr)];
    }
    let theirs = match buildah.build(case, tag) {
        Ok(theirs) => theirs,
        Err(failed) => return vec![format!("buildah fails: {}", failed.stderr)],
    };
    let script = repository().join("tests/dockerfiles/compare.py");
    let registry = if tag.starts_with("localhost") { "" } else { "localhost/" };
    let version = if tag.contains(':') { "" } else { ":latest" };
    let (layout, reference) = (bench.at("oci"), format!("{registry}{tag}{version}"));
    let arguments = [script.as_path(), &layout, Path::new(&reference), &theirs];
    let found = tool("python3", arguments);
    found
        .lines()
        .filter(|line| !case.allowed.iter().any(|allowed| line.starts_with(allowed)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn images_are_those_that_buildah_makes_of_the_same_dockerfiles() {
    let bench = with_base();
    let buildah = Buildah { storage: bench.at("storage") };
    buildah.take(&bench, "localhost/base:latest");
    let only = std::env::var("CASE").unwrap_or_default();
    let mut files: Vec<PathBuf> = fs::read_dir(repository().join("tests/dockerfiles/cases"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are no cases");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case::read(file, &bench.at("cases"));
                    let tag = format!("case-{}", case.name.to_ascii_lowercase());
                    let found = differences(&bench, bench.drystone(), &buildah, &case, &tag);
                    if !found.is_empty() {
                        failures.lock().unwrap().push(format!("{}:\n  {}", case.name, found.join("\n  ")));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} cases differ:\n{}", failures.len(), files.len(), failures.join("\n"));
}
