//! `COPY` and `ADD`.

use std::fs;
use std::io::{self, Write};

use content::{Digest, FramedHasher};
use layer::entry::{ImagePath, Metadata};
use layer::view::View;
use spec::dockerfile::{Add, Copy, IgnoreRules, Instruction, Source, Transfer};
use spec::{Located, Span};
use store::{Area, ScratchDir};
use url::Url;

use super::stage::{StageBuild, is_numeric};
use crate::accounts::Ids;
use crate::build::inputs::Facts;
use crate::build::step::StepRecord;
use crate::dockerfile::context::Context;
use crate::dockerfile::git::{Authorization, Git, GitAddress, is_part_of_id};
use crate::dockerfile::pick::{self, Body, Part, Picked, Rules, pick};
use crate::dockerfile::place::{Destination, Mode, Placing};
use crate::dockerfile::settings::text;
use crate::dockerfile::shelf::{Item, ItemKind, Shelf, path_of};
use crate::error::BuildError;
use crate::fetch::FetchError;
use crate::image::Layer;

/// Names how files are put in.
const COPY: &str = "copy 1";

/// The largest file that is fetched for `ADD`.
const LARGEST_FILE: u64 = 16 << 30;

/// Where an instruction takes files from.
enum From {
    Context,
    /// A stage or an image, by its layers.
    Image(Vec<Layer>),
}

/// What an instruction puts in, its variables in place.
struct Asked {
    sources: Vec<(AskedSource, Span)>,
    target: String,
    exclude: IgnoreRules,
    owner: Option<Ids>,
    mode: Option<Mode>,
    /// As written: names what the two above come to.
    permissions: String,
    parents: bool,
    /// Whether the layer is the same whatever is below it.
    link: bool,
    /// Whether archives are unpacked; none for those of the context only.
    unpack: Option<bool>,
    checksum: Option<Located<String>>,
}

enum AskedSource {
    Path(String),
    Address(Url),
    /// A commit of a repository.
    Repository(Repository),
    Text {
        name: String,
        text: String,
    },
}

/// A repository whose commit is known.
struct Repository {
    address: GitAddress,
    commit: String,
    keeps_git: bool,
}

impl<'b> StageBuild<'b> {
    pub(super) fn copy(&mut self, copy: &Copy, instruction: &Instruction) -> Result<(), BuildError> {
        if self.asks_for_unknown_accounts(&copy.transfer)? {
            self.foresee_nothing("files", instruction);
            return Ok(());
        }
        let mut asked = self.asked(&copy.transfer, false, instruction)?;
        asked.parents = copy.parents;
        let from = match &copy.from {
            None => From::Context,
            Some(from) => match self.layers_from(&text(&self.scope, from)?, &from.span)? {
                (layers, true) => From::Image(layers),
                (_, false) => {
                    self.foresee_nothing("files", instruction);
                    return Ok(());
                }
            },
        };
        // Owners of a context are whoever made it; those of an image mean something.
        if let (From::Context, None) = (&from, &asked.owner) {
            asked.owner = Some(Ids::default());
        }
        self.transfer(&asked, &from, instruction)
    }

    pub(super) fn add(&mut self, add: &Add, instruction: &Instruction) -> Result<(), BuildError> {
        if self.asks_for_unknown_accounts(&add.transfer)? {
            self.foresee_nothing("files", instruction);
            return Ok(());
        }
        let mut asked = self.asked(&add.transfer, true, instruction)?;
        asked.unpack = add.unpack;
        asked.checksum = add
            .checksum
            .as_ref()
            .map(|sum| Ok::<_, BuildError>(Located::new(text(&self.scope, sum)?, sum.span.clone())))
            .transpose()?;
        self.find_commits(&mut asked, add)?;
        self.transfer(&asked, &From::Context, instruction)
    }

    /// Whether an instruction that is only looked at names an account of an image that is not there yet. The number is
    /// in the key of what is linked, and of nothing else.
    fn asks_for_unknown_accounts(&self, transfer: &Transfer) -> Result<bool, BuildError> {
        match &transfer.chown {
            Some(owner) if transfer.link && !self.known.layers => {
                let owner = text(&self.scope, owner)?;
                Ok(!owner.is_empty() && !is_numeric(&owner))
            }
            _ => Ok(false),
        }
    }

