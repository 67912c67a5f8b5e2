//! Who a thread believes to be.
//!
//! In a user namespace with one id everybody is root, and `setuid` to anyone else fails. So it is only pretended, and
//! for each thread it must be known who it is, also when the thread is the grandchild of one that is long gone and
//! has never made a call that we see. The kernel has no field for that, but it has one that nearly nobody uses and that
//! it copies to new threads and processes as it does ids: the timer slack, by how many nanoseconds a sleep may be late.
//! The supervisor may read and write it in `/proc/PID/timerslack_ns`. Its usual value stands for the first identity of
//! a run, the next for the second, and so on: a few microseconds at most, which no program notices.

use std::collections::HashMap;
use std::num::NonZeroU64;

use layer::record::Node;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::owners::{GROUP_EXECUTE, SETGID, SETUID};
use super::place::Place;
use super::{Handling, Reply, kernel_says, memory, node};
use crate::child::KEPT;
use crate::job::User;
use crate::notify::{Answer, Notification};

/// The kernel's usual timer slack.
pub(crate) const FIRST_SLACK: NonZeroU64 = NonZeroU64::new(50_000).expect("it is not zero");

/// More identities than this in one run are an accident or an attack.
const MOST: usize = 1 << 16;

/// `_LINUX_CAPABILITY_VERSION_3`, the one with 64 bits.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Any of the bits that make a file a program.
const EXECUTABLE: u32 = 0o111;

/// The largest list of groups (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65536;

/// "Leave it as it is" in calls that set several ids.
const UNCHANGED: u32 = u32::MAX;

/// The three ids of a kind, and the one that counts for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    /// Decides who owns new files and who may do what to them.
    pub(super) files: u32,
}

impl Ids {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

/// Which capabilities a thread believes to have: all that root has inside, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rights {
    /// It may take them.
    permitted: bool,
    /// It has those over ids.
    ids: bool,
    /// It has those over files.
    files: bool,
    /// It keeps them when it stops being root.
    keep: bool,
}

impl Rights {
    fn all(has: bool) -> Self {
        Self { permitted: has, ids: has, files: has, keep: false }
    }
}

/// Who a thread believes to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) user: Ids,
    pub(super) group: Ids,
    groups: Vec<u32>,
    rights: Rights,
}

impl Identity {
    /// Whether it has root's rights over files.
    pub(super) fn is_root_for_files(&self) -> bool {
        self.rights.files
    }

    /// Whether new files belong to root.
    pub(super) fn makes_roots_files(&self) -> bool {
        self.user.files == 0 && self.group.files == 0
    }

    /// Whether it is in a group, where files are concerned.
    pub(super) fn is_in_group(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }

    /// What a change of user ids does to capabilities; see capabilities(7), "Effect of user ID changes".
    fn adjust_rights(&mut self, before: &Ids) {
        let after = &self.user;
        if before.has(0) && !after.has(0) && !self.rights.keep {
            (self.rights.permitted, self.rights.ids, self.rights.files) = (false, false, false);
        }
        match (before.effective == 0, after.effective == 0) {
            (true, false) => (self.rights.ids, self.rights.files) = (false, false),
            (false, true) => (self.rights.ids, self.rights.files) = (self.rights.permitted, self.rights.permitted),
            _ => {}
        }
    }

    /// What a change of the user id for files alone does to them.
    fn adjust_rights_over_files(&mut self, before: &Ids) {
        match (before.files == 0, self.user.files == 0) {
            (true, false) => self.rights.files = false,
            (false, true) => self.rights.files = self.rights.permitted,
            _ => {}
        }
    }

    /// Who it is once it executes a program; `user` and `group` are those of a set-ID program.
    fn executing(&self, user: Option<u32>, group: Option<u32>) -> Self {
        let become_one = |ids: Ids, id: Option<u32>| {
            let effective = id.unwrap_or(ids.effective);
            Ids { effective, saved: effective, files: effective, ..ids }
        };
        let (user, group) = (become_one(self.user, user), become_one(self.group, group));
        let is_root = user.effective == 0;
        let rights = Rights { permitted: is_root || user.real == 0, ..Rights::all(is_root) };
        Self { user, group, groups: self.groups.clone(), rights }
    }
}

/// The identities of a run, numbered.
pub(super) struct Identities {
    list: Vec<Identity>,
    numbers: HashMap<Identity, usize>,
}

