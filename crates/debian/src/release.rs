//! A suite's `Release` file: which indexes it has, by digest, and until when they may be trusted.
//!
//! The text must have been verified before (see [`crate::signature`]); nothing here knows whether it was.

use std::collections::BTreeMap;

use content::Digest;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::deb822::{Deb822Error, Field, Stanza, single_stanza};
use crate::package::is_safe_path;

/// How far in the future a `Release` may have been made, in seconds: clocks differ. apt allows the same.
pub const MAX_CLOCK_SKEW: i64 = 10;

/// The most files that a `Release` may list; Debian's lists some thousands.
const MAX_FILES: usize = 200_000;

/// What a `Release` file says.
#[derive(Clone, Debug)]
pub struct Release {
    /// Who made the archive.
    pub origin: Option<String>,
    /// The suite's role, such as `stable`.
    pub suite: Option<String>,
    /// The suite's own name, such as `bookworm`.
    pub codename: Option<String>,
    /// When it was made, in seconds since 1970.
    pub date: i64,
    /// When it stops being valid, in seconds since 1970; never if there is none.
    pub valid_until: Option<i64>,
    /// The architectures it has.
    pub architectures: Vec<String>,
    /// The components it has, such as `main`.
    pub components: Vec<String>,
    /// Whether indexes can be fetched by their digest.
    pub acquire_by_hash: bool,
    files: BTreeMap<String, ReleaseFile>,
}

/// A file that a `Release` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseFile {
    /// The digest of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
}

impl Release {
    /// Reads the verified text of a `Release` or `InRelease` file.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let stanza = single_stanza(text)?;
        let owned = |name| stanza.get(name).map(str::to_owned);
        let words =
            |name| stanza.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Ok(Self {
            origin: owned("Origin"),
            suite: owned("Suite"),
            codename: owned("Codename"),
            date: date(&stanza, "Date")?.ok_or(ReleaseError::Missing { field: "Date" })?,
            valid_until: date(&stanza, "Valid-Until")?,
            architectures: words("Architectures"),
            components: words("Components"),
            acquire_by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            files: files(&stanza)?,
        })
    }

    /// The file with this path relative to the `Release` file, if it is listed.
    pub fn file(&self, path: &str) -> Option<ReleaseFile> {
        self.files.get(path).copied()
    }

    /// All listed files, by path relative to the `Release` file.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, ReleaseFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), *file))
    }

    /// Whether the release may be used at `now` (seconds since 1970).
    pub fn check_validity(&self, now: i64) -> Result<(), ReleaseError> {
        if self.date > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(ReleaseError::FromTheFuture { date: readable(self.date), now: readable(now) });
        }
        match self.valid_until {
            Some(until) if until < now => {
                Err(ReleaseError::Expired { valid_until: readable(until), now: readable(now) })
            }
            _ => Ok(()),
        }
    }

    /// Whether this is the suite that was asked for, by its suite or code name.
    pub fn check_suite(&self, wanted: &str) -> Result<(), ReleaseError> {
        let names = [self.suite.as_deref(), self.codename.as_deref()];
        if names.contains(&Some(wanted)) {
            return Ok(());
        }
        let found = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Err(ReleaseError::OtherSuite { wanted: wanted.to_owned(), found })
    }
}

fn date(stanza: &Stanza<'_>, field: &'static str) -> Result<Option<i64>, ReleaseError> {
    let Some(text) = stanza.get(field) else { return Ok(None) };
    // `UTC` is what Debian writes and RFC 2822 does not know.
    let normalised = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |start| format!("{start}+0000"));
    match DateTimeParser::new().parse_timestamp(&normalised) {
        Ok(timestamp) => Ok(Some(timestamp.as_second())),
        Err(source) => Err(ReleaseError::Date { field, text: text.chars().take(80).collect(), source }),
    }
}

fn readable(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("@{seconds}"), |time| time.to_string())
}

fn files(stanza: &Stanza<'_>) -> Result<BTreeMap<String, ReleaseFile>, ReleaseError> {
    let field = stanza.fields().find(|field| field.name.eq_ignore_ascii_case("SHA256"));
    let lines = field.map(Field::lines).ok_or(ReleaseError::Missing { field: "SHA256" })?;
    let mut files = BTreeMap::new();
    for line in lines {
        let (path, file) = file(line).ok_or_else(|| ReleaseError::File { text: line.chars().take(200).collect() })?;
        if files.len() == MAX_FILES {
            return Err(ReleaseError::TooManyFiles);
        }
        if files.insert(path.to_owned(), file).is_some_and(|before| before != file) {
            return Err(ReleaseError::Contradiction { path: path.to_owned() });
        }
    }
    Ok(files)
}

fn file(line: &str) -> Option<(&str, ReleaseFile)> {
    let mut words = line.split_ascii_whitespace();
    let digest = Digest::from_hex(words.next()?).ok()?;
    let size = words.next()?.parse().ok()?;
    let path = words.next().filter(|path| is_safe_path(path))?;
    words.next().is_none().then_some((path, ReleaseFile { digest, size }))
}

