//! What fetches the files that a family is built from.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use content::{Digest, FramedHasher};
use drystone::bundle::carried::Carried;
use drystone::fetch::Fetcher;
use drystone::load::LoadedFamily;
use drystone::plan;
use store::{Area, Cache};

use crate::failure::Failure;

/// What fetches files, stand-ins included.
pub fn fetcher(loaded: &LoadedFamily, cache: &Cache, offline: bool) -> Result<Fetcher, Failure> {
    let copies = Carried::of(&loaded.directory).map(|carried| carried.copies(&loaded.family)).unwrap_or_default();
    let fetcher = plain_fetcher(offline).with_copies(copies);
    match plan::uses_stand_ins(&loaded.family) {
        true => Ok(fetcher.with_stand_ins("opencontrail", stand_ins(cache)?)),
        false => Ok(fetcher),
    }
}

/// What fetches files where there are no stand-ins.
pub fn plain_fetcher(offline: bool) -> Fetcher {
    if offline { Fetcher::new().offline() } else { Fetcher::new() }
}

/// The directory of the packages that stand in for OpenContrail's, made when it is not there yet.
///
/// Making them takes longer than all else where nothing is to be built; so it is kept which ones this program makes.
pub(super) fn stand_ins(cache: &Cache) -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().and_then(std::fs::metadata).ok();
    let known = program.map(|file| {
        let stamp = [file.dev(), file.ino(), file.size()].map(u64::to_be_bytes);
        let changed = [file.mtime(), file.mtime_nsec()].map(i64::to_be_bytes);
        FramedHasher::new("stand-ins of a program 1").list("file", stamp).list("changed", changed).finish()
    });
    let key = known.map_or(Ok(None), |known| cache.get_json::<Digest>(Area::Steps, known))?;
    if let Some(found) = key.map_or(Ok(None), |key| cache.tree(key))? {
        return Ok(found);
    }
    let (key, found) = made_stand_ins(cache)?;
    if let Some(known) = known {
        cache.put_json(Area::Steps, known, &key)?;
    }
    Ok(found)
}

fn made_stand_ins(cache: &Cache) -> Result<(Digest, PathBuf), Failure> {
    let packages = fixtures::standins::packages();
    let digests: Vec<_> = packages.iter().map(|package| package.digest()).collect();
    let kafka = fixtures::standins::kafka_tarball();
    let key = FramedHasher::new("stand-ins 1").list("packages", digests).field("kafka", kafka).finish();
    if let Some(found) = cache.tree(key)? {
        return Ok((key, found));
    }
    let new = cache.new_tree()?;
    fixtures::standins::write_repository(new.path()).map_err(Failure::of)?;
    Ok((key, new.commit(key)?))
}
