//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, with JSON on standard input and output.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use oci::Registry;
use serde::{Deserialize, Serialize};

use super::server_names;
use crate::error::tamed;
use crate::{Credential, CredentialsError, Secret};

/// How long a program may take. It may have to ask somebody for the password of a store.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often we look whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// The largest answer.
const LARGEST: u64 = 1 << 20;
/// What a program says that has nothing for a server.
const NOTHING: &str = "credentials not found";
/// The user's name that means that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// One of these programs.
pub(super) struct Helper {
    program: String,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

#[derive(Serialize)]
struct ToStore<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    username: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

impl Helper {
    /// The program of this name, which a file gives.
    pub(super) fn new(name: &str, file: &Path) -> Result<Self, CredentialsError> {
        let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if name.is_empty() || !name.chars().all(fits) {
            let message =
                format!("`{}` names the credential helper `{}`, which is no name", file.display(), tamed(name));
            return Err(CredentialsError { message, source: None });
        }
        Ok(Self { program: format!("docker-credential-{name}") })
    }

    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// What it knows of a registry.
    pub(super) fn get(&self, registry: &Registry) -> Result<Option<Credential>, CredentialsError> {
        for server in server_names(registry) {
            if let Some(found) = self.get_of(&server)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn get_of(&self, server: &str) -> Result<Option<Credential>, CredentialsError> {
        let (status, said) = self.ask("get", server.as_bytes())?;
        if !status.success() {
            let text = String::from_utf8_lossy(&said);
            return if text.contains(NOTHING) { Ok(None) } else { Err(self.refused("get", status, &text)) };
        }
        let found: Found = serde_json::from_slice(&said).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            CredentialsError { message: format!("`{} get` answers no valid JSON: {place}", self.program), source: None }
        })?;
        let origin = format!("`{}`", self.program);
        Ok(match (found.username.as_str(), found.secret.as_str()) {
            ("", "") => None,
            (TOKEN_USER, token) => Some(Credential::IdentityToken { token: Secret::new(token), origin }),
            (username, password) => {
                let password = Secret::new(password);
                Some(Credential::Password { username: username.to_owned(), password, origin })
            }
        })
    }

    pub(super) fn store(&self, registry: &Registry, username: &str, password: &Secret) -> Result<(), CredentialsError> {
        let server = registry.to_string();
        let message = ToStore { server: &server, username, secret: password.reveal() };
        let message = serde_json::to_vec(&message).expect("texts can be written as JSON");
        self.done("store", &message)
    }

    pub(super) fn erase(&self, registry: &Registry) -> Result<(), CredentialsError> {
        for server in server_names(registry) {
            if self.get_of(&server)?.is_some() {
                self.done("erase", server.as_bytes())?;
            }
        }
        Ok(())
    }

    fn done(&self, action: &str, input: &[u8]) -> Result<(), CredentialsError> {
        let (status, said) = self.ask(action, input)?;
        if status.success() { Ok(()) } else { Err(self.refused(action, status, &String::from_utf8_lossy(&said))) }
    }

    fn refused(&self, action: &str, status: ExitStatus, said: &str) -> CredentialsError {
        let said = tamed(said.trim());
        let message =
            format!("`{} {action}` failed ({status}){}{said}", self.program, if said.is_empty() { "" } else { ": " });
        CredentialsError { message, source: None }
    }

    fn ask(&self, action: &str, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), CredentialsError> {
        let failed = |source: io::Error| {
            let message = match source.kind() {
                io::ErrorKind::NotFound => format!("the credential helper `{}` is not installed", self.program),
                _ => format!("`{} {action}` cannot be asked", self.program),
            };
            CredentialsError { message, source: Some(source.into()) }
        };
        let mut command = Command::new(&self.program);
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut said = Vec::new();
                stdout.map_or(Ok(0), |stdout| stdout.take(LARGEST).read_to_end(&mut said)).map(|_| said)
            });
            let written = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input));
            let status = wait(&mut child);
            // A program that knows the answer need not read the question.
            let _ = written;
            let said = reading.join().unwrap_or_else(|_| Err(io::Error::other("reading went wrong")));
            Ok((status.map_err(failed)?, said.map_err(failed)?))
        })
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
        }
        thread::sleep(LOOK);
    }
}
