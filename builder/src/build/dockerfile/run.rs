//! `RUN`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use content::{Digest, FramedHasher};
use layer::view::View;
use sandbox::{Hidden, MountSource, Network, Stdin, User};
use spec::Diagnostic;
use spec::dockerfile::{Instruction, MountType, Run, RunNetwork, RunSecurity, Script};

use super::copy::no_context;
use super::is_proxy;
use super::stage::StageBuild;
use crate::accounts::Ids;
use crate::build::inputs::{Facts, hidden};
use crate::build::step::StepRecord;
use crate::dockerfile::mounts::{self, Mount, Place};
use crate::dockerfile::settings::shell;
use crate::dockerfile::shelf::Shelf;
use crate::error::BuildError;
use crate::image::DEFAULT_PATH;
use crate::steps::commands::{Invocation, Leaving};

/// Names how commands are run.
const RUN: &str = "run of a Dockerfile 1";
/// Where a heredoc is seen that is run as a program.
const SCRIPTS: &str = "/run/drystone";
/// Where a secret is that does not say where.
const SECRETS: &str = "/run/secrets";
/// Where the sockets of agents are.
const AGENTS: &str = "/run/buildkit/ssh_agent";
/// Where nothing can be mounted.
const TAKEN: [&str; 4] = ["/", "/dev", "/proc", "/sys"];

/// What a command sees beside the image.
struct Surroundings<'a> {
    mounts: Vec<Mount<'a>>,
    /// Variables that are no part of the step's key.
    hidden: Vec<(String, String)>,
}

impl<'b> StageBuild<'b> {
    /// Runs a command. Returns what the history says of it.
    pub(super) fn run(&mut self, run: &Run, instruction: &Instruction) -> Result<String, BuildError> {
        self.refuse(run)?;
        let shell = shell(self.state.config.as_ref().expect("a stage that has begun has a configuration"));
        let script = run.script();
        let (argv, file) = match &script {
            Script::Exec(arguments) => (arguments.clone(), None),
            Script::Shell(text) => (shell.iter().cloned().chain([text.clone()]).collect(), None),
            Script::File { name, text } => (vec![format!("{SCRIPTS}/{name}")], Some(text.clone())),
        };
        if argv.is_empty() {
            return Err(BuildError::at(&instruction.span, "RUN without a command", "name a program"));
        }
        let network = match run.network.as_ref().map(|network| network.value) {
            Some(RunNetwork::None) => Network::None,
            Some(RunNetwork::Host) => Network::Host,
            Some(RunNetwork::Default) | None => self.recipe.network,
        };
        let made_by = match &script {
            Script::Exec(arguments) => format!("RUN {}", arguments.join(" ")),
            Script::Shell(text) => format!("RUN {} {text}", shell.join(" ")),
            Script::File { text, .. } => format!("RUN {text}"),
        };
        if self.sees_what_is_unknown(run)? {
            self.foresee_nothing("run", instruction);
            return Ok(made_by);
        }
        let Surroundings { mounts, hidden } = self.surroundings(run)?;
        let key = self.run_key(&argv, file.as_deref(), network, &mounts);
        let facts = self.facts(RUN, key, || self.run_facts(&argv, file.as_deref(), network, &mounts));
        let env = self.environment(&hidden);
        let config = self.state.config.as_ref().expect("a stage that has begun has a configuration");
        let (user, workdir) = (config.config.user.clone(), self.workdir_now().to_owned());
        let described = self.described(instruction);
        let (builder, image, span) = (self.builder, &self.recipe.name, &instruction.span);
        let layer_made_by = instruction.text.clone();
        let user_place = self.user_place.clone().unwrap_or_else(|| span.clone());
        let ids = |trees: &[layer::record::TreeDir]| user_ids(&user, trees, &user_place);
        self.step(instruction, ("run", key, facts), |state| {
            builder
                .must_run(&state.platform, || Diagnostic::new(span.clone(), format!("`{described}` cannot be run")))?;
            let below = builder.trees(&state.layers)?;
            let ids = ids(&below)?;
            let place = Place {
                cache: builder.cache,
                owners: builder.sandbox.owners(),
                owners_name: builder.sandbox.kind_of_trees(),
                epoch: state.epoch,
            };
            let mut ready = mounts::prepare(&mounts, &place, &builder.pause)?;
            let scratch = builder.cache.scratch_dir()?;
            let mut mounts = std::mem::take(&mut ready.mounts);
            if let Some(text) = &file {
                let at = scratch.path().join("script");
                fs::write(&at, text)?;
                fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
                let source = MountSource::Path(at);
                mounts.push(sandbox::Mount { source, target: argv[0].clone().into(), read_only: true });
            }
            let mut env = env;
            if !env.iter().any(|(name, _)| name == "HOME") {
                env.push(("HOME".into(), ids.home.clone().into()));
            }
            let invocation = Invocation {
                image,
                what: &described,
                argv: argv.iter().map(OsString::from).collect(),
                env,
                directory: workdir.into(),
                user: User { uid: ids.uid, gid: ids.gid, groups: ids.groups },
                network,
                mounts,
                stdin: Stdin::Null,
            };
            let layer =
                builder.changed(image, &layer_made_by, key, (&below, state.epoch), Leaving::Everything, |upper| {
                    builder.runner().run(invocation, &below, upper)
                })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })?;
        Ok(made_by)
    }

