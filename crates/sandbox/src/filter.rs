//! The system call filter of a command, as a program for the kernel's BPF machine.
//!
//! The filter is a list of rules in order; a call that no rule names is allowed. It does three things:
//!
//! - calls that only wait for a disk succeed at once: a root filesystem that is built can be built again;
//! - calls that change the machine, or that make a sandbox within this one, are refused;
//! - on `userns-single`, calls about owners go to the supervisor; on `userns`, those that make device nodes or look at
//!   them; on `chroot`, calls that a namespace would answer.
//!
//! It is written for each architecture that [`ARCHITECTURE`] names; another one means one more number there, and its
//! old calls in the lists that are only for x86-64 now.
#![expect(clippy::cast_possible_truncation, reason = "system call numbers and BPF operands are 32 bits wide")]

use libc::{c_long, sock_filter};

use crate::job::Network;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Answer success without doing anything.
    Succeed,
    /// Answer `EPERM`.
    Refuse,
    /// Answer `ENOSYS`, so that the caller falls back to an older call.
    Missing,
    /// Answer `EAFNOSUPPORT`.
    NoFamily,
    /// Ask the supervisor.
    Notify,
}

/// For which arguments a rule holds. Only the lower 32 bits of an argument are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// One of these bits is set in this argument.
    AnyBit(u8, u32),
    /// The argument is one of these.
    OneOf(u8, &'static [u32]),
    /// None of these bits is set in this argument.
    NoBit(u8, u32),
    /// The argument is anything but this.
    Not(u8, u32),
}

/// One call, and what happens to it.
#[derive(Clone, Copy, Debug)]
struct Rule {
    number: c_long,
    when: When,
    action: Action,
}

/// The value of `seccomp_data.arch` for this program.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
/// The value of `seccomp_data.arch` for this program.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The filter for a rung where root is root.
pub(crate) fn plain() -> Vec<sock_filter> {
    assemble(&common())
}

/// The filter for a rung where root is root, but for device nodes: a supervisor makes them, and lets them be seen.
pub(crate) fn devices() -> Vec<sock_filter> {
    let making = MAKING_NODES.iter().map(|(number, mode)| Rule {
        number: *number,
        when: When::AnyBit(*mode, DEVICES),
        action: Action::Notify,
    });
    let seeing = LOOKING.iter().chain(ATTRIBUTES).chain(&[libc::SYS_chroot]);
    let mut rules: Vec<Rule> = seeing.map(|number| always(*number, Action::Notify)).chain(making).collect();
    rules.extend(common());
    assemble(&rules)
}

