//! What went wrong, as the person at the terminal reads it, and as a script sees it in the exit code.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use drystone::apt::archive::ArchiveError;
use drystone::base::BaseError;
use drystone::bundle::BundleError;
use drystone::error::{BuildError, chain};
use drystone::fetch::FetchError;
use spec::{Diagnostic, Diagnostics, Span, render};

use crate::args::ColorKind;

/// A failure, sorted by what the exit code says of it.
#[derive(Debug)]
pub enum Failure {
    /// A build, push or check failed.
    Failed {
        /// What.
        text: String,
        /// What can be done, if that is known.
        hint: Option<String>,
    },
    /// A spec is wrong.
    Spec(Diagnostics),
    /// Several images failed, or others were not tried because of one.
    Images {
        /// Why, for each that failed.
        failures: Vec<Failure>,
        /// Which.
        summary: String,
    },
    /// The command line is wrong.
    Usage(String),
    /// What was compared differs, which was said already.
    Differs,
    /// It cannot be told whether things differ.
    Unknown {
        /// Why.
        text: String,
        /// What can be done, if that is known.
        hint: Option<String>,
    },
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    /// Something failed, for a reason that explains itself.
    pub fn new(text: impl Into<String>) -> Self {
        Self::Failed { text: text.into(), hint: None }
    }

    /// Something failed, and this can be done.
    pub fn with_hint(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Failed { text: text.into(), hint: Some(hint.into()) }
    }

    /// Something failed while a library did it.
    pub fn of(error: impl std::error::Error + 'static) -> Self {
        Self::new(chain(&error))
    }

    /// Why, in a sentence, for who goes on without.
    pub fn reason(self) -> String {
        match self {
            Self::Failed { text, .. } | Self::Unknown { text, .. } | Self::Usage(text) => text,
            Self::Images { summary, .. } => summary,
            Self::Spec(_) | Self::Differs | Self::Interrupted => "it is not known why".to_owned(),
        }
    }

    /// Something failed while files were written: a full disk gets advice.
    fn of_storage(error: impl std::error::Error + 'static) -> Self {
        match is_full(&error) {
            true => {
                Self::with_hint(chain(&error), "free some space, or choose other places with --layout and --cache-dir")
            }
            false => Self::of(error),
        }
    }

    /// Something failed while an archive was written.
    pub fn of_archive(error: drystone::archive::ArchiveError) -> Self {
        Self::of_storage(error)
    }

    /// The files of an image could not be written.
    pub fn of_rootfs(error: drystone::rootfs::RootfsError) -> Self {
        Self::of_storage(error)
    }

    /// Nothing could be said about an image.
    pub fn of_statement(error: drystone::statements::StatementError) -> Self {
        match error {
            drystone::statements::StatementError::Build(error) => error.into(),
            other => Self::of(other),
        }
    }

    /// A bundle could not be saved or loaded.
    pub fn of_bundle(error: BundleError) -> Self {
        let hint = match &error {
            BundleError::NotBuilt(_) => "`drystone build` makes it",
            BundleError::Earlier { .. } => "load the bundle that was named with --since first, into the same places",
            BundleError::Build(_) => match error {
                BundleError::Build(error) => return error.into(),
                _ => unreachable!("it was looked at"),
            },
            _ => return Self::of_storage(error),
        };
        Self::with_hint(chain(&error), hint)
    }

    /// A file could not be written.
    pub fn of_storage_at(path: &Path, source: io::Error) -> Self {
        Self::of_storage(store::StoreError::Io { action: "write", path: path.to_owned(), source })
    }

    /// A registry, which is called so, or the way to it failed.
    pub fn of_registry(error: registry_client::Error, registry: &str) -> Self {
        let hint = registry_hint(&error, registry);
        Self::Failed { text: chain(&error), hint }
    }

    /// With this advice, if there is none yet.
    fn or_hint(self, advice: Option<String>) -> Self {
        match self {
            Self::Failed { text, hint } => Self::Failed { text, hint: hint.or(advice) },
            other => other,
        }
    }

    /// Shows the place in a spec that led to it. That may help nobody but whoever can change the spec, but it says what
    /// is meant; the exit code is that of a failure all the same.
    fn at(self, span: &Span) -> Self {
        match self {
            Self::Failed { text, hint } => {
                let drawn = render(&Diagnostic::new(span.clone(), text).into(), false);
                Self::Failed { text: drawn.trim_start_matches("error: ").to_owned(), hint }
            }
            other => other,
        }
    }

    /// Prints it on standard error.
    pub fn print(&self, color: ColorKind) {
        if let Self::Images { failures, .. } = self {
            failures.iter().for_each(|failure| failure.print(color));
        }
        let mut out = io::stderr().lock();
        let bold =
            |text: &str| if colored(color) { format!("\u{1b}[1m\u{1b}[31m{text}\u{1b}[0m") } else { text.to_owned() };
        // A closed standard error leaves nobody to tell.
        let _ = match self {
            Self::Differs => Ok(()),
            Self::Failed { text, hint } | Self::Unknown { text, hint } => {
                let _ = writeln!(out, "{}: {text}", bold("error"));
                hint.as_ref().map_or(Ok(()), |hint| writeln!(out, "hint: {hint}"))
            }
            Self::Spec(diagnostics) => writeln!(out, "{}", render(diagnostics, colored(color))),
            Self::Images { summary, .. } => writeln!(out, "{}: {summary}", bold("error")),
            Self::Usage(text) => writeln!(out, "{}: {text}\n\nFor more information, try '--help'.", bold("error")),
            Self::Interrupted => writeln!(out, "interrupted; the same command goes on from what was finished"),
        };
    }

