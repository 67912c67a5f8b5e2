//! The choice that `apt-get` makes: depth first, alternatives from left to right, the newest version only, and an
//! alternative that is chosen already wins. A choice that leads nowhere is taken back, and never tried again.

use std::collections::{HashMap, HashSet};

use super::{PackageId, Reason, Resolution, ResolveError, Universe, Wanted};
use crate::package::{IndexError, RelationField};
use crate::relation::Relation;

/// How deep a chain of dependencies may be; Debian's longest are below a hundred. Deeper ones are left to the other
/// engine, which does not use the stack.
const MAX_DEPTH: usize = 400;

pub(super) struct Greedy<'u> {
    universe: &'u Universe,
    recommends: bool,
    /// What is installed or chosen, by name.
    selected: HashMap<&'u str, PackageId>,
    /// What selected packages do not want beside them, by the relation's name.
    refusals: HashMap<Box<str>, Vec<Refusal>>,
    /// The new packages in the order of choice, to take choices back.
    chosen: Vec<PackageId>,
    reasons: HashMap<PackageId, Reason>,
    /// Packages whose dependencies could not be met.
    rejected: HashSet<PackageId>,
    /// Versions to choose for a name instead of the newest.
    pinned: HashMap<&'u str, PackageId>,
}

struct Refusal {
    by: PackageId,
    relation: Relation,
}

impl<'u> Greedy<'u> {
    pub(super) fn new(universe: &'u Universe, installed: &[PackageId], recommends: bool) -> Self {
        let selected = installed.iter().map(|id| (universe.package(*id).name(), *id)).collect();
        Self {
            universe,
            recommends,
            selected,
            refusals: HashMap::new(),
            chosen: Vec::new(),
            reasons: HashMap::new(),
            rejected: HashSet::new(),
            pinned: HashMap::new(),
        }
    }

    /// Chooses for what is wanted; nothing if this way of choosing leads nowhere.
    pub(super) fn resolve(mut self, wanted: &[Wanted]) -> Result<Option<Resolution>, ResolveError> {
        self.note_installed()?;
        // As apt does: everything asked for is chosen before anything's dependencies, so that it meets alternatives.
        for one in wanted {
            self.pinned.insert(self.universe.package(one.preferred()).name(), one.preferred());
            if !self.add(one.preferred(), one.reason.clone())? {
                return Ok(None);
            }
        }
        for one in wanted {
            if !self.follow(one.preferred(), 0)? {
                return Ok(None);
            }
        }
        Ok(Some(self.finish()))
    }

    /// Finds reasons for packages that were chosen elsewhere, and adds what they recommend if that is asked for.
    pub(super) fn justify(mut self, wanted: &[Wanted], chosen: &[PackageId]) -> Result<Resolution, ResolveError> {
        self.note_installed()?;
        self.pinned = chosen.iter().map(|id| (self.universe.package(*id).name(), *id)).collect();
        let is_chosen = |id: &PackageId| chosen.contains(id);
        let roots = wanted.iter().filter_map(|one| Some((*one.versions.iter().find(|id| is_chosen(id))?, one)));
        let mut queue = Vec::new();
        for (id, one) in roots {
            self.add(id, one.reason.clone())?;
            queue.push(id);
        }
        while let Some(by) = queue.pop() {
            for field in [RelationField::PreDepends, RelationField::Depends] {
                for group in self.universe.groups(by, field)? {
                    let meeting = group.iter().flat_map(|relation| self.universe.meeting(relation));
                    let Some(id) = meeting.into_iter().find(is_chosen) else { continue };
                    if !self.selected.contains_key(self.universe.package(id).name()) {
                        self.add(id, needed(by, field, &group))?;
                        queue.push(id);
                    }
                }
            }
        }
        if self.recommends {
            for id in self.chosen.clone() {
                self.follow(id, 0)?;
            }
        }
        Ok(self.finish())
    }

    fn finish(self) -> Resolution {
        let mut packages = self.chosen;
        packages.sort_by_key(|id| self.universe.package(*id).name());
        Resolution { packages, reasons: self.reasons.into_iter().collect() }
    }

    fn note_installed(&mut self) -> Result<(), IndexError> {
        let installed: Vec<_> = self.selected.values().copied().collect();
        installed.into_iter().try_for_each(|id| self.note_refusals(id))
    }

    /// Chooses a package and all it needs.
    fn choose(&mut self, id: PackageId, reason: Reason, depth: usize) -> Result<bool, IndexError> {
        if self.rejected.contains(&id) || depth > MAX_DEPTH {
            return Ok(false);
        }
        let before = self.chosen.len();
        if !self.can_be_met(id)? {
            self.rejected.insert(id);
            return Ok(false);
        }
        if !self.add(id, reason)? {
            return Ok(false);
        }
        if self.follow(id, depth)? {
            return Ok(true);
        }
        self.take_back(before);
        self.rejected.insert(id);
        Ok(false)
    }

