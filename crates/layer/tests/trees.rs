//! Trees become layers and layers become trees, and nothing is lost or escapes on the way.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere, in its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use layer::diff::{Change, Rules, changes};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::read::entries;
use layer::record::{Owners, Sidecar, TreeDir, attributes};
use layer::squash::squash;
use layer::unpack::Unpacker;
use layer::view::{Finder, OPAQUE_XATTR, View};
use layer::write::{END_OF_ARCHIVE, EntryWriter};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

/// The date of every layer here.
const EPOCH: i64 = 1_700_000_000;

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn tree(&self, name: &str) -> TreeDir {
        TreeDir::create(self.directory.path().join(name)).unwrap()
    }

    /// Applies changes to a new tree over `below`, through the bytes of a tar.
    fn unpacked(&self, name: &str, changes: &[Change], below: &[TreeDir]) -> TreeDir {
        let mut writer = EntryWriter::new(Vec::new());
        layer::diff::write(changes, &mut writer).unwrap();
        let tar = [writer.into_inner(), END_OF_ARCHIVE.to_vec()].concat();
        let tree = self.tree(name);
        let mut unpacker = Unpacker::new(&tree, below, owners()).unwrap();
        entries(&tar[..], |entry, content| unpacker.apply(&entry, content)).unwrap();
        unpacker.finish().unwrap();
        tree
    }
}

/// What this machine's user can do.
fn owners() -> Owners {
    if rustix::process::geteuid().is_root() { Owners::Real } else { Owners::Recorded }
}

