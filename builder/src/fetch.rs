//! Files by URL: archives' indexes and packages, over HTTP or from a directory of this machine.
//!
//! Nothing fetched is trusted: sizes are bounded, and whoever knows a digest has it checked while the bytes arrive.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use content::{Digest, HashingReader, VerifyingReader};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use url::Url;

/// The largest file taken when nobody says how large it is.
const LARGEST_FILE: u64 = 64 << 30;

/// How much is read at once.
const CHUNK: usize = 1 << 17;

/// How often a request is tried before its error is given up to the caller.
const TRIES: u32 = 4;

/// The scheme of addresses that mean stand-ins: `stand-in://NAME/path`.
pub const STAND_IN: &str = "stand-in";

/// Fetches files. Cheap to clone; connections are shared.
#[derive(Clone, Default)]
pub struct Fetcher {
    /// Made when it is needed: it takes longer than to find out that nothing has to be fetched.
    client: Arc<OnceLock<Client>>,
    /// Where the files of stand-ins are, by the host part of their address.
    stand_ins: BTreeMap<String, PathBuf>,
    /// Copies on this machine of what lies below an address.
    copies: Vec<(Url, PathBuf)>,
    /// Whether only files of this machine can be had.
    offline: bool,
}

/// Why a file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server has no such file.
    #[error("{url} does not exist (the server answered {status})")]
    Missing {
        /// What was asked for.
        url: Url,
        /// The server's answer: 404 or 410.
        status: StatusCode,
    },
    /// The server refused, after all tries.
    #[error("{url}: the server answered {status}")]
    Refused {
        /// What was asked for.
        url: Url,
        /// The server's answer.
        status: StatusCode,
    },
    /// No answer, or an answer that broke off, after all tries.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// What was asked for.
        url: Url,
        /// What the connection said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are not those that were promised.
    #[error("{url} is not what its index says, or the lock")]
    Wrong {
        /// What was asked for.
        url: Url,
        /// What differs.
        source: io::Error,
    },
    /// The file is larger than anything sensible.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: Url,
        /// The limit.
        limit: u64,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Nothing may be fetched.
    #[error("{url} is not in the cache, and with --offline nothing is fetched")]
    Offline {
        /// What was asked for.
        url: Url,
    },
    /// The bytes could not be stored.
    #[error("cannot store {url}")]
    Store {
        /// What was asked for.
        url: Url,
        /// Why.
        source: io::Error,
    },
}

/// An address as it may be shown: without a user's name and password.
pub fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    // Addresses that cannot have them have none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown
}

/// What a server said about the version of a file, to ask later whether there is a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

/// A small file, or the news that it has not changed.
pub enum Document {
    /// The server's version is the one the validators came from.
    NotModified,
    /// The file, and validators for the next time.
    New(Vec<u8>, Validators),
}

impl Fetcher {
    /// A fetcher with sensible timeouts. Proxies are taken from the environment, as curl and apt do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens no connection: what is not on this machine is an error.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Whether connections may be opened.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Whether a file can be had at all.
    pub fn may_fetch(&self, url: &Url) -> bool {
        !self.offline || self.local(url).is_some()
    }

    /// Serves `stand-in://NAME/…` from a directory of this machine.
    #[must_use]
    pub fn with_stand_ins(mut self, name: &str, directory: PathBuf) -> Self {
        self.stand_ins.insert(name.to_owned(), directory);
        self
    }

    /// Takes what lies below these addresses from directories of this machine, and what is at one of them from a file.
    #[must_use]
    pub fn with_copies(mut self, copies: Vec<(Url, PathBuf)>) -> Self {
        self.copies = copies;
        self
    }

    fn copy(&self, url: &Url) -> Option<PathBuf> {
        self.copies.iter().find_map(|(address, copy)| match url.as_str().strip_prefix(address.as_str())? {
            "" => Some(copy.clone()),
            below if address.path().ends_with('/') => {
                let path = Url::from_directory_path(copy).ok()?.join(below).ok()?.to_file_path().ok()?;
                path.starts_with(copy).then_some(path)
            }
            _ => None,
        })
    }

    /// Where a file is, if it is on this machine.
    pub fn local(&self, url: &Url) -> Option<PathBuf> {
        if let Some(copy) = self.copy(url) {
            return Some(copy);
        }
        match url.scheme() {
            "file" => url.to_file_path().ok(),
            STAND_IN => {
                let directory = self.stand_ins.get(url.host_str()?)?;
                Some(directory.join(url.path().trim_start_matches('/')))
            }
            _ => None,
        }
    }

