//! The ids that `/etc/subuid` and `/etc/subgid` give a user, and the map that is made of them.
//!
//! Inside, 0 is the caller, and 1 to 65535 are the caller's subordinate ids, in the order in which the files list them.
//! Always exactly as many: what a command may do must not differ from machine to machine.

use std::fs;
use std::ops::Range;
use std::process::Command;

use rustix::process::{getegid, geteuid};

use crate::obstacle::Obstacle;

/// How many subordinate ids it takes to have 65536 in all.
pub(crate) const NEEDED: u64 = 65535;

/// Where ranges begin that nobody has chosen (`SUB_UID_MIN` of login.defs).
const FIRST_FREE: u64 = 100_000;

const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";

/// The user who builds, as those files may name them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    number: String,
    names: Vec<String>,
    /// Whether the names are those of `/etc/passwd`, which `usermod` knows.
    local: bool,
}

impl Names {
    fn of_this_user() -> Self {
        let number = geteuid().as_raw().to_string();
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let mut names = names_of(&accounts, &number);
        let local = !names.is_empty();
        if !local {
            // Users of a directory service are in no file.
            let output = Command::new("getent").args(["passwd", &number]).output();
            names = output
                .map_or_else(|_| Vec::new(), |output| names_of(&String::from_utf8_lossy(&output.stdout), &number));
        }
        Self { number, names, local }
    }

    fn has(&self, name: &str) -> bool {
        name == self.number || self.names.iter().any(|own| own == name)
    }

    /// What people call this user.
    fn shown(&self) -> &str {
        self.names.first().unwrap_or(&self.number)
    }
}

/// The names that lines of the form of `/etc/passwd` give a number.
fn names_of(accounts: &str, number: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    };
    accounts.lines().filter_map(name).collect()
}

/// A line of a file of ranges: whose they are, and which. Other lines, such as comments, are none.
fn parse(line: &str) -> Option<(&str, Range<u64>)> {
    let mut fields = line.trim().split(':');
    let (name, start, count) = (fields.next()?, fields.next()?, fields.next()?);
    let (start, count): (u32, u32) = (start.parse().ok()?, count.parse().ok()?);
    fields.next().is_none().then_some((name, start.into()..start.saturating_add(count).into()))
}

/// What a file gives a user, each id once and never `own`, which is the user's already.
fn given(text: &str, names: &Names, own: u32) -> Vec<Range<u64>> {
    let own = u64::from(own)..u64::from(own) + 1;
    let mut taken: Vec<Range<u64>> = Vec::new();
    for (_, range) in text.lines().filter_map(parse).filter(|(name, _)| names.has(name)) {
        let new = taken.iter().fold(without(&range, &own).collect(), |pieces: Vec<_>, other| {
            pieces.into_iter().flat_map(|piece| without(&piece, other)).collect()
        });
        taken.extend(new);
    }
    taken
}

/// The parts of a range that are not in another one.
fn without(range: &Range<u64>, other: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let below = range.start..range.end.min(other.start);
    let above = range.start.max(other.end)..range.end;
    [below, above].into_iter().filter(|part| !part.is_empty())
}

fn count(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The arguments of `newuidmap` or `newgidmap` after the process: inside, outside, how many, for each piece of the map.
fn map(own: u32, ranges: &[Range<u64>]) -> Vec<String> {
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1;
    for range in ranges {
        let length = (range.end - range.start).min(NEEDED + 1 - inside);
        if length == 0 {
            break;
        }
        words.extend([inside, range.start, length].map(|number| number.to_string()));
        inside += length;
    }
    words
}

/// The first id that no line of either file gives to anyone, and that is not below those that are for this.
fn first_free(files: [&str; 2]) -> u64 {
    let ends = files.iter().flat_map(|text| text.lines()).filter_map(|line| Some(parse(line)?.1.end));
    ends.fold(FIRST_FREE, u64::max)
}

/// Which ids a user namespace gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Arguments of `newuidmap`.
    pub(crate) users: Vec<String>,
    /// Arguments of `newgidmap`.
    pub(crate) groups: Vec<String>,
}

impl Ranges {
    /// Those of the user who builds.
    pub(crate) fn of_this_user() -> Result<Self, Obstacle> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (names, ids) = (Names::of_this_user(), (geteuid().as_raw(), getegid().as_raw()));
        Self::new(&names, ids, [&read(SUBUID), &read(SUBGID)])
    }

    /// `files` are what `/etc/subuid` and `/etc/subgid` say. Both name users, also that of groups.
    fn new(names: &Names, (uid, gid): (u32, u32), files: [&str; 2]) -> Result<Self, Obstacle> {
        let (users, groups) = (given(files[0], names, uid), given(files[1], names, gid));
        let (uids, gids) = (count(&users), count(&groups));
        if uids < NEEDED || gids < NEEDED {
            let (user, known) = (names.shown().to_owned(), names.local);
            return Err(Obstacle::Ranges { user, known, uids, gids, first_free: first_free(files) });
        }
        Ok(Self { users: map(uid, &users), groups: map(gid, &groups) })
    }

    /// Names the map: files belong to these ids outside.
    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.users.join(":"), self.groups.join(":"))
    }
}

