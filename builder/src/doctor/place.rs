//! The directories that a build writes to: whether it may, on what they are, and how much room there is.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use sandbox::Rung;

use super::{Check, Status};

/// A build of a few images needs about as much.
const LITTLE_SPACE: u64 = 5 << 30;
/// A tree of one image can have as many files.
const FEW_FILES: u64 = 100_000;

/// File systems by the number that the kernel gives them, and whether overlayfs can keep changes on them.
const FILE_SYSTEMS: [(u64, &str, bool); 18] = [
    (0xef53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683e, "btrfs", true),
    (0x0102_1994, "tmpfs", true),
    (0xf2f5_2010, "f2fs", true),
    (0x2fc1_2fc1, "zfs", true),
    (0xca45_1a4e, "bcachefs", true),
    (0x8584_58f6, "ramfs", true),
    (0x794c_7630, "overlayfs", false),
    (0x6969, "NFS", false),
    (0x0102_1997, "9p", false),
    (0x6573_5546, "FUSE", false),
    (0xff53_4d42, "CIFS", false),
    (0xfe53_4d42, "SMB", false),
    (0x4d44, "vfat", false),
    (0x2011_bab0, "exfat", false),
    (0x7371_7368, "squashfs", false),
    (0xe0f5_e1e2, "erofs", false),
];

/// The cache's directory.
pub(super) fn cache(path: Option<&Path>, taken: Rung) -> Vec<Check> {
    const OTHER: &str = "choose another directory with --cache-dir or DRYSTONE_CACHE_DIR";
    let Some(path) = path else {
        let found = "not known: neither XDG_CACHE_HOME nor HOME is set";
        return vec![Check::new("cache", Status::Fail, found).fix("say with --cache-dir DIR where downloads are kept")];
    };
    let place = Place::find(path);
    let mut checks = vec![place.check("cache", OTHER)];
    if let Some(directory) = &place.existing {
        checks.push(file_system(directory, place.writable.is_ok(), taken));
        checks.extend(space("cache space", directory, OTHER));
    }
    checks
}

/// The layout's directory.
pub(super) fn layout(path: &Path) -> Vec<Check> {
    const OTHER: &str = "choose another directory with --layout or DRYSTONE_LAYOUT";
    let place = Place::find(path);
    let mut checks = vec![place.check("layout", OTHER)];
    if let Some(directory) = &place.existing {
        checks.extend(space("layout space", directory, OTHER));
    }
    checks
}

/// A directory that is there, or could be made.
struct Place<'a> {
    path: &'a Path,
    /// The directory itself, or the nearest one above it that is there.
    existing: Option<PathBuf>,
    /// Whether something can be made in that.
    writable: Result<(), io::Error>,
}

impl<'a> Place<'a> {
    fn find(path: &'a Path) -> Self {
        for candidate in path.ancestors() {
            // Above a relative path is the directory that the program was started in.
            let candidate = if candidate.as_os_str().is_empty() { Path::new(".") } else { candidate };
            match fs::metadata(candidate) {
                Ok(metadata) if metadata.is_dir() => {
                    return Self { path, existing: Some(candidate.to_path_buf()), writable: may_write(candidate) };
                }
                Ok(_) => return Self { path, existing: None, writable: Err(Errno::NOTDIR.into()) },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Self { path, existing: None, writable: Err(error) },
            }
        }
        Self { path, existing: None, writable: Err(Errno::NOENT.into()) }
    }

    fn check(&self, name: &str, other: &str) -> Check {
        let path = self.path.display();
        match (&self.existing, &self.writable) {
            (Some(existing), Ok(())) if existing == self.path => {
                Check::new(name, Status::Ok, format!("{path}, writable"))
            }
            (Some(_), Ok(())) => Check::new(name, Status::Ok, format!("{path}, which a build will make")),
            (Some(existing), Err(error)) if existing == self.path => {
                Check::new(name, Status::Fail, format!("{path} cannot be written to: {error}")).fix(other)
            }
            (_, Err(error)) => Check::new(name, Status::Fail, format!("{path} cannot be made: {error}")).fix(other),
            (None, Ok(())) => Check::new(name, Status::Fail, format!("{path} cannot be made")).fix(other),
        }
    }
}

fn may_write(directory: &Path) -> Result<(), io::Error> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    Ok(rustix::fs::accessat(CWD, directory, wanted, AtFlags::EACCESS)?)
}

/// Whether a sandbox can work on what is there.
fn file_system(directory: &Path, writable: bool, taken: Rung) -> Check {
    let name = "cache file system";
    let number = match rustix::fs::statfs(directory) {
        Ok(found) => found.f_type.cast_unsigned(),
        Err(error) => return Check::new(name, Status::Warn, format!("cannot be asked: {error}")),
    };
    let attributes = if writable { user_attributes(directory) } else { None };
    of_file_system(number, attributes, taken)
}

