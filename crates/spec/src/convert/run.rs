//! `RUN` as packages and commands.

use super::{Converter, Node, RemarkKind, Step, apt};
use crate::diagnostic::Diagnostics;
use crate::dockerfile::{MountType, Run, RunMount, RunNetwork, Script};
use crate::source::Span;
use crate::value::ImagePath;

/// Programs that are of no use without a network.
const ONLINE: [&str; 19] = [
    "apt", "apt-get", "apk", "bundle", "cargo", "composer", "curl", "dnf", "gem", "git", "go", "mvn", "npm", "pip",
    "pip3", "pnpm", "wget", "yarn", "yum",
];

/// A command of a spec, before it is known which variables the image has at its end.
pub(super) struct Command {
    line: Node,
    user: Option<String>,
    workdir: String,
    /// What the command sees at its place.
    variables: Vec<(String, String)>,
    is_online: bool,
    mounts: Vec<Node>,
}

impl Command {
    /// What is as for all commands of the image need not be said.
    pub(super) fn node(self, env: &[(String, String)], workdir: &str) -> Node {
        let own = self.variables.into_iter().filter(|variable| !env.contains(variable));
        let variables: Vec<(String, Node)> = own.map(|(name, value)| (name, Node::interpolated(&value))).collect();
        let mut entries = vec![("command", self.line.clone())];
        entries.extend(self.user.map(|user| ("user", Node::interpolated(&user))));
        if self.workdir != workdir {
            entries.push(("workdir", Node::interpolated(&self.workdir)));
        }
        if !variables.is_empty() {
            entries.push(("env", Node::Map(variables)));
        }
        if self.is_online {
            entries.push(("network", Node::text("host")));
        }
        if !self.mounts.is_empty() {
            entries.push(("mounts", Node::List(self.mounts)));
        }
        if entries.len() == 1 { self.line } else { Node::map(entries) }
    }
}

impl Converter<'_> {
    pub(super) fn run(&mut self, run: &Run, span: &Span) -> Result<(), Diagnostics> {
        let mut mounts = Vec::new();
        for flag in &run.mounts {
            let mount = flag.resolve(&self.scope)?;
            match self.mount(&mount) {
                Ok(node) => mounts.extend(node),
                Err(why) => {
                    self.lost(flag.span(), why);
                    return Ok(());
                }
            }
        }
        let script = run.script();
        let has_plain_shell = self.shell == ["/bin/sh", "-c"] || self.shell == ["/bin/bash", "-c"];
        if let (Script::Shell(text), true, None) = (&script, has_plain_shell, &self.user)
            && let Some(split) = apt::split(text)
        {
            self.packages(split.packages, split.recommends, span);
            if !split.rest.is_empty() {
                self.remark(RemarkKind::StaysRun, span, format!("what is not apt's: `{}`", shortened(&split.rest)));
                let rest = self.shell_line(&split.rest);
                self.command(rest, &split.rest, run, mounts, span);
            }
            return Ok(());
        }
        let Some(line) = self.script(run) else {
            self.lost(span, "a script with an interpreter of its own is no command of a spec; make a file of it");
            return Ok(());
        };
        let text = match &script {
            Script::Exec(words) => words.join(" "),
            Script::Shell(text) | Script::File { text, .. } => text.clone(),
        };
        self.remark(RemarkKind::StaysRun, span, reason(&text));
        self.command(line, &text, run, mounts, span);
        Ok(())
    }

    /// The command as a spec has it; `None` for a script that its own interpreter must read from a file.
    pub(super) fn script(&self, run: &Run) -> Option<Node> {
        match run.script() {
            Script::Exec(words) => Some(Node::texts(&words)),
            Script::Shell(text) => Some(self.shell_line(&text)),
            Script::File { text, .. } => {
                let interpreter: Vec<String> =
                    text.lines().next()?.strip_prefix("#!")?.split_whitespace().map(str::to_owned).collect();
                let name = interpreter.last()?.rsplit('/').next()?;
                let takes_text = name.ends_with("sh") || name.starts_with("python");
                takes_text.then(|| Node::texts(&[interpreter, vec!["-c".to_owned(), text.clone()]].concat()))
            }
        }
    }

    fn shell_line(&self, text: &str) -> Node {
        match self.shell == ["/bin/sh", "-c"] {
            true => Node::text(text),
            false => Node::texts(&[self.shell.as_slice(), &[text.to_owned()]].concat()),
        }
    }

    fn packages(&mut self, packages: Vec<String>, recommends: bool, span: &Span) {
        if packages.is_empty() {
            return;
        }
        match self.recommends {
            Some(earlier) if earlier != recommends => {
                let text = "a spec takes recommended packages for all of its packages or for none: here for all";
                self.remark(RemarkKind::Differs, span, text);
                self.recommends = Some(true);
            }
            _ => self.recommends = Some(recommends),
        }
        match self.steps.last_mut() {
            Some(Step::Packages(list)) => {
                list.extend(packages.into_iter().filter(|name| !list.contains(name)).collect::<Vec<_>>());
            }
            _ => self.steps.push(Step::Packages(packages)),
        }
    }

    fn command(&mut self, line: Node, text: &str, run: &Run, mounts: Vec<Node>, span: &Span) {
        let asked = run.network.as_ref().map(|network| network.value);
        let needs_network = || crate::lint::programs(text).iter().any(|program| ONLINE.contains(&program.as_str()));
        let is_online = match asked {
            Some(RunNetwork::None) => false,
            Some(RunNetwork::Host) => true,
            Some(RunNetwork::Default) | None => needs_network(),
        };
        if asked.is_none() && is_online {
            self.remark(RemarkKind::Differs, span, "the command gets a network, since its programs ask for one");
        }
        if run.security.is_some() || !run.devices.is_empty() {
            self.lost(span, "a spec gives a command neither `--security` nor `--device`");
        }
        let arguments = self.scope.arguments().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment =
            self.scope.environment().iter().filter(|(name, _)| self.env.iter().any(|(own, _)| own == name));
        let command = Command {
            line,
            user: self.user.clone(),
            workdir: self.workdir.clone().unwrap_or_else(|| "/".to_owned()),
            variables: arguments.chain(environment.cloned()).collect(),
            is_online,
            mounts,
        };
        match self.steps.last_mut() {
            Some(Step::Run(commands)) => commands.push(command),
            _ => self.steps.push(Step::Run(vec![command])),
        }
    }

    /// A mount, or why there is none in a spec. A cache of apt's own files is of no use any more.
    fn mount(&self, mount: &RunMount) -> Result<Option<Node>, String> {
        let target = mount.target.as_ref().map(|target| self.absolute(target));
        if let Some(target) = target.as_ref().filter(|target| target.parse::<ImagePath>().is_err()) {
            return Err(format!("`{target}` is no path of an image"));
        }
        let kind = match mount.kind {
            MountType::Cache
                if target.as_ref().is_some_and(|target| target.trim_end_matches('/').ends_with("/apt")) =>
            {
                return Ok(None);
            }
            MountType::Cache if mount.from.is_none() => "cache",
            MountType::Tmpfs => "tmpfs",
            MountType::Secret if mount.env.is_none() => "secret",
            MountType::Bind if mount.from.is_none() => "bind",
            MountType::Secret => return Err("a secret of a spec is a file, not a variable".to_owned()),
            MountType::Ssh => return Err("a spec has no agents of SSH".to_owned()),
            MountType::Cache | MountType::Bind => return Err("a spec mounts nothing from other images".to_owned()),
        };
        let mut entries = vec![("type", Node::text(kind))];
        entries.extend(mount.id.as_ref().map(|id| ("id", Node::interpolated(id))));
        if mount.kind == MountType::Bind {
            let source = mount.source.as_deref().unwrap_or(".").trim_start_matches('/');
            entries.push(("source", Node::interpolated(if source.is_empty() { "." } else { source })));
        }
        entries.extend(target.map(|target| ("target", Node::interpolated(&target))));
        Ok(Some(Node::map(entries)))
    }
}

