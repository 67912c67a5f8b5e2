//! Dockerfiles as specs: the spec is read again, and means what the Dockerfile says.

use std::sync::Arc;

use spec::convert::{ConvertOptions, Converted, RemarkKind, convert};
use spec::dockerfile::parse;
use spec::{CommandLine, Family, FileContent, Image, SourceFile, Step, Variables, render};

const FAMILY: &str =
    "drystone: 1\nregistry: localhost:5100\ntag: '1'\nsources: {debian: {type: apt, suites: [bookworm], keyring: k}}\n";

fn converted(text: &str) -> Converted {
    let dockerfile = parse(&Arc::new(SourceFile::new("Dockerfile", text))).expect("the Dockerfile is right");
    let options = ConvertOptions { siblings: vec!["analytics".to_owned()], ..ConvertOptions::default() };
    convert(&dockerfile, &options).expect("it can be converted")
}

/// Reads what came out as an image of a family that has an image `analytics` too.
fn loaded(converted: &Converted) -> Image {
    let images = vec![
        ("analytics".to_owned(), SourceFile::new("analytics/image.yaml", "from: scratch")),
        ("one".to_owned(), SourceFile::new("one/image.yaml", converted.text.clone())),
    ];
    match Family::assemble(SourceFile::new("family.yaml", FAMILY), images, &Variables::new()) {
        Ok(family) => family.image("one").expect("it is there").clone(),
        Err(diagnostics) => panic!("{}\n{}", converted.text, render(&diagnostics, false)),
    }
}

fn remarks(converted: &Converted) -> Vec<String> {
    converted.remarks.iter().map(ToString::to_string).collect()
}

#[test]
fn the_seeds_images_become_specs() {
    let base = converted(
        "FROM ubuntu:14.04\nENV DEBIAN_FRONTEND noninteractive\n\
         RUN echo \"deb http://10.87.64.23/contrail-3.0-2668/ amd64/\" >> /etc/apt/sources.list\n\
         RUN apt-get update\nRUN apt-get install -y --force-yes contrail-utils python-contrail contrail-lib \\\n     \
         contrail-analytics\n\nCMD [\"/bin/sh\"]\n",
    );
    assert_eq!(
        base.text,
        "from: ubuntu:14.04\nrecommends: true\nsteps:\n  - run:\n      \
         - \"echo \\\"deb http://10.87.64.23/contrail-3.0-2668/ amd64/\\\" >> /etc/apt/sources.list\"\n  \
         - packages: [contrail-utils, python-contrail, contrail-lib, contrail-analytics]\n\
         env:\n  DEBIAN_FRONTEND: noninteractive\ncmd: [/bin/sh]\n"
    );
    assert_eq!(
        remarks(&base),
        ["Dockerfile:3:1: stays a command: the source of packages belongs under `sources:` of family.yaml"]
    );
    loaded(&base);

    let child = converted(
        "FROM analytics\nENV DEBIAN_FRONTEND noninteractive\n\nCOPY entrypoint.sh /\n\n\
         ENTRYPOINT [\"/entrypoint.sh\"]\n\nCMD [\"/usr/bin/python\",\"/usr/bin/contrail-analytics-api\",\"-c\",\
         \"/etc/contrail/contrail-analytics-api.conf\"]\nLABEL net.juniper.contrail=analytics\n\
         LABEL net.juniper.node=controller\n",
    );
    assert!(child.remarks.is_empty(), "{:?}", remarks(&child));
    let image = loaded(&child);
    assert_eq!(image.files().count(), 1);
    assert_eq!(image.config.labels.len(), 2);
    assert_eq!(
        child.text,
        "from: analytics\nfiles:\n  - source: entrypoint.sh\n    target: /\nenv:\n  DEBIAN_FRONTEND: noninteractive\n\
         entrypoint: [/entrypoint.sh]\ncmd:\n  - /usr/bin/python\n  - /usr/bin/contrail-analytics-api\n  - \"-c\"\n  \
         - /etc/contrail/contrail-analytics-api.conf\nlabels:\n  net.juniper.contrail: analytics\n  \
         net.juniper.node: controller\n"
    );
}

