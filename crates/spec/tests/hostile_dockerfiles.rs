//! Dockerfiles written to break the reader: every one ends in an answer, soon.
//!
//! `cargo test -p spec --release --test hostile_dockerfiles -- --ignored` goes on for an hour, or for as many seconds as
//! `DRYSTONE_FUZZ_SECONDS` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spec::convert::{ConvertOptions, convert};
use spec::dockerfile::{Arguments, IgnoreRules, Kind, Pattern, Scope, parse, parse_trigger};
use spec::lint::{self, Selection};
use spec::{SourceFile, render};

/// Everything that reads a Dockerfile: parsing, the rules, the words, a spec made of it, and drawing what is wrong.
fn read(text: &str) {
    let file = Arc::new(SourceFile::new("Dockerfile", text));
    let ignore = IgnoreRules::parse(&file).ok();
    let report = lint::dockerfile(&file, ignore.as_ref(), &[], &Selection::default());
    report.findings.iter().take(20).for_each(|finding| drop(finding.render(true)));
    let _ = parse_trigger(&file);
    match parse(&file) {
        Err(diagnostics) => drop(render(&diagnostics, false)),
        Ok(dockerfile) => {
            let scope = Scope::new(dockerfile.directives.escape).with_environment([("A".into(), "a*b".into())]);
            for instruction in dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
                let text = instruction.span.text();
                assert!(text.starts_with(instruction.keyword.as_str()), "{text:?} is the place of an instruction");
                instruction.words().into_iter().for_each(|word| drop(scope.expand_words(word)));
                if let Kind::Run(run) = &instruction.kind {
                    run.mounts.iter().for_each(|mount| drop(mount.resolve(&scope)));
                    run.script();
                }
            }
            let _ = Arguments::read(&dockerfile, BTreeMap::new(), []);
            let _ = convert(&dockerfile, &ConvertOptions::default());
        }
    }
}

fn soon(text: &str) {
    let start = Instant::now();
    read(text);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
}

#[test]
fn long_and_deep_texts_are_answered() {
    let million = 1 << 20;
    soon(&format!("FROM x\nRUN {}", "a".repeat(million)));
    soon(&format!("FROM x\nRUN {}x", "a \\\n".repeat(million / 8)));
    soon(&format!("FROM x\n{}", "ONBUILD ".repeat(million / 8)));
    soon(&format!("FROM x\nENV A={}", "${A:-".repeat(million / 8)));
    soon(&format!("FROM x\nENV A={}{}", "${A:-".repeat(60), "}".repeat(60)));
    soon(&format!("FROM x\nCMD {}", "[".repeat(million)));
    soon(&format!("FROM x\nRUN {}\n", "<<A ".repeat(2000)));
    soon(&format!("FROM x\nENV A={} B=${{A//*a*b*c*d/x}}", "a".repeat(100_000)));
    soon(&format!("FROM x\nLABEL {}\n", "a=b ".repeat(50_000)));
    soon(&"FROM x AS x\n".repeat(5_000));
    soon(&format!("FROM x\n{}", "RUN a; b && c | d\n".repeat(20_000)));
}

#[test]
fn values_that_double_are_answered() {
    soon(&format!("FROM scratch\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(60)));
    soon(&format!("ARG A=xxxxxxxx\n{}FROM $A\n", "ARG A=$A$A\n".repeat(60)));
}

/// Pieces from which real Dockerfiles are made, in any order.
const PIECES: &[&str] = &[
    "FROM a",
    "FROM scratch AS b",
    " AS ",
    "# escape=`",
    "# syntax=x",
    "# check=skip=all;error=true",
    "ARG A=b",
    "ARG A",
    "ENV A=b",
    "ENV A b",
    "ENV A=\"b",
    "ENV A='b' C=$A",
    "${A:-b}",
    "${A##*/}",
    "${A/b/c}",
    "${A:?x}",
    "RUN ",
    "RUN a && b",
    "RUN <<EOF",
    "RUN <<-'E O' cat",
    "EOF",
    "E O",
    "COPY a b",
    "COPY <<A <<B /c",
    "COPY --from=b --chown=$A a b",
    "ADD https://x.example/y /",
    "--mount=type=cache,target=/x ",
    "--mount=type=secret,id=$A ",
    "--network=none ",
    "CMD [\"a\", \"b\"]",
    "CMD ['a']",
    "CMD [1]",
    "ENTRYPOINT a",
    "HEALTHCHECK --interval=5s CMD a",
    "HEALTHCHECK NONE",
    "ONBUILD RUN a",
    "ONBUILD COPY <<A /b",
    "SHELL [\"a\"]",
    "LABEL a=b a=\"c d\"",
    "EXPOSE 80/TCP 1:2",
    "VOLUME [\"/a\"]",
    "USER a:b",
    "WORKDIR a",
    "STOPSIGNAL 9",
    "MAINTAINER a",
    "\\",
    "\\ ",
    "`",
    "#",
    "# a",
    "\t",
    " ",
    "\r",
    "\u{feff}",
    "ü",
    "\u{2028}",
    "\"",
    "'",
    "$",
    "{",
    "}",
    "<<",
    "[",
    "]",
    "*",
    "**/x",
    "!a",
    "apt-get install -y x",
    "apt-get update",
    "rm -rf /var/lib/apt/lists/*",
    "&&",
    ";",
    "|",
    "\0",
];

fn pieces() -> impl Strategy<Value = String> {
    let separator = proptest::sample::select(&["\n", "\n", " ", "", "\\\n", " \\ \n"][..]);
    proptest::collection::vec((proptest::sample::select(PIECES), separator), 0..24)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, separator)| [piece, separator]).collect())
}

fn any_dockerfile() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => pieces().prop_map(|text| format!("FROM x\n{text}")),
        2 => pieces(),
        1 => any::<String>(),
        1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any_dockerfile()) {
        read(&text);
    }

    #[test]
    fn any_word_is_answered(text in "[ -~ü]{0,40}", value in "[ -~ü\n]{0,20}") {
        for escape in ['\\', '`'] {
            let scope = Scope::new(escape).with_environment([("A".to_owned(), value.clone())]);
            let _ = scope.expand_str(&text);
            for pattern in [format!("${{A#{text}}}"), format!("${{A%%{text}}}"), format!("${{A//{text}/x}}")] {
                let _ = scope.expand_str(&pattern);
            }
        }
    }

    #[test]
    fn a_pattern_without_signs_fits_itself_and_nothing_else(text in "[a-z/.]{1,20}", other in "[a-z/.]{1,20}") {
        prop_assert!(Pattern::path(&text).unwrap().matches(&text));
        prop_assert_eq!(Pattern::deep(&text).unwrap().matches(&other), text == other);
        prop_assert!(Pattern::deep("**").unwrap().matches(&other));
    }
}

#[test]
#[ignore = "goes on for an hour"]
#[expect(clippy::disallowed_methods, reason = "whoever starts this says for how long")]
fn an_hour_of_texts_is_answered() {
    let seconds = std::env::var("DRYSTONE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3600);
    let (start, mut cases) = (Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let config = Config { cases: 4096, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&any_dockerfile(), |text| {
            read(&text);
            Ok(())
        });
        assert!(result.is_ok(), "{result:?}");
        cases += 4096;
    }
    eprintln!("{cases} texts in {:?}", start.elapsed());
}
