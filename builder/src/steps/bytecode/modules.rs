//! The Python modules of one package as an interpreter gets them: a file with all its sources, and which of them are to be
//! compiled under which names.
//!
//! ```text
//! LENGTH PATH LENGTH SOURCE      each source of the package
//! 0
//! LENGTH MODULE LENGTH PATH      each module, and the source that its path leads to, of the package or the interpreter
//! 0
//! ```
//!
//! Lengths are eight bytes, the lowest first. One file for all costs the machine less than a file for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind};
use layer::view::View;

use crate::package::bytecode::{Given, Wanted};
use crate::package::segment::{Segment, merged};
use crate::python::Interpreter;

/// The end of the name of what Python takes for a module.
const SUFFIX: &[u8] = b".py";

/// Writes the modules of a package that are wanted. Nothing is given back if one of them cannot be compiled apart from an
/// image: if it is a link to something that is neither the package's nor the interpreter's, whose files `library` shows.
pub fn give(
    wanted: &Wanted,
    segment: &Segment,
    (interpreter, library): (&Interpreter, &View<'_>),
    file: &Path,
) -> io::Result<Option<Given>> {
    let mut out = BufWriter::with_capacity(1 << 16, File::create(file)?);
    let mut sources = Sources::default();
    each_entry(segment, |entry, content| sources.write(entry, content, &mut out))?;
    out.write_all(&length(0))?;
    // In the order in which what comes out lies in a layer.
    let mut modules = BTreeMap::new();
    for module in &wanted.modules {
        let Some(bytecode) = interpreter.bytecode_of(module) else { return Ok(None) };
        let Some(source) = sources.reach(module, library)? else { return Ok(None) };
        modules.insert(merged(&path_of(&bytecode)?), (module, source));
    }
    for (module, source) in modules.values() {
        write_field(&mut out, module.as_bytes())?;
        write_field(&mut out, &absolute(&source.path))?;
    }
    out.write_all(&length(0))?;
    out.flush()?;
    let files = modules.into_iter().map(|(bytecode, (_, source))| (bytecode, mode_of_bytecode(source.mode))).collect();
    Ok(Some(Given { files }))
}

/// The mode that `py_compile` gives to bytecode, where the umask is 022.
fn mode_of_bytecode(source: u32) -> u32 {
    (source | 0o200) & 0o644
}

/// A source, and the permissions of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    path: ImagePath,
    mode: u32,
}

/// The sources of a package, as far as they are files of its own or links to such.
#[derive(Default)]
struct Sources {
    /// With the permissions of each.
    files: BTreeMap<ImagePath, u32>,
    links: BTreeMap<ImagePath, ImagePath>,
}

