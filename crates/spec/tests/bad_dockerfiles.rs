//! What is said about bad Dockerfiles, word for word.
//!
//! Each file in `tests/bad_dockerfiles` is a Dockerfile, then a line `==> said <==`, and what is said about it. After a
//! change of words, `cargo test -p spec --test bad_dockerfiles -- --ignored` writes what is said anew; read the
//! difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::dockerfile::parse;
use spec::{SourceFile, render};

const SAID: &str = "==> said <==\n";

#[test]
fn each_bad_dockerfile_is_told_where_it_is_wrong_and_what_was_expected() {
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() > 12, "the cases are missing");
    for path in cases {
        let (text, expected) = read(&path);
        let said = said(&text);
        if said != expected {
            failures.push(format!("{}:\n{said}\nexpected:\n{expected}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
#[ignore = "writes what is said now into the cases"]
fn write_the_cases_anew() {
    for path in cases() {
        let (text, _) = read(&path);
        fs::write(&path, format!("{text}{SAID}{}", said(&text))).unwrap();
    }
}

#[test]
fn what_is_no_text_is_named() {
    let error = SourceFile::from_bytes("Dockerfile", b"FROM x\nRUN \xff\xfe\n".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile:2:5: this file is binary: it is no text in UTF-8");
    assert!(said("FROM x\nRUN \0\n").contains("Dockerfile:2:5"));
}

fn read(path: &Path) -> (String, String) {
    let whole = fs::read_to_string(path).expect("the case can be read");
    let (text, expected) = whole.split_once(SAID).unwrap_or((&whole, ""));
    (text.to_owned(), expected.to_owned())
}

fn said(text: &str) -> String {
    match parse(&Arc::new(SourceFile::new("Dockerfile", text))) {
        Ok(_) => String::from("nothing\n"),
        Err(diagnostics) => render(&diagnostics, false) + "\n",
    }
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_dockerfiles");
    let mut cases: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the cases are there")
        .map(|entry| entry.expect("the cases can be listed").path())
        .collect();
    cases.sort();
    cases
}
