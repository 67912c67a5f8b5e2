//! `--shell-fail`: a person at the terminal, who looks around where a command failed.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

use drystone::error::chain;
use drystone::steps::commands::{FailedStep, LookAround};
use sandbox::{Outcome, RunError};

use crate::failure::Failure;
use crate::progress::Screen;

/// What of the environment describes the terminal.
const DESCRIBES_TERMINAL: [&str; 2] = ["TERM", "COLORTERM"];

/// Somebody at the terminal that the program was started from.
pub struct AtTerminal {
    screen: Screen,
}

impl AtTerminal {
    /// Somebody who sees this screen.
    pub fn new(screen: Screen) -> Self {
        Self { screen }
    }
}

/// Fails if nobody is at a terminal.
pub fn must_be_on_terminal() -> Result<(), Failure> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return Ok(());
    }
    let text = "--shell-fail needs a terminal, on standard input and standard error; leave it out where nobody watches";
    Err(Failure::Usage(text.to_owned()))
}

impl LookAround for AtTerminal {
    fn environment(&self) -> Vec<(OsString, OsString)> {
        #[expect(clippy::disallowed_methods, reason = "this is the command line")]
        let value = |name: &str| Some((name.into(), std::env::var_os(name)?));
        DESCRIBES_TERMINAL.into_iter().filter_map(value).collect()
    }

    fn look_around(&self, failed: &FailedStep<'_>, shell: &mut dyn FnMut(OwnedFd) -> Result<Outcome, RunError>) {
        self.screen.alone(|| {
            say(&introduction(failed));
            let (input, output) = (io::stdin(), io::stderr());
            let ended = sandbox::lend_terminal(input.as_fd(), output.as_fd(), shell);
            match ended {
                Ok(Ok(_) | Err(RunError::Interrupted)) => {}
                Ok(Err(error)) => say(&format!("the shell could not be run: {}", chain(&error))),
                Err(error) => say(&format!("the terminal cannot be used: {error}")),
            }
        });
    }
}

fn introduction(failed: &FailedStep<'_>) -> String {
    let FailedStep { image, what, reason, last_lines } = failed;
    let lines: String = last_lines.iter().map(|line| format!("{image}: | {line}\n")).collect();
    format!(
        "{image}: {what} failed: {reason}\n{lines}This is a shell where it failed; `exit` leaves it, and the build \
         goes on to fail. What is changed here is thrown away."
    )
}

fn say(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
