//! `drystone gc`: removes what nobody needs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sandbox::Choice;
use serde_json::{Value, json};
use store::{Cache, Collect, Collected, Layout, PartSize, Shrunk};

use crate::args::{Gc, Output, ReportFormat};
use crate::failure::Failure;
use crate::session::{self, print};
use crate::table::{count, size};

/// For how long an upload may rest, whatever a server that is no more would have said.
const UPLOAD_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs the command.
pub fn run(arguments: &Gc, output: Output) -> Result<(), Failure> {
    let cache_directory = session::cache_directory(arguments.cache.cache_dir.as_deref())?;
    let shrinks = arguments.cache_max_size.filter(|_| cache_directory.is_dir());
    if shrinks.is_some() && !arguments.dry_run {
        // What some sandboxes unpack belongs to ids that only they can remove. Where none of them works, none has.
        let _ = sandbox::enter(Choice::Auto);
    }
    let root = &arguments.layout.layout;
    // Whoever only wants to bound the cache need not have a layout here.
    let collected = match root.exists() || arguments.cache_max_size.is_none() {
        true => Some(collect(arguments, &Layout::open(root)?)?),
        false => None,
    };
    let shrunk = match shrinks {
        Some(limit) => Some((limit, Cache::open(&cache_directory)?.shrink(limit, arguments.dry_run)?)),
        None => None,
    };
    match arguments.format {
        ReportFormat::Json => {
            let layout = collected.as_ref().map(|collected| layout_json(root, collected));
            let cache = shrunk.as_ref().map(|(limit, shrunk)| cache_json(&cache_directory, *limit, shrunk));
            let report = json!({"dry_run": arguments.dry_run, "layout": layout, "cache": cache});
            print(&format!("{report:#}\n"))
        }
        ReportFormat::Table => {
            let mut text = String::new();
            let said = if arguments.dry_run { "would remove" } else { "removed" };
            if let Some(collected) = &collected {
                write_layout(&mut text, root, collected, said, output.verbose > 0);
            }
            if let Some((limit, shrunk)) = &shrunk {
                write_cache(&mut text, &cache_directory, *limit, shrunk, said);
            }
            print(&text)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the command line")]
fn collect(arguments: &Gc, layout: &Layout) -> Result<Collected, Failure> {
    // A layout where we may not write has no clock of its own; a dry run there is told by this machine's.
    let now = layout.time().unwrap_or_else(|_| SystemTime::now());
    let (dry_run, untagged) = (arguments.dry_run, arguments.untagged);
    let how = Collect { now, dry_run, untagged, upload_rest: UPLOAD_REST };
    layout.collect(how).map_err(|error| match error {
        store::StoreError::Unreadable { .. } => Failure::with_hint(
            drystone::error::chain(&error),
            "nothing was removed; `drystone verify` says what is damaged: build or push that image again, or remove it",
        ),
        other => other.into(),
    })
}

fn freed(collected: &Collected) -> u64 {
    collected.removed.iter().filter(|blob| !blob.shared).map(|blob| blob.size).sum()
}

fn write_layout(text: &mut String, root: &Path, collected: &Collected, said: &str, verbose: bool) {
    let bytes: u64 = collected.removed.iter().map(|blob| blob.size).sum();
    let (blobs, shared) = (count(collected.removed.len(), "blob"), bytes - freed(collected));
    let _ = write!(text, "{}: {said} {blobs}, {}", root.display(), size(bytes));
    if shared > 0 {
        let _ = write!(text, " ({} of it the cache has too, and keeps)", size(shared));
    }
    let _ = writeln!(text, "; {}, {} stay", count(collected.blobs, "blob"), size(collected.bytes));
    if verbose {
        for blob in &collected.removed {
            let _ = writeln!(text, "  {} {}", blob.digest, size(blob.size));
        }
    }
    for name in &collected.untagged {
        let _ = writeln!(text, "  {said} the name {name}");
    }
    if collected.uploads.0 > 0 {
        let (number, bytes) = collected.uploads;
        let _ = writeln!(text, "  {said} {} that nobody finished, {}", count(number, "upload"), size(bytes));
    }
    if collected.leased > 0 {
        let _ = writeln!(text, "  kept {} that builds and pushes in progress need", count(collected.leased, "blob"));
    }
    if collected.pending > 0 {
        let _ = writeln!(
            text,
            "  kept {} that came over HTTP in the last hour, and may get a manifest",
            count(collected.pending, "blob")
        );
    }
}

fn write_cache(text: &mut String, root: &Path, limit: u64, shrunk: &Shrunk, said: &str) {
    let (removed, kept) = (size(shrunk.removed_bytes()), size(shrunk.kept_bytes()));
    let _ = writeln!(text, "{}: {said} {removed}; {kept} stay", root.display());
    for part in &shrunk.removed {
        let _ = writeln!(text, "  {}: {} entries, {}", part.part, part.entries, size(part.bytes));
    }
    if shrunk.kept_bytes() > limit {
        let _ = writeln!(text, "  more than {} stay: builds in progress use {} entries", size(limit), shrunk.in_use);
    }
}

fn layout_json(root: &Path, collected: &Collected) -> Value {
    let removed: Vec<Value> = collected
        .removed
        .iter()
        .map(|blob| json!({"digest": blob.digest, "size": blob.size, "shared_with_cache": blob.shared}))
        .collect();
    json!({
        "path": root,
        "removed": removed,
        "removed_bytes": collected.removed.iter().map(|blob| blob.size).sum::<u64>(),
        "freed_bytes": freed(collected),
        "untagged": collected.untagged,
        "uploads": {"removed": collected.uploads.0, "bytes": collected.uploads.1},
        "kept": {
            "blobs": collected.blobs,
            "bytes": collected.bytes,
            "for_builds": collected.leased,
            "for_pushes": collected.pending,
        },
    })
}

fn cache_json(root: &Path, limit: u64, shrunk: &Shrunk) -> Value {
    let parts = |parts: &[PartSize]| -> Vec<Value> {
        parts.iter().map(|part| json!({"part": part.part, "entries": part.entries, "bytes": part.bytes})).collect()
    };
    json!({
        "path": root,
        "limit": limit,
        "removed": parts(&shrunk.removed),
        "removed_bytes": shrunk.removed_bytes(),
        "kept": parts(&shrunk.kept),
        "kept_bytes": shrunk.kept_bytes(),
        "in_use": shrunk.in_use,
    })
}
