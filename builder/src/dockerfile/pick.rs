//! What the sources of `COPY` and `ADD` mean: patterns are looked up, links followed, everything is read once and
//! hashed.

use std::fs::File;
use std::io;

use content::{Digest, FramedHasher};
use layer::compress::decompress;
use layer::entry::ImagePath;
use spec::Span;
use spec::dockerfile::{IgnoreRules, Pattern};

use super::shelf::{Item, ItemKind, Shelf, digest, path_of, resolve, way_out};
use crate::error::BuildError;
use crate::layers::Bounded;

/// Something that goes into an image: a file, or a directory with all that is in it.
pub struct Picked {
    /// The name it has if it is put into a directory; empty for a directory whose content is.
    pub name: ImagePath,
    /// It, and what is in it, parents first; paths are relative to it.
    pub parts: Vec<Part>,
    /// Whether it is an archive to unpack.
    pub unpacks: bool,
}

/// A file, link or directory of something picked.
pub struct Part {
    /// Where it is, relative to the whole.
    pub path: ImagePath,
    /// Where its content is.
    pub body: Body,
    /// What it is, and its attributes.
    pub item: Item,
    /// The digest of its content, for a file.
    pub digest: Option<Digest>,
}

/// The content of a file.
pub enum Body {
    /// On the shelf.
    Shelf(ImagePath),
    /// In a file of this machine.
    File(std::path::PathBuf),
    /// A text of the Dockerfile.
    Text(String),
}

/// How sources are looked up.
pub struct Rules<'a> {
    /// Paths that are left out.
    pub exclude: &'a IgnoreRules,
    /// Whether the directories above a source are kept.
    pub parents: bool,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

/// Looks up one source, as it is written once variables are in place.
pub fn pick(shelf: &dyn Shelf, source: &str, span: &Span, rules: &Rules<'_>) -> Result<Vec<Picked>, BuildError> {
    let found = if Pattern::is_pattern(source) {
        matching(shelf, source, span, rules.parents)?
    } else {
        vec![path_of(source).map_err(|error| BuildError::at(span, error, ""))?]
    };
    let mut picked = Vec::with_capacity(found.len());
    for path in &found {
        picked.extend(one(shelf, path, source, span, rules)?);
    }
    Ok(picked)
}

/// Looks up one source that is a path, whatever letters it has.
pub fn exactly(
    shelf: &dyn Shelf,
    path: &ImagePath,
    source: &str,
    span: &Span,
    rules: &Rules<'_>,
) -> Result<Vec<Picked>, BuildError> {
    Ok(one(shelf, path, source, span, rules)?.into_iter().collect())
}

/// The paths that fit a pattern, sorted.
fn matching(shelf: &dyn Shelf, source: &str, span: &Span, deep: bool) -> Result<Vec<ImagePath>, BuildError> {
    let text = source.trim_start_matches('/').split('/').filter(|name| !matches!(*name, "" | ".")).collect::<Vec<_>>();
    let text = text.join("/");
    let pattern = if deep { Pattern::deep(&text) } else { Pattern::path(&text) };
    let pattern = pattern.map_err(|error| BuildError::at(span, format!("`{source}`: {error}"), ""))?;
    let mut found = Vec::new();
    let mut waiting = vec![ImagePath::root()];
    while let Some(directory) = waiting.pop() {
        for name in shelf.list(&resolve(shelf, &directory, true)?)? {
            let path = directory.join(&name);
            let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
            if pattern.matches(&text) {
                found.push(path);
            } else if pattern.may_match_below(&text) {
                let real = resolve(shelf, &path, true)?;
                if shelf.look(&real)?.is_some_and(|item| item.kind == ItemKind::Directory)
                    && !is_inside(&real, &directory)
                {
                    waiting.push(path);
                }
            }
        }
    }
    if found.is_empty() {
        return Err(BuildError::at(span, format!("nothing fits the pattern `{source}`"), ""));
    }
    found.sort();
    Ok(found)
}

/// Whether a link leads back up, which would go round for ever.
fn is_inside(reached: &ImagePath, from: &ImagePath) -> bool {
    from.is_within(reached)
}