/// Why a command is not something else.
fn reason(text: &str) -> String {
    let programs = crate::lint::programs(text);
    let has = |name: &str| programs.iter().any(|program| program == name);
    if text.contains("sources.list") {
        return "the source of packages belongs under `sources:` of family.yaml".to_owned();
    }
    if has("apt-get") || has("apt") {
        return "not all that it installs is a plain name of a package".to_owned();
    }
    if has("useradd") || has("adduser") || has("groupadd") || has("addgroup") {
        return "accounts can be written under `users:` and `groups:`".to_owned();
    }
    format!("`{}`", shortened(text))
}

fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A command of a list, and its words.
pub(super) struct Segment<'a> {
    pub(super) text: &'a str,
    pub(super) words: Vec<String>,
}

/// The commands of a script that is nothing but a list of them, one after the other as long as all goes well. `None` if
/// there is anything else in it that matters to a shell.
pub(super) fn segments(script: &str) -> Option<Vec<Segment<'_>>> {
    // `;` goes on after a failure too, unless the script begins with `set -e`.
    let stops_on_failure = script.trim_start().starts_with("set -e");
    let mut segments = Vec::new();
    let mut rest = script;
    while !rest.trim().is_empty() {
        let (segment, after) = first_segment(rest, stops_on_failure)?;
        segments.extend(segment);
        rest = after;
    }
    Some(segments)
}

fn first_segment(script: &str, stops_on_failure: bool) -> Option<(Option<Segment<'_>>, &str)> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = script.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            // What a shell would put in place is not known here.
            ('$' | '`', open) if open != Some('\'') => return unclear(script),
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('&', None) if letters.next_if(|(_, next)| *next == '&').is_some() => {
                words.extend(word);
                return Some((segment(&script[..at], words), &script[at + 2..]));
            }
            (';' | '\n', None) if stops_on_failure => {
                words.extend(word);
                return Some((segment(&script[..at], words), &script[at + 1..]));
            }
            ('&' | '|' | ';' | '<' | '>' | '(' | ')' | '\n' | '\\' | '#' | '{' | '}' | '!', None) => {
                return unclear(script);
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some((segment(script, words), ""))
}

fn segment(text: &str, words: Vec<String>) -> Option<Segment<'_>> {
    (!words.is_empty()).then(|| Segment { text: text.trim(), words })
}

/// What only a shell understands counts as one command up to the end of the script. If apt has a part in it, nothing can
/// be said of the whole.
fn unclear(script: &str) -> Option<(Option<Segment<'_>>, &str)> {
    let has_apt = crate::lint::programs(script).iter().any(|program| matches!(program.as_str(), "apt-get" | "apt"));
    let words = vec!["a shell's".to_owned()];
    (!has_apt).then_some((Some(Segment { text: script.trim(), words }), ""))
}