fn file(tree: &TreeDir, path: impl AsRef<Path>, content: &str) {
    let path = tree.root().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn directory(tree: &TreeDir, path: &str) {
    fs::create_dir_all(tree.root().join(path)).unwrap();
}

fn whiteout(tree: &TreeDir, path: &str) {
    let path = tree.root().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn opaque(tree: &TreeDir, path: &str) {
    directory(tree, path);
    rustix::fs::setxattr(tree.root().join(path), OPAQUE_XATTR, b"y", XattrFlags::empty()).unwrap();
}

fn all(upper: &TreeDir, below: &[TreeDir]) -> Vec<Change> {
    changes(upper, below, owners(), &Rules { since: EPOCH + 1000, latest: EPOCH, keep: &|_, _| true }).unwrap()
}

fn paths(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.entry.path.to_string()).collect()
}

/// Everything that a stack shows: path → kind, attributes and content.
fn shown(trees: &[TreeDir]) -> BTreeMap<ImagePath, String> {
    let mut all = BTreeMap::new();
    describe(trees, &ImagePath::root(), &mut all);
    all
}

fn describe(trees: &[TreeDir], path: &ImagePath, all: &mut BTreeMap<ImagePath, String>) {
    let view = View::new(trees);
    for name in view.list(path).unwrap() {
        let path = path.join(&name);
        let found = view.lookup(&path).unwrap().unwrap();
        let sidecar = Sidecar::load(&trees[found.tree]).unwrap();
        let attributes = attributes(owners(), &found.path, &sidecar).unwrap();
        let what = if found.metadata.is_dir() {
            describe(trees, &path, all);
            "directory".to_owned()
        } else if found.metadata.is_symlink() {
            format!("link to {:?}", fs::read_link(&found.path).unwrap())
        } else if found.metadata.is_file() {
            format!("file {:?}", fs::read(&found.path).unwrap())
        } else {
            format!("{:?}", found.metadata.file_type())
        };
        all.insert(path, format!("{what} {attributes:?}"));
    }
}

#[test]
fn what_did_not_change_makes_no_entry_even_if_it_was_rewritten() {
    let bench = Bench::new();
    let (lower, upper) = (bench.tree("lower"), bench.tree("upper"));
    file(&lower, "etc/same", "content");
    file(&upper, "etc/same", "content");
    directory(&lower, "var");
    directory(&upper, "var");
    symlink("target", lower.root().join("link")).unwrap();
    symlink("target", upper.root().join("link")).unwrap();
    assert_eq!(paths(&all(&upper, &[lower])), Vec::<String>::new());
}

#[test]
fn a_layer_says_what_was_added_changed_and_deleted_and_nothing_else() {
    let bench = Bench::new();
    let (lower, upper) = (bench.tree("lower"), bench.tree("upper"));
    for path in ["etc/kept", "etc/changed", "etc/deleted", "etc/mode", "gone/a"] {
        file(&lower, path, "old");
    }
    file(&upper, "etc/changed", "new");
    file(&upper, "etc/mode", "old");
    fs::set_permissions(upper.root().join("etc/mode"), fs::Permissions::from_mode(0o4755)).unwrap();
    file(&upper, "added", "new");
    whiteout(&upper, "etc/deleted");
    whiteout(&upper, "gone");
    whiteout(&upper, "never-was");
    let found = all(&upper, &[lower]);
    assert_eq!(paths(&found), ["/.wh.gone", "/added", "/etc/.wh.deleted", "/etc/changed", "/etc/mode"]);
    assert_eq!(found[4].entry.metadata.mode, 0o4755);
}

#[test]
fn an_emptied_directory_becomes_whiteouts_of_what_is_gone() {
    let bench = Bench::new();
    let (lower, upper) = (bench.tree("lower"), bench.tree("upper"));
    for path in ["dir/gone", "dir/same", "dir/sub/deep"] {
        file(&lower, path, "old");
    }
    opaque(&upper, "dir");
    file(&upper, "dir/same", "old");
    file(&upper, "dir/new", "new");
    assert_eq!(paths(&all(&upper, &[lower])), ["/dir/.wh.gone", "/dir/.wh.sub", "/dir/new"]);
}

#[test]
fn times_after_the_date_of_the_image_become_it_and_earlier_ones_stay() {
    let bench = Bench::new();
    let upper = bench.tree("upper");
    file(&upper, "late", "");
    file(&upper, "early", "");
    let early = fs::File::options().write(true).open(upper.root().join("early")).unwrap();
    early.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    let behind = Rules { since: 6, latest: EPOCH, keep: &|_, _| true };
    let late = changes(&upper, &[], owners(), &behind).unwrap();
    assert_eq!(late[1].entry.metadata.mtime, EPOCH, "what the step made has the image's date whatever the clock says");
    let found = all(&upper, &[]);
    let times: Vec<i64> = found.iter().map(|change| change.entry.metadata.mtime).collect();
    assert_eq!((paths(&found), times), (vec!["/early".to_owned(), "/late".to_owned()], vec![5, EPOCH]));
}

#[test]
fn names_of_one_file_become_hard_links() {
    let bench = Bench::new();
    let upper = bench.tree("upper");
    file(&upper, "b", "content");
    fs::hard_link(upper.root().join("b"), upper.root().join("a")).unwrap();
    fs::hard_link(upper.root().join("b"), upper.root().join("c")).unwrap();
    let found = all(&upper, &[]);
    let first = ImagePath::parse("a").unwrap();
    assert_eq!(found[0].entry.kind, Kind::File { size: 7 });
    assert_eq!(found[1].entry.kind, Kind::HardLink { target: first.clone() });
    assert_eq!(found[2].entry.kind, Kind::HardLink { target: first });
    let tree = bench.unpacked("again", &found, &[]);
    assert_eq!(fs::metadata(tree.root().join("c")).unwrap().nlink(), 3);
}

#[test]
fn a_layer_unpacked_again_shows_what_the_changed_tree_showed() {
    let bench = Bench::new();
    let (lower, upper) = (bench.tree("lower"), bench.tree("upper"));
    for path in ["etc/kept", "etc/changed", "dir/was-file", "link-was-dir/in", "opaque/a", "opaque/b"] {
        file(&lower, path, "old");
    }
    fs::set_permissions(lower.root().join("etc"), fs::Permissions::from_mode(0o2750)).unwrap();
    file(&upper, "etc/changed", "new");
    fs::set_permissions(upper.root().join("etc"), fs::Permissions::from_mode(0o2750)).unwrap();
    file(&upper, "dir/was-file/now-directory", "new");
    symlink("dir", upper.root().join("link-was-dir")).unwrap();
    opaque(&upper, "opaque");
    file(&upper, "opaque/b", "old");
    file(&upper, format!("{}/{}", "long".repeat(40), "name".repeat(40)), "deep");
    file(&upper, Path::new(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "bytes");
    file(&upper, "sparse", "");
    fs::File::options().write(true).open(upper.root().join("sparse")).unwrap().set_len(100_000).unwrap();
    rustix::fs::mknodat(CWD, upper.root().join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    rustix::fs::setxattr(upper.root().join("sparse"), "user.note", b"line\nline", XattrFlags::empty()).unwrap();
    let found = all(&upper, std::slice::from_ref(&lower));
    let again = bench.unpacked("again", &found, std::slice::from_ref(&lower));
    assert_eq!(shown(&[lower.clone(), again]), shown(&[lower, upper]));
}

#[test]
fn nothing_is_written_through_a_link_that_leaves_the_root() {
    let bench = Bench::new();
    let outside = bench.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let tree = bench.tree("tree");
    let mut unpacker = Unpacker::new(&tree, &[], owners()).unwrap();
    let entry = |path: &str, kind| Entry {
        path: ImagePath::parse(path).unwrap(),
        kind,
        metadata: Metadata { mode: 0o755, ..Metadata::default() },
    };
    let up = format!("../../../../../../../..{}", outside.display());
    for (name, target) in [("absolute", outside.display().to_string()), ("relative", up)] {
        unpacker.apply(&entry(name, Kind::Symlink { target: target.into_bytes() }), &mut std::io::empty()).unwrap();
        let inside = entry(&format!("{name}/file"), Kind::File { size: 3 });
        unpacker.apply(&inside, &mut &b"abc"[..]).unwrap();
    }
    let target = ImagePath::parse("etc/passwd").unwrap();
    assert!(unpacker.apply(&entry("hard", Kind::HardLink { target }), &mut std::io::empty()).is_err());
    unpacker.finish().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let landed = tree.root().join(outside.strip_prefix("/").unwrap()).join("file");
    assert_eq!(fs::read(landed).unwrap(), b"abc", "the link is followed inside the root");
}

#[test]
fn directories_that_a_layer_only_implies_keep_the_attributes_from_below() {
    let bench = Bench::new();
    let lower = bench.tree("lower");
    directory(&lower, "secret");
    fs::set_permissions(lower.root().join("secret"), fs::Permissions::from_mode(0o1700)).unwrap();
    let change = Change {
        entry: Entry {
            path: ImagePath::parse("secret/new/file").unwrap(),
            kind: Kind::File { size: 0 },
            metadata: Metadata { mode: 0o600, ..Metadata::default() },
        },
        content: None,
        deletes: None,
    };
    let tree = bench.unpacked("tree", &[change], &[lower]);
    let mode = |path: &str| fs::metadata(tree.root().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("secret"), mode("secret/new"), mode("secret/new/file")), (0o1700, 0o755, 0o600));
}

/// Runs something as a user without any privilege, be it root or not.
fn without_privileges(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            let none = rustix::thread::CapabilitySet::empty();
            let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets).unwrap();
            work();
        });
        alone.join().unwrap();
    });
}

