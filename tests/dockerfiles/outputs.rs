//! `build --output type=local` and `type=tar`: the files of an image, and not the image.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use super::with_base;
use crate::support::family::{Bench, overwrite, walk};
use crate::support::program::{Finished, run};

/// Files of each kind.
const DOCKERFILE: &str = "\
FROM base AS made
RUN mkdir -p /out/d/e /out/was && cd /out && echo 1 > d/e/one && ln d/e/one d/e/uno && ln -s /etc/passwd d/link && \\
    mkfifo d/fifo && mknod d/null c 1 3 && chmod 4755 d/e/one && mkdir -m 1777 tmp && mkdir -m 0555 ro && \\
    echo 1 > ro/x && chown 33:44 ro/x && echo 1 > gone && echo 1 > was/first
RUN cd /out && rm -r gone was && mkdir was && echo 2 > was/second && echo 22 > d/e/two
FROM scratch
COPY --from=made /out/ /
";

/// What `tar` lists of it.
const LISTED: &str = "\
drwxr-xr-x 0/0               0 1970-01-01 00:00 d/
drwxr-xr-x 0/0               0 1970-01-01 00:00 d/e/
-rwsr-xr-x 0/0               2 1970-01-01 00:00 d/e/one
-rw-r--r-- 0/0               3 1970-01-01 00:00 d/e/two
hrwsr-xr-x 0/0               0 1970-01-01 00:00 d/e/uno link to d/e/one
prw-r--r-- 0/0               0 1970-01-01 00:00 d/fifo
lrwxrwxrwx 0/0               0 1970-01-01 00:00 d/link -> /etc/passwd
crw-r--r-- 0/0             1,3 1970-01-01 00:00 d/null
dr-xr-xr-x 0/0               0 1970-01-01 00:00 ro/
-rw-r--r-- 33/44             2 1970-01-01 00:00 ro/x
drwxrwxrwt 0/0               0 1970-01-01 00:00 tmp/
drwxr-xr-x 0/0               0 1970-01-01 00:00 was/
-rw-r--r-- 0/0               2 1970-01-01 00:00 was/second
";

fn bench() -> Bench {
    let bench = with_base();
    fs::create_dir(bench.at("context")).unwrap();
    fs::write(bench.at("context/Dockerfile"), DOCKERFILE).unwrap();
    bench
}

fn build(bench: &Bench, outputs: &[&str]) -> Finished {
    let outputs = outputs.iter().flat_map(|output| ["-o", output]);
    run(bench.drystone().args(["build", "-t", "files", "context"]).args(outputs))
}

