//! What Dockerfiles are built on: found for a stage, or for a family without building it.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci::Platform;
use spec::dockerfile::{Arguments, Dockerfile};
use spec::{Diagnostic, Family, Image, did_you_mean};

use super::needs::{Need, NeededImage, needs, stands_further_down, target};
use super::platform_arguments;
use crate::base::{Base, BaseError, Bases, Reach};
use crate::error::{BuildError, chain};
use crate::plan::Plan;

/// The image that a stage of a Dockerfile asks for. Where there is none, a stage may have been meant; registries are
/// then asked all the same, because there may be such an image, but nobody waits for those that cannot be reached.
pub fn image_for_stage(
    bases: &Bases<'_>,
    dockerfile: &Dockerfile,
    stage: usize,
    image: &NeededImage,
    reach: Reach,
) -> Result<Arc<Base>, BuildError> {
    let NeededImage { name, platform, span } = image;
    let further_down = stands_further_down(dockerfile, name, stage);
    let meant = stage_that_may_be_meant(dockerfile, name, stage);
    let may_be_mistaken = further_down || meant.is_some();
    let reach = if reach == Reach::Anywhere && may_be_mistaken { Reach::AnywhereAtOnce } else { reach };
    bases.find(name, platform, reach).map_err(|error| {
        // Who only looks at what is here does not know that there is none.
        if reach == Reach::Local && matches!(error, BaseError::NotHere { .. }) {
            return BuildError::from(error).located(span);
        }
        if let Some(help) = meant {
            let title = format!("`{name}` is no stage above, and no image that can be had: {}", chain(&error));
            return BuildError::at(span, title, help);
        }
        if !further_down {
            return BuildError::from(error).located(span);
        }
        let diagnostic = Diagnostic::new(span.clone(), format!("the stage `{name}` stands further down"));
        BuildError::Spec(diagnostic.help("a stage can only be built on those above it, or copy from them").into())
    })
}

/// A question to ask, if a stage above is called nearly so. What has a tag, a registry or a path means no stage.
fn stage_that_may_be_meant(dockerfile: &Dockerfile, name: &str, stage: usize) -> Option<String> {
    if name.contains(['/', ':', '@', '.']) {
        return None;
    }
    let above = dockerfile.stages[..stage].iter().filter_map(|stage| stage.name.as_ref());
    let question = did_you_mean(name, above.map(|name| name.value.as_str()))?;
    Some(question.replacen("did you mean ", "did you mean the stage ", 1))
}

/// An image that is not the family's own, and the stage that needs it.
type Needed<'i> = (&'i Dockerfile, usize, NeededImage);

/// All images that the Dockerfiles of the wanted images need and that are not the family's own.
pub fn needed(plan: &Plan<'_>) -> Result<Vec<NeededImage>, BuildError> {
    Ok(needed_by_stages(plan)?.into_iter().map(|(_, _, image)| image).collect())
}

/// Finds them all, for a lock.
pub fn find(plan: &Plan<'_>, bases: &Bases<'_>) -> Result<(), BuildError> {
    for (dockerfile, stage, image) in needed_by_stages(plan)? {
        image_for_stage(bases, dockerfile, stage, &image, Reach::Anywhere)?;
    }
    Ok(())
}

fn needed_by_stages<'p>(plan: &Plan<'p>) -> Result<Vec<Needed<'p>>, BuildError> {
    let wanted = plan.images.iter().filter(|planned| planned.wanted).map(|planned| planned.image);
    let needed = wanted.map(|image| of_image(image, plan.family, &plan.platform));
    Ok(needed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// What the Dockerfile of one image needs, if it has one.
pub fn of_image<'i>(image: &'i Image, family: &Family, platform: &Platform) -> Result<Vec<Needed<'i>>, BuildError> {
    let Some(dockerfile) = &image.dockerfile else { return Ok(Vec::new()) };
    let arguments = Arguments::read(dockerfile, BTreeMap::new(), platform_arguments(platform, None));
    let arguments = arguments.map_err(BuildError::Spec)?;
    let mut found = Vec::new();
    for Need { stage, images, .. } in needs(dockerfile, target(dockerfile, None)?, &arguments, platform)? {
        let others = images.into_iter().filter(|needed| family.image(&needed.name).is_none());
        found.extend(others.map(|needed| (dockerfile.as_ref(), stage, needed)));
    }
    Ok(found)
}