    /// A small file, whole.
    pub fn document(&self, url: &Url, limit: u64, known: Option<&Validators>) -> Result<Document, FetchError> {
        if let Some(path) = self.local(url) {
            let read = fs::read(path).map_err(|error| local_error(url, error))?;
            return Ok(Document::New(read, Validators::default()));
        }
        retry(|| {
            let response = self.request(url, known)?;
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(Document::NotModified);
            }
            let validators = validators(response.headers());
            let mut bytes = Vec::new();
            response.take(limit + 1).read_to_end(&mut bytes).map_err(|error| broken(url, error))?;
            if bytes.len() as u64 > limit {
                return Err(Attempt::Final(FetchError::TooLarge { url: shown(url), limit }));
            }
            Ok(Document::New(bytes, validators))
        })
    }

    /// A file whose digest and size are known, into the writer that `open` gives for each try. `progress` learns of
    /// bytes as they arrive, and says whether to go on.
    pub fn file<W: Write>(
        &self,
        url: &Url,
        (digest, size): (Digest, u64),
        mut open: impl FnMut() -> io::Result<W>,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<W, FetchError> {
        let mut store = |body: &mut dyn Read| -> Result<W, Attempt> {
            let storing = |source| Attempt::Final(FetchError::Store { url: shown(url), source });
            let mut writer = open().map_err(storing)?;
            let mut reader = VerifyingReader::new(body, digest, size);
            let mut buffer = vec![0; CHUNK];
            loop {
                let length = reader.read(&mut buffer).map_err(|error| broken(url, error))?;
                if length == 0 {
                    return Ok(writer);
                }
                writer.write_all(&buffer[..length]).map_err(storing)?;
                if !progress(length as u64) {
                    return Err(Attempt::Final(FetchError::Interrupted));
                }
            }
        };
        if let Some(path) = self.local(url) {
            let mut file = fs::File::open(path).map_err(|error| local_error(url, error))?;
            return store(&mut file).map_err(Attempt::into_error);
        }
        retry(|| store(&mut self.request(url, None)?))
    }

    /// A file of which nothing is known, of at most `limit` bytes, into a writer. Returns the writer, and the digest and
    /// number of the bytes.
    pub fn any_file<W: Write>(
        &self,
        url: &Url,
        limit: u64,
        mut open: impl FnMut() -> io::Result<W>,
    ) -> Result<(W, Digest, u64), FetchError> {
        retry(|| {
            let storing = |source| Attempt::Final(FetchError::Store { url: shown(url), source });
            let mut writer = open().map_err(storing)?;
            let mut reader = HashingReader::new(self.request(url, None)?.take(limit + 1));
            copy(url, &mut reader, &mut writer)?;
            let (_, digest, size) = reader.finish();
            if size > limit {
                return Err(Attempt::Final(FetchError::TooLarge { url: shown(url), limit }));
            }
            Ok((writer, digest, size))
        })
    }

    /// A file of which only the digest is known, into a writer. Returns the writer and the number of bytes.
    pub fn file_of_unknown_size<W: Write>(
        &self,
        url: &Url,
        digest: Digest,
        open: impl FnMut() -> io::Result<W>,
    ) -> Result<(W, u64), FetchError> {
        self.unknown_file(url, Some(digest), open).map(|(writer, _, size)| (writer, size))
    }

    /// A file of which nothing is known, into a writer. Returns the writer, the digest and the number of bytes.
    pub fn file_of_unknown_digest<W: Write>(
        &self,
        url: &Url,
        open: impl FnMut() -> io::Result<W>,
    ) -> Result<(W, Digest, u64), FetchError> {
        self.unknown_file(url, None, open)
    }

    fn unknown_file<W: Write>(
        &self,
        url: &Url,
        expected: Option<Digest>,
        mut open: impl FnMut() -> io::Result<W>,
    ) -> Result<(W, Digest, u64), FetchError> {
        let mut store = |body: &mut dyn Read| -> Result<(W, Digest, u64), Attempt> {
            let storing = |source| Attempt::Final(FetchError::Store { url: shown(url), source });
            let mut writer = open().map_err(storing)?;
            let mut reader = HashingReader::new(body.take(LARGEST_FILE));
            copy(url, &mut reader, &mut writer)?;
            let (_, found, size) = reader.finish();
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                let message = format!("expected {expected}, but the bytes hash to {found}");
                let source = io::Error::new(io::ErrorKind::InvalidData, message);
                return Err(Attempt::Again(FetchError::Wrong { url: shown(url), source }, None));
            }
            Ok((writer, found, size))
        };
        if let Some(path) = self.local(url) {
            let mut file = fs::File::open(path).map_err(|error| local_error(url, error))?;
            return store(&mut file).map_err(Attempt::into_error);
        }
        retry(|| store(&mut self.request(url, None)?))
    }

    fn client(&self) -> Result<&Client, reqwest::Error> {
        if let Some(made) = self.client.get() {
            return Ok(made);
        }
        let new = client(Duration::from_secs(20), Duration::from_secs(60))?;
        Ok(self.client.get_or_init(|| new))
    }

    fn request(&self, url: &Url, known: Option<&Validators>) -> Result<Response, Attempt> {
        if self.offline {
            return Err(Attempt::Final(FetchError::Offline { url: shown(url) }));
        }
        let client = self.client().map_err(|error| Attempt::Final(unreachable(url, error)))?;
        let mut request = client.get(url.clone());
        if let Some(etag) = known.and_then(|known| known.etag.as_deref()) {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(time) = known.and_then(|known| known.last_modified.as_deref()) {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
        let response = request.send().map_err(|error| broken(url, error.without_url()))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let url = shown(url);
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Attempt::Final(FetchError::Missing { url, status }),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Attempt::Again(FetchError::Refused { url, status }, retry_after(response.headers()))
            }
            status if status.is_server_error() => {
                Attempt::Again(FetchError::Refused { url, status }, retry_after(response.headers()))
            }
            status => Attempt::Final(FetchError::Refused { url, status }),
        })
    }
}

