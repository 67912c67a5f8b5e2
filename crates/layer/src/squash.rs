//! Several layers as one: what a stack of trees changes in what lies below it.
//!
//! The result says what the layers say together, one after the other: an entry that a later layer replaces or deletes
//! is not in it, and a directory that is as below makes no entry. Deletions become whiteouts by name, as in
//! [`crate::diff`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::diff::{Change, Item, Names, Side, deletion};
use crate::entry::ImagePath;
use crate::record::{Attributes, Owners, TreeDir};
use crate::view::{Finder, Found, View};

/// What the trees above the first `below` ones of `stack` change in those, as one layer: sorted by path, parents first.
/// Everything keeps the time it has; deletions have the time `deleted`.
pub fn squash(stack: &[TreeDir], below: usize, owners: Owners, deleted: i64) -> io::Result<Vec<Change>> {
    let mut squasher = Squasher {
        sides: stack.iter().map(|tree| Side::of(tree, owners)).collect::<io::Result<_>>()?,
        after: Finder::new(stack),
        before: Finder::new(&stack[..below]),
        whole: View::new(stack),
        ground: View::new(&stack[..below]),
        deleted,
        names: Names::default(),
        changes: BTreeMap::new(),
    };
    let mut touched = BTreeSet::new();
    for tree in &stack[below..] {
        touch(&tree.root(), &ImagePath::root(), &mut touched)?;
    }
    squasher.root()?;
    for path in touched {
        squasher.path(&path)?;
    }
    Ok(squasher.changes.into_values().collect())
}

/// Notes every path below a directory of a tree, deletions among them.
fn touch(at: &Path, path: &ImagePath, touched: &mut BTreeSet<ImagePath>) -> io::Result<()> {
    for item in fs::read_dir(at)? {
        let item = item?;
        let path = path.join(&item.file_name().into_vec());
        if item.file_type()?.is_dir() {
            touch(&item.path(), &path, touched)?;
        }
        touched.insert(path);
    }
    Ok(())
}

struct Squasher<'a> {
    sides: Vec<Side>,
    after: Finder<'a>,
    before: Finder<'a>,
    /// What [`Squasher::after`] looks into, to list directories.
    whole: View<'a>,
    /// What [`Squasher::before`] looks into.
    ground: View<'a>,
    deleted: i64,
    names: Names,
    changes: BTreeMap<ImagePath, Change>,
}

impl Squasher<'_> {
    /// The root is there without an entry, as root's with the mode 0755.
    fn root(&mut self) -> io::Result<()> {
        let path = ImagePath::root();
        let Some(found) = self.after.lookup(&path)? else { return Ok(()) };
        let attributes = self.sides[found.tree].attributes(&found.path)?;
        let before = match self.before.lookup(&path)? {
            Some(before) => self.sides[before.tree].attributes(&before.path)?,
            None => Attributes { mode: 0o755, ..Attributes::default() },
        };
        if attributes != before {
            let item = Item { at: &found.path, metadata: &found.metadata, attributes: &attributes };
            let change = item.change(&path, found.metadata.mtime(), &mut self.names)?;
            self.changes.insert(path, change);
        }
        Ok(())
    }

    fn path(&mut self, path: &ImagePath) -> io::Result<()> {
        let (after, before) = (self.after.lookup(path)?, self.before.lookup(path)?);
        let Some(found) = after else {
            // Where the directory is gone too, or something else is there now, that says it all.
            if before.is_some() && self.is_directory(path.parent())? {
                self.delete(path);
            }
            return Ok(());
        };
        let attributes = self.sides[found.tree].attributes(&found.path)?;
        let item = Item { at: &found.path, metadata: &found.metadata, attributes: &attributes };
        let unchanged = match &before {
            Some(before) => self.is_same(&item, before)?,
            None => false,
        };
        if !unchanged {
            let change = item.change(path, found.metadata.mtime(), &mut self.names)?;
            self.changes.insert(path.clone(), change);
        }
        if found.metadata.is_dir() && before.is_some_and(|before| before.metadata.is_dir()) {
            self.hidden(path)?;
        }
        Ok(())
    }

    fn is_same(&self, item: &Item<'_>, before: &Found) -> io::Result<bool> {
        let attributes = self.sides[before.tree].attributes(&before.path)?;
        item.is_same_as(&Item { at: &before.path, metadata: &before.metadata, attributes: &attributes })
    }

    fn is_directory(&mut self, path: Option<ImagePath>) -> io::Result<bool> {
        let Some(path) = path.filter(|path| !path.is_root()) else { return Ok(true) };
        Ok(self.after.lookup(&path)?.is_some_and(|found| found.metadata.is_dir()))
    }

    /// Deletes what a directory had, if it was removed and made again, or hides what is below.
    fn hidden(&mut self, path: &ImagePath) -> io::Result<()> {
        let shown = self.after.showing(path)?;
        if self.before.showing(path)?.iter().all(|tree| shown.contains(tree)) {
            return Ok(());
        }
        let left: BTreeSet<Vec<u8>> = self.whole.list(path)?.into_iter().collect();
        let gone = self.ground.list(path)?.into_iter().filter(|name| !left.contains(name));
        gone.for_each(|name| self.delete(&path.join(&name)));
        Ok(())
    }

    fn delete(&mut self, path: &ImagePath) {
        let change = deletion(path, self.deleted);
        self.changes.insert(change.entry.path.clone(), change);
    }
}
