//! The order in which packages are unpacked and their scripts run: what is needed comes before what needs it.

use std::collections::{BTreeSet, HashMap};

use crate::package::{IndexError, RelationField};
use crate::solver::{PackageId, Universe};

/// Sorts packages so that each comes after those it depends on, the essential ones as early as that allows. Packages
/// that need each other are sorted by their `Pre-Depends` alone and then by name, so that the order is always the same.
pub fn unpack_order(universe: &Universe, packages: &[PackageId]) -> Result<Vec<PackageId>, IndexError> {
    let mut nodes = packages.to_vec();
    nodes.sort_by_key(|id| (!universe.package(*id).essential(), universe.package(*id).name()));
    nodes.dedup();
    let all = edges(universe, &nodes, &[RelationField::PreDepends, RelationField::Depends])?;
    let strict = edges(universe, &nodes, &[RelationField::PreDepends])?;
    let mut order = Vec::with_capacity(nodes.len());
    for mut component in components(&all) {
        component.sort_unstable();
        order.extend(within(&component, &strict).into_iter().map(|node| nodes[node]));
    }
    Ok(order)
}

/// For each package of an order, by their places in it, those that have to be configured before it is unpacked: what it
/// pre-depends on, and what that needs, without those that an earlier package demanded already. What is needed in a
/// circle through the package itself, or comes after it, cannot be configured before it: then nothing is demanded.
pub fn configured_before(universe: &Universe, order: &[PackageId]) -> Result<Vec<Vec<usize>>, IndexError> {
    let all = edges(universe, order, &[RelationField::PreDepends, RelationField::Depends])?;
    let strict = edges(universe, order, &[RelationField::PreDepends])?;
    let mut configured: BTreeSet<usize> = BTreeSet::new();
    let demand = |(place, demanded): (usize, &Vec<usize>)| {
        let mut needed = BTreeSet::new();
        let mut waiting = demanded.clone();
        while let Some(next) = waiting.pop() {
            if !configured.contains(&next) && needed.insert(next) {
                waiting.extend(&all[next]);
            }
        }
        if needed.last().is_some_and(|last| *last >= place) {
            return Vec::new();
        }
        configured.extend(&needed);
        needed.into_iter().collect()
    };
    Ok(strict.iter().enumerate().map(demand).collect())
}

/// For each node, the nodes it needs, in the order of its fields.
fn edges(universe: &Universe, nodes: &[PackageId], fields: &[RelationField]) -> Result<Vec<Vec<usize>>, IndexError> {
    let places: HashMap<PackageId, usize> = nodes.iter().enumerate().map(|(index, id)| (*id, index)).collect();
    let mut edges = vec![Vec::new(); nodes.len()];
    for (index, id) in nodes.iter().enumerate() {
        for field in fields {
            for group in universe.package(*id).relations(*field)? {
                let meeting = group.iter().flat_map(|relation| universe.meeting(relation));
                let present = meeting.into_iter().find_map(|id| places.get(&id).copied());
                edges[index].extend(present.filter(|other| *other != index));
            }
        }
    }
    Ok(edges)
}

/// The members of a cycle, sorted by those edges that stay inside it.
fn within(component: &[usize], edges: &[Vec<usize>]) -> Vec<usize> {
    if let [only] = component {
        return vec![*only];
    }
    let places: HashMap<usize, usize> = component.iter().enumerate().map(|(place, node)| (*node, place)).collect();
    let inner: Vec<Vec<usize>> = component
        .iter()
        .map(|node| edges[*node].iter().filter_map(|other| places.get(other).copied()).collect())
        .collect();
    let sorted = components(&inner).into_iter().flat_map(|mut members| {
        members.sort_unstable();
        members
    });
    sorted.map(|place| component[place]).collect()
}