#[test]
fn every_instruction_that_a_spec_knows_is_in_it() {
    let all = converted(
        "ARG TAG=bookworm\nFROM debian:$TAG AS base\nARG VERSION=1.0\n\
         RUN apt-get update && apt-get install -y --no-install-recommends curl ca-certificates && rm -rf /var/lib/apt/lists/*\n\
         FROM base\nWORKDIR /srv/app\nCOPY --chown=1000:1000 --chmod=755 run.sh conf/ ./\nADD site.tar.gz /var/www/\n\
         ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://files.example/x /opt/x\n\
         COPY <<EOF /etc/motd\nversion $VERSION costs $\nEOF\n\
         RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=key make VERSION=$VERSION > /dev/null\n\
         ENV PRICE='$5' PATH=/opt/bin:$PATH\nUSER 1000:1000\nRUN [\"./run.sh\", \"--check\"]\nEXPOSE 80 53/udp\n\
         VOLUME [\"/data\"]\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=90s --retries=2 CMD curl -f localhost\n\
         SHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT exec run.sh\nCMD [\"a b\", \"80\"]\nLABEL \"a.b\"=\"c $VERSION\"\n\
         ONBUILD RUN make child\n",
    );
    let image = loaded(&all);
    assert!(!all.loses(), "{:?}", remarks(&all));
    assert_eq!(image.packages().map(|found| found.to_string()).collect::<Vec<_>>(), ["curl", "ca-certificates"]);
    let files: Vec<_> = image.files().collect();
    assert_eq!(files.len(), 6);
    assert_eq!(files[1].target.as_str(), "/srv/app");
    assert_eq!(files[1].owner.as_ref().unwrap().to_string(), "1000:1000");
    assert!(matches!(&files[3].content, FileContent::Source { unpack: true, .. }));
    assert!(matches!(&files[5].content, FileContent::Text(text) if text.as_str() == "version 1.0 costs $\n"));
    let runs: Vec<_> = image
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Run(command) => Some(command),
            _ => None,
        })
        .collect();
    assert_eq!(runs[0].mounts.len(), 2);
    assert_eq!(runs[0].env[0].value.as_str(), "1.0");
    assert_eq!(runs[1].user.as_ref().unwrap().to_string(), "1000:1000");
    assert_eq!(runs[1].line.value, CommandLine::Exec(vec!["./run.sh".into(), "--check".into()]));
    let values: Vec<&str> = image.config.env.iter().map(|entry| entry.value.as_str()).collect();
    assert!(values.contains(&"$5"), "{values:?}");
    assert_eq!(image.config.workdir.as_ref().unwrap().as_str(), "/srv/app");
    assert_eq!(image.config.expose.len(), 2);
    assert_eq!(
        image.config.entrypoint.as_ref().unwrap().value,
        CommandLine::Exec(["/bin/bash", "-c", "exec run.sh"].map(str::to_owned).to_vec())
    );
    assert_eq!(image.config.cmd.as_ref().unwrap().value, CommandLine::Exec(vec!["a b".into(), "80".into()]));
    assert_eq!(image.config.labels[0].value.as_str(), "c 1.0");
    assert_eq!(image.on_build.len(), 1);
}