fn mode(bench: &Bench, path: &str) -> u32 {
    bench.at(path).symlink_metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_tar_has_the_files_of_an_image_as_its_layers_have_them_and_is_the_same_bytes_each_time() {
    let bench = bench();
    build(&bench, &["type=tar,dest=first.tar"]).success();
    let listed = run(Command::new("tar").args(["--utc", "-tvf"]).arg(bench.at("first.tar"))).success().stdout;
    assert_eq!(listed, LISTED);
    let first = fs::read(bench.at("first.tar")).unwrap();
    for output in ["-", "type=tar", "type=tar,dest=-"] {
        let mut build = bench.drystone();
        let file = fs::File::create(bench.at("second.tar")).unwrap();
        let built = build.args(["build", "-t", "files", "context", "-o", output]).stdout(file).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        assert!(fs::read(bench.at("second.tar")).unwrap() == first, "{output}");
    }
    // Whiteouts are no files, but they count: what a later layer took away is in none of the two.
    fs::write(bench.at("context/Dockerfile"), "FROM base\nRUN echo 1 > /gone\nRUN rm /gone && touch /kept\n").unwrap();
    build(&bench, &["type=tar,dest=second.tar", "files"]).success();
    let listed = run(Command::new("tar").arg("-tf").arg(bench.at("second.tar"))).success().stdout;
    assert!(listed.contains("\nkept\n") && !listed.contains("gone") && !listed.contains(".wh."), "{listed}");
    assert!(bench.at("files/kept").exists() && !bench.at("files/gone").exists());
    bench.is_whole();
}

#[test]
fn root_gets_a_directory_with_the_owners_modes_and_links_of_the_image() {
    let bench = bench();
    build(&bench, &["files", "type=tar,dest=files.tar"]).success();
    run(Command::new("tar").args(["--compare", "-f", "files.tar", "-C", "files"]).current_dir(bench.at(""))).success();
    let of = |path: &str| bench.at("files").join(path).symlink_metadata().unwrap();
    assert_eq!(of("d/e/one").ino(), of("d/e/uno").ino());
    assert_eq!((of("ro/x").uid(), of("ro/x").gid()), (33, 44));
    assert_eq!((mode(&bench, "files/d/e/one"), mode(&bench, "files/ro")), (0o4755, 0o555));
    assert_eq!(walk(&bench.at("files")).len(), 8, "{:?}", walk(&bench.at("files")));
}

#[test]
fn a_plain_user_gets_the_same_tar_and_a_directory_of_files_that_are_the_users_own() {
    let bench = bench();
    build(&bench, &["type=tar,dest=of-root.tar"]).success();
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(bench.at(""))).success();
    fs::copy(env!("CARGO_BIN_EXE_drystone"), bench.at("drystone")).unwrap();
    let as_user = |outputs: &[&str]| {
        let mut command = Command::new("setpriv");
        bench.surround(&mut command);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(bench.at("drystone"));
        run(command.args(["build", "-t", "files", "context"]).args(outputs))
    };
    let built = as_user(&["-o", "type=tar,dest=of-user.tar", "-o", "files"]).success();
    assert!(built.stderr.contains("device nodes (1)"), "{}", built.stderr);
    assert!(fs::read(bench.at("of-user.tar")).unwrap() == fs::read(bench.at("of-root.tar")).unwrap());
    for path in walk(&bench.at("files")) {
        let found = path.symlink_metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65534), "{}", path.display());
    }
    // Nobody else becomes this user by running one of them, and what forbids writing is written again all the same.
    assert_eq!(
        (mode(&bench, "files/d/e/one"), mode(&bench, "files/ro"), mode(&bench, "files/tmp")),
        (0o755, 0o555, 0o1777)
    );
    assert!(!bench.at("files/d/null").exists());
    fs::remove_file(bench.at("files/d/e/two")).unwrap();
    as_user(&["-o", "files"]).success();
    assert_eq!(fs::read_to_string(bench.at("files/d/e/two")).unwrap(), "22\n");
    assert_eq!(mode(&bench, "files/ro"), 0o555);
    fs::create_dir(bench.at("of-root")).unwrap();
    as_user(&["-o", "of-root/files"]).failure(1, &["cannot write `of-root/files`", "Permission denied"]);
    as_user(&["-o", "of-root"]).failure(1, &["cannot write `of-root/d`", "Permission denied"]);
}

#[test]
fn what_is_in_a_directory_stays_and_no_link_in_it_is_followed() {
    let bench = bench();
    for directory in ["outside/e", "files/was", "files/more"] {
        fs::create_dir_all(bench.at(directory)).unwrap();
    }
    for file in ["outside/target", "files/mine", "files/was/mine", "files/d-target"] {
        fs::write(bench.at(file), "mine\n").unwrap();
    }
    let outside = bench.at("outside");
    let set = |path: &str, target: &str| symlink(target, bench.at(path)).unwrap();
    set("files/d", "../outside");
    set("files/ro", outside.to_str().unwrap());
    set("files/was/second", "../../outside/target");
    fs::hard_link(bench.at("outside/target"), bench.at("files/tmp")).unwrap();
    set("way", "files");
    build(&bench, &["way"]).success();
    assert_eq!(fs::read_to_string(bench.at("outside/target")).unwrap(), "mine\n");
    assert_eq!(walk(&outside), [bench.at("outside/target")]);
    assert_eq!(mode(&bench, "outside"), 0o755);
    for (path, expected) in [
        ("files/mine", "mine\n"),
        ("files/was/mine", "mine\n"),
        ("files/was/second", "2\n"),
        ("files/d/e/one", "1\n"),
        ("files/ro/x", "1\n"),
    ] {
        assert_eq!(fs::read_to_string(bench.at(path)).unwrap(), expected, "{path}");
    }
    assert!(bench.at("files/d").symlink_metadata().unwrap().is_dir() && bench.at("files/more").is_dir());
    // An empty directory makes way for a file; one with something in it is not taken away.
    fs::remove_file(bench.at("files/was/second")).unwrap();
    fs::create_dir(bench.at("files/was/second")).unwrap();
    build(&bench, &["files"]).success();
    assert!(bench.at("files/was/second").is_file());
    fs::remove_file(bench.at("files/was/second")).unwrap();
    fs::create_dir_all(bench.at("files/was/second/mine")).unwrap();
    build(&bench, &["files"]).failure(1, &["files/was/second`", "a directory that is not empty"]);
    assert!(bench.at("files/was/second/mine").is_dir());
    let names: Vec<_> = walk(&bench.at("files")).into_iter().map(|path| path.display().to_string()).collect();
    assert!(names.iter().all(|name| !name.contains(".drystone")), "{names:?}");
}