    /// Puts variables in place.
    fn asked(&self, transfer: &Transfer, adds: bool, instruction: &Instruction) -> Result<Asked, BuildError> {
        let scope = &self.scope;
        let mut sources = Vec::new();
        for source in &transfer.sources {
            sources.push(match source {
                Source::Path(written) => {
                    (asked_source(&text(scope, written)?, adds, &written.span)?, written.span.clone())
                }
                Source::Text(heredoc) => {
                    let span = heredoc.content.span.clone();
                    let text = match heredoc.expands {
                        true => scope.expand_text(&heredoc.text(), &span).map_err(BuildError::Spec)?.value.text,
                        false => heredoc.text(),
                    };
                    (AskedSource::Text { name: heredoc.name.clone(), text }, span)
                }
            });
        }
        let chown = transfer
            .chown
            .as_ref()
            .map(|written| Ok::<_, BuildError>((text(scope, written)?, &written.span)))
            .transpose()?;
        let chmod = transfer
            .chmod
            .as_ref()
            .map(|written| Ok::<_, BuildError>((text(scope, written)?, &written.span)))
            .transpose()?;
        let owner = match &chown {
            // Only what is linked has the number in its key.
            Some(_) if self.foreseen.is_some() && !transfer.link => Some(Ids::default()),
            Some((owner, span)) if !owner.is_empty() => Some(self.ids(owner, span)?),
            _ => None,
        };
        let mode = match &chmod {
            Some((mode, span)) => Some(Mode::parse(mode).ok_or_else(|| {
                let help = "expected octal digits such as 0755, or clauses such as u=rwX,go=rX";
                BuildError::at(span, format!("`{mode}` is not a mode"), help)
            })?),
            None => None,
        };
        let exclude: Vec<Located<String>> = transfer
            .exclude
            .iter()
            .map(|written| Ok(Located::new(text(scope, written)?, written.span.clone())))
            .collect::<Result<_, BuildError>>()?;
        let target = text(scope, &transfer.target)?;
        if target.is_empty() {
            return Err(BuildError::at(&instruction.span, "there is no destination", "name a path in the image"));
        }
        let written =
            |given: &Option<(String, &Span)>| given.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
        Ok(Asked {
            sources,
            target,
            exclude: IgnoreRules::from_patterns(&exclude).map_err(BuildError::Spec)?,
            owner,
            mode,
            permissions: format!("{} {}", written(&chown), written(&chmod)),
            parents: false,
            link: transfer.link,
            unpack: Some(false),
            checksum: None,
        })
    }

    fn transfer(&mut self, asked: &Asked, from: &From, instruction: &Instruction) -> Result<(), BuildError> {
        // What was taken from an image or a commit need not be read to know what it was.
        let is_commit = |(source, _): &(AskedSource, Span)| matches!(source, AskedSource::Repository(_));
        let memory = match from {
            From::Context if asked.sources.iter().all(is_commit) => Some(memory_key(asked, &[])),
            From::Context => None,
            From::Image(layers) => Some(memory_key(asked, layers)),
        };
        let remembered = match memory {
            Some(key) => self.builder.cache.get_json::<Digest>(Area::Steps, key)?,
            None => None,
        };
        let mut taken = None;
        let key = match remembered {
            Some(key) => key,
            None => {
                let found = self.take(asked, from, instruction)?;
                let key = pick::key(&found.picked);
                taken = Some(found);
                if let Some(memory) = memory {
                    self.builder.cache.put_json(Area::Steps, memory, &key)?;
                }
                key
            }
        };
        // What is linked is made over nothing: no link on the way to its destination is followed, and what others make
        // of the image below changes neither its layer nor its key.
        let nothing = asked.link.then(|| self.builder.nothing(&self.recipe.platform));
        // An account may have another number in another image.
        let owner = asked.owner.as_ref().filter(|_| asked.link).map(|owner| format!("{}:{}", owner.uid, owner.gid));
        let key = self
            .builder
            .key(COPY, nothing.as_ref().unwrap_or(&self.state))
            .field("picked", key.as_bytes())
            .field("target", &asked.target)
            .field("workdir", self.workdir_now())
            .field("permissions", &asked.permissions)
            .list("owner", owner)
            .finish();
        let workdir = self.workdir_now().to_owned();
        let (builder, image, made_by) = (self.builder, &self.recipe.name, instruction.text.clone());
        let is_kept = || match self.foreseen {
            Some(_) => Ok(builder.is_kept(key)),
            None => Ok::<_, BuildError>(builder.remembered(key)?.is_some()),
        };
        if taken.is_none() && !is_kept()? {
            taken = Some(self.take(asked, from, instruction)?);
        }
        let facts = self.facts(COPY, key, || {
            let mut facts = Facts::from([
                ("destination".to_owned(), asked.target.clone()),
                ("directory".to_owned(), workdir.clone()),
                ("--chown and --chmod".to_owned(), asked.permissions.trim().to_owned()),
            ]);
            facts.extend(taken.iter().flat_map(|taken| pick::facts(&taken.picked)));
            facts
        });
        let (key_below, epoch_below) = (self.state.key, self.state.epoch);
        self.step(instruction, ("files", key, facts), |state| {
            let state = nothing.as_ref().unwrap_or(state);
            let gone = || BuildError::at(&instruction.span, "the cache was emptied meanwhile", "build again");
            let Taken { shelf, picked, _checkouts } = taken.ok_or_else(gone)?;
            let trees = builder.trees(&state.layers)?;
            let (owner, mode) = (asked.owner.clone(), asked.mode.clone());
            let (target, span) = (asked.target.clone(), &instruction.span);
            let to = Destination { target, workdir: &workdir, span, owner, mode, epoch: state.epoch };
            let mut placing = Placing::new(shelf.get(), View::new(&trees), &to);
            placing.place(&picked)?;
            let layer = builder.layer_of_entries(key, image, &made_by, |writer| placing.write(writer))?;
            Ok(StepRecord { layers: layer.into_iter().collect(), epoch: state.epoch })
        })?;
        if asked.link {
            // What follows stands on both.
            let whole =
                FramedHasher::new("linked 1").field("below", key_below.as_bytes()).field("layer", key.as_bytes());
            (self.state.key, self.state.epoch) = (whole.finish(), epoch_below);
            if let Some(step) = self.ahead.last_mut() {
                step.after = self.state.key;
            }
        }
        Ok(())
    }