/// Why a `Release` file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The text is not in the control file format.
    #[error(transparent)]
    Format(#[from] Deb822Error),
    /// A field is missing.
    #[error("expected a field `{field}`, found none")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// A date is none.
    #[error("the field `{field}` is not a date: `{text}`")]
    Date {
        /// The field's name.
        field: &'static str,
        /// Its value.
        text: String,
        /// Why it is none.
        source: jiff::Error,
    },
    /// An entry of `SHA256` is none.
    #[error("expected `SHA256 SIZE PATH`, found `{text}`")]
    File {
        /// The entry.
        text: String,
    },
    /// A path is listed with two digests.
    #[error("`{path}` is listed twice, with different digests")]
    Contradiction {
        /// The path.
        path: String,
    },
    /// There are too many entries.
    #[error("more than {MAX_FILES} files are listed")]
    TooManyFiles,
    /// The release is too old to be trusted.
    #[error("it was valid until {valid_until}, and it is {now}")]
    Expired {
        /// When it stopped being valid.
        valid_until: String,
        /// The time it was checked for.
        now: String,
    },
    /// The release was made later than now.
    #[error("it was made at {date}, but it is only {now}")]
    FromTheFuture {
        /// When it was made.
        date: String,
        /// The time it was checked for.
        now: String,
    },
    /// The release is another suite's.
    #[error("expected the suite `{wanted}`, found {found}")]
    OtherSuite {
        /// The suite that was asked for.
        wanted: String,
        /// The names it gives itself.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "\
Origin: Debian
Suite: oldstable
Codename: bookworm
Date: Sat, 14 Nov 2026 09:12:33 UTC
Valid-Until: Sat, 21 Nov 2026 09:12:33 UTC
Acquire-By-Hash: yes
Architectures: all amd64 arm64
Components: main contrib
MD5Sum:
 d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/Packages
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855       20 main/binary-amd64/Packages.xz
";
    const DATE: i64 = 1_794_647_553;

    #[test]
    fn a_release_tells_its_names_dates_and_files() {
        let release = Release::parse(RELEASE).unwrap();
        assert_eq!((release.date, release.valid_until), (DATE, Some(DATE + 7 * 86_400)));
        assert_eq!(release.architectures, ["all", "amd64", "arm64"]);
        assert_eq!(release.components, ["main", "contrib"]);
        assert!(release.acquire_by_hash);
        assert_eq!(release.files().len(), 2);
        let file = release.file("main/binary-amd64/Packages.xz").unwrap();
        assert_eq!((file.digest, file.size), (Digest::of(b""), 20));
        assert!(release.file("main/binary-arm64/Packages").is_none());
    }

    #[test]
    fn a_release_is_valid_between_its_dates() {
        let release = Release::parse(RELEASE).unwrap();
        release.check_validity(DATE).unwrap();
        release.check_validity(DATE - MAX_CLOCK_SKEW).unwrap();
        let early = release.check_validity(DATE - MAX_CLOCK_SKEW - 1).unwrap_err().to_string();
        assert_eq!(early, "it was made at 2026-11-14T09:12:33Z, but it is only 2026-11-14T09:12:22Z");
        let late = release.check_validity(DATE + 7 * 86_400 + 1).unwrap_err().to_string();
        assert_eq!(late, "it was valid until 2026-11-21T09:12:33Z, and it is 2026-11-21T09:12:34Z");
    }

    #[test]
    fn a_release_of_another_suite_is_refused() {
        let release = Release::parse(RELEASE).unwrap();
        release.check_suite("bookworm").unwrap();
        release.check_suite("oldstable").unwrap();
        let error = release.check_suite("trixie").unwrap_err().to_string();
        assert_eq!(error, "expected the suite `trixie`, found oldstable, bookworm");
    }

    #[test]
    fn broken_releases_are_refused() {
        let cases = [
            ("Date: Sat, 14 Nov 2026 09:12:33 UTC\n", "", "expected a field `Date`, found none"),
            (
                "Date: Sat, 14",
                "Date: Someday, 14",
                "the field `Date` is not a date: `Someday, 14 Nov 2026 09:12:33 UTC`",
            ),
            ("SHA256:", "SHA512:", "expected a field `SHA256`, found none"),
            (
                "20 main/binary-amd64/Packages.xz",
                "20 main/binary-amd64/Packages",
                "`main/binary-amd64/Packages` is listed twice, with different digests",
            ),
        ];
        for (from, to, message) in cases {
            let error = Release::parse(&RELEASE.replacen(from, to, 1));
            assert_eq!(error.unwrap_err().to_string(), message);
        }
        let escaping = RELEASE.replace("       0 main/", "       0 ../");
        assert!(matches!(Release::parse(&escaping), Err(ReleaseError::File { .. })));
    }
}
