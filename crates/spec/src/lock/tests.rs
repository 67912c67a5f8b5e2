//! Locks are read as they were written, and what is wrong in one is said at its line.

use std::sync::Arc;

use super::*;
use crate::SourceFile;

fn deb(name: &str, version: &str) -> LockedDeb {
    let digit = version.chars().last().filter(|last| last.is_ascii_digit()).unwrap_or('0');
    LockedDeb {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        source: "debian".to_owned(),
        suite: "stable".to_owned(),
        path: format!("pool/main/{name}_{version}.deb").replace(':', "%3a"),
        size: 1000,
        sha256: Sha256::new(digit.to_string().repeat(64)).unwrap(),
    }
}

fn image(name: &str, packages: &[LockedDeb], layers: &[&[usize]]) -> LockedImage {
    let step = LockedStep {
        asks: vec![packages[0].name.clone()],
        python: LockedPython::ByScripts,
        packages: packages.to_vec(),
        layers: layers.iter().map(|layer| layer.to_vec()).collect(),
    };
    LockedImage {
        name: name.to_owned(),
        platform: "linux/amd64".to_owned(),
        from: "scratch".to_owned(),
        budget: 40,
        squashed: false,
        sources: vec!["debian".to_owned()],
        recommends: false,
        steps: vec![step],
    }
}

fn lock() -> Lock {
    let digest = Sha256::new("ab".repeat(32)).unwrap();
    let source = LockedSource {
        name: "debian".to_owned(),
        description: vec!["suites=stable".to_owned(), "components=main".to_owned()],
        releases: vec![LockedRelease {
            suite: "stable".to_owned(),
            date: "2026-11-14T09:12:33Z".to_owned(),
            size: 12,
            sha256: digest.clone(),
            signer: Some("0123ABCD".to_owned()),
        }],
        indexes: vec![LockedIndex {
            suite: "stable".to_owned(),
            path: "main/binary-amd64/Packages.gz".to_owned(),
            size: 34,
            sha256: digest.clone(),
        }],
    };
    let mut python = image("tools", &[deb("zlib", "1:1"), deb("apt", "2"), deb("libc6", "3")], &[&[2], &[1, 0]]);
    python.steps[0].python =
        LockedPython::Interpreter { version: "3.11".to_owned(), packages: vec!["libc6".to_owned()] };
    python.recommends = true;
    python.squashed = true;
    Lock {
        sources: vec![source],
        parents: vec![LockedParent {
            reference: "registry.example/debian:12".to_owned(),
            platform: "linux/amd64".to_owned(),
            digest: format!("sha256:{digest}"),
            size: Some(48_500_000),
        }],
        files: vec![LockedFile { url: "http://files.example/a.tar.gz".to_owned(), size: 5, sha256: digest }],
        images: vec![image("base", &[deb("libc6", "3")], &[&[0]]), python],
    }
}

fn parse(text: &str) -> Result<Lock, String> {
    Lock::parse(&Arc::new(SourceFile::new("drystone.lock", text))).map_err(|error| error.to_string())
}

#[test]
fn what_is_written_is_read_again() {
    let lock = lock();
    assert_eq!(parse(&lock.to_text()), Ok(lock));
    assert_eq!(parse(&Lock::default().to_text()), Ok(Lock::default()));
}

#[test]
fn a_package_has_one_line_whatever_number_of_images_has_it() {
    let text = lock().to_text();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("package ")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    let expected = format!("package zlib 1:1 amd64 debian stable pool/main/zlib_1%3a1.deb 1000 {}", "1".repeat(64));
    assert_eq!(lines[2], expected);
    assert!(
        text.contains("\n    layer libc6\n    layer apt\n    lay zlib apt\n    lay apt apt\n    lay libc6 libc6\n")
    );
}

#[test]
fn a_new_version_changes_one_line() {
    let before = lock();
    let mut after = lock();
    for image in &mut after.images {
        for package in image.steps.iter_mut().flat_map(|step| &mut step.packages) {
            if package.name == "libc6" {
                *package = deb("libc6", "4");
            }
        }
    }
    let (before, after) = (before.to_text(), after.to_text());
    let changed: Vec<&str> = before.lines().filter(|line| !after.contains(line)).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
}

