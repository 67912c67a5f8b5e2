//! Secrets that end in an image: in arguments and variables, and as files.

use super::facts::instructions;
use super::{Finder, rules};
use crate::diagnostic::quoted;
use crate::dockerfile::{Dockerfile, Kind};
use crate::source::Span;

/// Parts of a name that speak of a secret.
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Names of files that hold secrets, and how names of such files end.
const SECRET_FILES: [&str; 17] = [
    ".env",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".git-credentials",
    ".htpasswd",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    ".dockercfg",
    "kubeconfig",
    "credentials.json",
    "service-account.json",
    ".vault-token",
];
const SECRET_ENDINGS: [&str; 5] = [".key", ".p12", ".pfx", ".jks", ".kdbx"];
const SECRET_PATHS: [&str; 5] = [".aws/credentials", ".docker/config.json", ".kube/config", ".ssh", ".gnupg"];

pub(super) fn look(dockerfile: &Dockerfile, finder: &mut Finder) {
    for argument in &dockerfile.arguments {
        variable("ARG", &argument.name, &argument.name.span, finder);
    }
    for instruction in instructions(dockerfile) {
        match &instruction.kind {
            Kind::Arg(arguments) => {
                arguments.iter().for_each(|argument| variable("ARG", &argument.name, &argument.name.span, finder));
            }
            Kind::Env(pairs) => {
                pairs.list.iter().for_each(|pair| variable("ENV", &pair.key, &pair.key.span, finder));
            }
            Kind::Copy(copy) if copy.from.is_none() => {
                copy.transfer.paths().for_each(|path| file(path, &path.span, finder));
            }
            Kind::Add(add) => add.transfer.paths().for_each(|path| file(path, &path.span, finder)),
            _ => {}
        }
    }
}

/// A name with a secret's word in it, unless it says that it is public.
pub(super) fn variable(kind: &str, name: &str, place: &Span, finder: &mut Finder) {
    let lower = name.to_ascii_lowercase();
    let mut parts = lower.split('_');
    if parts.clone().any(|part| SECRETS.contains(&part)) && !parts.any(|part| part == "public") {
        let title = format!("the name {} speaks of a secret, and {kind} keeps it in the image", quoted(name));
        finder.find(&rules::SECRETS_USED_IN_ARG_OR_ENV, place, title, "expected a secret mount where it is needed");
    }
}

/// A file that is known to hold secrets, copied from a context.
pub(super) fn file(path: &str, place: &Span, finder: &mut Finder) {
    let path = path.trim_end_matches('/');
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_secret = SECRET_FILES.contains(&name)
        || SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
        || SECRET_PATHS.iter().any(|known| path == *known || path.ends_with(&format!("/{known}")));
    if is_secret {
        let title = format!("{} usually holds a secret, and will be in the image", quoted(path));
        finder.find(&rules::SECRET_FILE_COPIED, place, title, "expected a secret mount where it is needed");
    }
}
