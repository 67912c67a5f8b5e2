//! One binary package as an index describes it, and the reader of whole indexes (`Packages` files).
//!
//! Debian's main index has more than sixty thousand stanzas, of which an image needs a few hundred. So a [`Package`]
//! keeps the text of the fields that matter in one allocation, and relations are parsed when somebody asks for them.

use std::sync::Arc;

use content::{Digest, DigestError};

use crate::deb822::{Deb822Error, Stanza, stanzas};
use crate::relation::{self, Alternatives, Provided, Relation, RelationError};
use crate::version::{Version, VersionError};

/// Reads a `Packages` file.
pub fn parse_index(text: &str) -> Result<Vec<Package>, IndexError> {
    let mut packages = Vec::new();
    for stanza in stanzas(text) {
        packages.push(Package::from_index(&stanza?)?);
    }
    packages.shrink_to_fit();
    Ok(packages)
}

/// The fields of a [`Package`] that are kept as text, in the order in which they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Architecture,
    Source,
    PreDepends,
    Depends,
    Recommends,
    Provides,
    Conflicts,
    Breaks,
    Replaces,
    Filename,
}

const TEXTS: [(Text, &str); 11] = [
    (Text::Name, "Package"),
    (Text::Architecture, "Architecture"),
    (Text::Source, "Source"),
    (Text::PreDepends, "Pre-Depends"),
    (Text::Depends, "Depends"),
    (Text::Recommends, "Recommends"),
    (Text::Provides, "Provides"),
    (Text::Conflicts, "Conflicts"),
    (Text::Breaks, "Breaks"),
    (Text::Replaces, "Replaces"),
    (Text::Filename, "Filename"),
];

/// A field that relates a package to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RelationField {
    /// `Pre-Depends`: must be configured before this package is unpacked.
    PreDepends,
    /// `Depends`: must be configured before this package is.
    Depends,
    /// `Recommends`: wanted in all but unusual installations.
    Recommends,
    /// `Conflicts`: must not be unpacked together with this package.
    Conflicts,
    /// `Breaks`: must not be configured together with this package.
    Breaks,
    /// `Replaces`: its files may be overwritten by this package's.
    Replaces,
}

impl RelationField {
    /// The field's name as control files write it.
    pub fn name(self) -> &'static str {
        TEXTS[self.text() as usize].1
    }

    fn text(self) -> Text {
        match self {
            Self::PreDepends => Text::PreDepends,
            Self::Depends => Text::Depends,
            Self::Recommends => Text::Recommends,
            Self::Conflicts => Text::Conflicts,
            Self::Breaks => Text::Breaks,
            Self::Replaces => Text::Replaces,
        }
    }
}

/// One version of a binary package.
#[derive(Clone, Debug)]
pub struct Package {
    /// Shared, so that a copy costs nothing: several sets to choose from hold the same packages.
    text: Arc<str>,
    ends: [u32; TEXTS.len()],
    version: Version,
    sha256: Option<Digest>,
    size: u64,
    installed_size: u64,
    multi_arch: MultiArch,
    priority: Priority,
    essential: bool,
    protected: bool,
}

impl Package {
    /// Reads a stanza of an index, which says where the `.deb` is and what its digest is.
    pub fn from_index(stanza: &Stanza<'_>) -> Result<Self, IndexError> {
        let mut package = Self::from_stanza(stanza)?;
        let context = Context::of(stanza);
        let filename = context.required(stanza, "Filename")?;
        if !is_safe_path(filename) {
            return Err(context.error(Problem::UnsafeFilename(filename.chars().take(200).collect())));
        }
        package.size = context.number("Size", context.required(stanza, "Size")?)?;
        let digest = context.required(stanza, "SHA256")?;
        package.sha256 = Some(Digest::from_hex(digest).map_err(|source| context.error(Problem::Digest(source)))?);
        Ok(package)
    }

