//! From the short names of licences in Debian's copyright files to an SPDX licence expression. A name that SPDX does not
//! know becomes a reference, whose name says what Debian calls it.

use std::collections::{BTreeMap, BTreeSet};

/// An expression, and the names behind its references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expression {
    /// Such as `(Artistic-1.0 OR GPL-2.0-or-later) AND MIT`.
    pub text: String,
    /// For each `LicenseRef-…` in it, the name in the copyright file.
    pub references: BTreeMap<String, String>,
}

/// All of the licences together; nothing if there are none.
pub fn expression(names: &[String]) -> Option<Expression> {
    let mut references = BTreeMap::new();
    let written = names.iter().map(|name| one(name, &mut references));
    // What holds together anyway is named once.
    let parts: BTreeSet<String> = written
        .flat_map(|part| match part.contains(" OR ") {
            true => vec![part],
            false => part.split(" AND ").map(str::to_owned).collect(),
        })
        .collect();
    let text = match parts.len() {
        0 => return None,
        1 => parts.into_iter().next()?,
        _ => parts.into_iter().map(in_parentheses).collect::<Vec<_>>().join(" AND "),
    };
    Some(Expression { text, references })
}

/// One name, in which `and` binds more than `or`, and a comma less than both.
fn one(name: &str, references: &mut BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for group in name.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        let (joint, group) = match group.split_once(' ') {
            Some(("and", rest)) => (" AND ", rest),
            Some(("or", rest)) => (" OR ", rest),
            _ => (" AND ", group),
        };
        let choices: Vec<String> = split(group, "or").iter().map(|choice| all(choice, references)).collect();
        let choices = choices.join(" OR ");
        text = match text.is_empty() {
            true => choices,
            false => format!("{}{joint}{}", in_parentheses(text), in_parentheses(choices)),
        };
    }
    text
}

fn all(text: &str, references: &mut BTreeMap<String, String>) -> String {
    split(text, "and").iter().map(|name| identifier(name, references)).collect::<Vec<_>>().join(" AND ")
}

fn in_parentheses(text: String) -> String {
    if text.contains(' ') { format!("({text})") } else { text }
}

/// Splits at a word.
fn split(text: &str, word: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .split(|found| found.eq_ignore_ascii_case(word))
        .map(|words| words.join(" "))
        .filter(|t| !t.is_empty())
        .collect()
}

fn identifier(name: &str, references: &mut BTreeMap<String, String>) -> String {
    if let Some(known) = gnu(name).or_else(|| known(name)) {
        return known;
    }
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
    let reference =
        format!("LicenseRef-debian-{}", name.replace('+', "-or-later").chars().map(plain).collect::<String>());
    references.insert(reference.clone(), name.to_owned());
    reference
}

/// `GPL-2+` is `GPL-2.0-or-later`.
fn gnu(name: &str) -> Option<String> {
    let (name, later) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
    let (family, version) = name.rsplit_once('-')?;
    let versions: &[&str] = match family {
        "GPL" => &["1.0", "2.0", "3.0"],
        "LGPL" => &["2.0", "2.1", "3.0"],
        "AGPL" => &["1.0", "3.0"],
        "GFDL" => &["1.1", "1.2", "1.3"],
        "GFDL-NIV" => &["1.1", "1.2", "1.3"],
        _ => return None,
    };
    let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
    let suffix = if later { "or-later" } else { "only" };
    let known = versions.contains(&version.as_str());
    known.then(|| match family {
        "GFDL-NIV" => format!("GFDL-{version}-no-invariants-{suffix}"),
        family => format!("{family}-{version}-{suffix}"),
    })
}

/// Names that are the same in both, or have one counterpart.
fn known(name: &str) -> Option<String> {
    const SAME: &[&str] = &[
        "0BSD",
        "AFL-2.1",
        "Apache-1.1",
        "Apache-2.0",
        "Artistic-1.0",
        "Artistic-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-4-Clause",
        "BSL-1.0",
        "BZIP2",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "CDDL-1.0",
        "CPL-1.0",
        "EPL-1.0",
        "EPL-2.0",
        "FSFAP",
        "FSFUL",
        "FSFULLR",
        "FTL",
        "HPND",
        "ICU",
        "IJG",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-1.0",
        "MPL-1.1",
        "MPL-2.0",
        "NCSA",
        "NTP",
        "OFL-1.1",
        "OLDAP-2.8",
        "OpenSSL",
        "PHP-3.01",
        "PostgreSQL",
        "PSF-2.0",
        "Python-2.0",
        "QPL-1.0",
        "Ruby",
        "Sleepycat",
        "Spencer-94",
        "TCL",
        "Unlicense",
        "UPL-1.0",
        "Vim",
        "W3C",
        "WTFPL",
        "X11",
        "Zlib",
        "ZPL-2.0",
        "ZPL-2.1",
        "bzip2-1.0.6",
        "curl",
    ];
    const OTHER: &[(&str, &str)] = &[
        ("Apache-2", "Apache-2.0"),
        ("Artistic", "Artistic-1.0"),
        ("Artistic-2", "Artistic-2.0"),
        ("CC0", "CC0-1.0"),
        ("Expat", "MIT"),
        ("MPL-2", "MPL-2.0"),
        ("PSF-2", "PSF-2.0"),
        ("W3C-Software", "W3C"),
        ("WTFPL-2", "WTFPL"),
    ];
    let same = SAME.iter().find(|known| known.eq_ignore_ascii_case(name));
    let other = || OTHER.iter().find(|(debian, _)| debian.eq_ignore_ascii_case(name)).map(|(_, spdx)| spdx);
    same.or_else(other).map(|known| (*known).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_expressions_and_what_spdx_does_not_know_a_reference() {
        let cases: [(&[&str], &str); 9] = [
            (&["GPL-2+"], "GPL-2.0-or-later"),
            (&["LGPL-2.1", "Expat"], "LGPL-2.1-only AND MIT"),
            (&["GPL-1+ or Artistic", "bsd-3-clause"], "BSD-3-Clause AND (GPL-1.0-or-later OR Artistic-1.0)"),
            (&["GPL-2+ or Artistic-2.0, and zlib"], "(GPL-2.0-or-later OR Artistic-2.0) AND Zlib"),
            (&["GPL-3+ and ISC", "ISC"], "GPL-3.0-or-later AND ISC"),
            (&["public-domain"], "LicenseRef-debian-public-domain"),
            (&["GPL-2+ with OpenSSL exception"], "LicenseRef-debian-GPL-2-or-later-with-OpenSSL-exception"),
            (&["GFDL-NIV-1.3+"], "GFDL-1.3-no-invariants-or-later"),
            (&["GPL-7"], "LicenseRef-debian-GPL-7"),
        ];
        for (names, expected) in cases {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = expression(&names).unwrap();
            assert_eq!(found.text, expected);
            assert_eq!(found.references.is_empty(), !expected.contains("LicenseRef"), "{expected}");
        }
        assert_eq!(expression(&[]), None);
    }
}
