//! `drystone convert`: the spec that builds the image of a Dockerfile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone::lint::read;
use drystone::load::IMAGE_FILE;
use spec::convert::{ConvertOptions, Converted, RemarkKind, convert};
use spec::dockerfile;

use crate::args::{Convert, Output};
use crate::failure::Failure;
use crate::session::print;

/// Runs the command.
pub fn run(arguments: &Convert, output: Output) -> Result<(), Failure> {
    let path = match arguments.dockerfile.is_dir() {
        true => arguments.dockerfile.join("Dockerfile"),
        false => arguments.dockerfile.clone(),
    };
    let file = Arc::new(read(&path)?.map_err(Failure::Spec)?);
    let dockerfile = dockerfile::parse(&file).map_err(Failure::Spec)?;
    let options = ConvertOptions {
        arguments: arguments.build_arg.iter().cloned().collect(),
        target: arguments.target.clone(),
        siblings: siblings(&path),
    };
    let converted = convert(&dockerfile, &options).map_err(Failure::Spec)?;
    match &arguments.output {
        Some(file) => fs::write(file, &converted.text)
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display())))?,
        None => print(&converted.text)?,
    }
    if !output.quiet {
        tell(&converted);
    }
    if converted.loses() {
        let lost = converted.remarks.iter().filter(|remark| remark.kind == RemarkKind::Lost).count();
        return Err(Failure::with_hint(
            format!("{lost} of its lines are not in the spec: it builds another image"),
            format!("`drystone build -f {}` builds the Dockerfile as it is", path.display()),
        ));
    }
    Ok(())
}

/// The directories beside the Dockerfile's own that hold an image: what it is built on may be one of them.
fn siblings(dockerfile: &Path) -> Vec<String> {
    let directory = dockerfile.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let Ok(family) = fs::canonicalize(directory).map(|directory| directory.join("..")) else { return Vec::new() };
    let is_image = |path: &PathBuf| path.join(IMAGE_FILE).is_file() || path.join("Dockerfile").is_file();
    let children = fs::read_dir(family).into_iter().flatten().flatten().map(|child| child.path());
    children.filter(is_image).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(converted: &Converted) {
    converted.remarks.iter().for_each(|remark| eprintln!("{remark}"));
}