#[test]
fn modes_that_forbid_writing_do_not_keep_a_plain_user_from_unpacking() {
    let bench = Bench::new();
    let entry = |path: &str, kind, mode, uid| Entry {
        path: path.parse().unwrap(),
        kind,
        metadata: Metadata { mode, uid, gid: uid + 1, mtime: EPOCH, ..Metadata::default() },
    };
    let first = [
        entry("closed", Kind::Directory, 0o555, 7),
        entry("closed/read-only", Kind::File { size: 0 }, 0o444, 5),
        entry("closed/setuid", Kind::File { size: 0 }, 0o6555, 0),
        entry("closed/secret", Kind::File { size: 0 }, 0, 9),
        entry("closed/below", Kind::Directory, 0o500, 0),
        entry("closed/below/device", Kind::CharDevice { major: 1, minor: 3 }, 0o444, 3),
        entry("closed/below/link", Kind::Symlink { target: b"..".to_vec() }, 0o777, 4),
    ];
    let second = [
        // A directory that this layer does not name looks as it does below.
        entry("closed/below/new", Kind::File { size: 0 }, 0o400, 8),
        entry("closed/.wh.setuid", Kind::File { size: 0 }, 0o644, 0),
    ];
    let trees = [bench.tree("first"), bench.tree("second")];
    without_privileges(|| {
        for (place, layer) in [&first[..], &second[..]].into_iter().enumerate() {
            let mut unpacker = Unpacker::new(&trees[place], &trees[..place], Owners::Recorded).unwrap();
            layer.iter().for_each(|entry| unpacker.apply(entry, &mut &b""[..]).unwrap());
            unpacker.finish().unwrap();
        }
        let attributes_of = |tree: usize, path: &str| {
            let sidecar = Sidecar::load(&trees[tree]).unwrap();
            attributes(Owners::Recorded, &trees[tree].root().join(path), &sidecar).unwrap()
        };
        for expected in first.iter().filter(|entry| entry.metadata.mode != 0) {
            let found = attributes_of(0, &expected.path.to_string()[1..]);
            assert_eq!(found, layer::record::Attributes::of_entry(expected), "{}", expected.path);
        }
        for (path, expected) in [("closed", &first[0]), ("closed/below", &first[4]), ("closed/below/new", &second[0])] {
            assert_eq!(attributes_of(1, path), layer::record::Attributes::of_entry(expected), "{path}");
        }
        let metadata = |path: &str| fs::symlink_metadata(trees[0].root().join(path)).unwrap();
        assert_eq!(metadata("closed/secret").mode() & 0o7777, 0);
        assert_eq!((metadata("closed").mtime(), metadata("closed/below").mtime()), (EPOCH, EPOCH));
        assert!(View::new(&trees).lookup(&"closed/setuid".parse().unwrap()).unwrap().is_none());
    });
}