/// Calls that make a device node, if the mode in this argument says so.
const MAKING_NODES: &[(c_long, u8)] = &[
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// The bit that `S_IFCHR` and `S_IFBLK` have, and of what can be made besides nothing.
const DEVICES: u32 = libc::S_IFCHR;

/// The filter for a rung where a supervisor answers for owners too. If trees below have a sidecar, calls that copy a symbolic link up
/// must be seen too, because its record does not travel with it.
pub(crate) fn supervised(sidecars_below: bool) -> Vec<sock_filter> {
    let mut rules = notified();
    if sidecars_below {
        rules.extend(MOVES.iter().map(|number| always(*number, Action::Notify)));
    }
    let prctl = |options, action| Rule { number: libc::SYS_prctl, when: When::OneOf(0, options), action };
    rules.extend([prctl(IGNORED_OPTIONS, Action::Succeed), prctl(NOTIFIED_OPTIONS, Action::Notify)]);
    rules.extend(common());
    assemble(&rules)
}

/// The filter where there are no namespaces, and a supervisor stands in for them. Messages to the descriptor `handover`
/// are not stopped.
pub(crate) fn without_namespaces(network: Network, handover: u32) -> Vec<sock_filter> {
    let mut rules: Vec<Rule> = SIGNALLING.iter().map(|number| always(*number, Action::Notify)).collect();
    rules.push(always(libc::SYS_uname, Action::Notify));
    let directory = libc::O_DIRECTORY as u32;
    rules.extend(OPENING.iter().map(|(number, flags)| Rule {
        number: *number,
        when: When::NoBit(*flags, directory),
        action: Action::Notify,
    }));
    rules.extend(NAMING.iter().map(|number| always(*number, Action::Notify)));
    if network == Network::None {
        rules.push(always(libc::SYS_connect, Action::Notify));
        // Without an address the socket is connected, and that was asked for before.
        let addressed = When::AnyBit(4, u32::MAX);
        rules.push(Rule { number: libc::SYS_sendto, when: addressed, action: Action::Notify });
        let messages = [libc::SYS_sendmsg, libc::SYS_sendmmsg];
        rules.extend(messages.map(|number| Rule { number, when: When::Not(0, handover), action: Action::Notify }));
        rules.push(sockets(OTHER_FAMILIES));
    }
    rules.extend(common());
    assemble(&rules)
}

/// The same where nobody can answer.
pub(crate) fn without_answers(network: Network) -> Vec<sock_filter> {
    let mut rules = Vec::new();
    if network == Network::None {
        rules.extend([sockets(INTERNET_FAMILIES), sockets(OTHER_FAMILIES)]);
    }
    rules.extend(common());
    assemble(&rules)
}

fn sockets(families: &'static [u32]) -> Rule {
    Rule { number: libc::SYS_socket, when: When::OneOf(0, families), action: Action::NoFamily }
}

const INTERNET_FAMILIES: &[u32] = &[libc::AF_INET as u32, libc::AF_INET6 as u32];

/// Families that lead to the wire or to other machines without an address that says so.
const OTHER_FAMILIES: &[u32] = &[libc::AF_PACKET as u32, libc::AF_VSOCK as u32];

/// Calls with a path that may mean an open file, in the way of `/proc/self/fd/7`; those that open are apart.
const NAMING: &[c_long] = &[
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_getxattr,
];

/// Calls whose first argument is a process or thread that gets a signal, now or later.
pub(crate) const SIGNALLING: &[c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
];

/// What `prctl` only pretends to do. Capabilities that are really given up could not be had back when the supervisor
/// says that a process is root again; the timer slack is where identities ride (see `supervisor::identity`); and
/// whether set-ID programs work, the kernel does not know.
const IGNORED_OPTIONS: &[u32] = &[
    libc::PR_SET_TIMERSLACK as u32,
    libc::PR_CAPBSET_DROP as u32,
    libc::PR_SET_SECUREBITS as u32,
    libc::PR_GET_NO_NEW_PRIVS as u32,
];

/// What the supervisor hears of `prctl`.
const NOTIFIED_OPTIONS: &[u32] = &[libc::PR_SET_KEEPCAPS as u32];

fn always(number: c_long, action: Action) -> Rule {
    Rule { number, when: When::Always, action }
}

/// Calls that create a file, if the flags in this argument say so.
const OPENING: &[(c_long, u8)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// `O_CREAT`, or the bit of `O_TMPFILE` that `O_DIRECTORY` has not.
const CREATING: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

fn notified() -> Vec<Rule> {
    let opening = OPENING.iter().map(|(number, flags)| Rule {
        number: *number,
        when: When::AnyBit(*flags, CREATING),
        action: Action::Notify,
    });
    let numbers = LOOKING.iter().chain(NOTIFIED).chain(ATTRIBUTES);
    numbers.map(|number| always(*number, Action::Notify)).chain(opening).collect()
}

/// `setxattrat` and its kin, which the C library does not know yet. The numbers are those of all architectures.
pub(crate) const SETXATTRAT: c_long = 463;
/// See [`SETXATTRAT`].
pub(crate) const GETXATTRAT: c_long = 464;
/// See [`SETXATTRAT`].
pub(crate) const LISTXATTRAT: c_long = 465;
/// See [`SETXATTRAT`].
pub(crate) const REMOVEXATTRAT: c_long = 466;

/// Calls that say what a file is.
const LOOKING: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
];

/// Calls about extended attributes.
const ATTRIBUTES: &[c_long] = &[
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// Calls about owners, ids and devices; the frequent ones first.
const NOTIFIED: &[c_long] = &[
    libc::SYS_fchownat,
    libc::SYS_fchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chroot,
];

/// Calls that give a symbolic link, fifo or socket a new name or new times, and by that copy it up.
pub(crate) const MOVES: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_utimensat,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
];

/// Calls that only make data durable.
const DURABLE: &[c_long] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_msync,
];

/// Calls that a program can do without, and that would lead around this filter or around the supervisor: `clone3` hides
/// its flags in memory, rings of requests do files without system calls, and the last take their own way to attributes.
const MISSING: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    SETXATTRAT,
    GETXATTRAT,
    LISTXATTRAT,
    REMOVEXATTRAT,
];

/// Every bit that makes a namespace; the lowest is that of the clock, which only `unshare` takes.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const CLOCK_NAMESPACE: u32 = 0x80;