    /// Reads all that an instruction takes.
    fn take(&self, asked: &Asked, from: &From, instruction: &Instruction) -> Result<Taken<'b>, BuildError> {
        let shelf = match from {
            From::Image(layers) => Taking::Image(self.shelf_of(layers)?),
            From::Context => match self.recipe.context {
                Some(context) => Taking::Context(context),
                None if asked.sources.iter().all(|(source, _)| !matches!(source, AskedSource::Path(_))) => {
                    Taking::Nothing
                }
                None => return Err(no_context(&instruction.span)),
            },
        };
        let rules = Rules { exclude: &asked.exclude, parents: asked.parents, unpack: asked.unpack != Some(false) };
        let (mut picked, mut checkouts) = (Vec::new(), Vec::new());
        for (source, span) in &asked.sources {
            match source {
                AskedSource::Repository(repository) => {
                    let (scratch, found) = self.checked_out(repository, span, &rules)?;
                    checkouts.push(scratch);
                    picked.extend(found);
                }
                AskedSource::Path(path) => picked.extend(pick(shelf.get(), path, span, &rules)?),
                AskedSource::Text { name, text } => picked.push(text_file(name, text)),
                AskedSource::Address(url) => {
                    let mut fetched = self.fetched(url, asked.checksum.as_ref(), &asked.target, span)?;
                    if let (Some(true), [Part { body: Body::File(path), .. }]) = (asked.unpack, &fetched.parts[..]) {
                        fetched.unpacks = pick::is_archive(&|| fs::File::open(path), url.as_str(), span)?;
                    }
                    picked.push(fetched);
                }
            }
        }
        if picked.is_empty() {
            let title = "all sources are excluded";
            return Err(BuildError::at(&instruction.span, title, "there is nothing to copy"));
        }
        Ok(Taken { shelf, picked, _checkouts: checkouts })
    }

    /// Asks for the commits of repositories, which name their content.
    fn find_commits(&self, asked: &mut Asked, add: &Add) -> Result<(), BuildError> {
        for (source, span) in &mut asked.sources {
            let AskedSource::Path(written) = source else { continue };
            let Some(address) = GitAddress::parse(written) else { continue };
            let mut address = address.map_err(|error| BuildError::at(span, format!("`{written}`: {error}"), ""))?;
            if let Some(sum) = &asked.checksum {
                if !is_part_of_id(&sum.value) {
                    let title = format!("`{}` is not the id of a commit", sum.value);
                    return Err(BuildError::at(
                        &sum.span,
                        title,
                        "expected hexadecimal digits, all 40 of them at best",
                    ));
                }
                address.commit = Some(sum.value.clone());
            }
            if self.builder.fetcher.is_offline() {
                let title = format!("{} is a repository, and with --offline nothing is fetched", address.shown());
                return Err(BuildError::at(span, title, "clone it beside the Dockerfile and COPY it"));
            }
            let scratch = self.builder.cache.scratch_dir()?;
            let commit = self.git().commit(&address, scratch.path()).map_err(|error| failed_git(error, span))?;
            let keeps_git = add.keep_git_directory || address.keep_git_directory == Some(true);
            *source = AskedSource::Repository(Repository { address, commit, keeps_git });
        }
        Ok(())
    }

    fn git(&self) -> Git<'_> {
        Git {
            interrupt: self.builder.interrupt,
            agent: self.recipe.agents.get("default").map(std::path::PathBuf::as_path),
            authorization: Authorization::of(self.builder.secrets),
        }
    }

    /// The files of a commit, which are there for as long as the directory.
    fn checked_out(
        &self,
        repository: &Repository,
        span: &Span,
        rules: &Rules<'_>,
    ) -> Result<(ScratchDir, Vec<Picked>), BuildError> {
        let Repository { address, commit, keeps_git } = repository;
        let scratch = self.builder.cache.scratch_dir()?;
        let place = scratch.path().join("checkout");
        self.git().check_out(address, commit, &place, *keeps_git).map_err(|error| failed_git(error, span))?;
        let shelf = Context::open(&place, IgnoreRules::default(), "")?;
        let directory = path_of(&address.directory).map_err(|error| BuildError::at(span, error, ""))?;
        let shown = format!("{} in {}", directory, address.shown());
        let rules = Rules { exclude: rules.exclude, parents: false, unpack: false };
        let mut picked = pick::exactly(&shelf, &directory, &shown, span, &rules)?;
        for part in picked.iter_mut().flat_map(|one| &mut one.parts) {
            // git knows whether a file can be executed, and nothing else; the rest was this process's umask.
            let is_program = part.item.metadata.mode & 0o100 != 0;
            part.item.metadata.mode = if is_program { 0o755 } else { 0o644 };
            if let Body::Shelf(path) = &part.body {
                part.body = Body::File(place.join(path.as_path()));
            }
        }
        Ok((scratch, picked))
    }

    /// A file from an address.
    fn fetched(
        &self,
        url: &Url,
        checksum: Option<&Located<String>>,
        target: &str,
        span: &Span,
    ) -> Result<Picked, BuildError> {
        let cache = self.builder.cache;
        let fetched = match checksum {
            Some(written) => {
                let digest: Digest = written.value.parse().map_err(|_| {
                    let title = format!("`{}` is not a checksum", written.value);
                    BuildError::at(&written.span, title, "expected `sha256:` and 64 digits")
                })?;
                match cache.file(Area::Debs, digest) {
                    Some(_) => digest,
                    None => {
                        let open = || cache.writer(Area::Debs, digest).map_err(io::Error::other);
                        let fetched = self.builder.fetcher.file_of_unknown_size(url, digest, open);
                        let (writer, size) = fetched.map_err(|error| match error {
                            FetchError::Wrong { source, .. } => {
                                let title = format!("`{url}` has another checksum: {source}");
                                BuildError::at(&written.span, title, "")
                            }
                            other => BuildError::from(other).located(span),
                        })?;
                        writer.commit_content(size)?;
                        digest
                    }
                }
            }
            None => {
                // Only its bytes tell whether it is another one than last time.
                let scratch = cache.scratch_dir()?;
                let at = scratch.path().join("fetched");
                let open = || fs::File::create(&at);
                let fetched = self.builder.fetcher.any_file(url, LARGEST_FILE, open);
                let (_, digest, size) = fetched.map_err(|error| BuildError::from(error).located(span))?;
                let mut writer = cache.writer(Area::Debs, digest)?;
                io::copy(&mut fs::File::open(&at)?, &mut writer)?;
                writer.flush()?;
                writer.commit_content(size)?;
                digest
            }
        };
        let path = cache.path(Area::Debs, fetched);
        let size = fs::metadata(&path)?.len();
        let name = url.path().rsplit('/').next().unwrap_or_default();
        if name.is_empty() && target.ends_with('/') {
            let title = format!("`{url}` has no name for the file in `{target}`");
            return Err(BuildError::at(span, title, "name the file in the destination"));
        }
        let name = if name.is_empty() { "file" } else { name };
        let name = ImagePath::parse(name).map_err(|error| BuildError::at(span, error.to_string(), ""))?;
        // As a file that nobody else may read: whoever fetched it decides who may.
        let metadata = Metadata { mode: 0o600, ..Metadata::default() };
        let item = Item { kind: ItemKind::File { size }, metadata, inode: None };
        let part = Part { path: ImagePath::root(), body: Body::File(path), item, digest: Some(fetched) };
        Ok(Picked { name, parts: vec![part], unpacks: false })
    }
}

