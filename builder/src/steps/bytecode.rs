//! Compiles the Python modules of packages before any image has them, once for all images: in a root filesystem made of
//! the interpreter, what it depends on, and the modules; nothing else can have a say in what comes out.
//!
//! What py3compile would make in an image is the same: it, too, runs `py_compile`, and with `SOURCE_DATE_EPOCH` set what
//! that writes depends on the module's path and content and on the interpreter. See PEP 552.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use layer::compress::decompress;
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::{Owners, TreeDir};
use layer::unpack::Unpacker;
use layer::view::View;
use sandbox::{Network, Stdin, User};
use spec::ImageName;
use store::Area;

use crate::error::BuildError;
use crate::events::Event;
use crate::image::DEFAULT_PATH;
use crate::package::bytecode::{EXCLUSIONS, Known, Made, Wanted, exclusions};
use crate::package::segment::{MERGED, Segment, merged};
use crate::plan::LockedPackage;
use crate::python::Interpreter;
use crate::steps::commands::{Invocation, Runner};
use crate::steps::packages::Workshop;

/// What the interpreter runs.
const DRIVER: &str = include_str!("compile.py");

/// A list of exclusions is not larger than this.
const LARGEST_LIST: u64 = 1 << 20;

/// Compiles modules, and keeps what came out.
pub struct Compiler<'a> {
    /// Where segments are from.
    pub workshop: &'a Workshop<'a>,
    /// Where interpreters run.
    pub runner: Runner<'a>,
    /// How trees keep owners.
    pub owners: Owners,
    /// The image that asks first.
    pub image: &'a ImageName,
    /// The interpreter of the image.
    pub interpreter: &'a Interpreter,
}

