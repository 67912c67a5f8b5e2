//! What docker's, buildah's and kaniko's users type.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::with_base;
use crate::support::family::{Bench, read_json};
use crate::support::program::{Background, eventually, free_port, run};

pub fn context(bench: &Bench, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = bench.at("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn config(bench: &Bench, image: &str) -> Value {
    read_json(&bench.blob(bench.manifest(image)["config"]["digest"].as_str().unwrap()))
}

/// A build's steps with whether each was cached.
pub fn steps(bench: &Bench, more: &[&str]) -> Vec<(String, bool)> {
    let build = ["build", "-t", "test", "--metadata-file", "metadata.json", "context"];
    run(bench.drystone().args(build).args(more)).success();
    let metadata = read_json(&bench.at("metadata.json"));
    let step = |step: &Value| (step["kind"].as_str().unwrap().to_owned(), step["cached"].as_bool().unwrap());
    metadata["images"][0]["steps"].as_array().unwrap().iter().map(step).collect()
}

#[test]
fn names_labels_annotations_and_ids_are_as_asked_for() {
    let bench = with_base();
    context(&bench, &[("other/My.Dockerfile", "FROM base AS a\nARG X\nLABEL x=$X from=file\nFROM a\nRUN false\n")]);
    let flags = [
        "build",
        "-f",
        "context/other/My.Dockerfile",
        "-t",
        "one",
        "-t",
        "registry.example/team/two:v2",
        "--target",
        "a",
        "--build-arg",
        "X=7",
        "--label",
        "from=flag",
        "--annotation",
        "note=here",
        "--iidfile",
        "id",
        "-q",
        "context",
    ];
    let built = run(bench.drystone().args(flags)).success();
    let id = fs::read_to_string(bench.at("id")).unwrap();
    assert_eq!(built.stdout.trim(), id);
    assert_eq!(bench.manifest("one"), bench.manifest("two"));
    assert_eq!(bench.manifest("one")["config"]["digest"], id.as_str());
    assert_eq!(bench.manifest("one")["annotations"]["note"], "here");
    assert_eq!(config(&bench, "one")["config"]["Labels"], json!({"x": "7", "from": "flag"}));
    let listed = run(bench.drystone().arg("images")).success().stdout;
    assert!(listed.contains("localhost/one") && listed.contains("registry.example/team/two"), "{listed}");
}

#[test]
fn steps_are_kept_by_content_owners_and_modes_and_not_by_times() {
    let bench = with_base();
    context(
        &bench,
        &[
            ("Dockerfile", "FROM base\nCOPY a /a\nRUN cat /a > /b\nENV X=1\nRUN echo $X > /c\n"),
            ("a", "one"),
            ("unused", "x"),
        ],
    );
    let cached = |more: &[&str]| steps(&bench, more).iter().map(|step| step.1).collect::<Vec<_>>();
    assert_eq!(cached(&[]), [false, false, false, false]);
    assert_eq!(cached(&[]), [true, true, true, true]);
    let first = bench.digests();
    context(&bench, &[("a", "one"), ("unused", "y")]);
    assert_eq!(cached(&[]), [true, true, true, true], "a new time, and a file that nobody copies");
    assert_eq!(cached(&["--no-cache"])[..3], [false, false, false]);
    assert_eq!(bench.digests(), first, "the same input gives the same bytes");
    context(&bench, &[("a", "two")]);
    assert_eq!(cached(&[]), [false, false, false, false]);
    context(&bench, &[("Dockerfile", "FROM base\nCOPY a /a\nRUN cat /a > /b\nENV X=2\nRUN echo $X > /c\n")]);
    assert_eq!(cached(&[]), [true, true, false, false]);
}

#[test]
fn a_context_may_be_a_tar_or_nothing_but_a_dockerfile() {
    let bench = with_base();
    context(&bench, &[("Dockerfile", "FROM base\nCOPY sub/a /a\n"), ("sub/a", "x")]);
    run(bench.drystone().args(["build", "-t", "plain", "context"])).success();
    let tar = bench.at("context.tar.gz");
    run(Command::new("tar").args(["-czf", tar.to_str().unwrap(), "-C", "context", "."]).current_dir(bench.at("")))
        .success();
    run(bench.drystone().args(["build", "-t", "packed", "context.tar.gz"])).success();
    let piped = |name: &str, input: &std::path::Path| {
        let mut command = bench.drystone();
        command.args(["build", "-t", name, "-"]).stdin(fs::File::open(input).unwrap());
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    piped("piped", &tar);
    // More than is read to find out what it is.
    let long = bench.at("context.tar");
    run(Command::new("tar").args(["-cf", long.to_str().unwrap(), "-C", "context", "."]).current_dir(bench.at("")))
        .success();
    piped("long", &long);
    for name in ["packed", "piped", "long"] {
        assert_eq!(bench.manifest("plain"), bench.manifest(name), "{name}");
    }
    fs::write(bench.at("lone"), "FROM base\nENV LONE=yes\n").unwrap();
    piped("lone", &bench.at("lone"));
    assert!(config(&bench, "lone")["config"]["Env"].as_array().unwrap().contains(&json!("LONE=yes")));
    fs::write(bench.at("lone"), "FROM base\nCOPY a /\n").unwrap();
    let mut command = bench.drystone();
    command.args(["build", "-t", "x", "-"]).stdin(fs::File::open(bench.at("lone")).unwrap());
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no context"), "{output:?}");
}

#[test]
fn commands_see_mounts_secrets_and_files_of_other_stages_which_leave_no_trace() {
    let bench = with_base();
    let dockerfile = "\
FROM base AS other
RUN mkdir /give && echo given > /give/file
FROM base
RUN --mount=type=bind,target=/context --mount=type=bind,from=other,source=/give,target=/give \\
    cat /context/a /give/file > /seen
RUN --mount=type=cache,target=/cache,id=shared echo one >> /cache/log && cp /cache/log /first
RUN --mount=type=cache,target=/again,id=shared,sharing=locked echo two >> /again/log && cp /again/log /second
RUN --mount=type=tmpfs,target=/scratch echo x > /scratch/x
RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /size
RUN --mount=type=secret,id=token,target=/etc/token,env=TOKEN test \"$TOKEN\" = \"$(cat /etc/token)\" && echo $TOKEN
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
RUN --network=none ! ip route | grep default
RUN <<EOF
echo heredoc > /heredoc
EOF
RUN <<SCRIPT
#!/bin/busybox sh
echo \"script $0\" > /script
SCRIPT
COPY <<ONE <<\"TWO\" /texts/
one $HOME
ONE
two $HOME
TWO
";
    context(&bench, &[("Dockerfile", dockerfile), ("a", "context\n")]);
    fs::write(bench.at("token"), "hunter2hunter2").unwrap();
    let built = run(bench.drystone().args(["build", "-v", "-t", "test", "--secret", "id=token,src=token", "context"]));
    let built = built.success();
    assert!(built.stderr.contains("***") && !built.stderr.contains("hunter2"), "{}", built.stderr);
    for (path, expected) in [
        ("seen", "context\ngiven\n"),
        ("first", "one\n"),
        ("second", "one\ntwo\n"),
        ("size", "14\n"),
        ("heredoc", "heredoc\n"),
        ("texts/TWO", "two $HOME\n"),
        ("texts/ONE", "one \n"),
    ] {
        assert_eq!(bench.file("test", path).as_deref(), Some(expected), "{path}");
    }
    let listing = bench.listing("test");
    for trace in ["scratch", "context", "give", "cache", "again", "run/secrets", "etc/token"] {
        assert!(
            !listing.lines().any(|line| line.trim_end_matches('/').ends_with(&format!(" {trace}"))),
            "{trace}:\n{listing}"
        );
    }
}

#[test]
fn kanikos_flags_push_to_a_registry_and_write_its_files() {
    let bench = with_base();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let registry = Bench::new();
    let _serving = Background(registry.drystone().args(["serve", "--listen", &address]).spawn().unwrap());
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    context(&bench, &[("Dockerfile", "FROM base\nARG X\nRUN echo $X > /x\n")]);
    let destination = format!("{address}/team/app:1");
    let flags = [
        "executor",
        "--context",
        "dir://context",
        "--dockerfile",
        "Dockerfile",
        "--destination",
        &destination,
        "--cache=true",
        "--build-arg",
        "X=1",
        "--digest-file",
        "digest",
        "--tar-path",
        "app.tar",
        "--oci-layout-path",
        "app-oci",
        "--single-snapshot",
        "--reproducible",
        "--insecure",
        "--skip-tls-verify",
    ];
    run(bench.drystone().args(flags)).success();
    let digest = fs::read_to_string(bench.at("digest")).unwrap();
    assert!(
        run(registry.drystone().arg("images").arg("--format").arg("json")).success().stdout.contains(digest.trim())
    );
    assert!(bench.at("app.tar").is_file() && bench.at("app-oci/index.json").is_file());
    run(bench.drystone().args(["executor", "--context", "context"])).failure(2, &["--destination", "--no-push"]);
    run(bench.drystone().args(["executor", "--context", "context", "--no-push"])).success();
    // A runner that has built nothing takes the steps from the repository for them.
    let cache = format!("{address}/team/cache");
    let with_cache = ["--no-push", "--cache=true", "--cache-repo", &cache, "--metadata-file", "metadata.json"];
    let built_with = |more: &[&str]| {
        let mut build = bench.drystone();
        build.args(["executor", "--context", "context", "--build-arg", "X=2"]).args(with_cache).args(more);
        run(&mut build).success();
        let metadata = read_json(&bench.at("metadata.json"));
        let steps = metadata["images"][0]["steps"].as_array().unwrap().clone();
        steps.iter().find(|step| step["kind"] == "run").unwrap()["cached"].clone()
    };
    assert_eq!(built_with(&["--no-push-cache"]), false);
    assert_eq!(built_with(&["--cache-dir", "second"]), false, "nothing was stored");
    assert_eq!(built_with(&["--cache-dir", "third"]), true, "the second has stored it");
    // docker's way to push, from another layout: the base comes from the registry.
    run(bench.drystone().args(["build", "-t", &destination, "--push", "context"])).success();
}

#[test]
fn a_linked_copy_is_not_made_again_over_another_base() {
    let bench = with_base();
    let with_version = |version: &str| {
        let below = format!("FROM base\nRUN echo {version} > /version && ln -s /elsewhere /link\n");
        let dockerfile =
            format!("{below}COPY --link --chown=7:8 a /link/a\nADD --link a /plain\nRUN cat /link/a /plain > /seen\n");
        context(&bench, &[("Dockerfile", &dockerfile), ("a", "one")]);
    };
    let kinds = |steps: Vec<(String, bool)>| steps.into_iter().map(|step| step.1).collect::<Vec<_>>();
    with_version("1");
    // The last step is the configuration.
    assert_eq!(kinds(steps(&bench, &[])), [false, false, false, false, false]);
    let layers = |place: usize| bench.manifest("test")["layers"].as_array().unwrap()[place].clone();
    let count = bench.manifest("test")["layers"].as_array().unwrap().len();
    let linked = [layers(count - 3), layers(count - 2)];
    with_version("2");
    assert_eq!(
        kinds(steps(&bench, &[])),
        [false, true, true, false, false],
        "the base is another one, and what is on both"
    );
    assert_eq!([layers(count - 3), layers(count - 2)], linked);
    // A link on the way is not followed: a directory takes its place.
    assert!(bench.file("test", "link/a").is_some() && bench.file("test", "elsewhere/a").is_none());
    with_version("2");
    context(&bench, &[("a", "two")]);
    assert_eq!(kinds(steps(&bench, &[])), [true, false, false, false, false]);
}

#[test]
fn caches_begin_with_files_of_a_stage_and_sizes_and_owners_of_mounts_are_as_written() {
    let bench = with_base();
    fs::write(bench.at("token"), "secret-value").unwrap();
    let dockerfile = "\
FROM base AS seed
RUN mkdir -p /seed/sub && echo planted > /seed/sub/file
FROM base
RUN --mount=type=cache,target=/c,from=seed,source=/seed cp /c/sub/file /first && rm /c/sub/file
RUN --mount=type=cache,target=/c,from=seed,source=/seed test ! -e /c/sub/file && echo kept > /second
RUN --mount=type=tmpfs,target=/m,size=1m ! dd if=/dev/zero of=/m/x bs=64k count=32 2>/dev/null
RUN --mount=type=tmpfs,target=/m,size=4m dd if=/dev/zero of=/m/x bs=64k count=32 2>/dev/null
RUN --mount=type=secret,id=token test \"$(stat -c '%a %u %g' /run/secrets/token)\" = '400 0 0'
RUN --mount=type=secret,id=token,mode=0444,uid=7,gid=8 test \"$(stat -c '%a %u %g' /run/secrets/token)\" = '444 7 8'
RUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\" && test ! -e /run/secrets/token
RUN --security=sandbox true
";
    context(&bench, &[("Dockerfile", dockerfile)]);
    run(bench.drystone().args(["build", "-t", "test", "--secret", "id=token,src=token", "context"])).success();
    assert_eq!(bench.file("test", "first").as_deref(), Some("planted\n"));
    assert_eq!(bench.file("test", "second").as_deref(), Some("kept\n"));
}

#[test]
fn what_is_set_for_another_builder_is_kept_to() {
    let bench = with_base();
    context(&bench, &[("Dockerfile", "# check=error=true\nfrom base AS x\nRUN true\n")]);
    let built = run(bench.drystone().args(["build", "-t", "test", "context"]));
    built.failure(2, &["Dockerfile:2:1", "check=error=true"]);
    context(&bench, &[("Dockerfile", "# check=error=true\nFROM base\nRUN echo x > /x\n")]);
    let date = ["--build-arg", "SOURCE_DATE_EPOCH=86400", "--build-arg", "BUILDKIT_INLINE_CACHE=1"];
    let built = run(bench.drystone().args(["build", "-t", "test", "context"]).args(date)).success();
    assert!(!built.stderr.contains("no ARG"), "{}", built.stderr);
    assert_eq!(config(&bench, "test")["created"], "1970-01-02T00:00:00Z");
}
