//! The reader of `.deb` archives (deb(5)): an `ar` archive of `debian-binary`, `control.tar` and `data.tar`.
//!
//! The control archive is small and read at once; the data archive is handed on as a stream. Everything a hostile
//! archive could grow is bounded: the control archive, the memory of decompressors, and by the caller the data.

mod ar;
mod compression;
mod control;

use std::io::{self, Read};

use ar::{Ar, Header};
use compression::{Compression, Decoder};
pub use control::{ControlArchive, ControlError, ControlFile};

/// The largest uncompressed `control.tar`; Debian's largest is a few MiB of md5sums.
const MAX_CONTROL_BYTES: u64 = 32 << 20;

/// How many members may stand before `control.tar` and `data.tar`, and after; their names begin with `_`.
const MAX_EXTRA_MEMBERS: usize = 16;

/// A `.deb` of which the control archive has been read, and the data archive comes next.
#[derive(Debug)]
pub struct DebReader<R> {
    ar: Ar<R>,
    control: ControlArchive,
}

impl<R: Read> DebReader<R> {
    /// Reads the beginning of a `.deb`, up to and including its control archive. `reader` is read in small pieces:
    /// give it a buffer if that is expensive.
    pub fn new(reader: R) -> Result<Self, DebError> {
        let mut ar = Ar::open(reader)?;
        check_format(&mut ar)?;
        let (header, compression) = find_member(&mut ar, "control.tar")?;
        let mut data = Data::start(ar, header, compression, MAX_CONTROL_BYTES)?;
        let control = ControlArchive::read(&mut data);
        let control = control.map_err(|error| DebError::Control { source: Box::new(error) })?;
        let ar = data.finish()?;
        Ok(Self { ar, control })
    }

    /// The control archive.
    pub fn control(&self) -> &ControlArchive {
        &self.control
    }

    /// The uncompressed data archive, a tar, of at most `limit` bytes: reading more is an error.
    pub fn data(mut self, limit: u64) -> Result<DataReader<R>, DebError> {
        let (header, compression) = find_member(&mut self.ar, "data.tar")?;
        Ok(DataReader { state: State::Reading(Box::new(Data::start(self.ar, header, compression, limit)?)) })
    }

    /// The control archive, for those who do not need the reader any more.
    pub fn into_control(self) -> ControlArchive {
        self.control
    }
}

/// Checks the first member, which says which version of the format follows.
fn check_format<R: Read>(ar: &mut Ar<R>) -> Result<(), DebError> {
    let header = ar.next()?.ok_or(DebError::MissingMember { name: "debian-binary" })?;
    if header.name != "debian-binary" {
        return Err(DebError::Member { expected: "debian-binary", found: header.name });
    }
    let text = ar.read_small(&header, 64)?;
    let version = String::from_utf8_lossy(&text);
    let is_known = version.lines().next().is_some_and(|line| line.starts_with("2."));
    if is_known { Ok(()) } else { Err(DebError::FormatVersion { found: version.trim().to_owned() }) }
}

/// Goes to the member with this name and a suffix that says how it is compressed, over members that may be ignored.
fn find_member<R: Read>(ar: &mut Ar<R>, wanted: &'static str) -> Result<(Header, Compression), DebError> {
    for _ in 0..=MAX_EXTRA_MEMBERS {
        let header = ar.next()?.ok_or(DebError::MissingMember { name: wanted })?;
        if header.name.starts_with('_') {
            ar.skip(&header)?;
            continue;
        }
        let suffix = header.name.strip_prefix(wanted);
        let suffix = suffix.ok_or_else(|| DebError::Member { expected: wanted, found: header.name.clone() })?;
        let compression = Compression::of_suffix(suffix);
        let compression = compression.ok_or_else(|| DebError::Compression { member: header.name.clone() })?;
        return Ok((header, compression));
    }
    Err(DebError::TooManyMembers)
}

/// Reads the uncompressed data archive.
///
/// The end of the stream is reached only if the whole `.deb` was right: the last read checks that the compressed data
/// ended where its member ends, and that nothing but ignorable members follow.
#[derive(Debug)]
pub struct DataReader<R> {
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    Reading(Box<Data<R>>),
    /// The archive was read to its end; nothing if that showed an error.
    Finished(Option<R>),
}

