//! Answers what namespaces would answer: what the machine is called, which addresses can be reached, and which
//! processes there are to send signals to.
//!
//! One thread for each run. All of it keeps builds honest, and is no wall: a command may change its memory between our
//! look and the kernel's. The wall is the container's.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Pid;

use super::memory::Memory;
use super::proc::Asked;
use super::watcher::{StatNumbers, stat_numbers};
use crate::filter::SIGNALLING;
use crate::notify::{Answer, Listener, Notification};
use crate::sys;

/// The supervisor of one run.
pub(crate) struct Supervisor<'a> {
    listener: Listener,
    hostname: &'a [u8],
    /// Every process of the run descends from it, and it is none of them.
    watcher: Pid,
    /// The copied root.
    root: PathBuf,
}

/// The longest chain of ancestors that is followed; a longer one is an accident.
const MOST_ANCESTORS: usize = 10_000;

/// How many messages of one call are looked at.
const MOST_MESSAGES: u64 = 64;

impl<'a> Supervisor<'a> {
    pub(crate) fn new(listener: OwnedFd, hostname: &'a [u8], watcher: Pid, root: PathBuf) -> Self {
        Self { listener: Listener::new(listener), hostname, watcher, root }
    }

    /// Answers until the last caller has gone, or `stop` becomes readable.
    pub(crate) fn serve(self, stop: &OwnedFd) -> Result<(), Errno> {
        loop {
            let mut ready =
                [PollFd::from_borrowed_fd(self.listener.descriptor(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            let [calls, stop] = ready.map(|ready| ready.revents());
            if calls.contains(PollFlags::IN) {
                if let Some(call) = self.listener.receive()? {
                    let answer = self.reply(&call);
                    self.listener.answer(&call, answer)?;
                }
            } else if !calls.is_empty() || !stop.is_empty() {
                return Ok(());
            }
        }
    }

    fn reply(&self, call: &Notification) -> Answer {
        match call.number {
            libc::SYS_uname => self.uname(call),
            libc::SYS_connect => reach(address(call, call.arguments[1], call.arguments[2])),
            libc::SYS_sendto => reach(address(call, call.arguments[4], call.arguments[5])),
            libc::SYS_sendmsg => message(call, call.arguments[1]),
            libc::SYS_sendmmsg => messages(call),
            number if SIGNALLING.contains(&number) => self.signal(call),
            _ => self.about_proc(call).unwrap_or(Answer::Continue),
        }
    }

    /// Calls with a path, of which only those into `/proc` are answered.
    fn about_proc(&self, call: &Notification) -> Option<Answer> {
        let asked = |pointer| Asked::of(call, &self.listener, &self.root, pointer, |pid| self.is_inside(pid));
        let word = |index: usize| call.arguments[index] as u32;
        Some(match call.number {
            libc::SYS_openat => asked(1)?.open(word(2)),
            libc::SYS_readlinkat => asked(1)?.read_link(2),
            libc::SYS_fchmodat | libc::SYS_fchmodat2 => asked(1)?.change_mode(word(2)),
            libc::SYS_fchownat => asked(1)?.change_owner(word(2), word(3)),
            libc::SYS_utimensat => asked(1)?.change_times(call.arguments[2]),
            libc::SYS_setxattr => asked(0)?.set_attribute(),
            libc::SYS_getxattr => asked(0)?.get_attribute(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => asked(0)?.open(word(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => asked(0)?.read_link(1),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod => asked(0)?.change_mode(word(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown => asked(0)?.change_owner(word(1), word(2)),
            _ => return None,
        })
    }

    /// The kernel's answer, but for the name.
    fn uname(&self, call: &Notification) -> Answer {
        const FIELD: usize = 65;
        let kernel = rustix::system::uname();
        let fields = [
            kernel.sysname().to_bytes(),
            self.hostname,
            kernel.release().to_bytes(),
            kernel.version().to_bytes(),
            kernel.machine().to_bytes(),
            b"(none)",
        ];
        let mut answer = [0; FIELD * 6];
        for (place, field) in answer.chunks_exact_mut(FIELD).zip(fields) {
            let length = field.len().min(FIELD - 1);
            place[..length].copy_from_slice(&field[..length]);
        }
        // Where memory cannot be written, the kernel says what it knows, or why not.
        let written = Memory::of(call).and_then(|memory| memory.write(call.arguments[0], &answer));
        if written.is_ok() && self.listener.is_waiting(call) { Answer::Value(0) } else { Answer::Continue }
    }

    fn signal(&self, call: &Notification) -> Answer {
        let target = call.arguments[0] as i32;
        if call.number == libc::SYS_kill && target == -1 {
            return self.signal_everybody(call);
        }
        let is_inside = match target {
            // The caller's own group, which began inside.
            0 => true,
            1.. => self.is_inside(target),
            // No group holds processes of inside and of outside, because no session does.
            _ => target.checked_neg().is_some_and(|group| {
                processes().any(|pid| stat(pid).is_some_and(|stat| stat.group == group) && self.is_inside(pid))
            }),
        };
        if is_inside { Answer::Continue } else { Answer::Error(Errno::SRCH) }
    }

    /// `kill(-1)`: everybody inside, but the caller.
    fn signal_everybody(&self, call: &Notification) -> Answer {
        let mut sent = false;
        for pid in processes().filter(|pid| *pid != call.thread.cast_signed() && self.is_inside(*pid)) {
            sent |= sys::signal(pid, call.arguments[1] as i32).is_ok();
        }
        if sent { Answer::Value(0) } else { Answer::Error(Errno::SRCH) }
    }

    /// Whether a process belongs to the run.
    fn is_inside(&self, pid: i32) -> bool {
        let watcher = self.watcher.as_raw_nonzero().get();
        let mut at = pid;
        for _ in 0..MOST_ANCESTORS {
            match stat(at) {
                Some(StatNumbers { parent, .. }) if parent == watcher => return true,
                Some(StatNumbers { parent, .. }) if parent > 1 => at = parent,
                _ => return false,
            }
        }
        false
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<StatNumbers> {
    stat_numbers(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// What an address says about the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It does not leave the machine, or is none.
    Inside,
    Outside,
}

/// Where a call goes whose address may lie in memory that cannot be read: that of a process that has changed who it is.
fn reach(way: Result<Way, Errno>) -> Answer {
    match way {
        Ok(Way::Inside) => Answer::Continue,
        Ok(Way::Outside) | Err(_) => Answer::Error(Errno::NETUNREACH),
    }
}

fn address(call: &Notification, pointer: u64, length: u64) -> Result<Way, Errno> {
    const LONGEST: usize = 28;
    if pointer == 0 {
        return Ok(Way::Inside);
    }
    let mut bytes = [0; LONGEST];
    let bytes = &mut bytes[..usize::try_from(length as u32).unwrap_or(LONGEST).min(LONGEST)];
    Memory::of(call)?.read(pointer, bytes)?;
    Ok(way(bytes))
}

/// Where a `struct sockaddr` leads.
fn way(address: &[u8]) -> Way {
    let family = address.first_chunk().map(|bytes| i32::from(u16::from_ne_bytes(*bytes)));
    let is_inside = match family {
        Some(libc::AF_INET) => {
            let host = address.get(4..8).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            host.is_none_or(|host| is_own(std::net::Ipv4Addr::from(host)))
        }
        Some(libc::AF_INET6) => {
            let host = address.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            host.map(std::net::Ipv6Addr::from).is_none_or(|host| match host.to_ipv4_mapped() {
                Some(host) => is_own(host),
                None => host.is_loopback() || host.is_unspecified(),
            })
        }
        _ => true,
    };
    if is_inside { Way::Inside } else { Way::Outside }
}

fn is_own(host: std::net::Ipv4Addr) -> bool {
    host.is_loopback() || host.is_unspecified()
}

/// `sendmsg`. One whose memory cannot be read has an address only if its socket is not connected: rare enough.
fn message(call: &Notification, header: u64) -> Answer {
    match message_way(call, header) {
        Ok(Way::Outside) => Answer::Error(Errno::NETUNREACH),
        Ok(Way::Inside) | Err(_) => Answer::Continue,
    }
}

fn message_way(call: &Notification, header: u64) -> Result<Way, Errno> {
    // A `struct msghdr` begins with the address' pointer and length.
    let mut bytes = [0; 16];
    Memory::of(call)?.read(header, &mut bytes)?;
    let number = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
    address(call, number(0), number(8) & u64::from(u32::MAX))
}

fn messages(call: &Notification) -> Answer {
    let count = (call.arguments[2] & u64::from(u32::MAX)).min(MOST_MESSAGES);
    let size = size_of::<libc::mmsghdr>() as u64;
    let mut headers = (0..count).map(|index| call.arguments[1].wrapping_add(index * size));
    match headers.any(|header| message_way(call, header) == Ok(Way::Outside)) {
        true => Answer::Error(Errno::NETUNREACH),
        false => Answer::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_machine_itself_lead_inside() {
        let four = |host: [u8; 4]| [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0, 80], &host, &[0; 8]].concat();
        let six = |host: &str| {
            let host: std::net::Ipv6Addr = host.parse().unwrap();
            [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[0, 80, 0, 0, 0, 0], &host.octets(), &[0; 4]].concat()
        };
        let unix = [&(libc::AF_UNIX as u16).to_ne_bytes()[..], b"/run/socket"].concat();
        let inside =
            [four([127, 0, 0, 53]), four([0; 4]), six("::1"), six("::"), six("::ffff:127.0.0.1"), unix, vec![]];
        for address in inside {
            assert_eq!(way(&address), Way::Inside, "{address:?}");
        }
        for address in [four([192, 0, 2, 1]), six("2001:db8::1"), six("::ffff:192.0.2.1")] {
            assert_eq!(way(&address), Way::Outside, "{address:?}");
        }
    }
}
