//! Cuts the packages of a family into layers, so that each package is stored once: packages that the same images lay
//! are a group, a group is a layer, and every image that needs the group uses that one layer.
//!
//! An image may have only so many layers. Where it has more, two of its groups become one in all images that have both;
//! an image that needs one of the two alone keeps that one, whose bytes are then stored twice. The pair that costs the
//! fewest such bytes is taken, again and again, until all images keep within their budgets.
//!
//! A cut is a decision that outlives a build: an image that did not change keeps the layers that it had
//! ([`Image::remembered`]), whatever became of the others. New and changed images use the groups that are there as far as
//! they fit, and what is left over is cut anew. Only where a budget cannot be met so is everything cut anew.
//!
//! Where that would leave hardly any room for groups, the layers of an image's own steps are squashed
//! ([`Cut::squashed`]): the last group of a step, which should be one that nobody else has, and what the following steps
//! make are then one layer.
//!
//! Nothing here knows of archives, files or layers; the input alone decides, and its order does not matter.

mod bits;
mod wall;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use content::Digest;

use wall::{Limit, Slot, Wall};

/// How many layers an image has at most if nobody says anything.
pub const USUAL_BUDGET: usize = 40;

/// How many layers there should be for packages, beyond the least, before an image's own layers are squashed.
const ELBOW_ROOM: usize = 8;

/// A package as a cut sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its name; an image has one package of a name.
    pub name: &'a str,
    /// Names its bytes: pieces with equal digests are the same.
    pub digest: Digest,
    /// About how many bytes it takes in a layer.
    pub size: u64,
}

/// How many layers an image may have, its parent's included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// [`USUAL_BUDGET`], or as few as are possible if those are more.
    Usual,
    /// What somebody asked for; it is an error if it cannot be met.
    Asked(usize),
}

/// An image as a cut sees it.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Its name, unlike that of all others.
    pub name: &'a str,
    /// The place of its parent, which is smaller than its own.
    pub parent: Option<usize>,
    /// The packages of each step that lays some; none is in the parent or in another step.
    pub steps: Vec<Vec<Piece<'a>>>,
    /// How many layers it begins with that others made; they stay as they are.
    pub fixed_layers: usize,
    /// How many layers its steps make besides those of packages: below them all, and above those of each step.
    pub other_layers: Vec<usize>,
    /// How many layers it may have.
    pub budget: Budget,
    /// How it was cut before.
    pub remembered: Remembered<'a>,
}

/// How an image was cut before, under the same budget.
#[derive(Clone, Debug, Default)]
pub struct Remembered<'a> {
    /// Its groups, as names of packages, the lowest layer first; its parent's may be among them.
    pub groups: Vec<Vec<&'a str>>,
    /// Whether its own layers were squashed, which then stays so.
    pub squashed: bool,
}

/// The packages of one layer, as places in their step, sorted by name.
pub type Group = Vec<usize>;

/// For each image, for each of its steps, the groups that are its layers, the lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The images, in the order in which they were given.
    pub images: Vec<Vec<Vec<Group>>>,
    /// Whether each image's own layers, those without packages, become one with the layer below that the image has made,
    /// or with each other.
    pub squashed: Vec<bool>,
}

/// An image that cannot keep within the budget that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// The image's place.
    pub image: usize,
    /// The least number of layers that it can have.
    pub least: usize,
    /// The number that was asked for.
    pub budget: usize,
}

/// Cuts the packages of `images`, parents before their children.
pub fn cut(images: &[Image<'_>]) -> Result<Cut, OverBudget> {
    let family = Family::of(images);
    let mut anew = Wall::new(&family.slots, &family.sizes);
    anew.lay_rest();
    let groups = family.groups(&anew);
    let squashed = family.squashed(&groups, Memory::Ignored);
    anew.fit(&family.limits(&squashed)?).expect("one group a step is within every limit");
    let kept = family.kept();
    if kept.iter().any(Option::is_some) {
        let as_before = family.squashed(&groups, Memory::Kept);
        let same = squashed == as_before && agree(&anew, &kept);
        if !same && let Ok(limits) = family.limits(&as_before) {
            let mut grown = family.grown(&kept);
            // What is kept may leave too little room for what is new.
            if grown.fit(&limits).is_ok() {
                return Ok(family.result(&grown, &kept, as_before));
            }
        }
    }
    Ok(family.result(&anew, &kept, squashed))
}

/// Whether what images had before decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Kept,
    Ignored,
}

