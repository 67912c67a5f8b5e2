//! The steps that make users and groups: lines in `/etc/passwd`, `/etc/group`, `/etc/shadow` and `/etc/gshadow`.
//!
//! Nothing is run, so an image needs no `useradd` for it, and the result depends on nothing but the spec and the image
//! below. Numbers that a spec leaves open are the lowest free ones from where Debian begins: 100 for system accounts,
//! 1000 for others. Passwords are locked. Home directories are not made.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use content::{Digest, FramedHasher};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::record::{Owners, Sidecar, TreeDir};
use layer::view::View;
use layer::write::EntryWriter;
use spec::{Group, Located, Span, User};

use crate::error::BuildError;

/// No account file is larger than this.
const LARGEST_FILE: u64 = 16 << 20;

/// Free numbers, as Debian's policy has them (9.2.2).
const SYSTEM: RangeInclusive<u32> = 100..=999;
const USUAL: RangeInclusive<u32> = 1000..=59999;

/// Numbers that mean "none" to system calls, in 16 and in 32 bits.
const NOBODYS: [u32; 2] = [65535, u32::MAX];

const NO_HOME: &str = "/nonexistent";
const NO_SHELL: &str = "/usr/sbin/nologin";

/// What a step makes.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// Groups.
    Groups(&'a [Group]),
    /// Users.
    Users(&'a [User]),
}

impl Wanted<'_> {
    /// Names all that the layer depends on, apart from the image below it.
    pub fn key(&self) -> Digest {
        let number =
            |number: &Option<Located<u32>>| number.as_ref().map(|number| number.to_string()).unwrap_or_default();
        match self {
            Self::Groups(groups) => groups.iter().fold(FramedHasher::new("groups 1"), |hasher, group| {
                hasher.list("group", [group.name.value.clone(), number(&group.gid), group.system.to_string()])
            }),
            Self::Users(users) => users.iter().fold(FramedHasher::new("users 1"), |hasher, user| {
                let group = user.group.as_ref().map(|group| group.value.clone()).unwrap_or_default();
                let (home, shell) = (home(user), shell(user));
                hasher
                    .list(
                        "user",
                        [user.name.as_str(), &number(&user.uid), &user.system.to_string(), &group, home, shell],
                    )
                    .list("groups", user.groups.iter().map(|group| &group.value))
            }),
        }
        .finish()
    }

    /// What [`Wanted::key`] names, in words: each account and what is said of it.
    pub fn facts(&self) -> Vec<(String, String)> {
        let number = |number: &Option<Located<u32>>| {
            number.as_ref().map_or_else(|| "the next free number".to_owned(), |number| number.to_string())
        };
        let kind = |system: bool| if system { "system account" } else { "usual account" };
        match self {
            Self::Groups(groups) => groups
                .iter()
                .map(|group| {
                    (format!("group {}", group.name.value), format!("{}, {}", number(&group.gid), kind(group.system)))
                })
                .collect(),
            Self::Users(users) => users
                .iter()
                .map(|user| {
                    let groups = user.group.iter().chain(&user.groups).map(|group| group.value.as_str());
                    let said = [&number(&user.uid), kind(user.system), home(user), shell(user)].join(", ");
                    let groups = groups.collect::<Vec<_>>().join(" ");
                    (format!("user {}", user.name.value), format!("{said}, groups: {groups}"))
                })
                .collect(),
        }
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        let (kind, names): (_, Vec<&str>) = match self {
            Self::Groups(groups) => ("groups", groups.iter().map(|group| group.name.as_str()).collect()),
            Self::Users(users) => ("users", users.iter().map(|user| user.name.as_str()).collect()),
        };
        format!("{kind} {}", names.join(" "))
    }
}

/// The account files of an image.
pub struct Files {
    passwd: Table,
    group: Table,
    shadow: Table,
    gshadow: Table,
    /// The day of the image's date, which becomes that of the passwords.
    day: i64,
    epoch: i64,
    /// Whether the image has a directory for them.
    has_etc: bool,
}

/// One of them.
struct Table {
    path: ImagePath,
    lines: Vec<String>,
    metadata: Metadata,
    exists: bool,
    changed: bool,
}

impl Files {
    /// Reads the account files that the trees show together.
    pub fn read(trees: &[TreeDir], owners: Owners, epoch: i64) -> io::Result<Self> {
        let table = |path: &str, mode: u32| Table::read(path, mode, trees, owners, epoch);
        Ok(Self {
            passwd: table("etc/passwd", 0o644)?,
            group: table("etc/group", 0o644)?,
            shadow: table("etc/shadow", 0o640)?,
            gshadow: table("etc/gshadow", 0o640)?,
            day: epoch.div_euclid(86400),
            epoch,
            has_etc: View::new(trees).lookup(&path_of("etc"))?.is_some(),
        })
    }