    /// Reads a stanza that has no `.deb` beside it: a control file, or an entry of dpkg's `status`. Such a package can
    /// be installed already, but cannot be chosen.
    pub fn from_stanza(stanza: &Stanza<'_>) -> Result<Self, IndexError> {
        let context = Context::of(stanza);
        let name = context.required(stanza, "Package")?;
        if !relation::is_package_name(name) {
            return Err(context.error(Problem::Name));
        }
        let architecture = context.required(stanza, "Architecture")?;
        if !relation::is_architecture(architecture) {
            return Err(context.error(Problem::Architecture));
        }
        let version = context.required(stanza, "Version")?;
        let (text, ends) = keep_texts(stanza);
        Ok(Self {
            text,
            ends,
            version: version.parse().map_err(|source| context.error(Problem::Version(source)))?,
            sha256: None,
            size: 0,
            installed_size: stanza
                .get("Installed-Size")
                .map_or(Ok(0), |size| context.number("Installed-Size", size))?,
            multi_arch: stanza.get("Multi-Arch").map_or(Some(MultiArch::No), MultiArch::parse).unwrap_or_default(),
            priority: stanza.get("Priority").map_or(Priority::Unknown, Priority::parse),
            essential: stanza.get("Essential") == Some("yes"),
            protected: ["Protected", "Important"].iter().any(|name| stanza.get(name) == Some("yes")),
        })
    }

    fn field(&self, text: Text) -> &str {
        let index = text as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }

    /// The package's name.
    pub fn name(&self) -> &str {
        self.field(Text::Name)
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The architecture the package was built for, or `all`.
    pub fn architecture(&self) -> &str {
        self.field(Text::Architecture)
    }

    /// The source package's name and, where it differs from this package's, its version.
    pub fn source(&self) -> (&str, Option<&str>) {
        let text = self.field(Text::Source);
        match text.split_once('(') {
            Some((name, version)) => (name.trim(), Some(version.trim_end_matches(')').trim())),
            None if text.is_empty() => (self.name(), None),
            None => (text, None),
        }
    }

    /// Whether every system must have this package.
    pub fn essential(&self) -> bool {
        self.essential
    }

    /// Whether the package says `Protected: yes` (or `Important: yes`, as it was called before).
    pub fn protected(&self) -> bool {
        self.protected
    }

    /// How the package behaves beside packages of other architectures.
    pub fn multi_arch(&self) -> MultiArch {
        self.multi_arch
    }

    /// The priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The space that the package says it needs when installed, in KiB.
    pub fn installed_size(&self) -> u64 {
        self.installed_size
    }

    /// Where the `.deb` is and what must be in it; nothing for a package that did not come from an index.
    pub fn download(&self) -> Option<Download<'_>> {
        Some(Download { filename: self.field(Text::Filename), size: self.size, sha256: self.sha256? })
    }

    /// The name in dpkg's database: with the architecture for `Multi-Arch: same`.
    pub fn database_name(&self) -> String {
        crate::dpkg::database_name(self.name(), self.architecture(), self.multi_arch)
    }

    /// The text of a relation field, empty if the package has none.
    pub fn relation_text(&self, field: RelationField) -> &str {
        self.field(field.text())
    }

    /// The parsed groups of a relation field.
    pub fn relations(&self, field: RelationField) -> Result<Vec<Alternatives>, IndexError> {
        relation::parse_relations(self.relation_text(field)).map_err(|source| self.relation_error(field.name(), source))
    }

    /// The parsed relations of `Conflicts`, `Breaks` or `Replaces`, which have no alternatives.
    pub fn relation_list(&self, field: RelationField) -> Result<Vec<Relation>, IndexError> {
        relation::parse_list(self.relation_text(field)).map_err(|source| self.relation_error(field.name(), source))
    }

    /// The names that the package provides besides its own.
    pub fn provides(&self) -> Result<Vec<Provided>, IndexError> {
        let text = self.field(Text::Provides);
        relation::parse_provides(text).map_err(|source| self.relation_error("Provides", source))
    }

    /// Whether the package provides anything; cheaper than asking what.
    pub fn has_provides(&self) -> bool {
        !self.field(Text::Provides).is_empty()
    }

    fn relation_error(&self, field: &'static str, source: RelationError) -> IndexError {
        IndexError::Relation { package: self.name().into(), version: self.version.clone(), field, source }
    }
}

