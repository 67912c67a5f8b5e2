//! Relations between packages: the value of `Depends`, `Conflicts`, `Provides` and their like (Debian policy, chapter 7).
//!
//! Parsing is strict about syntax and lenient about age: the old operators `<` and `>` mean what dpkg takes them for.

use std::fmt;

use crate::version::{Version, VersionError};

/// The most or-groups that a field may have; the longest in Debian's archive has a few hundred.
const MAX_GROUPS: usize = 20_000;

/// Parses a field such as `Depends`: groups joined by commas, all of which must hold. An empty text has no groups.
pub fn parse_relations(text: &str) -> Result<Vec<Alternatives>, RelationError> {
    let mut groups = Vec::new();
    for group in text.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        if groups.len() == MAX_GROUPS {
            return Err(RelationError::TooMany);
        }
        groups.push(Alternatives(group.split('|').map(parse_relation).collect::<Result<_, _>>()?));
    }
    Ok(groups)
}

/// Parses a field such as `Conflicts` or `Breaks`, which has no alternatives.
pub fn parse_list(text: &str) -> Result<Vec<Relation>, RelationError> {
    let mut relations = Vec::new();
    for group in parse_relations(text)? {
        match <[Relation; 1]>::try_from(group.0) {
            Ok([relation]) => relations.push(relation),
            Err(group) => return Err(RelationError::Alternatives { text: Alternatives(group).to_string() }),
        }
    }
    Ok(relations)
}

/// Parses a `Provides` field.
pub fn parse_provides(text: &str) -> Result<Vec<Provided>, RelationError> {
    parse_list(text)?.into_iter().map(Provided::try_from).collect()
}

/// Packages of which any one will do, the preferred first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternatives(Vec<Relation>);

impl Alternatives {
    /// The alternatives, the preferred first; there is at least one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Relation> {
        self.0.iter()
    }

    /// A group of one.
    pub fn single(relation: Relation) -> Self {
        Self(vec![relation])
    }
}

/// One package that is asked for, or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The package's name, which may be virtual.
    pub name: Box<str>,
    /// What follows the name and a colon.
    pub qualifier: Option<Qualifier>,
    /// Which versions are meant; all if there is none.
    pub constraint: Option<Constraint>,
    /// The architectures on which the relation counts, with what `!` means; empty for all.
    pub architectures: Vec<ArchitectureRestriction>,
}

impl Relation {
    /// A relation to any version of a package.
    pub fn to(name: &str) -> Self {
        Self { name: name.into(), qualifier: None, constraint: None, architectures: Vec::new() }
    }

    /// Whether the relation counts when installing for `architecture` (`[amd64]`, `[!amd64]`).
    pub fn applies_to(&self, architecture: &str) -> bool {
        let matches = |name: &str| name == "any" || name == architecture || name == "linux-any";
        match self.architectures.first() {
            None => true,
            Some(first) if first.excluded => !self.architectures.iter().any(|one| matches(&one.name)),
            Some(_) => self.architectures.iter().any(|one| matches(&one.name)),
        }
    }
}

/// What a relation's name is qualified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Qualifier {
    /// `:any`: a package of any architecture that says `Multi-Arch: allowed`.
    Any,
    /// `:native`: the architecture that is installed for.
    Native,
    /// Another architecture by name.
    Architecture(Box<str>),
}

/// An entry of `[amd64 !i386]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchitectureRestriction {
    /// The architecture or wildcard.
    pub name: Box<str>,
    /// Whether `!` stands before it.
    pub excluded: bool,
}

/// The versions that a relation accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// How a version is compared.
    pub comparison: Comparison,
    /// What it is compared with.
    pub version: Version,
}

impl Constraint {
    /// Whether `version` is accepted.
    pub fn accepts(&self, version: &Version) -> bool {
        let order = version.cmp(&self.version);
        match self.comparison {
            Comparison::Earlier => order.is_lt(),
            Comparison::EarlierOrEqual => order.is_le(),
            Comparison::Exactly => order.is_eq(),
            Comparison::LaterOrEqual => order.is_ge(),
            Comparison::Later => order.is_gt(),
        }
    }
}

/// How versions are compared in a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Exactly,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Comparison {
    fn split(text: &str) -> Option<(Self, &str)> {
        // Two characters before one: `<` is a prefix of `<<`. The single ones are old, and mean the inclusive ones.
        let operators = [
            ("<<", Self::Earlier),
            ("<=", Self::EarlierOrEqual),
            (">=", Self::LaterOrEqual),
            (">>", Self::Later),
            ("<", Self::EarlierOrEqual),
            (">", Self::LaterOrEqual),
            ("=", Self::Exactly),
        ];
        operators.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)))
    }
}

