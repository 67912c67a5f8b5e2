//! The sandbox as a builder uses it: in processes of its own, as root and as two plain users.
//!
//! This one program is four things: the tests; the builder that they start, which enters a sandbox (`builder`); the
//! program that runs inside where a shell cannot do what is wanted (`probe`); and, called as `runs costs`, a measurement
//! of what the supervisor costs. It needs root (to be those users) and these of Debian's packages: busybox-static,
//! dash, coreutils, tar, util-linux, dpkg, libcap2-bin and uidmap.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "these are tests, although the compiler sees a program"
)]

mod bench;
mod builder;
mod costs;
mod isolation;
mod lifetime;
mod owners;
mod probe;
mod ranges;
mod trees;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test: its name, which is a sentence, and what shows it.
type Test = (&'static str, fn());

/// Lists functions as tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("builder") => builder::main(&arguments[1..]),
        Some("probe") => probe::main(&arguments[1..]),
        Some("costs") => costs::main(),
        _ => run_tests(&arguments),
    }
}

/// Behaves like the standard harness, as far as cargo and nextest use it.
fn run_tests(arguments: &[String]) -> ExitCode {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let mut tests: Vec<Test> = [lifetime::TESTS, isolation::TESTS, trees::TESTS, owners::TESTS, ranges::TESTS].concat();
    let filters: Vec<&String> =
        arguments.iter().filter(|argument| !argument.starts_with('-') && *argument != "terse").collect();
    let matches =
        |name: &str| filters.iter().any(|filter| if has("--exact") { name == *filter } else { name.contains(*filter) });
    tests.retain(|(name, _)| filters.is_empty() || matches(name));
    if has("--list") {
        if !has("--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if has("--ignored") {
        return ExitCode::SUCCESS;
    }
    bench::require_tools();
    let failed: Vec<&str> = tests.iter().filter(|test| !passes(test)).map(|(name, _)| *name).collect();
    bench::remove_what_is_shared();
    println!("\n{} passed, {} failed", tests.len() - failed.len(), failed.len());
    for name in &failed {
        println!("    {name}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes((name, test): &Test) -> bool {
    let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}
