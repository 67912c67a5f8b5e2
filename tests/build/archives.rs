//! Archives that cannot be trusted, and archives that cannot be reached.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use fixtures::Fault;
use fixtures::http::Outage;

use crate::support::family::{Bench, debs, key};
use crate::support::program::run;

#[test]
fn an_archive_that_is_not_what_it_says_is_refused_and_nothing_is_named() {
    let fault = |fault| vec![fault];
    let hello = || "hello".to_owned();
    let cases = [
        (
            fault(Fault::AlteredRelease),
            vec!["source `fixture` cannot be used", "is not signed by a key of the source's"],
        ),
        (fault(Fault::TextBeforeSignature), vec!["source `fixture` cannot be used", "InRelease"]),
        (fault(Fault::TextAfterSignature), vec!["source `fixture` cannot be used", "InRelease"]),
        (fault(Fault::Unsigned), vec!["no mirror has the suite `stable`", "InRelease does not exist"]),
        (fault(Fault::OtherSuite("old".into())), vec!["expected the suite `stable`, found old"]),
        (fault(Fault::WrongIndexDigest), vec!["source `fixture` cannot be used", "by-hash/SHA256", "does not exist"]),
        (fault(Fault::MissingIndex), vec!["source `fixture` cannot be used", "does not exist"]),
        (fault(Fault::WrongDebDigest(hello())), vec!["hello_1.0-1_amd64.deb is not what its index says", "hash to"]),
        (fault(Fault::AlteredDeb(hello())), vec!["hello_1.0-1_amd64.deb is not what its index says", "hash to"]),
        (fault(Fault::TruncatedDeb(hello())), vec!["hello_1.0-1_amd64.deb is not what its index says", "bytes"]),
        (fault(Fault::MissingDeb(hello())), vec!["hello_1.0-1_amd64.deb does not exist"]),
    ];
    for (faults, expected) in cases {
        let bench = Bench::with_image("hello");
        bench.archive(debs(), &faults);
        let failed = bench.build(&[]).failure(1, &expected);
        assert!(failed.stdout.is_empty(), "{faults:?}: {}", failed.stdout);
        assert_eq!(bench.digests(), "", "{faults:?}");
        bench.is_whole();
        // What was wrong with the archive is not kept: with a good one, the next build works.
        fs::remove_dir_all(bench.at("archive")).unwrap();
        bench.archive(debs(), &[]);
        bench.build(&[]).success();
        bench.is_whole();
    }
}

#[test]
fn an_archive_signed_by_another_key_is_refused_with_its_place_in_the_spec() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]).trust(&key(2));
    let expected = ["source `fixture` cannot be used", "of which the keyring has none", "family.yaml:5:", "hint: "];
    bench.build(&[]).failure(1, &expected);
}

#[test]
fn a_keyring_that_is_missing_or_is_none_is_an_error_that_names_it() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    fs::write(bench.at("family/archive.gpg"), "no keys here").unwrap();
    bench.build(&[]).failure(1, &["archive.gpg` cannot be used"]);
    fs::remove_file(bench.at("family/archive.gpg")).unwrap();
    bench.build(&[]).failure(1, &["cannot read the keyring", "archive.gpg"]);
}

#[test]
fn a_suite_that_no_mirror_has_is_an_error_that_names_the_suite_and_the_flag() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let family = crate::support::family::FAMILY.replace("[stable]", "[nobodys-suite]");
    bench.spec("family.yaml", &family);
    let expected = ["no mirror has the suite `nobodys-suite`", "family.yaml:5:", "--mirror"];
    bench.build(&[]).failure(1, &expected);
}

#[test]
fn a_mirror_for_another_suite_only_is_no_mirror() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let other = format!("other-security=file://{}", bench.at("archive").display());
    bench.build_from(&other, &[]).failure(1, &["no mirror is known", "--mirror", "DRYSTONE_MIRROR", "sources.list"]);
    bench.build_from("ftp://mirror.example/", &[]).failure(2, &["`ftp://mirror.example/` is not a mirror"]);
}

#[test]
fn a_mirror_that_is_gone_is_an_error_and_the_build_works_when_it_is_back() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let server = bench.serve();
    server.fail(Outage::Refuse);
    bench.build_from(&server.url(), &[]).failure(1, &["cannot be reached", "InRelease"]);
    server.recover();
    server.fail_where(".deb", Outage::Status(404), None);
    bench.build_from(&server.url(), &[]).failure(1, &[".deb does not exist", "hint: "]);
    server.recover();
    server.fail_where(".deb", Outage::Status(403), None);
    bench.build_from(&server.url(), &[]).failure(1, &[".deb: the server answered 403"]);
    bench.is_whole();
    server.recover();
    bench.build_from(&server.url(), &[]).success();
    bench.is_whole();
}

