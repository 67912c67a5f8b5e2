//! What a build has to give to others: the records of its steps, of the groups and segments in them, and the layers.

use content::{Digest, FramedHasher};
use store::{Area, Cache};

use super::step::{StepRecord, StoredLayer};
use super::{Builder, BuiltImage};
use crate::error::BuildError;
use crate::remote::{Elsewhere, Lent, Piece};
use crate::steps::packages::Part;

/// No record is larger: those of packages with tens of thousands of files have some megabytes.
const LARGEST_RECORD: u64 = 64 << 20;

/// What the images of a build have to give. `pushed` says whether the images are in their registry, so that layers can
/// be mounted from there.
pub fn lend(cache: &Cache, elsewhere: &dyn Elsewhere, images: &[BuiltImage], pushed: bool) -> Result<Lent, BuildError> {
    let mut lent = Lent::default();
    for image in images {
        for step in image.steps.iter().filter(|step| step.kind != "config") {
            let Ok(key) = step.id.parse::<Digest>() else { continue };
            lent.records.steps.extend(text(cache, Area::Steps, key)?.map(|record| (key, record)));
            let Some(record) = cache.get_json::<StepRecord>(Area::Steps, key)? else { continue };
            for StoredLayer { key, layer } in record.layers {
                let from = (pushed && !image.build_only).then(|| image.reference.repository().clone());
                let known = lent.layers.entry(layer.digest).or_insert((layer.size, None));
                known.1 = known.1.take().or(from);
                lend_group(cache, elsewhere, (key, layer.digest), &mut lent)?;
            }
        }
    }
    Ok(lent)
}

/// The record of a group, and its parts; nothing for the layers of other steps.
fn lend_group(
    cache: &Cache,
    elsewhere: &dyn Elsewhere,
    (group, layer): (Digest, Digest),
    lent: &mut Lent,
) -> Result<(), BuildError> {
    let read = |area: Area, key: Digest| -> Result<Option<String>, BuildError> {
        if cache.file(area, key).is_none() && !elsewhere.record(area, key) {
            return Ok(None);
        }
        text(cache, area, key)
    };
    for key in [group_record_key(group), parts_key(group)] {
        let Some(record) = read(Area::Steps, key)? else { return Ok(()) };
        lent.records.steps.insert(key, record);
    }
    let parts: Vec<Part> = cache.get_json(Area::Steps, parts_key(group))?.unwrap_or_default();
    for Part { key, record, offset, size, digest } in parts {
        if let Some(known) = read(Area::Segments, record)? {
            lent.records.segments.insert(record, known);
            lent.records.pieces.insert(key, Piece { layer, offset, size, digest });
        }
    }
    Ok(())
}

/// A record as the cache has it.
fn text(cache: &Cache, area: Area, key: Digest) -> Result<Option<String>, BuildError> {
    let bytes = cache.read_bytes(area, key, LARGEST_RECORD)?;
    Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()))
}

impl Builder<'_> {
    /// Brings what a step needs from elsewhere, if it is there.
    pub(super) fn borrow_record(&self, key: Digest) -> bool {
        self.cache.file(Area::Steps, key).is_none() && self.elsewhere.record(Area::Steps, key)
    }
}

/// Under which it is kept what a group's layer is.
pub(super) fn group_record_key(group: Digest) -> Digest {
    FramedHasher::new("group record").field("group", group.as_bytes()).finish()
}

/// Under which it is kept what lies where in a group's layer.
pub(super) fn parts_key(group: Digest) -> Digest {
    FramedHasher::new("parts of a group 1").field("group", group.as_bytes()).finish()
}
