//! The `.deb` files of packages: into the cache, from the first place that has one.

use std::fs::File;
use std::io::{self, BufReader};

use content::Digest;
use debian::package::{Package, parse_index};
use debian::{DebReader, deb822};
use spec::lock::LockedDeb;
use store::{Area, Cache};

use crate::error::BuildError;
use crate::fetch::{FetchError, Fetcher};
use crate::plan::LockedPackage;

/// Makes sure that the cache has a package. `progress` learns of bytes as they arrive, and says whether to go on.
pub fn fetch(
    cache: &Cache,
    fetcher: &Fetcher,
    package: &LockedPackage,
    progress: &dyn Fn(u64) -> bool,
) -> Result<(), BuildError> {
    let _fetching = cache.lock(Area::Debs, package.sha256, &mut || {})?;
    if cache.file(Area::Debs, package.sha256).is_some() {
        return Ok(());
    }
    let open = || cache.writer(Area::Debs, package.sha256).map_err(io::Error::other);
    for url in &package.urls {
        match fetcher.file(url, (package.sha256, package.size), open, progress) {
            Err(FetchError::Missing { .. }) => {}
            fetched => {
                fetched?.commit_content(package.size)?;
                return Ok(());
            }
        }
    }
    let places = package.urls.clone();
    Err(BuildError::Gone { name: package.name.clone(), version: package.version.clone(), places })
}

/// A package of a lock as its own `.deb` describes it, with what its index said; nothing if the cache does not have it.
pub fn described(cache: &Cache, deb: &LockedDeb) -> Result<Option<Package>, BuildError> {
    let digest = Digest::from_hex(deb.sha256.as_str()).expect("a lock has whole digests");
    let Some(mut whole) = cache.open_content(Area::Debs, digest, deb.size)? else { return Ok(None) };
    if io::copy(&mut whole, &mut io::sink()).is_err() {
        cache.remove(Area::Debs, digest)?;
        return Ok(None);
    }
    let Some(file) = cache.open_file(Area::Debs, digest)? else { return Ok(None) };
    read(file, deb).map_err(|source| BuildError::Package { package: format!("{}={}", deb.name, deb.version), source })
}

fn read(file: File, deb: &LockedDeb) -> Result<Option<Package>, Box<dyn std::error::Error + Send + Sync>> {
    let control = DebReader::new(BufReader::new(file))?.into_control();
    let text = control.text("control").unwrap_or_default().trim_end().to_owned();
    // The stanza must be one, whatever the lines that are added.
    deb822::single_stanza(&text)?;
    let LockedDeb { path, size, sha256, .. } = deb;
    let stanza = format!("{text}\nFilename: {path}\nSize: {size}\nSHA256: {sha256}\n");
    let package = parse_index(&stanza)?.pop();
    let is_meant = |package: &Package| package.name() == deb.name && package.version().as_str() == deb.version;
    Ok(package.filter(is_meant))
}
