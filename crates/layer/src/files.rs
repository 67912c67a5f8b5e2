//! The files of an image as a container sees them, known from the tars of its layers without a tree on disk.
//!
//! [`list`] reads one layer, and so can be done once for all images that have it; [`Files`] lays such lists over each
//! other, with whiteouts, opaque directories, links and replaced directories as readers of layers have them.

use std::collections::BTreeMap;
use std::io::{self, Read};

use content::{Digest, HashingReader};

use crate::entry::{Entry, ImagePath, Kind, Mark, Metadata, mark};
use crate::read::entries;

/// How many links are followed to a path, as the kernel does.
const MOST_LINKS: usize = 40;

/// An entry of a layer, and the digest of its content if it is a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The entry.
    pub entry: Entry,
    /// The digest of a file's content.
    pub digest: Option<Digest>,
}

/// Reads the tar of a layer. `look` sees each entry and may read as much of its content as it likes.
pub fn list(tar: impl Read, mut look: impl FnMut(&Entry, &mut dyn Read) -> io::Result<()>) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    entries(tar, |entry, content| {
        let digest = match entry.kind {
            Kind::File { .. } => {
                let mut hashed = HashingReader::new(content);
                look(&entry, &mut hashed)?;
                io::copy(&mut hashed, &mut io::sink())?;
                Some(hashed.finish().1)
            }
            _ => None,
        };
        listed.push(Listed { entry, digest });
        Ok(())
    })?;
    Ok(listed)
}

/// What is at a path of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is; of hard links, what they lead to.
    pub kind: Kind,
    /// Mode, owner, time and attributes.
    pub metadata: Metadata,
    /// The digest of a file's content.
    pub digest: Option<Digest>,
    /// The layer that it is from, counted from the lowest.
    pub layer: usize,
}

/// The files of an image, or of its lower layers.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// By path, as [`ImagePath::as_bytes`] has it; what is below a directory follows it.
    found: BTreeMap<Vec<u8>, Found>,
    layers: usize,
}

impl Files {
    /// Lays the next layer over those so far.
    pub fn lay(&mut self, layer: &[Listed]) {
        let number = self.layers;
        self.layers += 1;
        // What a layer deletes is what was below it, wherever in the tar it says so.
        for listed in layer {
            match mark(&listed.entry.path) {
                Mark::None | Mark::Leftover => {}
                Mark::Whiteout(path) => {
                    let path = self.resolved_parent(&path);
                    self.found.remove(path.as_bytes());
                    self.remove_below(&path);
                }
                Mark::Opaque(path) => {
                    let path = self.followed(&path).unwrap_or(path);
                    self.remove_below(&path);
                }
            }
        }
        for listed in layer.iter().filter(|listed| mark(&listed.entry.path) == Mark::None) {
            self.put(listed, number);
        }
    }

    fn put(&mut self, listed: &Listed, layer: usize) {
        let path = self.resolved_parent(&listed.entry.path);
        let found = match &listed.entry.kind {
            Kind::HardLink { target } => match self.found.get(self.resolved_parent(target).as_bytes()) {
                Some(first) => Found { layer, ..first.clone() },
                // A link to nothing is an error for those who unpack; here it is nothing.
                None => return,
            },
            kind => {
                let (metadata, digest) = (listed.entry.metadata.clone(), listed.digest);
                Found { kind: kind.clone(), metadata, digest, layer }
            }
        };
        if found.kind != Kind::Directory {
            self.remove_below(&path);
        }
        self.found.insert(path.as_bytes().to_vec(), found);
    }