impl Sources {
    fn write(&mut self, entry: Entry, content: &mut dyn Read, out: &mut impl Write) -> io::Result<()> {
        if !entry.path.name().ends_with(SUFFIX) {
            return Ok(());
        }
        match entry.kind {
            Kind::File { size } => {
                write_field(out, &absolute(&entry.path))?;
                out.write_all(&length(size))?;
                if io::copy(content, out)? < size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.files.insert(entry.path, entry.metadata.mode);
            }
            Kind::HardLink { target } => drop(self.links.insert(entry.path, target)),
            Kind::Symlink { target } => {
                if let Some(target) = followed(&entry.path, &target) {
                    self.links.insert(entry.path, target);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Where a path of the package's list leads. What is elsewhere may be another one in each image.
    fn reach(&self, path: &str, library: &View<'_>) -> io::Result<Option<Source>> {
        const MOST_LINKS: usize = 8;
        let Ok(mut path) = ImagePath::parse(path).map(|path| merged(&path)) else { return Ok(None) };
        for _ in 0..MOST_LINKS {
            match (self.links.get(&path), self.files.get(&path)) {
                (Some(target), _) => path = target.clone(),
                (None, Some(mode)) => return Ok(Some(Source { path, mode: *mode })),
                (None, None) => return of_library(path, library),
            }
        }
        Ok(None)
    }
}

fn of_library(path: ImagePath, library: &View<'_>) -> io::Result<Option<Source>> {
    let path = library.resolve(&path)?;
    let found = library.lookup(&path)?.filter(|found| found.metadata.is_file() && path.name().ends_with(SUFFIX));
    Ok(found.map(|found| Source { path, mode: found.metadata.permissions().mode() & 0o7777 }))
}

/// Where a link leads, if no other link is on the way but those of the merged `/usr`.
fn followed(link: &ImagePath, target: &[u8]) -> Option<ImagePath> {
    let mut reached = if target.starts_with(b"/") { ImagePath::root() } else { link.parent()? };
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => reached = reached.parent()?,
            name => reached = reached.join(name),
        }
    }
    Some(merged(&reached))
}

fn absolute(path: &ImagePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}

fn length(bytes: u64) -> [u8; 8] {
    bytes.to_le_bytes()
}

fn write_field(out: &mut impl Write, field: &[u8]) -> io::Result<()> {
    out.write_all(&length(field.len() as u64))?;
    out.write_all(field)
}

/// Calls `visit` with every entry of a segment.
pub fn each_entry(segment: &Segment, visit: impl FnMut(Entry, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    layer::read::entries(decompress(File::open(&segment.path)?)?, visit)
}

/// A path as lists of packages have it.
pub fn path_of(text: &str) -> io::Result<ImagePath> {
    ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use layer::entry::Metadata;
    use layer::record::TreeDir;

    use super::*;

    /// What a driver would read of `sources` whose entries these are.
    fn written(sources: &mut Sources, path: &str, kind: Kind, content: &str) -> Vec<u8> {
        let metadata = Metadata { mode: 0o600, ..Metadata::default() };
        let entry = Entry { path: path_of(path).unwrap(), kind, metadata };
        let mut out = Vec::new();
        sources.write(entry, &mut content.as_bytes(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_module_is_reached_through_links_of_its_package_and_the_interpreters_files_only() {
        let directory = tempfile::tempdir().unwrap();
        let library = TreeDir::create(directory.path().join("library")).unwrap();
        fs::create_dir_all(library.root().join("usr/lib/python3.11")).unwrap();
        fs::write(library.root().join("usr/lib/python3.11/os.py"), "").unwrap();
        fs::set_permissions(library.root().join("usr/lib/python3.11/os.py"), fs::Permissions::from_mode(0o640))
            .unwrap();
        let trees = [library];
        let view = View::new(&trees);
        let link = |target: &str| Kind::Symlink { target: target.as_bytes().to_vec() };
        let mut sources = Sources::default();
        let entries = [
            ("usr/share/x/a.py", Kind::File { size: 1 }),
            ("usr/share/x/b.py", link("a.py")),
            ("usr/share/x/c.py", link("../x/b.py")),
            ("usr/share/x/d.py", link("/usr/share/other/a.py")),
            ("usr/share/x/e.py", link("e.py")),
            ("usr/lib/x/f.py", Kind::File { size: 1 }),
            ("usr/share/x/g.py", link("/lib/x/f.py")),
            ("usr/share/x/h.py", Kind::HardLink { target: path_of("usr/share/x/a.py").unwrap() }),
            ("usr/share/x/i.py", Kind::HardLink { target: path_of("usr/share/x/data").unwrap() }),
            ("usr/share/x/data", Kind::File { size: 1 }),
            ("usr/share/x/os.py", link("/usr/lib/python3.11/os.py")),
        ];
        for (path, kind) in entries {
            written(&mut sources, path, kind, "x");
        }
        let reached =
            |path: &str| sources.reach(path, &view).unwrap().map(|found| (found.path.to_string(), found.mode));
        let own = Some(("/usr/share/x/a.py".to_owned(), 0o600));
        let other = Some(("/usr/lib/x/f.py".to_owned(), 0o600));
        for path in ["/usr/share/x/a.py", "/usr/share/x/b.py", "/usr/share/x/c.py", "/usr/share/x/h.py"] {
            assert_eq!(reached(path), own, "{path}");
        }
        for path in ["/lib/x/f.py", "/usr/share/x/g.py"] {
            assert_eq!(reached(path), other, "{path}");
        }
        assert_eq!(reached("/usr/share/x/os.py"), Some(("/usr/lib/python3.11/os.py".to_owned(), 0o640)));
        for path in ["/usr/share/x/d.py", "/usr/share/x/e.py", "/usr/share/x/i.py", "/usr/share/x/none.py"] {
            assert_eq!(reached(path), None, "{path}");
        }
    }

    #[test]
    fn a_source_is_written_behind_its_path_and_what_is_no_module_is_not() {
        let mut sources = Sources::default();
        let file = written(&mut sources, "usr/a.py", Kind::File { size: 3 }, "x=1");
        assert_eq!(file, b"\x09\0\0\0\0\0\0\0/usr/a.py\x03\0\0\0\0\0\0\0x=1");
        assert_eq!(written(&mut sources, "usr/data", Kind::File { size: 3 }, "x=1"), b"");
        let entry =
            Entry { path: path_of("b.py").unwrap(), kind: Kind::File { size: 4 }, metadata: Metadata::default() };
        assert!(sources.write(entry, &mut &b"x=1"[..], &mut Vec::new()).is_err());
    }

    #[test]
    fn bytecode_has_the_permissions_that_py_compile_gives_it() {
        for (source, expected) in [(0o644, 0o644), (0o755, 0o644), (0o444, 0o644), (0o400, 0o600), (0o666, 0o644)] {
            assert_eq!(mode_of_bytecode(source), expected, "{source:o}");
        }
    }
}
