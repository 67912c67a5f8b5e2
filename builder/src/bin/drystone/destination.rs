//! `--output`: where images go besides the layout, as BuildKit spells it, and how they get there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use drystone::archive::{self, Format, Named};
use drystone::events::{Event, Observer};
use drystone::rootfs::Exporter;
use drystone::rootfs::directory::{LeftOut, Owners};
use oci::Platform;
use store::{Cache, Layout};

use crate::failure::Failure;
use crate::table;

/// What is written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    kind: Kind,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A layout in a directory.
    Layout,
    /// One file.
    Archive(Format),
    /// The files of one image as a tar.
    Tar,
    /// The files of one image in a directory.
    Local,
}

impl Kind {
    fn is_directory(self) -> bool {
        matches!(self, Self::Layout | Self::Local)
    }

    /// Whether it takes the files of an image, and not images.
    fn takes_files(self) -> bool {
        matches!(self, Self::Tar | Self::Local)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Stdout,
    Path(PathBuf),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected type=local|tar|oci|oci-archive|docker-archive,dest=PATH, or a directory";
        let fields: Vec<&str> = text.split(',').collect();
        // As for docker: a place alone is for the files of the image.
        if let [place] = fields[..]
            && !place.is_empty()
            && !["type=", "dest="].iter().any(|key| place.starts_with(key))
        {
            let place = place_of(place);
            let kind = if place == Place::Stdout { Kind::Tar } else { Kind::Local };
            return Ok(Self { kind, place });
        }
        let (mut kind, mut place) = (None, None);
        for field in fields {
            let (key, value) = field.split_once('=').ok_or(expected)?;
            let known = match key {
                "type" => kind.replace(kind_of(value)?).is_some(),
                "dest" if value.is_empty() => return Err(format!("`dest` is empty: {expected}")),
                "dest" => place.replace(place_of(value)).is_some(),
                _ => return Err(format!("`{key}` is not known: {expected}")),
            };
            if known {
                return Err(format!("`{key}` is given twice: {expected}"));
            }
        }
        let kind = kind.ok_or_else(|| format!("`type` is missing: {expected}"))?;
        let place = match (place, kind) {
            (Some(place), _) => place,
            (None, Kind::Tar) => Place::Stdout,
            (None, _) => return Err(format!("`dest` is missing: {expected}")),
        };
        match (kind, &place) {
            (Kind::Layout, Place::Stdout) => Err("a layout is a directory: `dest=-` is for archives".to_owned()),
            (Kind::Local, Place::Stdout) => {
                Err("`local` is a directory: `type=tar` goes to standard output".to_owned())
            }
            _ => Ok(Self { kind, place }),
        }
    }
}

fn kind_of(text: &str) -> Result<Kind, String> {
    match text {
        "oci" => Ok(Kind::Layout),
        "oci-archive" => Ok(Kind::Archive(Format::Oci)),
        "docker-archive" | "docker" => Ok(Kind::Archive(Format::Docker)),
        "tar" => Ok(Kind::Tar),
        "local" => Ok(Kind::Local),
        other => Err(format!(
            "`{other}` is not a type: there are local and tar, for the files of an image, and oci (a directory), \
             oci-archive and docker-archive, for images"
        )),
    }
}

fn place_of(text: &str) -> Place {
    if text == "-" { Place::Stdout } else { Place::Path(text.into()) }
}

/// Whether one of these is standard output, which then is for nothing else.
pub fn takes_stdout(destinations: &[Destination]) -> bool {
    destinations.iter().any(|destination| destination.place == Place::Stdout)
}

/// Whether one of these takes the files of one image, and not images.
pub fn takes_files(destinations: &[Destination]) -> bool {
    destinations.iter().any(|destination| destination.kind.takes_files())
}

