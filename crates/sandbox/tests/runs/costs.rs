//! What the supervisor costs: the same calls inside, as root and as a plain user.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::bench::{As, BOTH, Bench, remove_template};

pub(crate) fn main() -> ExitCode {
    let mut costs: BTreeMap<String, Vec<u128>> = BTreeMap::new();
    for who in BOTH {
        let bench = Bench::new(who);
        let (base, upper) = (bench.base(), bench.tree("upper"));
        let text = bench.run(&[&base], &upper).args(&["--", "/probe", "probe", "costs", "20000"]).run();
        for line in text.lines() {
            let (name, cost) = line.split_once(' ').unwrap();
            costs.entry(name.to_owned()).or_default().push(cost.parse().unwrap());
        }
    }
    println!("{:<16}{:>12}{:>16}{:>8}", "nanoseconds", As::Root.rung(), As::PlainUser.rung(), "ratio");
    for (name, costs) in costs {
        println!("{name:<16}{:>12}{:>16}{:>8.1}", costs[0], costs[1], costs[1] as f64 / costs[0] as f64);
    }
    remove_template();
    ExitCode::SUCCESS
}