    /// Whether each dependency has a candidate at all; so that a hopeless alternative is not even begun.
    fn can_be_met(&self, id: PackageId) -> Result<bool, IndexError> {
        for field in [RelationField::PreDepends, RelationField::Depends] {
            for group in self.universe.groups(id, field)? {
                if !self.is_met(&group) && self.solutions(&group).is_empty() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Chooses a package without what it needs, unless another version or something it conflicts with is there.
    fn add(&mut self, id: PackageId, reason: Reason) -> Result<bool, IndexError> {
        let name = self.universe.package(id).name();
        if let Some(other) = self.selected.get(name) {
            return Ok(*other == id);
        }
        if self.is_refused(id)? {
            return Ok(false);
        }
        self.selected.insert(name, id);
        self.chosen.push(id);
        self.reasons.insert(id, reason);
        self.note_refusals(id)?;
        Ok(true)
    }

    fn note_refusals(&mut self, id: PackageId) -> Result<(), IndexError> {
        for (_, relation) in self.universe.refusals(id)? {
            self.refusals.entry(relation.name.clone()).or_default().push(Refusal { by: id, relation });
        }
        Ok(())
    }

    fn is_refused(&self, id: PackageId) -> Result<bool, IndexError> {
        let package = self.universe.package(id);
        let mut names = vec![Box::from(package.name())];
        names.extend(package.provides()?.into_iter().map(|provided| provided.name));
        let refusals = names.iter().filter_map(|name| self.refusals.get(name)).flatten();
        let mut others = refusals.filter(|refusal| self.universe.package(refusal.by).name() != package.name());
        if others.any(|refusal| self.universe.meets(id, &refusal.relation)) {
            return Ok(true);
        }
        let own = self.universe.refusals(id)?;
        Ok(own.iter().any(|(_, relation)| self.selected_meeting(relation).any(|other| self.is_other(other, id))))
    }

    fn is_other(&self, left: PackageId, right: PackageId) -> bool {
        self.universe.package(left).name() != self.universe.package(right).name()
    }

    fn selected_meeting<'a>(&'a self, relation: &'a Relation) -> impl Iterator<Item = PackageId> + use<'a, 'u> {
        let by_name = self.selected.get(&*relation.name).copied();
        let providers = self.universe.providers(&relation.name).map(|(id, _)| id);
        let selected = providers.filter(|id| self.selected.get(self.universe.package(*id).name()) == Some(id));
        by_name.into_iter().chain(selected).filter(|id| self.universe.meets(*id, relation))
    }

    fn is_met(&self, group: &[Relation]) -> bool {
        group.iter().any(|relation| self.selected_meeting(relation).next().is_some())
    }

    /// Chooses what a package needs.
    fn follow(&mut self, id: PackageId, depth: usize) -> Result<bool, IndexError> {
        let mut fields = vec![RelationField::PreDepends, RelationField::Depends];
        if self.recommends {
            fields.push(RelationField::Recommends);
        }
        for field in fields {
            for group in self.universe.groups(id, field)? {
                let met = self.is_met(&group) || self.choose_one(id, field, &group, depth)?;
                if !met && field != RelationField::Recommends {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn choose_one(
        &mut self,
        by: PackageId,
        field: RelationField,
        group: &[Relation],
        depth: usize,
    ) -> Result<bool, IndexError> {
        for solution in self.solutions(group) {
            if self.choose(solution, needed(by, field, group), depth + 1)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The packages that would meet a group, in the order in which to try them.
    fn solutions(&self, group: &[Relation]) -> Vec<PackageId> {
        let meeting = group.iter().flat_map(|relation| self.universe.meeting(relation));
        meeting.filter(|id| !self.rejected.contains(id) && self.is_candidate(*id)).collect()
    }

    /// Like apt, only one version of each name is looked at.
    fn is_candidate(&self, id: PackageId) -> bool {
        let name = self.universe.package(id).name();
        let pinned = self.pinned.get(name).copied();
        pinned.or_else(|| self.universe.candidate(name)) == Some(id)
    }

    fn take_back(&mut self, length: usize) {
        for id in self.chosen.split_off(length) {
            self.selected.remove(self.universe.package(id).name());
            self.reasons.remove(&id);
            for refusals in self.refusals.values_mut() {
                refusals.retain(|refusal| refusal.by != id);
            }
        }
    }
}

fn needed(by: PackageId, field: RelationField, group: &[Relation]) -> Reason {
    Reason::Needed { by, field, relation: written(group) }
}

/// A group as control files write it.
pub(super) fn written(group: &[Relation]) -> String {
    group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ")
}
