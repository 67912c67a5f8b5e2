//! The files as their authors wrote them: every key of the language, with nothing decided yet.
//!
//! The JSON Schema comes from these types ([`crate::schema`]), and their documentation is what an editor shows. A key
//! that is not here is an error. Values keep their places, so that the checks that follow can point at them.

mod family;
mod forms;
mod image;

use std::sync::Arc;

pub use crate::yaml::{Entries, Written};
pub use family::{DefaultsFile, FamilyFile, SourceEntry, SourceType};
pub use forms::{CommandForm, HealthcheckForm, ModeForm, RunForm, RunList};
pub use image::{
    DetailedCommand, FileItem, GroupItem, HealthcheckFile, ImageFile, LayersFile, MountItem, MountType, NetworkName,
    StepItem, UserItem,
};

use crate::diagnostic::Diagnostics;
use crate::source::SourceFile;

/// Reads a `family.yaml` alone, without looking at what its values mean.
pub fn parse_family(file: &Arc<SourceFile>) -> Result<FamilyFile, Diagnostics> {
    crate::yaml::parse(file)
}

/// Reads an `image.yaml` alone, without looking at what its values mean.
pub fn parse_image(file: &Arc<SourceFile>) -> Result<ImageFile, Diagnostics> {
    crate::yaml::parse(file)
}