/// How many layers without packages an image has in the end: `other_layers` as an [`Image`] has them, and `steps` says of
/// each step whether it lays any packages.
pub fn own_layers(other_layers: &[usize], steps: &[bool], squashed: bool) -> usize {
    if !squashed {
        return other_layers.iter().sum();
    }
    // What lies above a step's packages becomes one with their last group.
    let below_packages = steps.iter().take_while(|lays| !**lays).count() + 1;
    usize::from(other_layers.iter().take(below_packages).any(|layers| *layers > 0))
}

impl Budget {
    fn layers(self) -> usize {
        match self {
            Self::Usual => USUAL_BUDGET,
            Self::Asked(layers) => layers,
        }
    }
}

/// The groups of a slot as sorted pieces, in the order of their layers, if they are kept as they were.
type Kept = Option<Vec<Vec<u32>>>;

/// Whether a cut has the groups that are to be kept.
fn agree(wall: &Wall<'_>, kept: &[Kept]) -> bool {
    let agrees = |slot: usize, groups: &Vec<Vec<u32>>| {
        let left: BTreeSet<&[u32]> = groups.iter().map(Vec::as_slice).collect();
        let right: BTreeSet<&[u32]> = wall.groups(slot).collect();
        left == right
    };
    kept.iter().enumerate().all(|(slot, groups)| groups.as_ref().is_none_or(|groups| agrees(slot, groups)))
}

/// The input in numbers that do not depend on its order.
struct Family<'a> {
    images: &'a [Image<'a>],
    /// The steps that lay packages, sorted by the image's name.
    slots: Vec<Slot>,
    /// For each piece, how many bytes it has.
    sizes: Vec<u64>,
    /// The names of the pieces of each slot.
    names: Vec<BTreeMap<&'a str, u32>>,
    /// For each image the slots that its layers are from, its parent's included.
    below: Vec<Vec<usize>>,
}