impl Identities {
    /// The first is the command's.
    pub(super) fn new(user: &User) -> Self {
        let identity = Identity {
            user: Ids::all(user.uid),
            group: Ids::all(user.gid),
            groups: user.groups.clone(),
            rights: Rights::all(user.uid == 0),
        };
        Self { numbers: HashMap::from([(identity.clone(), 0)]), list: vec![identity] }
    }

    /// Who the caller is.
    pub(super) fn of(&self, call: &Notification) -> Result<&Identity, Errno> {
        if self.list.len() == 1 {
            return Ok(&self.list[0]);
        }
        let slack = read_slack(call)?;
        let number = slack.checked_sub(FIRST_SLACK.get()).and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        // A process with a real-time policy has no slack, whatever it had before. It is taken for the first.
        Ok(self.list.get(number).unwrap_or(&self.list[0]))
    }

    /// Makes the caller someone else.
    fn set(&mut self, call: &Notification, identity: Identity) -> Result<(), Errno> {
        let next = self.list.len();
        let number = match self.numbers.get(&identity) {
            Some(number) => *number,
            None if next >= MOST => return Err(Errno::AGAIN),
            None => {
                self.numbers.insert(identity.clone(), next);
                self.list.push(identity);
                next
            }
        };
        write_slack(call, FIRST_SLACK.get() + number as u64)
    }
}

fn slack_file(call: &Notification) -> String {
    format!("{}/timerslack_ns", call.thread)
}

fn read_slack(call: &Notification) -> Result<u64, Errno> {
    let file = rustix::fs::open(slack_file(call), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 32];
    let length = rustix::io::read(&file, &mut text)?;
    let text = std::str::from_utf8(&text[..length]).map_err(|_| Errno::IO)?;
    text.trim_end().parse().map_err(|_| Errno::IO)
}

fn write_slack(call: &Notification, slack: u64) -> Result<(), Errno> {
    let file = rustix::fs::open(slack_file(call), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, slack.to_string().as_bytes()).map(drop)
}

