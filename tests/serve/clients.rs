//! Other people's clients against our server: podman, skopeo with lists of images, and a browser.

use std::fs;
use std::process::Command;

use super::{Registry, built, curl};
use crate::support::family::{Bench, read_json};
use crate::support::program::{Finished, run, tool};

/// podman with a storage of its own, as it runs without overlayfs and without an engine.
fn podman(bench: &Bench, arguments: &[&str]) -> Finished {
    let mut command = Command::new("podman");
    command.arg("--root").arg(bench.at("podman")).arg("--runroot").arg(bench.at("podman-run"));
    command.args(["--storage-driver", "vfs", "--events-backend", "none"]).args(arguments);
    run(command.env("TMPDIR", bench.at("")))
}

#[test]
fn podman_pulls_pushes_with_zstd_and_pushes_a_list_of_images() {
    let bench = built();
    let registry = Registry::start(&bench, &[]);
    let host = registry.host();
    let (app, zstd) = (format!("{host}/app:v1"), format!("{host}/team/zstd:v1"));
    podman(&bench, &["pull", "--quiet", "--tls-verify=false", &app]).success();
    // A layer that the registry has not seen: of one that it has, podman would name the blob that is there.
    let files = bench.at("files.tar");
    tool("tar", ["-C", bench.at("family").to_str().unwrap(), "-cf", files.to_str().unwrap(), "."]);
    podman(&bench, &["import", "--quiet", files.to_str().unwrap(), &zstd]).success();
    let push = ["push", "--quiet", "--tls-verify=false", "--compression-format", "zstd", "--format", "oci", &zstd];
    podman(&bench, &push).success();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let manifest = curl(&["--header", accept, &registry.url("/v2/team/zstd/manifests/v1")]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd", "{manifest}");
    }
    let list = format!("{host}/team/list:v1");
    podman(&bench, &["manifest", "create", "list"]).success();
    for image in [&app, &zstd] {
        podman(&bench, &["manifest", "add", "--tls-verify=false", "list", &format!("docker://{image}")]).success();
    }
    podman(&bench, &["manifest", "push", "--tls-verify=false", "--all", "list", &format!("docker://{list}")]).success();
    // The same list through skopeo, with both of its images, into a layout of its own and back under another name.
    let (copy, again) = (format!("oci:{}:v1", bench.at("copy").display()), format!("docker://{host}/again:v1"));
    tool("skopeo", ["copy", "--quiet", "--all", "--src-tls-verify=false", &format!("docker://{list}"), &copy]);
    tool("skopeo", ["copy", "--quiet", "--all", "--dest-tls-verify=false", &copy, &again]);
    let index = read_json(&bench.at("copy/index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let raw = tool("skopeo", ["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/again@{digest}")]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&raw).unwrap()["manifests"].as_array().unwrap().len(), 2);
    run(bench.drystone().arg("verify")).success();
}

#[test]
fn a_browser_shows_the_page_which_filters_without_a_script() {
    let bench = built();
    let registry = Registry::start(&bench, &[]);
    let dump = |path: &str| {
        let profile = format!("--user-data-dir={}", bench.at("browser").display());
        let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"];
        let mut browser = Command::new("chromium");
        run(browser.args(flags).args([&profile, &registry.url(path)]).env("HOME", bench.at(""))).success().stdout
    };
    let all = dump("/");
    for text in ["3 images", "<td>worker", "<b>role</b>=worker", "linux/amd64", "type=\"search\""] {
        assert!(all.contains(text), "no {text} in {all}");
    }
    let some = dump("/?q=tier%3Dfront");
    assert!(some.contains("1 of 3 images") && some.contains("<td>app") && !some.contains("<td>worker"), "{some}");
    let log = fs::read_to_string(bench.at("serve.log")).unwrap();
    assert!(log.contains("\"GET /\" 200"), "{log}");
}
