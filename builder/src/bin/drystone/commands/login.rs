//! `drystone login` and `drystone logout`: credentials for registries, kept where other tools keep them.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use registry_client::{Client, Kept, LoginScope, Secret, forget_login, keep_login};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::{Login, Logout};
use crate::failure::Failure;
use crate::registries::{self, OneCredential};

/// The longest password.
const LONGEST: u64 = 64 << 10;

/// Runs `login`: a credential is kept once the registry has accepted it.
pub fn login(arguments: &Login) -> Result<(), Failure> {
    let scope = &arguments.scope;
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None if arguments.password_stdin => {
            return Err(Failure::Usage(
                "--password-stdin needs --username: the password is all that is read".to_owned(),
            ));
        }
        None => ask("Username: ", true)?,
    };
    if username.is_empty() || username.contains(':') {
        return Err(Failure::Usage(format!("`{username}` cannot be a user's name")));
    }
    let password = Secret::new(if arguments.password_stdin { password_of_stdin()? } else { ask("Password: ", false)? });
    if password.reveal().is_empty() {
        return Err(Failure::Usage("the password is empty".to_owned()));
    }
    let credentials = OneCredential::new(&username, &password);
    let client = Client::new(registries::options(&arguments.registry, credentials)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    runtime.block_on(client.ping(&scope.registry)).map_err(|error| refused(error, scope))?;
    let path = registries::file_for_logins(&arguments.registry)?;
    let kept = keep_login(&path, scope, &username, &password).map_err(Failure::of)?;
    let secrecy = match kept {
        Kept::Plain(_) => ", unencrypted; a credential helper (`credsStore` in that file) would do better",
        Kept::Helper(_) => "",
    };
    say(&format!("logged in to {scope} as {username}; the password is kept in {kept}{secrecy}"));
    Ok(())
}

fn refused(error: registry_client::Error, scope: &LoginScope) -> Failure {
    match error {
        registry_client::Error::Unauthorized { .. } => {
            let hint = "the name or the password is wrong; some registries want a token in place of the password";
            Failure::with_hint(error.to_string(), hint)
        }
        other => Failure::of_registry(other, scope.registry.as_str()),
    }
}

/// Runs `logout`. To have been logged out before is no error.
pub fn logout(arguments: &Logout) -> Result<(), Failure> {
    let scope = &arguments.scope;
    let mut was_there = false;
    for path in registries::credential_files(&arguments.registry)? {
        if let Some(kept) = forget_login(&path, scope).map_err(Failure::of)? {
            was_there = true;
            say(&format!("logged out of {scope}: removed from {kept}"));
        }
    }
    if !was_there {
        say(&format!("there was no login for {scope}"));
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "this is the command line")]
fn say(text: &str) {
    eprintln!("{text}");
}

fn password_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("the password on standard input cannot be read: {error}")))?;
    if text.len() as u64 > LONGEST {
        return Err(Failure::Usage(format!("standard input holds more than the {LONGEST} bytes of a password")));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Asks at the terminal. Without an echo, what is typed is not shown.
fn ask(prompt: &str, echo: bool) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        let text = "there is no terminal to ask for a name and a password";
        return Err(Failure::Usage(format!("{text}: use --username NAME --password-stdin")));
    }
    let mut stderr = io::stderr().lock();
    // A closed standard error only hides the question.
    let mut show = |text: &str| drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
    if !echo {
        // Before the question: what is typed at once would be shown, or lost.
        let silence = Silence::begin().map_err(Failure::of)?;
        show(prompt);
        let line = read_hidden().map_err(Failure::of)?;
        drop(silence);
        show("\n");
        return line.ok_or(Failure::Interrupted);
    }
    show(prompt);
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) => Err(Failure::Interrupted),
        Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(Failure::of(error)),
    }
}

/// Reads a line key by key from a silent terminal; none if Ctrl-C or Ctrl-D was pressed. As signals they would leave the terminal mute.
fn read_hidden() -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut keys = io::stdin().lock().bytes();
    loop {
        match keys.next().transpose()? {
            None | Some(3) => return Ok(None),
            Some(4) if line.is_empty() => return Ok(None),
            Some(4 | b'\r' | b'\n') => break,
            Some(8 | 127) => {
                // The last character, all of its bytes.
                while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            Some(21) => line.clear(),
            Some(byte) if line.len() as u64 <= LONGEST => line.push(byte),
            Some(_) => {}
        }
    }
    String::from_utf8(line).map(Some).map_err(io::Error::other)
}

/// A terminal that does not show what is typed, and hands every key over, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