impl Handling<'_> {
    /// Who calls.
    pub(super) fn identity(&self) -> Result<Identity, Answer> {
        Ok(self.state.identities.of(self.call)?.clone())
    }

    /// Calls that ask for ids or set them.
    pub(super) fn identity_call(&mut self) -> Reply {
        let before = self.state.identities.of(self.call)?;
        let value = |id: u32| Ok(Answer::Value(id.into()));
        match self.call.number {
            libc::SYS_getuid => return value(before.user.real),
            libc::SYS_geteuid => return value(before.user.effective),
            libc::SYS_getgid => return value(before.group.real),
            libc::SYS_getegid => return value(before.group.effective),
            libc::SYS_getresuid => return self.tell(before.user),
            libc::SYS_getresgid => return self.tell(before.group),
            libc::SYS_getgroups => return self.tell_groups(&before.groups),
            _ => {}
        }
        let mut after = before.clone();
        let privileged = before.rights.ids;
        let ids = [self.word(0), self.word(1), self.word(2)];
        let result = match self.call.number {
            libc::SYS_setuid => after.user.set(ids[0], privileged),
            libc::SYS_setgid => after.group.set(ids[0], privileged),
            libc::SYS_setreuid => after.user.set_two(ids[0], ids[1], privileged),
            libc::SYS_setregid => after.group.set_two(ids[0], ids[1], privileged),
            libc::SYS_setresuid => after.user.set_three(ids, privileged),
            libc::SYS_setresgid => after.group.set_three(ids, privileged),
            libc::SYS_setfsuid => Ok(after.user.set_for_files(ids[0], privileged)),
            libc::SYS_setfsgid => Ok(after.group.set_for_files(ids[0], privileged)),
            libc::SYS_setgroups if !privileged => Err(Errno::PERM),
            libc::SYS_setgroups => {
                after.groups = self.groups()?;
                Ok(0)
            }
            libc::SYS_prctl => {
                after.rights.keep = ids[1] != 0;
                Ok(0)
            }
            libc::SYS_capget => return self.tell_capabilities(before.rights),
            libc::SYS_capset => {
                self.take_capabilities(&mut after.rights)?;
                Ok(0)
            }
            _ => return Ok(Answer::Continue),
        }?;
        match self.call.number {
            libc::SYS_setfsuid => after.adjust_rights_over_files(&before.user),
            _ => after.adjust_rights(&before.user),
        }
        self.become_identity(after)?;
        Ok(Answer::Value(result.into()))
    }

    /// `execve`, of which the kernel does everything but what set-ID bits mean.
    pub(super) fn execute(&mut self, place: &Place) -> Reply {
        let file = self.file(place)?;
        let node = node(&file).map_err(kernel_says)?;
        if node.file_type() != FileType::RegularFile || node.mode() & EXECUTABLE == 0 {
            return Ok(Answer::Continue);
        }
        let (mut user, mut group) = (None, None);
        let sets_group = node.mode() & (SETGID | GROUP_EXECUTE) == SETGID | GROUP_EXECUTE;
        if (node.mode() & SETUID != 0 || sets_group) && !is_script(&node).map_err(kernel_says)? {
            let record = self.state.record(&file, &node).map_err(kernel_says)?;
            user = (node.mode() & SETUID != 0).then_some(record.uid);
            group = sets_group.then_some(record.gid);
        }
        let after = self.state.identities.of(self.call)?.executing(user, group);
        self.become_identity(after)?;
        Ok(Answer::Continue)
    }

    fn become_identity(&mut self, after: Identity) -> Result<(), Answer> {
        if after != *self.state.identities.of(self.call)? {
            self.still_there()?;
            self.state.identities.set(self.call, after)?;
        }
        Ok(())
    }

    /// Answers `capget`: all that root has inside, or nothing.
    fn tell_capabilities(&self, rights: Rights) -> Reply {
        let [version, process] = self.capability_header()?;
        let asks_for_version = self.call.arguments[1] == 0;
        if version != CAPABILITY_VERSION || process != 0 || asks_for_version {
            return Ok(Answer::Continue);
        }
        let bits = KEPT.bits();
        let set = |has: bool| if has { bits } else { 0 };
        // Three sets of 64 bits, their lower halves first.
        let sets = [set(rights.ids && rights.files), set(rights.permitted), 0];
        let words = sets.iter().map(|set| *set as u32).chain(sets.iter().map(|set| (*set >> 32) as u32));
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        memory::write(self.call, self.call.arguments[1], &bytes)?;
        Ok(Answer::Value(0))
    }

    /// What `capset` asks for, as far as it is permitted.
    fn take_capabilities(&self, rights: &mut Rights) -> Result<(), Answer> {
        let [version, _] = self.capability_header()?;
        if version != CAPABILITY_VERSION {
            return Err(Answer::Continue);
        }
        let mut bytes = [0; 24];
        memory::read(self.call, self.call.arguments[1], &mut bytes)?;
        let word = |index: usize| bytes.as_chunks().0.get(index).map_or(0, |word| u32::from_ne_bytes(*word));
        let set =
            |index: usize| CapabilitySet::from_bits_retain(u64::from(word(index)) | u64::from(word(index + 3)) << 32);
        let (effective, permitted) = (set(0), set(1));
        rights.permitted &= permitted.intersects(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN);
        rights.ids = rights.permitted && effective.intersects(CapabilitySet::SETUID | CapabilitySet::SETGID);
        rights.files = rights.permitted && effective.intersects(CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE);
        Ok(())
    }

    /// The version and process that `capget` and `capset` are called with.
    fn capability_header(&self) -> Result<[u32; 2], Answer> {
        let mut bytes = [0; 8];
        memory::read(self.call, self.call.arguments[0], &mut bytes).map_err(kernel_says)?;
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok([u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])])
    }

    fn tell(&self, ids: Ids) -> Reply {
        for (index, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
            memory::write(self.call, self.call.arguments[index], &id.to_ne_bytes())?;
        }
        Ok(Answer::Value(0))
    }

    fn tell_groups(&self, groups: &[u32]) -> Reply {
        let room = usize::try_from(self.int(0)).map_err(|_| Errno::INVAL)?;
        if room > 0 {
            if room < groups.len() {
                return Err(Answer::Error(Errno::INVAL));
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
            memory::write(self.call, self.call.arguments[1], &bytes)?;
        }
        Ok(Answer::Value(groups.len() as i64))
    }

    fn groups(&self) -> Result<Vec<u32>, Errno> {
        let count = usize::try_from(self.int(0)).map_err(|_| Errno::INVAL)?;
        if count > MOST_GROUPS {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; count * 4];
        memory::read(self.call, self.call.arguments[1], &mut bytes)?;
        let mut groups: Vec<u32> = bytes.as_chunks().0.iter().map(|id| u32::from_ne_bytes(*id)).collect();
        // The kernel keeps them sorted too.
        groups.sort_unstable();
        Ok(groups)
    }
}

