//! The unpacked trees of layers, over which steps work; kept in the cache.

use content::{Digest, FramedHasher};
use layer::record::TreeDir;
use layer::unpack::Unpacker;
use store::Area;

use super::Builder;
use crate::error::BuildError;
use crate::image::Layer;
use crate::layers::{StoredTar, read_layer};
use crate::parallel::each;

impl Builder<'_> {
    /// The unpacked trees of layers, the lowest first.
    pub(super) fn trees(&self, layers: &[Layer]) -> Result<Vec<TreeDir>, BuildError> {
        // What stands alone is unpacked once, whatever it lies on, and all of it at the same time.
        let alone: Vec<&Layer> = layers.iter().filter(|layer| layer.stands_alone).collect();
        each(&alone, self.options.jobs, self.interrupt, |layer| {
            self.tree(tree_on(self.tree_key(), layer), layer, &[]).map(drop)
        })?;
        let mut trees = Vec::with_capacity(layers.len());
        let mut chain = self.tree_key();
        for layer in layers {
            chain = tree_on(chain, layer);
            let tree = match layer.stands_alone {
                true => self.tree(tree_on(self.tree_key(), layer), layer, &[])?,
                false => self.tree(chain, layer, &trees)?,
            };
            trees.push(tree);
        }
        Ok(trees)
    }

    /// Trees are kept apart by how they store owners, and where that is by a map of ids, by the map: those of one kind
    /// may be unreadable for a builder of another.
    pub(super) fn tree_key(&self) -> Digest {
        FramedHasher::new("trees 1").field("owners", self.sandbox.kind_of_trees()).finish()
    }

    pub(super) fn tree(&self, key: Digest, layer: &Layer, below: &[TreeDir]) -> Result<TreeDir, BuildError> {
        const TREE: &str = "tree";
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let _unpacking = self.cache.lock(Area::Trees, key, &mut || {})?;
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let new = self.cache.new_tree()?;
        let tree = TreeDir::create(new.path().join(TREE))?;
        let mut unpacker = Unpacker::new(&tree, below, self.sandbox.owners())?;
        // Whoever else meets this diff ID takes the tree, so it must be the right one.
        let stored = StoredTar { digest: layer.digest, size: layer.size, diff_id: layer.diff_id };
        read_layer(self.layout, &stored, |entry, content| unpacker.apply(&entry, content))?;
        unpacker.finish()?;
        Ok(TreeDir::new(new.commit(key)?.join(TREE)))
    }
}

/// The key of a layer's tree over what is below it.
fn tree_on(below: Digest, layer: &Layer) -> Digest {
    let key = FramedHasher::new("tree").field("below", below.as_bytes());
    key.field("layer", layer.diff_id.0.as_bytes()).finish()
}