/// A name that a package provides besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provided {
    /// The provided name.
    pub name: Box<str>,
    /// The version it is provided in; without one, it meets only relations that ask for none.
    pub version: Option<Version>,
}

impl Provided {
    /// Whether a relation to the provided name is met.
    pub fn meets(&self, constraint: Option<&Constraint>) -> bool {
        match (constraint, &self.version) {
            (None, _) => true,
            (Some(constraint), Some(version)) => constraint.accepts(version),
            (Some(_), None) => false,
        }
    }
}

impl TryFrom<Relation> for Provided {
    type Error = RelationError;

    fn try_from(relation: Relation) -> Result<Self, RelationError> {
        let text = relation.to_string();
        match relation.constraint {
            None => Ok(Self { name: relation.name, version: None }),
            Some(Constraint { comparison: Comparison::Exactly, version }) => {
                Ok(Self { name: relation.name, version: Some(version) })
            }
            Some(_) => Err(RelationError::ProvidedRange { text }),
        }
    }
}

fn parse_relation(text: &str) -> Result<Relation, RelationError> {
    let text = text.trim();
    let malformed = |problem| RelationError::Malformed { text: text.chars().take(120).collect(), problem };
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(parse_qualifier(qualifier).ok_or(malformed("an architecture"))?)),
        None => (name, None),
    };
    if !is_package_name(name) {
        return Err(malformed("a package name"));
    }
    let mut relation = Relation { qualifier, ..Relation::to(name) };
    rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('(') {
        let (inner, after) = inner.split_once(')').ok_or(malformed("`)`"))?;
        relation.constraint = Some(parse_constraint(inner, text)?);
        rest = after.trim_start();
    }
    if let Some(inner) = rest.strip_prefix('[') {
        let (inner, after) = inner.split_once(']').ok_or(malformed("`]`"))?;
        relation.architectures = inner.split_whitespace().map(parse_restriction).collect();
        rest = after.trim_start();
    }
    // Build profiles: binary packages have none; a list that was left in says nothing about installing.
    while let Some(inner) = rest.strip_prefix('<') {
        rest = inner.split_once('>').ok_or(malformed("`>`"))?.1.trim_start();
    }
    if rest.is_empty() { Ok(relation) } else { Err(malformed("`,`, `|` or the end")) }
}

fn parse_qualifier(text: &str) -> Option<Qualifier> {
    match text {
        "any" => Some(Qualifier::Any),
        "native" => Some(Qualifier::Native),
        _ if is_architecture(text) => Some(Qualifier::Architecture(text.into())),
        _ => None,
    }
}

fn parse_constraint(inner: &str, text: &str) -> Result<Constraint, RelationError> {
    let shortened = || text.chars().take(120).collect();
    let (comparison, version) = Comparison::split(inner.trim())
        .ok_or_else(|| RelationError::Malformed { text: shortened(), problem: "one of `<< <= = >= >>` after `(`" })?;
    let version = version.trim().parse().map_err(|source| RelationError::Version { text: shortened(), source })?;
    Ok(Constraint { comparison, version })
}

fn parse_restriction(text: &str) -> ArchitectureRestriction {
    match text.strip_prefix('!') {
        Some(name) => ArchitectureRestriction { name: name.into(), excluded: true },
        None => ArchitectureRestriction { name: text.into(), excluded: false },
    }
}

/// Whether `text` can name a package: characters of `a-z A-Z 0-9 + - . _`, beginning with a letter or digit. Policy
/// wants lower case and no underscore; dpkg and other vendors' archives are more lenient.
pub fn is_package_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'));
    first && rest && text.len() <= 256
}

/// Whether `text` can name an architecture: letters, digits and inner hyphens.
pub fn is_architecture(text: &str) -> bool {
    let valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    valid && !text.is_empty() && !text.starts_with('-') && text.len() <= 64
}

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, relation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            write!(f, "{separator}{relation}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.qualifier {
            None => {}
            Some(Qualifier::Any) => f.write_str(":any")?,
            Some(Qualifier::Native) => f.write_str(":native")?,
            Some(Qualifier::Architecture(name)) => write!(f, ":{name}")?,
        }
        if let Some(constraint) = &self.constraint {
            write!(f, " ({constraint})")?;
        }
        for (index, one) in self.architectures.iter().enumerate() {
            let opening = if index == 0 { " [" } else { " " };
            write!(f, "{opening}{}{}", if one.excluded { "!" } else { "" }, one.name)?;
        }
        if self.architectures.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.comparison {
            Comparison::Earlier => "<<",
            Comparison::EarlierOrEqual => "<=",
            Comparison::Exactly => "=",
            Comparison::LaterOrEqual => ">=",
            Comparison::Later => ">>",
        };
        write!(f, "{operator} {}", self.version)
    }
}