    fn remove_below(&mut self, path: &ImagePath) {
        if path.is_root() {
            return self.found.clear();
        }
        let from = [path.as_bytes(), b"/"].concat();
        let to = [path.as_bytes(), b"0"].concat();
        let below: Vec<Vec<u8>> = self.found.range(from..to).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.found.remove(&path);
        }
    }

    /// What is at a path; a link is itself.
    pub fn get(&self, path: &ImagePath) -> Option<&Found> {
        self.found.get(path.as_bytes())
    }

    /// What a path leads to, all links followed within the image.
    pub fn follow(&self, path: &ImagePath) -> Option<(ImagePath, &Found)> {
        let path = self.followed(path)?;
        self.get(&path).map(|found| (path.clone(), found))
    }

    /// Everything, by path; the root only if a layer names it.
    pub fn iter(&self) -> impl Iterator<Item = (ImagePath, &Found)> {
        self.found.iter().map(|(path, found)| (parsed(path), found))
    }

    /// Where a path really is: the links above it are followed.
    fn resolved_parent(&self, path: &ImagePath) -> ImagePath {
        match path.parent() {
            Some(parent) if !parent.is_root() => {
                self.followed(&parent).map_or_else(|| path.clone(), |parent| parent.join(path.name()))
            }
            _ => path.clone(),
        }
    }

    /// A path without links in it; none if they go in a circle.
    fn followed(&self, path: &ImagePath) -> Option<ImagePath> {
        let mut ahead: Vec<Vec<u8>> = path.names().rev().map(<[u8]>::to_vec).collect();
        let (mut at, mut links) = (ImagePath::root(), 0);
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => at = at.parent().unwrap_or_default(),
                name => {
                    let next = at.join(name);
                    let Some(Found { kind: Kind::Symlink { target }, .. }) = self.get(&next) else {
                        at = next;
                        continue;
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        at = ImagePath::root();
                    }
                    ahead.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
            }
        }
        Some(at)
    }
}

fn parsed(path: &[u8]) -> ImagePath {
    ImagePath::parse(path).expect("keys are the bytes of paths")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        text.parse().unwrap()
    }

    fn entry(text: &str, kind: Kind) -> Listed {
        let digest = matches!(kind, Kind::File { .. }).then(|| Digest::of(text.as_bytes()));
        Listed { entry: Entry { path: path(text), kind, metadata: Metadata::default() }, digest }
    }

    fn directory(text: &str) -> Listed {
        entry(text, Kind::Directory)
    }

    fn file(text: &str) -> Listed {
        entry(text, Kind::File { size: 1 })
    }

    fn link(text: &str, target: &str) -> Listed {
        entry(text, Kind::Symlink { target: target.as_bytes().to_vec() })
    }

    fn laid(layers: &[&[Listed]]) -> Files {
        let mut files = Files::default();
        layers.iter().for_each(|layer| files.lay(layer));
        files
    }

    fn names(files: &Files) -> Vec<String> {
        files.iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn layers_delete_hide_and_replace_what_is_below_them_and_nothing_else() {
        let base = [directory("a"), file("a/x"), file("a.b"), directory("d"), file("d/old"), file("gone")];
        let cases: [(&[Listed], &[&str]); 5] = [
            (&[file("d/new"), file("d/.wh..wh..opq")], &["/a", "/a.b", "/a/x", "/d", "/d/new", "/gone"]),
            (&[file(".wh.gone"), file(".wh.a")], &["/a.b", "/d", "/d/old"]),
            (&[file("a")], &["/a", "/a.b", "/d", "/d/old", "/gone"]),
            (&[directory("a")], &["/a", "/a.b", "/a/x", "/d", "/d/old", "/gone"]),
            (&[file(".wh.gone"), file("gone")], &["/a", "/a.b", "/a/x", "/d", "/d/old", "/gone"]),
        ];
        for (upper, expected) in cases {
            assert_eq!(names(&laid(&[&base, upper])), expected);
        }
    }

    #[test]
    fn links_are_followed_within_the_image() {
        let files = laid(&[
            &[
                directory("usr"),
                directory("usr/lib"),
                link("lib", "usr/lib"),
                link("up", "../../../etc"),
                directory("etc"),
            ],
            &[file("lib/so"), file("up/passwd"), link("round", "round"), link("usr/lib/deep", "/up/passwd")],
        ]);
        assert!(files.get(&path("usr/lib/so")).is_some_and(|found| found.layer == 1));
        assert!(files.get(&path("etc/passwd")).is_some());
        assert_eq!(files.follow(&path("lib/deep")).unwrap().0, path("etc/passwd"));
        assert!(files.follow(&path("round")).is_none());
        assert!(files.follow(&path("absent")).is_none());
    }

    #[test]
    fn a_hard_link_is_the_file_that_it_leads_to() {
        let hard = entry("b", Kind::HardLink { target: path("a") });
        let files = laid(&[&[file("a"), hard, entry("c", Kind::HardLink { target: path("absent") })]]);
        assert_eq!(files.get(&path("b")).unwrap().digest, files.get(&path("a")).unwrap().digest);
        assert!(files.get(&path("c")).is_none());
    }
}
