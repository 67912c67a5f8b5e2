//! What `lint` is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Lint {
    /// Dockerfiles, families, and directories with either [default: .]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How: for people, for programs, or as code hosts take it
    #[arg(long, value_enum, default_value_t = LintFormat::Text, value_name = "FORMAT")]
    pub format: LintFormat,
    /// Leave out a rule, by number or name; may be given several times
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Look at a rule that is not looked at otherwise, or at `all`; may be given several times
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub enable: Vec<String>,
    /// Fail if there is a warning, as `# check=error=true` does
    #[arg(long)]
    pub error_on_warning: bool,
    /// Print the page of a rule, with examples
    #[arg(long, value_name = "RULE", conflicts_with_all = ["paths", "rules"])]
    pub explain: Option<String>,
    /// List the rules
    #[arg(long, conflicts_with = "paths")]
    pub rules: bool,
    /// Give a variable of the specs a value; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::values::variable)]
    pub set: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LintFormat {
    /// With the lines, as a compiler shows them
    Text,
    /// One object with all findings
    Json,
    /// SARIF 2.1.0
    Sarif,
}