/// Why a text is not a list of relations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// The syntax is wrong.
    #[error("`{text}` is not a relation: expected {problem}")]
    Malformed {
        /// The relation, shortened.
        text: String,
        /// What was expected.
        problem: &'static str,
    },
    /// The version in parentheses is none.
    #[error("`{text}` is not a relation")]
    Version {
        /// The relation, shortened.
        text: String,
        /// Why its version is none.
        source: VersionError,
    },
    /// A `|` in a field that allows none.
    #[error("`{text}`: this field allows no alternatives")]
    Alternatives {
        /// The group.
        text: String,
    },
    /// A provided name with another operator than `=`.
    #[error("`{text}`: a name is provided in one version, written `(= VERSION)`")]
    ProvidedRange {
        /// The relation.
        text: String,
    },
    /// The field has too many groups.
    #[error("the field has more than {MAX_GROUPS} relations")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_print_as_dpkg_writes_them() {
        let cases = [
            ("libc6(>=2.36),  foo|bar ( << 1:2 )", "libc6 (>= 2.36), foo | bar (<< 1:2)"),
            ("python3:any, gcc:native, foo:i386 (= 1-1)", "python3:any, gcc:native, foo:i386 (= 1-1)"),
            ("a [amd64 arm64], b [!hurd-i386] <!nocheck> <cross>", "a [amd64 arm64], b [!hurd-i386]"),
            ("a (< 1), b (> 2)", "a (<= 1), b (>= 2)"),
            ("a,\n b,\n", "a, b"),
            ("", ""),
        ];
        for (text, expected) in cases {
            let groups = parse_relations(text).unwrap();
            let printed: Vec<_> = groups.iter().map(Alternatives::to_string).collect();
            assert_eq!(printed.join(", "), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_relation_is_refused_with_a_reason() {
        let cases = [
            ("a (1.0)", "`a (1.0)` is not a relation: expected one of `<< <= = >= >>` after `(`"),
            ("a (= 1", "`a (= 1` is not a relation: expected `)`"),
            ("a b", "`a b` is not a relation: expected `,`, `|` or the end"),
            ("a | | b", "`` is not a relation: expected a package name"),
            ("a: ", "`a:` is not a relation: expected an architecture"),
            ("/etc", "`/etc` is not a relation: expected a package name"),
            ("a (= 1_2)", "`a (= 1_2)` is not a relation"),
            ("a [amd64", "`a [amd64` is not a relation: expected `]`"),
        ];
        for (text, message) in cases {
            assert_eq!(parse_relations(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn constraints_accept_the_versions_they_name() {
        let accepts = |constraint: &str, version: &str| {
            let relations = parse_list(&format!("a ({constraint})")).unwrap();
            relations[0].constraint.as_ref().unwrap().accepts(&version.parse().unwrap())
        };
        assert!(accepts("= 1.0", "1.00") && !accepts("= 1.0", "1.0-1"));
        assert!(accepts("<< 1.0", "1.0~") && !accepts("<< 1.0", "1.0"));
        assert!(accepts(">> 1.0", "1.0-1") && !accepts(">> 1.0", "1.0"));
        assert!(accepts("<= 1.0", "1.0") && accepts(">= 1.0", "1.0"));
    }

    #[test]
    fn provided_names_meet_what_their_version_allows() {
        let provided = parse_provides("mta, libfoo (= 2)").unwrap();
        let wanted = parse_list("x (>= 1)").unwrap();
        assert!(provided[0].meets(None) && !provided[0].meets(wanted[0].constraint.as_ref()));
        assert!(provided[1].meets(wanted[0].constraint.as_ref()));
        assert!(parse_provides("a (>= 1)").is_err());
        assert!(parse_provides("a | b").is_err());
    }

    #[test]
    fn restrictions_choose_architectures() {
        let relations = parse_list("a [amd64 arm64], b [!amd64], c, d [linux-any]").unwrap();
        let on =
            |architecture: &str| -> Vec<bool> { relations.iter().map(|one| one.applies_to(architecture)).collect() };
        assert_eq!(on("amd64"), [true, false, true, true]);
        assert_eq!(on("riscv64"), [false, true, true, true]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z0-9 ,|()\\[\\]<>=:!~é.-]{0,60}") {
            if let Ok(groups) = parse_relations(&text) {
                let printed = groups.iter().map(Alternatives::to_string).collect::<Vec<_>>().join(", ");
                proptest::prop_assert_eq!(parse_relations(&printed).unwrap(), groups);
            }
        }
    }
}
