//! The bytecode of Python modules: compiled apart from the images, it is what the packages' scripts would have made in
//! them. With Debian's own Python, from the packages that the shared cache keeps.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::family::{Tree, tree_of};
use crate::support::family::read_json;
use crate::support::program::{drystone, repository, run, shared_cache, tool};

const FAMILY: &str = "\
drystone: 1
registry: localhost:5100
tag: v1
sources:
  debian: {type: apt, suites: [bookworm, bookworm-updates, bookworm-security], keyring: debian-archive.gpg}
";

/// `again` throws all bytecode away and lets the packages' own scripts make it.
const IMAGES: [(&str, &str); 4] = [
    ("compiled", "from: scratch\npackages: [python3-six, python3-distutils]\n"),
    ("plain", "from: scratch\npackages: [python3-six, python3-distutils]\nbytecode: false\n"),
    ("purged", "from: compiled\nrun:\n  - dpkg --purge python3-six\n"),
    (
        "again",
        "\
from: compiled
run:
  - |
    set -e
    export SOURCE_DATE_EPOCH=1 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
    find /usr -name __pycache__ -prune -exec rm -rf {} +
    for script in $(grep -lE 'py3compile|py_compile' /var/lib/dpkg/info/*.postinst); do
      $script configure ''
    done
",
    ),
];

/// Modules of each kind that scripts compile.
const COMPILED: [&str; 5] = [
    "/usr/lib/python3/dist-packages/__pycache__/six.cpython-311.pyc",
    "/usr/lib/python3.11/__pycache__/os.cpython-311.pyc",
    "/usr/lib/python3.11/asyncio/__pycache__/events.cpython-311.pyc",
    "/usr/lib/python3.11/distutils/__pycache__/cmd.cpython-311.pyc",
    "/usr/share/python3/debpython/__pycache__/version.cpython-311.pyc",
];

/// The images, built by whichever test asks first.
struct Built {
    directory: tempfile::TempDir,
}

impl Built {
    fn tree(&self, image: &str) -> Tree {
        tree_of(&self.directory.path().join("oci"), &reference(image))
    }

    fn layers(&self, image: &str) -> Vec<Value> {
        let layout = self.directory.path().join("oci");
        let digest = digest(&layout, image);
        read_json(&blob(&layout, &digest))["layers"].as_array().unwrap().clone()
    }
}

fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = tempfile::Builder::new().prefix("drystone-bytecode").tempdir().unwrap();
        write_family(&directory.path().join("family"));
        let mut build = drystone();
        build.arg("build").arg(directory.path().join("family")).arg("--layout").arg(directory.path().join("oci"));
        run(build.arg("--no-cache")).success();
        Built { directory }
    })
}

fn write_family(family: &Path) {
    for (image, text) in IMAGES {
        fs::create_dir_all(family.join(image)).unwrap();
        fs::write(family.join(image).join("image.yaml"), text).unwrap();
    }
    fs::write(family.join("family.yaml"), FAMILY).unwrap();
    fs::copy(repository().join("specs/keyrings/debian-archive.gpg"), family.join("debian-archive.gpg")).unwrap();
}

fn reference(image: &str) -> String {
    format!("localhost:5100/{image}:v1")
}

fn digest(layout: &Path, image: &str) -> String {
    let index = read_json(&layout.join("index.json"));
    let name = "org.opencontainers.image.ref.name";
    let mut manifests = index["manifests"].as_array().unwrap().iter();
    let found = manifests.find(|manifest| manifest["annotations"][name] == reference(image).as_str());
    found.unwrap_or_else(|| panic!("no {image} in {index}"))["digest"].as_str().unwrap().to_owned()
}

fn blob(layout: &Path, digest: &str) -> std::path::PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn is_bytecode(path: &str) -> bool {
    path.ends_with(".pyc") || path.ends_with("/__pycache__")
}

#[test]
fn modules_of_every_kind_are_compiled_with_their_packages_and_not_by_scripts() {
    let tree = built().tree("compiled");
    for path in COMPILED {
        let found = tree.get(path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(
            (&found["type"], &found["mode"], &found["owner"]),
            (&"file".into(), &"0644".into(), &"root:root".into())
        );
    }
    let layers = built().layers("compiled");
    assert_eq!(layers.len(), 2, "{layers:?}");
    let listed = |layer: &Value| {
        let layout = built().directory.path().join("oci");
        tool("tar", ["-tzf".as_ref(), blob(&layout, layer["digest"].as_str().unwrap()).as_os_str()])
    };
    assert!(listed(&layers[0]).lines().filter(|path| is_bytecode(path)).count() > 500);
    assert_eq!(listed(&layers[1]).lines().filter(|path| is_bytecode(path)).collect::<Vec<_>>(), Vec::<&str>::new());
    for path in ["/usr/lib/python3.11/__pycache__", "/usr/lib/python3.11/asyncio/__pycache__"] {
        assert_eq!((&tree[path]["mode"], &tree[path]["owner"]), (&"0755".into(), &"root:root".into()), "{path}");
    }
}

/// A step that leaves everything as it was makes no layer.
#[test]
fn scripts_that_compile_in_the_image_make_the_same_files() {
    assert_eq!(built().layers("again"), built().layers("compiled"));
}

#[test]
fn the_bytecode_of_a_purged_package_goes_with_it() {
    let tree = built().tree("purged");
    let left = |path: &&String| path.contains("/dist-packages/") && is_bytecode(path);
    assert_eq!(tree.keys().find(left), None);
    assert!(tree.contains_key(COMPILED[1]));
}

#[test]
fn an_image_without_bytecode_is_the_same_but_for_that() {
    let (compiled, plain) = (built().tree("compiled"), built().tree("plain"));
    assert_eq!(plain.keys().find(|path| is_bytecode(path)), None);
    let names = |tree: &Tree| tree.keys().filter(|path| !is_bytecode(path)).cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&compiled), names(&plain));
    let differ = names(&plain).into_iter().find(|path| compiled[path] != plain[path]);
    assert_eq!(differ, None);
}

/// A plain user without subordinate ids.
const NOBODY: &str = "65534";

#[test]
fn a_plain_user_with_an_empty_cache_gets_the_same_bytecode() {
    let built = built();
    let directory = tempfile::Builder::new().prefix("drystone-bytecode").tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // The user may not be able to read the repository, nor the downloads of who runs this.
    tool("cp", [env!("CARGO_BIN_EXE_drystone").as_ref(), at("drystone").as_os_str()]);
    write_family(&at("family"));
    fs::create_dir(at("cache")).unwrap();
    for area in ["debs", "indexes"] {
        tool("cp", ["-r".as_ref(), shared_cache().join(area).as_os_str(), at("cache").as_os_str()]);
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    tool("chown", ["-R", &format!("{NOBODY}:{NOBODY}"), directory.path().to_str().unwrap()]);
    let mut build = Command::new("setpriv");
    build.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(at("drystone")).arg("build");
    build.arg(at("family")).args(["compiled", "plain", "--jobs", "1", "--sandbox", "userns-single"]);
    build.arg("--layout").arg(at("oci")).arg("--cache-dir").arg(at("cache"));
    build.env("HOME", directory.path()).env_remove("XDG_CACHE_HOME").env_remove("SOURCE_DATE_EPOCH");
    run(build.current_dir(directory.path())).success();
    for image in ["compiled", "plain"] {
        assert_eq!(digest(&at("oci"), image), digest(&built.directory.path().join("oci"), image), "{image}");
    }
}
