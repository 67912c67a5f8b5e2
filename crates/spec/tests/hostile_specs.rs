//! Specs written to break the reader: every one ends in an answer, soon.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use spec::{Family, SourceFile, Variables, render};

const FAMILY: &str = "drystone: 1\nregistry: localhost:5100\nsources: {d: {type: apt, suites: [s], trusted: true}}\n";

/// Everything a reader goes through: assembling, and drawing what is wrong.
fn read(family: &str, image: &str) -> Option<String> {
    let images = vec![(String::from("one"), SourceFile::new("one/image.yaml", image))];
    let variables: Variables = [("A", "b")].into_iter().collect();
    let result = Family::assemble(SourceFile::new("family.yaml", family), images, &variables);
    result.err().map(|diagnostics| render(&diagnostics, false) + &render(&diagnostics, true))
}

fn said(image: &str) -> String {
    let start = Instant::now();
    let said = read(FAMILY, image).expect("this spec is bad");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    said
}

#[test]
fn deep_nesting_is_refused() {
    said(&format!("from: {}", "[".repeat(100_000)));
    said(&format!("from: scratch\nlabels: {}", "{a: ".repeat(10_000)));
    said(&format!("from: scratch\nrun: {}x{}", "[".repeat(500), "]".repeat(500)));
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text =
        String::from("from: scratch\npackages: &a0 [nodejs, nodejs, nodejs, nodejs, nodejs, nodejs, nodejs]\n");
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(8);
        text.push_str(&format!("x{level}: &a{level} [{previous}]\n"));
    }
    said(&text);
    said("from: scratch\nrun: &a [*a]\n");
}

#[test]
fn variables_that_double_are_refused() {
    let mut family = String::from("drystone: 1\nregistry: localhost:5100\nvars:\n  V0: xxxxxxxx\n");
    for level in 1..60 {
        family.push_str(&format!("  V{level}: \"${{V{0}}}${{V{0}}}\"\n", level - 1));
    }
    assert!(read(&family, "from: scratch").unwrap().contains("too long"));
}

#[test]
fn a_file_of_a_megabyte_is_refused_before_it_is_read() {
    assert!(said(&format!("from: scratch\n#{}", "x".repeat(1024 * 1024))).contains("bytes long"));
}

#[test]
fn an_endless_line_is_named_and_not_drawn() {
    let said = said(&format!("from: scratch\npackages: [{}]\n", "A, ".repeat(50)).replace("A", &"A".repeat(3000)));
    assert!(said.len() < 200_000, "{} bytes", said.len());
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let said = read(FAMILY, "from: \"\\e[31m\\a\\u202e\"\n\"\\e[2J\": 1\n").unwrap();
    let plain = read(FAMILY, "from: scratch\nuser: \"\\e[31mroot\"\n").unwrap();
    for text in [said, plain] {
        let without_colors = text.split("\x1b[").skip(1).all(|rest| {
            let sequence = rest.find(|letter: char| !letter.is_ascii_digit() && letter != ';');
            sequence.is_some_and(|end| rest[end..].starts_with('m'))
        });
        assert!(without_colors && !text.contains('\x07'), "{text:?}");
    }
}

#[test]
fn a_nul_character_is_refused_wherever_it_would_end_a_text() {
    for key in
        ["labels: {a: \"x\\0y\"}", "env: {A: \"x\\0\"}", "cmd: [\"x\\0\"]", "cmd: \"x\\0\"", "workdir: \"/x\\0\""]
    {
        said(&format!("from: scratch\n{key}\n"));
    }
}

#[test]
fn many_findings_are_drawn_in_time() {
    let packages: String = (0..2000).map(|number| format!("  - P{number}\n")).collect();
    said(&format!("from: scratch\npackages:\n{packages}"));
}

/// Lines from which real specs are made, in any order.
const PIECES: &[&str] = &[
    "from: scratch",
    "from: one",
    "from: a:b",
    "packages: [a-b]",
    "packages:",
    "  - nodejs",
    "- x",
    "files:",
    "  - {",
    "}",
    "]",
    "  - source: a",
    "    target: /",
    "    mode: 0755",
    "    mode: \"0755\"",
    "run: x",
    "run:",
    "  - [a, b]",
    "  - command: x",
    "steps:",
    "  - run: x",
    "  - files: []",
    "labels:",
    "  a: ${A}",
    "  b: ${B}",
    "  c: $$",
    "env: {A: b}",
    "? x",
    ": y",
    "&a x",
    "*a",
    "!!str x",
    "!tag {a: b}",
    "|",
    ">-",
    "\t",
    "---",
    "...",
    "#",
    "\"",
    "'",
    "ü: ü",
    "healthcheck: none",
    "<<: {}",
    "expose: [80]",
    "users: [{name: a, uid: 1}]",
    "layers: {budget: 1}",
    "\u{feff}",
    "\r",
    "\u{2028}",
    "name: x",
    "on_build: [x]",
    "- - - -",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        read(FAMILY, &text);
        read(&text, "from: scratch");
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        read(FAMILY, &text);
        read(&text, "from: scratch");
    }

    #[test]
    fn any_arrangement_of_real_lines_is_answered(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..14)) {
        let text = pieces.join("\n");
        read(FAMILY, &text);
        read(&text, &text);
    }

    #[test]
    fn any_value_under_any_key_is_answered(
        key in proptest::sample::select(&["from", "name", "tag", "packages", "files", "run", "steps", "env", "user", "workdir",
            "expose", "volumes", "stop_signal", "healthcheck", "entrypoint", "cmd", "labels", "platforms", "exclude", "layers"][..]),
        value in "[ -~ü\\n]{0,40}",
    ) {
        read(FAMILY, &format!("from: scratch\n{key}: {value}\n"));
    }
}
