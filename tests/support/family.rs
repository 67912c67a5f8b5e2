//! Small families and archives made for one test, with a layout and a cache of their own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use content::Digest;
use fixtures::http::FileServer;
use fixtures::{AptRepository, ArchiveKey, Deb, DebBuilder, Fault, Owner, Suite, TarEntry};
use serde_json::Value;
use tempfile::TempDir;

use super::program::{Finished, run};

/// `family.yaml` of a family whose packages come from the fixture archive.
pub const FAMILY: &str = "\
drystone: 1
registry: localhost:5100
tag: v1
sources:
  fixture: {type: apt, suites: [stable], components: [main], keyring: archive.gpg}
defaults:
  sources: [fixture]
";

/// Seconds since 1970 at which the fixture archive was made: 17 May 2025.
pub const ARCHIVE_DATE: i64 = 1_747_472_000;

/// A directory with a family (`family`), an archive (`archive`), a layout (`oci`) and a cache (`cache`).
pub struct Bench {
    directory: TempDir,
}

impl Bench {
    /// An empty one, readable by everybody so that a test can build as another user.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("drystone-build").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    /// One with `family.yaml` and one image from scratch that has these packages.
    pub fn with_image(packages: &str) -> Self {
        let bench = Self::new();
        bench.spec("family.yaml", FAMILY).spec("hello/image.yaml", &format!("from: scratch\npackages: [{packages}]\n"));
        bench
    }

    /// The family of three images that most tests build: a base, an image with files and a package of its own, and one
    /// that only changes the configuration.
    pub fn with_family() -> Self {
        let bench = Self::new();
        bench
            .spec("family.yaml", FAMILY)
            .spec("base/image.yaml", "from: scratch\npackages: [hello]\nenv: {PATH: /usr/bin}\n")
            .spec("app/image.yaml", APP)
            .spec("app/entrypoint.sh", "#!/bin/sh\nexec \"$@\"\n")
            .spec("worker/image.yaml", "from: app\ncmd: [work]\nlabels: {role: worker, tier: back}\n");
        bench
    }

    /// A path in the directory.
    pub fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Writes a file of the family.
    pub fn spec(&self, path: &str, text: &str) -> &Self {
        let path = self.at("family").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes the packages as the suite `stable` of the archive, signed by the key that the family trusts.
    pub fn archive(&self, debs: impl IntoIterator<Item = Deb>, faults: &[Fault]) -> &Self {
        let key = key(1);
        let date = jiff::Timestamp::from_second(ARCHIVE_DATE).unwrap();
        let suite = faults.iter().fold(Suite::new("stable", date, &key), |suite, fault| suite.fault(fault.clone()));
        AptRepository::new().packages(debs).write_suite(&self.at("archive"), &suite).unwrap();
        self.trust(&key)
    }

    /// Makes this the key that the family trusts.
    pub fn trust(&self, key: &ArchiveKey) -> &Self {
        fs::create_dir_all(self.at("family")).unwrap();
        fs::write(self.at("family/archive.gpg"), key.public_keyring()).unwrap();
        self
    }

    /// Serves the archive.
    pub fn serve(&self) -> FileServer {
        FileServer::start(self.at("archive")).unwrap()
    }

    /// The binary in this directory, with the layout, cache and mirror of this bench and nothing of the environment.
    pub fn drystone(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drystone"));
        self.surround(&mut command);
        command
    }

    /// Gives a command this bench's directory and environment.
    pub fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .env("DRYSTONE_LAYOUT", self.at("oci"))
            .env("DRYSTONE_CACHE_DIR", self.at("cache"))
            .env("DRYSTONE_MIRROR", format!("file://{}", self.at("archive").display()));
    }

    /// `drystone build family` with more arguments.
    pub fn build(&self, more: &[&str]) -> Finished {
        run(self.drystone().args(["build", "family"]).args(more))
    }

    /// `drystone lock family` with more arguments.
    pub fn lock(&self, more: &[&str]) -> Finished {
        run(self.drystone().args(["lock", "family"]).args(more))
    }

    /// The text of the lock.
    #[track_caller]
    pub fn lock_text(&self) -> String {
        fs::read_to_string(self.at("family/drystone.lock")).unwrap()
    }

    /// The same with the archive behind a server.
    pub fn build_from(&self, mirror: &str, more: &[&str]) -> Finished {
        run(self.drystone().args(["build", "family", "--mirror", mirror]).args(more))
    }

