//! The groups while they are found: laid into slots, and merged until every image keeps within its limit.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::bits::Bits;

/// A step that lays packages.
pub struct Slot {
    /// Whose step.
    pub image: usize,
    /// Which step.
    pub step: usize,
    /// What it lays, sorted.
    pub pieces: Vec<u32>,
    /// How many images have its layers.
    pub users: u64,
}

/// What an image may have.
pub struct Limit {
    /// The image.
    pub image: usize,
    /// The slots whose groups are its layers.
    pub slots: Vec<usize>,
    /// The most groups that these may have together.
    pub groups: usize,
}

/// Some pieces, and the slots that lay them as one group.
struct Blob {
    pieces: Vec<u32>,
    size: u64,
    slots: Bits,
}

/// Two groups of a slot that could be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    /// Bytes that are stored twice afterwards, and were not.
    cost: u64,
    /// In how many slots they become one.
    helps: Reverse<usize>,
    blobs: (usize, usize),
}

/// What is known of the cheapest merge in a slot.
#[derive(Clone, Copy)]
enum Cheapest {
    Unknown,
    Known(Option<Merge>),
}

/// All groups of a family.
pub struct Wall<'a> {
    slots: &'a [Slot],
    sizes: &'a [u64],
    blobs: Vec<Blob>,
    by_pieces: HashMap<Vec<u32>, usize>,
    /// The blobs of each slot, the smallest first.
    laid: Vec<Vec<usize>>,
    /// What no blob of each slot has yet, sorted.
    left: Vec<Vec<u32>>,
    /// The slots whose groups may change.
    free: Bits,
    cheapest: Vec<Cheapest>,
}

impl<'a> Wall<'a> {
    /// Nothing is laid, and all may change.
    pub fn new(slots: &'a [Slot], sizes: &'a [u64]) -> Self {
        let mut free = Bits::new(slots.len());
        (0..slots.len()).for_each(|slot| free.insert(slot));
        Self {
            slots,
            sizes,
            blobs: Vec::new(),
            by_pieces: HashMap::new(),
            laid: vec![Vec::new(); slots.len()],
            left: slots.iter().map(|slot| slot.pieces.clone()).collect(),
            free,
            cheapest: vec![Cheapest::Unknown; slots.len()],
        }
    }

    /// Lays pieces that are left in a slot as one group.
    pub fn lay(&mut self, slot: usize, pieces: Vec<u32>) {
        self.left[slot].retain(|piece| pieces.binary_search(piece).is_err());
        let blob = self.blob(pieces);
        self.blobs[blob].slots.insert(slot);
        self.put(slot, blob);
    }

    /// The groups of a slot stay as they are from now on.
    pub fn pin(&mut self, slot: usize) {
        let mut only = Bits::new(self.slots.len());
        only.insert(slot);
        self.free.remove_all(&only);
    }

    /// Lays what is left with the groups that other slots have, as far as they fit, the largest first.
    pub fn lay_known(&mut self) {
        let mut known: Vec<usize> = (0..self.blobs.len()).collect();
        known.sort_by_key(|blob| (Reverse(self.blobs[*blob].size), *blob));
        for slot in 0..self.slots.len() {
            for blob in &known {
                let pieces = &self.blobs[*blob].pieces;
                if pieces.iter().all(|piece| self.left[slot].binary_search(piece).is_ok()) {
                    self.lay(slot, pieces.clone());
                }
            }
        }
    }

    /// Lays what is left, pieces that are left in the same slots as one group.
    pub fn lay_rest(&mut self) {
        let mut needed = vec![Bits::new(self.slots.len()); self.sizes.len()];
        for (slot, left) in self.left.iter().enumerate() {
            left.iter().for_each(|piece| needed[*piece as usize].insert(slot));
        }
        let mut groups: BTreeMap<Bits, Vec<u32>> = BTreeMap::new();
        for (piece, slots) in (0..).zip(needed) {
            groups.entry(slots).or_default().push(piece);
        }
        for (slots, pieces) in groups {
            slots.iter().for_each(|slot| self.lay(slot, pieces.clone()));
        }
    }

    /// Merges groups until all images keep within their limits. Fails with the first image that cannot.
    pub fn fit(&mut self, limits: &[Limit]) -> Result<(), usize> {
        for limit in limits {
            let count = |wall: &Self| limit.slots.iter().map(|slot| wall.laid[*slot].len()).sum::<usize>();
            if count(self) > limit.groups {
                limit.slots.iter().for_each(|slot| self.merge_equal(*slot));
            }
            while count(self) > limit.groups {
                let cheapest = limit.slots.iter().filter_map(|slot| self.cheapest(*slot)).min();
                self.merge(cheapest.ok_or(limit.image)?.blobs);
            }
        }
        Ok(())
    }

    /// The groups of a slot.
    pub fn groups(&self, slot: usize) -> impl Iterator<Item = &[u32]> {
        self.laid[slot].iter().map(|blob| self.blobs[*blob].pieces.as_slice())
    }