fn keep_texts(stanza: &Stanza<'_>) -> (Arc<str>, [u32; TEXTS.len()]) {
    let mut kept = String::with_capacity(512);
    let mut ends = [0; TEXTS.len()];
    for (index, (_, name)) in TEXTS.iter().enumerate() {
        kept.push_str(stanza.get(name).unwrap_or_default());
        ends[index] = u32::try_from(kept.len()).expect("a stanza is shorter than `MAX_STANZA_BYTES`");
    }
    (kept.into(), ends)
}

/// Whether a path of an index stays below the archive's root when joined to it.
pub(crate) fn is_safe_path(path: &str) -> bool {
    // An address spells `..` in other ways too, and a colon or a bracket would make it another address.
    let valid_part = |part: &str| !part.is_empty() && part.to_ascii_lowercase().replace("%2e", ".") != "..";
    let forbidden = |byte| matches!(byte, b'\\' | b'?' | b'#' | b':' | b'[' | b']');
    let valid_bytes = path.bytes().all(|byte| byte.is_ascii_graphic() && !forbidden(byte));
    valid_bytes && path.split('/').all(valid_part)
}

/// Where a package's `.deb` is and what must be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// The path below the archive's root; it does not leave it.
    pub filename: &'a str,
    /// The number of bytes.
    pub size: u64,
    /// The digest of the bytes.
    pub sha256: Digest,
}

/// The field `Multi-Arch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MultiArch {
    /// Not for other architectures.
    #[default]
    No,
    /// May be installed for several architectures at once.
    Same,
    /// Serves packages of other architectures.
    Foreign,
    /// Serves those that ask for `:any`.
    Allowed,
}

impl MultiArch {
    /// Reads the field's value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "no" => Some(Self::No),
            "same" => Some(Self::Same),
            "foreign" => Some(Self::Foreign),
            "allowed" => Some(Self::Allowed),
            _ => None,
        }
    }
}

/// The field `Priority`, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Needed for the packaging system to work.
    Required,
    /// Expected on any Unix.
    Important,
    /// A reasonable text system.
    Standard,
    /// Anything else.
    Optional,
    /// As optional; an older name.
    Extra,
    /// Missing or not one of the known.
    Unknown,
}

impl Priority {
    fn parse(text: &str) -> Self {
        match text {
            "required" => Self::Required,
            "important" => Self::Important,
            "standard" => Self::Standard,
            "optional" => Self::Optional,
            "extra" => Self::Extra,
            _ => Self::Unknown,
        }
    }
}

/// Which stanza an error is about.
struct Context<'a> {
    name: &'a str,
    line: usize,
}

impl<'a> Context<'a> {
    fn of(stanza: &Stanza<'a>) -> Self {
        Self { name: stanza.get("Package").unwrap_or("?"), line: stanza.line() }
    }

    fn error(&self, problem: Problem) -> IndexError {
        IndexError::Stanza { package: self.name.chars().take(80).collect(), line: self.line, problem }
    }

    fn required(&self, stanza: &Stanza<'a>, field: &'static str) -> Result<&'a str, IndexError> {
        stanza.get(field).filter(|value| !value.is_empty()).ok_or_else(|| self.error(Problem::Missing(field)))
    }

    fn number(&self, field: &'static str, value: &str) -> Result<u64, IndexError> {
        value.parse().map_err(|_| self.error(Problem::Number(field)))
    }
}

/// Why an index, or a stanza of one, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The text is not in the control file format.
    #[error(transparent)]
    Format(#[from] Deb822Error),
    /// A stanza lacks something or has something strange.
    #[error("the stanza of `{package}` in line {line}: {problem}")]
    Stanza {
        /// The package's name, or `?`.
        package: String,
        /// Where the stanza begins.
        line: usize,
        /// What is wrong.
        problem: Problem,
    },
    /// A relation field cannot be parsed.
    #[error("the field `{field}` of {package} {version}")]
    Relation {
        /// The package's name.
        package: String,
        /// The package's version.
        version: Version,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        source: RelationError,
    },
}