    /// The names and digests of the images in the layout, one a line.
    pub fn digests(&self) -> String {
        if !self.at("oci/index.json").exists() {
            return String::new();
        }
        let layout = read_json(&self.at("oci/index.json"));
        let manifests = layout["manifests"].as_array().unwrap();
        let line = |manifest: &Value| {
            let name = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            format!("{name} {}\n", manifest["digest"].as_str().unwrap())
        };
        let mut lines: Vec<String> = manifests.iter().map(line).collect();
        lines.sort();
        lines.concat()
    }

    /// Panics unless the layout holds exactly what its index names, every blob with the bytes of its name, and neither
    /// the layout nor the cache has anything unfinished.
    #[track_caller]
    pub fn is_whole(&self) {
        self.layout_is_valid();
        for incoming in ["oci/.store/incoming", "cache/incoming"] {
            let left: Vec<_> = walk(&self.at(incoming));
            assert!(left.is_empty(), "left in {incoming}: {left:?}");
        }
    }

    /// Panics unless every blob of the layout has the bytes of its name and everything that the index names is there.
    #[track_caller]
    pub fn layout_is_valid(&self) {
        let blobs = self.at("oci/blobs/sha256");
        for path in walk(&blobs) {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name, "a blob with other bytes than its name says");
        }
        if !self.at("oci/index.json").exists() {
            return;
        }
        let mut waiting = vec![read_json(&self.at("oci/index.json"))];
        let mut seen = BTreeSet::new();
        while let Some(document) = waiting.pop() {
            let lists = ["manifests", "layers"].iter().filter_map(|list| document[*list].as_array()).flatten();
            for descriptor in lists.chain(document.get("config")) {
                let Some(digest) = descriptor["digest"].as_str() else { continue };
                let path = blobs.join(digest.trim_start_matches("sha256:"));
                let size = fs::metadata(&path).unwrap_or_else(|error| panic!("{digest} is missing: {error}")).len();
                assert_eq!(Some(size), descriptor["size"].as_u64(), "{digest}");
                let is_manifest = descriptor["mediaType"].as_str().is_some_and(|kind| kind.contains("manifest"));
                if is_manifest && seen.insert(digest.to_owned()) {
                    waiting.push(read_json(&path));
                }
            }
        }
    }

    /// A manifest of the layout, by the name of its image.
    pub fn manifest(&self, image: &str) -> Value {
        self.manifest_where(image, |name| {
            name.split('/').next_back().and_then(|name| name.split(':').next()) == Some(image)
        })
    }

    /// A manifest of the layout, by the whole name.
    pub fn manifest_of(&self, reference: &str) -> Value {
        self.manifest_where(reference, |name| name == reference)
    }

    fn manifest_where(&self, wanted: &str, is_wanted: impl Fn(&str) -> bool) -> Value {
        let index = read_json(&self.at("oci/index.json"));
        let has_name = |manifest: &&Value| {
            is_wanted(manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default())
        };
        let found = index["manifests"].as_array().unwrap().iter().find(has_name);
        let digest = found.unwrap_or_else(|| panic!("no {wanted} in {index}"))["digest"].as_str().unwrap();
        read_json(&self.blob(digest))
    }

    /// Where a blob of the layout is.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.at("oci/blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// The entries of an image's layers, as GNU tar lists them, lowest layer first.
    pub fn listing(&self, image: &str) -> String {
        let manifest = self.manifest(image);
        let list = |layer: &Value| {
            let blob = self.blob(layer["digest"].as_str().unwrap());
            run(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(blob)).success().stdout
        };
        manifest["layers"].as_array().unwrap().iter().map(list).collect()
    }

    /// A file of an image, from the highest layer that has it.
    pub fn file(&self, image: &str, path: &str) -> Option<String> {
        let manifest = self.manifest(image);
        manifest["layers"].as_array().unwrap().iter().rev().find_map(|layer| {
            let blob = self.blob(layer["digest"].as_str().unwrap());
            let found = run(Command::new("tar").arg("-xOzf").arg(blob).arg(path));
            (found.code == Some(0)).then_some(found.stdout)
        })
    }

    /// Everything in an area of the cache.
    pub fn cached(&self, area: &str) -> Vec<PathBuf> {
        walk(&self.at("cache").join(area))
    }

    /// Starts a build in the background; what it says on standard error goes to `log`.
    pub fn start(&self, mirror: &str, more: &[&str]) -> Child {
        let log = fs::File::create(self.at("log")).unwrap();
        let mut command = self.drystone();
        command.args(["build", "family", "--mirror", mirror]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }
}

