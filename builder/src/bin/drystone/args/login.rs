//! What can be said to `drystone login` and `drystone logout`.

use clap::Args;
use registry_client::LoginScope;

use super::registry::RegistryArgs;

#[derive(Debug, Args)]
pub struct Login {
    /// The registry, or a path of repositories in it
    #[arg(value_name = "REGISTRY[/PATH]")]
    pub scope: LoginScope,
    /// The user's name [default: it is asked for]
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub struct Logout {
    /// The registry, or a path of repositories in it
    #[arg(value_name = "REGISTRY[/PATH]")]
    pub scope: LoginScope,
    #[command(flatten)]
    pub registry: RegistryArgs,
}