/// What is wrong with a stanza.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A field is missing or empty.
    #[error("expected a field `{0}`, found none")]
    Missing(&'static str),
    /// The name is none.
    #[error("this is not a package name")]
    Name,
    /// The architecture is none.
    #[error("the field `Architecture` does not name one architecture")]
    Architecture,
    /// A field should be a number.
    #[error("the field `{0}` is not a number")]
    Number(&'static str),
    /// The version is none.
    #[error("{0}")]
    Version(VersionError),
    /// The digest is none.
    #[error("{0}")]
    Digest(DigestError),
    /// The file name would leave the archive.
    #[error("`{0}` is not a path inside the archive")]
    UnsafeFilename(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZA: &str = "\
Package: libfoo1
Source: foo (1.2-3)
Version: 1.2-3+b1
Installed-Size: 120
Architecture: amd64
Multi-Arch: same
Priority: optional
Essential: yes
Depends: libc6 (>= 2.36), bar | baz
Pre-Depends: dpkg (>= 1.15.6)
Provides: foo-abi (= 1), foo-virtual
Conflicts: oldfoo
Filename: pool/main/f/foo/libfoo1_1.2-3+b1_amd64.deb
Size: 1234
SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
";

    #[test]
    fn a_stanza_becomes_a_package() {
        let packages = parse_index(STANZA).unwrap();
        let package = &packages[0];
        assert_eq!((package.name(), package.architecture()), ("libfoo1", "amd64"));
        assert_eq!(package.source(), ("foo", Some("1.2-3")));
        assert_eq!(package.version().as_str(), "1.2-3+b1");
        assert!(package.essential() && !package.protected());
        assert_eq!((package.priority(), package.multi_arch()), (Priority::Optional, MultiArch::Same));
        assert_eq!(package.database_name(), "libfoo1:amd64");
        assert_eq!(package.relations(RelationField::Depends).unwrap().len(), 2);
        assert_eq!(package.relation_text(RelationField::PreDepends), "dpkg (>= 1.15.6)");
        assert_eq!(package.relation_list(RelationField::Conflicts).unwrap()[0].name.as_ref(), "oldfoo");
        assert_eq!(package.provides().unwrap().len(), 2);
        let download = package.download().unwrap();
        assert_eq!((download.filename, download.size), ("pool/main/f/foo/libfoo1_1.2-3+b1_amd64.deb", 1234));
        assert_eq!(download.sha256, Digest::of(b""));
    }

    #[test]
    fn a_broken_stanza_is_named() {
        let cases = [
            (("Version: 1.2-3+b1\n", ""), "the stanza of `libfoo1` in line 1: expected a field `Version`, found none"),
            (("Size: 1234", "Size: many"), "the stanza of `libfoo1` in line 1: the field `Size` is not a number"),
            (("SHA256: e3b0", "SHA256: E3B0"), "the stanza of `libfoo1` in line 1: `E3B0c4"),
            (("pool/main", "../pool"), "the stanza of `libfoo1` in line 1: `../pool/f/foo"),
            (("pool/main", "/etc"), "the stanza of `libfoo1` in line 1: `/etc/f/foo"),
            (("Package: libfoo1", "Package: /x"), "the stanza of `/x` in line 1: this is not a package name"),
        ];
        for ((from, to), message) in cases {
            let error = parse_index(&STANZA.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_broken_relation_is_an_error_when_it_is_asked_for() {
        let packages = parse_index(&STANZA.replace("oldfoo", "old foo")).unwrap();
        let error = packages[0].relation_list(RelationField::Conflicts).unwrap_err();
        assert_eq!(error.to_string(), "the field `Conflicts` of libfoo1 1.2-3+b1");
    }

    #[test]
    fn a_package_without_a_deb_can_be_read_but_not_downloaded() {
        let stanza = crate::deb822::single_stanza("Package: a\nVersion: 1\nArchitecture: all\n").unwrap();
        assert_eq!(Package::from_stanza(&stanza).unwrap().download(), None);
        assert!(Package::from_index(&stanza).is_err());
    }
}
