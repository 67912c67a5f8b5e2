//! What the supervisor costs: the same calls inside, on each rung.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::bench::{Bench, WITH_NAMESPACES, remove_what_is_shared};

pub(crate) fn main() -> ExitCode {
    let mut costs: BTreeMap<String, Vec<u128>> = BTreeMap::new();
    for who in WITH_NAMESPACES {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let text = bench.run(&[&base], &upper).args(&["--", "/probe", "probe", "costs", "20000"]).run();
        for line in text.lines() {
            let (name, cost) = line.split_once(' ').unwrap();
            costs.entry(name.to_owned()).or_default().push(cost.parse().unwrap());
        }
    }
    let [root, ranged, plain] = WITH_NAMESPACES.map(|who| who.rung());
    println!("{:<16}{root:>12}{ranged:>16}{plain:>16}", "nanoseconds");
    for (name, costs) in costs {
        println!("{name:<16}{:>12}{:>16}{:>16}", costs[0], costs[1], costs[2]);
    }
    remove_what_is_shared();
    ExitCode::SUCCESS
}