#[test]
fn packages_of_one_name_are_told_apart_by_what_differs() {
    let mut other = deb("libc6", "3");
    other.architecture = "arm64".to_owned();
    let mut twin = deb("zlib", "1:1");
    twin.source = "other".to_owned();
    twin.sha256 = Sha256::new("5".repeat(64)).unwrap();
    let mut lock = lock();
    lock.images.push(image("older", &[deb("apt", "1.9"), other, twin], &[&[0, 1, 2]]));
    lock.sort();
    let text = lock.to_text();
    for expected in ["lay apt=1.9 apt\n", "lay libc6:arm64 apt\n", "lay zlib=1:1#555555555555 apt\n", "lay apt=2 apt\n"]
    {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    assert_eq!(parse(&text), Ok(lock));
}

#[test]
fn nonsense_is_refused_at_its_place() {
    let good = lock().to_text();
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let cases = [
        (String::new(), "drystone.lock:1:1: this is not a lock"),
        ("name: x\n".to_owned(), "drystone.lock:1:1: this is not a lock"),
        ("# c\n\ndrystone-lock 2\n".to_owned(), "drystone.lock:3:15: this lock has the format 2"),
        ("drystone-lock one\n".to_owned(), "1:15: expected a number, found `one`"),
        (replaced("package apt", "pakage apt"), "a lock has no lines that begin with `pakage`"),
        (replaced("amd64 debian stable pool", "amd64 debian pool"), "found 7 words after `package`"),
        (replaced(" 1000 ", " -1 "), "expected a number, found `-1`"),
        (replaced(&"2".repeat(64), "22"), "expected a sha256"),
        (replaced("pool/main/apt_2.deb", "pool/../../apt_2.deb"), "expected a path below an archive's root"),
        (replaced("pool/main/apt_2.deb", "http://evil.example/apt_2.deb"), "expected a path below an archive's root"),
        (replaced("    lay zlib apt", "    lay zlig apt"), "the lock has no package `zlig`"),
        (replaced("    lay zlib apt", "    lay zlib zlib"), "the step has no line `layer zlib`"),
        (replaced("    layer libc6", "    layer libc6\n    layer none"), "no package of the step is in this layer"),
        (replaced("  from scratch\n", ""), "the image `base` has no line `from`"),
        (replaced("  step 1", "  step 2"), "expected step 1, found `2`"),
        (replaced("    python by-scripts\n", ""), "the step has no line `python`"),
        (replaced("image tools", "image base"), "the image `base` is here twice"),
        ("drystone-lock 1\nlay a b\n".to_owned(), "drystone.lock:2:1: `lay` belongs below `step`"),
        ("drystone-lock 1\nindex a b 1 c\n".to_owned(), "drystone.lock:2:1: `index` belongs below `source`"),
        ("drystone-lock 1\nimage a b\nfile c 1 d\nfrom x\n".to_owned(), "expected a sha256"),
        (replaced("image base", "<<<<<<< ours\nimage base"), "the marks of a merge with conflicts"),
    ];
    for (text, expected) in cases {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "expected `{expected}`, found `{error}`");
    }
}

#[test]
fn a_merge_with_conflicts_keeps_what_both_sides_agree_on() {
    let (ours, theirs) = (lock(), {
        let mut theirs = lock();
        theirs.images[1].steps[0].packages[1] = deb("apt", "9");
        theirs.images.push(image("their-own", &[deb("new", "7")], &[&[0]]));
        theirs
    });
    // As `git merge-file --diff3` leaves a file in which everything is in conflict.
    let marked =
        format!("<<<<<<< HEAD\n{}||||||| base\nx\n=======\n{}>>>>>>> them\n", ours.to_text(), theirs.to_text());
    assert!(Lock::has_conflicts(&marked) && !Lock::has_conflicts(&ours.to_text()));
    let (repaired, known) = Lock::repair(&Arc::new(SourceFile::new("drystone.lock", marked))).unwrap();
    let names: Vec<&str> = repaired.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["base", "their-own"]);
    assert!(known.contains(&deb("apt", "2")) && known.contains(&deb("apt", "9")));
    let both_broken = "<<<<<<< a\nx\n=======\ny\n>>>>>>> b\n";
    assert!(Lock::repair(&Arc::new(SourceFile::new("drystone.lock", both_broken))).is_err());
}