fn one(
    shelf: &dyn Shelf,
    path: &ImagePath,
    source: &str,
    span: &Span,
    rules: &Rules<'_>,
) -> Result<Option<Picked>, BuildError> {
    let real = resolve(shelf, path, true)
        .map_err(|error| BuildError::at(span, format!("`{source}` cannot be found: {error}"), ""))?;
    let Some(item) = shelf.look(&real)? else { return Err(absent(shelf, path, &real, source, span)) };
    let is_directory = item.kind == ItemKind::Directory;
    let name = match (rules.parents, is_directory) {
        (true, _) => below_pivot(path, source),
        (false, true) => ImagePath::root(),
        (false, false) => ImagePath::root().join(path.name()),
    };
    if !is_directory && rules.exclude.excludes(&String::from_utf8_lossy(path.name())) {
        return Ok(None);
    }
    let mut parts = Vec::new();
    if rules.parents {
        parents(shelf, &name, path, &mut parts)?;
    }
    let prefix = if rules.parents { name.clone() } else { ImagePath::root() };
    let mut reader = Reader { shelf, span, rules, parts: &mut parts };
    reader.read(&real, &prefix, &ImagePath::root(), item)?;
    let unpacks = rules.unpack && !is_directory && is_archive(&|| shelf.open(&real), &real.to_string(), span)?;
    let name = if rules.parents { ImagePath::root() } else { name };
    Ok(Some(Picked { name, parts, unpacks }))
}

/// What is said of a source that is not there: `path`, which leads to `real`.
fn absent(shelf: &dyn Shelf, path: &ImagePath, real: &ImagePath, source: &str, span: &Span) -> BuildError {
    let outside = || format!("`{source}` leads out of the context, where nothing is read");
    let way_out = if shelf.is_root() { None } else { way_out(shelf, path) };
    if let Some((link, target)) = way_out {
        let link = link.to_string();
        let link = link.trim_start_matches('/');
        let help = format!("`{link}` is a link to `{target}`; have the file itself in the context");
        return BuildError::at(span, outside(), help);
    }
    if !shelf.is_root() && climbs(source) {
        let help = "build with the directory above as the context, and name the Dockerfile with -f";
        return BuildError::at(span, outside(), help);
    }
    BuildError::at(span, format!("`{source}` is not there"), hint(shelf, real))
}

