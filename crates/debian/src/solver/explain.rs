//! Sentences for the demands that contradict each other.

use std::collections::{HashMap, VecDeque};

use resolvo::Requirement;
use resolvo::conflict::{ConflictCause, ConflictEdge, ConflictGraph, ConflictNode};

use super::PackageId;
use super::complete::{Provider, package_id};

/// The most sentences: more would not be read.
const MAX_SENTENCES: usize = 8;

/// One sentence for each demand that nothing meets, and for each pair of packages that do not go together.
pub(super) fn explain(provider: &Provider<'_>, graph: &ConflictGraph) -> Vec<String> {
    let story = Story::of(provider, graph);
    let mut sentences: Vec<String> = Vec::new();
    for sentence in story.edges.iter().filter_map(|(from, to, edge)| story.sentence(*from, *to, edge)) {
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    let more = sentences.len().saturating_sub(MAX_SENTENCES);
    if more > 0 {
        sentences.truncate(MAX_SENTENCES);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

/// The graph of a conflict, with the shortest way from a request to each package.
struct Story<'a, 'u> {
    provider: &'a Provider<'u>,
    edges: Vec<(Node, Node, &'a ConflictEdge)>,
    /// Who asked for a package, and in which words.
    parents: HashMap<PackageId, (Node, Requirement)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Node {
    Root,
    Package(PackageId),
    Nothing,
}

impl<'a, 'u> Story<'a, 'u> {
    fn of(provider: &'a Provider<'u>, graph: &'a ConflictGraph) -> Self {
        let node = |index| match graph.graph[index] {
            ConflictNode::Root => Node::Root,
            ConflictNode::Solvable(id) => Node::Package(package_id(id)),
            ConflictNode::UnresolvedDependency | ConflictNode::Excluded(_) => Node::Nothing,
        };
        let edges: Vec<_> = graph
            .graph
            .raw_edges()
            .iter()
            .map(|edge| (node(edge.source()), node(edge.target()), &edge.weight))
            .collect();
        let mut parents = HashMap::new();
        let mut queue = VecDeque::from([Node::Root]);
        while let Some(at) = queue.pop_front() {
            for (from, to, edge) in &edges {
                let (Node::Package(id), ConflictEdge::Requires(requirement)) = (to, edge) else { continue };
                if *from == at && !parents.contains_key(id) {
                    parents.insert(*id, (at, *requirement));
                    queue.push_back(*to);
                }
            }
        }
        Self { provider, edges, parents }
    }

    fn sentence(&self, from: Node, to: Node, edge: &ConflictEdge) -> Option<String> {
        match (from, to, edge) {
            (_, Node::Nothing, ConflictEdge::Requires(requirement)) => Some(self.unmet(from, *requirement)),
            (Node::Package(left), Node::Package(right), ConflictEdge::Conflict(ConflictCause::Constrains(set))) => {
                let refusal = self.provider.set_text(*set);
                Some(format!("{} {refusal}, but {}", self.subject(left), self.story(right)))
            }
            (
                Node::Package(left),
                Node::Package(right),
                ConflictEdge::Conflict(ConflictCause::ForbidMultipleInstances),
            ) => {
                let name = self.provider.universe.package(left).name();
                let (left, right) = (self.story(left), self.story(right));
                Some(format!("{left}, but {right}: only one version of {name} can be installed"))
            }
            (_, Node::Package(other), ConflictEdge::Conflict(ConflictCause::Locked(kept))) => {
                let kept = self.provider.label(package_id(*kept));
                Some(format!("{}, but {kept} is installed already, and is kept", self.story(other)))
            }
            _ => None,
        }
    }

    fn unmet(&self, from: Node, requirement: Requirement) -> String {
        let text = self.provider.requirement_text(requirement);
        match from {
            Node::Package(id) => format!("{} needs {text}, which {}", self.subject(id), self.found(&text)),
            Node::Root | Node::Nothing => format!("{text} {}", self.found(&text)),
        }
    }

    /// What there is instead of what was needed.
    fn found(&self, text: &str) -> String {
        let names =
            text.split('|').filter_map(|relation| relation.split([' ', ':', '(']).find(|part| !part.is_empty()));
        let versions = names.flat_map(|name| self.provider.universe.versions(name));
        let labels: Vec<_> = versions.take(4).map(|id| self.provider.label(*id)).collect();
        if labels.is_empty() {
            return "no source has".to_owned();
        }
        format!("no source has: there is only {}", labels.join(", "))
    }

    /// Why a package is there: `a 1 needs b (>= 2)`, and which package that is if the words do not say it.
    fn story(&self, id: PackageId) -> String {
        let label = self.provider.label(id);
        match self.parents.get(&id) {
            Some((Node::Package(parent), requirement)) => {
                let text = self.provider.requirement_text(*requirement);
                let name = self.provider.universe.package(id).name();
                let is_named = text.split([' ', '|', ':']).any(|word| word == name);
                let which = if is_named { String::new() } else { format!(" (here {label})") };
                format!("{} needs {text}{which}", self.subject(*parent))
            }
            _ if self.provider.is_installed(id) => format!("{label} is installed already"),
            _ => format!("{label} is asked for"),
        }
    }

    /// A package, after those that asked for it: `a 1 needs b, which needs c, which`.
    fn subject(&self, id: PackageId) -> String {
        let mut links = Vec::new();
        let mut at = id;
        while let Some((Node::Package(parent), requirement)) = self.parents.get(&at) {
            links.push(self.provider.requirement_text(*requirement));
            at = *parent;
            if links.len() > 50 {
                break;
            }
        }
        let mut text = self.provider.label(at);
        for link in links.iter().rev() {
            text = format!("{text} needs {link}, which");
        }
        text
    }
}
