//! Where picked files go: the rules by which `COPY` finds a destination, and the entries of the layer.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};

use content::HashingReader;
use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::view::View;
use layer::write::EntryWriter;
use spec::Span;

use super::pick::{Body, Part, Picked};
use super::shelf::{ItemKind, Shelf, path_of};
use crate::accounts::Ids;
use crate::error::BuildError;
use crate::layers::Bounded;

/// Where something is to go, and what it is to be like.
pub struct Destination<'a> {
    /// As written, with variables in place.
    pub target: String,
    /// What a relative path is relative to.
    pub workdir: &'a str,
    /// The place of the instruction.
    pub span: &'a Span,
    /// Who owns everything; `None` leaves owners as they are.
    pub owner: Option<Ids>,
    /// The mode of everything.
    pub mode: Option<Mode>,
    /// The date of what is made.
    pub epoch: i64,
}

/// Permissions for what is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode(Vec<Change>);

/// One clause of a mode: whose bits, how they change, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Exactly(u32),
    Clause { who: u32, operator: char, permissions: String },
}

impl Mode {
    /// Reads octal digits, or clauses as chmod(1) takes them: `u=rwX,go=rX`.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .map(|mode| Self(vec![Change::Exactly(mode)]));
        }
        text.split(',').map(clause).collect::<Option<Vec<_>>>().filter(|clauses| !clauses.is_empty()).map(Self)
    }

    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        self.0.iter().fold(mode, |mode, change| match change {
            Change::Exactly(exactly) => *exactly,
            Change::Clause { who, operator, permissions } => {
                let mut bits = 0;
                for letter in permissions.chars() {
                    bits |= match letter {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => 0o111,
                        'X' if is_directory || mode & 0o111 != 0 => 0o111,
                        's' => 0o6000,
                        't' => 0o1000,
                        _ => 0,
                    };
                }
                let bits = bits & who;
                match operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => (mode & !who) | bits,
                }
            }
        })
    }
}

fn clause(text: &str) -> Option<Change> {
    let at = text.find(['+', '-', '='])?;
    let (people, rest) = text.split_at(at);
    let who = people.chars().try_fold(0, |who, letter| {
        Some(
            who | match letter {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            },
        )
    })?;
    let permissions = rest[1..].to_owned();
    let known = permissions.chars().all(|letter| "rwxXst".contains(letter));
    let operator = rest.chars().next()?;
    known.then_some(Change::Clause { who: if who == 0 { 0o7777 } else { who }, operator, permissions })
}

/// An entry to be, and where its content is.
struct Planned<'a> {
    kind: Kind,
    metadata: Metadata,
    part: Option<&'a Part>,
}

/// Places picked files into the image that a view shows.
pub struct Placing<'a> {
    /// Where files are taken from.
    pub shelf: &'a dyn Shelf,
    /// The image.
    pub view: View<'a>,
    /// Where they go.
    pub to: &'a Destination<'a>,
    planned: BTreeMap<ImagePath, Planned<'a>>,
    archives: Vec<(ImagePath, &'a Part)>,
}

impl<'a> Placing<'a> {
    /// Nothing is placed yet.
    pub fn new(shelf: &'a dyn Shelf, view: View<'a>, to: &'a Destination<'a>) -> Self {
        Self { shelf, view, to, planned: BTreeMap::new(), archives: Vec::new() }
    }

    /// Finds a place for everything.
    pub fn place(&mut self, picked: &'a [Picked]) -> Result<(), BuildError> {
        let target = &self.to.target;
        let absolute = if target.starts_with('/') { target.clone() } else { format!("{}/{target}", self.to.workdir) };
        let wanted = path_of(&absolute).map_err(|error| BuildError::at(self.to.span, error, ""))?;
        let root = self.view.resolve(&wanted)?;
        let exists = self.view.lookup(&root)?;
        let is_directory = exists.as_ref().is_some_and(|found| found.metadata.is_dir()) || root.is_root();
        let says_directory = target.ends_with('/') || matches!(target.as_str(), "." | "..") || target.ends_with("/.");
        let files = picked.iter().filter(|one| !one.name.is_root() && !one.unpacks).count();
        if picked.len() > 1 && files > 0 && !says_directory && !is_directory {
            let title = format!("several files cannot become one: `{target}` is not a directory");
            return Err(BuildError::at(self.to.span, title, "end the destination in a slash"));
        }
        let needs_directory = says_directory || picked.iter().any(|one| one.name.is_root() || one.unpacks);
        if needs_directory && exists.is_some() && !is_directory {
            let title = format!("`{target}` is a file in the image, and should become a directory");
            return Err(BuildError::at(self.to.span, title, "remove it first with RUN"));
        }
        for one in picked {
            if one.unpacks {
                self.directories(&root, true)?;
                self.archives.push((root.clone(), &one.parts[0]));
                continue;
            }
            let into = match one.name.is_root() {
                true => root.clone(),
                false if says_directory || is_directory || picked.len() > 1 => {
                    one.name.names().fold(root.clone(), |path, name| path.join(name))
                }
                false => root.clone(),
            };
            self.tree(&into, &one.parts)?;
        }
        Ok(())
    }

