//! `build --output`: layouts and archives beside the layout, read by other people's tools.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::docker::Docker;
use crate::support::family::{Bench, debs, walk};
use crate::support::program::{run, tool};

fn bench() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench
}

/// What skopeo says of an image.
fn inspected(image: &str) -> Value {
    serde_json::from_str(&tool("skopeo", ["inspect", image])).unwrap()
}

#[test]
fn archives_of_one_image_are_read_by_skopeo_and_are_the_same_bytes_each_time() {
    let bench = bench();
    let outputs = [
        "--output=type=oci-archive,dest=app.tar",
        "--output=type=docker-archive,dest=app.docker.tar",
        "--output=type=oci,dest=elsewhere",
    ];
    bench.build(&[&["app"][..], &outputs].concat()).success();
    let first: Vec<Vec<u8>> = ["app.tar", "app.docker.tar"].map(|file| fs::read(bench.at(file)).unwrap()).into();
    bench.build(&["app", "--output", "type=oci-archive,dest=app.tar"]).success();
    assert!(fs::read(bench.at("app.tar")).unwrap() == first[0], "the same image gave another archive");
    let digest =
        bench.digests().lines().find_map(|line| line.strip_prefix("localhost:5100/app:v1 ").map(str::to_owned));
    let at = |path: &str| bench.at(path).display().to_string();
    for source in [format!("oci-archive:{}", at("app.tar")), format!("oci:{}", at("elsewhere"))] {
        let found = inspected(&source);
        assert_eq!(found["Digest"].as_str(), digest.as_deref(), "{source}");
        assert_eq!(found["Labels"]["role"], "app");
    }
    assert_eq!(inspected(&format!("docker-archive:{}", at("app.docker.tar")))["Labels"]["role"], "app");
    // A layer is stored once, whatever layout it is in.
    for blob in walk(&bench.at("elsewhere/blobs")) {
        assert!(fs::metadata(&blob).unwrap().nlink() > 1, "{}", blob.display());
    }
    assert!(walk(&bench.at("")).iter().all(|path| !path.file_name().unwrap().to_string_lossy().starts_with(".tmp")));
}

#[test]
fn docker_loads_a_family_from_standard_output() {
    let bench = bench();
    let docker = Docker::start();
    for compression in ["gzip", "zstd"] {
        let mut build = bench.drystone();
        build.args(["build", "family", "--tag", compression, "--compression", compression]);
        build.args(["--output", "type=docker-archive,dest=-"]);
        let archive = fs::File::create(bench.at("family.tar")).unwrap();
        let built = build.stdout(archive).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        docker.run(["load", "--input", bench.at("family.tar").to_str().unwrap()]).success();
        for image in ["base", "app", "worker"] {
            let name = format!("localhost:5100/{image}:{compression}");
            let found: Value = serde_json::from_str(&docker.run(["inspect", &name]).success().stdout).unwrap();
            let config = bench.manifest_of(&name)["config"]["digest"].clone();
            assert_eq!(found[0]["Id"], config, "{name}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is_built() {
    let bench = bench();
    fs::create_dir(bench.at("directory")).unwrap();
    fs::write(bench.at("file"), "").unwrap();
    for (outputs, expected) in [
        (&["type=zip,dest=x"][..], "there are local and tar, for the files of an image, and oci (a directory)"),
        (&["type=local"], "`dest` is missing"),
        (&["type=local,dest=-"], "`local` is a directory"),
        (&["type=local,dest=file"], "it is a file, and the image's files go into a directory"),
        (&["type=tar,dest=directory"], "it is a directory"),
        (&["elsewhere"], "take the files of one image, and 3 were asked for"),
        (&["-"], "take the files of one image, and 3 were asked for"),
        (&["x", "type=oci,dest=x"], "more than one --output"),
        (&["-", "type=docker-archive,dest=-"], "only one --output"),
        (&["type=oci,dest=-"], "a layout is a directory"),
        (&["type=oci-archive"], "`dest` is missing"),
        (&["type=oci-archive,dest=directory"], "it is a directory"),
        (&["type=oci-archive,dest=no/such/file.tar"], "its directory does not exist"),
        (&["type=oci-archive,dest=x", "type=docker-archive,dest=x"], "more than one --output"),
        (&["type=oci-archive,dest=-", "type=docker-archive,dest=-"], "only one --output"),
    ] {
        let arguments: Vec<&str> = outputs.iter().flat_map(|output| ["--output", output]).collect();
        bench.build(&arguments).failure(2, &[expected]);
    }
    bench.build(&["--platform", "amd64"]).failure(2, &["`amd64` is not a platform", "linux/amd64"]);
    assert_eq!(bench.digests(), "");
    bench.spec("base/image.yaml", "from: scratch\npackages: [hello]\nbuild_only: true\n");
    bench.build(&["base", "--output", "type=oci-archive,dest=x"]).failure(1, &["only parents for others"]);
}

#[test]
fn a_damaged_layer_leaves_the_archive_that_was_there() {
    let bench = bench();
    bench.build(&["--output", "type=oci-archive,dest=family.tar"]).success();
    let before = fs::read(bench.at("family.tar")).unwrap();
    let manifest = bench.manifest("app");
    let layer = bench.blob(manifest["layers"][0]["digest"].as_str().unwrap());
    crate::support::family::overwrite(&layer, |bytes| bytes[100] ^= 1);
    bench.build(&["--output", "type=oci-archive,dest=family.tar"]).failure(1, &["the archive cannot be written"]);
    assert!(fs::read(bench.at("family.tar")).unwrap() == before);
    let listed = run(Command::new("tar").arg("-tf").arg(bench.at("family.tar"))).success().stdout;
    assert!(listed.starts_with("oci-layout\nindex.json\nblobs/\n"), "{listed}");
}

#[test]
fn the_files_of_one_image_of_a_family_are_a_tar_or_in_a_directory() {
    let bench = bench();
    bench.build(&["app", "--output", "files", "--output", "type=tar,dest=files.tar"]).success();
    let listed = run(Command::new("tar").arg("-tf").arg(bench.at("files.tar"))).success().stdout;
    assert!(listed.lines().any(|line| line == "var/lib/dpkg/status"), "{listed}");
    // What the image has from its parent is there too.
    let status = fs::read_to_string(bench.at("files/var/lib/dpkg/status")).unwrap();
    assert_eq!(Some(status), bench.file("app", "var/lib/dpkg/status"));
    let compared = ["--compare", "--file", "files.tar", "--directory", "files"];
    run(Command::new("tar").args(compared).current_dir(bench.at(""))).success();
    assert!(!bench.at("elsewhere").exists() && !bench.at("x").exists());
}
