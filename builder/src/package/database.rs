//! Writes dpkg's database for packages that were laid but not configured, as dpkg itself leaves it after `--unpack`,
//! so that the image's own dpkg can take over.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use debian::deb822::single_stanza;
use debian::dpkg::{
    ConffileEntry, INFO_FORMAT, PackageState, Status, StatusEntry, TriggerDatabase, parse_conffiles, parse_triggers,
};
use layer::entry::ImagePath;
use layer::record::TreeDir;
use layer::view::{Finder, View};

use crate::error::BuildError;
use crate::package::compiles::{Compile, without};
use crate::package::segment::{Record, Segment};
use crate::plan::LockedPackage;

/// Where the database is.
const DATABASE: &str = "var/lib/dpkg";
/// The program that keeps the database.
pub const DPKG: &str = "usr/bin/dpkg";
/// No file of the database is larger than this.
const LARGEST_FILE: u64 = 256 << 20;

/// Tells scripts that no service may be started. See invoke-rc.d(8).
const POLICY: (&str, &str) = ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");

/// A package that waits for its scripts.
pub struct Unpacked<'a> {
    /// Its name and version.
    pub package: &'a LockedPackage,
    /// What is in it.
    pub segment: &'a Segment,
}

/// The files for the scripts to find, below the root of an upper tree.
pub struct Database<'a> {
    /// The trees of the image before the new packages.
    pub before: &'a [TreeDir],
    /// Those of the image with them laid.
    pub laid: &'a [TreeDir],
    /// The root of the upper tree.
    pub root: &'a Path,
}

