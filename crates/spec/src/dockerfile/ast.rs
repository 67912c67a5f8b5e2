//! A Dockerfile as its author wrote it.
//!
//! Variables are not in place yet: a text that may hold some is kept as written, quotes included, and
//! [`Scope`](super::Scope) reads it. What may hold none (a command, the name of a stage) is final.

use std::sync::Arc;
use std::time::Duration;

use super::directive::Directives;
use super::heredoc::Heredoc;
use super::mount::MountFlag;
use crate::source::{Located, SourceFile, Span};

/// A whole file. It has at least one stage.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text and name.
    pub file: Arc<SourceFile>,
    /// The comments at its head that mean something.
    pub directives: Directives,
    /// The arguments that are declared before the first stage.
    pub arguments: Vec<Argument>,
    /// At least one; no two have the same name.
    pub stages: Vec<Stage>,
    /// Lines without text inside of an instruction: deprecated, and read as if they were not there.
    pub empty_continuations: Vec<Span>,
}

impl Dockerfile {
    /// All arguments that are declared anywhere.
    pub fn declared_arguments(&self) -> impl Iterator<Item = &Argument> {
        let in_stages =
            self.stages.iter().flat_map(|stage| &stage.instructions).flat_map(|instruction| match &instruction.kind {
                Kind::Arg(arguments) => arguments.as_slice(),
                _ => &[],
            });
        self.arguments.iter().chain(in_stages)
    }

    /// The stage that `reference` means, by its name or its number, as in `COPY --from` and `--target`.
    pub fn stage(&self, reference: &str) -> Option<usize> {
        let name = reference.to_ascii_lowercase();
        let by_name = self.stages.iter().position(|stage| stage.name.as_ref().is_some_and(|own| own.value == name));
        by_name.or_else(|| reference.parse::<usize>().ok().filter(|number| *number < self.stages.len()))
    }
}

/// What stands between one `FROM` and the next.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `FROM`, in the letters that were used.
    pub keyword: Located<String>,
    /// What it is built on; may hold variables of the global scope.
    pub from: Located<String>,
    /// `--platform`; may hold variables of the global scope.
    pub platform: Option<Located<String>>,
    /// `AS`, in the letters that were used.
    pub as_keyword: Option<Located<String>>,
    /// Its name in lower case; `span.text()` has the letters that were used.
    pub name: Option<Located<String>>,
    /// Everything after the `FROM`, in order.
    pub instructions: Vec<Instruction>,
    /// The `FROM` line.
    pub span: Span,
    /// The comments right above it, without their signs.
    pub comments: Vec<Located<String>>,
}

/// One instruction of a stage.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Its name, in the letters that were used.
    pub keyword: Located<String>,
    /// What it says.
    pub kind: Kind,
    /// As one line: continued lines are joined, comments in between are gone; heredocs are not part of it.
    pub text: String,
    /// From its name to its end, heredocs included.
    pub span: Span,
    /// The comments right above it, without their signs.
    pub comments: Vec<Located<String>>,
}

impl Instruction {
    /// The texts whose variables are put in place, in the order in which they stand. Those of mounts and of heredocs are
    /// not among them: they have rules of their own.
    pub fn words(&self) -> Vec<&Located<String>> {
        match &self.kind {
            Kind::Add(add) => add.transfer.words().chain(&add.checksum).collect(),
            Kind::Copy(copy) => copy.transfer.words().collect(),
            Kind::Arg(arguments) => arguments.iter().filter_map(|argument| argument.default.as_ref()).collect(),
            Kind::Env(pairs) | Kind::Label(pairs) => {
                pairs.list.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
            }
            Kind::Expose(words) | Kind::Volume(words) => words.iter().collect(),
            Kind::StopSignal(word) | Kind::User(word) | Kind::Workdir(word) => vec![word],
            Kind::Cmd(_)
            | Kind::Entrypoint(_)
            | Kind::Healthcheck(_)
            | Kind::Maintainer(_)
            | Kind::Onbuild(_)
            | Kind::Run(_)
            | Kind::Shell(_) => Vec::new(),
        }
    }
}

impl Transfer {
    /// The sources that are paths.
    pub fn paths(&self) -> impl Iterator<Item = &Located<String>> {
        self.sources.iter().filter_map(|source| match source {
            Source::Path(path) => Some(path),
            Source::Text(_) => None,
        })
    }

    fn words(&self) -> impl Iterator<Item = &Located<String>> {
        self.paths().chain([&self.target]).chain(&self.chown).chain(&self.chmod).chain(&self.exclude)
    }
}

/// What an instruction says.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Files from the context, an address, or a git repository; archives of the context are unpacked.
    Add(Add),
    /// Arguments of the build.
    Arg(Vec<Argument>),
    /// The default command, or the arguments of the entry point.
    Cmd(CommandForm),
    /// Files from the context, a stage or an image.
    Copy(Copy),
    /// What is started. An empty list, or nothing at all, takes away what was inherited.
    Entrypoint(CommandForm),
    /// Environment variables.
    Env(Pairs),
    /// Ports, each a word that may hold variables and may become several.
    Expose(Vec<Located<String>>),
    /// How to see that a container is well.
    Healthcheck(Healthcheck),
    /// Labels.
    Label(Pairs),
    /// The author.
    Maintainer(Located<String>),
    /// An instruction for the images that are built on this one.
    Onbuild(Onbuild),
    /// A command of the build.
    Run(Box<Run>),
    /// What commands in shell form are given to.
    Shell(Vec<String>),
    /// The signal that asks a container to end.
    StopSignal(Located<String>),
    /// As whom commands run.
    User(Located<String>),
    /// Directories outside of the image.
    Volume(Vec<Located<String>>),
    /// Where commands run.
    Workdir(Located<String>),
}