/// An error for a build without a context.
pub(super) fn no_context(span: &Span) -> BuildError {
    let title = "this build has no context to take files from";
    BuildError::at(span, title, "give a directory, or a tar on standard input")
}

/// What was taken, and where its content still is.
struct Taken<'a> {
    shelf: Taking<'a>,
    picked: Vec<Picked>,
    /// Held, never read.
    _checkouts: Vec<ScratchDir>,
}

enum Taking<'a> {
    Context(&'a dyn Shelf),
    Image(Box<dyn Shelf>),
    Nothing,
}

impl Taking<'_> {
    fn get(&self) -> &dyn Shelf {
        match self {
            Self::Context(shelf) => *shelf,
            Self::Image(shelf) => shelf.as_ref(),
            Self::Nothing => &Nothing,
        }
    }
}

/// A shelf with nothing on it.
struct Nothing;

impl Shelf for Nothing {
    fn look(&self, _: &ImagePath) -> io::Result<Option<Item>> {
        Ok(None)
    }

    fn list(&self, _: &ImagePath) -> io::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn open(&self, path: &ImagePath) -> io::Result<fs::File> {
        Err(io::Error::new(io::ErrorKind::NotFound, format!("{path} is not there")))
    }

    fn why_not(&self, _: &ImagePath) -> Option<String> {
        None
    }
}

