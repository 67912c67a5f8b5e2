//! The search through all possibilities, by `resolvo`'s solver; used when apt's way of choosing leads nowhere.
//!
//! Every package name is a name for the solver, every version a solvable. A dependency becomes the list of exactly the
//! packages that meet it, so that virtual packages need no names of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;

use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, DenseIndex, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Problem, Requirement, SolvableId, Solver, SolverCache, StringId, UnsolvableOrCancelled,
    VersionSetId, VersionSetUnionId,
};

use super::explain::explain;
use super::greedy::written;
use super::{PackageId, ResolveError, Universe, Wanted};
use crate::package::{IndexError, RelationField};
use crate::relation::Relation;

/// Chooses packages so that everything wanted and installed goes together. What is installed is not in the result.
pub(super) fn solve(
    universe: &Universe,
    installed: &[PackageId],
    wanted: &[Wanted],
) -> Result<Vec<PackageId>, ResolveError> {
    let provider = Provider::new(universe, installed);
    let kept = installed.iter().map(|id| provider.require(vec![*id], provider.label(*id)));
    let asked = wanted.iter().map(|one| provider.require(one.versions.clone(), provider.label(one.preferred())));
    let requirements: Vec<ConditionalRequirement> = kept.chain(asked).map(Into::into).collect();
    let mut solver = Solver::new(provider);
    match solver.solve(Problem::new().requirements(requirements)) {
        Ok(solvables) => {
            let chosen = solvables.into_iter().map(package_id);
            Ok(chosen.filter(|id| !installed.contains(id)).collect())
        }
        Err(UnsolvableOrCancelled::Unsolvable(conflict)) => {
            let graph = conflict.graph(&solver);
            let provider = solver.provider();
            match provider.broken.take() {
                Some(error) => Err(error.into()),
                None => {
                    let mut explanation = explain(provider, &graph);
                    if explanation.is_empty() {
                        explanation.push(conflict.display_user_friendly(&solver).to_string());
                    }
                    Err(ResolveError::Unsatisfiable { explanation })
                }
            }
        }
        // `should_cancel_with_value` is not implemented, so this cannot be; an empty explanation is no panic.
        Err(UnsolvableOrCancelled::Cancelled(_)) => Err(ResolveError::Unsatisfiable { explanation: Vec::new() }),
    }
}

/// Shows a universe to the solver.
pub(super) struct Provider<'u> {
    pub(super) universe: &'u Universe,
    installed: BTreeMap<&'u str, PackageId>,
    sets: RefCell<Vec<Set>>,
    unions: RefCell<Vec<Vec<VersionSetId>>>,
    /// Names that no package has, numbered after the packages.
    missing: RefCell<Vec<String>>,
    /// The first package whose relations could not be read.
    broken: RefCell<Option<IndexError>>,
}

/// Some versions of a name, and the relation that means them.
#[derive(Clone)]
struct Set {
    name: NameId,
    members: Vec<SolvableId>,
    text: String,
}

