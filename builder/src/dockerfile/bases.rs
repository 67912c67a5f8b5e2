//! What the Dockerfiles of a family are built on, found without building them, for a lock.

use std::collections::BTreeMap;

use spec::dockerfile::Arguments;

use super::needs::{needs, target};
use super::platform_arguments;
use crate::base::{Bases, Reach};
use crate::error::BuildError;
use crate::plan::Plan;

/// Finds all images that the Dockerfiles of the wanted images need and that are not the family's own.
pub fn find(plan: &Plan<'_>, bases: &Bases<'_>) -> Result<(), BuildError> {
    for image in plan.images.iter().filter(|planned| planned.wanted).map(|planned| planned.image) {
        let Some(dockerfile) = &image.dockerfile else { continue };
        let arguments = Arguments::read(dockerfile, BTreeMap::new(), platform_arguments(&plan.platform, None));
        let arguments = arguments.map_err(BuildError::Spec)?;
        let stages = needs(dockerfile, target(dockerfile, None)?, &arguments, &plan.platform)?;
        for needed in stages.into_iter().flat_map(|stage| stage.images) {
            if plan.family.image(&needed.name).is_none() {
                let found = bases.find(&needed.name, &needed.platform, Reach::Anywhere);
                found.map_err(|error| BuildError::from(error).located(&needed.span))?;
            }
        }
    }
    Ok(())
}