    /// A file, or a directory with all that is in it.
    fn tree(&mut self, root: &ImagePath, parts: &'a [Part]) -> Result<(), BuildError> {
        // Where directories of the source really are in the image, once its links are followed.
        let mut places: HashMap<ImagePath, ImagePath> = HashMap::new();
        let mut inodes: HashMap<(u64, u64), ImagePath> = HashMap::new();
        for part in parts {
            let parent = part.path.parent().and_then(|parent| places.get(&parent).cloned());
            let path = match parent {
                Some(parent) => parent.join(part.path.name()),
                None => part.path.names().fold(root.clone(), |path, name| path.join(name)),
            };
            if part.item.kind == ItemKind::Directory {
                let path = self.directory(&path, part)?;
                places.insert(part.path.clone(), path);
            } else {
                self.directories(&path, false)?;
                self.file(path, part, &mut inodes)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &ImagePath, part: &'a Part) -> Result<ImagePath, BuildError> {
        self.directories(path, false)?;
        let real = self.view.resolve(path)?;
        let found = self.view.lookup(&real)?;
        let exists = path.is_root() || found.as_ref().is_some_and(|found| found.metadata.is_dir());
        if exists {
            // The destination itself stays as it is; directories in it become those of the source.
            if !part.path.is_root() {
                self.plan(real.clone(), Kind::Directory, self.attributes(part), None);
            }
            return Ok(real);
        }
        // What is copied is a directory's content: the directory that it goes to is an ordinary one.
        let metadata = if part.path.is_root() { self.made() } else { self.attributes(part) };
        if !self.planned.contains_key(path) || !part.path.is_root() {
            self.plan(path.clone(), Kind::Directory, metadata, None);
        }
        Ok(path.clone())
    }

    fn file(
        &mut self,
        path: ImagePath,
        part: &'a Part,
        inodes: &mut HashMap<(u64, u64), ImagePath>,
    ) -> Result<(), BuildError> {
        let is_directory = self.view.lookup(&path)?.is_some_and(|found| found.metadata.is_dir());
        if is_directory || path.is_root() {
            let title = format!("`{path}` is a directory in the image, and should become a file");
            return Err(BuildError::at(self.to.span, title, "choose another destination, or remove it first with RUN"));
        }
        let metadata = self.attributes(part);
        let kind = match &part.item.kind {
            ItemKind::File { size } => match part.item.inode.and_then(|inode| inodes.get(&inode)) {
                Some(target) if *target < path => Kind::HardLink { target: target.clone() },
                _ => Kind::File { size: *size },
            },
            ItemKind::Link { target } => Kind::Symlink { target: target.clone() },
            ItemKind::Special(kind) => kind.clone(),
            ItemKind::Directory | ItemKind::Socket => return Ok(()),
        };
        if let (Some(inode), Kind::File { .. }) = (part.item.inode, &kind) {
            inodes.entry(inode).or_insert(path.clone());
        }
        let has_content = matches!(kind, Kind::File { .. });
        self.plan(path, kind, metadata, has_content.then_some(part));
        Ok(())
    }

    fn plan(&mut self, path: ImagePath, kind: Kind, metadata: Metadata, part: Option<&'a Part>) {
        self.planned.insert(path, Planned { kind, metadata, part });
    }

    /// The directories above a path, and it too if `itself`, that are missing.
    fn directories(&mut self, path: &ImagePath, itself: bool) -> Result<(), BuildError> {
        for directory in path.ancestors().chain(itself.then(|| path.clone())) {
            if directory.is_root() || self.planned.contains_key(&directory) {
                continue;
            }
            match self.view.lookup(&directory)? {
                None => {
                    let made = self.made();
                    self.plan(directory, Kind::Directory, made, None);
                }
                Some(found) if found.metadata.is_dir() || found.metadata.is_symlink() => {}
                Some(_) => {
                    let title = format!("`{directory}` is a file in the image, and should become a directory");
                    return Err(BuildError::at(self.to.span, title, "remove it first with RUN"));
                }
            }
        }
        Ok(())
    }

    /// What a directory is like that nobody asked for.
    fn made(&self) -> Metadata {
        let owner = self.to.owner.clone().unwrap_or_default();
        Metadata { mode: 0o755, uid: owner.uid, gid: owner.gid, mtime: self.to.epoch, ..Metadata::default() }
    }

    fn attributes(&self, part: &Part) -> Metadata {
        let mut metadata = part.item.metadata.clone();
        if let Some(owner) = &self.to.owner {
            (metadata.uid, metadata.gid) = (owner.uid, owner.gid);
        }
        let is_link = matches!(part.item.kind, ItemKind::Link { .. });
        if let Some(mode) = self.to.mode.as_ref().filter(|_| !is_link) {
            metadata.mode = mode.apply(metadata.mode, part.item.kind == ItemKind::Directory);
        }
        if is_link {
            metadata.mode = 0o777;
        }
        metadata.mtime = self.to.epoch;
        metadata
    }

    /// Writes the layer's entries. Returns the bytes of content.
    pub fn write(self, writer: &mut dyn Write) -> Result<u64, BuildError> {
        let mut writer = EntryWriter::new(writer);
        let mut bytes = 0;
        for (path, Planned { kind, metadata, part }) in self.planned {
            bytes += kind.size();
            let entry = Entry { path, kind, metadata };
            match part {
                None => writer.write_empty(&entry)?,
                Some(part) => {
                    let mut content = HashingReader::new(open(self.shelf, &part.body)?);
                    writer.write(&entry, &mut content)?;
                    check(part, content, self.to.span)?;
                }
            }
        }
        for (directory, part) in self.archives {
            bytes += unpack(self.shelf, &directory, part, self.to, &mut writer)?;
        }
        Ok(bytes)
    }
}

fn open(shelf: &dyn Shelf, body: &Body) -> io::Result<Box<dyn Read + Send>> {
    Ok(match body {
        Body::Shelf(path) => Box::new(shelf.open(path)?),
        Body::File(path) => Box::new(File::open(path)?),
        Body::Text(text) => Box::new(io::Cursor::new(text.clone().into_bytes())),
    })
}

/// What was laid must be what the key of the step names.
fn check<R: Read>(part: &Part, content: HashingReader<R>, span: &Span) -> Result<(), BuildError> {
    if part.digest == Some(content.finish().1) {
        return Ok(());
    }
    Err(BuildError::at(span, "a file changed while it was read", "build again"))
}

/// The entries of an archive below a directory. Owners and modes are the archive's, whatever `--chown` and `--chmod`
/// say, as docker and buildah have it.
fn unpack(
    shelf: &dyn Shelf,
    directory: &ImagePath,
    part: &Part,
    to: &Destination<'_>,
    writer: &mut EntryWriter<&mut dyn Write>,
) -> Result<u64, BuildError> {
    let below = |path: &ImagePath| path.names().fold(directory.clone(), |path, name| path.join(name));
    let mut bytes = 0;
    let mut stored = HashingReader::new(open(shelf, &part.body)?);
    let tar = Bounded::archive(decompress(&mut stored)?, part.item.kind.size());
    let done = layer::read::entries(tar, |mut entry, content| {
        entry.path = below(&entry.path);
        // What an archive says of its own root goes for the directory, but not for that of the image.
        if entry.path.is_root() {
            return Ok(());
        }
        if let Kind::HardLink { target } = &mut entry.kind {
            *target = below(target);
        }
        entry.metadata.mtime = entry.metadata.mtime.min(to.epoch);
        bytes += entry.kind.size();
        writer.write(&entry, content)
    });
    done.map_err(|error| BuildError::at(to.span, format!("this archive cannot be unpacked: {error}"), ""))?;
    // A tar may end before its file does.
    io::copy(&mut stored, &mut io::sink())?;
    check(part, stored, to.span)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_chmod_reads_them() {
        let cases = [
            ("755", 0o600, false, Some(0o755)),
            ("4755", 0o600, false, Some(0o4755)),
            ("u=rwX,go=rX", 0o600, true, Some(0o755)),
            ("u=rwX,go=rX", 0o600, false, Some(0o644)),
            ("+x", 0o644, false, Some(0o755)),
            ("g-r", 0o644, false, Some(0o604)),
            ("789", 0, false, None),
            ("99999", 0, false, None),
            ("x", 0, false, None),
            ("u=q", 0, false, None),
        ];
        for (text, before, is_directory, expected) in cases {
            let found = Mode::parse(text).map(|mode| mode.apply(before, is_directory));
            assert_eq!(found, expected, "{text}");
        }
    }
}
