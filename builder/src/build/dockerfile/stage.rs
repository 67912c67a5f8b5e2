//! One stage: what it is built on, and its instructions in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use content::Digest;
use layer::entry::{Entry, ImagePath, Kind as EntryKind, Metadata};
use layer::view::View;
use layer::write::EntryWriter;
use oci::{History, ImageConfig};
use spec::dockerfile::{Arguments, Instruction, Kind, Scope, parse_trigger};
use spec::{Owner, SourceFile, Span};

use super::{Ahead, Known, Stage};
use crate::accounts::{Accounts, Ids};
use crate::base::Reach;
use crate::build::explain::Foreseen;
use crate::build::inputs::Facts;
use crate::build::step::{StepName, StepRecord};
use crate::build::{Builder, State, StepReport};
use crate::dockerfile::Recipe;
use crate::dockerfile::bases::image_for_stage;
use crate::dockerfile::image_shelf::ImageShelf;
use crate::dockerfile::needs::{Need, NeededImage, Origin, stage_at};
use crate::dockerfile::settings::{Settings, text};
use crate::dockerfile::shelf::{Shelf, path_of};
use crate::error::BuildError;
use crate::image::{DEFAULT_PATH, Layer, rfc3339};
use crate::output::printable;

/// Names how directories are made.
const WORKDIR: &str = "workdir 1";

/// A stage that is being built.
pub(super) struct StageBuild<'b> {
    pub(super) builder: &'b Builder<'b>,
    pub(super) recipe: &'b Recipe<'b>,
    arguments: &'b Arguments,
    need: &'b Need,
    /// The stages that it needs.
    stages: BTreeMap<usize, Arc<Stage>>,
    pub(super) state: State,
    pub(super) scope: Scope,
    pub(super) reports: Vec<StepReport>,
    has_command: bool,
    /// Where the stage says who runs its commands.
    pub(super) user_place: Option<Span>,
    /// What stands before its steps in what is told of the build.
    label: String,
    /// If it is only looked at, what the images of its family come to; none if it is built.
    pub(super) foreseen: Option<&'b BTreeMap<String, Foreseen>>,
    /// What is known of it.
    pub(super) known: Known,
    /// Its steps, if it is only looked at.
    pub(super) ahead: Vec<Ahead>,
    /// How many of the reports are those of the stage that it is built on.
    inherited: usize,
}

