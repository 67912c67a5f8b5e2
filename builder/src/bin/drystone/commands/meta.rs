//! Commands about the program itself: schemas for editors, completions for shells, manual pages.

use std::io;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Arguments, SchemaOf};
use crate::failure::Failure;
use crate::session::print;

/// Prints the JSON Schema of a file of specs.
pub fn schema(of: SchemaOf) -> Result<(), Failure> {
    let schema = match of {
        SchemaOf::Family => spec::schema::family(),
        SchemaOf::Image => spec::schema::image(),
    };
    print(&(serde_json::to_string_pretty(&schema).map_err(Failure::of)? + "\n"))
}

/// Prints a shell's completions.
pub fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "drystone", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Prints the manual page, or writes one for each command into a directory.
pub fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = directory else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut text).map_err(Failure::of)?;
        return print(&String::from_utf8_lossy(&text));
    };
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        clap_mangen::generate_to(Arguments::command(), directory)
    };
    write().map_err(|error| Failure::new(format!("cannot write manual pages to `{}`: {error}", directory.display())))
}