#[test]
fn a_finder_finds_what_the_view_shows() {
    let bench = Bench::new();
    let trees = [bench.tree("low"), bench.tree("middle"), bench.tree("high")];
    let [low, middle, high] = &trees;
    for path in ["a/b/low", "a/b/both", "gone/file", "opaque/old/file", "file/was/directory", "link/target"] {
        file(low, path, "low");
    }
    for path in ["a/b/both", "opaque/new", "file"] {
        file(middle, path, "middle");
    }
    whiteout(middle, "gone");
    opaque(middle, "opaque");
    fs::create_dir_all(high.root()).unwrap();
    symlink("a", high.root().join("link")).unwrap();
    file(high, "gone/again", "high");
    let mut finder = Finder::new(&trees);
    let paths = [
        "",
        "a",
        "a/b",
        "a/b/low",
        "a/b/both",
        "a/b/absent",
        "absent/a/b",
        "gone",
        "gone/file",
        "gone/again",
        "opaque",
        "opaque/old",
        "opaque/old/file",
        "opaque/new",
        "file",
        "file/was",
        "file/was/directory",
        "link",
        "link/target",
    ];
    for path in paths {
        let path = ImagePath::parse(path).unwrap();
        let expected = View::new(&trees).lookup(&path).unwrap().map(|found| (found.tree, found.path));
        let found = finder.lookup(&path).unwrap().map(|found| (found.tree, found.path));
        assert_eq!(found, expected, "{path}");
    }
}

/// A stack of four trees in which each changes what the ones below have.
fn stack(bench: &Bench) -> Vec<TreeDir> {
    let trees = ["one", "two", "three", "four"].map(|name| bench.tree(name));
    let [one, two, three, four] = &trees;
    for path in [
        "kept/file",
        "gone/in/four",
        "emptied/file",
        "emptied/dir/file",
        "remade/old",
        "remade/both/old",
        "was-dir/file",
    ] {
        file(one, path, "one");
    }
    file(one, "was-file", "one");
    file(one, "same-again", "one");
    file(two, "two/file", "two");
    file(two, "two/passing", "two");
    file(two, "same-again", "two");
    fs::hard_link(two.root().join("two/file"), two.root().join("two/other-name")).unwrap();
    whiteout(two, "remade");
    whiteout(two, "was-dir");
    file(three, "remade/new", "three");
    file(three, "remade/both/new", "three");
    whiteout(three, "two/passing");
    whiteout(three, "was-file");
    symlink("kept", three.root().join("was-dir")).unwrap();
    opaque(four, "emptied");
    file(four, "emptied/new", "four");
    file(four, "was-file/now/directory", "four");
    file(four, "same-again", "one");
    whiteout(four, "gone/in");
    trees.into()
}