#[test]
fn what_a_spec_cannot_say_is_told_with_its_line() {
    let cases = [
        (
            "FROM scratch AS a\nFROM scratch\nCOPY --from=a /x /y\n",
            "Dockerfile:3:1: not converted: files of `a` are not files of the family",
        ),
        (
            "FROM scratch\nCOPY *.conf /etc/\n",
            "Dockerfile:2:6: not converted: a spec has no patterns: name the files that `*.conf` means",
        ),
        ("FROM scratch\nCOPY --parents a/b /\n", "Dockerfile:2:1: not converted: a spec has no `--parents`"),
        ("FROM scratch\nCOPY --chmod=u+x a /\n", "Dockerfile:2:14: not converted: `u+x` is no mode in octal digits"),
        ("FROM scratch\nCOPY ../a /\n", "Dockerfile:2:6: not converted: `../a` is outside of the context"),
        (
            "FROM scratch\nADD https://files.example/r.git?ref=1 /\nADD git@files.example:r /\n",
            "Dockerfile:3:5: not converted: a spec takes nothing from git",
        ),
        ("FROM scratch\nRUN --mount=type=ssh true\n", "Dockerfile:2:13: not converted: a spec has no agents of SSH"),
        ("FROM scratch\nONBUILD COPY a /\n", "Dockerfile:2:1: not converted: in a spec only commands wait for a child"),
        (
            "FROM scratch\nRUN <<EOF\n#!/usr/bin/perl\nprint 1\nEOF\n",
            "Dockerfile:2:1: not converted: a script with an interpreter of its own is no command of a spec; make a file of it",
        ),
    ];
    for (text, expected) in cases {
        let converted = converted(text);
        assert!(converted.loses(), "{text}");
        assert!(remarks(&converted).contains(&expected.to_owned()), "{text}: {:?}", remarks(&converted));
        loaded(&converted);
    }
}

#[test]
fn commands_that_stay_are_told_and_packages_leave_them() {
    let text = "FROM scratch\n\
                RUN apt-get update && apt-get install -y --no-install-recommends git && useradd app && rm -rf /var/lib/apt/lists/*\n\
                RUN git clone https://files.example/x /x\n";
    let converted = converted(text);
    assert_eq!(
        converted.text,
        "from: scratch\npackages: [git]\nrun:\n  - \"useradd app\"\n  - command: \"git clone https://files.example/x /x\"\n    network: host\n"
    );
    assert_eq!(converted.remarks.iter().filter(|remark| remark.kind == RemarkKind::StaysRun).count(), 2);
    loaded(&converted);
}

#[test]
fn another_stage_and_other_arguments_can_be_asked_for() {
    let text = "ARG V=1\nFROM scratch AS a\nARG V\nLABEL v=$V\nFROM scratch AS b\n";
    let dockerfile = parse(&Arc::new(SourceFile::new("Dockerfile", text))).unwrap();
    let mut options = ConvertOptions { target: Some("a".into()), ..ConvertOptions::default() };
    options.arguments.insert("V".into(), "2".into());
    assert_eq!(convert(&dockerfile, &options).unwrap().text, "from: scratch\nlabels:\n  v: \"2\"\n");
    options.target = Some("c".into());
    assert!(convert(&dockerfile, &options).is_err());
}

#[test]
fn a_command_for_another_entry_point_goes_with_it() {
    let text = "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nENTRYPOINT [\"e\"]\n";
    assert_eq!(converted(text).text, "from: scratch\nentrypoint: [e]\n");
    let text = "FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"e\"]\n";
    assert_eq!(converted(text).text, "from: scratch\nentrypoint: [e]\ncmd: [a]\n");
}

#[test]
fn whatever_texts_there_are_they_are_read_again_as_they_were() {
    let texts = [
        "yes",
        "1.0",
        "0x10",
        "null",
        "~",
        "",
        " a",
        "a ",
        "a: b",
        "- a",
        "#a",
        "a #b",
        "'a'",
        "\\\"a\\\"",
        "${A}",
        "$$",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a`",
        "{a}",
        "[a]",
        "a,b",
        "é\u{2028}x",
        "a\tb",
        "|",
        ">",
        "?",
        "2020-01-01",
        "a\\\\b",
    ];
    for text in texts {
        let dockerfile = format!("FROM scratch\nLABEL a='{text}'\nCMD [{}]\n", serde_json_string(text));
        if text.contains('\'') {
            continue;
        }
        let converted = converted(&dockerfile);
        let image = loaded(&converted);
        assert_eq!(image.config.labels[0].value.as_str(), text, "{}", converted.text);
        assert_eq!(image.config.cmd.unwrap().value, CommandLine::Exec(vec![text.to_owned()]), "{}", converted.text);
    }
}

fn serde_json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}