/// What has to be in the files so that a user has enough, as what an administrator types. `found` is what is there.
pub(crate) fn grant(user: &str, known: bool, [uids, gids]: [u64; 2], first_free: u64) -> String {
    let missing = |found: u64| NEEDED.saturating_sub(found);
    if !known {
        let line = format!("{user}:{first_free}:{}", NEEDED + 1);
        let files = [(SUBUID, uids), (SUBGID, gids)].into_iter().filter(|(_, found)| missing(*found) > 0);
        let commands: Vec<String> = files.map(|(file, _)| format!("echo {line} >> {file}")).collect();
        return format!("as root: {}", commands.join("; "));
    }
    let option = |name: &str, found: u64| match (missing(found), found) {
        (0, _) => String::new(),
        // As many as is usual, where there are none yet.
        (_, 0) => format!(" {name} {first_free}-{}", first_free + NEEDED),
        (missing, _) => format!(" {name} {first_free}-{}", first_free + missing - 1),
    };
    format!("as root: usermod{}{} {user}", option("--add-subuids", uids), option("--add-subgids", gids))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Names {
        Names { number: "1000".to_owned(), names: vec!["alice".to_owned()], local: true }
    }

    #[test]
    fn names_are_those_that_the_accounts_give_a_number() {
        let accounts = "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nal:x:1000:100:::\nbroken\n";
        assert_eq!(names_of(accounts, "1000"), ["alice", "al"]);
        assert_eq!(names_of(accounts, "100"), Vec::<String>::new());
    }

    #[test]
    fn ranges_are_found_by_name_and_by_number_and_every_id_counts_once() {
        let cases = [
            ("alice:100000:65536\nbob:165536:65536\n", "[100000..165536]"),
            ("1000:5000:10\n# alice:1:2\nalice:9000:5\nalice:x:5\nalice:1:2:3\n", "[5000..5010, 9000..9005]"),
            ("alice:5000:10\n1000:5000:10\nalice:4995:20\n", "[5000..5010, 4995..5000, 5010..5015]"),
            ("alice:998:5\n", "[998..1000, 1001..1003]"),
            ("alice:4294967290:4294967295\n", "[4294967290..4294967295]"),
            ("alicea:1:2\n", "[]"),
        ];
        for (text, expected) in cases {
            assert_eq!(format!("{:?}", given(text, &alice(), 1000)), expected, "{text}");
        }
    }

    #[test]
    fn a_map_has_65536_ids_whatever_the_ranges_are() {
        let ranges = Ranges::new(&alice(), (1000, 100), ["alice:100000:200000\n", "alice:1:100\nalice:70000:70000\n"]);
        let ranges = ranges.unwrap();
        assert_eq!(ranges.users.join(" "), "0 1000 1 1 100000 65535");
        assert_eq!(ranges.groups.join(" "), "0 100 1 1 1 99 100 70000 65436");
        assert_eq!(ranges.describe(), "0:1000:1:1:100000:65535 0:100:1:1:1:99:100:70000:65436");
    }

    #[test]
    fn too_few_ids_are_an_obstacle_whose_fix_is_the_command_to_type() {
        let bob = "bob:100000:65536\n";
        let short = format!("{bob}alice:165536:1000\n");
        let enough = format!("{bob}alice:165536:65536\n");
        let nobody = Names { number: "4242".to_owned(), names: Vec::new(), local: false };
        let cases = [
            (alice(), ["", ""], "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice"),
            (alice(), [bob, bob], "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 alice"),
            (alice(), [&enough, bob], "usermod --add-subgids 231072-296607 alice"),
            (alice(), [&short, &enough], "usermod --add-subuids 231072-295606 alice"),
            (nobody, [bob, ""], "echo 4242:165536:65536 >> /etc/subuid; echo 4242:165536:65536 >> /etc/subgid"),
        ];
        for (names, files, expected) in cases {
            let obstacle = Ranges::new(&names, (1000, 1000), files).unwrap_err();
            assert_eq!(obstacle.fix(), format!("as root: {expected}"), "{files:?}");
        }
        let obstacle = Ranges::new(&alice(), (1000, 1000), [&short, &enough]).unwrap_err();
        assert_eq!(obstacle.to_string(), "/etc/subuid gives alice 1000 subordinate ids, and 65535 are needed");
    }
}