/// Says what is wrong with these before anything is built.
pub fn check(destinations: &[Destination]) -> Result<(), Failure> {
    let to_stdout = destinations.iter().filter(|destination| destination.place == Place::Stdout).count();
    if to_stdout > 1 {
        return Err(Failure::Usage("only one --output can go to standard output".to_owned()));
    }
    if to_stdout == 1 && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "an archive is not for a terminal: redirect standard output, or name a file".into(),
        ));
    }
    for destination in destinations {
        if let Place::Path(path) = &destination.place {
            let twice = destinations.iter().filter(|other| other.place == destination.place).count() > 1;
            let (fills, is_directory) = (destination.kind.is_directory(), path.is_dir());
            let problem = match () {
                () if twice => "more than one --output would write it",
                () if !fills && is_directory => "it is a directory, and the archive would be a file",
                () if fills && path.exists() && !is_directory => match destination.kind {
                    Kind::Local => "it is a file, and the image's files go into a directory",
                    _ => "it is a file, and a layout is a directory",
                },
                () if !fills && !directory_of(path).is_dir() => "its directory does not exist",
                () => continue,
            };
            return Err(Failure::Usage(format!("--output to `{}`: {problem}", path.display())));
        }
    }
    Ok(())
}

/// Where images are, and who writes them elsewhere.
pub struct Writer<'a> {
    /// Where they are.
    pub layout: &'a Layout,
    /// Where files may lie meanwhile.
    pub cache: &'a Cache,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Set when somebody asks to stop.
    pub interrupt: &'a AtomicBool,
    /// Whom files belong to.
    pub owners: Owners,
}

impl Writer<'_> {
    /// Writes images to all destinations, where only one can be for `platform`. Files appear whole or not at all.
    pub fn write(&self, destinations: &[Destination], images: &[Named], platform: &Platform) -> Result<(), Failure> {
        if !destinations.is_empty() && images.is_empty() {
            return Err(Failure::new(
                "there are no images to write: those that were built are only parents for others",
            ));
        }
        for Destination { kind, place } in destinations {
            let what = match (kind, place) {
                (Kind::Archive(format), place) => {
                    let bytes = write_archive(place, self.interrupt, |out| {
                        archive::write(*format, self.layout, images, platform, out).map_err(Failure::of_archive)
                    })?;
                    format!("{}, {}", counted(images.len(), "image"), table::size(bytes))
                }
                (Kind::Layout, Place::Path(directory)) => {
                    let other = Layout::open_or_create(directory)?;
                    archive::copy_into(self.layout, &other, images).map_err(Failure::of_archive)?;
                    format!("{}, a layout", counted(images.len(), "image"))
                }
                (Kind::Tar, place) => {
                    let image = only(images)?;
                    let bytes = self.exporting(|exporter| {
                        write_archive(place, self.interrupt, |out| exporter.tar(image, out).map_err(Failure::of_rootfs))
                    })?;
                    format!("the files of {}, {}", image.0, table::size(bytes))
                }
                (Kind::Local, Place::Path(directory)) => {
                    let image = only(images)?;
                    let (files, left_out) = self.exporting(|exporter| {
                        exporter.directory(image, directory, self.owners).map_err(Failure::of_rootfs)
                    })?;
                    self.tell(left_out, directory);
                    format!("{} of {}", counted(usize::try_from(files).unwrap_or(usize::MAX), "file"), image.0)
                }
                (Kind::Layout | Kind::Local, Place::Stdout) => unreachable!("refused when it was parsed"),
            };
            let place = match place {
                Place::Stdout => "standard output".to_owned(),
                Place::Path(path) => format!("`{}`", path.display()),
            };
            self.observer.observe(Event::Note(&format!("wrote to {place}: {what}")));
        }
        Ok(())
    }

    fn exporting<T>(&self, export: impl FnOnce(&Exporter<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        let scratch = self.cache.scratch_dir()?;
        let exporter = Exporter { layout: self.layout, scratch: scratch.path(), interrupt: self.interrupt };
        let exported = export(&exporter);
        // An interrupt comes out as an error like others.
        if self.interrupt.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { exported }
    }

    fn tell(&self, left_out: LeftOut, directory: &Path) {
        let LeftOut { devices, owners, attributes } = left_out;
        let all = [(devices, "device nodes"), (owners, "owners"), (attributes, "extended attributes")];
        let some: Vec<String> =
            all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} ({count})")).collect();
        if !some.is_empty() {
            let text = format!("`{}` is without what may not be set here: {}", directory.display(), some.join(", "));
            self.observer.observe(Event::Warning(&text));
        }
    }
}