/// Whether a path as written goes above its root.
fn climbs(source: &str) -> bool {
    let mut depth = 0_i64;
    source.split('/').any(|name| {
        depth += match name {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// Why a source may not be there, and what to do.
fn hint(shelf: &dyn Shelf, path: &ImagePath) -> String {
    shelf.why_not(path).unwrap_or_else(|| {
        let names: Vec<String> = path
            .parent()
            .and_then(|parent| shelf.list(&parent).ok())
            .unwrap_or_default()
            .iter()
            .take(8)
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        match names.is_empty() {
            true => "sources are relative to the root of the context, and nothing outside of it can be had".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        }
    })
}

/// What is kept of a path with `--parents`: all of it, or what stands after a `/./`.
fn below_pivot(path: &ImagePath, source: &str) -> ImagePath {
    let Some((above, _)) = source.split_once("/./") else { return path.clone() };
    let dropped = above.split('/').filter(|name| !matches!(*name, "" | ".")).count();
    path.names().skip(dropped).fold(ImagePath::root(), |path, name| path.join(name))
}

/// The directories above something that keeps its path.
fn parents(shelf: &dyn Shelf, name: &ImagePath, path: &ImagePath, parts: &mut Vec<Part>) -> io::Result<()> {
    let depth = name.names().count();
    let above: Vec<ImagePath> = name.ancestors().collect();
    let sources: Vec<ImagePath> = path.ancestors().take(depth.saturating_sub(1)).collect();
    for (to, from) in above.into_iter().zip(sources).rev() {
        let real = resolve(shelf, &from, true)?;
        if let Some(item) = shelf.look(&real)? {
            parts.push(Part { path: to, body: Body::Shelf(real), item, digest: None });
        }
    }
    Ok(())
}

struct Reader<'a> {
    shelf: &'a dyn Shelf,
    span: &'a Span,
    rules: &'a Rules<'a>,
    parts: &'a mut Vec<Part>,
}

impl Reader<'_> {
    /// Reads what is at `at`: it will be at `to`, and exclusions see it as `inside`.
    fn read(&mut self, at: &ImagePath, to: &ImagePath, inside: &ImagePath, item: Item) -> Result<(), BuildError> {
        let text = String::from_utf8_lossy(inside.as_bytes()).into_owned();
        let is_directory = item.kind == ItemKind::Directory;
        if !inside.is_root() && self.rules.exclude.excludes(&text) {
            let comes_back = is_directory && self.rules.exclude.may_bring_back_below(&text);
            if !comes_back {
                return Ok(());
            }
        }
        let digest = match &item.kind {
            ItemKind::File { .. } => {
                let read = digest(self.shelf, at);
                Some(read.map_err(|error| BuildError::at(self.span, error.to_string(), ""))?)
            }
            // Left lying by some program, and of no use to anybody else.
            ItemKind::Socket if !inside.is_root() => return Ok(()),
            ItemKind::Socket => {
                return Err(BuildError::at(self.span, format!("`{at}` is a socket, which cannot be copied"), ""));
            }
            ItemKind::Directory | ItemKind::Link { .. } | ItemKind::Special(_) => None,
        };
        self.parts.push(Part { path: to.clone(), body: Body::Shelf(at.clone()), item, digest });
        if is_directory {
            for name in self.shelf.list(at)? {
                let at = at.join(&name);
                if let Some(item) = self.shelf.look(&at)? {
                    self.read(&at, &to.join(&name), &inside.join(&name), item)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a file is a tar, in whatever compression. Such a file is read to its end, so that nothing is found out
/// about it when half of it is in an image.
pub fn is_archive(open: &dyn Fn() -> io::Result<File>, path: &str, span: &Span) -> Result<bool, BuildError> {
    let size = open()?.metadata()?.len();
    let mut seen = false;
    let read = |seen: &mut bool| -> io::Result<()> {
        let mut tar = Bounded::archive(decompress(open()?)?, size);
        layer::read::entries(&mut tar, |_, _| {
            *seen = true;
            Ok(())
        })
    };
    match read(&mut seen) {
        Ok(()) => Ok(seen),
        // What begins as a tar is meant as one.
        Err(error) if seen => {
            Err(BuildError::at(span, format!("the archive `{path}` cannot be unpacked: {error}"), ""))
        }
        Err(error) if error.to_string().contains("..") || error.kind() == io::ErrorKind::FileTooLarge => {
            Err(BuildError::at(span, format!("the archive `{path}` cannot be unpacked: {error}"), ""))
        }
        Err(_) => Ok(false),
    }
}

/// What [`key`] names, in words: for each path its content, mode and owner.
pub fn facts(picked: &[Picked]) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for one in picked {
        for part in &one.parts {
            let metadata = &part.item.metadata;
            let content = match &part.item.kind {
                ItemKind::Directory => "a directory".to_owned(),
                ItemKind::File { .. } => part.digest.map(|digest| digest.to_string()).unwrap_or_default(),
                ItemKind::Link { target } => format!("a link to {}", String::from_utf8_lossy(target)),
                ItemKind::Special(kind) => format!("{kind:?}"),
                ItemKind::Socket => "a socket".to_owned(),
            };
            let content = if one.unpacks { format!("archive {content}") } else { content };
            let path = match part.path.is_root() {
                true => one.name.clone(),
                false => part.path.names().fold(one.name.clone(), |path, name| path.join(name)),
            };
            let fact = |name: &str, value: String| (format!("file {path} {name}"), value);
            facts.push(fact("content", content));
            facts.push(fact("mode", format!("{:o}", metadata.mode)));
            facts.push(fact("owner", format!("{}:{}", metadata.uid, metadata.gid)));
        }
    }
    facts
}

/// Names all that is picked, with everything that a layer made of it depends on; times do not count.
pub fn key(picked: &[Picked]) -> Digest {
    let mut hasher = FramedHasher::new("picked 1");
    for one in picked {
        hasher = hasher.field("name", one.name.as_bytes()).field("unpacks", if one.unpacks { "yes" } else { "no" });
        for part in &one.parts {
            let metadata = &part.item.metadata;
            let (kind, content) = match &part.item.kind {
                ItemKind::Directory => ("directory", Vec::new()),
                ItemKind::File { .. } => ("file", part.digest.map_or(Vec::new(), |digest| digest.as_bytes().to_vec())),
                ItemKind::Link { target } => ("link", target.clone()),
                ItemKind::Special(kind) => ("special", format!("{kind:?}").into_bytes()),
                ItemKind::Socket => ("socket", Vec::new()),
            };
            let owner = format!("{}:{} {:o}", metadata.uid, metadata.gid, metadata.mode);
            let xattrs = metadata.xattrs.iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
            hasher = hasher
                .field("path", part.path.as_bytes())
                .field("kind", kind)
                .field("content", content)
                .field("owner", owner)
                .list("xattrs", xattrs.collect::<Vec<_>>());
        }
    }
    hasher.finish()
}