#[test]
fn layers_squashed_into_one_show_what_they_showed_together() {
    for below in 0..4 {
        let bench = Bench::new();
        let stack = stack(&bench);
        let squashed = squash(&stack, below, owners(), EPOCH).unwrap();
        let one = bench.unpacked("squashed", &squashed, &stack[..below]);
        let now = [&stack[..below], &[one]].concat();
        assert_eq!(shown(&now), shown(&stack), "over {below} trees: {:?}", paths(&squashed));
    }
}

#[test]
fn what_layers_take_back_among_themselves_is_in_no_squashed_layer() {
    let bench = Bench::new();
    let stack = stack(&bench);
    let squashed = squash(&stack, 1, owners(), EPOCH).unwrap();
    let expected = [
        "emptied/.wh.dir",
        "emptied/.wh.file",
        "emptied/new",
        "gone/.wh.in",
        "remade/.wh.old",
        "remade/both/.wh.old",
        "remade/both/new",
        "remade/new",
        "two",
        "two/file",
        "two/other-name",
        "was-dir",
        "was-file",
        "was-file/now",
        "was-file/now/directory",
    ];
    assert_eq!(paths(&squashed), expected.map(|path| format!("/{path}")));
    let link = squashed.iter().find(|change| change.entry.path.to_string() == "/two/other-name").unwrap();
    assert!(matches!(&link.entry.kind, Kind::HardLink { target } if target.to_string() == "/two/file"));
    assert!(squash(&stack, 4, owners(), EPOCH).unwrap().is_empty());
}

/// Unpacks entries as they come from somebody else, over `below`.
fn foreign(bench: &Bench, name: &str, below: &[TreeDir], list: &[(&str, Kind, &str)]) -> TreeDir {
    let tree = bench.tree(name);
    let mut unpacker = Unpacker::new(&tree, below, owners()).unwrap();
    for (path, kind, content) in list {
        let metadata = Metadata { mode: 0o755, ..Metadata::default() };
        let entry = Entry { path: path.parse().unwrap(), kind: kind.clone(), metadata };
        unpacker.apply(&entry, &mut content.as_bytes()).unwrap();
    }
    unpacker.finish().unwrap();
    tree
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
    let file = |content: &str| Kind::File { size: content.len() as u64 };
    let path = |text: &str| -> ImagePath { text.parse().unwrap() };
    for reversed in [false, true] {
        let bench = Bench::new();
        let lower = bench.tree("lower");
        file_in(&lower, "dir/old");
        file_in(&lower, "gone");
        let mut list = vec![
            (".wh.dir", file(""), ""),
            ("dir", Kind::Directory, ""),
            ("dir/new", file("x"), "x"),
            (".wh.gone", file(""), ""),
            (".wh..wh.plnk", Kind::Directory, ""),
        ];
        if reversed {
            list.rotate_left(1);
        }
        let upper = foreign(&bench, "upper", std::slice::from_ref(&lower), &list);
        let trees = [lower, upper];
        let view = View::new(&trees);
        assert_eq!(view.list(&path("dir")).unwrap(), [b"new".to_vec()], "{reversed}");
        assert_eq!(view.list(&path("")).unwrap(), [b"dir".to_vec()], "{reversed}");
    }
}

#[test]
fn a_hard_link_to_a_file_of_a_layer_below_becomes_a_copy_of_it() {
    let bench = Bench::new();
    let lower = bench.tree("lower");
    file_in(&lower, "dir/old");
    let link = Kind::HardLink { target: "/dir/old".parse().unwrap() };
    let upper = foreign(&bench, "upper", std::slice::from_ref(&lower), &[("new", link, "")]);
    assert_eq!(fs::read_to_string(upper.root().join("new")).unwrap(), "dir/old");
    let mode = fs::metadata(upper.root().join("new")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o644);
}

/// A file that holds its own name.
fn file_in(tree: &TreeDir, path: &str) {
    file(tree, path, path);
}
