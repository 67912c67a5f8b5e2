//! What a base asks its children to do: `ONBUILD`, as configurations hold it.

use spec::{Command, CommandLine, Diagnostic, Located, Network, Span};

use crate::error::BuildError;

/// The commands that an image wants run in one of a family, which is built on it at `span`. Images with specs have no
/// context, so what would copy from one is an error.
pub fn triggers(base: &str, on_build: &[String], span: &Span) -> Result<Vec<Command>, BuildError> {
    on_build.iter().map(|line| command(line, base, span)).collect()
}

fn command(line: &str, base: &str, span: &Span) -> Result<Command, BuildError> {
    let (keyword, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line, ""));
    if !keyword.eq_ignore_ascii_case("run") || rest.trim_start().starts_with("--") {
        let title = format!("`{base}` wants `{line}` done in what is built on it");
        let help = "only a Dockerfile can do that: build this image from one, or on another base";
        return Err(BuildError::Spec(Diagnostic::new(span.clone(), title).help(help).into()));
    }
    let line = match serde_json::from_str::<Vec<String>>(rest.trim()) {
        Ok(arguments) if !arguments.is_empty() => CommandLine::Exec(arguments),
        _ => CommandLine::Shell(rest.trim().to_owned()),
    };
    Ok(Command {
        line: Located::new(line, span.clone()),
        user: None,
        workdir: None,
        env: Vec::new(),
        network: Network::None,
        mounts: Vec::new(),
    })
}
