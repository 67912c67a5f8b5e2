//! Caches in registries: `--cache-from` and `--cache-to`.

use std::str::FromStr;
use std::sync::Arc;

use drystone::error::chain;
use drystone::events::{Event, Observer};
use drystone::push;
use drystone::remote::{self, Borrowing, Lent, Source};
use oci::Reference;
use registry_client::Client;
use store::{Cache, Layout};
use tokio::runtime::Runtime;

use crate::args::{RegistryArgs, SharedCacheArgs};
use crate::failure::Failure;
use crate::registries;

/// A cache in a registry, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheReference {
    /// Where it is.
    pub reference: Reference,
    /// Whether it is no error if nothing can be stored there.
    pub ignore_error: bool,
}

impl FromStr for CacheReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<Reference>().map_err(|error| error.to_string());
        if !text.contains('=') {
            return Ok(Self { reference: parse(text)?, ignore_error: false });
        }
        let (mut reference, mut kind, mut ignore_error) = (None, None, false);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("type", value)) => kind = Some(value),
                Some(("ref", value)) => reference = Some(parse(value)?),
                Some(("ignore-error", value @ ("true" | "false"))) => ignore_error = value == "true",
                // Here all results are stored, as `max` asks for elsewhere.
                Some(("mode", "max")) => {}
                _ => return Err(format!("`{field}` is not understood: expected type=registry,ref=REF[,mode=max]")),
            }
        }
        match (kind, reference) {
            (Some("registry"), Some(reference)) => Ok(Self { reference, ignore_error }),
            (Some("registry"), None) => Err("`ref=REF` is missing".to_owned()),
            (Some(other), _) => Err(format!("a cache of type `{other}` is not known: expected type=registry")),
            (None, _) => Err("`type=registry` is missing".to_owned()),
        }
    }
}

/// The caches of a command.
pub struct Caches<'a> {
    arguments: &'a SharedCacheArgs,
    client: Client,
    /// Where requests run.
    runtime: Runtime,
    observer: Arc<dyn Observer>,
}

impl<'a> Caches<'a> {
    /// The caches of the command line, if there are any; offline they have to be on this machine. Starts threads.
    pub fn new(
        arguments: &'a SharedCacheArgs,
        registries: &RegistryArgs,
        offline: bool,
        observer: &Arc<dyn Observer>,
    ) -> Result<Option<Self>, Failure> {
        let mut named = arguments.cache_from.iter().chain(&arguments.cache_to).peekable();
        if named.peek().is_none() {
            return Ok(None);
        }
        if offline {
            registries::must_be_here(named.map(|cache| cache.reference.registry()))?;
        }
        let client = push::client(registries::options_with_kept_credentials(registries)?, Arc::clone(observer))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
        Ok(Some(Self { arguments, client, runtime, observer: Arc::clone(observer) }))
    }

    /// What is taken from those of `--cache-from`, for a build in this place.
    pub fn borrowing<'b>(
        &self,
        cache: &'b Cache,
        layout: &'b Layout,
        observer: &'b Arc<dyn Observer>,
    ) -> Borrowing<'b> {
        let (sources, client, runtime) = (self.sources(), self.client.clone(), self.runtime.handle().clone());
        Borrowing { sources, client, runtime, cache, layout, observer: observer.as_ref() }
    }

    /// Whether something is to be stored.
    pub fn wants_results(&self) -> bool {
        !self.arguments.cache_to.is_empty()
    }

    /// Those of `--cache-from`; one that cannot be used is a warning.
    fn sources(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        for CacheReference { reference, .. } in &self.arguments.cache_from {
            match self.runtime.block_on(remote::open(&self.client, reference)) {
                Ok(source) => sources.push(source),
                Err(error) => self.warn(&format!("the cache {reference} is not used: {}", chain(&error))),
            }
        }
        sources
    }

    /// Stores results in those of `--cache-to`.
    pub fn store(&self, layout: &Layout, lent: &Lent) -> Result<(), Failure> {
        for CacheReference { reference, ignore_error } in &self.arguments.cache_to {
            match self.runtime.block_on(remote::store(&self.client, reference, layout, lent)) {
                Ok(()) => self.observer.observe(Event::Note(&format!("stored the results in the cache {reference}"))),
                Err(error) if *ignore_error => {
                    self.warn(&format!("nothing is stored in the cache {reference}: {}", chain(&error)));
                }
                Err(error) => {
                    let text = format!("the results cannot be stored in the cache {reference}: {}", chain(&error));
                    let hint = "the images are built; with `ignore-error=true` this is a warning";
                    return Err(Failure::with_hint(text, hint));
                }
            }
        }
        Ok(())
    }

    fn warn(&self, text: &str) {
        self.observer.observe(Event::Warning(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_spelled_as_references_or_as_for_buildkit() {
        for (text, ignore_error) in [
            ("registry.example/team/cache:main", false),
            ("type=registry,ref=registry.example/team/cache:main", false),
            ("type=registry,ref=registry.example/team/cache:main,mode=max,ignore-error=true", true),
        ] {
            let cache: CacheReference = text.parse().unwrap();
            assert_eq!(cache.reference.to_string(), "registry.example/team/cache:main", "{text}");
            assert_eq!(cache.ignore_error, ignore_error, "{text}");
        }
        for (text, expected) in [
            ("type=local,dest=x", "`dest=x` is not understood"),
            ("type=gha,ref=registry.example/a", "a cache of type `gha` is not known"),
            ("type=registry", "`ref=REF` is missing"),
            ("ref=registry.example/a", "`type=registry` is missing"),
            ("type=registry,ref=registry.example/a,mode=min", "`mode=min` is not understood"),
        ] {
            let error = text.parse::<CacheReference>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("Bad Host/x".parse::<CacheReference>().is_err());
    }
}