    /// The groups of a slot in the order of their layers: what most images have comes first, so that those that share
    /// layers begin with the same ones. Where the last one will be squashed, it is one that nobody else has, or the
    /// smallest.
    pub fn in_order(&self, slot: usize, squashed: bool) -> Vec<Vec<u32>> {
        let users = |blob: &Blob| blob.slots.iter().map(|slot| self.slots[slot].users).sum::<u64>();
        let mut blobs: Vec<&Blob> = self.laid[slot].iter().map(|blob| &self.blobs[*blob]).collect();
        blobs.sort_by_key(|blob| (Reverse(users(blob)), blob.pieces[0]));
        let is_shared = |blob: &Blob| blob.slots.iter().nth(1).is_some();
        if squashed
            && let Some(last) = (0..blobs.len()).min_by_key(|place| (is_shared(blobs[*place]), blobs[*place].size))
        {
            let last = blobs.remove(last);
            blobs.push(last);
        }
        blobs.into_iter().map(|blob| blob.pieces.clone()).collect()
    }

    /// The blob of these pieces, which may be new.
    fn blob(&mut self, pieces: Vec<u32>) -> usize {
        if let Some(known) = self.by_pieces.get(&pieces) {
            return *known;
        }
        let size = pieces.iter().map(|piece| self.sizes[*piece as usize]).sum();
        self.blobs.push(Blob { pieces: pieces.clone(), size, slots: Bits::new(self.slots.len()) });
        self.by_pieces.insert(pieces, self.blobs.len() - 1);
        self.blobs.len() - 1
    }

    fn put(&mut self, slot: usize, blob: usize) {
        let key = |blob: usize| (self.blobs[blob].size, blob);
        let place = self.laid[slot].partition_point(|other| key(*other) < key(blob));
        self.laid[slot].insert(place, blob);
    }

    /// The cheapest merge in a slot.
    ///
    /// A merge costs the bytes of those of the two that somebody needs alone. If neither is needed only where the other
    /// is, that is both, and the two smallest cost least; so a group is compared with all others only while it is
    /// smaller than what was found.
    fn cheapest(&mut self, slot: usize) -> Option<Merge> {
        if let Cheapest::Known(known) = self.cheapest[slot] {
            return known;
        }
        let laid = &self.laid[slot];
        let mut best = None;
        if let ([first, second, ..], true) = (laid.as_slice(), self.free.contains(slot)) {
            let mut found = self.judge(*first, *second);
            for stays in laid {
                let size = self.blobs[*stays].size;
                if size >= found.cost {
                    break;
                }
                let goes = laid.iter().filter(|other| *other != stays && self.goes(**other, *stays));
                found = goes.map(|other| self.judge(*stays, *other)).chain([found]).min().unwrap_or(found);
            }
            best = Some(found);
        }
        self.cheapest[slot] = Cheapest::Known(best);
        best
    }

    /// Whether a blob is needed only where another may be merged with it.
    fn goes(&self, blob: usize, other: usize) -> bool {
        self.blobs[blob].slots.is_within_both(&self.blobs[other].slots, &self.free)
    }

    fn judge(&self, left: usize, right: usize) -> Merge {
        let (one, two) = (&self.blobs[left], &self.blobs[right]);
        let helps = Reverse(one.slots.count_common(&two.slots, &self.free));
        let alone = |blob: usize, other: usize| if self.goes(blob, other) { 0 } else { self.blobs[blob].size };
        Merge { cost: alone(left, right) + alone(right, left), helps, blobs: (left.min(right), left.max(right)) }
    }

    /// Makes one group of two wherever both are and may change.
    fn merge(&mut self, (left, right): (usize, usize)) {
        let common = self.blobs[left].slots.common(&self.blobs[right].slots, &self.free);
        let mut touched = self.blobs[left].slots.clone();
        touched.insert_all(&self.blobs[right].slots);
        let mut pieces = [self.blobs[left].pieces.as_slice(), self.blobs[right].pieces.as_slice()].concat();
        pieces.sort_unstable();
        let merged = self.blob(pieces);
        for slot in common.iter() {
            self.laid[slot].retain(|blob| *blob != left && *blob != right);
            self.put(slot, merged);
        }
        self.blobs[left].slots.remove_all(&common);
        self.blobs[right].slots.remove_all(&common);
        self.blobs[merged].slots.insert_all(&common);
        touched.insert_all(&self.blobs[merged].slots);
        touched.iter().for_each(|slot| self.cheapest[slot] = Cheapest::Unknown);
        [left, right].into_iter().for_each(|blob| self.forget_unused(blob));
        [merged, left, right].into_iter().for_each(|blob| self.merge_with_equal(blob));
    }

    /// A group that nobody has any more takes no memory.
    fn forget_unused(&mut self, blob: usize) {
        if self.blobs[blob].slots.iter().next().is_none() {
            let pieces = std::mem::take(&mut self.blobs[blob].pieces);
            self.by_pieces.remove(&pieces);
        }
    }

    /// Merges a blob with one that the same slots have: nothing is gained by two layers.
    fn merge_with_equal(&mut self, blob: usize) {
        let slots = &self.blobs[blob].slots;
        let Some(slot) = slots.iter().next().filter(|_| slots.is_within_both(&self.free, &self.free)) else { return };
        let equal = |other: &&usize| **other != blob && self.blobs[**other].slots == *slots;
        if let Some(other) = self.laid[slot].iter().find(equal).copied() {
            self.merge((blob, other));
        }
    }

    fn merge_equal(&mut self, slot: usize) {
        let mut place = 0;
        while let Some(blob) = self.laid[slot].get(place).copied() {
            self.merge_with_equal(blob);
            // A merge took it away and put a larger one further up.
            if self.laid[slot].get(place) == Some(&blob) {
                place += 1;
            }
        }
    }
}
