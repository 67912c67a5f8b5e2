//! Which archive serves a suite: what the user named, else what the host's own apt uses.
//!
//! Specs name suites, never hosts, so that the same spec builds at home, at work and on a site without internet.

use std::fs;
use std::io;
use std::path::Path;

use debian::deb822;
use url::Url;

/// The archives known for this build.
#[derive(Clone, Debug, Default)]
pub struct Mirrors {
    /// Archives in the order in which they are asked for.
    entries: Vec<Mirror>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    /// The suites it serves; none means all.
    suites: Option<Vec<String>>,
    url: Url,
}

/// Why a mirror's text was refused.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Not `URL` or `SUITE=URL`.
    #[error("`{text}` is not a mirror: expected URL or SUITE=URL, such as `http://mirror.example/debian`")]
    Invalid {
        /// What was given.
        text: String,
    },
    /// The host's apt sources could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file or directory.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl Mirrors {
    /// Mirrors as the user writes them: `URL` for every suite, or `SUITE=URL` for one.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, MirrorError> {
        let entries = texts.into_iter().map(Mirror::parse).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// What the host's apt uses: `sources.list` and `sources.list.d` in `etc_apt`, usually `/etc/apt`. Files that are
    /// not there are no error; entries that are not understood are passed over, as they may be for other tools.
    pub fn of_host(etc_apt: &Path) -> Result<Self, MirrorError> {
        let mut entries = Vec::new();
        for path in source_files(etc_apt)? {
            let read = |source| MirrorError::Read { path: path.display().to_string(), source };
            let bytes = fs::read(&path).map_err(read)?;
            let text = String::from_utf8_lossy(&bytes);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => deb822_entries(&text, &mut entries),
                _ => one_line_entries(&text, &mut entries),
            }
        }
        Ok(Self { entries })
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The archives that may serve `suite`, the likeliest first: those that name it; those that serve every suite, for
    /// a security suite also the archive that stands beside them under the name `…-security`; and those of the host
    /// that serve another release of the same archive.
    pub fn candidates(&self, suite: &str) -> Vec<Url> {
        let mut found = Vec::new();
        let mut add = |url: &Url| {
            if !found.contains(url) {
                found.push(url.clone());
            }
        };
        let names = |mirror: &&Mirror| mirror.suites.as_ref().is_some_and(|suites| suites.iter().any(|s| s == suite));
        self.entries.iter().filter(names).for_each(|mirror| add(&mirror.url));
        for mirror in self.entries.iter().filter(|mirror| mirror.suites.is_none()) {
            if is_security(suite) {
                add(&beside(&mirror.url, "-security"));
            }
            add(&mirror.url);
        }
        let same_kind = |mirror: &&Mirror| {
            mirror.suites.as_ref().is_some_and(|suites| suites.iter().any(|s| is_security(s) == is_security(suite)))
        };
        self.entries.iter().filter(same_kind).for_each(|mirror| add(&mirror.url));
        found
    }
}

impl Mirror {
    fn parse(text: &str) -> Result<Self, MirrorError> {
        let invalid = || MirrorError::Invalid { text: text.to_owned() };
        let (suites, url) = match text.split_once('=') {
            Some((suite, url)) if !suite.contains(':') && !suite.is_empty() => (Some(vec![suite.to_owned()]), url),
            _ => (None, text),
        };
        let url = archive_url(url).ok_or_else(invalid)?;
        Ok(Self { suites, url })
    }
}

/// An archive's URL, with the slash at its end that joining needs.
fn archive_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file"))?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Some(url)
}

fn beside(url: &Url, suffix: &str) -> Url {
    let mut beside = url.clone();
    beside.set_path(&format!("{}{suffix}/", url.path().trim_end_matches('/')));
    beside
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

fn source_files(etc_apt: &Path) -> Result<Vec<std::path::PathBuf>, MirrorError> {
    let parts = etc_apt.join("sources.list.d");
    let mut files = Vec::new();
    match fs::read_dir(&parts) {
        Ok(items) => files.extend(items.flatten().map(|item| item.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(MirrorError::Read { path: parts.display().to_string(), source }),
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "list" || extension == "sources"));
    files.sort();
    let list = etc_apt.join("sources.list");
    if list.exists() {
        files.insert(0, list);
    }
    Ok(files)
}

/// `deb [options] URL suite component…`. See sources.list(5), "one-line-style format".
fn one_line_entries(text: &str, entries: &mut Vec<Mirror>) {
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(url), Some(suite)) = (words.next().and_then(archive_url), words.next()) {
            entries.push(Mirror { suites: Some(vec![suite.to_owned()]), url });
        }
    }
}

/// See sources.list(5), "deb822-style format".
fn deb822_entries(text: &str, entries: &mut Vec<Mirror>) {
    // Comments are part of this format only, not of other control files.
    let without_comments: String = text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
    for stanza in deb822::stanzas(&without_comments) {
        let Ok(stanza) = stanza else { return };
        let words = |field: &str| stanza.get(field).unwrap_or_default().split_whitespace().map(str::to_owned);
        let disabled = stanza.get("Enabled").is_some_and(|value| value.trim().eq_ignore_ascii_case("no"));
        if disabled || !words("Types").any(|kind| kind == "deb") {
            continue;
        }
        for url in words("URIs").filter_map(|url| archive_url(&url)) {
            entries.push(Mirror { suites: Some(words("Suites").collect()), url });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(mirrors: &Mirrors, suite: &str) -> Vec<String> {
        mirrors.candidates(suite).iter().map(Url::to_string).collect()
    }

    #[test]
    fn the_hosts_sources_name_an_archive_for_each_suite() {
        let directory = tempfile::tempdir().unwrap();
        let parts = directory.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        let list =
            "# c\ndeb [arch=amd64 signed-by=/k] http://a.example/debian bookworm main\ndeb-src http://s.example x y\n";
        fs::write(directory.path().join("sources.list"), list).unwrap();
        let security = "# why\nTypes: deb\n# where\nURIs: http://b.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let off = "\nTypes: deb\nEnabled: no\nURIs: http://off.example/\nSuites: bookworm\n";
        fs::write(parts.join("s.sources"), format!("{security}{off}")).unwrap();
        let mirrors = Mirrors::of_host(directory.path()).unwrap();
        assert_eq!(urls(&mirrors, "bookworm"), ["http://a.example/debian/"]);
        assert_eq!(urls(&mirrors, "bookworm-security"), ["http://b.example/debian-security/"]);
        assert_eq!(urls(&mirrors, "trixie"), ["http://a.example/debian/"]);
    }

    #[test]
    fn a_mirror_for_everything_is_also_asked_for_security_beside_it() {
        let mirrors = Mirrors::parse(["http://m.example/debian"]).unwrap();
        assert_eq!(urls(&mirrors, "bookworm"), ["http://m.example/debian/"]);
        let expected = ["http://m.example/debian-security/", "http://m.example/debian/"];
        assert_eq!(urls(&mirrors, "bookworm-security"), expected);
        let named = Mirrors::parse(["http://m.example/debian", "bookworm-security=http://s.example/x"]).unwrap();
        assert_eq!(urls(&named, "bookworm-security")[0], "http://s.example/x/");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in ["", "mirror", "ftp://x.example/", "suite=", "bookworm=mirror"] {
            assert!(Mirrors::parse([text]).is_err(), "{text}");
        }
    }
}
