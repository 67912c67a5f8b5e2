//! A person's terminal, lent to a command: a terminal of the command's own, with everything passed on between the two.
//!
//! The command never holds the person's terminal itself: a program that does can put words into its input, and the
//! shell in which the builder was started would read them afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// How long a new size of the window may stay unseen.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// As much as is passed on at once.
const CHUNK: usize = 4096;

/// What Ctrl-D types, for a command whose person has gone away.
const END_OF_INPUT: u8 = 4;

/// Calls `run` with a terminal for [`crate::Stdin::Terminal`], behind which is the person's: what is typed at `input`
/// arrives there, keys such as Ctrl-C included, and what is written there appears on `output`. Both are as they were
/// when this returns. Fails if `input` is no terminal.
pub fn lend_terminal<T>(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    run: impl FnOnce(OwnedFd) -> T,
) -> io::Result<T> {
    let before = tcgetattr(input)?;
    let size = tcgetwinsize(input)?;
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    // Keys mean what they mean to this person.
    tcsetattr(&theirs, OptionalActions::Now, &before)?;
    tcsetwinsize(&theirs, size)?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
    let raw = Raw::set(input, before)?;
    let relay = Relay { ours: &ours, input, output, stop: &stop };
    let result = thread::scope(|scope| {
        scope.spawn(|| relay.run(size));
        let _stopper = Stopper(&stop);
        run(theirs)
    });
    drop(raw);
    Ok(result)
}

/// Ends the relay on every way out.
struct Stopper<'a>(&'a OwnedFd);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}

/// A terminal that passes every key on as it is, until this is dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn set(terminal: BorrowedFd<'a>, before: Termios) -> io::Result<Self> {
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Passes everything on, both ways.
struct Relay<'a> {
    ours: &'a OwnedFd,
    input: BorrowedFd<'a>,
    output: BorrowedFd<'a>,
    stop: &'a OwnedFd,
}

impl Relay<'_> {
    fn run(&self, mut size: Winsize) {
        // What was typed and not taken yet.
        let mut typed: Vec<u8> = Vec::new();
        let mut listening = true;
        loop {
            let (to_them, from_person) = match typed.is_empty() {
                true => (PollFlags::IN, if listening { PollFlags::IN } else { PollFlags::empty() }),
                false => (PollFlags::IN | PollFlags::OUT, PollFlags::empty()),
            };
            let mut ready = [
                PollFd::new(self.stop, PollFlags::IN),
                PollFd::new(self.ours, to_them),
                PollFd::from_borrowed_fd(self.input, from_person),
            ];
            let watched = if listening { 3 } else { 2 };
            match poll(&mut ready[..watched], Some(&PATIENCE)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let [stopped, theirs, person] = ready.map(|ready| ready.revents());
            self.follow_size(&mut size);
            if theirs.intersects(PollFlags::IN | PollFlags::HUP) {
                self.show();
            }
            if !stopped.is_empty() {
                // Nobody writes any more; what was written may still be on its way.
                return self.show();
            }
            if person.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && typed.is_empty() {
                listening = self.listen(&mut typed);
            }
            if theirs.contains(PollFlags::OUT) {
                let taken = rustix::io::write(self.ours, &typed).unwrap_or(0);
                typed.drain(..taken);
            }
            if theirs.contains(PollFlags::HUP) && !theirs.contains(PollFlags::IN) {
                // The command has closed its side and will end soon; until then there is nothing to wait for here.
                thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }

    /// Shows what the command has written.
    fn show(&self) {
        let mut buffer = [0; CHUNK];
        while let Ok(length @ 1..) = rustix::io::read(self.ours, &mut buffer) {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match rustix::io::write(self.output, rest) {
                    Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => return,
                }
            }
        }
    }

    /// Hears what was typed; false once nobody is there any more.
    fn listen(&self, typed: &mut Vec<u8>) -> bool {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(self.input, &mut buffer) {
            Ok(length @ 1..) => {
                typed.extend_from_slice(&buffer[..length]);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Ok(_) | Err(_) => {
                typed.push(END_OF_INPUT);
                false
            }
        }
    }

    fn follow_size(&self, size: &mut Winsize) {
        let Ok(now) = tcgetwinsize(self.input.as_fd()) else { return };
        let same = (now.ws_row, now.ws_col) == (size.ws_row, size.ws_col);
        if !same && tcsetwinsize(self.ours, now).is_ok() {
            *size = now;
        }
    }
}