    /// See the design's exit codes.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed { .. } | Self::Differs => 1,
            Self::Images { failures, .. } if !failures.iter().all(|failure| matches!(failure, Self::Spec(_))) => 1,
            Self::Images { .. } | Self::Spec(_) | Self::Usage(_) | Self::Unknown { .. } => 2,
            Self::Interrupted => 130,
        })
    }
}

/// Whether standard error gets colours.
pub fn colored(color: ColorKind) -> bool {
    colors_on(&io::stderr(), color)
}

/// Whether something that is written to gets colours.
pub fn colors_on(out: &impl IsTerminal, color: ColorKind) -> bool {
    #[expect(clippy::disallowed_methods, reason = "this is the command line")]
    let wanted = || std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match color {
        ColorKind::Always => true,
        ColorKind::Never => false,
        ColorKind::Auto => out.is_terminal() && wanted(),
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let summary = error.to_string();
        match error {
            BuildError::Spec(diagnostics) => Self::Spec(diagnostics),
            BuildError::Interrupted | BuildError::Fetch(FetchError::Interrupted) => Self::Interrupted,
            BuildError::Archive(error) => Self::with_hint(chain(&error), hint_for(&error)).at(&error.span),
            BuildError::Located { span, source } => Self::from(*source).at(&span),
            // Its last lines were shown when it happened.
            BuildError::Command { ref log, .. } => {
                let output = match log {
                    Some(log) => format!("all of its output is in `{}`", log.display()),
                    None => "run again with -v to see all of its output".to_owned(),
                };
                Self::with_hint(chain(&error), format!("{output}; --shell-fail opens a shell where it failed"))
            }
            BuildError::Load(error) => Self::Usage(chain(&error)),
            BuildError::Base(error) => {
                let hint = match error.as_ref() {
                    BaseError::Pull { source, .. } => {
                        source.downcast_ref().and_then(|error| registry_hint(error, "REGISTRY"))
                    }
                    _ => None,
                };
                Self::Failed { text: chain(&*error), hint }
            }
            BuildError::CannotRun { steps, why } => cannot_run(&steps, &why),
            BuildError::Gone { ref name, .. } => Self::with_hint(
                chain(&error),
                format!(
                    "where a lock names it, `drystone lock --update={name}` takes the version of today, and `drystone \
                     lock --update` that of all; --mirror names a mirror that keeps old versions"
                ),
            ),
            BuildError::NotCached { .. } => Self::with_hint(
                chain(&error),
                "build once without --offline where there is a network, with this cache; or load a bundle",
            ),
            BuildError::Fetch(FetchError::Offline { .. }) => {
                Self::with_hint(chain(&error), "leave --offline out once, where there is a network")
            }
            BuildError::Fetch(FetchError::Wrong { .. }) => Self::with_hint(
                chain(&error),
                "the mirror may be broken or tampered with, or a hand has changed the lock: `drystone lock --update`",
            ),
            BuildError::LockFile { what: "write", .. } => {
                Self::with_hint(chain(&error), "--lock-file names another place for it")
            }
            BuildError::Images { errors, .. } => {
                Self::Images { failures: errors.into_iter().map(Self::from).collect(), summary }
            }
            other => Self::of_storage(other),
        }
    }
}

impl From<drystone::load::LoadError> for Failure {
    fn from(error: drystone::load::LoadError) -> Self {
        BuildError::from(error).into()
    }
}

impl From<store::StoreError> for Failure {
    fn from(error: store::StoreError) -> Self {
        Self::of_storage(error)
    }
}

impl From<drystone::push::PushError> for Failure {
    fn from(error: drystone::push::PushError) -> Self {
        let hint = match &error {
            drystone::push::PushError::Registry { reference, source } => {
                registry_hint(source, &reference.registry().to_string())
            }
            _ => None,
        };
        Self::Failed { text: chain(&error), hint }
    }
}

impl From<drystone::pull::PullError> for Failure {
    fn from(error: drystone::pull::PullError) -> Self {
        use drystone::pull::PullError;
        match error {
            PullError::Registry { ref reference, ref source } => {
                let hint = pull_hint(source, reference);
                Self::of_storage(error).or_hint(hint)
            }
            PullError::Store(error) => error.into(),
        }
    }
}

impl From<drystone::copy::CopyError> for Failure {
    fn from(error: drystone::copy::CopyError) -> Self {
        use drystone::copy::{CopyError, PlaceError};
        match error {
            CopyError::Registry { ref reference, ref source } => {
                let hint = pull_hint(source, reference);
                Self::of_storage(error).or_hint(hint)
            }
            CopyError::Client(error) => error.into(),
            CopyError::Push(error) => error.into(),
            CopyError::Place(PlaceError::Several { .. }) => {
                Self::with_hint(chain(&error), "name it: `oci:DIR:NAME`, `oci-archive:FILE:NAME`")
            }
            other => Self::of_storage(other),
        }
    }
}

