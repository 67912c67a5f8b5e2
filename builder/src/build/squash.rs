//! An image's own layers as fewer ones, where its budget leaves no room for them: a layer without packages becomes one
//! with the layer below it that the image has made.
//!
//! Steps keep the layers that they made, and work over them; only the image has others. So nothing runs again because a
//! budget changed.

use content::FramedHasher;
use layer::squash::squash;
use layer::write::EntryWriter;
use spec::ImageName;
use store::Area;

use super::step::StoredLayer;
use super::{Builder, State};
use crate::error::BuildError;
use crate::image::Layer;

impl Builder<'_> {
    /// `own`, which are the topmost layers of `state`, as they are in the image.
    pub(super) fn squashed(&self, image: &ImageName, state: &State, own: &[Layer]) -> Result<Vec<Layer>, BuildError> {
        let mut layers = Vec::new();
        let mut end = state.layers.len() - own.len();
        for run in runs(own) {
            end += run.len();
            match run {
                [layer] => layers.push(layer.clone()),
                run => layers.extend(self.as_one(image, &state.layers[..end], run, state.epoch)?),
            }
        }
        Ok(layers)
    }

    /// The topmost layers of a stack as one; none if they take back all that they change.
    fn as_one(
        &self,
        image: &ImageName,
        stack: &[Layer],
        run: &[Layer],
        epoch: i64,
    ) -> Result<Option<Layer>, BuildError> {
        let key = FramedHasher::new("squash 1")
            .list("stack", stack.iter().map(|layer| layer.diff_id.0.as_bytes()))
            .field("below", (stack.len() - run.len()).to_string())
            .field("encoder", self.options.compression.encoder())
            .field("epoch", epoch.to_string())
            .finish();
        let _squashing = self.cache.lock(Area::Layers, key, &mut || {})?;
        self.borrow_record(key);
        let known: Option<Option<StoredLayer>> = match self.options.no_cache {
            true => None,
            false => self.cache.get_json(Area::Steps, key)?,
        };
        let named = |layer: Layer| Layer { from: image.to_string(), ..layer };
        match known {
            Some(None) => return Ok(None),
            Some(Some(stored)) if self.is_stored(&stored)? => return Ok(Some(named(stored.layer))),
            _ => {}
        }
        let trees = self.trees(stack)?;
        let changes = squash(&trees, stack.len() - run.len(), self.sandbox.owners(), epoch)?;
        let made_by = run.iter().map(|layer| layer.made_by.as_str()).collect::<Vec<_>>().join("; ");
        let packages = run.iter().flat_map(|layer| layer.packages.iter().cloned()).collect();
        let stored = self.layer(key, image, &made_by, packages, |layer| {
            let bytes = changes.iter().map(|change| change.entry.kind.size()).sum();
            layer.entries(bytes, |writer| layer::diff::write(&changes, &mut EntryWriter::new(writer)))?;
            Ok(!changes.is_empty())
        })?;
        self.cache.put_json(Area::Steps, key, &stored)?;
        Ok(stored.map(|stored| stored.layer))
    }
}

/// Layers that become one each: those without packages join what is below them.
fn runs(own: &[Layer]) -> impl Iterator<Item = &[Layer]> {
    own.chunk_by(|_, above| above.packages.is_empty())
}
