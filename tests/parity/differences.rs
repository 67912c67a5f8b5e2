//! Where an image's tree may differ from apt's: the table in `ARCHITECTURE.md`, and what its words mean.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// The heading above the table.
const HEADING: &str = "\n## Beside apt's own tree\n";

/// A path at which two trees differ.
pub struct Difference<'a> {
    path: &'a str,
    ours: Option<&'a Value>,
    theirs: Option<&'a Value>,
}

impl<'a> Difference<'a> {
    /// What is different at a path.
    pub fn at(path: &'a str, ours: Option<&'a Value>, theirs: Option<&'a Value>) -> Option<Self> {
        (ours != theirs).then_some(Self { path, ours, theirs })
    }

    /// What both have at the path, and differently.
    fn facts(&self) -> Option<BTreeSet<&str>> {
        let (ours, theirs) = (self.ours?.as_object()?, self.theirs?.as_object()?);
        let names = ours.keys().chain(theirs.keys()).map(String::as_str);
        Some(names.filter(|name| ours.get(*name) != theirs.get(*name)).collect())
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |side: Option<&Value>| side.map_or_else(|| "nothing".to_owned(), Value::to_string);
        write!(formatter, "{}: ours {}, apt's {}", self.path, show(self.ours), show(self.theirs))
    }
}

/// A row of the table.
pub struct Known {
    /// Paths; `*` at the end of one stands for anything.
    paths: Vec<String>,
    kind: Kind,
}

/// What may be different there.
#[derive(Clone, Copy)]
enum Kind {
    /// Only apt's tree has it.
    Absent,
    /// Only apt's tree has it, and it is no directory.
    AbsentFile,
    /// Mode and owner.
    ModeAndOwner,
    /// Bytes that do not matter; tree.py says which do.
    Content,
}

impl Kind {
    fn parse(text: &str) -> Self {
        match text {
            "absent" => Self::Absent,
            "absent, but for directories" => Self::AbsentFile,
            "mode and owner" => Self::ModeAndOwner,
            "days" | "order of lines" | "head" => Self::Content,
            other => panic!("the table of ARCHITECTURE.md says `{other}`, which this test does not know"),
        }
    }
}

impl Known {
    /// Whether this row has the difference.
    pub fn allows(&self, difference: &Difference<'_>) -> bool {
        let only =
            |names: &[&str]| difference.facts().is_some_and(|facts| facts.iter().all(|fact| names.contains(fact)));
        let allowed = match self.kind {
            Kind::Absent => difference.ours.is_none(),
            Kind::AbsentFile => {
                difference.ours.is_none() && difference.theirs.is_some_and(|theirs| theirs["type"] != "directory")
            }
            Kind::ModeAndOwner => only(&["mode", "uid", "gid", "owner"]),
            Kind::Content => {
                only(&["sha256", "size"]) && difference.ours.is_some_and(|ours| ours["essence"].is_string())
            }
        };
        let names = |path: &String| match path.strip_suffix('*') {
            Some(start) => difference.path.starts_with(start),
            None => difference.path == path,
        };
        allowed && self.paths.iter().any(names)
    }
}

/// The rows of the table: paths in backquotes, what is different there, and why.
pub fn known() -> Vec<Known> {
    let text = include_str!("../../ARCHITECTURE.md");
    let (_, section) = text.split_once(HEADING).expect("ARCHITECTURE.md has the section");
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<Known> = section.lines().filter(|line| line.starts_with("| `")).map(row).collect();
    assert!(!rows.is_empty(), "there is no table below `{HEADING}`");
    rows
}

fn row(line: &str) -> Known {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [paths, kind, why] = cells[..] else { panic!("not three cells: {line}") };
    assert!(!why.is_empty(), "no reason: {line}");
    let paths: Vec<String> = paths.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(paths.iter().all(|path| path.starts_with('/')), "not all are whole paths: {line}");
    Known { paths, kind: Kind::parse(kind) }
}