impl<'a> Family<'a> {
    fn of(images: &'a [Image<'a>]) -> Self {
        let mut pieces: Vec<(&str, Digest, u64)> = images
            .iter()
            .flat_map(|image| image.steps.iter().flatten())
            .map(|piece| (piece.name, piece.digest, piece.size))
            .collect();
        pieces.sort_unstable();
        pieces.dedup_by_key(|piece| piece.1);
        let numbers: HashMap<Digest, u32> = (0..).zip(&pieces).map(|(number, piece)| (piece.1, number)).collect();
        let mut slots = Vec::new();
        for (place, image) in images.iter().enumerate() {
            for (step, pieces) in image.steps.iter().enumerate().filter(|(_, pieces)| !pieces.is_empty()) {
                let mut numbered: Vec<u32> = pieces.iter().map(|piece| numbers[&piece.digest]).collect();
                numbered.sort_unstable();
                slots.push(Slot { image: place, step, pieces: numbered, users: 0 });
            }
        }
        slots.sort_by_key(|slot| (images[slot.image].name, slot.step));
        let names = |slot: &Slot| {
            let pieces = &images[slot.image].steps[slot.step];
            pieces.iter().map(|piece| (piece.name, numbers[&piece.digest])).collect()
        };
        let names = slots.iter().map(names).collect();
        let sizes = pieces.iter().map(|piece| piece.2).collect();
        let below = below(images, &slots);
        below.iter().flatten().for_each(|slot| slots[*slot].users += 1);
        Self { images, slots, sizes, names, below }
    }

    /// How many groups each image has.
    fn groups(&self, wall: &Wall<'_>) -> Vec<usize> {
        let count = |slots: &Vec<usize>| slots.iter().map(|slot| wall.groups(*slot).count()).sum();
        self.below.iter().map(count).collect()
    }

    /// The layers without packages of each image, its parent's included.
    fn own_layers(&self, squashed: &[bool]) -> Vec<usize> {
        let mut layers: Vec<usize> = Vec::with_capacity(self.images.len());
        for (image, squashed) in self.images.iter().zip(squashed) {
            let steps: Vec<bool> = image.steps.iter().map(|pieces| !pieces.is_empty()).collect();
            let below = image.parent.map_or(image.fixed_layers, |parent| layers[parent]);
            layers.push(below + own_layers(&image.other_layers, &steps, *squashed));
        }
        layers
    }

    /// The images whose own layers are squashed: those that have more layers than they may and would have no elbow room,
    /// and what they are built on. `groups` is how many groups each has if nothing is merged.
    fn squashed(&self, groups: &[usize], memory: Memory) -> Vec<bool> {
        let own = self.own_layers(&vec![false; self.images.len()]);
        let mut squashed: Vec<bool> = Vec::with_capacity(self.images.len());
        for (place, image) in self.images.iter().enumerate() {
            let budget = image.budget.layers();
            let is_tight = own[place] + self.below[place].len() + ELBOW_ROOM > budget;
            let was_cut = memory == Memory::Kept && !image.remembered.groups.is_empty();
            squashed.push(match was_cut {
                true => image.remembered.squashed,
                false => is_tight && own[place] + groups[place] > budget,
            });
        }
        for (place, image) in self.images.iter().enumerate().rev() {
            if let Some(parent) = image.parent {
                squashed[parent] |= squashed[place];
            }
        }
        squashed
    }

    /// What each image may have, parents before their children and then by name.
    fn limits(&self, squashed: &[bool]) -> Result<Vec<Limit>, OverBudget> {
        let others = self.own_layers(squashed);
        let mut limits: Vec<Limit> = Vec::with_capacity(self.images.len());
        for (place, image) in self.images.iter().enumerate() {
            let slots = self.below[place].clone();
            let least = others[place] + slots.len();
            let budget = match image.budget {
                Budget::Asked(budget) if budget < least => return Err(OverBudget { image: place, least, budget }),
                budget => budget.layers().max(least),
            };
            limits.push(Limit { image: place, slots, groups: budget - others[place] });
        }
        let depth = |image: usize| std::iter::successors(Some(image), |image| self.images[*image].parent).count();
        limits.sort_by_key(|limit| (depth(limit.image), self.images[limit.image].name));
        Ok(limits)
    }

    /// The groups of each slot that is as it was when it was cut before.
    fn kept(&self) -> Vec<Kept> {
        (0..self.slots.len())
            .map(|slot| {
                let groups = self.remembered(slot);
                let whole = groups.iter().all(|group| group.whole);
                let count: usize = groups.iter().map(|group| group.pieces.len()).sum();
                let kept = whole && count == self.slots[slot].pieces.len();
                kept.then(|| groups.into_iter().map(|group| group.pieces).collect())
            })
            .collect()
    }

    /// What is left in a slot of the groups that its image had.
    fn remembered(&self, slot: usize) -> Vec<Left> {
        let (image, names) = (&self.images[self.slots[slot].image], &self.names[slot]);
        let mut seen = BTreeSet::new();
        let mut groups = Vec::new();
        for group in &image.remembered.groups {
            let mut pieces: Vec<u32> = group.iter().filter_map(|name| names.get(name).copied()).collect();
            pieces.retain(|piece| seen.insert(*piece));
            pieces.sort_unstable();
            if !pieces.is_empty() {
                groups.push(Left { whole: pieces.len() == group.len(), pieces });
            }
        }
        groups
    }

    /// The kept groups stay; the other slots take from all groups that are known what fits, their own first.
    fn grown(&self, kept: &[Kept]) -> Wall<'_> {
        let mut wall = Wall::new(&self.slots, &self.sizes);
        for (slot, kept) in kept.iter().enumerate() {
            let groups = match kept {
                Some(groups) => groups.clone(),
                None => self.remembered(slot).into_iter().map(|group| group.pieces).collect(),
            };
            groups.into_iter().for_each(|group| wall.lay(slot, group));
            if kept.is_some() {
                wall.pin(slot);
            }
        }
        wall.lay_known();
        wall.lay_rest();
        wall
    }

    fn result(&self, wall: &Wall<'_>, kept: &[Kept], squashed: Vec<bool>) -> Cut {
        let mut images: Vec<Vec<Vec<Group>>> =
            self.images.iter().map(|image| vec![Vec::new(); image.steps.len()]).collect();
        for (number, slot) in self.slots.iter().enumerate() {
            let mut groups = wall.in_order(number, squashed[slot.image]);
            if let Some(kept) = &kept[number]
                && kept.iter().all(|group| groups.contains(group))
            {
                groups.clone_from(kept);
            }
            let pieces = &self.images[slot.image].steps[slot.step];
            let places: HashMap<u32, usize> =
                pieces.iter().enumerate().map(|(place, piece)| (self.names[number][piece.name], place)).collect();
            // The numbers of pieces are in the order of their names.
            images[slot.image][slot.step] =
                groups.iter().map(|group| group.iter().map(|piece| places[piece]).collect()).collect();
        }
        Cut { images, squashed }
    }
}

/// A group that an image had, as far as its packages are still there.
struct Left {
    pieces: Vec<u32>,
    /// Whether all of them are.
    whole: bool,
}

/// For each image the slots that its layers are from, its parent's first.
fn below(images: &[Image<'_>], slots: &[Slot]) -> Vec<Vec<usize>> {
    let mut own = vec![Vec::new(); images.len()];
    for (number, slot) in slots.iter().enumerate() {
        own[slot.image].push(number);
    }
    let mut below: Vec<Vec<usize>> = Vec::with_capacity(images.len());
    for (image, own) in images.iter().zip(own) {
        let parents = image.parent.map(|parent| below[parent].clone()).unwrap_or_default();
        below.push([parents, own].concat());
    }
    below
}
