//! The file `status`: every package dpkg knows, its state, and its control file in dpkg's order of fields.

use std::collections::BTreeMap;
use std::fmt;

use super::conffiles::{ConffileEntry, ConffileError};
use super::database_name;
use crate::deb822::{Deb822Error, Stanza, stanzas};
use crate::package::MultiArch;
use crate::relation::{Alternatives, RelationError, is_architecture, is_package_name, parse_relations};
use crate::version::{Version, VersionError};

/// The order in which dpkg writes the fields it knows; others follow as they came.
const ORDER: [&str; 28] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    "Conffiles",
    "Description",
    "Triggers-Pending",
    "Triggers-Awaited",
];

const RELATIONS: [&str; 9] =
    ["Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests", "Breaks", "Conflicts", "Enhances"];

/// Fields whose value `no` dpkg does not write.
const DEFAULT_NO: [&str; 3] = ["Essential", "Protected", "Multi-Arch"];

/// The whole file.
#[derive(Clone, Debug, Default)]
pub struct Status {
    entries: BTreeMap<(String, String), StatusEntry>,
}

impl Status {
    /// Reads a `status` file.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        let mut status = Self::default();
        for stanza in stanzas(text) {
            let stanza = stanza?;
            let entry = StatusEntry::parse(&stanza)?;
            if status.insert(entry).is_some() {
                let package = stanza.get("Package").unwrap_or_default().to_owned();
                return Err(StatusError::Twice { package, line: stanza.line() });
            }
        }
        Ok(status)
    }

    /// Adds an entry, in place of one for the same package and architecture, which is returned.
    pub fn insert(&mut self, entry: StatusEntry) -> Option<StatusEntry> {
        self.entries.insert((entry.package.clone(), entry.architecture.clone()), entry)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, package: &str, architecture: &str) -> Option<StatusEntry> {
        self.entries.remove(&(package.to_owned(), architecture.to_owned()))
    }

    /// The entry of a package of an architecture.
    pub fn get(&self, package: &str, architecture: &str) -> Option<&StatusEntry> {
        self.entries.get(&(package.to_owned(), architecture.to_owned()))
    }

    /// The entry that dpkg files under a name with or without an architecture.
    pub fn find(&self, database_name: &str) -> Option<&StatusEntry> {
        let (name, architecture) = database_name.split_once(':').unwrap_or((database_name, ""));
        if !architecture.is_empty() {
            return self.get(name, architecture);
        }
        let from = (name.to_owned(), String::new());
        self.entries.range(from..).next().filter(|((package, _), _)| package == name).map(|(_, entry)| entry)
    }

    /// All entries, by name and architecture.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &StatusEntry> {
        self.entries.values()
    }

    /// Whether a package was configured before, so that triggers concern it.
    pub fn can_be_triggered(&self, database_name: &str) -> bool {
        self.find(database_name).is_some_and(|entry| entry.state >= PackageState::TriggersAwaited)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.values().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusEntry {
    package: String,
    architecture: String,
    version: Option<Version>,
    multi_arch: MultiArch,
    /// What the administrator wants of it.
    pub selection: Selection,
    /// Whether it is broken and must be installed anew.
    pub needs_reinstall: bool,
    /// How far it is installed.
    pub state: PackageState,
    /// The version that was configured last, if another one than this is.
    pub config_version: Option<String>,
    /// Its conffiles.
    pub conffiles: Vec<ConffileEntry>,
    /// The triggers it must still act upon.
    pub triggers_pending: Vec<String>,
    /// The packages whose triggers it waits for.
    pub triggers_awaited: Vec<String>,
    /// All other fields, those that dpkg knows in its order.
    fields: Vec<(String, String)>,
}

impl StatusEntry {
    /// The entry of a package that was unpacked or installed, from its control file.
    pub fn from_control(
        control: &Stanza<'_>,
        state: PackageState,
        conffiles: Vec<ConffileEntry>,
    ) -> Result<Self, StatusError> {
        let mut entry = Self::from_fields(control)?;
        entry.state = state;
        entry.conffiles = conffiles;
        entry.version.is_some().then_some(entry).ok_or_else(|| missing(control, "Version"))
    }

    fn parse(stanza: &Stanza<'_>) -> Result<Self, StatusError> {
        let mut entry = Self::from_fields(stanza)?;
        let words = |name| -> Vec<String> {
            stanza.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let status = stanza.get("Status").ok_or_else(|| missing(stanza, "Status"))?;
        let invalid = || StatusError::State { package: entry.package.clone(), text: status.chars().take(80).collect() };
        let [selection, flag, state] = status.split(' ').collect::<Vec<_>>().try_into().map_err(|_| invalid())?;
        let flag = [("ok", false), ("reinstreq", true)].into_iter().find(|(name, _)| *name == flag);
        let (selection, state) = (Selection::parse(selection), PackageState::parse(state));
        let (Some(selection), Some((_, needs_reinstall)), Some(state)) = (selection, flag, state) else {
            return Err(invalid());
        };
        let lines = stanza.fields().find(|field| field.name.eq_ignore_ascii_case("Conffiles")).into_iter();
        let conffiles = lines.flat_map(|field| field.lines()).map(ConffileEntry::parse).collect::<Result<_, _>>();
        entry.conffiles =
            conffiles.map_err(|source| StatusError::Conffiles { package: entry.package.clone(), source })?;
        (entry.selection, entry.needs_reinstall, entry.state) = (selection, needs_reinstall, state);
        entry.config_version = stanza.get("Config-Version").map(str::to_owned);
        entry.triggers_pending = words("Triggers-Pending");
        entry.triggers_awaited = words("Triggers-Awaited");
        Ok(entry)
    }

    fn from_fields(stanza: &Stanza<'_>) -> Result<Self, StatusError> {
        let package =
            stanza.get("Package").filter(|name| is_package_name(name)).ok_or_else(|| missing(stanza, "Package"))?;
        let architecture = stanza.get("Architecture").filter(|name| is_architecture(name));
        let version = stanza.get("Version").map(str::parse).transpose();
        let mut fields = Vec::new();
        for field in stanza.fields().filter(|field| !is_own(field.name)) {
            // Names are written as dpkg spells them, however the control file does.
            let name = ORDER.iter().find(|known| known.eq_ignore_ascii_case(field.name)).unwrap_or(&field.name);
            if let Some(value) = normalise(package, name, field.value)? {
                fields.push(((*name).to_owned(), value));
            }
        }
        let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
        fields.sort_by_key(|(name, _)| place(name));
        Ok(Self {
            package: package.to_owned(),
            architecture: architecture.ok_or_else(|| missing(stanza, "Architecture"))?.to_owned(),
            version: version.map_err(|source| StatusError::Version { package: package.to_owned(), source })?,
            multi_arch: stanza.get("Multi-Arch").and_then(MultiArch::parse).unwrap_or_default(),
            selection: Selection::Install,
            needs_reinstall: false,
            state: PackageState::NotInstalled,
            config_version: None,
            conffiles: Vec::new(),
            triggers_pending: Vec::new(),
            triggers_awaited: Vec::new(),
            fields,
        })
    }

    /// The package's name.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The version; a package that is not installed may have none.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// The name under which dpkg files the package.
    pub fn database_name(&self) -> String {
        database_name(&self.package, &self.architecture, self.multi_arch)
    }

    /// The value of any other field of the control file.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn write_known(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let words = |f: &mut fmt::Formatter<'_>, words: &[String]| {
            if words.is_empty() { Ok(()) } else { writeln!(f, "{name}: {}", words.join(" ")) }
        };
        match name {
            "Status" => writeln!(f, "Status: {}", self.status_words()),
            "Config-Version" => match &self.config_version {
                Some(version) => writeln!(f, "Config-Version: {version}"),
                None => Ok(()),
            },
            "Conffiles" if self.conffiles.is_empty() => Ok(()),
            "Conffiles" => {
                writeln!(f, "Conffiles:")?;
                self.conffiles.iter().try_for_each(|conffile| writeln!(f, " {conffile}"))
            }
            "Triggers-Pending" => words(f, &self.triggers_pending),
            "Triggers-Awaited" => words(f, &self.triggers_awaited),
            _ => match self.fields.iter().find(|(other, _)| other == name) {
                Some((_, value)) => write_field(f, name, value),
                None => Ok(()),
            },
        }
    }

    fn status_words(&self) -> String {
        let flag = if self.needs_reinstall { "reinstreq" } else { "ok" };
        format!("{} {flag} {}", self.selection.name(), self.state.name())
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    // A value that begins on the next line has no blank behind the colon, as dpkg keeps it.
    let blank = if value.starts_with('\n') { "" } else { " " };
    writeln!(f, "{name}:{blank}{value}")
}

impl fmt::Display for StatusEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ORDER.iter().try_for_each(|name| self.write_known(f, name))?;
        let mut unknown = self.fields.iter().filter(|(name, _)| !ORDER.contains(&name.as_str()));
        unknown.try_for_each(|(name, value)| write_field(f, name, value))
    }
}

