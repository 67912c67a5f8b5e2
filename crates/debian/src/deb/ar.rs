//! The `ar` container of a `.deb`, read from front to back.

use std::io::{self, Read, Take};

use super::DebError;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// An archive between two members.
#[derive(Debug)]
pub(super) struct Ar<R> {
    reader: R,
}

/// A member's name and size.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) size: u64,
}

impl<R: Read> Ar<R> {
    pub(super) fn open(mut reader: R) -> Result<Self, DebError> {
        let mut magic = [0; MAGIC.len()];
        let read = read_up_to(&mut reader, &mut magic, "the ar magic")?;
        if read < magic.len() || &magic != MAGIC { Err(DebError::Magic) } else { Ok(Self { reader }) }
    }

    /// The header of the next member, or nothing at the end of the archive. The member must be read next.
    pub(super) fn next(&mut self) -> Result<Option<Header>, DebError> {
        let mut bytes = [0; HEADER_BYTES];
        match read_up_to(&mut self.reader, &mut bytes, "a member's header")? {
            0 => Ok(None),
            HEADER_BYTES => parse_header(&bytes).map(Some),
            _ => Err(DebError::Truncated { place: "a member's header".to_owned() }),
        }
    }

    /// Reads a whole member of at most `limit` bytes.
    pub(super) fn read_small(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>, DebError> {
        if header.size > limit {
            return Err(DebError::TooLarge { member: header.name.clone(), limit });
        }
        let mut bytes = Vec::new();
        let mut member = (&mut self.reader).take(header.size);
        member.read_to_end(&mut bytes).map_err(|source| read_error(&header.name, source))?;
        if bytes.len() as u64 != header.size {
            return Err(DebError::Truncated { place: format!("the member `{}`", header.name) });
        }
        self.skip_padding(header.size)?;
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, header: &Header) -> Result<(), DebError> {
        let mut member = (&mut self.reader).take(header.size);
        let skipped = io::copy(&mut member, &mut io::sink()).map_err(|source| read_error(&header.name, source))?;
        if skipped != header.size {
            return Err(DebError::Truncated { place: format!("the member `{}`", header.name) });
        }
        self.skip_padding(header.size)
    }

    /// A reader of the member whose header was read last.
    pub(super) fn member(self, header: &Header) -> Member<R> {
        Member { reader: self.reader.take(header.size), size: header.size }
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// Members begin at even offsets.
    fn skip_padding(&mut self, size: u64) -> Result<(), DebError> {
        let mut padding = [0; 1];
        // A last member's padding is sometimes missing; a wrong one shows when the next header is read.
        if size % 2 == 1 && read_up_to(&mut self.reader, &mut padding, "a member's padding")? == 1 && padding != *b"\n"
        {
            return Err(DebError::Header { found: printable(&padding) });
        }
        Ok(())
    }
}

/// A member while it is read.
#[derive(Debug)]
pub(super) struct Member<R> {
    reader: Take<R>,
    size: u64,
}

impl<R: Read> Member<R> {
    /// The archive behind the member, if it was read to its end.
    pub(super) fn finish(self, name: &str) -> Result<Ar<R>, DebError> {
        if self.reader.limit() != 0 {
            return Err(DebError::Truncated { place: format!("the member `{name}`") });
        }
        let mut ar = Ar { reader: self.reader.into_inner() };
        ar.skip_padding(self.size)?;
        Ok(ar)
    }
}

impl<R: Read> Read for Member<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, DebError> {
    let invalid = || DebError::Header { found: printable(bytes) };
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or_else(invalid)?;
    // dpkg-deb writes plain names, GNU ar ends them with a slash.
    let name = text[..16].trim_end().trim_end_matches('/');
    let size = text[48..58].trim_end();
    let is_number = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    if name.is_empty() || name.contains('/') || !is_number || &text[58..] != "`\n" {
        return Err(invalid());
    }
    Ok(Header { name: name.to_owned(), size: size.parse().map_err(|_| invalid())? })
}

/// Fills the buffer as far as the reader goes.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8], place: &str) -> Result<usize, DebError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(read_error(place, source)),
        }
    }
    Ok(filled)
}

fn read_error(member: &str, source: io::Error) -> DebError {
    DebError::Read { member: member.to_owned(), source }
}

fn printable(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| char::from(*byte)).collect()
}