#[test]
fn transfers_that_break_off_or_arrive_wrong_are_tried_again() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let server = bench.serve();
    for (path, outage) in [
        ("InRelease", Outage::Hangup),
        ("by-hash", Outage::CutAfter(20)),
        ("libhello", Outage::CutAfter(1000)),
        ("hello_1.0-1", Outage::Corrupt),
        ("hello_1.0-1", Outage::Status(503)),
    ] {
        server.fail_where(path, outage, Some(1));
    }
    bench.build_from(&server.url(), &[]).success();
    bench.is_whole();
    let asked = |part: &str| server.paths().iter().filter(|path| path.contains(part)).count();
    assert_eq!((asked("InRelease"), asked("by-hash"), asked("libhello"), asked("/hello_1.0-1")), (2, 2, 2, 3));
}

#[test]
fn nothing_is_fetched_twice() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = bench.serve();
    bench.build_from(&server.url(), &[]).success();
    server.forget_requests();
    let again = bench.build_from(&server.url(), &[]).success();
    assert!(again.stderr.contains("nothing to build: all 3 images are up to date"), "{}", again.stderr);
    // The lock says all that an archive could.
    assert_eq!(server.paths(), [] as [&str; 0]);
    server.forget_requests();
    bench.lock(&["--update", "--mirror", &server.url()]).success();
    let statuses: Vec<u16> = server.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [304], "{:?}", server.paths());
}

#[test]
fn an_unsigned_source_must_be_trusted_in_writing_and_each_build_says_so() {
    let bench = Bench::with_image("hello");
    fixtures::AptRepository::new().packages(debs()).write_flat(&bench.at("flat"), "amd64").unwrap();
    let family = |trust: &str| {
        let url = bench.at("flat");
        format!(
            "drystone: 1\nregistry: localhost:5100\ntag: v1\nsources:\n  fixture: {{type: apt, url: \"file://{}\", flat: amd64/{trust}}}\n\
             defaults: {{sources: [fixture]}}\n",
            url.display()
        )
    };
    bench.spec("family.yaml", &family(""));
    bench.build(&[]).failure(2, &["family.yaml:5:", "trusted"]);
    bench.spec("family.yaml", &family(", trusted: true"));
    for _ in 0..2 {
        let built = bench.build(&[]).success();
        assert!(built.stderr.contains("warning: nobody signs the source `fixture`"), "{}", built.stderr);
    }
}

#[test]
fn an_archive_that_this_user_may_not_read_is_an_error_that_says_so() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let release = bench.at("archive/dists/stable/InRelease");
    fs::remove_file(&release).unwrap();
    fs::create_dir(&release).unwrap();
    fs::set_permissions(&release, fs::Permissions::from_mode(0o000)).unwrap();
    run(bench.drystone().args(["build", "family"])).failure(1, &["InRelease cannot be reached"]);
}

#[test]
fn a_file_by_address_that_does_not_arrive_is_a_failure_shown_at_its_place() {
    let bench = Bench::with_image("hello");
    bench.archive(debs(), &[]);
    let server = bench.serve();
    let digest = content::Digest::of(b"the file").hex();
    let image =
        format!("from: scratch\nfiles:\n  - {{url: \"{}/there\", sha256: {digest}, target: /there}}\n", server.url());
    bench.spec("hello/image.yaml", &image);
    bench
        .build_from(&server.url(), &[])
        .failure(1, &["image.yaml:3:11", "/there does not exist (the server answered 404"]);
    fs::write(bench.at("archive/there"), "another file").unwrap();
    bench.build_from(&server.url(), &[]).failure(1, &["image.yaml:3:11", &format!("expected sha256:{digest}")]);
    fs::write(bench.at("archive/there"), "the file").unwrap();
    bench.build_from(&server.url(), &[]).success();
    assert_eq!(bench.file("hello", "there").as_deref(), Some("the file"));
}

#[test]
fn a_build_in_which_nothing_changed_reads_no_index() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let server = bench.serve();
    bench.build_from(&server.url(), &[]).success();
    let digests = bench.digests();
    // Records are JSON; what remains are the indexes themselves.
    let is_index = |path: &&PathBuf| fs::read(path).unwrap().first() != Some(&b'{');
    let indexes = bench.cached("indexes");
    let indexes: Vec<&PathBuf> = indexes.iter().filter(is_index).collect();
    assert!(!indexes.is_empty());
    indexes.iter().for_each(|path| fs::remove_file(path).unwrap());
    server.forget_requests();
    bench.build_from(&server.url(), &[]).success();
    assert_eq!(bench.digests(), digests);
    assert!(server.paths().iter().all(|path| path.ends_with("InRelease")), "{:?}", server.paths());
    // Another request does.
    bench.spec("worker/image.yaml", "from: app\npackages: [libhello]\ncmd: [work]\n");
    bench.build_from(&server.url(), &[]).success();
    assert!(server.paths().iter().any(|path| path.contains("Packages") || path.contains("by-hash")));
}
