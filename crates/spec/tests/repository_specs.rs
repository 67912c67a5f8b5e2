//! The specs of this repository: they assemble, and what they name is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use spec::{CommandLine, Family, FileContent, Image, SourceFile, Trust, Variables, render, schema};

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs")
}

/// Every directory below `directory` with a `family.yaml`.
fn families(directory: &Path, found: &mut Vec<PathBuf>) {
    if directory.join("family.yaml").is_file() {
        found.push(directory.to_owned());
        return;
    }
    for entry in directories(directory) {
        families(&entry, found);
    }
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory can be listed");
    let mut list: Vec<PathBuf> = entries.map(|entry| entry.expect("the entry can be read").path()).collect();
    list.retain(|path| path.is_dir());
    list.sort();
    list
}

fn source(path: &Path) -> SourceFile {
    SourceFile::new(path.display().to_string(), fs::read_to_string(path).expect("the spec can be read"))
}

fn assemble(directory: &Path) -> Family {
    let images = directories(directory)
        .into_iter()
        .filter(|image| image.join("image.yaml").is_file())
        .map(|image| {
            let name = image.file_name().expect("a directory has a name").to_string_lossy().into_owned();
            (name, source(&image.join("image.yaml")))
        })
        .collect();
    Family::assemble(source(&directory.join("family.yaml")), images, &Variables::new())
        .unwrap_or_else(|diagnostics| panic!("{}", render(&diagnostics, false)))
}

fn all() -> Vec<(PathBuf, Family)> {
    let mut found = Vec::new();
    families(&specs(), &mut found);
    assert!(found.len() >= 3, "the families are missing: {found:?}");
    found.into_iter().map(|directory| (directory.clone(), assemble(&directory))).collect()
}

#[test]
fn every_file_and_keyring_that_a_spec_names_is_there() {
    for (directory, family) in all() {
        for source in &family.sources {
            if let Trust::Keyring(path) = &source.trust {
                assert!(directory.join(path.as_str()).is_file(), "{}: no such keyring", path.span);
            }
        }
        for image in &family.images {
            for file in image.files() {
                if let FileContent::Source { path, .. } = &file.content {
                    assert!(directory.join(path.as_str()).exists(), "{}: no such file", path.span);
                }
            }
        }
    }
}

#[test]
fn every_entry_point_is_put_in_by_its_line_of_images_and_may_be_executed() {
    for (directory, family) in all() {
        for image in &family.images {
            let Some(CommandLine::Exec(arguments)) = image.config.entrypoint.as_deref() else { continue };
            let line = std::iter::once(image).chain(family.ancestors(image));
            let origin = line.flat_map(Image::files).find_map(|file| origin_of(file, &arguments[0]));
            let origin = origin.unwrap_or_else(|| panic!("{}: nobody puts {} in", image.name, arguments[0]));
            let mode = fs::metadata(directory.join(&origin)).expect("the entry point is there").permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{origin} is not executable");
        }
    }
}

fn origin_of(file: &spec::FileEntry, target: &str) -> Option<String> {
    let FileContent::Source { path, .. } = &file.content else { return None };
    let destination = file.destination(path.file_name()?);
    (destination.as_str() == target).then(|| path.as_str().to_owned())
}

#[test]
fn the_opencontrail_family_has_the_labels_of_the_original() {
    let family = assemble(&specs().join("opencontrail"));
    let labelled = |key: &str, value: &str| -> BTreeSet<String> {
        let images = family.images.iter().filter(|image| {
            image.config.labels.iter().any(|label| label.key.as_str() == key && label.value.value == value)
        });
        images.map(|image| image.name.to_string()).collect()
    };
    let names = |list: &[&str]| -> BTreeSet<String> { list.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(labelled("net.juniper.contrail", "webui"), names(&["webui-job", "webui-server"]));
    assert_eq!(labelled("net.juniper.contrail", "common"), names(&["keystone", "memcached", "rabbitmq", "redis"]));
    assert!(labelled("net.juniper.node", "controller").is_superset(&names(&["keystone", "redis", "webui-job"])));
    assert!(!labelled("net.juniper.node", "controller").contains("rabbitmq"));
    assert_eq!(family.registry.as_str(), "localhost:5100");
    assert_eq!(family.tag.as_str(), "contrail-3.0-2668");
}

#[test]
fn the_two_processes_of_the_web_interface_have_the_same_entry_point() {
    let read = |image: &str| fs::read(specs().join("opencontrail").join(image).join("entrypoint.sh"));
    assert_eq!(read("webui-job").expect("it can be read"), read("webui-server").expect("it can be read"));
}

#[test]
fn the_published_schemas_are_those_of_the_types() {
    for (name, text) in schemas() {
        let published = fs::read_to_string(specs().join(name)).unwrap_or_default();
        assert!(
            published == text,
            "specs/{name} is out of date: cargo test -p spec --test repository_specs -- --ignored"
        );
    }
}

#[test]
#[ignore = "writes the schemas of the types to specs/"]
fn write_the_schemas_anew() {
    for (name, text) in schemas() {
        fs::write(specs().join(name), text).expect("the schema can be written");
    }
}

fn schemas() -> [(&'static str, String); 2] {
    let pretty = |schema| serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
    [("family.schema.json", pretty(schema::family())), ("image.schema.json", pretty(schema::image()))]
}
