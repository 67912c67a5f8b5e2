//! The command line: the only place that reads the environment and the clock, prints, and chooses exit codes.

mod access_log;
mod args;
mod commands;
mod destination;
mod failure;
mod locking;
mod metadata;
mod online;
mod progress;
mod pulling;
mod registries;
mod remote;
mod session;
mod shell;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    sandbox::share_arenas();
    let arguments = Arguments::parse();
    let color = arguments.output.color;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(color);
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = arguments.output;
    match arguments.command {
        Command::Up(command) => commands::up::run(&command, output),
        Command::Build(command) => commands::build::run(&command, output),
        Command::Executor(command) => commands::executor::run(&command, output),
        Command::Lock(command) => commands::lock::run(&command, output),
        Command::Plan(command) => commands::plan::run(&command, output),
        Command::Explain(command) => commands::explain::run(&command),
        Command::Inspect(command) => commands::inspect::run(&command),
        Command::Pull(command) => commands::pull::run(&command, output),
        Command::Diff(command) => commands::diff::run(&command, output),
        Command::Sbom(command) => commands::sbom::run(&command),
        Command::Bundle { command } => commands::bundle::run(&command, output),
        Command::Copy(command) => commands::copy::run(&command, output),
        Command::Tags(command) => commands::remote::tags(&command, output),
        Command::Catalog(command) => commands::remote::catalog(&command, output),
        Command::Referrers(command) => commands::remote::referrers(&command, output),
        Command::Delete(command) => commands::remote::delete(&command, output),
        Command::Push(command) => commands::push::run(&command, output),
        Command::Images(command) => commands::images::run(&command),
        Command::Convert(command) => commands::convert::run(&command, output),
        Command::Lint(command) => commands::lint::run(&command, output),
        Command::Serve(command) => commands::serve::run(&command, output),
        Command::Gc(command) => commands::gc::run(&command, output),
        Command::Verify(command) if command.rebuild => commands::rebuild::run(&command, output),
        Command::Verify(command) => commands::verify::run(&command, output),
        Command::Login(command) => commands::login::login(&command),
        Command::Logout(command) => commands::login::logout(&command),
        Command::Doctor(command) => commands::doctor::run(&command, output),
        Command::Schema { of } => commands::meta::schema(of),
        Command::Completions { shell } => commands::meta::completions(shell),
        Command::Man { directory } => commands::meta::man(directory.as_deref()),
    }
}
