//! What is said about bad specs, word for word.
//!
//! Each file in `tests/bad` is one case: sections headed `==> name <==` as `head` prints them, the files of a family
//! first and what is said about them last. A case without a `family.yaml` gets a small one. After a change of words,
//! `cargo test -p spec --test bad_specs -- --ignored` writes the last sections anew; read the difference.

use std::fs;
use std::path::{Path, PathBuf};

use spec::{Family, SourceFile, Variables, render};

const FAMILY: &str =
    "drystone: 1\nregistry: localhost:5100\nsources:\n  debian: {type: apt, suites: [bookworm], keyring: debian.gpg}\n";
const SAID: &str = "said";

#[test]
fn each_bad_spec_is_told_where_it_is_wrong_and_what_was_expected() {
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() > 30, "the cases are missing");
    for path in cases {
        let case = Case::read(&path);
        let said = case.said();
        if said != case.expected {
            failures.push(format!("{}:\n{said}\nexpected:\n{}", path.display(), case.expected));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
#[ignore = "writes what is said now into the cases"]
fn write_the_cases_anew() {
    for path in cases() {
        let case = Case::read(&path);
        let sections: Vec<String> =
            case.sections.iter().map(|(name, text)| format!("==> {name} <==\n{text}")).collect();
        fs::write(&path, format!("{}==> {SAID} <==\n{}", sections.concat(), case.said())).unwrap();
    }
}

struct Case {
    sections: Vec<(String, String)>,
    expected: String,
}

impl Case {
    fn read(path: &Path) -> Self {
        let mut sections: Vec<(String, String)> = Vec::new();
        for line in fs::read_to_string(path).expect("the case can be read").split_inclusive('\n') {
            match line.trim_end().strip_prefix("==> ").and_then(|rest| rest.strip_suffix(" <==")) {
                Some(name) => sections.push((name.to_owned(), String::new())),
                None => sections.last_mut().expect("a case begins with a heading").1.push_str(line),
            }
        }
        let expected = match sections.last() {
            Some((name, _)) if name == SAID => sections.pop().map(|(_, text)| text).unwrap_or_default(),
            _ => String::new(),
        };
        Self { sections, expected }
    }

    fn said(&self) -> String {
        let text_of =
            |wanted: &str| self.sections.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str());
        let family = SourceFile::new("family.yaml", text_of("family.yaml").unwrap_or(FAMILY));
        let images = self
            .sections
            .iter()
            .filter_map(|(name, text)| Some((name.strip_suffix("/image.yaml")?, name, text)))
            .map(|(directory, name, text)| (directory.to_owned(), SourceFile::new(name, text)))
            .collect();
        match Family::assemble(family, images, &Variables::new()) {
            Ok(_) => String::from("nothing\n"),
            Err(diagnostics) => render(&diagnostics, false) + "\n",
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut cases: Vec<PathBuf> = fs::read_dir(directory)
        .expect("the cases are there")
        .map(|entry| entry.expect("the cases can be listed").path())
        .collect();
    cases.sort();
    cases
}
