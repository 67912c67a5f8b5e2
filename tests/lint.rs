//! `lint` and `convert`, through the binary.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::{Finished, drystone, opencontrail, run};

const DOCKERFILE: &str = "FROM debian:bookworm AS Build\nRUN apt-get update\n";

fn in_directory(files: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    run(drystone().current_dir(directory.path()).args(arguments))
}

fn rules(finished: &Finished) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    document["findings"].as_array().unwrap().iter().map(|row| (text(&row["file"]), text(&row["name"]))).collect()
}

#[test]
fn warnings_are_told_with_their_lines_and_fail_only_when_asked_to() {
    let files = [("Dockerfile", DOCKERFILE)];
    let lenient = in_directory(&files, &["lint"]).success();
    assert!(lenient.stdout.contains("warning[DS101 StageNameCasing]"), "{}", lenient.stdout);
    assert!(lenient.stdout.contains("--> Dockerfile:1:25"), "{}", lenient.stdout);
    assert_eq!(lenient.stderr.trim(), "0 errors and 4 warnings in 1 file");
    in_directory(&files, &["lint", "--error-on-warning"]).failure(1, &["0 errors and 4 warnings", "--explain"]);
    let skipped =
        "lint Dockerfile --error-on-warning --skip DS101,UnpinnedBase --skip AptListsLeftBehind,AptUpdateAlone";
    in_directory(&files, &skipped.split(' ').collect::<Vec<_>>()).success();
    let strict = format!("# check=error=true\n{DOCKERFILE}");
    in_directory(&[("Dockerfile", &strict)], &["lint"]).failure(1, &["4 warnings"]);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let finished = in_directory(&[("x/Dockerfile", "FROM scratch\nRUNN x\n")], &["lint", "x"]).failure(1, &["1 error"]);
    assert!(finished.stdout.contains("error[DS001 InvalidSyntax]: unknown instruction `RUNN`"), "{}", finished.stdout);
    in_directory(&[("a", "b")], &["lint"]).failure(2, &["holds neither a family.yaml nor a Dockerfile"]);
    in_directory(&[], &["lint", "none"]).failure(2, &["cannot read `none`"]);
    in_directory(&[("Dockerfile", DOCKERFILE)], &["lint", "--skip", "DS1O1"]).failure(2, &["no rule `DS1O1`"]);
}

#[test]
fn a_family_is_looked_at_with_its_dockerfiles() {
    let family = "drystone: 1\nregistry: localhost:5100\nsources: {own: {type: apt, url: 'http://x.example/', flat: ./, trusted: true}}\n";
    let files = [
        ("family.yaml", family),
        ("base/image.yaml", "from: scratch\nentrypoint: x\n"),
        ("leaf/Dockerfile", "FROM base\nCOPY notes.tmp /\n"),
        ("leaf/.dockerignore", "*.tmp\n"),
    ];
    let found = rules(&in_directory(&files, &["lint", ".", "--format", "json"]).success());
    let expected = [
        ("./base/image.yaml", "ShellFormEntrypoint"),
        ("./family.yaml", "UnsignedSource"),
        ("leaf/Dockerfile", "CopyIgnoredFile"),
    ];
    // Without a tag of its own a family has the latest.
    let found: Vec<(&str, &str)> = found.iter().map(|(file, name)| (file.as_str(), name.as_str())).collect();
    assert!(expected.iter().all(|row| found.contains(row)), "{found:?}");
    assert!(!found.iter().any(|(_, name)| *name == "UnpinnedBase"), "{found:?}");
}

#[test]
fn what_is_wrong_with_a_dockerfile_of_a_family_is_said_once() {
    let files = [
        ("family.yaml", "drystone: 1\nregistry: localhost:5100\ntag: '1'\n"),
        ("leaf/Dockerfile", "FROM scratch\nRUNN x\n"),
    ];
    let finished = in_directory(&files, &["lint", "--format", "json"]).failure(1, &["1 error"]);
    assert_eq!(rules(&finished).len(), 1, "{}", finished.stdout);
}

#[test]
fn code_hosts_get_sarif_and_people_a_page() {
    let finished = in_directory(&[("Dockerfile", DOCKERFILE)], &["lint", "--format", "sarif"]).success();
    let document: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(document["version"], "2.1.0");
    let run_ = &document["runs"][0];
    let result = &run_["results"][0];
    let rule = &run_["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
    assert_eq!(rule["id"], result["ruleId"]);
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "Dockerfile");
    assert_eq!((place["region"]["startLine"].as_u64(), place["region"]["startColumn"].as_u64()), (Some(1), Some(6)));

    let page = run(drystone().args(["lint", "--explain", "maintainerdeprecated"])).success().stdout;
    assert!(page.starts_with("# DS108 MaintainerDeprecated\n"));
    run(drystone().args(["lint", "--explain", "MaintainerDeprecatd"]))
        .failure(2, &["did you mean `MaintainerDeprecated`?"]);
    assert!(run(drystone().args(["lint", "--rules"])).success().stdout.lines().count() > 40);
}

#[test]
fn the_family_of_the_repository_has_no_errors() {
    run(drystone().arg("lint").arg(opencontrail()).args(["--set", "CONTRAIL_REPO=http://packages.example/"])).success();
}

#[test]
fn a_converted_dockerfile_is_a_spec_that_a_plan_reads() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("leaf")).unwrap();
    fs::write(at("family.yaml"), "drystone: 1\nregistry: localhost:5100\ntag: '1'\n").unwrap();
    fs::write(at("leaf/entrypoint.sh"), "#!/bin/sh\n").unwrap();
    fs::write(
        at("leaf/Dockerfile"),
        "FROM scratch\nCOPY --chmod=0755 entrypoint.sh /\nENV A='$B'\nENTRYPOINT [\"/entrypoint.sh\"]\n",
    )
    .unwrap();
    let spec = at("leaf/image.yaml");
    let convert = |more: &[&Path]| run(drystone().arg("convert").arg(at("leaf/Dockerfile")).args(more));
    let said = convert(&[Path::new("-o"), &spec]).success();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    assert_eq!(convert(&[]).success().stdout, fs::read_to_string(&spec).unwrap());
    fs::remove_file(at("leaf/Dockerfile")).unwrap();
    run(drystone().arg("plan").arg(directory.path()).arg("--layout").arg(at("oci"))).success();

    let lost = [("Dockerfile", "FROM scratch\nRUN make\nCOPY *.conf /etc/\n")];
    let said = in_directory(&lost, &["convert"])
        .failure(1, &["Dockerfile:2:1: stays a command: `make`", "Dockerfile:3:6: not converted", "1 of its lines"]);
    assert_eq!(said.stdout, "from: scratch\nrun: [make]\n");
    in_directory(&[("Dockerfile", "FROM\n")], &["convert"]).failure(2, &["Dockerfile:1:1"]);
}