/// Whether a field is kept apart from the control file's.
fn is_own(name: &str) -> bool {
    let own = ["Status", "Config-Version", "Conffiles", "Triggers-Pending", "Triggers-Awaited"];
    own.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// A value as dpkg writes it, or nothing if dpkg leaves it out.
fn normalise(package: &str, name: &str, value: &str) -> Result<Option<String>, StatusError> {
    if value.is_empty() || DEFAULT_NO.contains(&name) && value == "no" {
        return Ok(None);
    }
    if !RELATIONS.contains(&name) {
        return Ok(Some(value.to_owned()));
    }
    let groups = parse_relations(value).map_err(|source| StatusError::Relation {
        package: package.to_owned(),
        field: name.to_owned(),
        source,
    })?;
    Ok(Some(groups.iter().map(Alternatives::to_string).collect::<Vec<_>>().join(", ")))
}

fn missing(stanza: &Stanza<'_>, field: &'static str) -> StatusError {
    let package = stanza.get("Package").unwrap_or("?").chars().take(80).collect();
    StatusError::Missing { package, line: stanza.line(), field }
}

/// What the administrator wants of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Nothing was said.
    Unknown,
    /// It should be installed.
    Install,
    /// It should stay as it is.
    Hold,
    /// It should go, but for its configuration.
    Deinstall,
    /// It should go altogether.
    Purge,
}