impl From<registry_client::Error> for Failure {
    fn from(error: registry_client::Error) -> Self {
        Self::of_registry(error, "REGISTRY")
    }
}

/// What helps where an image could not be fetched.
fn pull_hint(error: &registry_client::Error, reference: &oci::Reference) -> Option<String> {
    use registry_client::Error;
    match error {
        Error::Platform { .. } => Some("--platform OS/ARCH takes the image for another machine".to_owned()),
        Error::Refused { status: 404, .. } => Some(format!("`drystone tags {}` lists what is there", reference.name())),
        other => registry_hint(other, reference.registry().as_str()),
    }
}

/// What helps against a registry's refusal.
fn registry_hint(error: &registry_client::Error, registry: &str) -> Option<String> {
    use registry_client::Error;
    match error {
        Error::Unauthorized { anonymous: true, .. } => Some(format!("`drystone login {registry}` keeps a credential")),
        Error::Unauthorized { .. } | Error::Refused { status: 403, .. } => {
            Some(format!("the credential may lack a right, or be out of date: `drystone login {registry}` replaces it"))
        }
        Error::Connection { source, .. } if has_cause(source, "UnknownIssuer") => {
            Some("--registry-ca FILE trusts the authority that signed the registry's certificate".to_owned())
        }
        Error::Connection { source, .. } if has_cause(source, "CaUsedAsEndEntity") => {
            let text = "the server shows an authority's own certificate, which is not for servers: give it one that the \
                        authority has signed, or make it with `-addext basicConstraints=critical,CA:FALSE`";
            Some(text.to_owned())
        }
        Error::Connection { source, .. }
            if has_cause(source, "fatal alert") && !has_cause(source, "HandshakeFailure") =>
        {
            let text = "the registry may ask for a certificate of yours, or not take the one it got: --registry-cert FILE \
                        and --registry-key FILE show it";
            Some(text.to_owned())
        }
        Error::Identity(_) => {
            Some("--registry-cert and --registry-key are two PEM files, or --registry-cert one with both".to_owned())
        }
        // What servers of TLS answer to those who speak without.
        Error::Refused { status: 400, request, errors } if request.url.starts_with("http:") && errors.is_empty() => {
            Some(speaks_tls(registry))
        }
        Error::Refused { status: 400, errors, .. } if errors.iter().any(|error| error.message.contains("HTTPS")) => {
            Some(speaks_tls(registry))
        }
        Error::Connection { source, .. } if has_cause(source, "invalid HTTP version") => Some(speaks_tls(registry)),
        Error::Connection { source, .. } if has_cause(source, "InvalidContentType") => {
            Some(format!("--insecure-registry {registry} speaks plain HTTP to it"))
        }
        _ => None,
    }
}

fn speaks_tls(registry: &str) -> String {
    format!("if it speaks TLS, --secure-registry {registry} says so; at loopback addresses it is not expected")
}

/// Whether an error or one of its causes says this, in a form for programmers too.
fn has_cause(error: &(dyn std::error::Error + 'static), said: &str) -> bool {
    let says = |error: &(dyn std::error::Error + 'static)| format!("{error} {error:?}").contains(said);
    says(error) || error.source().is_some_and(|cause| has_cause(cause, said))
}

/// The specs are right, and would build elsewhere: a failure of this machine, shown at their lines.
fn cannot_run(steps: &Diagnostics, why: &sandbox::CannotRun) -> Failure {
    let text = format!("{}\n{why}", render(steps, false).trim_start_matches("error: "));
    let fixes = why.fixes().join("\n      ");
    Failure::with_hint(text, format!("{fixes}\n      `drystone doctor` says more of this machine"))
}

fn hint_for(error: &ArchiveError) -> &'static str {
    use drystone::apt::archive::ArchiveProblem as Problem;
    match error.problem {
        Problem::Fetch(ref error) if matches!(**error, FetchError::Offline { .. }) => {
            "what the lock does not have has to be asked for: leave --offline out once, where there is a network"
        }
        Problem::NoMirror => "a mirror is given as --mirror URL, or --mirror SUITE=URL for one suite",
        Problem::Signature { .. } => "the archive may have been tampered with, or the keyring is too old",
        Problem::Release { .. } => "try another mirror; `allow_expired: true` in the source takes an old index",
        Problem::ReadKeyring { .. } | Problem::Keyring { .. } => {
            "the keyring's path is relative to the family's directory"
        }
        _ => "try another mirror with --mirror URL",
    }
}

/// Whether a full disk is the cause, or the cause's cause.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    // An error that only passes another on has the causes of that one, and not that one itself.
    let passed_on = matches!(error.downcast_ref(), Some(BuildError::Io(error)) if full(error));
    passed_on || error.downcast_ref().is_some_and(full) || error.source().is_some_and(is_full)
}