    /// Whether a command that is only looked at is shown files that another step has to make first.
    fn sees_what_is_unknown(&self, run: &Run) -> Result<bool, BuildError> {
        if self.foreseen.is_none() {
            return Ok(false);
        }
        for flag in &run.mounts {
            let mount = flag.resolve(&self.scope).map_err(BuildError::Spec)?;
            if let Some(from) = &mount.from
                && !self.layers_from(from, flag.span())?.1
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What this builder has none of.
    fn refuse(&self, run: &Run) -> Result<(), BuildError> {
        if let Some(security) = run.security.as_ref().filter(|security| security.value == RunSecurity::Insecure) {
            let help = "commands run in a sandbox, always; leave the flag out";
            return Err(BuildError::at(&security.span, "`--security=insecure` cannot be had", help));
        }
        match run.devices.first() {
            Some(device) => {
                let title = format!("the device `{}` cannot be had: commands see no devices", device.value);
                Err(BuildError::at(&device.span, title, "leave the flag out"))
            }
            None => Ok(()),
        }
    }

    fn surroundings(&self, run: &Run) -> Result<Surroundings<'b>, BuildError> {
        let mut all = Surroundings { mounts: Vec::new(), hidden: Vec::new() };
        let mut agents = 0;
        for flag in &run.mounts {
            let mount = flag.resolve(&self.scope).map_err(BuildError::Spec)?;
            let span = flag.span();
            let target = mount.target.as_deref().map(|target| self.absolute(target));
            if let Some(target) = &target {
                let clean = format!(
                    "/{}",
                    target.split('/').filter(|name| !matches!(*name, "" | ".")).collect::<Vec<_>>().join("/")
                );
                let is_taken = |taken: &str| clean == taken || taken != "/" && clean.starts_with(&format!("{taken}/"));
                if TAKEN.iter().any(|taken| is_taken(taken)) {
                    let title = format!("nothing can be mounted at `{target}`");
                    return Err(BuildError::at(span, title, "choose another target"));
                }
            }
            match mount.kind {
                MountType::Bind => {
                    let target = PathBuf::from(target.unwrap_or_default());
                    let shelf: Box<dyn Shelf + 'b> = match (&mount.from, self.recipe.context) {
                        (Some(from), _) => self.shelf_of(&self.layers_from(from, span)?.0)?,
                        (None, Some(context)) => Box::new(context),
                        (None, None) => return Err(no_context(span)),
                    };
                    all.mounts.push(Mount::bind(shelf, &mount, target, span)?);
                }
                MountType::Cache => {
                    let target = PathBuf::from(target.unwrap_or_default());
                    let shelf: Option<Box<dyn Shelf + 'b>> = match &mount.from {
                        Some(from) => Some(self.shelf_of(&self.layers_from(from, span)?.0)?),
                        None => None,
                    };
                    all.mounts.push(Mount::cache(&mount, target, shelf, span)?);
                }
                MountType::Tmpfs => all.mounts.push(Mount::memory(&mount, PathBuf::from(target.unwrap_or_default()))),
                MountType::Secret => {
                    let id = mount.id.clone().unwrap_or_default();
                    let unseen = Hidden::new(Vec::new());
                    let given = self.builder.secrets.find(&id);
                    // Its value is no part of a key: who only looks need not have it.
                    let given = given.or((self.foreseen.is_some() && mount.required).then_some(&unseen));
                    let Some(value) = given else {
                        if mount.required {
                            return Err(self.builder.secrets.missing(&id, span));
                        }
                        continue;
                    };
                    if let Some(name) = &mount.env {
                        let text = String::from_utf8_lossy(value.reveal()).into_owned();
                        all.hidden.push((name.clone(), text));
                    }
                    if mount.env.is_none() || target.is_some() {
                        let name = id.rsplit('/').next().unwrap_or_default();
                        let target = target.unwrap_or_else(|| format!("{SECRETS}/{name}"));
                        all.mounts.push(Mount::secret(value.clone(), &mount, target.into()));
                    }
                }
                MountType::Ssh => {
                    let id = mount.id.clone().unwrap_or_else(|| "default".to_owned());
                    let Some(socket) = self.recipe.agents.get(&id) else {
                        if mount.required {
                            let title = format!("the build was not given the SSH agent `{id}`");
                            return Err(BuildError::at(span, title, format!("pass it: `--ssh {id}`")));
                        }
                        continue;
                    };
                    let target = target.unwrap_or_else(|| format!("{AGENTS}.{agents}"));
                    agents += 1;
                    if agents == 1 {
                        all.hidden.push(("SSH_AUTH_SOCK".to_owned(), target.clone()));
                    }
                    all.mounts.push(Mount::agent(socket.clone(), target.into()));
                }
            }
        }
        Ok(all)
    }

    /// What [`StageBuild::run_key`] names, in words.
    fn run_facts(&self, argv: &[String], file: Option<&str>, network: Network, mounts: &[Mount<'_>]) -> Facts {
        let config = self.state.config.as_ref().expect("a stage that has begun has a configuration");
        let mut facts = Facts::from([
            ("command line".to_owned(), argv.join(" ")),
            ("user".to_owned(), config.config.user.clone()),
            ("directory".to_owned(), self.workdir_now().to_owned()),
            ("network".to_owned(), if network == Network::Host { "host" } else { "none" }.to_owned()),
        ]);
        facts.extend(file.map(|text| ("script".to_owned(), text.to_owned())));
        for variable in &config.config.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            facts.insert(format!("variable {name} of the image"), hidden(value));
        }
        for (name, value) in self.scope.arguments().filter(|(name, _)| !is_proxy(name)) {
            facts.insert(format!("argument {name}"), hidden(value));
        }
        facts.extend(mounts.iter().flat_map(Mount::facts));
        facts
    }

    /// Names all that a command's result depends on.
    fn run_key(&self, argv: &[String], file: Option<&str>, network: Network, mounts: &[Mount<'_>]) -> Digest {
        let config = self.state.config.as_ref().expect("a stage that has begun has a configuration");
        let arguments: Vec<String> = self
            .scope
            .arguments()
            .filter(|(name, _)| !is_proxy(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mounts =
            mounts.iter().fold(FramedHasher::new("mounts"), |all, one| all.field("mount", one.key().as_bytes()));
        self.builder
            .key(RUN, &self.state)
            .list("argv", argv)
            .field("file", file.unwrap_or_default())
            .list("env", &config.config.env)
            .list("arguments", arguments)
            .field("user", &config.config.user)
            .field("workdir", self.workdir_now())
            .field("network", if network == Network::Host { "host" } else { "none" })
            .field("mounts", mounts.finish().as_bytes())
            .finish()
    }

    /// The variables of a command but for its home: arguments, then the image's, then what is hidden.
    fn environment(&self, hidden: &[(String, String)]) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = vec![("PATH".into(), DEFAULT_PATH.into())];
        let mut set = |name: &str, value: &str| {
            env.retain(|(known, _)| known != name);
            env.push((name.into(), value.into()));
        };
        // Proxies are seen without being declared.
        for (name, value) in self.recipe.arguments.iter().filter(|(name, _)| is_proxy(name)) {
            set(name, value);
        }
        for (name, value) in self.scope.arguments() {
            set(name, value);
        }
        let config = self.state.config.as_ref().expect("a stage that has begun has a configuration");
        for (name, value) in config.config.env.iter().filter_map(|line| line.split_once('=')) {
            set(name, value);
        }
        for (name, value) in hidden {
            set(name, value);
        }
        env
    }
}

/// Who runs a command: the `USER` of the stage.
fn user_ids(user: &str, trees: &[layer::record::TreeDir], span: &spec::Span) -> Result<Ids, BuildError> {
    if user.is_empty() {
        return Ok(Ids { home: "/root".to_owned(), groups: vec![0], ..Ids::default() });
    }
    let help = "make the account first with RUN, or give its number";
    let wrong = |text: String| BuildError::at(span, format!("USER: {text}"), help);
    let owner: spec::Owner = user.parse().map_err(|_| wrong(format!("`{user}` is not USER[:GROUP]")))?;
    let accounts = crate::accounts::Accounts::read(&View::new(trees))?;
    let mut ids = accounts.ids(&owner).map_err(|error| wrong(error.to_string()))?;
    // As login(1) and container engines have it, the first group is among the others.
    if !ids.groups.contains(&ids.gid) {
        ids.groups.insert(0, ids.gid);
    }
    Ok(ids)
}
