//! What loading a bundle leaves: whole ones, hostile ones, and loads that were killed.

use std::fs;
use std::io::Write as _;

use layer::entry::{Entry, Kind, Metadata};
use layer::write::{END_OF_ARCHIVE, EntryWriter};
use oci::Index;
use store::{Cache, Layout};

use super::*;

/// A bundle of these files, whose list says of them what `list` makes of the truth.
fn bundle(files: &[(&str, &[u8])], list: impl Fn(&mut Bundle)) -> Vec<u8> {
    let index = Index::new(Vec::new()).to_bytes();
    let member = |(path, bytes): &(&str, &[u8])| Member {
        path: (*path).to_owned(),
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
        executable: false,
        earlier: false,
    };
    let mut bundle = Bundle {
        version: VERSION,
        family: "family".to_owned(),
        with_sources: false,
        index: Digest::of(&index),
        since: None,
        addresses: Vec::new(),
        files: files.iter().map(member).collect(),
    };
    list(&mut bundle);
    let head: [(&str, &[u8]); 3] =
        [("oci-layout", store::LAYOUT_MARKER.as_bytes()), ("index.json", &index), (LIST, &bundle.to_bytes())];
    let mut writer = EntryWriter::new(Vec::new());
    for (path, bytes) in head.iter().chain(files) {
        let kind = Kind::File { size: bytes.len() as u64 };
        let path = ImagePath::parse(path.replace("../", "")).unwrap();
        writer.write(&Entry { path, kind, metadata: Metadata::default() }, &mut &bytes[..]).unwrap();
    }
    let mut tar = writer.into_inner();
    tar.write_all(&END_OF_ARCHIVE).unwrap();
    tar
}

/// Loads a bundle into a new place. Gives that place, and what went wrong.
fn loaded(tar: &[u8]) -> (tempfile::TempDir, Result<Loaded, BundleError>) {
    let place = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(place.path().join("oci")).unwrap();
    let cache = Cache::open(place.path().join("cache")).unwrap();
    let directory = Some(place.path().join("family"));
    let loaded = load(tar, &Destination { directory, layout: &layout, cache: &cache });
    (place, loaded)
}

#[test]
fn a_bundle_puts_its_files_where_they_belong() {
    let hex = Digest::of(b"blob").hex();
    let blob = format!("blobs/sha256/{hex}");
    let files: [(&str, &[u8]); 3] =
        [("drystone/family/a/image.yaml", b"from: scratch\n"), ("drystone/keyrings/k.gpg", b"key"), (&blob, b"blob")];
    let tar = bundle(&files, |_| {});
    let (place, loaded) = loaded(&tar);
    loaded.unwrap();
    let read = |path: &str| fs::read(place.path().join(path)).unwrap();
    assert_eq!(read("family/a/image.yaml"), b"from: scratch\n");
    assert_eq!(read("family/.drystone/keyrings/k.gpg"), b"key");
    assert_eq!(read(&format!("oci/{blob}")), b"blob");
    assert_eq!(
        carried::keyring(&place.path().join("family"), "../../k.gpg"),
        place.path().join("family/.drystone/keyrings/k.gpg")
    );
    assert_eq!(read_head(&tar[..]).unwrap().0.files.len(), 3);
}

#[test]
fn what_a_killed_load_left_is_removed_by_the_next_and_a_living_one_is_let_alone() {
    let place = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(place.path().join("oci")).unwrap();
    let cache = Cache::open(place.path().join("cache")).unwrap();
    let (dead, living) = (place.path().join(".drystone-bundle-a"), place.path().join(".drystone-bundle-b"));
    for directory in [&dead, &living] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("family.yaml"), "").unwrap();
    }
    let held = fs::File::open(&living).unwrap();
    held.lock().unwrap();
    let directory = Some(place.path().join("family"));
    let tar = bundle(&[("drystone/family/family.yaml", b"drystone: 1\n")], |_| {});
    load(&tar[..], &Destination { directory, layout: &layout, cache: &cache }).unwrap();
    assert_eq!((dead.exists(), living.exists()), (false, true));
}

#[test]
fn hostile_bundles_are_refused_and_leave_no_family() {
    let good: [(&str, &[u8]); 2] = [("drystone/family/family.yaml", b"drystone: 1\n"), ("drystone/family/b", b"b")];
    type Change<'a> = &'a dyn Fn(&mut Bundle);
    let cases: [(Change<'_>, &str); 12] = [
        (&|bundle| bundle.files[0].path = "drystone/family/../../up".into(), "is no path of a bundle"),
        (&|bundle| bundle.files[0].path = "/etc/passwd".into(), "is no path of a bundle"),
        (&|bundle| bundle.files[0].path = "drystone/family/a//b".into(), "is no path of a bundle"),
        (&|bundle| bundle.files[0].path = "drystone/family/.drystone/x".into(), "is no path of a bundle"),
        (&|bundle| bundle.files[0].path = "blobs/sha256/../../x".into(), "is no path of a bundle"),
        (&|bundle| bundle.files[0].path = "drystone/other/x".into(), "is no path of a bundle"),
        (&|bundle| bundle.family = "../elsewhere".into(), "not that of a directory"),
        (&|bundle| bundle.version = 2, "its version is 2, expected 1"),
        (&|bundle| bundle.index = Digest::of(b"another"), "`index.json` has other bytes"),
        (&|bundle| bundle.files[1].digest = Digest::of(b"c"), "the bytes hash to"),
        (&|bundle| bundle.files[1].size = 7, "has 1 bytes, the list says 7"),
        (&|bundle| drop(bundle.files.pop()), "is not in the list"),
    ];
    for (change, expected) in cases {
        let (place, loaded) = loaded(&bundle(&good, change));
        let error = crate::error::chain(&loaded.unwrap_err());
        assert!(error.contains(expected), "{error}, not: {expected}");
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
    let tar = bundle(&good, |_| {});
    for end in [0, 512, 1024, 3000, tar.len() - 1536] {
        let (place, loaded) = loaded(&tar[..end]);
        assert!(loaded.is_err(), "cut after {end} bytes");
        assert!(!place.path().join("family").exists());
    }
    let (_place, loaded) = loaded(&bundle(&good, |bundle| bundle.files[1].earlier = true));
    assert!(matches!(loaded, Err(BundleError::Earlier { missing: 1, .. })));
}