/// `open_tree_attr`, which the C library does not know yet.
const OPEN_TREE_ATTR: c_long = 467;

/// Calls that no command in a root filesystem needs, and that concern the machine, other processes' memory, or mounts.
const REFUSED: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

fn common() -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![
        Rule { number: libc::SYS_clone, when: When::AnyBit(0, NAMESPACES), action: Action::Refuse },
        Rule { number: libc::SYS_unshare, when: When::AnyBit(0, NAMESPACES | CLOCK_NAMESPACE), action: Action::Refuse },
    ];
    let lists = [(DURABLE, Action::Succeed), (MISSING, Action::Missing), (REFUSED, Action::Refuse)];
    for (numbers, action) in lists {
        rules.extend(numbers.iter().map(|number| always(*number, action)));
    }
    rules
}

/// Where `seccomp_data` keeps things.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// Calls of the x32 interface have this bit in their number, and would slip through rules for the plain number.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

fn assemble(rules: &[Rule]) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_OFFSET),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_OFFSET),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([jump(libc::BPF_JGE, X32_BIT, 0, 1), answer(Action::Missing.value())]);
    for rule in rules {
        rule.assemble(&mut program);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

impl Rule {
    fn assemble(&self, program: &mut Vec<sock_filter>) {
        let action = answer(self.action.value());
        let mut body = Vec::new();
        match self.when {
            When::Always => body.push(action),
            When::AnyBit(argument, bits) => {
                body.extend([load_argument(argument), jump(libc::BPF_JSET, bits, 0, 1), action]);
            }
            When::NoBit(argument, bits) => {
                body.extend([load_argument(argument), jump(libc::BPF_JSET, bits, 1, 0), action]);
            }
            When::Not(argument, value) => {
                body.extend([load_argument(argument), jump(libc::BPF_JEQ, value, 1, 0), action]);
            }
            When::OneOf(argument, values) => {
                body.push(load_argument(argument));
                for value in values {
                    body.extend([jump(libc::BPF_JEQ, *value, 0, 1), action]);
                }
            }
        }
        if self.when != When::Always {
            // The accumulator holds the argument now; later rules look at the number.
            body.push(load(NUMBER_OFFSET));
        }
        let over = u8::try_from(body.len()).expect("a rule has few instructions");
        program.push(jump(libc::BPF_JEQ, self.number as u32, 0, over));
        program.append(&mut body);
    }
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Self::Succeed => libc::SECCOMP_RET_ERRNO,
            Self::Refuse => libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            Self::Missing => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
            Self::NoFamily => libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32,
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// The lower half of an argument.
fn load_argument(argument: u8) -> sock_filter {
    let lower = if cfg!(target_endian = "big") { 4 } else { 0 };
    load(ARGUMENTS_OFFSET + 8 * u32::from(argument) + lower)
}

fn jump(test: u32, operand: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, operand, if_true, if_false)
}

fn answer(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

fn instruction(code: u32, operand: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: if_true, jf: if_false, k: operand }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[sock_filter], architecture: u32, number: c_long, arguments: [u64; 6]) -> u32 {
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |truth: bool| usize::from(if truth { jt } else { jf });
            match u32::from(code) {
                0x20 => {
                    accumulator = match k {
                        0 => number as u32,
                        4 => architecture,
                        offset => (arguments[(offset as usize - 16) / 8] >> (offset % 8 * 8)) as u32,
                    }
                }
                0x15 => at += jump(accumulator == k),
                0x35 => at += jump(accumulator >= k),
                0x45 => at += jump(accumulator & k != 0),
                0x06 => return k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn calls_are_treated_as_the_rules_say() {
        let none = [0; 6];
        let argument = |at: usize, value: i32| {
            let mut arguments = none;
            arguments[at] = value as u64;
            arguments
        };
        let (allow, notify) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF);
        let (succeed, refuse) = (Action::Succeed.value(), Action::Refuse.value());
        let node = |kind: u32| argument(2, kind.cast_signed() | 0o600);
        let program = devices();
        for (number, arguments, expected) in [
            (libc::SYS_mknodat, node(libc::S_IFCHR), notify),
            (libc::SYS_mknodat, node(libc::S_IFBLK), notify),
            (libc::SYS_mknodat, node(libc::S_IFIFO), allow),
            (libc::SYS_mknodat, node(libc::S_IFSOCK), allow),
            (libc::SYS_mknodat, node(libc::S_IFREG), allow),
            (libc::SYS_newfstatat, none, notify),
            (libc::SYS_lgetxattr, none, notify),
            (libc::SYS_fchownat, none, allow),
            (libc::SYS_setuid, none, allow),
            (libc::SYS_mount, none, refuse),
        ] {
            assert_eq!(run(&program, ARCHITECTURE, number, arguments), expected, "{number} where devices are recorded");
        }
        let cases = [
            (libc::SYS_read, none, allow, allow),
            (libc::SYS_fsync, none, succeed, succeed),
            (libc::SYS_mount, none, refuse, refuse),
            (libc::SYS_clone3, none, Action::Missing.value(), Action::Missing.value()),
            (libc::SYS_clone, argument(0, libc::SIGCHLD), allow, allow),
            (libc::SYS_clone, argument(0, libc::CLONE_NEWUSER | libc::SIGCHLD), refuse, refuse),
            (libc::SYS_unshare, argument(0, libc::CLONE_FS), allow, allow),
            (libc::SYS_unshare, argument(0, libc::CLONE_NEWNS), refuse, refuse),
            (libc::SYS_openat, argument(2, libc::O_RDWR | libc::O_DIRECTORY), allow, allow),
            (libc::SYS_openat, argument(2, libc::O_RDWR | libc::O_CREAT), allow, notify),
            (libc::SYS_openat, argument(2, libc::O_TMPFILE), allow, notify),
            (libc::SYS_fchownat, none, allow, notify),
            (libc::SYS_prctl, argument(0, libc::PR_SET_TIMERSLACK), allow, succeed),
            (libc::SYS_prctl, argument(0, libc::PR_SET_KEEPCAPS), allow, notify),
            (libc::SYS_prctl, argument(0, libc::PR_SET_NAME), allow, allow),
            (libc::SYS_renameat2, none, allow, notify),
        ];
        let (plain, supervised) = (plain(), supervised(true));
        for (number, arguments, expected_plain, expected_supervised) in cases {
            assert_eq!(run(&plain, ARCHITECTURE, number, arguments), expected_plain, "{number}");
            assert_eq!(run(&supervised, ARCHITECTURE, number, arguments), expected_supervised, "{number} supervised");
        }
        assert!(supervised.len() < 4096, "the kernel takes no longer program");
    }

    #[test]
    fn without_namespaces_addresses_signals_and_names_are_asked_for() {
        let argument = |at: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            arguments
        };
        let (allow, notify) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF);
        let packet = libc::AF_PACKET as u64;
        let cases = [
            (libc::SYS_connect, [0; 6], notify, allow, allow),
            (libc::SYS_sendto, [0; 6], allow, allow, allow),
            (libc::SYS_sendto, argument(4, 0x7fff_0000_1000), notify, allow, allow),
            (libc::SYS_sendmsg, argument(0, 5), notify, allow, allow),
            (libc::SYS_sendmsg, argument(0, 1023), allow, allow, allow),
            (libc::SYS_socket, argument(0, packet), Action::NoFamily.value(), allow, Action::NoFamily.value()),
            (libc::SYS_socket, argument(0, libc::AF_INET as u64), allow, allow, Action::NoFamily.value()),
            (libc::SYS_socket, argument(0, libc::AF_UNIX as u64), allow, allow, allow),
            (libc::SYS_kill, [0; 6], notify, notify, allow),
            (libc::SYS_uname, [0; 6], notify, notify, allow),
            (libc::SYS_fsync, [0; 6], Action::Succeed.value(), Action::Succeed.value(), Action::Succeed.value()),
        ];
        let programs = [
            without_namespaces(Network::None, 1023),
            without_namespaces(Network::Host, 1023),
            without_answers(Network::None),
        ];
        for (number, arguments, none, host, unanswered) in cases {
            for (program, expected) in programs.iter().zip([none, host, unanswered]) {
                assert_eq!(run(program, ARCHITECTURE, number, arguments), expected, "{number} {arguments:?}");
            }
        }
    }

    #[test]
    fn calls_of_another_architecture_kill_and_those_of_x32_do_not_exist() {
        let program = plain();
        assert_eq!(run(&program, 0x4000_0003, 5, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(&program, ARCHITECTURE, 0x4000_0000 + libc::SYS_mount, [0; 6]), Action::Missing.value());
        }
    }

    #[test]
    fn moves_are_seen_only_when_a_record_could_be_lost() {
        assert_eq!(run(&supervised(false), ARCHITECTURE, libc::SYS_renameat2, [0; 6]), libc::SECCOMP_RET_ALLOW);
    }
}