impl Compiler<'_> {
    /// Gives those segments their bytecode whose scripts would compile it; what is missing is made. `image` shows the
    /// files of the image, apart from these packages or with them.
    pub fn compile(
        &self,
        packages: &[LockedPackage],
        segments: &mut [Segment],
        image: &View<'_>,
    ) -> Result<(), BuildError> {
        let wanted = self.wanted(packages, segments, image)?;
        let mut missing = self.take(&wanted, segments)?;
        if !missing.is_empty() {
            // One run uses all cores; images that come at the same time mostly want the same packages.
            let _compiling = self.workshop.cache.lock(Area::Segments, self.interpreter.key(), &mut || {})?;
            missing = self.take(&missing, segments)?;
            if !missing.is_empty() {
                self.make(&missing, segments)?;
                self.take(&missing, segments)?;
            }
        }
        Ok(())
    }

    /// Removes what the disk damaged of the bytecode and of the interpreter's segments. Returns whether there was any.
    pub fn discard_damaged(
        &self,
        packages: &[LockedPackage],
        segments: &[Segment],
        image: &View<'_>,
    ) -> Result<bool, BuildError> {
        let interpreter = self.workshop.discard_damaged(&self.interpreter.packages)?;
        let wanted = self.wanted(packages, segments, image)?;
        wanted.iter().try_fold(interpreter, |any, wanted| Ok(wanted.discard_damaged(self.workshop.cache)? || any))
    }

    fn wanted(
        &self,
        packages: &[LockedPackage],
        segments: &[Segment],
        image: &View<'_>,
    ) -> Result<Vec<Wanted>, BuildError> {
        let excluded = self.excluded(segments, image)?;
        Ok(Wanted::of(packages, segments, self.interpreter, self.workshop.compression, &excluded))
    }

    /// Gives segments what is known, and returns what is not.
    fn take(&self, wanted: &[Wanted], segments: &mut [Segment]) -> Result<Vec<Wanted>, BuildError> {
        let mut missing = Vec::new();
        for wanted in wanted {
            let mut known = wanted.known(self.workshop.cache)?;
            if matches!(known, Known::Nothing) && wanted.borrow(self.workshop.elsewhere) {
                known = wanted.known(self.workshop.cache)?;
            }
            match known {
                Known::Made(bytecode) => segments[wanted.place].bytecode = Some(bytecode),
                Known::ByScript => {}
                Known::Nothing => missing.push(wanted.clone()),
            }
        }
        Ok(missing)
    }

    /// Beginnings of the paths that the packages of the image do not want compiled.
    fn excluded(&self, segments: &[Segment], image: &View<'_>) -> Result<BTreeSet<String>, BuildError> {
        let directory = path_of(EXCLUSIONS)?;
        let mut lists = Vec::new();
        for name in image.list(&directory)? {
            lists.extend(image.read(&directory.join(&name), LARGEST_LIST)?);
        }
        let is_list = |path: &str| path.strip_prefix(EXCLUSIONS).is_some_and(|rest| rest.starts_with('/'));
        for segment in segments.iter().filter(|segment| segment.record.files.iter().any(|path| is_list(path))) {
            each_entry(segment, |entry, content| {
                if is_list(&String::from_utf8_lossy(entry.path.as_bytes())) {
                    let mut text = Vec::new();
                    content.take(LARGEST_LIST).read_to_end(&mut text)?;
                    lists.push(text);
                }
                Ok(())
            })?;
        }
        let version = &self.interpreter.version;
        Ok(lists.iter().flat_map(|text| exclusions(&String::from_utf8_lossy(text), version)).collect())
    }

    fn make(&self, wanted: &[Wanted], segments: &[Segment]) -> Result<(), BuildError> {
        let cache = self.workshop.cache;
        let scratch = cache.scratch_dir()?;
        let root = TreeDir::create(scratch.path().join("root"))?;
        let upper = TreeDir::create(scratch.path().join("upper"))?;
        let mut ready = self.lay(&root, wanted, segments)?;
        // The longest first, so that none is left alone at the end.
        ready.sort_by_key(|wanted| std::cmp::Reverse(wanted.modules.len()));
        if !ready.is_empty() {
            self.run(&ready, &root, &upper)?;
        }
        let made = Made::new(&upper, self.owners)?;
        for wanted in wanted {
            if ready.iter().any(|ready| ready.place == wanted.place) {
                wanted.keep(cache, self.workshop.compression, self.interpreter, &made)?;
            } else {
                wanted.leave_to_script(cache)?;
            }
        }
        Ok(())
    }

    /// Lays the interpreter and the modules, and returns what can be compiled by what is there.
    fn lay<'w>(
        &self,
        root: &TreeDir,
        wanted: &'w [Wanted],
        segments: &[Segment],
    ) -> Result<Vec<&'w Wanted>, BuildError> {
        let mut unpacker = Unpacker::new(root, &[], self.owners)?;
        for name in MERGED {
            let merged = ImagePath::root().join(b"usr").join(name.as_bytes());
            let metadata = Metadata { mode: 0o755, ..Metadata::default() };
            unpacker
                .apply(&Entry { path: merged, kind: Kind::Directory, metadata: metadata.clone() }, &mut io::empty())?;
            let kind = Kind::Symlink { target: format!("usr/{name}").into_bytes() };
            unpacker.apply(&Entry { path: path_of(name)?, kind, metadata }, &mut io::empty())?;
        }
        let mut library = Links::default();
        for segment in &self.workshop.segments(&self.interpreter.packages)? {
            each_entry(segment, |entry, content| {
                library.note(&entry);
                unpacker.apply(&entry, content)
            })?;
        }
        let mut ready = Vec::new();
        for wanted in wanted {
            let mut modules = library.clone();
            each_entry(&segments[wanted.place], |entry, content| {
                if !modules.note(&entry) {
                    return Ok(());
                }
                unpacker.apply(&entry, content)
            })?;
            if wanted.modules.iter().all(|module| modules.reach(module)) {
                ready.push(wanted);
            }
        }
        unpacker.finish()?;
        let view = View::new(std::slice::from_ref(root));
        let has = |path: &str| Ok::<_, io::Error>(view.lookup(&path_of(path)?)?.is_some());
        if !has(&self.interpreter.program())? || !has(&self.interpreter.compiler())? {
            ready.clear();
        }
        Ok(ready)
    }

    fn run(&self, wanted: &[&Wanted], root: &TreeDir, upper: &TreeDir) -> Result<(), BuildError> {
        let what = format!("compiling the Python modules of {} packages", wanted.len());
        self.runner.observer.observe(Event::StepOutput { image: self.image, line: &what });
        let lists: Vec<String> = wanted.iter().map(|wanted| wanted.modules.join("\n")).collect();
        let program = format!("/{}", self.interpreter.program());
        let jobs = self.workshop.jobs.to_string();
        let invocation = Invocation {
            image: self.image,
            what: &what,
            // Neither does it see packages of its own (-S), nor write bytecode for what it imports (-B).
            argv: [&program, "-S", "-s", "-B", "-c", DRIVER, &jobs].map(OsString::from).to_vec(),
            env: environment(),
            directory: "/".into(),
            user: User::default(),
            network: Network::None,
            mounts: Vec::new(),
            stdin: Stdin::Data(lists.join("\n\n").into_bytes()),
        };
        self.runner.run(invocation, std::slice::from_ref(root), upper)
    }
}

/// What reaches `py_compile`. The date only has to be there: bytecode then has the hash of its module in it, and no time.
fn environment() -> Vec<(OsString, OsString)> {
    let variables = [
        ("PATH", DEFAULT_PATH),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("SOURCE_DATE_EPOCH", "1"),
        ("PYTHONHASHSEED", "0"),
    ];
    variables.map(|(name, value)| (name.into(), value.into())).to_vec()
}

/// The modules of a package and of the interpreter, as far as they are files of theirs or links to such.
#[derive(Clone, Default)]
struct Links {
    files: BTreeSet<ImagePath>,
    links: BTreeMap<ImagePath, ImagePath>,
}

