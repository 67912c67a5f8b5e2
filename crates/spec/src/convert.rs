//! From a Dockerfile to the `image.yaml` that builds the same image, where there is one.
//!
//! Nothing is read but the text: what an instruction means is taken from it alone, with the defaults of its arguments.
//! Whatever cannot be said in a spec, or only otherwise, is told as a [`Remark`]; what is told as lost makes another
//! image.

mod apt;
mod document;
mod files;
mod run;

use std::collections::BTreeMap;
use std::fmt;

use document::{Entries, Node};

use crate::diagnostic::{Diagnostics, quoted};
use crate::dockerfile::{
    Arguments, CommandForm, Dockerfile, Healthcheck, Instruction, Kind, Onbuild, PLATFORM_ARGUMENTS, Pairs, Scope,
};
use crate::source::{Located, Span};
use crate::value::{EnvName, ImagePath, LabelKey, Owner, Port, StopSignal};

/// What a container without a variable `PATH` gets.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a Dockerfile is converted.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Values for its arguments, instead of their defaults.
    pub arguments: BTreeMap<String, String>,
    /// The stage that is wanted, by name or number; `None` for the last.
    pub target: Option<String>,
    /// The names of the images in its family.
    pub siblings: Vec<String>,
}

/// A spec, and what is to be known about it.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The text of the `image.yaml`.
    pub text: String,
    /// In the order of the Dockerfile.
    pub remarks: Vec<Remark>,
}

impl Converted {
    /// Whether the image is another one than the Dockerfile's.
    pub fn loses(&self) -> bool {
        self.remarks.iter().any(|remark| remark.kind == RemarkKind::Lost)
    }
}

/// What became of a line.
#[derive(Clone, Debug)]
pub struct Remark {
    /// Which sort of thing is told.
    pub kind: RemarkKind,
    /// The line.
    pub span: Span,
    /// Why.
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            RemarkKind::StaysRun => "stays a command",
            RemarkKind::Differs => "note",
            RemarkKind::Lost => "not converted",
        };
        write!(formatter, "{}: {kind}: {}", self.span, self.text)
    }
}

/// Sorts of remarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemarkKind {
    /// A command could not be said in another way.
    StaysRun,
    /// Something is not quite the same, or rests on a guess.
    Differs,
    /// It is not in the spec.
    Lost,
}

/// Writes the spec of one stage.
pub fn convert(dockerfile: &Dockerfile, options: &ConvertOptions) -> Result<Converted, Diagnostics> {
    let platform = PLATFORM_ARGUMENTS.iter().map(|name| ((*name).to_owned(), usual(name)));
    let arguments = Arguments::read(dockerfile, options.arguments.clone(), platform)?;
    let mut chain = Vec::new();
    let mut number = match &options.target {
        Some(target) => dockerfile.stage(target).ok_or_else(|| no_stage(dockerfile, target))?,
        None => dockerfile.stages.len() - 1,
    };
    // A stage on another stage is that one and more.
    let from = loop {
        let stage = &dockerfile.stages[number];
        chain.push(number);
        let from = arguments.global().expand(&stage.from)?.map(|expanded| expanded.text);
        match dockerfile.stages[..number].iter().position(|earlier| is_called(earlier, &from)) {
            Some(earlier) => number = earlier,
            None => break from,
        }
    };
    let mut converter = Converter::new(&arguments, dockerfile.directives.escape);
    converter.from(from, options);
    for number in chain.into_iter().rev() {
        converter.has_own_command = false;
        for instruction in &dockerfile.stages[number].instructions {
            converter.instruction(instruction)?;
        }
    }
    Ok(converter.finish())
}

fn is_called(stage: &crate::dockerfile::Stage, name: &str) -> bool {
    stage.name.as_ref().is_some_and(|own| own.value == name.to_ascii_lowercase())
}

fn usual(name: &str) -> String {
    let value = match name {
        "TARGETSTAGE" => "default",
        name if name.ends_with("PLATFORM") => "linux/amd64",
        name if name.ends_with("OS") => "linux",
        name if name.ends_with("ARCH") => "amd64",
        _ => "",
    };
    value.to_owned()
}

fn no_stage(dockerfile: &Dockerfile, target: &str) -> Diagnostics {
    let names: Vec<&str> =
        dockerfile.stages.iter().filter_map(|stage| stage.name.as_ref()).map(|name| name.as_str()).collect();
    crate::diagnostic::Diagnostic::new(
        Span::start_of(&dockerfile.file),
        format!("there is no stage {} in this file", quoted(target)),
    )
    .help_if(crate::suggest::did_you_mean(target, names))
    .into()
}