    /// Adds what is wanted, in its order; what clashes with an account that is there is an error at its place.
    pub fn add(&mut self, wanted: Wanted<'_>) -> Result<(), BuildError> {
        match wanted {
            Wanted::Groups(groups) => groups.iter().try_for_each(|group| self.add_group(group)),
            Wanted::Users(users) => users.iter().try_for_each(|user| self.add_user(user)),
        }
    }

    /// Bytes of what has changed.
    pub fn size(&self) -> u64 {
        self.changed().map(|table| table.text().len() as u64).sum()
    }

    /// Writes what has changed.
    pub fn write<W: Write>(&self, writer: &mut EntryWriter<W>) -> io::Result<()> {
        if !self.has_etc {
            let metadata = Metadata { mode: 0o755, mtime: self.epoch, ..Metadata::default() };
            writer.write_empty(&Entry { path: path_of("etc"), kind: Kind::Directory, metadata })?;
        }
        let mut changed: Vec<&Table> = self.changed().collect();
        changed.sort_by(|left, right| left.path.cmp(&right.path));
        for table in changed {
            let text = table.text();
            let kind = Kind::File { size: text.len() as u64 };
            let entry = Entry { path: table.path.clone(), kind, metadata: table.metadata.clone() };
            writer.write(&entry, &mut text.as_bytes())?;
        }
        Ok(())
    }

    fn changed(&self) -> impl Iterator<Item = &Table> {
        [&self.passwd, &self.group, &self.shadow, &self.gshadow].into_iter().filter(|table| table.changed)
    }

    fn add_group(&mut self, group: &Group) -> Result<(), BuildError> {
        refuse_number(&group.name)?;
        if let Some(number) = self.group.number_of(&group.name) {
            let title = format!("the image has a group `{}` already, with the number {number}", group.name);
            return Err(BuildError::at(&group.name.span, title, "leave it out, or choose another name"));
        }
        let range = if group.system { SYSTEM } else { USUAL };
        let gid = match &group.gid {
            Some(gid) => self.group.claim(gid, "group")?,
            None => free(range, &group.name.span, |number| self.group.name_of(number).is_none())?,
        };
        self.new_group(&group.name, gid);
        Ok(())
    }

    fn new_group(&mut self, name: &str, gid: u32) {
        self.group.append(format!("{name}:x:{gid}:"));
        if self.gshadow.exists {
            self.gshadow.append(format!("{name}:!::"));
        }
    }

    fn add_user(&mut self, user: &User) -> Result<(), BuildError> {
        refuse_number(&user.name)?;
        if let Some(number) = self.passwd.number_of(&user.name) {
            let title = format!("the image has a user `{}` already, with the number {number}", user.name);
            return Err(BuildError::at(&user.name.span, title, "leave it out, or choose another name"));
        }
        for path in [&user.home, &user.shell].into_iter().flatten() {
            if path.as_str().contains([':', '\n']) {
                let title = format!("`{path}` cannot stand in /etc/passwd, whose fields end at a colon");
                return Err(BuildError::at(&path.span, title, "choose another path"));
            }
        }
        let range = if user.system { SYSTEM } else { USUAL };
        let known_group = match &user.group {
            Some(group) => Some(self.gid(group)?),
            None => self.group.number_of(&user.name),
        };
        let uid = match &user.uid {
            Some(uid) => self.passwd.claim(uid, "user")?,
            // A user and a group of its own get the same number.
            None => free(range.clone(), &user.name.span, |number| {
                self.passwd.name_of(number).is_none() && (known_group.is_some() || self.group.name_of(number).is_none())
            })?,
        };
        let gid = match known_group {
            Some(gid) => gid,
            None => {
                let is_free = |number: u32| self.group.name_of(number).is_none();
                let gid = if is_free(uid) { uid } else { free(range, &user.name.span, is_free)? };
                self.new_group(&user.name, gid);
                gid
            }
        };
        let password = if self.shadow.exists { "x" } else { "!" };
        let (name, home, shell) = (&user.name, home(user), shell(user));
        self.passwd.append(format!("{name}:{password}:{uid}:{gid}::{home}:{shell}"));
        if self.shadow.exists {
            self.shadow.append(format!("{name}:!:{}:0:99999:7:::", self.day));
        }
        for group in &user.groups {
            let gid = self.gid(group)?;
            let group = self.group.name_of(gid).expect("a group that was found has a name").to_owned();
            self.group.add_member(&group, name);
            self.gshadow.add_member(&group, name);
        }
        Ok(())
    }