impl Selection {
    const ALL: [Self; 5] = [Self::Unknown, Self::Install, Self::Hold, Self::Deinstall, Self::Purge];

    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Install => "install",
            Self::Hold => "hold",
            Self::Deinstall => "deinstall",
            Self::Purge => "purge",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == text)
    }
}

/// How far a package is installed, in dpkg's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageState {
    /// Not at all.
    NotInstalled,
    /// Only its configuration is there.
    ConfigFiles,
    /// Its unpacking was interrupted.
    HalfInstalled,
    /// Its files are there, but it was not configured.
    Unpacked,
    /// Its configuration was interrupted.
    HalfConfigured,
    /// It waits for another package's triggers.
    TriggersAwaited,
    /// It was triggered.
    TriggersPending,
    /// Entirely.
    Installed,
}

impl PackageState {
    const ALL: [Self; 8] = [
        Self::NotInstalled,
        Self::ConfigFiles,
        Self::HalfInstalled,
        Self::Unpacked,
        Self::HalfConfigured,
        Self::TriggersAwaited,
        Self::TriggersPending,
        Self::Installed,
    ];

    /// The word in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotInstalled => "not-installed",
            Self::ConfigFiles => "config-files",
            Self::HalfInstalled => "half-installed",
            Self::Unpacked => "unpacked",
            Self::HalfConfigured => "half-configured",
            Self::TriggersAwaited => "triggers-awaited",
            Self::TriggersPending => "triggers-pending",
            Self::Installed => "installed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == text)
    }
}