/// Things of one sort that are done one after the other.
enum Step {
    Packages(Vec<String>),
    Files(Vec<Node>),
    Run(Vec<run::Command>),
}

struct Converter<'a> {
    arguments: &'a Arguments,
    scope: Scope,
    from: String,
    steps: Vec<Step>,
    recommends: Option<bool>,
    env: Vec<(String, String)>,
    labels: Entries,
    user: Option<String>,
    workdir: Option<String>,
    shell: Vec<String>,
    expose: Vec<String>,
    volumes: Vec<String>,
    stop_signal: Option<String>,
    healthcheck: Option<Node>,
    on_build: Vec<Node>,
    entrypoint: Option<Node>,
    cmd: Option<Node>,
    /// Whether the command is of the same stage as what is read.
    has_own_command: bool,
    remarks: Vec<Remark>,
}

impl<'a> Converter<'a> {
    fn new(arguments: &'a Arguments, escape: char) -> Self {
        let path = ("PATH".to_owned(), DEFAULT_PATH.to_owned());
        Self {
            arguments,
            scope: Scope::new(escape).with_environment([path]),
            from: String::new(),
            steps: Vec::new(),
            recommends: None,
            env: Vec::new(),
            labels: Vec::new(),
            user: None,
            workdir: None,
            shell: vec!["/bin/sh".into(), "-c".into()],
            expose: Vec::new(),
            volumes: Vec::new(),
            stop_signal: None,
            healthcheck: None,
            on_build: Vec::new(),
            entrypoint: None,
            cmd: None,
            has_own_command: false,
            remarks: Vec::new(),
        }
    }

    fn remark(&mut self, kind: RemarkKind, span: &Span, text: impl Into<String>) {
        self.remarks.push(Remark { kind, span: span.clone(), text: text.into() });
    }

    fn lost(&mut self, span: &Span, text: impl Into<String>) {
        self.remark(RemarkKind::Lost, span, text);
    }

    fn from(&mut self, from: Located<String>, options: &ConvertOptions) {
        let is_sibling = options.siblings.contains(&from.value);
        let is_known = is_sibling || from.value == "scratch";
        self.from = match is_known || from.contains(['/', ':', '@', '.']) {
            true => from.value.clone(),
            false => {
                let text = format!("{} is taken for an image of a registry, by its latest tag", quoted(&from));
                self.remark(RemarkKind::Differs, &from.span, text);
                format!("{}:latest", from.value)
            }
        };
    }