/// A client that waits so long for a connection, and so long each time for an answer or more of it.
pub(crate) fn client(connection: Duration, answer: Duration) -> Result<Client, reqwest::Error> {
    let builder = || {
        Client::builder()
            .user_agent(concat!("drystone/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connection)
            .timeout(answer)
            .tcp_keepalive(Duration::from_secs(30))
    };
    // A small container has no certificates; what needs none of them can be reached all the same.
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

/// A failed try.
enum Attempt {
    /// Another try may succeed, after this pause if the server named one.
    Again(FetchError, Option<Duration>),
    Final(FetchError),
}

impl Attempt {
    fn into_error(self) -> FetchError {
        match self {
            Self::Again(error, _) | Self::Final(error) => error,
        }
    }
}

fn retry<T>(mut attempt: impl FnMut() -> Result<T, Attempt>) -> Result<T, FetchError> {
    let mut pause = Duration::from_millis(300);
    for _ in 1..TRIES {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(_, asked)) => std::thread::sleep(asked.unwrap_or(pause)),
        }
        pause *= 3;
    }
    attempt().map_err(Attempt::into_error)
}

/// The pause a server asks for in seconds, within reason.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(u64::min(seconds, 60)))
}

fn validators(headers: &HeaderMap) -> Validators {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Validators { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
}

/// Whether the bytes that arrived, and not the connection, are at fault.
fn is_wrong(error: &io::Error) -> bool {
    let of_content = error.get_ref().is_some_and(|cause| !cause.is::<reqwest::Error>());
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) && of_content
}

/// Wrong bytes may come from a proxy's bad copy; a second try that gives them again is final in effect.
fn broken(url: &Url, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Attempt {
    let url = shown(url);
    let error = error.into();
    match error.downcast::<io::Error>() {
        Ok(error) if is_wrong(&error) => Attempt::Again(FetchError::Wrong { url, source: *error }, None),
        Ok(error) => Attempt::Again(FetchError::Unreachable { url, source: error }, None),
        Err(source) => Attempt::Again(FetchError::Unreachable { url, source }, None),
    }
}

fn unreachable(url: &Url, error: reqwest::Error) -> FetchError {
    FetchError::Unreachable { url: shown(url), source: error.into() }
}

fn local_error(url: &Url, error: io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::NotFound => FetchError::Missing { url: shown(url), status: StatusCode::NOT_FOUND },
        _ => FetchError::Unreachable { url: shown(url), source: error.into() },
    }
}
/// Copies all of a body.
fn copy(url: &Url, body: &mut dyn Read, writer: &mut dyn Write) -> Result<(), Attempt> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = body.read(&mut buffer).map_err(|error| broken(url, error))?;
        if length == 0 {
            return Ok(());
        }
        let stored = writer.write_all(&buffer[..length]);
        stored.map_err(|source| Attempt::Final(FetchError::Store { url: shown(url), source }))?;
    }
}
