//! Names and passwords, as Apache's `htpasswd -B` writes them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use content::{Digest, FramedHasher};
use tokio::sync::Semaphore;

/// The largest file that is read.
const MAX_SIZE: u64 = 16 << 20;
/// The longest password that is looked at; bcrypt itself looks at 72 bytes.
const MAX_PASSWORD: usize = 4096;
/// How many passwords are checked at the same time: each takes a processor for a while.
const CHECKS: usize = 2;
/// The highest cost that is taken: one more doubles the time, and 17 takes some ten seconds.
const MAX_COST: u32 = 16;
/// What a password is compared with if there is no such user, so that the time does not tell.
const NOBODY: &str = "$2y$05$xOnpo.s91IkWJKsyv9p5neOLZFagCrzN.ZUdObtR/lf8YK1z89wXy";

/// A file of users. It is read again when it changes.
pub struct Htpasswd {
    path: PathBuf,
    users: Mutex<Users>,
    checks: Semaphore,
    /// Makes what is remembered of passwords worthless outside of this process.
    salt: [u8; 32],
}

struct Users {
    stamp: Stamp,
    hashes: HashMap<String, String>,
    /// Of each user the password that was right, hashed quickly: bcrypt is slow by intent, and clients send the
    /// password with each request.
    known: HashMap<String, Digest>,
}

type Stamp = Option<(SystemTime, u64)>;

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It is too large for what it should be.
    #[error("`{}` has more than {MAX_SIZE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is none of a user.
    #[error("`{}`, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it. It never has the line's text, which may be a password.
        problem: &'static str,
    },
    /// Nobody is in it.
    #[error("`{}` names no user", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Whether somebody may come in.
pub(crate) enum Entry {
    /// This user.
    User(String),
    /// No name was given, or none that is right.
    Refused,
}

impl Htpasswd {
    /// Reads a file. Every line is `name:hash`, with a bcrypt hash; empty lines and those that begin with `#` are passed
    /// over.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HtpasswdError> {
        let path = path.into();
        let users = Mutex::new(Users::read(&path)?);
        let mut salt = [0; 32];
        // Without random bytes nothing is lost but that the remembered hashes are as good as those of a plain sha256.
        let _ = getrandom::fill(&mut salt);
        Ok(Self { path, users, checks: Semaphore::new(CHECKS), salt })
    }

    /// Who sends these headers.
    pub(crate) async fn check(self: &std::sync::Arc<Self>, headers: &HeaderMap) -> Entry {
        let Some((user, password)) = headers.get(header::AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?))
        else {
            return Entry::Refused;
        };
        let asked = FramedHasher::new("password").field("salt", self.salt).field("user", &user);
        let asked = asked.field("password", &password).finish();
        let hash = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.refresh(&self.path);
            if users.known.get(&user) == Some(&asked) {
                return Entry::User(user);
            }
            users.hashes.get(&user).cloned()
        };
        let Ok(_place) = self.checks.acquire().await else { return Entry::Refused };
        let is_somebody = hash.is_some();
        let compared = hash.clone().unwrap_or_else(|| NOBODY.to_owned());
        let right = tokio::task::spawn_blocking(move || bcrypt::verify(password, &compared).unwrap_or(false)).await;
        if !(is_somebody && right.unwrap_or(false)) {
            return Entry::Refused;
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        // The file may have changed while the password was checked.
        if users.hashes.get(&user) == hash.as_ref() {
            users.known.insert(user.clone(), asked);
        }
        Entry::User(user)
    }
}

impl Users {
    fn read(path: &Path) -> Result<Self, HtpasswdError> {
        let failed = |source| HtpasswdError::Read { path: path.to_owned(), source };
        let stamp = stamp(path);
        if stamp.is_some_and(|(_, size)| size > MAX_SIZE) {
            return Err(HtpasswdError::TooLarge { path: path.to_owned() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let hashes =
            parse(&text).map_err(|(line, problem)| HtpasswdError::Line { path: path.to_owned(), line, problem })?;
        if hashes.is_empty() {
            return Err(HtpasswdError::Empty { path: path.to_owned() });
        }
        Ok(Self { stamp, hashes, known: HashMap::new() })
    }

    /// Reads the file again if it is another one. A file that is wrong lets in whom the one before did: nobody is locked
    /// out by half of a file that is being written.
    fn refresh(&mut self, path: &Path) {
        let stamp = stamp(path);
        if stamp == self.stamp {
            return;
        }
        match Self::read(path) {
            Ok(users) => *self = users,
            Err(error) => {
                tracing::warn!(%error, "users stay as they were");
                self.stamp = stamp;
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn parse(text: &str) -> Result<HashMap<String, String>, (usize, &'static str)> {
    let mut hashes = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) = line.split_once(':').ok_or((index + 1, "expected NAME:HASH"))?;
        if user.is_empty() {
            return Err((index + 1, "the name is empty"));
        }
        let cost = ["$2a$", "$2b$", "$2y$"].iter().find_map(|kind| hash.strip_prefix(kind)?.get(..2)?.parse().ok());
        match cost {
            None => return Err((index + 1, "expected a hash by bcrypt, as `htpasswd -B` makes it")),
            Some(4..=MAX_COST) if hash.len() == 60 => {}
            Some(_) => return Err((index + 1, "expected a hash by bcrypt with 60 characters and a cost of 4 to 16")),
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(hashes)
}

fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_PASSWORD {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    // bcrypt ends at a zero byte, so that a password with one would be another.
    if password.contains('\0') { None } else { Some((user.to_owned(), password.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn headers(user: &str, password: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn line(user: &str, password: &str) -> String {
        format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    #[tokio::test]
    async fn the_right_password_opens_and_a_changed_file_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        fs::write(&path, format!("# people\n\n{}", line("ann", "secret"))).unwrap();
        let users = Arc::new(Htpasswd::open(&path).unwrap());
        for _ in 0..2 {
            assert!(matches!(users.check(&headers("ann", "secret")).await, Entry::User(name) if name == "ann"));
        }
        for (user, password) in [("ann", "Secret"), ("ann", ""), ("bob", "secret"), ("", "")] {
            assert!(matches!(users.check(&headers(user, password)).await, Entry::Refused), "{user}:{password}");
        }
        assert!(matches!(users.check(&HeaderMap::new()).await, Entry::Refused));
        fs::write(&path, line("bob", "other")).unwrap();
        assert!(matches!(users.check(&headers("ann", "secret")).await, Entry::Refused));
        assert!(matches!(users.check(&headers("bob", "other")).await, Entry::User(_)));
        fs::write(&path, "half a li").unwrap();
        assert!(matches!(users.check(&headers("bob", "other")).await, Entry::User(_)));
    }

    #[test]
    fn lines_that_are_wrong_are_named_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        for (text, expected) in [
            ("", "names no user"),
            ("ann", "line 1: expected NAME:HASH"),
            ("\n:x", "line 2: the name is empty"),
            ("ann:secret", "line 1: expected a hash by bcrypt"),
            ("ann:$apr1$abc$def", "line 1: expected a hash by bcrypt"),
            ("ann:$2y$31$abcdefghijklmnopqrstuuQF3mRv5ZxzTgVCWwCHhPhGLXP2lDRYK", "a cost of 4 to 16"),
        ] {
            fs::write(&path, text).unwrap();
            let error = Htpasswd::open(&path).err().unwrap().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{text:?}: {error}");
        }
        assert!(Htpasswd::open(directory.path().join("absent")).is_err());
    }
}