impl<R: Read> DataReader<R> {
    /// Reads what is left, checks the rest of the `.deb`, and returns the reader it came from. Call it after a reader
    /// of tar, which may stop before the end.
    pub fn finish(mut self) -> io::Result<R> {
        io::copy(&mut self, &mut io::sink())?;
        match self.state {
            State::Finished(Some(reader)) => Ok(reader),
            _ => Err(io::Error::other("the archive was read to an error before")),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        let State::Reading(data) = std::mem::replace(&mut self.state, State::Finished(None)) else { return Ok(()) };
        let reader = data.finish().and_then(check_rest).map_err(io::Error::from)?;
        self.state = State::Finished(Some(reader));
        Ok(())
    }
}

impl<R: Read> Read for DataReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let State::Reading(data) = &mut self.state else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = data.read(buffer)?;
        if read == 0 {
            self.close()?;
        }
        Ok(read)
    }
}

/// Checks that only ignorable members follow, and returns the reader at its end.
fn check_rest<R: Read>(mut ar: Ar<R>) -> Result<R, DebError> {
    for _ in 0..=MAX_EXTRA_MEMBERS {
        let Some(header) = ar.next()? else { return Ok(ar.into_inner()) };
        if !header.name.starts_with('_') {
            return Err(DebError::TrailingMember { name: header.name });
        }
        ar.skip(&header)?;
    }
    Err(DebError::TooManyMembers)
}

/// One compressed member while it is read.
#[derive(Debug)]
struct Data<R> {
    decoder: Decoder<ar::Member<R>>,
    name: String,
    limit: u64,
    read: u64,
}

impl<R: Read> Data<R> {
    fn start(ar: Ar<R>, header: Header, compression: Compression, limit: u64) -> Result<Self, DebError> {
        let name = header.name.clone();
        let decoder = Decoder::new(compression, ar.member(&header));
        let decoder = decoder.map_err(|source| DebError::Read { member: name.clone(), source })?;
        Ok(Self { decoder, name, limit, read: 0 })
    }

    /// The archive behind the member, if the member was read to its last byte.
    fn finish(mut self) -> Result<Ar<R>, DebError> {
        // The control archive's reader stops at the end of its tar; there may be padding behind.
        io::copy(&mut self, &mut io::sink()).map_err(|source| DebError::Read { member: self.name.clone(), source })?;
        let member = self.decoder.into_inner().ok_or_else(|| DebError::TrailingBytes { member: self.name.clone() })?;
        member.finish(&self.name)
    }
}

impl<R: Read> Read for Data<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.read += read as u64;
        if self.read > self.limit {
            let error = DebError::TooLarge { member: self.name.clone(), limit: self.limit };
            return Err(error.into());
        }
        Ok(read)
    }
}

/// Why a `.deb` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It is not an `ar` archive.
    #[error("this is not a .deb: it does not begin with `!<arch>`")]
    Magic,
    /// The bytes end too early.
    #[error("the .deb is truncated in {place}")]
    Truncated {
        /// Where it ends.
        place: String,
    },
    /// A member's header is not one.
    #[error("expected the header of an ar member, found {found:?}")]
    Header {
        /// What is there instead.
        found: String,
    },
    /// A member is missing.
    #[error("expected a member `{name}`, found the end of the .deb")]
    MissingMember {
        /// The member's name.
        name: &'static str,
    },
    /// Another member is where one is expected.
    #[error("expected the member `{expected}`, found `{found}`")]
    Member {
        /// The expected member's name, or how it begins.
        expected: &'static str,
        /// The member that is there.
        found: String,
    },
    /// There are too many members that mean nothing.
    #[error("the .deb has more than {MAX_EXTRA_MEMBERS} members that mean nothing")]
    TooManyMembers,
    /// The format has a version that is not known.
    #[error("expected version 2 of the .deb format, found `{found}`")]
    FormatVersion {
        /// What `debian-binary` says.
        found: String,
    },
    /// A member is compressed in an unknown way.
    #[error("the member `{member}` is compressed in a way that is not known: expected none, .gz, .xz or .zst")]
    Compression {
        /// The member's name.
        member: String,
    },
    /// A member cannot be read or decompressed.
    #[error("cannot read the member `{member}`")]
    Read {
        /// The member's name.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// A member is larger than allowed when decompressed.
    #[error("the member `{member}` has more than {limit} bytes when decompressed")]
    TooLarge {
        /// The member's name.
        member: String,
        /// What is allowed.
        limit: u64,
    },
    /// A member has bytes behind its compressed data.
    #[error("the member `{member}` has bytes behind its compressed data")]
    TrailingBytes {
        /// The member's name.
        member: String,
    },
    /// There is a member behind the data archive.
    #[error("expected the end of the .deb behind the data, found a member `{name}`")]
    TrailingMember {
        /// The member's name.
        name: String,
    },
    /// The control archive is wrong.
    #[error("the control archive is not usable")]
    Control {
        /// What is wrong with it.
        source: Box<ControlError>,
    },
}

impl From<DebError> for io::Error {
    fn from(error: DebError) -> Self {
        let kind = match &error {
            DebError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            DebError::Read { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests;