/// The strongly connected components, those that are needed first (Tarjan's algorithm, without recursion: an index
/// could hold a chain as long as it likes).
fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search {
        edges,
        numbers: vec![None; edges.len()],
        lowest: vec![0; edges.len()],
        on_stack: vec![false; edges.len()],
        stack: Vec::new(),
        next: 0,
        found: Vec::new(),
    };
    for node in 0..edges.len() {
        if search.numbers[node].is_none() {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'a> {
    edges: &'a [Vec<usize>],
    numbers: Vec<Option<usize>>,
    lowest: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, start: usize) {
        self.enter(start);
        let mut path = vec![(start, 0)];
        while let Some((node, edge)) = path.last_mut() {
            let node = *node;
            if let Some(&other) = self.edges[node].get(*edge) {
                *edge += 1;
                match self.numbers[other] {
                    None => {
                        self.enter(other);
                        path.push((other, 0));
                    }
                    Some(number) if self.on_stack[other] => self.lowest[node] = self.lowest[node].min(number),
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.lowest[*parent] = self.lowest[*parent].min(self.lowest[node]);
            }
            if Some(self.lowest[node]) == self.numbers[node] {
                self.leave(node);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.numbers[node] = Some(self.next);
        self.lowest[node] = self.next;
        self.next += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn leave(&mut self, root: usize) {
        let start = self.stack.iter().rposition(|node| *node == root).expect("a component's root is on the stack");
        let component = self.stack.split_off(start);
        for node in &component {
            self.on_stack[*node] = false;
        }
        self.found.push(component);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::parse_index;

    fn universe(stanzas: &[(&str, &str)]) -> Universe {
        let text: String = stanzas
            .iter()
            .map(|(name, fields)| {
                let fields = fields.replace("; ", "\n");
                let digest = "0".repeat(64);
                format!("Package: {name}\nVersion: 1\nArchitecture: all\nFilename: {name}.deb\nSize: 1\nSHA256: {digest}\n{fields}\n\n")
            })
            .collect();
        let text = text.replace("\n\n\n", "\n\n");
        Universe::new("amd64", vec![parse_index(&text).unwrap()]).unwrap()
    }

    fn order(stanzas: &[(&str, &str)]) -> Vec<String> {
        let universe = universe(stanzas);
        let mut ids: Vec<_> = universe.packages().map(|(id, _)| id).collect();
        let first = unpack_order(&universe, &ids).unwrap();
        ids.reverse();
        assert_eq!(unpack_order(&universe, &ids).unwrap(), first, "the order of the input must not matter");
        first.into_iter().map(|id| universe.package(id).name().to_owned()).collect()
    }

    #[test]
    fn what_is_needed_comes_first() {
        assert_eq!(order(&[("a", "Depends: b"), ("b", "Pre-Depends: c"), ("c", "")]), ["c", "b", "a"]);
        assert_eq!(order(&[("a", "Depends: x | b"), ("b", "")]), ["b", "a"]);
        assert_eq!(order(&[("a", "Depends: virtual"), ("b", "Provides: virtual")]), ["b", "a"]);
    }

    #[test]
    fn essential_packages_come_first_but_after_what_they_need() {
        let stanzas = [("aaa", ""), ("lib", ""), ("tool", "Essential: yes; Depends: lib"), ("shell", "Essential: yes")];
        assert_eq!(order(&stanzas), ["shell", "lib", "tool", "aaa"]);
    }

    #[test]
    fn cycles_are_broken_at_depends_and_then_by_name() {
        assert_eq!(order(&[("b", "Depends: a"), ("a", "Depends: b")]), ["a", "b"]);
        assert_eq!(order(&[("a", "Pre-Depends: b"), ("b", "Depends: a")]), ["b", "a"]);
        assert_eq!(order(&[("z", "Depends: a"), ("b", "Depends: a"), ("a", "Depends: b")]), ["a", "b", "z"]);
    }

    #[test]
    fn what_a_package_pre_depends_on_is_configured_before_it_with_what_that_needs() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("lib", ""), ("tool", "Depends: lib"), ("other", "Depends: tool")], ""),
            (&[("lib", ""), ("tool", "Depends: lib"), ("other", "Pre-Depends: tool")], "other: lib tool"),
            (&[("lib", ""), ("x", "Pre-Depends: lib"), ("y", "Pre-Depends: lib, x")], "x: lib; y: x"),
            // Neither can be configured before the other is unpacked.
            (&[("a", "Pre-Depends: b"), ("b", "Depends: a")], ""),
            (&[("b", "Provides: virtual"), ("c", "Pre-Depends: virtual | nothing")], "c: b"),
        ];
        for (stanzas, expected) in cases {
            let universe = universe(stanzas);
            let ids: Vec<_> = universe.packages().map(|(id, _)| id).collect();
            let order = unpack_order(&universe, &ids).unwrap();
            let name = |place: usize| universe.package(order[place]).name();
            let demands = configured_before(&universe, &order).unwrap();
            let lines =
                demands.iter().enumerate().filter(|(_, demanded)| !demanded.is_empty()).map(|(place, demanded)| {
                    let names: Vec<_> = demanded.iter().map(|place| name(*place)).collect();
                    format!("{}: {}", name(place), names.join(" "))
                });
            assert_eq!(lines.collect::<Vec<_>>().join("; "), expected);
        }
    }

    #[test]
    fn a_very_long_chain_needs_no_stack() {
        let names: Vec<String> = (0..20_000).map(|number| format!("p{number:05}")).collect();
        let fields: Vec<String> = names.iter().skip(1).map(|next| format!("Depends: {next}")).collect();
        let stanzas: Vec<_> = names
            .iter()
            .zip(fields.iter().map(String::as_str).chain([""]))
            .map(|(name, field)| (&**name, field))
            .collect();
        assert_eq!(order(&stanzas)[0], "p19999");
    }
}
