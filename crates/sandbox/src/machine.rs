//! Whether programs of another machine can be run here: natively, as 32-bit programs on many 64-bit machines, or by an
//! emulator that the kernel calls (`binfmt_misc`). A program that only exits is tried, where commands are run: what the
//! kernel lists says neither whether an emulator can be reached from there nor what the machine does by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use layer::record::TreeDir;

use crate::enter::{CannotRun, Sandbox};
use crate::job::{Job, Network, Stdin, User};

/// What is known of machines, by the name that images have for them: nothing, or why commands of theirs cannot be run.
pub(crate) type Machines = Mutex<BTreeMap<String, Result<(), CannotRun>>>;

/// How an ELF file says which machine it is for, and what its program is that only exits. See elf(5), and for the numbers
/// of the call "exit" and its registers syscall(2).
struct Machine {
    /// As images call it, which is Go's `GOARCH`.
    name: &'static str,
    number: u16,
    flags: u32,
    class: Class,
    order: Order,
    code: &'static [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Bits32,
    Bits64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

const MACHINES: [Machine; 7] = [
    // xor edi, edi; mov eax, 60; syscall
    Machine {
        name: "amd64",
        number: 62,
        flags: 0,
        class: Class::Bits64,
        order: Order::Little,
        code: &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
    },
    // xor ebx, ebx; mov eax, 1; int 0x80
    Machine {
        name: "386",
        number: 3,
        flags: 0,
        class: Class::Bits32,
        order: Order::Little,
        code: &[0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80],
    },
    // mov x0, 0; mov x8, 93; svc 0
    Machine {
        name: "arm64",
        number: 183,
        flags: 0,
        class: Class::Bits64,
        order: Order::Little,
        code: &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
    },
    // mov r0, 0; mov r7, 1; svc 0
    Machine {
        name: "arm",
        number: 40,
        flags: 0x0500_0000,
        class: Class::Bits32,
        order: Order::Little,
        code: &[0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
    },
    // li a0, 0; li a7, 93; ecall
    Machine {
        name: "riscv64",
        number: 243,
        flags: 0,
        class: Class::Bits64,
        order: Order::Little,
        code: &[0x13, 5, 0, 0, 0x93, 8, 0xd0, 5, 0x73, 0, 0, 0],
    },
    // li r0, 1; li r3, 0; sc
    Machine {
        name: "ppc64le",
        number: 21,
        flags: 2,
        class: Class::Bits64,
        order: Order::Little,
        code: &[1, 0, 0, 0x38, 0, 0, 0x60, 0x38, 2, 0, 0, 0x44],
    },
    // lghi r2, 0; svc 1
    Machine {
        name: "s390x",
        number: 22,
        flags: 0,
        class: Class::Bits64,
        order: Order::Big,
        code: &[0xa7, 0x29, 0, 0, 0x0a, 1],
    },
];

/// How often a program is tried.
const ATTEMPTS: usize = 4;

/// Where the program is loaded.
const ADDRESS: u32 = 0x0040_0000;

impl Sandbox {
    /// Whether commands of images for this machine can be run; `architecture` is its name in images, which is Go's
    /// `GOARCH`. Tried once for each.
    pub fn may_run_for(&self, architecture: &str) -> Result<(), CannotRun> {
        self.may_run()?;
        if architecture == this_machine() {
            return Ok(());
        }
        let mut known = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(architecture.to_owned()).or_insert_with(|| self.try_machine(architecture)).clone()
    }

    fn try_machine(&self, architecture: &str) -> Result<(), CannotRun> {
        let refused = |why: String| CannotRun::Machine { architecture: architecture.to_owned(), why };
        let Some(machine) = MACHINES.iter().find(|machine| machine.name == architecture) else {
            return Err(refused("no emulator of it is known".to_owned()));
        };
        match self.try_program(&machine.program()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refused("the kernel has no emulator for it".to_owned())),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    fn try_program(&self, program: &[u8]) -> io::Result<bool> {
        let directory = tempfile::tempdir()?;
        let upper = TreeDir::create(directory.path().join("tree"))?;
        write_program(&upper.root().join("try"), program)?;
        let job = Job {
            lowers: Vec::new(),
            upper,
            argv: vec!["/try".into()],
            env: Vec::new(),
            directory: PathBuf::from("/"),
            user: User::default(),
            network: Network::None,
            mounts: Vec::new(),
            hostname: "localhost".to_owned(),
            stdin: Stdin::Null,
            interrupt: Arc::default(),
        };
        // While another thread starts a process, that one has our file open for writing too, and it cannot be executed.
        Ok((0..ATTEMPTS).any(|_| self.run(&job, &mut |_| {}).is_ok_and(crate::Outcome::is_success)))
    }
}

fn write_program(path: &Path, program: &[u8]) -> io::Result<()> {
    fs::write(path, program)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// The name that images have for this machine.
fn this_machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
}

impl Machine {
    /// An ELF file with one segment, which only exits.
    fn program(&self) -> Vec<u8> {
        let wide = self.class == Class::Bits64;
        let (header, segment): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
        let start = header + segment;
        let size = u32::from(start) + self.code.len() as u32;
        let mut file = Bytes { order: self.order, wide, bytes: Vec::with_capacity(size as usize) };
        file.raw(b"\x7fELF");
        file.raw(&[if wide { 2 } else { 1 }, if self.order == Order::Little { 1 } else { 2 }, 1]);
        file.raw(&[0; 9]);
        // An executable file of this machine, version 1.
        file.half(2);
        file.half(self.number);
        file.word(1);
        file.address(ADDRESS + u32::from(start));
        file.address(u32::from(header));
        file.address(0);
        file.word(self.flags);
        for half in [header, segment, 1, 0, 0, 0] {
            file.half(half);
        }
        // A segment that is loaded (1) to be read and executed (5); the order of fields depends on the class.
        file.word(1);
        if wide {
            file.word(5);
        }
        for address in [0, ADDRESS, ADDRESS, size, size] {
            file.address(address);
        }
        if !wide {
            file.word(5);
        }
        file.address(0x1000);
        file.raw(self.code);
        file.bytes
    }
}

/// Numbers in the order of a machine.
struct Bytes {
    order: Order,
    wide: bool,
    bytes: Vec<u8>,
}

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn half(&mut self, number: u16) {
        match self.order {
            Order::Little => self.raw(&number.to_le_bytes()),
            Order::Big => self.raw(&number.to_be_bytes()),
        }
    }

    fn word(&mut self, number: u32) {
        match self.order {
            Order::Little => self.raw(&number.to_le_bytes()),
            Order::Big => self.raw(&number.to_be_bytes()),
        }
    }

    fn address(&mut self, number: u32) {
        match (self.wide, self.order) {
            (false, _) => self.word(number),
            (true, Order::Little) => self.raw(&u64::from(number).to_le_bytes()),
            (true, Order::Big) => self.raw(&u64::from(number).to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{Choice, Rung};

    #[test]
    fn the_program_of_this_machine_exits_with_0() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("try");
        let machine = MACHINES.iter().find(|machine| machine.name == this_machine()).unwrap();
        write_program(&path, &machine.program()).unwrap();
        assert!(exits_with_0(&mut Command::new(&path)));
    }

    /// Other tests start processes meanwhile, which have the file open for writing for a moment.
    fn exits_with_0(command: &mut Command) -> bool {
        loop {
            match command.status() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                other => return other.expect("tests/run installs qemu-user-static").success(),
            }
        }
    }

    #[test]
    fn the_program_of_every_machine_exits_with_0_in_its_emulator() {
        let directory = tempfile::tempdir().unwrap();
        for machine in &MACHINES {
            let path = directory.path().join(machine.name);
            write_program(&path, &machine.program()).unwrap();
            let emulator = match machine.name {
                "amd64" => "x86_64",
                "386" => "i386",
                "arm64" => "aarch64",
                other => other,
            };
            let mut emulated = Command::new(format!("qemu-{emulator}-static"));
            assert!(exits_with_0(emulated.arg(&path)), "{}", machine.name);
        }
    }

    #[test]
    fn where_nothing_runs_no_machine_does() {
        let sandbox = crate::enter(Choice::Forced(Rung::None)).unwrap();
        for architecture in ["arm64", this_machine()] {
            assert_eq!(sandbox.may_run_for(architecture), Err(CannotRun::Asked));
        }
    }
}