impl Database<'_> {
    /// Writes the database, the policy that starts no service, and on a new system the links that the first scripts
    /// need. Returns the names under which dpkg files the packages, in their order.
    pub fn write(&self, packages: &[Unpacked<'_>]) -> Result<Vec<String>, BuildError> {
        let names = self.register(packages, PackageState::Unpacked)?;
        self.file(POLICY.0, 0o755, POLICY.1)?;
        self.first_links()?;
        self.directory(&format!("{DATABASE}/updates"))?;
        Ok(names)
    }

    /// Writes the database of packages that are complete once they are unpacked, for an image without dpkg: a child
    /// that brings dpkg finds them installed, and so does whoever reads the image to say what is in it.
    pub fn write_installed(&self, packages: &[Unpacked<'_>]) -> Result<(), BuildError> {
        self.register(packages, PackageState::Installed).map(drop)
    }

    /// Enters packages into the database.
    fn register(&self, packages: &[Unpacked<'_>], state: PackageState) -> Result<Vec<String>, BuildError> {
        let mut status = self.status()?;
        let mut triggers = self.triggers()?;
        let mut names = Vec::new();
        for Unpacked { package, segment } in packages {
            let failed = |error: Failure| BuildError::Package { package: package.label(), source: error };
            let entry = entry(&segment.record, state).map_err(failed)?;
            let name = entry.database_name();
            note_triggers(&mut triggers, &status, &name, &segment.record).map_err(failed)?;
            status.insert(entry);
            names.push(name);
        }
        self.put("status", &status.to_string())?;
        self.put("triggers/File", &triggers.file())?;
        self.put("triggers/Unincorp", &triggers.unincorp())?;
        for (trigger, text) in triggers.named() {
            self.put(&format!("triggers/{trigger}"), &text)?;
        }
        self.put("info/format", INFO_FORMAT)?;
        if self.read("diversions")?.is_none() {
            self.put("diversions", "")?;
        }
        self.forget_replaced(packages, &status)?;
        Ok(names)
    }

    /// Takes the lines out of the packages' `postinst` scripts that compile what `is_taken_out` says, for as long as
    /// the step lasts. `names` are those of [`Database::write`]. Returns the paths of the changed scripts.
    pub fn take_out(
        &self,
        packages: &[Unpacked<'_>],
        names: &[String],
        is_taken_out: &dyn Fn(&Compile) -> bool,
    ) -> Result<Vec<String>, BuildError> {
        let mut changed = Vec::new();
        for (Unpacked { segment, .. }, name) in packages.iter().zip(names) {
            if !segment.record.compiles.iter().any(is_taken_out) {
                continue;
            }
            let script = format!("{DATABASE}/info/{name}.postinst");
            let text = View::new(self.laid).read(&path(&script)?, LARGEST_FILE)?.unwrap_or_default();
            let Ok(text) = String::from_utf8(text) else { continue };
            if let Some(text) = without(&text, is_taken_out) {
                self.file(&script, 0o755, &text)?;
                changed.push(script);
            }
        }
        Ok(changed)
    }

    /// Takes away what the scripts needed and the image does not: the policy, and `changed`, which is what
    /// [`Database::take_out`] returned.
    ///
    /// Whatever a script put in its place goes too, but nothing is followed or written: a link may lead out of the
    /// tree. Where a package ships a policy of its own, that is seen again, and so are its scripts.
    pub fn clean(&self, upper: &TreeDir, changed: &[String]) -> io::Result<()> {
        let view = View::new(std::slice::from_ref(upper));
        for file in changed.iter().map(String::as_str).chain([POLICY.0]) {
            if let Some(found) = view.lookup(&path(file)?)?.filter(|found| !found.metadata.is_dir()) {
                fs::remove_file(found.path)?;
            }
        }
        Ok(())
    }

    /// Whether there was no dpkg before.
    pub fn is_new(&self) -> Result<bool, BuildError> {
        Ok(View::new(self.before).lookup(&path(DPKG)?)?.is_none())
    }

    fn status(&self) -> Result<Status, BuildError> {
        let text = self.read("status")?.unwrap_or_default();
        Status::parse(&text).map_err(|error| damaged("status", error))
    }

    fn triggers(&self) -> Result<TriggerDatabase, BuildError> {
        let mut triggers = TriggerDatabase::new();
        for name in View::new(self.before).list(&path(&format!("{DATABASE}/triggers"))?)? {
            let name = String::from_utf8_lossy(&name).into_owned();
            let text = self.read(&format!("triggers/{name}"))?.unwrap_or_default();
            let read = match name.as_str() {
                "File" => triggers.read_file(&text),
                "Unincorp" => triggers.read_unincorp(&text),
                "Lock" => Ok(()),
                name => triggers.read_named(name, &text),
            };
            read.map_err(|error| damaged(&format!("triggers/{name}"), error))?;
        }
        Ok(triggers)
    }

    /// Where a new package replaces files of one that was there, those are no longer in the other's list.
    fn forget_replaced(&self, packages: &[Unpacked<'_>], status: &Status) -> Result<(), BuildError> {
        let mut taken = std::collections::BTreeMap::new();
        let mut before = Finder::new(self.before);
        for unpacked in packages {
            for file in &unpacked.segment.record.files {
                if before.lookup(&path(file)?)?.is_some_and(|found| !found.metadata.is_dir()) {
                    taken.insert(file.as_str(), unpacked);
                }
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        for entry in status.iter() {
            let name = format!("info/{}.list", entry.database_name());
            let Some(text) = self.read(&name)? else { continue };
            let mut lost = None;
            let kept: String = text
                .split_inclusive('\n')
                .filter(|line| match path(line.trim_end()).ok().and_then(|path| taken.get(path_text(&path).as_str())) {
                    Some(by) => {
                        lost = Some((*by, line.trim_end().to_owned()));
                        false
                    }
                    None => true,
                })
                .collect();
            let Some((by, file)) = lost else { continue };
            let version = entry.version().map(ToString::to_string).unwrap_or_default();
            let loser = LockedPackage { name: entry.package().to_owned(), version, ..by.package.clone() };
            if !crate::steps::packages::replaces(by.segment, &loser)? {
                return Err(BuildError::Overlap { first: loser.label(), second: by.package.label(), path: file });
            }
            self.put(&name, &kept)?;
        }
        Ok(())
    }

    /// A new system has no `awk` before mawk is configured, and scripts that come earlier need it. These are the links
    /// that `update-alternatives` makes.
    fn first_links(&self) -> Result<(), BuildError> {
        let mawk = View::new(self.laid).lookup(&path("usr/bin/mawk")?)?;
        if !self.is_new()? || mawk.is_none() {
            return Ok(());
        }
        self.directory("usr/bin")?;
        self.directory("etc/alternatives")?;
        symlink("/etc/alternatives/awk", self.root.join("usr/bin/awk"))?;
        Ok(symlink("/usr/bin/mawk", self.root.join("etc/alternatives/awk"))?)
    }

    fn read(&self, name: &str) -> Result<Option<String>, BuildError> {
        let bytes = View::new(self.before).read(&path(&format!("{DATABASE}/{name}"))?, LARGEST_FILE)?;
        bytes.map(String::from_utf8).transpose().map_err(|error| damaged(name, error))
    }

    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        self.file(&format!("{DATABASE}/{name}"), 0o644, text)
    }

    fn file(&self, name: &str, mode: u32, text: &str) -> io::Result<()> {
        let target = self.root.join(name);
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.directory(parent)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&target)?;
        file.write_all(text.as_bytes())?;
        fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(mode))
    }

    fn directory(&self, name: &str) -> io::Result<()> {
        let mut directory = PathBuf::from(self.root);
        for part in Path::new(name) {
            directory.push(part);
            match fs::create_dir(&directory) {
                Ok(()) => fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What `status` says of a package whose files are in place and whose scripts have not run, or that has none.
fn entry(record: &Record, state: PackageState) -> Result<StatusEntry, Failure> {
    let mut conffiles = Vec::new();
    for conffile in parse_conffiles(&record.conffiles_text)? {
        let known = record.conffiles.iter().find(|(path, _)| *path == conffile.path);
        match known {
            _ if conffile.remove_on_upgrade => conffiles.push(ConffileEntry::to_remove(&conffile.path)),
            Some((path, md5)) => conffiles.push(ConffileEntry::in_place(path, md5.parse()?)),
            None => return Err(format!("its conffile {} is not among its files", conffile.path).into()),
        }
    }
    Ok(StatusEntry::from_control(&single_stanza(&record.control)?, state, conffiles)?)
}

fn note_triggers(triggers: &mut TriggerDatabase, status: &Status, name: &str, record: &Record) -> Result<(), Failure> {
    let of_package = parse_triggers(&record.triggers)?;
    let can_be_triggered = |package: &str| status.can_be_triggered(package);
    for path in &record.list {
        triggers.activate_path(path, name, can_be_triggered);
    }
    for activation in &of_package.activations {
        triggers.activate(activation, name, can_be_triggered);
    }
    triggers.set_interests(name, &of_package.interests);
    Ok(())
}

fn path(text: &str) -> io::Result<ImagePath> {
    let path = ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(crate::package::segment::merged(&path))
}

fn path_text(path: &ImagePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

fn damaged(file: &str, error: impl std::error::Error) -> BuildError {
    let message = format!("/{DATABASE}/{file} of the image is damaged: {error}");
    BuildError::Io(io::Error::new(io::ErrorKind::InvalidData, message))
}