impl<'b> StageBuild<'b> {
    pub(super) fn new(
        builder: &'b Builder<'b>,
        recipe: &'b Recipe<'b>,
        arguments: &'b Arguments,
        need: &'b Need,
        stages: BTreeMap<usize, Arc<Stage>>,
        (is_target, foreseen): (bool, Option<&'b BTreeMap<String, Foreseen>>),
    ) -> Self {
        let name = recipe.dockerfile.stages[need.stage].name.as_ref().map(|name| name.value.clone());
        let label = match (is_target, name) {
            (true, None) => String::new(),
            (_, Some(name)) => format!("{name}: "),
            (false, None) => format!("stage {}: ", need.stage),
        };
        let scope = Scope::new(recipe.dockerfile.directives.escape);
        let (state, reports) = (builder.nothing(&recipe.platform), Vec::new());
        let (has_command, user_place) = (false, None);
        let (known, ahead, inherited) = (Known::ALL, Vec::new(), 0);
        Self {
            builder,
            recipe,
            arguments,
            need,
            stages,
            state,
            scope,
            reports,
            has_command,
            user_place,
            label,
            foreseen,
            known,
            ahead,
            inherited,
        }
    }

    /// Does all instructions.
    pub(super) fn build(mut self) -> Result<Stage, BuildError> {
        let stage = &self.recipe.dockerfile.stages[self.need.stage];
        self.begin(&stage.from.span)?;
        for trigger in std::mem::take(&mut self.config().config.on_build) {
            let title = format!("ONBUILD of {}", stage.from.value);
            let file = Arc::new(SourceFile::new(title, trigger));
            let instruction = parse_trigger(&file).map_err(BuildError::Spec)?;
            self.instruction(&instruction)?;
        }
        for instruction in &stage.instructions {
            self.instruction(instruction)?;
        }
        let Self { state, scope, reports, known, ahead, inherited, .. } = self;
        Ok(Stage { state, scope, reports, inherited, known, ahead })
    }

    /// Starts with what the stage is built on.
    fn begin(&mut self, span: &Span) -> Result<(), BuildError> {
        match &self.need.origin {
            Origin::Stage(place) => {
                let stage = &self.stages[place];
                (self.state, self.scope) = (stage.state.clone(), stage.scope.clone());
                self.reports = stage.reports.clone();
                (self.known, self.inherited) = (stage.known, stage.reports.len());
            }
            Origin::Scratch => {
                self.state.config = Some(ImageConfig::new(&self.recipe.platform, Vec::new()));
            }
            Origin::Image { name, platform } => {
                (self.state, self.known) = self.image(name, platform, span)?;
            }
        }
        self.state.triggers.clear();
        // What engines assume of an image that has none; `ENV PATH=/more:$PATH` must find it.
        let is_stage = matches!(self.need.origin, Origin::Stage(_));
        let env = &mut self.config().config.env;
        if !env.iter().any(|line| line.starts_with("PATH=")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        if !is_stage {
            let pairs: Vec<(String, String)> = env
                .iter()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            self.scope = Scope::new(self.recipe.dockerfile.directives.escape).with_environment(pairs);
        }
        Ok(())
    }

    /// An image of the family, of the layout or of a registry, as a stage begins with it.
    fn image(&self, name: &str, platform: &oci::Platform, span: &Span) -> Result<(State, Known), BuildError> {
        if let Some(sibling) = self.foreseen.and_then(|foreseen| foreseen.get(name)) {
            return Ok((sibling.state.clone(), sibling.known));
        }
        if let Some(sibling) = self.recipe.siblings.get(name) {
            // Its layers as it has them in the end, which may have been squashed.
            return Ok((State { layers: sibling.layers.clone(), ..sibling.state.clone() }, Known::ALL));
        }
        let reach = if self.foreseen.is_some() { Reach::Local } else { Reach::Anywhere };
        let image = NeededImage { name: name.to_owned(), platform: platform.clone(), span: span.clone() };
        let base = image_for_stage(self.builder.bases, self.recipe.dockerfile, self.need.stage, &image, reach)?;
        let state = State {
            key: base.key(),
            layers: base.layers.clone(),
            epoch: self.builder.options.epoch.unwrap_or_else(|| base.created()),
            triggers: Vec::new(),
            config: Some(base.config.clone()),
            platform: base.platform(),
        };
        Ok((state, Known::ALL))
    }

    pub(super) fn config(&mut self) -> &mut ImageConfig {
        self.state.config.as_mut().expect("a stage that has begun has a configuration")
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let before = self.state.layers.len();
        let created_by = self.do_instruction(instruction)?;
        let entry = History {
            created: Some(rfc3339(self.state.epoch)),
            created_by: Some(created_by),
            empty_layer: self.state.layers.len() == before,
            ..History::default()
        };
        self.config().history.push(entry);
        Ok(())
    }

    /// Does an instruction, and says what the history says of it.
    fn do_instruction(&mut self, instruction: &Instruction) -> Result<String, BuildError> {
        if let Kind::User(user) = &instruction.kind {
            self.user_place = Some(user.span.clone());
        }
        let config = self.state.config.as_mut().expect("a stage that has begun has a configuration");
        let mut settings = Settings { config, scope: &mut self.scope, has_command: &mut self.has_command };
        if settings.apply(instruction)? {
            return Ok(instruction.text.clone());
        }
        match &instruction.kind {
            Kind::Arg(arguments) => {
                for argument in arguments {
                    let declared = self.arguments.declare(argument, &mut self.scope);
                    declared.map_err(BuildError::Spec)?;
                }
            }
            Kind::Workdir(path) => {
                let path = text(&self.scope, path)?;
                self.workdir(&path, instruction)?;
            }
            Kind::Run(run) => return self.run(run, instruction),
            Kind::Copy(copy) => self.copy(copy, instruction)?,
            Kind::Add(add) => self.add(add, instruction)?,
            _ => {}
        }
        Ok(instruction.text.clone())
    }

    /// What the steps of an instruction are called.
    pub(super) fn described(&self, instruction: &Instruction) -> String {
        const LONGEST: usize = 120;
        let text = printable(&instruction.text);
        let cut: String = text.chars().take(LONGEST).collect();
        format!("{}{cut}", self.label)
    }

    /// Does a step of this stage, or tells what it would be.
    pub(super) fn step(
        &mut self,
        instruction: &Instruction,
        (kind, key, facts): (&'static str, Digest, Facts),
        work: impl FnOnce(&State) -> Result<StepRecord, BuildError>,
    ) -> Result<(), BuildError> {
        let described = self.described(instruction);
        if self.foreseen.is_some() {
            self.foresee(Ahead { kind, described, key: Some(key), facts, below: self.state.key, after: key });
            return Ok(());
        }
        let name = StepName { kind, described: &described, key, facts: &|| facts.clone() };
        let done = self.builder.step(&self.recipe.name, &name, &mut self.state, &mut self.reports, work);
        done.map_err(|error| error.located(&instruction.span))
    }

    /// Goes on as if a step had been done.
    fn foresee(&mut self, step: Ahead) {
        let step = Ahead { key: step.key.filter(|_| self.known.key), ..step };
        self.known.key &= step.key.is_some();
        match step.key.and_then(|key| self.builder.kept(key)) {
            Some(layers) => {
                self.known.layers &= layers.iter().all(|layer| self.builder.layout.has_blob(layer.digest, layer.size));
                self.state.layers.extend(layers);
            }
            None => self.known.layers = false,
        }
        self.state.key = step.after;
        self.ahead.push(step);
    }

    /// Tells of a step that nothing can be said of before those are done that it needs.
    pub(super) fn foresee_nothing(&mut self, kind: &'static str, instruction: &Instruction) {
        let described = self.described(instruction);
        let below = self.state.key;
        self.foresee(Ahead { kind, described, key: None, facts: Facts::new(), below, after: below });
    }

    /// What differs between two builds of a step; `more` is only asked for what is not written down yet.
    pub(super) fn facts(&self, version: &str, key: Digest, more: impl FnOnce() -> Facts) -> Facts {
        if self.foreseen.is_none() && self.builder.has_inputs(key) {
            return Facts::new();
        }
        let mut facts = self.builder.facts(version);
        facts.extend(more());
        facts
    }

    /// `WORKDIR`: the directory is made if it is not there.
    fn workdir(&mut self, path: &str, instruction: &Instruction) -> Result<(), BuildError> {
        let absolute = self.absolute(path);
        let directory = path_of(&absolute).map_err(|error| BuildError::at(&instruction.span, error, ""))?;
        self.config().config.working_dir = directory.to_string();
        let builder = self.builder;
        let user = self.config().config.user.clone();
        if !self.known.layers && !user.is_empty() && !is_numeric(&user) {
            self.foresee_nothing("workdir", instruction);
            return Ok(());
        }
        let owner = if user.is_empty() { Ids::default() } else { self.ids(&user, &instruction.span)? };
        let owners = format!("{}:{}", owner.uid, owner.gid);
        let key = builder.key(WORKDIR, &self.state).field("path", directory.as_bytes()).field("owner", &owners);
        let key = key.finish();
        let facts = self.facts(WORKDIR, key, || {
            Facts::from([("directory".to_owned(), directory.to_string()), ("owner".to_owned(), owners)])
        });
        let (image, made_by) = (&self.recipe.name, instruction.text.clone());
        self.step(instruction, ("workdir", key, facts), |state| {
            let trees = builder.trees(&state.layers)?;
            let missing = missing_directories(&View::new(&trees), &directory, instruction)?;
            let layer = builder.layer(key, image, &made_by, Vec::new(), |layer| {
                layer.entries(0, |writer| {
                    let mut writer = EntryWriter::new(writer);
                    let (uid, gid, mtime) = (owner.uid, owner.gid, state.epoch);
                    let metadata = Metadata { mode: 0o755, uid, gid, mtime, ..Metadata::default() };
                    missing.iter().try_for_each(|path| {
                        let entry =
                            Entry { path: path.clone(), kind: EntryKind::Directory, metadata: metadata.clone() };
                        writer.write_empty(&entry)
                    })
                })?;
                Ok(!missing.is_empty())
            })?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })
    }

    /// A path in the image, relative to the working directory unless it is absolute.
    pub(super) fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        format!("{}/{path}", self.workdir_now())
    }

    pub(super) fn workdir_now(&self) -> &str {
        let config = self.state.config.as_ref().expect("a stage that has begun has a configuration");
        if config.config.working_dir.is_empty() { "/" } else { &config.config.working_dir }
    }

    /// The numbers of an account, in the image as it is now.
    pub(super) fn ids(&self, owner: &str, span: &Span) -> Result<Ids, BuildError> {
        let wrong = |text: String| BuildError::at(span, text, "make the account first with RUN, or give its number");
        let parsed: Owner = owner.parse().map_err(|_| wrong(format!("`{owner}` is not USER[:GROUP]")))?;
        let number = |name: &str| name.parse::<u32>().ok();
        // A number needs no account, and so no look into the image.
        if let (Some(uid), Some(gid)) = (number(&parsed.user), parsed.group.as_deref().and_then(number)) {
            return Ok(Ids { uid, gid, ..Ids::default() });
        }
        // As for docker, a user's number without a group is the number of its group too.
        if let (Some(uid), None) = (number(&parsed.user), &parsed.group) {
            return Ok(Ids { uid, gid: uid, ..Ids::default() });
        }
        let trees = self.builder.trees(&self.state.layers)?;
        Accounts::read(&View::new(&trees))?.ids(&parsed).map_err(|error| wrong(error.to_string()))
    }

    /// The layers that `--from` means, and whether they are known and at hand.
    pub(super) fn layers_from(&self, from: &str, span: &Span) -> Result<(Vec<Layer>, bool), BuildError> {
        if let Some(stage) = stage_at(self.recipe.dockerfile, from, self.need.stage) {
            if let Some(stage) = self.stages.get(&stage) {
                return Ok((stage.state.layers.clone(), stage.known.layers));
            }
            let title = format!("the stage `{from}` is not known before the stage begins");
            return Err(BuildError::at(span, title, "name it without variables of the stage"));
        }
        let (state, known) = self.image(from, &self.recipe.platform, span)?;
        Ok((state.layers, known.layers))
    }

    /// Where files are taken from that are in these layers.
    pub(super) fn shelf_of(&self, layers: &[Layer]) -> Result<Box<dyn Shelf>, BuildError> {
        let trees = self.builder.trees(layers)?;
        Ok(Box::new(ImageShelf::new(trees, self.builder.sandbox.owners())?))
    }
}

/// Whether an account is given by its numbers, so that nobody needs to look into the image.
pub(super) fn is_numeric(account: &str) -> bool {
    account.split(':').all(|part| part.parse::<u32>().is_ok())
}

/// The directories that are missing on the way to one, and it, from the top.
fn missing_directories(
    view: &View<'_>,
    directory: &ImagePath,
    instruction: &Instruction,
) -> Result<Vec<ImagePath>, BuildError> {
    let real = view.resolve(directory)?;
    let mut missing = Vec::new();
    for path in std::iter::once(real.clone()).chain(real.ancestors()) {
        match view.lookup(&path)? {
            None => missing.push(path),
            Some(found) if found.metadata.is_dir() => break,
            Some(_) => {
                let title = format!("`{path}` is not a directory in the image");
                return Err(BuildError::at(&instruction.span, title, ""));
            }
        }
    }
    missing.retain(|path| !path.is_root());
    missing.reverse();
    Ok(missing)
}
