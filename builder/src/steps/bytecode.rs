//! Compiles the Python modules of packages before any image has them, once for all images: in a root filesystem made of
//! the interpreter, what it depends on, and the modules; nothing else can have a say in what comes out.
//!
//! What py3compile would make in an image is the same: it runs `py_compile`, and with `SOURCE_DATE_EPOCH` set what that
//! writes depends on the module's path and content and on the interpreter alone. See PEP 552.

mod modules;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use content::{Digest, FramedHasher};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::{Owners, TreeDir};
use layer::unpack::Unpacker;
use layer::view::View;
use sandbox::{Network, Stdin, User};
use spec::ImageName;
use store::Area;

use self::modules::{each_entry, path_of};
use crate::error::BuildError;
use crate::events::Event;
use crate::image::DEFAULT_PATH;
use crate::package::bytecode::{EXCLUSIONS, Given, Known, Wanted, exclusions};
use crate::package::segment::{MERGED, Segment};
use crate::parallel::{each, map};
use crate::plan::LockedPackage;
use crate::python::Interpreter;
use crate::steps::commands::{Invocation, Runner};
use crate::steps::packages::Workshop;

/// What the interpreter runs.
const DRIVER: &str = include_str!("bytecode/compile.py");

/// The directory in which it finds modules, and leaves what it makes of them.
const DIRECTORY: &str = "drystone";

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
    /// What the keys of such trees begin with.
    pub trees: Digest,
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
        let Workshop { cache, jobs, interrupt, places, compression, .. } = *self.workshop;
        let scratch = cache.scratch_dir()?;
        let [modules, upper] = ["modules", "upper"].map(|name| TreeDir::create(scratch.path().join(name)));
        let (modules, upper) = (modules?, upper?);
        let directory = modules.root().join(DIRECTORY);
        fs::create_dir(&directory)?;
        let library = self.library()?;
        let trees = std::slice::from_ref(&library);
        let given = map(wanted, jobs, interrupt, |wanted| {
            let _place = places.take();
            let file = directory.join(wanted.place.to_string());
            Ok(modules::give(wanted, &segments[wanted.place], (self.interpreter, &View::new(trees)), &file)?)
        })?;
        let works =
            has_file(&library, &self.interpreter.program())? && has_file(&library, &self.interpreter.importer())?;
        let mut ready: Vec<(&Wanted, &Given)> = wanted
            .iter()
            .zip(&given)
            .filter_map(|(wanted, given)| Some((wanted, given.as_ref().filter(|_| works)?)))
            .collect();
        // The longest first, so that none is left alone at the end.
        ready.sort_by_key(|(_, given)| Reverse(given.files.len()));
        if !ready.is_empty() {
            self.run(&ready, &[library, modules], &upper)?;
        }
        each(wanted, jobs, interrupt, |wanted| {
            let _place = places.take();
            let given = ready.iter().find(|(ready, _)| ready.place == wanted.place);
            match given.map(|(_, given)| Ok::<_, io::Error>((given, made(&upper, wanted.place)?))).transpose()? {
                Some((given, Some(made))) => wanted.keep(cache, compression, given, &made),
                _ => wanted.leave_to_script(cache),
            }
        })
    }

    /// The files of the interpreter and of what it depends on, apart from any image.
    fn library(&self) -> Result<TreeDir, BuildError> {
        const TREE: &str = "tree";
        let cache = self.workshop.cache;
        let key = FramedHasher::new("interpreter tree 1")
            .field("trees", self.trees.as_bytes())
            .field("interpreter", self.interpreter.key().as_bytes())
            .finish();
        if let Some(found) = cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let new = cache.new_tree()?;
        let root = TreeDir::create(new.path().join(TREE))?;
        let mut unpacker = Unpacker::new(&root, &[], self.owners)?;
        for name in MERGED {
            let merged = ImagePath::root().join(b"usr").join(name.as_bytes());
            let metadata = Metadata { mode: 0o755, ..Metadata::default() };
            unpacker
                .apply(&Entry { path: merged, kind: Kind::Directory, metadata: metadata.clone() }, &mut io::empty())?;
            let kind = Kind::Symlink { target: format!("usr/{name}").into_bytes() };
            unpacker.apply(&Entry { path: path_of(name)?, kind, metadata }, &mut io::empty())?;
        }
        for segment in &self.workshop.segments(&self.interpreter.packages)? {
            each_entry(segment, |entry, content| unpacker.apply(&entry, content))?;
        }
        unpacker.finish()?;
        Ok(TreeDir::new(new.commit(key)?.join(TREE)))
    }

    fn run(&self, packages: &[(&Wanted, &Given)], lowers: &[TreeDir], upper: &TreeDir) -> Result<(), BuildError> {
        let what = format!("compiling the Python modules of {} packages", packages.len());
        self.runner.observer.observe(Event::StepOutput { image: self.image, line: &what });
        let names: String = packages.iter().map(|(wanted, _)| format!("{}\n", wanted.place)).collect();
        let program = format!("/{}", self.interpreter.program());
        let (directory, jobs) = (format!("/{DIRECTORY}"), self.workshop.jobs.to_string());
        let invocation = Invocation {
            image: self.image,
            what: &what,
            // Neither does it see packages of its own (-S), nor write bytecode for what it imports (-B).
            argv: [&program, "-S", "-s", "-B", "-c", DRIVER, &directory, &jobs].map(OsString::from).to_vec(),
            env: environment(),
            directory: "/".into(),
            user: User::default(),
            network: Network::None,
            mounts: Vec::new(),
            stdin: Stdin::Data(names.into_bytes()),
        };
        self.runner.run(invocation, lowers, upper)
    }
}

/// What an interpreter left in `upper` of the package at this place, if it could compile all of it.
fn made(upper: &TreeDir, place: usize) -> io::Result<Option<File>> {
    let view = View::new(std::slice::from_ref(upper));
    let found = view.lookup(&path_of(&format!("{DIRECTORY}/{place}.pyc"))?)?;
    found.filter(|found| found.metadata.is_file()).map(|found| File::open(found.path)).transpose()
}

fn has_file(tree: &TreeDir, path: &str) -> io::Result<bool> {
    Ok(View::new(std::slice::from_ref(tree)).lookup(&path_of(path)?)?.is_some())
}

/// What reaches the interpreter.
fn environment() -> Vec<(OsString, OsString)> {
    let variables =
        [("PATH", DEFAULT_PATH), ("HOME", "/root"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("PYTHONHASHSEED", "0")];
    variables.map(|(name, value)| (name.into(), value.into())).to_vec()
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
