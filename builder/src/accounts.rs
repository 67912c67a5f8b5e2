//! Users and groups of an image, by name: what `chown` inside the image would make of `redis:adm`.

use std::io;

use layer::entry::ImagePath;
use layer::view::View;
use spec::Owner;

/// No account file is larger than this.
const LARGEST_FILE: u64 = 16 << 20;

/// The accounts of an image, as its `/etc/passwd` and `/etc/group` have them.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<(String, u32, Vec<String>)>,
}

/// A line of passwd(5), as far as it matters here.
#[derive(Clone, Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Numbers for an owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The groups that a process of this user has besides, sorted.
    pub groups: Vec<u32>,
    /// The home directory; `/` for a user that is only a number.
    pub home: String,
}

/// An owner that the image does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {kind} `{name}` at this point")]
pub struct UnknownAccount {
    /// `user` or `group`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl Accounts {
    /// Reads the accounts of an image; missing files mean no accounts.
    pub fn read(view: &View<'_>) -> io::Result<Self> {
        let text = |path: &str| -> io::Result<String> {
            let path = ImagePath::parse(path).expect("a constant path is valid");
            let bytes = view.read(&path, LARGEST_FILE)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self {
            users: text("etc/passwd")?.lines().filter_map(user).collect(),
            groups: text("etc/group")?.lines().filter_map(group).collect(),
        })
    }

    /// The numbers of an owner. A user given by number without a group has the group of that user if it is known,
    /// else group 0, as container engines have it.
    pub fn ids(&self, owner: &Owner) -> Result<Ids, UnknownAccount> {
        let number: Option<u32> = owner.user.parse().ok();
        let known = self.users.iter().find(|user| user.name == owner.user || Some(user.uid) == number);
        let uid = match (known, number) {
            (Some(user), _) => user.uid,
            (None, Some(number)) => number,
            (None, None) => return Err(UnknownAccount { kind: "user", name: owner.user.clone() }),
        };
        let gid = match &owner.group {
            Some(group) => self.gid(group)?,
            None => known.map_or(0, |user| user.gid),
        };
        let member = |(_, gid, members): &(String, u32, Vec<String>)| {
            let named = known.is_some_and(|user| members.contains(&user.name));
            (named && owner.group.is_none()).then_some(*gid)
        };
        let mut groups: Vec<u32> = self.groups.iter().filter_map(member).collect();
        groups.sort_unstable();
        let home = known.map_or_else(|| "/".to_owned(), |user| user.home.clone());
        Ok(Ids { uid, gid, groups, home })
    }

    fn gid(&self, group: &str) -> Result<u32, UnknownAccount> {
        let named = self.groups.iter().find(|(name, ..)| name == group).map(|(_, gid, _)| *gid);
        named.or_else(|| group.parse().ok()).ok_or_else(|| UnknownAccount { kind: "group", name: group.to_owned() })
    }
}

fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.to_owned();
    Some(User { name, uid, gid, home })
}

fn group(line: &str) -> Option<(String, u32, Vec<String>)> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let gid = fields.nth(1)?.parse().ok()?;
    let members = fields.next().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    Some((name, gid, members.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nredis:x:101:103::/var/lib/redis:/usr/sbin/nologin\n+nis\n";
        let groups = "root:x:0:\nadm:x:4:syslog,redis\nredis:x:103:\n";
        Accounts {
            users: passwd.lines().filter_map(user).collect(),
            groups: groups.lines().filter_map(group).collect(),
        }
    }

    #[test]
    fn names_and_numbers_are_found() {
        let cases = [
            ("redis", (101, 103, vec![4])),
            ("redis:adm", (101, 4, vec![])),
            ("101", (101, 103, vec![4])),
            ("4711", (4711, 0, vec![])),
            ("4711:7", (4711, 7, vec![])),
            ("root", (0, 0, vec![])),
        ];
        for (owner, (uid, gid, groups)) in cases {
            let found = accounts().ids(&owner.parse().unwrap()).unwrap();
            assert_eq!((found.uid, found.gid, found.groups), (uid, gid, groups), "{owner}");
        }
    }

    #[test]
    fn unknown_names_are_errors_that_name_them() {
        for (owner, expected) in [("nobody", "user `nobody`"), ("redis:wheel", "group `wheel`")] {
            let error = accounts().ids(&owner.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
