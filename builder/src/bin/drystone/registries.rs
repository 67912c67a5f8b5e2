//! How registries are reached, as the command line and the environment say: whom to trust, and who we are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use oci::{ReferenceError, Registry, Repository};
use registry_client::{Credential, CredentialFiles, Credentials, CredentialsError, Options, Proxies, Secret};

use crate::args::RegistryArgs;
use crate::failure::Failure;

/// The largest file of certificates.
const LARGEST: u64 = 8 << 20;

/// A client's options, with the credentials that other tools keep.
pub fn options_with_kept_credentials(arguments: &RegistryArgs) -> Result<Options, Failure> {
    options(arguments, Arc::new(CredentialFiles::new(credential_files(arguments)?)))
}

/// A client's options, with these credentials.
pub fn options(arguments: &RegistryArgs, credentials: Arc<dyn Credentials>) -> Result<Options, Failure> {
    let certificates = arguments.ca.iter().map(|path| certificates_in(path)).collect::<Result<_, _>>()?;
    let identity = match (&arguments.certificate, &arguments.key) {
        (Some(certificate), Some(key)) => Some(Secret::new(text(certificate)? + "\n" + &text(key)?)),
        (Some(both), None) => Some(Secret::new(text(both)?)),
        (None, _) => None,
    };
    let insecure = arguments.insecure.iter().cloned().collect();
    let secure = arguments.secure.iter().cloned().collect();
    let proxies = proxies();
    let mut mirrors = BTreeMap::<Registry, Vec<Registry>>::new();
    for RegistryMirror { registry, mirror } in arguments.mirrors.iter().cloned() {
        mirrors.entry(registry).or_default().push(mirror);
    }
    Ok(Options { insecure, secure, mirrors, certificates, identity, proxies, credentials, ..Options::default() })
}

/// A mirror, and the registry whose images it has: `[REGISTRY=]HOST[:PORT]`, of Docker's registry if none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryMirror {
    registry: Registry,
    mirror: Registry,
}

impl FromStr for RegistryMirror {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hub = Registry::docker_hub();
        let (registry, mirror) = match text.split_once('=') {
            // kaniko's users know it by this name.
            Some((registry, mirror)) if registry == hub.api_host() => (hub, mirror),
            Some((registry, mirror)) => (registry.parse()?, mirror),
            None => (hub, text),
        };
        Ok(Self { registry, mirror: mirror.parse()? })
    }
}

/// Fails if one of the registries is not on this machine.
pub fn must_be_here<'r>(mut registries: impl Iterator<Item = &'r Registry>) -> Result<(), Failure> {
    match registries.find(|registry| !registry.is_loopback()) {
        None => Ok(()),
        Some(registry) => Err(Failure::with_hint(
            format!("--offline: {registry} is not on this machine"),
            "name a registry at a loopback address, or leave --offline out",
        )),
    }
}

/// What stands between us and the registries, as curl reads it: the lower-case variable first, `ALL_PROXY` last.
fn proxies() -> Proxies {
    let proxy = |names: [&str; 4]| names.into_iter().find_map(text_of_variable).map(Secret::new);
    Proxies {
        http: proxy(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
        https: proxy(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        except: ["no_proxy", "NO_PROXY"].into_iter().find_map(text_of_variable).unwrap_or_default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the command line")]
fn text_of_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn certificates_in(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = text(path)?;
    if text.contains("-----BEGIN CERTIFICATE-----") || text.contains("-----BEGIN TRUSTED CERTIFICATE-----") {
        return Ok(text.into_bytes());
    }
    Err(Failure::Usage(format!("`{}` has no certificate: expected `-----BEGIN CERTIFICATE-----`", path.display())))
}

fn text(path: &Path) -> Result<String, Failure> {
    let unusable = |reason: String| Failure::Usage(format!("`{}` cannot be used: {reason}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if metadata.len() > LARGEST {
        return Err(unusable(format!("it is larger than {LARGEST} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    if text.contains("-----BEGIN ") { Ok(text) } else { Err(unusable("expected PEM: `-----BEGIN …`".to_owned())) }
}

/// The files that may know credentials, the most important first: the one that was asked for; else Docker's if its
/// variable is set, podman's, and those of the home directory. See containers-auth.json(5).
pub fn credential_files(arguments: &RegistryArgs) -> Result<Vec<PathBuf>, Failure> {
    if let Some(file) = &arguments.authfile {
        return Ok(vec![file.clone()]);
    }
    let home = directory("HOME");
    let configuration = directory("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let candidates = [
        directory("DOCKER_CONFIG").map(|docker| docker.join("config.json")),
        directory("XDG_RUNTIME_DIR").map(|runtime| runtime.join("containers/auth.json")),
        configuration.map(|configuration| configuration.join("containers/auth.json")),
        home.map(|home| home.join(".docker/config.json")),
    ];
    let mut files: Vec<PathBuf> = Vec::new();
    for file in candidates.into_iter().flatten() {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    Ok(files)
}

/// Where a login is kept: the file that was asked for, else Docker's, which every tool reads.
pub fn file_for_logins(arguments: &RegistryArgs) -> Result<PathBuf, Failure> {
    if let Some(file) = &arguments.authfile {
        return Ok(file.clone());
    }
    let docker = directory("DOCKER_CONFIG").or_else(|| Some(directory("HOME")?.join(".docker")));
    docker.map(|docker| docker.join("config.json")).ok_or_else(|| {
        Failure::Usage("neither DOCKER_CONFIG nor HOME is set: say with --authfile where to keep the login".to_owned())
    })
}

#[expect(clippy::disallowed_methods, reason = "this is the command line")]
fn directory(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The credential of somebody who logs in.
pub struct OneCredential(Credential);

impl OneCredential {
    /// A name and a password.
    pub fn new(username: &str, password: &Secret) -> Arc<Self> {
        let (username, password) = (username.to_owned(), password.clone());
        Arc::new(Self(Credential::Password { username, password, origin: "this command".to_owned() }))
    }
}

impl Credentials for OneCredential {
    fn lookup(&self, _: &Registry, _: Option<&Repository>) -> Result<Option<Credential>, CredentialsError> {
        Ok(Some(self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_of_the_registry_that_is_named_or_of_dockers() {
        for (text, registry, mirror) in [
            ("mirror.example", "docker.io", "mirror.example"),
            ("docker.io=localhost:5000", "docker.io", "localhost:5000"),
            ("index.docker.io=mirror.example", "docker.io", "mirror.example"),
            ("registry.example:5000=[::1]:5000", "registry.example:5000", "[::1]:5000"),
        ] {
            let parsed: RegistryMirror = text.parse().unwrap();
            assert_eq!((parsed.registry.as_str(), parsed.mirror.as_str()), (registry, mirror), "{text}");
        }
        for text in ["", "=mirror.example", "registry.example=", "https://mirror.example", "mirror.example/path"] {
            assert!(text.parse::<RegistryMirror>().is_err(), "{text}");
        }
    }
}