    /// A word with its variables in place. What the base image may have set is told as empty.
    fn word(&mut self, written: &Located<String>) -> Result<String, Diagnostics> {
        let expanded = self.scope.expand(written)?;
        for name in &expanded.value.unset {
            let text = format!("the value of {} in the base image is not known; it is taken to be empty", quoted(name));
            self.remark(RemarkKind::Differs, &written.span, text);
        }
        Ok(expanded.value.text)
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Diagnostics> {
        let span = &instruction.span;
        match &instruction.kind {
            Kind::Add(add) => self.add(add, span)?,
            Kind::Copy(copy) => self.copy(copy, span)?,
            Kind::Run(run) => self.run(run, span)?,
            Kind::Arg(arguments) => {
                for argument in arguments {
                    self.arguments.declare(argument, &mut self.scope)?;
                }
            }
            Kind::Env(pairs) => self.environment(pairs)?,
            Kind::Label(pairs) => self.label(pairs)?,
            Kind::Maintainer(name) => {
                set(&mut self.labels, "org.opencontainers.image.authors", Node::text(&name.value));
                self.remark(RemarkKind::Differs, span, "the author is a label, not a field of the configuration");
            }
            Kind::Expose(ports) => {
                for port in ports {
                    let words = self.scope.expand_words(port)?.value;
                    self.checked::<Port>(words, port, |converter| &mut converter.expose);
                }
            }
            Kind::Volume(volumes) => {
                for volume in volumes {
                    let word = self.word(volume)?;
                    self.checked::<ImagePath>(vec![word], volume, |converter| &mut converter.volumes);
                }
            }
            Kind::User(user) => {
                let word = self.word(user)?;
                match word.parse::<Owner>() {
                    Ok(_) => self.user = Some(word),
                    Err(_) => self.lost(span, format!("{} is no user", quoted(&word))),
                }
            }
            Kind::Workdir(directory) => self.directory(directory)?,
            Kind::StopSignal(signal) => {
                let word = self.word(signal)?;
                match word.parse::<StopSignal>() {
                    Ok(_) => self.stop_signal = Some(word),
                    Err(_) => self.lost(span, format!("{} is no signal", quoted(&word))),
                }
            }
            Kind::Shell(shell) => {
                self.shell.clone_from(shell);
                self.remark(RemarkKind::Differs, span, "the shell is written into each command; a spec keeps none");
            }
            Kind::Cmd(form) => {
                self.cmd = Some(self.command_line(form));
                self.has_own_command = true;
            }
            Kind::Entrypoint(form) => {
                self.entrypoint = Some(self.command_line(form));
                // A command for another entry point makes no sense.
                self.cmd = self.cmd.take().filter(|_| self.has_own_command);
            }
            Kind::Healthcheck(check) => self.health(check, span),
            Kind::Onbuild(onbuild) => self.trigger(onbuild, span),
        }
        Ok(())
    }

    fn checked<T: std::str::FromStr>(
        &mut self,
        words: Vec<String>,
        written: &Located<String>,
        list: impl Fn(&mut Self) -> &mut Vec<String>,
    ) {
        for word in words {
            match word.parse::<T>() {
                Ok(_) if list(self).contains(&word) => {}
                Ok(_) => list(self).push(word),
                Err(_) => self.lost(&written.span, format!("{} cannot be said in a spec", quoted(&word))),
            }
        }
    }

    fn environment(&mut self, pairs: &Pairs) -> Result<(), Diagnostics> {
        let mut values = Vec::new();
        for pair in &pairs.list {
            values.push((self.word(&pair.key)?, self.word(&pair.value)?, &pair.key.span));
        }
        if self.steps.iter().any(|step| matches!(step, Step::Run(_))) {
            let text = "variables of a spec are set for all of its commands, also for those above this line";
            self.remark(RemarkKind::Differs, &pairs.list[0].key.span, text);
        }
        for (name, value, span) in values {
            if name.parse::<EnvName>().is_err() {
                self.lost(span, format!("{} is no name of a variable", quoted(&name)));
                continue;
            }
            if name == "PATH" && value.contains(DEFAULT_PATH) {
                let text = "the base image's PATH is taken to be the usual one";
                self.remark(RemarkKind::Differs, span, text);
            }
            self.scope.set(&name, value.clone());
            match self.env.iter_mut().find(|(own, _)| *own == name) {
                Some((_, old)) => *old = value,
                None => self.env.push((name, value)),
            }
        }
        Ok(())
    }

    fn label(&mut self, pairs: &Pairs) -> Result<(), Diagnostics> {
        for pair in &pairs.list {
            let (key, value) = (self.word(&pair.key)?, self.word(&pair.value)?);
            match key.parse::<LabelKey>() {
                Ok(_) => set(&mut self.labels, &key, Node::interpolated(&value)),
                Err(_) => self.lost(&pair.key.span, format!("{} is no name of a label", quoted(&key))),
            }
        }
        Ok(())
    }

    fn directory(&mut self, written: &Located<String>) -> Result<(), Diagnostics> {
        let word = self.word(written)?;
        let path = self.absolute(&word);
        if !word.starts_with('/') && self.workdir.is_none() && self.from != "scratch" {
            let text = "the directory of the base image is not known; it is taken to be `/`";
            self.remark(RemarkKind::Differs, &written.span, text);
        }
        if path.parse::<ImagePath>().is_err() {
            self.lost(&written.span, format!("{} is no directory", quoted(&path)));
            return Ok(());
        }
        if !files::is_everywhere(&path) {
            self.push_file(vec![("directory", Node::Flag(true)), ("target", Node::interpolated(&path))]);
        }
        self.workdir = Some(path);
        Ok(())
    }

    /// A path of the image, seen from the current directory; a slash at its end stays.
    fn absolute(&self, path: &str) -> String {
        let whole = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.workdir.as_deref().unwrap_or("")),
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let is_directory = parts.is_empty() || matches!(whole.rsplit('/').next(), Some("" | "." | ".."));
        match (parts.is_empty(), is_directory) {
            (true, _) => "/".to_owned(),
            (false, true) if path != "." && !path.ends_with('/') && !path.ends_with("/.") => {
                format!("/{}", parts.join("/"))
            }
            (false, true) => format!("/{}/", parts.join("/")),
            (false, false) => format!("/{}", parts.join("/")),
        }
    }