fn of_file_system(number: u64, attributes: Option<bool>, taken: Rung) -> Check {
    let name = "cache file system";
    let known = FILE_SYSTEMS.iter().find(|(known, ..)| *known == number);
    let kind = known.map_or_else(|| format!("file system {number:#x}"), |(_, kind, _)| (*kind).to_owned());
    let mounts = matches!(taken, Rung::Root | Rung::Userns | Rung::UsernsSingle);
    let fix = "keep the cache on a local disk or a volume, with --cache-dir or DRYSTONE_CACHE_DIR";
    match (known.map(|(.., fit)| *fit), attributes) {
        (Some(false), _) => {
            let found = format!("{kind}, on which overlayfs cannot keep changes");
            Check::new(name, if mounts { Status::Fail } else { Status::Info }, found).fix(fix)
        }
        (_, Some(false)) => {
            let found = format!("{kind}, which keeps no user attributes; overlayfs in a user namespace needs them");
            Check::new(name, if taken == Rung::UsernsSingle { Status::Fail } else { Status::Warn }, found).fix(fix)
        }
        (Some(true), Some(true)) => {
            Check::new(name, Status::Ok, format!("{kind}, fit for overlayfs; keeps user attributes"))
        }
        (Some(true), None) => Check::new(name, Status::Ok, format!("{kind}, fit for overlayfs")),
        (None, _) => Check::new(name, Status::Info, format!("{kind}, of which nothing is known")),
    }
}

/// Whether files there can have attributes of the user's, tried on a file without a name; none if that is not possible.
fn user_attributes(directory: &Path) -> Option<bool> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).ok()?;
    match rustix::fs::fsetxattr(file.as_fd(), layer::record::RECORD_XATTR, b"0:1", XattrFlags::empty()) {
        Ok(()) => Some(true),
        Err(Errno::OPNOTSUPP) => Some(false),
        Err(_) => None,
    }
}

fn space(name: &str, directory: &Path, other: &str) -> Option<Check> {
    let found = rustix::fs::statvfs(directory).ok()?;
    // A file system that has no fixed number of files says 0.
    let files = (found.f_files > 0).then_some(found.f_favail);
    Some(of_space(name, found.f_bavail.saturating_mul(found.f_frsize), files, other))
}

fn of_space(name: &str, bytes: u64, files: Option<u64>, other: &str) -> Check {
    let gigabytes = bytes as f64 / f64::from(1 << 30);
    let fix = format!("free some, or {other}");
    match files {
        _ if bytes < LITTLE_SPACE => {
            Check::new(name, Status::Warn, format!("{gigabytes:.1} GiB free, which is little")).fix(fix)
        }
        Some(files) if files < FEW_FILES => {
            Check::new(name, Status::Warn, format!("{gigabytes:.1} GiB free, but room for {files} files only")).fix(fix)
        }
        _ => Check::new(name, Status::Ok, format!("{gigabytes:.1} GiB free")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_could_be_made_is_fine_and_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not/there");
        let checks = cache(Some(&path), Rung::Root);
        assert_eq!(checks[0].status, Status::Ok);
        assert!(checks[0].found.ends_with("not/there, which a build will make"), "{}", checks[0].found);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(cache(Some(directory.path()), Rung::Root)[0].found.ends_with(", writable"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_and_a_cache_nobody_named_are_failures() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = &layout(&file.path().join("below"))[0];
        assert_eq!(check.status, Status::Fail);
        assert!(check.fix.as_ref().unwrap().contains("--layout"), "{check:?}");
        let check = &cache(None, Rung::Root)[0];
        assert!(check.status == Status::Fail && check.fix.as_ref().unwrap().contains("--cache-dir"), "{check:?}");
    }

    #[test]
    fn what_overlayfs_cannot_use_fails_only_where_a_sandbox_mounts_it() {
        let overlayfs = 0x794c_7630;
        assert_eq!(of_file_system(overlayfs, Some(true), Rung::UsernsSingle).status, Status::Fail);
        assert_eq!(of_file_system(overlayfs, Some(true), Rung::Chroot).status, Status::Info);
        assert_eq!(of_file_system(0xef53, Some(true), Rung::Root).status, Status::Ok);
        assert_eq!(of_file_system(0x0102_1994, Some(false), Rung::UsernsSingle).status, Status::Fail);
        assert_eq!(of_file_system(0x0102_1994, Some(false), Rung::Root).status, Status::Warn);
        assert_eq!(of_file_system(0x1234, None, Rung::Root).found, "file system 0x1234, of which nothing is known");
    }

    #[test]
    fn little_space_is_told_before_it_is_missed() {
        let of = |bytes, files| of_space("cache space", bytes, files, "choose another directory");
        assert_eq!(of(LITTLE_SPACE, None), Check::new("cache space", Status::Ok, "5.0 GiB free"));
        assert_eq!(of(1 << 30, None).status, Status::Warn);
        assert_eq!(of(1 << 40, Some(10)).found, "1024.0 GiB free, but room for 10 files only");
    }
}
