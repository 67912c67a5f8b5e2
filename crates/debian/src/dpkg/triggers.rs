//! Triggers: how a package asks to be told that others changed something (deb-triggers(5)).
//!
//! What dpkg does while it unpacks is done here for a batch: interests are noted, and what the unpacked packages and
//! their files trigger is left in `Unincorp`, from where the next dpkg takes it. Only packages that were configured
//! before can be triggered; one that was just unpacked will look at everything when it is configured.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use crate::relation::is_package_name;

/// dpkg reads lines of the files here into buffers; a longer line for one trigger is written as several.
const MAX_LINE_BYTES: usize = 1000;

/// The most directives of a package.
const MAX_DIRECTIVES: usize = 10_000;

/// What a package's `triggers` file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageTriggers {
    /// What the package wants to be told.
    pub interests: Vec<Interest>,
    /// What the package triggers by being unpacked.
    pub activations: Vec<Activation>,
}

/// A trigger that a package is interested in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The trigger: a name, or an absolute path.
    pub trigger: String,
    /// Whether the triggering package counts as installed only when this one has acted.
    pub awaited: bool,
}

/// A trigger that a package sets off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The trigger: a name, or an absolute path.
    pub trigger: String,
    /// Whether the package counts as installed only when the triggered ones have acted.
    pub awaited: bool,
}

/// Reads a `triggers` file of a control archive.
pub fn parse_triggers(text: &str) -> Result<PackageTriggers, TriggerError> {
    let mut triggers = PackageTriggers::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let malformed = || TriggerError::Directive { line: index + 1, text: line.chars().take(100).collect() };
        let (directive, trigger) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
        let trigger = checked_trigger(trigger.trim())?;
        let awaited = !directive.ends_with("-noawait");
        match directive {
            "interest" | "interest-await" | "interest-noawait" => {
                triggers.interests.push(Interest { trigger, awaited });
            }
            "activate" | "activate-await" | "activate-noawait" => {
                triggers.activations.push(Activation { trigger, awaited });
            }
            _ => return Err(malformed()),
        }
        if triggers.interests.len() + triggers.activations.len() > MAX_DIRECTIVES {
            return Err(TriggerError::TooMany);
        }
    }
    Ok(triggers)
}

/// The files below `triggers/`.
#[derive(Clone, Debug, Default)]
pub struct TriggerDatabase {
    /// The lines of `File`, in their order.
    file: Vec<FileInterest>,
    /// Which lines of `File` are about a path.
    by_path: HashMap<String, Vec<usize>>,
    /// The lines of the files of named triggers, in their order.
    named: BTreeMap<String, Vec<Interested>>,
    /// What was triggered, and who waits for it; `-` for nobody.
    pending: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileInterest {
    path: String,
    interested: Interested,
}

/// A package as dpkg files it, and whether it is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interested {
    package: String,
    awaited: bool,
}

