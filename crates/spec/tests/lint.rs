//! What the rules find, and what they leave alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use spec::dockerfile::IgnoreRules;
use spec::lint::{self, RULES, Report, Rule, Selection, Severity};
use spec::{Family, SourceFile, Variables};

fn file(text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile::new("Dockerfile", text))
}

fn look(text: &str) -> Report {
    lint::dockerfile(&file(text), None, &[], &Selection::default())
}

fn names(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.rule.name).collect()
}

/// Looks at the blocks of one section of a page: a Dockerfile with perhaps its `.dockerignore`, a `family.yaml`, or an
/// `image.yaml`.
fn look_at_blocks(section: &str) -> Report {
    let blocks: BTreeMap<&str, &str> = section
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').expect("a block begins with its language"))
        .collect();
    let all = Selection::new([], ["all"]).expect("all is a name");
    if let Some(text) = blocks.get("dockerfile") {
        let ignore =
            blocks.get("dockerignore").map(|text| IgnoreRules::parse(&file(text)).expect("the patterns are right"));
        return lint::dockerfile(&file(text), ignore.as_ref(), &[], &all);
    }
    let yaml = blocks["yaml"];
    let family =
        "drystone: 1\nregistry: localhost:5100\ntag: '1'\nsources: {d: {type: apt, suites: [s], keyring: k}}\n";
    let (family, images) = match yaml.starts_with("from:") {
        true => (family, vec![("one".to_owned(), SourceFile::new("one/image.yaml", yaml))]),
        false => (yaml, Vec::new()),
    };
    let family = Family::assemble(SourceFile::new("family.yaml", family), images, &Variables::new())
        .expect("the specs are right");
    lint::family(&family, &all)
}

#[test]
fn every_rule_has_a_page_whose_examples_are_true() {
    for rule in RULES {
        let heading = format!("# {} {}\n\n{}\n\n", rule.code(), rule.name, rule.summary);
        assert!(rule.page.starts_with(&heading), "the page of {} begins with its heading and summary", rule.name);
        let (before, instead) = rule.page.split_once("Instead:").expect("a page says what to write instead");
        let found = before.split_once("Found, as ").expect("a page says what is found").1;
        assert!(names(&look_at_blocks(found)).contains(&rule.name), "the example of {} is found", rule.name);
        let left = names(&look_at_blocks(instead));
        assert!(!left.contains(&rule.name), "what {} recommends is not found", rule.name);
    }
}

#[test]
fn every_page_belongs_to_a_rule_and_the_index_names_them_all() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    for rule in RULES {
        let row = format!("| {} | [{}]({}.md) | {} |\n", rule.code(), rule.name, rule.name, rule.summary);
        assert!(index.contains(&row), "the index lacks: {row}");
    }
    let pages = fs::read_dir(&directory).unwrap().count() - 1;
    assert_eq!(pages, RULES.len());
}

#[test]
fn numbers_and_names_are_unique_and_in_order() {
    assert!(RULES.windows(2).all(|pair| pair[0].number < pair[1].number));
    for rule in RULES {
        assert_eq!(Rule::find(&rule.name.to_uppercase()).unwrap().number, rule.number);
        assert_eq!(Rule::find(&rule.code().to_lowercase()).unwrap().number, rule.number);
    }
    assert!(Rule::find("DS999").is_none());
}

#[test]
fn the_dockerfiles_of_the_seed_are_looked_at() {
    let base = look(
        "FROM ubuntu:14.04\nENV DEBIAN_FRONTEND noninteractive\n\
         RUN echo \"deb http://10.87.64.23/contrail-3.0-2668/ amd64/\" >> /etc/apt/sources.list\n\
         RUN apt-get update\nRUN apt-get install -y --force-yes contrail-utils python-contrail contrail-lib \\\n     \
         contrail-analytics\n\nCMD [\"/bin/sh\"]\n",
    );
    assert_eq!(
        names(&base),
        [
            "UnpinnedBase",
            "LegacyKeyValueFormat",
            "AptListsLeftBehind",
            "AptUpdateAlone",
            "AptRecommends",
            "UnverifiedPackages"
        ]
    );
    let child = "FROM analytics\nCOPY entrypoint.sh /\nENTRYPOINT [\"/entrypoint.sh\"]\n";
    let siblings = ["analytics".to_owned()];
    assert_eq!(names(&lint::dockerfile(&file(child), None, &siblings, &Selection::default())), [""; 0]);
    assert_eq!(names(&look(child)), ["UnpinnedBase"]);
}

#[test]
fn a_good_dockerfile_is_left_alone() {
    let text = format!(
        "# syntax=docker/dockerfile:1\nARG GO=1.22\nFROM --platform=$BUILDPLATFORM golang:${{GO}}@sha256:{0} AS build\n\
         ARG TARGETOS TARGETARCH\nWORKDIR /src\nCOPY go.mod go.sum ./\n\
         RUN --mount=type=cache,target=/root/.cache GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /app\n\
         FROM build AS test\nWORKDIR sub\nRUN go test ./... && rm -rf /tmp/x\n\
         FROM debian:bookworm@sha256:{0}\nENV PATH=/opt/bin:$PATH LANG=C.UTF-8\n\
         RUN apt-get update \\\n && apt-get install -y --no-install-recommends ca-certificates \\\n \
         && rm -rf /var/lib/apt/lists/*\nCOPY --from=build /app /app\nUSER 1000:1000\nEXPOSE 8080/tcp\n\
         HEALTHCHECK --interval=30s CMD [\"/app\", \"health\"]\nENTRYPOINT [\"/app\"]\nCMD [\"serve\"]\n",
        "0".repeat(64)
    );
    let report = look(&text);
    let said: Vec<String> = report.findings.iter().map(|finding| finding.render(false)).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
}

