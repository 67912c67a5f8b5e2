//! `drystone verify`: whether the layout and the cache hold what they say.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use store::{Cache, Checked, Damage, Layout, Problem};

use crate::args::{Output, ProgressKind, ReportFormat, Verify};
use crate::failure::Failure;
use crate::session::{self, print};
use crate::table::{count, size};

/// Runs the command.
pub fn run(arguments: &Verify, output: Output) -> Result<(), Failure> {
    let root = &arguments.build.layout.layout;
    let layout = Layout::open(root)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bar = bar(output);
    let progress = |bytes: u64| bar.inc(bytes);
    let blobs = layout.verify(threads, &progress)?;
    // A machine that has never built anything has no cache, and needs no home to have its layout checked.
    let cache_directory = session::cache_directory(arguments.build.cache.cache_dir.as_deref()).ok();
    let cache = match cache_directory.filter(|directory| directory.is_dir()) {
        Some(directory) => Some((Cache::open(&directory)?.verify(threads, &progress)?, directory)),
        None => None,
    };
    bar.finish_and_clear();
    match arguments.format {
        ReportFormat::Json => {
            let cache = cache.as_ref().map(|(checked, directory)| to_json(directory, checked));
            print(&format!("{:#}\n", json!({"layout": to_json(root, &blobs), "cache": cache})))?;
        }
        ReportFormat::Table => {
            let mut text = String::new();
            write_checked(&mut text, root, &blobs);
            if let Some((checked, directory)) = &cache {
                write_checked(&mut text, directory, checked);
            }
            print(&text)?;
        }
    }
    let in_cache = cache.as_ref().map_or(0, |(checked, _)| checked.damage.len());
    match (blobs.damage.len(), in_cache) {
        (0, 0) => Ok(()),
        (0, damaged) => Err(Failure::with_hint(
            format!("damaged in the cache: {}", count(damaged, "file")),
            "remove these files: what is absent from the cache is fetched or made again",
        )),
        (damaged, _) => Err(Failure::with_hint(
            format!("damaged or missing in the layout: {}", count(damaged, "blob")),
            "remove the damaged files, and build, pull or push the images again: what is absent is stored anew",
        )),
    }
}

fn bar(output: Output) -> ProgressBar {
    let wanted = match output.progress {
        ProgressKind::Auto => io::stderr().is_terminal(),
        ProgressKind::Tty => true,
        ProgressKind::Plain | ProgressKind::Rawjson => false,
    };
    if output.quiet || !wanted {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes} read, {bytes_per_sec}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}

fn write_checked(text: &mut String, root: &Path, checked: &Checked) {
    let names = if checked.names > 0 { format!(", {}", count(checked.names, "name")) } else { String::new() };
    let (files, bytes) = (count(checked.files, "file"), size(checked.bytes));
    let sound =
        if checked.damage.is_empty() { "all sound".to_owned() } else { format!("{} damaged", checked.damage.len()) };
    let _ = writeln!(text, "{}: {files}, {bytes}{names}: {sound}", root.display());
    for damage in &checked.damage {
        let what = damage.digest.map_or_else(|| damage.path.display().to_string(), |digest| digest.to_string());
        let _ = writeln!(text, "  {what}: {}", describe(damage));
        if damage.digest.is_some() {
            let _ = writeln!(text, "    at {}", damage.path.display());
        }
        for image in &damage.images {
            let _ = writeln!(text, "    needed by {image}");
        }
        if damage.digest.is_some() && damage.images.is_empty() {
            let _ = writeln!(text, "    no image needs it: `drystone gc` removes it");
        }
    }
}

fn describe(damage: &Damage) -> String {
    match &damage.problem {
        Problem::Damaged { found } => format!("its bytes hash to {found}"),
        Problem::Missing => "it is not there".to_owned(),
        Problem::WrongSize { expected, found } => format!("it has {found} bytes, expected {expected}"),
        Problem::Unreadable(why) => why.clone(),
    }
}

fn to_json(root: &Path, checked: &Checked) -> Value {
    let damage: Vec<Value> = checked
        .damage
        .iter()
        .map(|damage| {
            let kind = match damage.problem {
                Problem::Damaged { .. } => "damaged",
                Problem::Missing => "missing",
                Problem::WrongSize { .. } => "wrong-size",
                Problem::Unreadable(_) => "unreadable",
            };
            json!({
                "problem": kind,
                "message": describe(damage),
                "digest": damage.digest,
                "path": damage.path,
                "images": damage.images,
            })
        })
        .collect();
    json!({"path": root, "files": checked.files, "bytes": checked.bytes, "names": checked.names, "damage": damage})
}