    /// A command as a spec has it: a text for `/bin/sh -c`, or a list.
    fn command_line(&self, form: &CommandForm) -> Node {
        match form {
            CommandForm::Shell(text) if self.shell == ["/bin/sh", "-c"] => Node::text(&text.value),
            form => Node::texts(&form.arguments(&self.shell)),
        }
    }

    fn health(&mut self, check: &Healthcheck, span: &Span) {
        let Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } = check else {
            self.healthcheck = Some(Node::text("none"));
            return;
        };
        let mut entries = vec![("command", self.command_line(command))];
        let times = [("interval", interval), ("timeout", timeout), ("start_period", start_period)];
        for (name, time) in times {
            entries.extend(time.map(|time| (name, Node::text(&span_of(time)))));
        }
        entries.extend(retries.map(|retries| ("retries", Node::Number(retries.into()))));
        if start_interval.is_some() {
            self.lost(span, "a spec has no `--start-interval`");
        }
        self.healthcheck = Some(Node::map(entries));
    }

    fn trigger(&mut self, onbuild: &Onbuild, span: &Span) {
        match &onbuild.instruction.kind {
            Kind::Run(run) if run.mounts.is_empty() => match self.script(run) {
                Some(command) => self.on_build.push(command),
                None => self.lost(span, "a script with an interpreter of its own is no command for a child"),
            },
            _ => self.lost(span, "in a spec only commands wait for a child"),
        }
    }

    fn finish(self) -> Converted {
        Converted { remarks: self.remarks.clone(), text: self.document() }
    }

    /// The spec, in the order in which people write one.
    fn document(self) -> String {
        let mut entries: Vec<(&str, Node)> = vec![("from", Node::interpolated(&self.from))];
        entries.extend(self.recommends.filter(|recommends| *recommends).map(|_| ("recommends", Node::Flag(true))));
        let env = self.env;
        let workdir = self.workdir.clone().unwrap_or_else(|| "/".to_owned());
        let steps: Vec<(&str, Node)> = self
            .steps
            .into_iter()
            .map(|step| match step {
                Step::Packages(packages) => ("packages", Node::texts(&packages)),
                Step::Files(files) => ("files", Node::List(files)),
                Step::Run(commands) => {
                    ("run", Node::List(commands.into_iter().map(|command| command.node(&env, &workdir)).collect()))
                }
            })
            .collect();
        let order = ["packages", "files", "run"].map(|name| steps.iter().filter(|(own, _)| *own == name).count());
        let is_usual = order.iter().all(|count| *count <= 1)
            && steps.is_sorted_by_key(|(name, _)| ["packages", "files", "run"].iter().position(|own| own == name));
        match is_usual {
            true => entries.extend(steps),
            false => {
                let steps = steps.into_iter().map(|(name, node)| Node::map([(name, node)])).collect();
                entries.push(("steps", Node::List(steps)));
            }
        }
        let env: Entries = env.into_iter().map(|(name, value)| (name, Node::interpolated(&value))).collect();
        let texts = |texts: &[String]| Node::List(texts.iter().map(|text| Node::interpolated(text)).collect());
        let optional = [
            ("env", (!env.is_empty()).then_some(Node::Map(env))),
            ("user", self.user.map(|user| Node::interpolated(&user))),
            ("workdir", self.workdir.map(|path| Node::interpolated(&path))),
            ("expose", (!self.expose.is_empty()).then(|| texts(&self.expose))),
            ("volumes", (!self.volumes.is_empty()).then(|| texts(&self.volumes))),
            ("stop_signal", self.stop_signal.map(|signal| Node::text(&signal))),
            ("healthcheck", self.healthcheck),
            ("on_build", (!self.on_build.is_empty()).then_some(Node::List(self.on_build))),
            ("entrypoint", self.entrypoint),
            ("cmd", self.cmd),
            ("labels", (!self.labels.is_empty()).then_some(Node::Map(self.labels))),
        ];
        entries.extend(optional.into_iter().filter_map(|(name, node)| Some((name, node?))));
        Node::map(entries).print()
    }
}

fn span_of(time: std::time::Duration) -> String {
    match time.as_millis() {
        whole if whole % 1000 == 0 => format!("{}s", whole / 1000),
        part => format!("{part}ms"),
    }
}

fn set(entries: &mut Entries, key: &str, value: Node) {
    match entries.iter_mut().find(|(own, _)| own == key) {
        Some((_, old)) => *old = value,
        None => entries.push((key.to_owned(), value)),
    }
}