/// The rules of setuid(2), setreuid(2), setresuid(2) and setfsuid(2), which are those of groups as well.
impl Ids {
    fn set(&mut self, id: u32, privileged: bool) -> Result<u32, Errno> {
        if id == UNCHANGED {
            return Err(Errno::INVAL);
        }
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            (self.effective, self.files) = (id, id);
        } else {
            return Err(Errno::PERM);
        }
        Ok(0)
    }

    fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<u32, Errno> {
        let old = *self;
        if real != UNCHANGED {
            if !privileged && real != old.real && real != old.effective {
                return Err(Errno::PERM);
            }
            self.real = real;
        }
        if effective != UNCHANGED {
            if !privileged && !old.has(effective) {
                return Err(Errno::PERM);
            }
            self.effective = effective;
        }
        if real != UNCHANGED || (effective != UNCHANGED && effective != old.real) {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(0)
    }

    fn set_three(&mut self, [real, effective, saved]: [u32; 3], privileged: bool) -> Result<u32, Errno> {
        let old = *self;
        for (place, id) in [(&mut self.real, real), (&mut self.effective, effective), (&mut self.saved, saved)] {
            if id == UNCHANGED {
                continue;
            }
            if !privileged && !old.has(id) {
                return Err(Errno::PERM);
            }
            *place = id;
        }
        self.files = self.effective;
        Ok(0)
    }

    /// Says what it was before, and nothing about success.
    fn set_for_files(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.files;
        if id != UNCHANGED && (privileged || self.has(id) || old == id) {
            self.files = id;
        }
        old
    }
}

/// Whether a program is run by another, for which set-ID bits mean nothing.
fn is_script(node: &Node<'_>) -> Result<bool, Errno> {
    let file = rustix::fs::open(node.link(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut start = [0; 2];
    Ok(rustix::io::read(&file, &mut start)? == 2 && start == *b"#!")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved, files: effective }
    }

    #[test]
    fn root_that_becomes_a_user_cannot_go_back() {
        let mut user = Ids::all(0);
        assert_eq!(user.set(105, true), Ok(0));
        assert_eq!(user, Ids::all(105));
        assert_eq!(user.set(0, false), Err(Errno::PERM));
        assert_eq!(user.set_two(0, 0, false), Err(Errno::PERM));
        assert_eq!(user.set_three([0, UNCHANGED, UNCHANGED], false), Err(Errno::PERM));
    }

    fn root() -> Identity {
        Identity { user: Ids::all(0), group: Ids::all(0), groups: Vec::new(), rights: Rights::all(true) }
    }

    #[test]
    fn rights_end_with_being_root_unless_they_are_kept() {
        for keep in [false, true] {
            let mut identity = root();
            identity.rights.keep = keep;
            identity.user = Ids::all(105);
            identity.adjust_rights(&Ids::all(0));
            assert_eq!(identity.rights, Rights { permitted: keep, ids: false, files: false, keep });
            assert_eq!(identity.executing(None, None).rights, Rights::all(false));
        }
    }

    #[test]
    fn a_set_id_program_runs_as_its_owner() {
        let mut identity = root();
        identity.user = Ids::all(105);
        identity.rights = Rights::all(false);
        let after = identity.executing(Some(0), None);
        assert_eq!((after.user, after.rights), (Ids { real: 105, ..Ids::all(0) }, Rights::all(true)));
        assert_eq!(after.group, Ids::all(0));
    }

    #[test]
    fn a_saved_id_is_the_way_back() {
        let mut user = Ids::all(0);
        assert_eq!(user.set_three([UNCHANGED, 105, UNCHANGED], true), Ok(0));
        assert_eq!(user, ids(0, 105, 0));
        assert_eq!(user.set(0, false), Ok(0));
        assert_eq!(user, ids(0, 0, 0));
    }

    #[test]
    fn setting_two_ids_changes_the_saved_one_as_the_kernel_does() {
        let cases = [
            ((UNCHANGED, 5), ids(0, 5, 5)),
            ((UNCHANGED, 0), ids(0, 0, 0)),
            ((5, UNCHANGED), ids(5, 0, 0)),
            ((5, 6), ids(5, 6, 6)),
        ];
        for ((real, effective), expected) in cases {
            let mut user = Ids::all(0);
            assert_eq!(user.set_two(real, effective, true), Ok(0));
            assert_eq!(user, expected, "{real} {effective}");
        }
    }

    #[test]
    fn the_id_for_files_changes_alone_and_the_answer_is_the_old_one() {
        let mut user = Ids::all(0);
        assert_eq!(user.set_for_files(105, true), 0);
        assert_eq!(user, Ids { files: 105, ..Ids::all(0) });
        assert_eq!(user.set_for_files(UNCHANGED, true), 105);
    }
}