/// Why `status`, or an entry for it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// The text is not in the control file format.
    #[error(transparent)]
    Format(#[from] Deb822Error),
    /// A field is missing or has no sense.
    #[error("the stanza of `{package}` in line {line}: expected a valid field `{field}`, found none")]
    Missing {
        /// The package's name, or `?`.
        package: String,
        /// Where the stanza begins.
        line: usize,
        /// The field.
        field: &'static str,
    },
    /// A package is there twice.
    #[error("line {line}: the package `{package}` is there a second time")]
    Twice {
        /// The package's name.
        package: String,
        /// Where its second stanza begins.
        line: usize,
    },
    /// The field `Status` has no sense.
    #[error("the package `{package}` has an unknown status `{text}`")]
    State {
        /// The package's name.
        package: String,
        /// The status.
        text: String,
    },
    /// The version is none.
    #[error("the package `{package}`")]
    Version {
        /// The package's name.
        package: String,
        /// Why it is none.
        source: VersionError,
    },
    /// A relation is none.
    #[error("the field `{field}` of the package `{package}`")]
    Relation {
        /// The package's name.
        package: String,
        /// The field's name.
        field: String,
        /// What is wrong with it.
        source: RelationError,
    },
    /// The conffiles have no sense.
    #[error("the conffiles of the package `{package}`")]
    Conffiles {
        /// The package's name.
        package: String,
        /// What is wrong with them.
        source: ConffileError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb822::single_stanza;
    use crate::dpkg::Md5Sum;

    const CONTROL: &str = "\
Package: foo
Source: foosource
Version: 1.0-1
Architecture: amd64
Maintainer: Jane Doe <jane@example.org>
Installed-Size: 10
Depends: libc6(>=2.36),bar|baz
Pre-depends: dpkg
Essential: no
Section: misc
Priority: optional
Multi-Arch: same
Homepage: https://example.org
Description: a thing
 that does
 .
 things
Ruby-Versions: all
";

    #[test]
    fn an_entry_has_dpkgs_order_of_fields() {
        let conffiles =
            vec![ConffileEntry::in_place("/etc/foo", Md5Sum::of(b"")), ConffileEntry::to_remove("/etc/old")];
        let control = single_stanza(CONTROL).unwrap();
        let entry = StatusEntry::from_control(&control, PackageState::Unpacked, conffiles).unwrap();
        let expected = "\
Package: foo
Status: install ok unpacked
Priority: optional
Section: misc
Installed-Size: 10
Maintainer: Jane Doe <jane@example.org>
Architecture: amd64
Multi-Arch: same
Source: foosource
Version: 1.0-1
Depends: libc6 (>= 2.36), bar | baz
Pre-Depends: dpkg
Conffiles:
 /etc/foo d41d8cd98f00b204e9800998ecf8427e
 /etc/old newconffile remove-on-upgrade
Description: a thing
 that does
 .
 things
Homepage: https://example.org
Ruby-Versions: all
";
        assert_eq!(entry.to_string(), expected);
        assert_eq!(entry.database_name(), "foo:amd64");
        let status = Status::parse(expected).unwrap();
        assert_eq!(status.find("foo:amd64"), Some(&entry));
        assert_eq!(status.find("foo"), Some(&entry));
        assert!(!status.can_be_triggered("foo:amd64"));
        assert_eq!(status.to_string(), format!("{expected}\n"));
    }

    #[test]
    fn states_and_triggers_are_kept() {
        let text = "\
Package: a
Status: install ok triggers-pending
Architecture: all
Version: 1
Triggers-Pending: ldconfig /usr/share/man

Package: b
Status: hold reinstreq half-configured
Architecture: all
Version: 2
Config-Version: 1
Triggers-Awaited: a

";
        let status = Status::parse(text).unwrap();
        assert_eq!(status.to_string(), text);
        assert!(status.can_be_triggered("a") && !status.can_be_triggered("b") && !status.can_be_triggered("c"));
    }

    #[test]
    fn what_is_not_a_status_is_refused() {
        let cases = [
            (
                "Package: a\nArchitecture: all\nVersion: 1\n",
                "the stanza of `a` in line 1: expected a valid field `Status`, found none",
            ),
            ("Package: a\nStatus: x\nArchitecture: all\n", "the package `a` has an unknown status `x`"),
            (
                "Package: a\nStatus: install ok installed\n",
                "the stanza of `a` in line 1: expected a valid field `Architecture`, found none",
            ),
            (
                "Package: a\nStatus: install ok installed\nArchitecture: all\n\nPackage: a\nStatus: install ok installed\nArchitecture: all\n",
                "line 5: the package `a` is there a second time",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(Status::parse(text).unwrap_err().to_string(), message);
        }
    }

    /// dpkg's own file on a Debian machine is the best witness for its format.
    #[test]
    fn this_machines_status_is_written_as_dpkg_wrote_it() {
        let text = std::fs::read_to_string("/var/lib/dpkg/status").expect("these tests need a Debian machine");
        let status = Status::parse(&text).unwrap();
        let written: Vec<_> = status.iter().map(StatusEntry::to_string).collect();
        let mut originals: Vec<_> = text.split("\n\n").filter(|stanza| !stanza.trim().is_empty()).collect();
        assert_eq!(written.len(), originals.len());
        originals.sort_by_key(|stanza| stanza.lines().next());
        for (ours, original) in written.iter().zip(originals) {
            assert_eq!(ours.trim_end(), original.trim_end());
        }
    }
}