/// An argument, and its default.
#[derive(Clone, Debug)]
pub struct Argument {
    /// Its name.
    pub name: Located<String>,
    /// Its default, as written; may hold variables.
    pub default: Option<Located<String>>,
    /// The comments right above its `ARG`, without their signs; none if that declares several.
    pub comments: Vec<Located<String>>,
}

/// Names and values, as `ENV` and `LABEL` have them.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// At least one.
    pub list: Vec<Pair>,
    /// Whether it is the old form: one name, a blank, and the rest of the line as the value.
    pub is_legacy: bool,
}

/// A name and a value, as written; both may hold variables.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The name.
    pub key: Located<String>,
    /// The value.
    pub value: Located<String>,
}

/// A command in one of its two forms. Variables in it belong to whoever runs it.
#[derive(Clone, Debug)]
pub enum CommandForm {
    /// A text for the shell.
    Shell(Located<String>),
    /// A program and its arguments, written as a JSON list; may be empty.
    Exec(Located<Vec<String>>),
}

impl CommandForm {
    /// Where it is written.
    pub fn span(&self) -> &Span {
        match self {
            Self::Shell(text) => &text.span,
            Self::Exec(arguments) => &arguments.span,
        }
    }

    /// The argument vector, with the words of `SHELL` before a text.
    pub fn arguments(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Shell(text) => shell.iter().cloned().chain([text.value.clone()]).collect(),
            Self::Exec(arguments) => arguments.value.clone(),
        }
    }
}

/// A command of the build.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command.
    pub form: CommandForm,
    /// The texts below it, in the order of their marks.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Option<Located<RunNetwork>>,
    /// `--security`.
    pub security: Option<Located<RunSecurity>>,
    /// `--device`, in order, as written.
    pub devices: Vec<Located<String>>,
}

/// What a command with heredocs comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A text for the shell; heredocs that the shell reads are part of it.
    Shell(String),
    /// A text that names its interpreter in its first line: to be run as a program.
    File {
        /// The heredoc's name.
        name: String,
        /// Its text.
        text: String,
    },
}

impl Run {
    /// The command with its heredocs: a lone heredoc is itself the script; several, or one beside a command, are for
    /// the shell to read.
    pub fn script(&self) -> Script {
        let line = match &self.form {
            CommandForm::Exec(arguments) => return Script::Exec(arguments.value.clone()),
            CommandForm::Shell(line) => line,
        };
        match self.heredocs.as_slice() {
            [] => Script::Shell(line.value.clone()),
            [first, ..] if Heredoc::is_mark(&line.value) => {
                let text = first.text();
                match text.starts_with("#!") {
                    true => Script::File { name: first.name.clone(), text },
                    false => Script::Shell(text),
                }
            }
            heredocs => Script::Shell(heredocs.iter().fold(line.value.clone(), |whole, heredoc| {
                format!("{whole}\n{}{}", heredoc.content.value, heredoc.name)
            })),
        }
    }
}

/// The network of a command of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build as a whole has.
    Default,
    /// None at all.
    None,
    /// The machine's.
    Host,
}

/// The rights of a command of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSecurity {
    /// Those of every command.
    Sandbox,
    /// All of them.
    Insecure,
}

/// What `ADD` and `COPY` have in common. Every text may hold variables.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<Source>,
    /// Where to: a directory if it ends in a slash.
    pub target: Located<String>,
    /// `--chown`.
    pub chown: Option<Located<String>>,
    /// `--chmod`.
    pub chmod: Option<Located<String>>,
    /// `--link`: the files are a layer that does not depend on what is below it.
    pub link: bool,
    /// `--exclude`, in order: patterns as in `.dockerignore`.
    pub exclude: Vec<Located<String>>,
}

/// What is added or copied.
#[derive(Clone, Debug)]
pub enum Source {
    /// A path or pattern, or for `ADD` an address.
    Path(Located<String>),
    /// A text that stands in the Dockerfile; its name is the file's.
    Text(Heredoc),
}

/// `ADD`.
#[derive(Clone, Debug)]
pub struct Add {
    /// What goes where.
    pub transfer: Transfer,
    /// `--checksum`: what a file from an address must hash to, or the commit of a git repository.
    pub checksum: Option<Located<String>>,
    /// `--keep-git-dir`.
    pub keep_git_directory: bool,
    /// `--unpack`: whether an archive is unpacked; `None` for those of the context only.
    pub unpack: Option<bool>,
}

/// `COPY`.
#[derive(Clone, Debug)]
pub struct Copy {
    /// What goes where.
    pub transfer: Transfer,
    /// `--from`: a stage by name or number, or an image. `None` for the context.
    pub from: Option<Located<String>>,
    /// `--parents`: the directories above a source are kept.
    pub parents: bool,
}

/// How to see that a container is well.
#[derive(Clone, Debug)]
pub enum Healthcheck {
    /// Not at all.
    None,
    /// By a command that succeeds; times and counts are `None` where nothing is said, or zero.
    Command {
        /// The command.
        command: CommandForm,
        /// The time between checks.
        interval: Option<Duration>,
        /// The longest a check may take.
        timeout: Option<Duration>,
        /// The time after the start in which failures do not count.
        start_period: Option<Duration>,
        /// The time between checks in that period.
        start_interval: Option<Duration>,
        /// How many failures in a row are too many.
        retries: Option<u32>,
    },
}

/// An instruction for the images that are built on this one.
#[derive(Clone, Debug)]
pub struct Onbuild {
    /// The instruction, checked like any other.
    pub instruction: Box<Instruction>,
    /// Its text as the image's configuration keeps it; [`parse_trigger`](super::parse_trigger) reads it again.
    pub text: String,
}