/// `app` of [`Bench::with_family`].
const APP: &str = "\
from: base
packages: [greeter]
files:
  - {source: entrypoint.sh, target: /, mode: \"0755\"}
  - {directory: true, target: /data, mode: \"0750\", owner: \"33:44\"}
entrypoint: [/entrypoint.sh]
cmd: [greet]
labels: {role: app, tier: front}
";

/// The key with this seed; the archive is signed by the first.
pub fn key(seed: u64) -> ArchiveKey {
    ArchiveKey::generate(seed).unwrap()
}

/// The packages of [`Bench::with_family`]: none has a script, so that they need no system to be installed in.
pub fn debs() -> Vec<Deb> {
    // The first package that ships it says whose it is, whatever later ones say and in whatever layer they lie.
    let mut home = TarEntry::directory("var/lib/hello", 0o750).dated(1_447_113_600);
    home.owner = Owner::new(100, 101, "", "");
    let owned = |path: &str, mode, uid, gid| {
        let mut entry = TarEntry::file(path, mode, "owned\n").dated(1_447_113_600);
        entry.owner = Owner::new(uid, gid, "", "");
        entry
    };
    vec![
        DebBuilder::new("hello", "1.0-1")
            .depends("libhello (>= 1)")
            .file("usr/bin/hello", 0o755, "#!/bin/sh\necho hello\n")
            .symlink("usr/bin/hi", "hello")
            .hard_link("usr/bin/hullo", "usr/bin/hello")
            .conffile("etc/hello.conf", "greeting = hello\n")
            .entry(home)
            .entry(owned("usr/bin/setuid", 0o4755, 0, 0))
            .entry(owned("var/lib/hello/state", 0o640, 100, 101))
            .build(),
        DebBuilder::new("libhello", "1.2").file("usr/lib/libhello.so.1", 0o644, noise(300_000)).build(),
        DebBuilder::new("greeter", "2:3.0-1")
            .depends("hello")
            .file("usr/bin/greet", 0o755, "#!/bin/sh\n")
            .directory("var/lib/hello", 0o755)
            .build(),
    ]
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Every file below a directory, sorted; nothing if there is no such directory.
pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(items) = fs::read_dir(directory) else { return found };
    for path in items.map(|item| item.unwrap().path()) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Reads a JSON file.
#[track_caller]
pub fn read_json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Replaces the content of a file that may be read-only, keeping its inode.
pub fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    let mode = fs::metadata(path).unwrap().permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, mode).unwrap();
}

/// A file server that sends files whose path contains a text drop by drop, so that a test can act in the middle.
pub struct DrippingServer {
    address: SocketAddr,
    shared: Arc<Dripping>,
}

struct Dripping {
    root: PathBuf,
    slow: &'static str,
    /// Between two drops.
    pause: Duration,
    /// Set once a slow file is on its way.
    begun: AtomicBool,
    /// Set to send what is left at once.
    open: AtomicBool,
}

impl DrippingServer {
    /// Serves `root`; slow files come in drops of 16 bytes.
    pub fn start(root: PathBuf, slow: &'static str) -> Self {
        Self::with_pause(root, slow, Duration::from_millis(20))
    }

    /// Serves `root`; slow files stop after their first drop.
    pub fn stalling(root: PathBuf, slow: &'static str) -> Self {
        Self::with_pause(root, slow, Duration::from_secs(600))
    }

    fn with_pause(root: PathBuf, slow: &'static str, pause: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Dripping { root, slow, pause, begun: false.into(), open: false.into() });
        let serving = Arc::clone(&shared);
        // It ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // A client that goes away is what the tests are about.
                thread::spawn(move || drop(serving.answer(stream)));
            }
        });
        Self { address, shared }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns when a slow file is on its way.
    pub fn wait_until_slow(&self) {
        for _ in 0..2000 {
            if self.shared.begun.load(Ordering::SeqCst) {
                // Long enough for the client to have stored something of it.
                return thread::sleep(Duration::from_millis(50));
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("nobody asked for a file with `{}` in its path", self.shared.slow);
    }

    /// Sends what is left, and all later files, at once.
    pub fn open(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for DrippingServer {
    fn drop(&mut self) {
        self.open();
    }
}

impl Dripping {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut first = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        reader.read_line(&mut first)?;
        let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let mut bytes = Vec::new();
        match fs::File::open(self.root.join(&path)) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(_) => {
                return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len())?;
        if !path.contains(self.slow) {
            return stream.write_all(&bytes);
        }
        for chunk in bytes.chunks(16) {
            stream.write_all(chunk)?;
            self.begun.store(true, Ordering::SeqCst);
            if !self.open.load(Ordering::SeqCst) {
                thread::sleep(self.pause);
            }
        }
        Ok(())
    }
}