impl Links {
    /// Notes an entry of the package's segment. Returns whether it is needed to compile the package.
    fn note(&mut self, entry: &Entry) -> bool {
        if !entry.path.name().ends_with(b".py") {
            return false;
        }
        match &entry.kind {
            Kind::File { .. } => self.files.insert(entry.path.clone()),
            Kind::HardLink { target } if self.files.contains(target) => self.files.insert(entry.path.clone()),
            Kind::Symlink { target } => {
                let Some(target) = followed(&entry.path, target) else { return false };
                self.links.insert(entry.path.clone(), target);
                true
            }
            _ => false,
        }
    }

    /// Whether a path of the package's list leads to a file that was noted. What is elsewhere may be another one in each
    /// image.
    fn reach(&self, path: &str) -> bool {
        const MOST_LINKS: usize = 8;
        let Ok(mut path) = ImagePath::parse(path).map(|path| merged(&path)) else { return false };
        for _ in 0..MOST_LINKS {
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => return self.files.contains(&path),
            }
        }
        false
    }
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

fn each_entry(segment: &Segment, visit: impl FnMut(Entry, &mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    layer::read::entries(decompress(File::open(&segment.path)?)?, visit)
}

fn path_of(text: &str) -> io::Result<ImagePath> {
    ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Removes the bytecode that scripts left in `upper`, and the directories for it that are new and empty then.
pub fn remove(upper: &TreeDir, below: &[TreeDir]) -> io::Result<()> {
    remove_below(&upper.root(), &ImagePath::root(), &View::new(below))
}

fn remove_below(directory: &Path, path: &ImagePath, below: &View<'_>) -> io::Result<()> {
    let is_cache = path.name() == b"__pycache__";
    for item in fs::read_dir(directory)? {
        let item = item?;
        let name = std::os::unix::ffi::OsStringExt::into_vec(item.file_name());
        let kind = item.file_type()?;
        if kind.is_dir() {
            remove_below(&item.path(), &path.join(&name), below)?;
        } else if is_cache && kind.is_file() && name.ends_with(b".pyc") {
            fs::remove_file(item.path())?;
        }
    }
    let is_empty = is_cache && fs::read_dir(directory)?.next().is_none();
    if is_empty && below.lookup(path)?.is_none() {
        fs::remove_dir(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path_of(path).unwrap(), kind, metadata: Metadata::default() }
    }

    #[test]
    fn a_module_is_reached_through_links_of_its_own_package_only() {
        let link = |target: &str| Kind::Symlink { target: target.as_bytes().to_vec() };
        let mut links = Links::default();
        let entries = [
            ("usr/share/x/a.py", Kind::File { size: 1 }, true),
            ("usr/share/x/b.py", link("a.py"), true),
            ("usr/share/x/c.py", link("../x/b.py"), true),
            ("usr/share/x/d.py", link("/usr/share/other/a.py"), true),
            ("usr/share/x/e.py", link("e.py"), true),
            ("usr/lib/x/f.py", Kind::File { size: 1 }, true),
            ("usr/share/x/g.py", link("/lib/x/f.py"), true),
            ("usr/share/x/h.py", Kind::HardLink { target: path_of("usr/share/x/a.py").unwrap() }, true),
            ("usr/share/x/i.py", Kind::HardLink { target: path_of("usr/share/x/data").unwrap() }, false),
            ("usr/share/x/data", Kind::File { size: 1 }, false),
        ];
        for (path, kind, expected) in entries {
            assert_eq!(links.note(&entry(path, kind)), expected, "{path}");
        }
        let reached = |path: &str| links.reach(path);
        for path in [
            "/usr/share/x/a.py",
            "/usr/share/x/b.py",
            "/usr/share/x/c.py",
            "/lib/x/f.py",
            "/usr/share/x/g.py",
            "/usr/share/x/h.py",
        ] {
            assert!(reached(path), "{path}");
        }
        for path in ["/usr/share/x/d.py", "/usr/share/x/e.py", "/usr/share/x/i.py", "/usr/share/x/none.py"] {
            assert!(!reached(path), "{path}");
        }
    }

    #[test]
    fn bytecode_of_scripts_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let tree = |name: &str| TreeDir::create(directory.path().join(name)).unwrap();
        let (upper, below) = (tree("upper"), tree("below"));
        fs::create_dir_all(below.root().join("old/__pycache__")).unwrap();
        for path in [
            "new/__pycache__/a.pyc",
            "old/__pycache__/b.pyc",
            "mixed/__pycache__/c.pyc",
            "mixed/__pycache__/data",
            "d.pyc",
        ] {
            let path = upper.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        remove(&upper, &[below]).unwrap();
        let there = |path: &str| upper.root().join(path).exists();
        assert!(there("new") && !there("new/__pycache__"));
        assert!(there("old/__pycache__") && !there("old/__pycache__/b.pyc"));
        assert!(there("mixed/__pycache__/data") && !there("mixed/__pycache__/c.pyc"));
        assert!(there("d.pyc"));
    }
}