#[test]
fn links_of_an_image_lead_nowhere_out_of_the_directory() {
    let bench = with_base();
    fs::create_dir(bench.at("outside")).unwrap();
    fs::create_dir(bench.at("context")).unwrap();
    let outside = bench.at("outside").display().to_string();
    // A layer that another tool made: a link, and below it a file.
    let tar = fixtures::tar(&[
        fixtures::TarEntry::symlink("way", &outside),
        fixtures::TarEntry::symlink("up", "../../../../../../../../.."),
        fixtures::TarEntry::file(format!("up/{}/x", outside.trim_start_matches('/')), 0o644, "x"),
        fixtures::TarEntry::file("way/x", 0o644, "x"),
    ]);
    fs::write(bench.at("context/layer.tar"), tar).unwrap();
    fs::write(bench.at("context/Dockerfile"), "FROM scratch\nADD layer.tar /\n").unwrap();
    build(&bench, &["files"]).success();
    assert_eq!(walk(&bench.at("outside")), [] as [std::path::PathBuf; 0]);
    let inside = bench.at("files").join(outside.trim_start_matches('/')).join("x");
    assert_eq!(fs::read_to_string(inside).unwrap(), "x");
}

#[test]
fn several_platforms_have_a_directory_each() {
    let bench = Bench::new();
    fs::create_dir(bench.at("context")).unwrap();
    for architecture in ["amd64", "arm64"] {
        fs::write(bench.at("context").join(architecture), architecture).unwrap();
    }
    fs::write(bench.at("context/Dockerfile"), "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /program\n").unwrap();
    let platforms = ["--platform", "linux/amd64,linux/arm64", "-o", "files", "-o", "type=tar,dest=files.tar"];
    run(bench.drystone().args(["build", "-t", "files", "context"]).args(platforms)).success();
    for architecture in ["amd64", "arm64"] {
        let path = bench.at(&format!("files/linux_{architecture}/program"));
        assert_eq!(fs::read_to_string(path).unwrap(), architecture);
    }
    let listed = run(Command::new("tar").arg("-tf").arg(bench.at("files.tar"))).success().stdout;
    assert_eq!(listed, "linux_amd64/\nlinux_amd64/program\nlinux_arm64/\nlinux_arm64/program\n");
}

#[test]
fn a_damaged_layer_leaves_the_tar_that_was_there_and_no_directory() {
    let bench = bench();
    build(&bench, &["type=tar,dest=files.tar"]).success();
    let before = fs::read(bench.at("files.tar")).unwrap();
    let manifest = bench.manifest_of("localhost/files:latest");
    let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    overwrite(&bench.blob(&layer), |bytes| bytes[30] ^= 1);
    for output in ["type=tar,dest=files.tar", "files"] {
        let failed = build(&bench, &[output]);
        let failed = failed.failure(1, &[&format!("the layer {layer} cannot be read")]);
        assert!(failed.stdout.is_empty(), "{}", failed.stdout);
    }
    assert!(fs::read(bench.at("files.tar")).unwrap() == before);
    assert!(!bench.at("files").exists());
    let left: Vec<_> = fs::read_dir(bench.at("")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".tmp")), "{left:?}");
}