#[test]
fn rules_are_skipped_and_made_strict_by_the_file_and_by_the_caller() {
    let text = "FROM scratch AS Build\nMAINTAINER x\n";
    assert_eq!(names(&look(text)), ["StageNameCasing", "MaintainerDeprecated"]);
    assert_eq!(names(&look(&format!("# check=skip=StageNameCasing\n{text}"))), ["MaintainerDeprecated"]);
    assert_eq!(names(&look(&format!("# check=skip=ds101,DS108\n{text}"))), [""; 0]);
    assert_eq!(names(&look(&format!("# check=skip=all\n{text}"))), [""; 0]);
    let skipping = Selection::new(["MaintainerDeprecated"], []).unwrap();
    assert_eq!(names(&lint::dockerfile(&file(text), None, &[], &skipping)), ["StageNameCasing"]);
    assert!(!look(text).fails(false));
    assert!(look(text).fails(true));
    assert!(look(&format!("# check=error=true\n{text}")).fails(false));
    assert!(!look("# check=error=true\nFROM scratch\n").fails(false), "without findings there is nothing to fail");
    let error = Selection::new(["StageNameCasign"], []).unwrap_err().to_string();
    assert_eq!(error, "there is no rule `StageNameCasign`; did you mean `StageNameCasing`?");
}

#[test]
fn what_cannot_be_read_is_an_error_and_the_rest_is_still_looked_at() {
    let report = look("# check=skip=all\nFROM scratch AS Build\nRUNN x\nFROM scratch AS build\nMAINTAINER x\n");
    assert_eq!(names(&report), ["InvalidSyntax"]);
    let report = look("FROM scratch AS one\nRUNN x\nFROM scratch AS one\nMAINTAINER x\n");
    assert_eq!(names(&report), ["InvalidSyntax", "DuplicateStageName", "MaintainerDeprecated"]);
    assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (2, 1));
    assert!(report.fails(false));
    assert_eq!(names(&look("")), ["InvalidSyntax"]);
}

#[test]
fn findings_are_drawn_with_their_rule_and_line() {
    let report = look("FROM scratch\nRUN apt-get install -y --no-install-recommends x && \\\n    apt-get update\n");
    let expected = "\
warning[DS202 AptListsLeftBehind]: the lists of packages stay in the layer
 --> Dockerfile:2:5
  |
2 | RUN apt-get install -y --no-install-recommends x && \\
  |     ^^^^^^^ expected `rm -rf /var/lib/apt/lists/*` at the end of this step";
    assert_eq!(report.findings[0].render(false), expected);
}

#[test]
fn rules_know_what_they_do_not_mean() {
    let cases: &[(&str, &[&str])] = &[
        ("FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nCMD exec program\n", &[]),
        ("FROM scratch\nARG PUBLIC_KEY\nENV MONKEY=1\n", &[]),
        ("FROM scratch\nENV AUTH_TOKEN=x\n", &["SecretsUsedInArgOrEnv"]),
        ("FROM scratch\nRUN rm -rf /x && make\n", &[]),
        ("FROM scratch\nRUN set -e; rm -rf /x; rmdir /y\n", &["LayerOnlyDeletes"]),
        ("FROM scratch\nRUN [\"rm\", \"-rf\", \"/x\"]\n", &["LayerOnlyDeletes"]),
        ("FROM scratch\nRUN apt-get clean && rm -rf /var/cache/apt\n", &["LayerOnlyDeletes"]),
        (
            "FROM scratch\nRUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get -y -o APT::Install-Recommends=0 install x\n",
            &[],
        ),
        (
            "FROM scratch\nRUN <<EOF\napt-get update\napt-get install -y --no-install-recommends x\nrm -rf /var/lib/apt/lists/*\nEOF\n",
            &[],
        ),
        ("FROM scratch\nRUN echo 'apt-get update; curl x | sh'\n", &[]),
        ("FROM scratch\nRUN curl -fsSL https://files.example/x | sudo bash -\n", &["PipeToShell", "SudoInBuild"]),
        ("FROM scratch\nONBUILD RUN rm /x\n", &["LayerOnlyDeletes"]),
        ("FROM scratch\nCOPY --from=x id_rsa /\n", &[]),
        ("FROM scratch\nCOPY id_rsa.pub /\n", &[]),
        ("FROM scratch\nADD https://files.example/repo.git /src\nADD git@files.example:repo.git /src\n", &[]),
        ("FROM scratch\nADD *.tar /\n", &[]),
        ("from scratch\nrun make\nUser 1\n", &["ConsistentInstructionCasing"]),
        ("FROM scratch\nARG A\nWORKDIR /x$A${B:-}\nCOPY $C /\n", &["UndefinedVar"]),
        ("FROM scratch AS a\nENV X=1\nFROM a\nWORKDIR /$X\n", &[]),
        ("FROM scratch AS a\nFROM scratch\nRUN --mount=type=bind,from=a,target=/$X make\n", &["UndefinedVar"]),
        ("FROM scratch\nEXPOSE 80 ${PORT:-443}/tcp\n", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(names(&look(text)), *expected, "{text}");
    }
}
