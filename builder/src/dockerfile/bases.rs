//! What the Dockerfiles of a family are built on, found without building them.

use std::collections::BTreeMap;

use spec::dockerfile::Arguments;

use super::needs::{NeededImage, needs, target};
use super::platform_arguments;
use crate::base::{Bases, Reach};
use crate::error::BuildError;
use crate::plan::Plan;

/// All images that the Dockerfiles of the wanted images need and that are not the family's own.
pub fn needed(plan: &Plan<'_>) -> Result<Vec<NeededImage>, BuildError> {
    let mut found = Vec::new();
    for image in plan.images.iter().filter(|planned| planned.wanted).map(|planned| planned.image) {
        let Some(dockerfile) = &image.dockerfile else { continue };
        let arguments = Arguments::read(dockerfile, BTreeMap::new(), platform_arguments(&plan.platform, None));
        let arguments = arguments.map_err(BuildError::Spec)?;
        let stages = needs(dockerfile, target(dockerfile, None)?, &arguments, &plan.platform)?;
        let images = stages.into_iter().flat_map(|stage| stage.images);
        found.extend(images.filter(|needed| plan.family.image(&needed.name).is_none()));
    }
    Ok(found)
}

/// Finds them all, for a lock.
pub fn find(plan: &Plan<'_>, bases: &Bases<'_>) -> Result<(), BuildError> {
    for needed in needed(plan)? {
        let found = bases.find(&needed.name, &needed.platform, Reach::Anywhere);
        found.map_err(|error| BuildError::from(error).located(&needed.span))?;
    }
    Ok(())
}