/// The only image. It may have several names.
fn only(images: &[Named]) -> Result<&Named, Failure> {
    match images {
        [first, others @ ..] if others.iter().all(|(_, manifest)| manifest.digest == first.1.digest) => Ok(first),
        _ => Err(several_images(images.len())),
    }
}

/// Says that only one image can have its files written.
pub fn several_images(count: usize) -> Failure {
    let text = format!("--output type=local and type=tar take the files of one image, and {count} were asked for");
    Failure::Usage(format!("{text}: name one"))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Gives `write` a place for an archive, and puts that in its place when it is whole. Says how many bytes it has.
fn write_archive(
    place: &Place,
    interrupt: &AtomicBool,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let fill = |inner: &mut dyn Write| {
        let mut out = Counted::new(BufWriter::with_capacity(1 << 17, inner), interrupt);
        let written = write(&mut out);
        // An interrupt comes out of the writer as an error like others.
        match interrupt.load(Ordering::Relaxed) {
            true => Err(Failure::Interrupted),
            false => written.and_then(|()| out.inner.flush().map_err(Failure::of)).map(|()| out.bytes),
        }
    };
    match place {
        Place::Stdout => fill(&mut io::stdout().lock()),
        Place::Path(path) => write_file(path, fill),
    }
}

/// Writes a file beside its place, and then puts it there. Pipes and devices are written as they are.
pub fn write_file<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<T, Failure>) -> Result<T, Failure> {
    let failed = |error: io::Error| Failure::of_storage_at(path, error);
    if path.exists() && !path.is_file() {
        let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        return fill(&mut file);
    }
    let mut file = tempfile::NamedTempFile::new_in(directory_of(path)).map_err(failed)?;
    let filled = fill(file.as_file_mut())?;
    file.as_file().sync_all().map_err(failed)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(filled)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Counts what passes, until somebody asks to stop.
pub struct Counted<'a, W> {
    inner: W,
    bytes: u64,
    interrupt: &'a AtomicBool,
}

impl<'a, W> Counted<'a, W> {
    /// Passes bytes on to `inner`.
    pub fn new(inner: W, interrupt: &'a AtomicBool) -> Self {
        Self { inner, bytes: 0, interrupt }
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_spelled_as_for_buildkit() {
        let archive = |format, place| Some(Destination { kind: Kind::Archive(format), place });
        let files = |kind, place| Some(Destination { kind, place });
        let path = |text: &str| Place::Path(text.into());
        let cases = [
            ("type=oci,dest=d", Some(Destination { kind: Kind::Layout, place: path("d") })),
            ("type=oci-archive,dest=a/b.tar", archive(Format::Oci, path("a/b.tar"))),
            ("dest=x=y.tar,type=docker-archive", archive(Format::Docker, path("x=y.tar"))),
            ("type=docker,dest=-", archive(Format::Docker, Place::Stdout)),
            ("type=oci,dest=-", None),
            ("type=oci-archive", None),
            ("dest=x", None),
            ("type=oci-archive,dest=", None),
            ("type=tar,dest=x", files(Kind::Tar, path("x"))),
            ("type=tar", files(Kind::Tar, Place::Stdout)),
            ("-", files(Kind::Tar, Place::Stdout)),
            ("type=local,dest=x", files(Kind::Local, path("x"))),
            ("out=1", files(Kind::Local, path("out=1"))),
            ("type=local", None),
            ("type=local,dest=-", None),
            ("type=loca,dest=x", None),
            ("type=oci,dest=x,dest=y", None),
            ("type=oci,dest=x,compress=y", None),
            ("a,b", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
