//! What a build says about its images, kept beside them as [`mod@referrers`]: bills of materials, and where they are from.
//!
//! Images do not change by it, and what was said once is not made again.

use std::collections::BTreeSet;

use content::Digest;
use oci::{Descriptor, Reference};
use store::{Layout, StoredImage};

use crate::build::BuiltImage;
use crate::error::BuildError;
use crate::inventory::{Inventories, InventoryError};
use crate::plan::Plan;
use crate::provenance::{self, provenance};
use crate::referrers::{self, Referrer, Statement};
use crate::sbom::{self, Format};
use crate::steps::files::Inputs;

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The forms of bills of materials.
    pub bills: BTreeSet<Format>,
    /// Whether to say what images were built from.
    pub provenance: bool,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// An image cannot be looked into.
    #[error("{reference} cannot be looked into")]
    Image {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        source: InventoryError,
    },
    /// An input cannot be read any more, or the layout failed.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Says what is wanted about the images of a build that are not only parents for others; of what they were built from
/// only if the plan is given. Says how many statements are new.
pub fn attach(
    layout: &Layout,
    built: &[BuiltImage],
    from: Option<(&[&Plan<'_>], &Inputs<'_>)>,
    wanted: &Wanted,
) -> Result<usize, StatementError> {
    if *wanted == Wanted::default() {
        return Ok(0);
    }
    let _lease = layout.lease();
    let known = referrers::all(layout).map_err(BuildError::from)?;
    let said = Said { layout, known: &known, inventories: Inventories::new(layout) };
    let mut named: Vec<(Reference, Descriptor)> = Vec::new();
    for image in built.iter().filter(|image| !image.build_only) {
        for format in &wanted.bills {
            if !said.has(image, format.media_type()) {
                named.push(said.bill(image, *format)?);
            }
        }
        if let Some((plans, inputs)) = from.filter(|_| wanted.provenance) {
            named.push(said.provenance(plans, image, built, inputs)?);
        }
    }
    let is_new = |(reference, _): &&(Reference, Descriptor)| !known.iter().any(|old| old.reference == *reference);
    let new = named.iter().filter(is_new).count();
    if new > 0 {
        layout.set_references(&named).map_err(BuildError::from)?;
        forget_outdated(layout, &known, &named).map_err(BuildError::from)?;
    }
    Ok(new)
}

/// What was said so far.
struct Said<'a> {
    layout: &'a Layout,
    known: &'a [Referrer],
    inventories: Inventories<'a>,
}

impl Said<'_> {
    fn has(&self, image: &BuiltImage, media_type: &str) -> bool {
        let of_image = referrers::of(self.known, image.manifest.digest);
        let same = |referrer: &Referrer| {
            referrer.manifest.artifact_type.as_deref() == Some(media_type)
                && referrer.reference.name() == image.reference.name()
        };
        of_image.iter().any(same)
    }

    fn bill(&self, image: &BuiltImage, format: Format) -> Result<(Reference, Descriptor), StatementError> {
        let stored = self.layout.image_at(&image.reference, &image.config.platform()).map_err(BuildError::from)?;
        let stored: StoredImage = stored.expect("the images of a build are in the layout under their names");
        let failed = |source| StatementError::Image { reference: Box::new(image.reference.clone()), source };
        let inventory = self.inventories.image(&stored).map_err(failed)?;
        self.store(image, format.media_type(), sbom::bill(format, &stored, &inventory))
    }

    fn provenance(
        &self,
        plans: &[&Plan<'_>],
        image: &BuiltImage,
        built: &[BuiltImage],
        inputs: &Inputs<'_>,
    ) -> Result<(Reference, Descriptor), StatementError> {
        let plan =
            plans.iter().find(|plan| image.platform().serves(&plan.platform)).expect("what was built was planned");
        let planned = plan.images.iter().find(|planned| planned.image.name.value == image.name);
        let planned = planned.expect("what was built is of the plan");
        let parent = planned.parent.map(|parent| &plan.images[parent].image.name.value);
        let is_parent = |other: &&BuiltImage| Some(&other.name) == parent && other.platform() == image.platform();
        let parent = built.iter().find(is_parent);
        self.store(image, provenance::MEDIA_TYPE, provenance(planned, image, parent, inputs)?)
    }

    fn store(
        &self,
        image: &BuiltImage,
        media_type: &'static str,
        bytes: Vec<u8>,
    ) -> Result<(Reference, Descriptor), StatementError> {
        let statement = Statement { media_type, bytes };
        let created = image.config.created.as_deref();
        let stored = referrers::store(self.layout, &image.reference, &image.manifest, created, &statement);
        Ok(stored.map_err(BuildError::from)?)
    }
}

/// Takes the names of statements away that a newer one replaces, or whose image the layout no longer has.
fn forget_outdated(
    layout: &Layout,
    known: &[Referrer],
    new: &[(Reference, Descriptor)],
) -> Result<(), store::StoreError> {
    let mut images: BTreeSet<Digest> = BTreeSet::new();
    for (_, entry) in layout.references()? {
        images.insert(entry.digest);
        images.extend(layout.manifests_at(&entry)?.into_iter().map(|(listed, _)| listed.digest));
    }
    let ours = [Format::Spdx.media_type(), Format::CycloneDx.media_type(), provenance::MEDIA_TYPE];
    let all = referrers::all(layout)?;
    let about = |descriptor: &Descriptor| {
        let found = all.iter().find(|referrer| referrer.descriptor.digest == descriptor.digest)?;
        Some((found.manifest.artifact_type.clone(), found.manifest.subject.as_ref()?.digest))
    };
    let said_anew: BTreeSet<_> = new.iter().filter_map(|(_, descriptor)| about(descriptor)).collect();
    let kept: BTreeSet<&Reference> = new.iter().map(|(reference, _)| reference).collect();
    let outdated: BTreeSet<&Reference> = known
        .iter()
        .filter(|referrer| {
            let of_ours = referrer.manifest.artifact_type.as_deref().is_some_and(|kind| ours.contains(&kind));
            let Some((kind, subject)) = about(&referrer.descriptor) else { return false };
            of_ours
                && !kept.contains(&referrer.reference)
                && (!images.contains(&subject) || said_anew.contains(&(kind, subject)))
        })
        .map(|referrer| &referrer.reference)
        .collect();
    if !outdated.is_empty() {
        layout.remove_references(|reference, _| outdated.contains(reference))?;
    }
    Ok(())
}