    /// The number of a group that is there, by name or number.
    fn gid(&self, group: &Located<String>) -> Result<u32, BuildError> {
        let by_number = group.parse().ok().filter(|number| self.group.name_of(*number).is_some());
        self.group.number_of(group).or(by_number).ok_or_else(|| {
            let title = format!("the image has no group `{group}` at this point");
            BuildError::at(&group.span, title, "make it under `groups:`, or install the package that makes it first")
        })
    }
}

impl Table {
    fn read(path: &str, mode: u32, trees: &[TreeDir], owners: Owners, epoch: i64) -> io::Result<Self> {
        let view = View::new(trees);
        let path = view.resolve(&path_of(path))?;
        let found = view.lookup(&path)?;
        let mut metadata = Metadata { mode, mtime: epoch, ..Metadata::default() };
        if let Some(found) = &found {
            let records = Sidecar::load(&trees[found.tree])?;
            let attributes = layer::record::attributes(owners, &found.path, &records)?;
            (metadata.mode, metadata.uid, metadata.gid) = (attributes.mode, attributes.uid, attributes.gid);
            metadata.xattrs = attributes.xattrs;
        }
        let bytes = view.read(&path, LARGEST_FILE)?.unwrap_or_default();
        let not_text =
            |_| io::Error::new(io::ErrorKind::InvalidData, format!("/{path} of the image is not UTF-8 text"));
        let text = String::from_utf8(bytes).map_err(not_text)?;
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Self { path, lines, metadata, exists: found.is_some(), changed: false })
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Name and number of each line of passwd(5) or group(5).
    fn numbered(&self) -> impl Iterator<Item = (&str, u32)> {
        self.lines.iter().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse().ok()?))
        })
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        self.numbered().find(|(known, _)| *known == name).map(|(_, number)| number)
    }

    fn name_of(&self, number: u32) -> Option<&str> {
        self.numbered().find(|(_, known)| *known == number).map(|(name, _)| name)
    }

    /// A number that the spec names, if it is free.
    fn claim(&self, number: &Located<u32>, kind: &str) -> Result<u32, BuildError> {
        if NOBODYS.contains(&number.value) {
            let title = format!("{number} means \"no {kind}\" to the system, and cannot be one");
            return Err(BuildError::at(&number.span, title, "choose another number"));
        }
        match self.name_of(number.value) {
            None => Ok(number.value),
            Some(name) => {
                let title = format!("the number {number} is that of the {kind} `{name}`");
                Err(BuildError::at(&number.span, title, "choose another, or leave it out for the next free one"))
            }
        }
    }

    /// Adds a line; those of network services stay at the end.
    fn append(&mut self, line: String) {
        let end = self.lines.iter().position(|line| line.starts_with(['+', '-'])).unwrap_or(self.lines.len());
        self.lines.insert(end, line);
        self.changed = true;
    }

    /// Adds a name to the last field of a line.
    fn add_member(&mut self, group: &str, user: &str) {
        let Some(line) = self.lines.iter_mut().find(|line| line.split(':').next() == Some(group)) else { return };
        let members = line.rsplit(':').next().unwrap_or_default();
        if members.split(',').any(|member| member == user) {
            return;
        }
        let separator = if members.is_empty() { "" } else { "," };
        line.push_str(separator);
        line.push_str(user);
        self.changed = true;
    }
}

/// A name that is a number would be taken for one wherever either may stand.
fn refuse_number(name: &Located<String>) -> Result<(), BuildError> {
    match name.parse::<u32>() {
        Ok(_) => {
            Err(BuildError::at(&name.span, format!("`{name}` is a number, and not a name"), "begin with a letter"))
        }
        Err(_) => Ok(()),
    }
}

fn home(user: &User) -> &str {
    user.home.as_ref().map_or(NO_HOME, |path| path.as_str())
}

fn shell(user: &User) -> &str {
    user.shell.as_ref().map_or(NO_SHELL, |path| path.as_str())
}

/// The lowest free number of a range.
fn free(mut range: RangeInclusive<u32>, span: &Span, is_free: impl Fn(u32) -> bool) -> Result<u32, BuildError> {
    let (first, last) = (*range.start(), *range.end());
    range.find(|number| is_free(*number)).ok_or_else(|| {
        let title = format!("all numbers from {first} to {last} are taken in the image");
        BuildError::at(span, title, "choose a number for it")
    })
}

fn path_of(text: &str) -> ImagePath {
    ImagePath::parse(text).expect("a constant path is valid")
}