fn memory_key(asked: &Asked, layers: &[Layer]) -> Digest {
    let diff_ids: Vec<&[u8]> = layers.iter().map(|layer| layer.diff_id.0.as_bytes()).collect();
    let sources = asked.sources.iter().map(|(source, _)| match source {
        AskedSource::Path(path) => format!("path {path}"),
        AskedSource::Address(url) => format!("address {url}"),
        AskedSource::Repository(Repository { address, commit, keeps_git: false }) => {
            format!("commit {commit} {} {}", address.submodules, address.directory)
        }
        // What is kept says where it is from.
        AskedSource::Repository(Repository { address, commit, keeps_git: true }) => {
            format!("repository {} {commit} {} {}", address.shown(), address.submodules, address.directory)
        }
        AskedSource::Text { name, text } => format!("text {name} {text}"),
    });
    FramedHasher::new("taken 1")
        .list("layers", diff_ids)
        .list("sources", sources.collect::<Vec<_>>())
        .field("exclude", format!("{:?}", asked.exclude))
        .field("parents", if asked.parents { "yes" } else { "no" })
        .finish()
}

fn asked_source(written: &str, adds: bool, span: &Span) -> Result<AskedSource, BuildError> {
    if !adds {
        return Ok(AskedSource::Path(written.to_owned()));
    }
    let is_http = written.starts_with("http://") || written.starts_with("https://");
    if !is_http || GitAddress::parse(written).is_some() {
        return Ok(AskedSource::Path(written.to_owned()));
    }
    Url::parse(written).map(AskedSource::Address).map_err(|error| BuildError::at(span, error.to_string(), ""))
}

/// Says of a repository that cannot be had where it is asked for.
fn failed_git(error: io::Error, span: &Span) -> BuildError {
    match error.kind() {
        io::ErrorKind::Interrupted => BuildError::Interrupted,
        _ => BuildError::at(span, error.to_string(), ""),
    }
}

fn text_file(name: &str, text: &str) -> Picked {
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    let item = Item { kind: ItemKind::File { size: text.len() as u64 }, metadata, inode: None };
    let digest = Some(Digest::of(text.as_bytes()));
    let part = Part { path: ImagePath::root(), body: Body::Text(text.to_owned()), item, digest };
    Picked { name: ImagePath::root().join(name.as_bytes()), parts: vec![part], unpacks: false }
}