impl TriggerDatabase {
    /// The database of an image without packages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `triggers/File`.
    pub fn read_file(&mut self, text: &str) -> Result<(), TriggerError> {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let malformed = || TriggerError::Line { file: "File".to_owned(), text: line.chars().take(100).collect() };
            let (path, package) = line.rsplit_once(' ').ok_or_else(malformed)?;
            let interested = Interested::parse(package).ok_or_else(malformed)?;
            self.file.push(FileInterest { path: checked_trigger(path)?, interested });
        }
        self.index();
        Ok(())
    }

    /// Reads the file of a named trigger.
    pub fn read_named(&mut self, trigger: &str, text: &str) -> Result<(), TriggerError> {
        let trigger = checked_trigger(trigger)?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let malformed = || TriggerError::Line { file: trigger.clone(), text: line.chars().take(100).collect() };
            let interested = Interested::parse(line).ok_or_else(malformed)?;
            self.named.entry(trigger.clone()).or_default().push(interested);
        }
        Ok(())
    }

    /// Reads `triggers/Unincorp`.
    pub fn read_unincorp(&mut self, text: &str) -> Result<(), TriggerError> {
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut words = line.split_ascii_whitespace();
            let trigger = checked_trigger(words.next().unwrap_or_default())?;
            self.pending.entry(trigger).or_default().extend(words.map(str::to_owned));
        }
        Ok(())
    }

    /// Notes the interests of a package that was unpacked, in place of those of its earlier version. `package` is the
    /// name as dpkg files it.
    pub fn set_interests(&mut self, package: &str, interests: &[Interest]) {
        let keeps = |trigger: &str| interests.iter().any(|interest| interest.trigger == trigger);
        self.file.retain(|line| line.interested.package != package || keeps(&line.path));
        for (trigger, lines) in &mut self.named {
            lines.retain(|line| line.package != package || keeps(trigger));
        }
        for interest in interests {
            let interested = Interested { package: package.to_owned(), awaited: interest.awaited };
            if interest.trigger.starts_with('/') {
                self.add_file_interest(&interest.trigger, interested);
            } else {
                // dpkg writes the other packages first, and this one behind them.
                let lines = self.named.entry(interest.trigger.clone()).or_default();
                lines.retain(|line| line.package != package);
                lines.push(interested);
            }
        }
        self.index();
    }

    fn add_file_interest(&mut self, path: &str, interested: Interested) {
        let same = self.file.iter_mut().find(|line| line.path == path && line.interested.package == interested.package);
        match same {
            Some(line) => line.interested = interested,
            None => self.file.push(FileInterest { path: path.to_owned(), interested }),
        }
    }

    fn index(&mut self) {
        self.by_path.clear();
        for (place, line) in self.file.iter().enumerate() {
            self.by_path.entry(line.path.clone()).or_default().push(place);
        }
    }

    /// Notes that a package set off a trigger, if a package that `can_be_triggered` is interested in it.
    pub fn activate(&mut self, activation: &Activation, by: &str, can_be_triggered: impl Fn(&str) -> bool) {
        let concerns = if activation.trigger.starts_with('/') {
            let lines = self.by_path.get(&activation.trigger).into_iter().flatten();
            lines.map(|place| &self.file[*place].interested).any(|line| can_be_triggered(&line.package))
        } else {
            let lines = self.named.get(&activation.trigger).into_iter().flatten();
            lines.into_iter().any(|line| can_be_triggered(&line.package))
        };
        if concerns {
            let awaiter = if activation.awaited { by } else { "-" };
            self.pending.entry(activation.trigger.clone()).or_default().insert(awaiter.to_owned());
        }
    }

    /// Notes what a package sets off by having a path: the triggers of the path and of every directory above it.
    pub fn activate_path(&mut self, path: &str, by: &str, can_be_triggered: impl Fn(&str) -> bool) {
        let path = super::absolute_path(path);
        let mut end = path.len();
        while end > 0 {
            let prefix = &path[..end];
            if self.by_path.contains_key(prefix) {
                self.activate(&Activation { trigger: prefix.to_owned(), awaited: true }, by, &can_be_triggered);
            }
            end = prefix.rfind('/').unwrap_or(0);
        }
    }

    /// The content of `triggers/File`.
    pub fn file(&self) -> String {
        self.file.iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{} {}", line.path, line.interested.written()).expect("a string takes all");
            text
        })
    }

    /// The named triggers that somebody was ever interested in, and the content of their files.
    pub fn named(&self) -> impl Iterator<Item = (&str, String)> {
        self.named.iter().map(|(trigger, lines)| {
            let text = lines.iter().map(|line| line.written() + "\n").collect();
            (trigger.as_str(), text)
        })
    }

    /// The content of `triggers/Unincorp`.
    pub fn unincorp(&self) -> String {
        let mut text = String::new();
        for (trigger, awaiters) in &self.pending {
            let mut line = trigger.clone();
            for awaiter in awaiters {
                if line.len() + awaiter.len() > MAX_LINE_BYTES && line != *trigger {
                    text.push_str(&line);
                    text.push('\n');
                    line.clone_from(trigger);
                }
                line.push(' ');
                line.push_str(awaiter);
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl Interested {
    fn parse(text: &str) -> Option<Self> {
        let (package, awaited) = match text.strip_suffix("/noawait") {
            Some(package) => (package, false),
            None => (text, true),
        };
        let name = package.split_once(':').map_or(package, |(name, _)| name);
        is_package_name(name).then(|| Self { package: package.to_owned(), awaited })
    }

    fn written(&self) -> String {
        if self.awaited { self.package.clone() } else { format!("{}/noawait", self.package) }
    }
}

/// A trigger is a path without empty parts, or a name as packages have, without underscores: it becomes a file's name.
fn checked_trigger(text: &str) -> Result<String, TriggerError> {
    let is_printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= 500;
    let is_valid = match text.strip_prefix('/') {
        Some(path) => path.split('/').all(|part| !part.is_empty()),
        None => is_package_name(text) && !text.contains('_') && !["File", "Unincorp", "Lock"].contains(&text),
    };
    if is_printable && is_valid {
        Ok(text.to_owned())
    } else {
        Err(TriggerError::Name { text: text.chars().take(100).collect() })
    }
}

/// Why triggers cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// A line of a package's list is not a directive.
    #[error("line {line}: `{text}` is not a trigger directive")]
    Directive {
        /// The line's number.
        line: usize,
        /// The line.
        text: String,
    },
    /// A trigger's name is none.
    #[error("`{text}` is not a trigger: expected a name or an absolute path")]
    Name {
        /// The name.
        text: String,
    },
    /// A line of the database has no sense.
    #[error("a line of dpkg's `triggers/{file}` has no sense: `{text}`")]
    Line {
        /// The file.
        file: String,
        /// The line.
        text: String,
    },
    /// A package has too many directives.
    #[error("there are more than {MAX_DIRECTIVES} trigger directives")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interests(text: &str) -> Vec<Interest> {
        parse_triggers(text).unwrap().interests
    }

    #[test]
    fn directives_are_read() {
        let text =
            "# comment\ninterest /usr/share/man\ninterest-noawait ldconfig\nactivate-noawait ldconfig\n activate x\n";
        let triggers = parse_triggers(text).unwrap();
        let found: Vec<_> = triggers.interests.iter().map(|one| (one.trigger.as_str(), one.awaited)).collect();
        assert_eq!(found, [("/usr/share/man", true), ("ldconfig", false)]);
        let found: Vec<_> = triggers.activations.iter().map(|one| (one.trigger.as_str(), one.awaited)).collect();
        assert_eq!(found, [("ldconfig", false), ("x", true)]);
    }

    #[test]
    fn what_is_not_a_directive_is_refused() {
        for text in [
            "interest",
            "watch /usr",
            "interest /usr//x",
            "interest /usr/",
            "interest a_b",
            "interest ../x",
            "activate File",
            "interest a b",
        ] {
            assert!(parse_triggers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn interests_are_written_in_the_order_of_unpacking() {
        let mut database = TriggerDatabase::new();
        database.set_interests("man-db", &interests("interest-noawait /usr/share/man\n"));
        database.set_interests("libc-bin", &interests("interest-await ldconfig\n"));
        database
            .set_interests("libglib2.0-0:amd64", &interests("interest /usr/share/glib-2.0/schemas\ninterest ldconfig"));
        let file = "/usr/share/man man-db/noawait\n/usr/share/glib-2.0/schemas libglib2.0-0:amd64\n";
        assert_eq!(database.file(), file);
        let named: Vec<_> = database.named().collect();
        assert_eq!(named, [("ldconfig", "libc-bin\nlibglib2.0-0:amd64\n".to_owned())]);
    }

    #[test]
    fn a_new_version_replaces_the_interests_of_the_old_one() {
        let mut database = TriggerDatabase::new();
        database.read_file("/a one\n/b two/noawait\n/c one\n").unwrap();
        database.read_named("x", "one\ntwo\n").unwrap();
        database.set_interests("one", &interests("interest-noawait /c\ninterest x\ninterest /d\n"));
        assert_eq!(database.file(), "/b two/noawait\n/c one/noawait\n/d one\n");
        assert_eq!(database.named().next().unwrap().1, "two\none\n");
        database.set_interests("two", &[]);
        assert_eq!(database.named().next().unwrap().1, "one\n");
    }

    #[test]
    fn paths_trigger_configured_packages_only() {
        let mut database = TriggerDatabase::new();
        database.read_file("/usr/share/man man-db/noawait\n/usr/share new\n").unwrap();
        let is_configured = |package: &str| package == "man-db";
        database.activate_path("./usr/share/man/man1/a.1.gz", "a", is_configured);
        database.activate_path("/usr/share/manuals", "a", is_configured);
        database.activate_path("usr/share/man", "libb:amd64", is_configured);
        assert_eq!(database.unincorp(), "/usr/share/man a libb:amd64\n");
    }

    #[test]
    fn activations_say_who_waits() {
        let mut database = TriggerDatabase::new();
        database.read_named("ldconfig", "libc-bin\n").unwrap();
        database.read_unincorp("ldconfig old\n").unwrap();
        let activations = parse_triggers("activate-noawait ldconfig\nactivate ldconfig\nactivate nobody\n").unwrap();
        for activation in &activations.activations {
            database.activate(activation, "a", |_| true);
        }
        assert_eq!(database.unincorp(), "ldconfig - a old\n");
    }

    #[test]
    fn long_lines_are_split() {
        let mut database = TriggerDatabase::new();
        database.read_file("/usr x\n").unwrap();
        for number in 0..500 {
            database.activate_path("/usr/a", &format!("package{number}"), |_| true);
        }
        let text = database.unincorp();
        assert!(
            text.lines().count() > 1 && text.lines().all(|line| line.len() < 1100 && line.starts_with("/usr package"))
        );
        assert_eq!(text.split_whitespace().filter(|word| word.starts_with("package")).count(), 500);
    }
}
