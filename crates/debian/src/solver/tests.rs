//! Small universes, a few words a package.

use super::*;
use crate::package::parse_index;

/// An index from lines such as `a 1 Depends: b; Provides: c`.
fn index(lines: &str) -> Vec<Package> {
    let stanza = |line: &str| {
        let mut words = line.trim().splitn(3, ' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let fields = words.next().unwrap_or_default().replace("; ", "\n");
        let architecture = if fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
        let digest = "0".repeat(64);
        format!(
            "Package: {name}\nVersion: {version}\n{architecture}Filename: {name}.deb\nSize: 1\nSHA256: {digest}\n{fields}"
        )
    };
    let stanzas: Vec<_> = lines.lines().filter(|line| !line.trim().is_empty()).map(stanza).collect();
    parse_index(&stanzas.iter().map(|stanza| stanza.trim_end()).collect::<Vec<_>>().join("\n\n")).unwrap()
}

fn universe(lines: &str) -> Universe {
    Universe::new("amd64", vec![index(lines)]).unwrap()
}

fn requests(text: &str) -> Vec<PackageRequest> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn labels(universe: &Universe, ids: &[PackageId]) -> String {
    let label = |id: &PackageId| format!("{}={}", universe.package(*id).name(), universe.package(*id).version());
    ids.iter().map(label).collect::<Vec<_>>().join(" ")
}

fn try_resolve(universe: &Universe, install: &str, installed: &[PackageId]) -> Result<Resolution, ResolveError> {
    let install = requests(install);
    universe.resolve(&Request { installed, install: &install, ..Request::default() })
}

fn resolve(lines: &str, install: &str) -> String {
    let universe = universe(lines);
    let resolution = try_resolve(&universe, install, &[]).unwrap_or_else(|error| panic!("{error}"));
    labels(&universe, &resolution.packages)
}

fn failure(lines: &str, install: &str) -> String {
    try_resolve(&universe(lines), install, &[]).unwrap_err().to_string()
}

#[test]
fn dependencies_come_along() {
    assert_eq!(resolve("a 1 Depends: b, c (>= 2)\nb 1\nc 1\nc 2\nc 3", "a"), "a=1 b=1 c=3");
    assert_eq!(resolve("a 1 Pre-Depends: b\nb 1 Depends: a", "a"), "a=1 b=1");
}

#[test]
fn the_first_alternative_that_can_be_met_is_chosen() {
    assert_eq!(resolve("a 1 Depends: x | y\nx 1\ny 1", "a"), "a=1 x=1");
    assert_eq!(resolve("a 1 Depends: x | y\ny 1", "a"), "a=1 y=1");
    assert_eq!(resolve("a 1 Depends: x | y\nx 1 Depends: missing\ny 1", "a"), "a=1 y=1");
    assert_eq!(resolve("a 1 Depends: x (>= 2) | y\nx 1\ny 1", "a"), "a=1 y=1");
}

#[test]
fn what_is_asked_for_meets_alternatives() {
    assert_eq!(resolve("a 1 Depends: x | y\nx 1\ny 1", "a y"), "a=1 y=1");
    assert_eq!(resolve("a 1 Depends: x | y\nb 1 Depends: y\nx 1\ny 1", "b a"), "a=1 b=1 y=1");
}

#[test]
fn real_packages_come_before_providers_and_those_by_priority_and_name() {
    assert_eq!(resolve("a 1 Depends: m\nm 1\np 1 Provides: m", "a"), "a=1 m=1");
    assert_eq!(resolve("a 1 Depends: m\nq 1 Provides: m\np 1 Provides: m", "a"), "a=1 p=1");
    let lines = "a 1 Depends: m\np 1 Provides: m; Priority: optional\nq 1 Provides: m; Priority: standard";
    assert_eq!(resolve(lines, "a"), "a=1 q=1");
    assert_eq!(resolve("a 1 Depends: m (>= 2)\np 1 Provides: m\nq 1 Provides: m (= 2)", "a"), "a=1 q=1");
}

#[test]
fn qualifiers_and_restrictions_count() {
    assert_eq!(resolve("a 1 Depends: b:any, c [arm64]\nb 1 Multi-Arch: allowed", "a"), "a=1 b=1");
    assert!(failure("a 1 Depends: b:any\nb 1", "a").contains("a 1 needs b:any"));
    assert!(failure("a 1 Depends: b:i386\nb 1", "a").contains("a 1 needs b:i386"));
    assert_eq!(resolve("a 1 Architecture: arm64\na 2\na 3 Architecture: all", "a:amd64"), "a=3");
}

#[test]
fn the_first_source_counts_for_the_same_version_and_the_newest_version_wins() {
    let universe =
        Universe::new("amd64", vec![index("a 1 Priority: required"), index("a 1\nb 1"), index("b 2")]).unwrap();
    assert_eq!(universe.versions("a").len(), 1);
    assert_eq!(universe.package(universe.versions("a")[0]).priority(), crate::package::Priority::Required);
    let resolution = try_resolve(&universe, "b", &[]).unwrap();
    assert_eq!(labels(&universe, &resolution.packages), "b=2");
    assert_eq!(universe.find("b", &"1".parse().unwrap()), Some(universe.versions("b")[1]));
}

#[test]
fn pins_choose_versions() {
    let lines = "a 1\na 2\nb 1 Depends: a";
    assert_eq!(resolve(lines, "a=1"), "a=1");
    assert_eq!(resolve(lines, "b a=1"), "a=1 b=1");
    assert_eq!(failure(lines, "a=3"), "no source has `a` in version 3, but in 2, 1");
    assert_eq!(failure(lines, "a=1 a=2"), "`a=1` and `a=2` cannot both be installed");
    assert_eq!(failure(lines, "a:arm64"), "`a:arm64` is not for the architecture amd64");
}

#[test]
fn essential_and_recommended_packages_come_on_request() {
    let universe =
        universe("a 1 Essential: yes; Depends: lib\nlib 1\nb 1 Recommends: c, missing\nc 1\nz 1 Essential: yes");
    let install = requests("b");
    let request = Request { install: &install, essential: true, recommends: true, ..Request::default() };
    let resolution = universe.resolve(&request).unwrap();
    assert_eq!(labels(&universe, &resolution.packages), "a=1 b=1 c=1 lib=1 z=1");
    let reason = |name: &str| resolution.reasons[&universe.versions(name)[0]].clone();
    assert_eq!(reason("a"), Reason::Essential);
    assert_eq!(reason("b"), Reason::Requested("b".parse().unwrap()));
    let by = universe.versions("b")[0];
    assert_eq!(reason("c"), Reason::Needed { by, field: RelationField::Recommends, relation: "c".to_owned() });
    assert_eq!(labels(&universe, &resolution.chain(universe.versions("lib")[0])), "lib=1 a=1");
}

#[test]
fn what_is_installed_is_kept_and_meets_dependencies() {
    let universe = universe(
        "a 1 Depends: b | c\nb 1\nc 1\nc 2\nd 1 Depends: c (>= 2)\ne 1 Conflicts: c\nv 1 Depends: m\np 1 Provides: m",
    );
    let installed = [universe.versions("c")[1]];
    let resolve = |install: &str| try_resolve(&universe, install, &installed);
    assert_eq!(labels(&universe, &resolve("a").unwrap().packages), "a=1");
    assert_eq!(labels(&universe, &resolve("c").unwrap().packages), "");
    assert_eq!(
        resolve("c=2").unwrap_err().to_string(),
        "`c=2` cannot be installed: 1 is installed already, and is kept"
    );
    let error = resolve("d").unwrap_err().to_string();
    assert!(error.contains("d 1 needs c (>= 2), but c 1 is installed already, and is kept"), "{error}");
    let error = resolve("e").unwrap_err().to_string();
    assert!(error.contains("e 1 conflicts with c, but c 1 is installed already"), "{error}");
}

#[test]
fn conflicts_are_avoided_where_they_can_be() {
    assert_eq!(resolve("a 1 Depends: x | y\nx 1 Conflicts: b\ny 1\nb 1", "b a"), "a=1 b=1 y=1");
    assert_eq!(resolve("a 1 Depends: x | y\nx 1\ny 1\nb 1 Breaks: x (<< 2)", "b a"), "a=1 b=1 y=1");
    assert_eq!(resolve("p 1 Provides: m; Conflicts: m\na 1 Depends: m", "a"), "a=1 p=1");
    assert_eq!(resolve("a 1 Conflicts: b (<< 2)\nb 2", "a b"), "a=1 b=2");
}

#[test]
fn the_search_finds_what_apts_way_does_not() {
    // The first alternative is chosen before the conflict is seen; only a search comes back to it.
    assert_eq!(resolve("a 1 Depends: x | y\nx 1\ny 1\nb 1 Conflicts: x", "a b"), "a=1 b=1 y=1");
    let lines = "a 1 Depends: x | y, b\nx 1\ny 1\nb 1 Depends: c\nc 1 Conflicts: x";
    assert_eq!(resolve(lines, "a"), "a=1 b=1 c=1 y=1");
    // The newest version does not go with another; an older one does.
    assert_eq!(resolve("a 1 Depends: c (<< 2)\nc 1\nc 2", "a"), "a=1 c=1");
    let universe = universe("a 1 Depends: c (<< 2)\nc 1\nc 2");
    let resolution = try_resolve(&universe, "a", &[]).unwrap();
    let reason = &resolution.reasons[&universe.versions("c")[1]];
    assert_eq!(
        *reason,
        Reason::Needed {
            by: universe.versions("a")[0],
            field: RelationField::Depends,
            relation: "c (<< 2)".to_owned()
        }
    );
}

#[test]
fn an_unmet_dependency_is_explained_by_its_chain() {
    let lines = "a 1 Depends: b (>= 1)\nb 1 Depends: c | d\nc 1 Depends: gone (>= 2)\ngone 1";
    assert_eq!(
        failure(lines, "a"),
        "the packages cannot be installed together: a 1 needs b (>= 1), which needs c | d, which needs gone (>= 2), \
         which no source has: there is only gone 1"
    );
}

#[test]
fn a_conflict_is_explained_by_both_chains() {
    assert_eq!(
        failure("a 1 Depends: x\nx 1 Conflicts: y\nb 1 Depends: m\ny 1 Provides: m", "a b"),
        "the packages cannot be installed together: a 1 needs x, which conflicts with y, but b 1 needs m (here y 1)"
    );
    let error = failure("a 1 Depends: c (= 1)\nb 1 Depends: c (= 2)\nc 1\nc 2", "a b");
    assert!(error.contains("only one version of c can be installed"), "{error}");
    assert!(error.contains("a 1 needs c (= 1)") && error.contains("b 1 needs c (= 2)"), "{error}");
}

#[test]
fn unknown_names_are_answered_with_similar_ones() {
    let lines = "redis-server 1\nredis-tools 1\nnginx 1";
    assert_eq!(failure(lines, "redis-sever"), "no source has a package `redis-sever`, but `redis-server`");
    assert_eq!(failure(lines, "xyz"), "no source has a package `xyz`");
}

#[test]
fn a_virtual_package_stands_for_its_only_provider() {
    assert_eq!(resolve("p 1 Provides: m", "m"), "p=1");
    assert_eq!(
        failure("p 1 Provides: m\nq 1 Provides: m", "m"),
        "`m` is a virtual package provided by p, q: ask for one of them"
    );
    let universe = universe("p 1 Provides: m\nq 1 Provides: m");
    let resolution = try_resolve(&universe, "m", universe.versions("q")).unwrap();
    assert!(resolution.packages.is_empty());
}

#[test]
fn a_broken_relation_of_a_needed_package_is_an_error() {
    assert_eq!(failure("a 1 Depends: b\nb 1 Depends: c d", "a"), "the field `Depends` of b 1");
    assert_eq!(resolve("a 1\nb 1 Depends: c d", "a"), "a=1");
}

#[test]
fn a_very_long_chain_is_resolved() {
    let lines: Vec<String> = (0..3000).map(|number| format!("p{number} 1 Depends: p{}", number + 1)).collect();
    let lines = format!("{}\np3000 1", lines.join("\n"));
    assert_eq!(resolve(&lines, "p0").split(' ').count(), 3001);
}

#[test]
fn requests_are_read_and_printed() {
    for text in ["a", "a=1:2-3", "libc6:amd64", "libc6:amd64=2.36-9", "g++"] {
        assert_eq!(text.parse::<PackageRequest>().unwrap().to_string(), text);
    }
    let cases = [
        ("", "`` does not name a package: expected `NAME`, `NAME=VERSION` or `NAME:ARCHITECTURE`"),
        ("a b", "`a b` does not name a package: expected `NAME`, `NAME=VERSION` or `NAME:ARCHITECTURE`"),
        ("a:", "`a:` does not name a package: expected an architecture after the colon"),
        ("a=1_2", "`a=1_2` does not name a package"),
        ("a=", "`a=` does not name a package"),
    ];
    for (text, message) in cases {
        assert_eq!(text.parse::<PackageRequest>().unwrap_err().to_string(), message);
    }
}

proptest::proptest! {
    /// Whatever the relations are, an answer is a set in which every dependency is met and no conflict is.
    #[test]
    fn an_answer_is_always_consistent(
        edges in proptest::collection::vec((0_usize..8, 0_usize..8, 0_usize..8, proptest::bool::ANY), 0..16),
        wanted in 0_usize..8,
    ) {
        let mut depends = vec![Vec::new(); 8];
        let mut conflicts = vec![Vec::new(); 8];
        for (from, to, or, conflict) in edges {
            if conflict && from != to {
                conflicts[from].push(format!("p{to}"));
            } else {
                depends[from].push(format!("p{to} | p{or}"));
            }
        }
        let field = |name: &str, list: &[String]| {
            if list.is_empty() { String::new() } else { format!("{name}: {}; ", list.join(", ")) }
        };
        let lines: Vec<_> = (0..8)
            .map(|number| {
                let (depends, conflicts) = (field("Depends", &depends[number]), field("Conflicts", &conflicts[number]));
                format!("p{number} 1 {depends}{conflicts}Section: x")
            })
            .collect();
        let universe = universe(&lines.join("\n"));
        if let Ok(resolution) = try_resolve(&universe, &format!("p{wanted}"), &[]) {
            for id in &resolution.packages {
                for group in universe.groups(*id, RelationField::Depends).unwrap() {
                    let met = |relation| resolution.packages.iter().any(|other| universe.meets(*other, relation));
                    proptest::prop_assert!(group.iter().any(met));
                }
                for (_, relation) in universe.refusals(*id).unwrap() {
                    proptest::prop_assert!(!resolution.packages.iter().any(|other| universe.meets(*other, &relation)));
                }
                proptest::prop_assert!(resolution.reasons.contains_key(id));
            }
        }
    }
}