impl<'u> Provider<'u> {
    fn new(universe: &'u Universe, installed: &[PackageId]) -> Self {
        Self {
            universe,
            installed: installed.iter().map(|id| (universe.package(*id).name(), *id)).collect(),
            sets: RefCell::default(),
            unions: RefCell::default(),
            missing: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    /// A package's name and version, for people.
    pub(super) fn label(&self, id: PackageId) -> String {
        let package = self.universe.package(id);
        format!("{} {}", package.name(), package.version())
    }

    /// Whether this very package is installed already.
    pub(super) fn is_installed(&self, id: PackageId) -> bool {
        self.installed.get(self.universe.package(id).name()) == Some(&id)
    }

    /// The relation that a requirement stands for.
    pub(super) fn requirement_text(&self, requirement: Requirement) -> String {
        match requirement {
            Requirement::Single(set) => self.set_text(set),
            Requirement::Union(union) => self.set_text(self.unions.borrow()[union.to_index()][0]),
        }
    }

    /// The relation that a set of versions stands for.
    pub(super) fn set_text(&self, set: VersionSetId) -> String {
        self.sets.borrow()[set.to_index()].text.clone()
    }

    /// The number of a name is that of its newest package.
    fn name_id(&self, name: &str) -> NameId {
        if let Some(first) = self.universe.versions(name).first() {
            return NameId::from_raw(first.0);
        }
        let mut missing = self.missing.borrow_mut();
        let index = missing.iter().position(|other| other == name).unwrap_or_else(|| {
            missing.push(name.to_owned());
            missing.len() - 1
        });
        let number = self.universe.packages.len() + index;
        NameId::from_raw(u32::try_from(number).expect("a universe has far fewer than 2^32 packages and names"))
    }

    fn name_of(&self, name: NameId) -> String {
        let index = name.into_raw() as usize;
        match self.universe.packages.get(index) {
            Some(package) => package.name().to_owned(),
            None => self.missing.borrow()[index - self.universe.packages.len()].clone(),
        }
    }

    /// Asks for one of some packages, in this order; there may be none.
    fn require(&self, packages: Vec<PackageId>, text: String) -> Requirement {
        let mut runs: Vec<(NameId, Vec<SolvableId>)> = Vec::new();
        for id in packages {
            let name = self.name_id(self.universe.package(id).name());
            match runs.iter_mut().find(|(other, _)| *other == name) {
                Some((_, members)) => members.push(solvable_id(id)),
                None => runs.push((name, vec![solvable_id(id)])),
            }
        }
        if runs.is_empty() {
            runs.push((self.name_id(&text), Vec::new()));
        }
        let sets: Vec<_> = runs.into_iter().map(|(name, members)| self.set(name, members, text.clone())).collect();
        match sets.as_slice() {
            [only] => Requirement::Single(*only),
            _ => {
                let mut unions = self.unions.borrow_mut();
                unions.push(sets);
                Requirement::Union(VersionSetUnionId::from_index(unions.len() - 1))
            }
        }
    }

    fn set(&self, name: NameId, members: Vec<SolvableId>, text: String) -> VersionSetId {
        let mut sets = self.sets.borrow_mut();
        sets.push(Set { name, members, text });
        VersionSetId::from_index(sets.len() - 1)
    }

    fn dependencies(&self, id: PackageId) -> Result<KnownDependencies, IndexError> {
        let mut known = KnownDependencies::default();
        for field in [RelationField::PreDepends, RelationField::Depends] {
            for group in self.universe.groups(id, field)? {
                let mut meeting: Vec<_> = Vec::new();
                for package in group.iter().flat_map(|relation| self.universe.meeting(relation)) {
                    if self.can_choose(package) && !meeting.contains(&package) {
                        meeting.push(package);
                    }
                }
                known.requirements.push(self.require(meeting, written(&group)).into());
            }
        }
        for (field, relation) in self.universe.refusals(id)? {
            known.constrains.extend(self.refuse(id, field, &relation));
        }
        Ok(known)
    }

    /// For each name of which some versions are refused: the set of all others.
    fn refuse(&self, by: PackageId, field: RelationField, relation: &Relation) -> Vec<VersionSetId> {
        let own = self.universe.package(by).name();
        let mut names: Vec<&str> = Vec::new();
        for id in self.universe.meeting(relation) {
            let name = self.universe.package(id).name();
            if name != own && !names.contains(&name) {
                names.push(name);
            }
        }
        let verb = if field == RelationField::Breaks { "breaks" } else { "conflicts with" };
        let allowed = |name: &str| {
            let versions = self.universe.versions(name).iter().copied();
            versions.filter(|id| !self.universe.meets(*id, relation)).map(solvable_id).collect()
        };
        names
            .into_iter()
            .map(|name| self.set(self.name_id(name), allowed(name), format!("{verb} {relation}")))
            .collect()
    }

    fn can_choose(&self, id: PackageId) -> bool {
        let package = self.universe.package(id);
        package.download().is_some() || self.installed.get(package.name()) == Some(&id)
    }
}

fn solvable_id(id: PackageId) -> SolvableId {
    SolvableId::from_raw(id.0)
}

pub(super) fn package_id(id: SolvableId) -> PackageId {
    PackageId(id.into_raw())
}

impl Interner for Provider<'_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl std::fmt::Display + '_ {
        self.label(package_id(solvable))
    }

    fn display_name(&self, name: NameId) -> impl std::fmt::Display + '_ {
        self.name_of(name)
    }

    fn display_version_set(&self, version_set: VersionSetId) -> impl std::fmt::Display + '_ {
        self.set_text(version_set)
    }

    fn display_string(&self, _: StringId) -> impl std::fmt::Display + '_ {
        "its relations cannot be read"
    }

    fn version_set_name(&self, version_set: VersionSetId) -> NameId {
        self.sets.borrow()[version_set.to_index()].name
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.name_id(self.universe.package(package_id(solvable)).name())
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.unions.borrow()[union.to_index()].clone().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no requirement here has a condition")
    }
}

impl DependencyProvider for Provider<'_> {
    async fn filter_candidates(
        &self,
        candidates: &[SolvableId],
        version_set: VersionSetId,
        inverse: bool,
    ) -> Vec<SolvableId> {
        let sets = self.sets.borrow();
        let members = &sets[version_set.to_index()].members;
        candidates.iter().copied().filter(|id| members.contains(id) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = self.name_of(name);
        let versions = self.universe.versions(&name).iter().copied().filter(|id| self.can_choose(*id));
        let locked = self.installed.get(name.as_str()).copied().map(solvable_id);
        Some(Candidates { candidates: versions.map(solvable_id).collect(), locked, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        let version = |id: &SolvableId| self.universe.package(package_id(*id)).version();
        solvables.sort_by(|left, right| version(right).cmp(version(left)));
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        match self.dependencies(package_id(solvable)) {
            Ok(known) => Dependencies::Known(known),
            Err(error) => {
                self.broken.borrow_mut().get_or_insert(error);
                Dependencies::Unknown(StringId::from_index(0))
            }
        }
    }
}
