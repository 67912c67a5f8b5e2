//! The unpacked trees of layers, over which steps work; kept in the cache.

use content::{Digest, FramedHasher};
use layer::record::TreeDir;
use layer::unpack::Unpacker;
use store::{Area, NewTree};

use super::Builder;
use crate::error::BuildError;
use crate::image::Layer;
use crate::layers::{StoredTar, read_layer};
use crate::parallel::each;

/// The directory of a tree in its place of the cache.
const TREE: &str = "tree";

/// The tree of a layer that is laid right now.
pub(super) struct GrowingTree<'a> {
    place: NewTree<'a>,
    pub(super) tree: TreeDir,
}

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
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let _unpacking = self.cache.lock(Area::Trees, key, &mut || {})?;
        if let Some(found) = self.cache.tree(key)? {
            return Ok(TreeDir::new(found.join(TREE)));
        }
        let GrowingTree { place, tree } = self.new_tree()?;
        let mut unpacker = Unpacker::new(&tree, below, self.sandbox.owners())?;
        // Whoever else meets this diff ID takes the tree, so it must be the right one.
        let stored = StoredTar { digest: layer.digest, size: layer.size, diff_id: layer.diff_id };
        read_layer(self.layout, &stored, |entry, content| unpacker.apply(&entry, content))?;
        unpacker.finish()?;
        Ok(TreeDir::new(place.commit(key)?.join(TREE)))
    }

    /// An empty tree, which is in the cache once it is kept.
    pub(super) fn new_tree(&self) -> Result<GrowingTree<'_>, BuildError> {
        let place = self.cache.new_tree()?;
        let tree = TreeDir::create(place.path().join(TREE))?;
        Ok(GrowingTree { place, tree })
    }

    /// Keeps the tree of a layer that stands alone, unless it is there already.
    pub(super) fn keep_tree(&self, layer: &Layer, new: GrowingTree<'_>) -> Result<(), BuildError> {
        let key = tree_on(self.tree_key(), layer);
        let _keeping = self.cache.lock(Area::Trees, key, &mut || {})?;
        if self.cache.tree(key)?.is_none() {
            new.place.commit(key)?;
        }
        Ok(())
    }
}

/// The key of a layer's tree over what is below it.
fn tree_on(below: Digest, layer: &Layer) -> Digest {
    let key = FramedHasher::new("tree").field("below", below.as_bytes());
    key.field("layer", layer.diff_id.0.as_bytes()).finish()
}
