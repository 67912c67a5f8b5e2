//! `drystone build` with a Dockerfile: what docker's and buildah's users type.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drystone::archive::Named;
use drystone::base::{Bases, Puller};
use drystone::build::{Builder, BuiltImage, Finished, lend};
use drystone::dockerfile::Recipe;
use drystone::dockerfile::context::{Context, leads_out};
use drystone::dockerfile::git::{Authorization, Git, GitAddress, inside};
use drystone::events::Event;
use drystone::fetch::Fetcher;
use drystone::load::{DOCKERFILE, FAMILY_FILE};
use drystone::platform;
use drystone::push::{self, Outgoing, PushTotals};
use drystone::remote::Elsewhere;
use oci::{Descriptor, Platform, Reference};
use sandbox::Network;
use spec::dockerfile::{Dockerfile, parse};
use spec::{Diagnostics, ImageName, SourceFile, lint};
use store::ScratchDir;

use crate::args::{BuildArgs, DockerfileArgs, NetworkKind, Output, RegistryArgs, SharedCacheArgs};
use crate::commands::explain::ExplainedImage;
use crate::destination::{self, Destination};
use crate::failure::Failure;
use crate::pulling::RegistryPuller;
use crate::remote::Caches;
use crate::session::{self, Workplace};
use crate::{metadata, registries};

/// Another name that podman and buildah know.
const CONTAINERFILE: &str = "Containerfile";
/// Standard input.
const STDIN: &str = "-";
/// No Dockerfile or list of exclusions is larger than this.
const LARGEST_TEXT: u64 = 16 << 20;
/// The argument by which docker's users set the date of an image.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
/// The argument by which a context from a repository keeps its `.git`, as for BuildKit.
const KEEPS_GIT: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The tag of a name that has none.
const USUAL_TAG: &str = "latest";

/// What is built, and what becomes of it.
pub struct Request<'a> {
    /// Where files are taken from: a directory, a tar, or `-`.
    pub context: String,
    /// The names that the image gets.
    pub tags: Vec<String>,
    /// How.
    pub dockerfile: &'a DockerfileArgs,
    /// How anything is built.
    pub build: &'a BuildArgs,
    /// Where results of steps are shared.
    pub caches: &'a SharedCacheArgs,
    /// How registries are reached.
    pub registry: &'a RegistryArgs,
    /// Where the image goes besides the layout.
    pub destinations: &'a [Destination],
}

/// Whether the arguments of `build` or `explain` mean a Dockerfile and not a family.
pub fn is_meant(names: &[String], arguments: &DockerfileArgs, build: &BuildArgs) -> bool {
    let [context] = names else { return arguments.file.is_some() };
    let path = Path::new(context);
    let is_family = path.join(FAMILY_FILE).is_file() || path.file_name().is_some_and(|file| file == FAMILY_FILE);
    let in_family = Path::new(FAMILY_FILE).is_file();
    let has_one = path.join(DOCKERFILE).is_file() || path.join(CONTAINERFILE).is_file();
    let is_one = path.is_file() || build.tag.iter().any(|tag| tag.contains(['/', ':']));
    // In a family, a name is that of an image, also of one that has a Dockerfile.
    let is_repository = GitAddress::parse(context).is_some();
    arguments.file.is_some() || context == STDIN || is_repository || !is_family && (is_one || has_one && !in_family)
}

/// The context that the arguments of a command name.
pub fn context_of(names: &[String]) -> Result<String, Failure> {
    match names {
        [] => Ok(".".to_owned()),
        [context] => Ok(context.clone()),
        _ => Err(Failure::Usage("a Dockerfile has one context: name one directory".to_owned())),
    }
}

/// Says so where the only argument of `build` is a directory with nothing to build in it.
pub fn has_something(names: &[String]) -> Result<(), Failure> {
    let [context] = names else { return Ok(()) };
    let path = Path::new(context);
    if !path.is_dir() || path.join(FAMILY_FILE).is_file() || Path::new(FAMILY_FILE).is_file() {
        return Ok(());
    }
    let has = |name: &&&str| path.join(name).symlink_metadata().is_ok();
    let text = match ["dockerfile", "DOCKERFILE", "containerfile", DOCKERFILE].iter().find(has) {
        Some(&DOCKERFILE) => format!("`{context}/{DOCKERFILE}` is no file that could be read"),
        Some(other) => format!("`{context}` has no {DOCKERFILE}, but `{other}`: rename it, or name it with -f"),
        None => format!("`{context}` has neither a {DOCKERFILE} nor a {FAMILY_FILE}"),
    };
    Err(Failure::Usage(text))
}

/// Builds an image from a Dockerfile and does with it what was asked for. Returns what was built.
pub fn run(request: &Request<'_>, output: Output) -> Result<Finished, Failure> {
    destination::check(request.destinations)?;
    if request.build.provenance {
        let text = "--provenance is for families: of a Dockerfile's inputs no list is kept";
        return Err(Failure::Usage(text.to_owned()));
    }
    let offline = request.build.lock.offline;
    let tags = tags(request)?;
    if offline && request.dockerfile.push {
        registries::must_be_here(tags.iter().map(Reference::registry))?;
    }
    let platforms = platform::each_once(request.build.platform.iter().cloned());
    let place = Workplace::open(request.build, output)?;
    let inputs = Inputs::read(request, &place)?;
    let mut recipe = recipe(request, &inputs, &tags, &platforms[0])?;
    let puller = RegistryPuller::new(request.registry, Arc::clone(&place.layout), Arc::clone(&place.observer))?;
    let asked: Option<&dyn Puller> = if offline { None } else { Some(&puller) };
    let mut bases = Bases::new(&place.layout, &place.cache, asked);
    bases.refresh = request.dockerfile.pull;
    let fetcher = session::plain_fetcher(offline);
    let caches = Caches::new(request.caches, request.registry, offline, &place.observer)?;
    let borrowing = caches.as_ref().map(|caches| caches.borrowing(&place.cache, &place.layout, &place.observer));
    let elsewhere: &dyn Elsewhere = borrowing.as_ref().map_or(&(), |borrowing| borrowing);
    // Until its tags name it, nobody may take what is built for garbage.
    let _lease = place.layout.lease();
    let builder = Builder { elsewhere, ..builder(request, &recipe, &place, &inputs, (&fetcher, &bases))? };
    let (layout, observer) = (&place.layout, place.observer.as_ref());
    let mut built = Vec::with_capacity(platforms.len());
    for platform in &platforms {
        if platforms.len() > 1 {
            observer.observe(Event::Note(&format!("building for {platform}")));
        }
        recipe.platform = platform.clone();
        built.push(builder.dockerfile(&recipe)?);
    }
    let finished = Finished::of(&built.iter().collect::<Vec<_>>(), layout)?;
    let names: Vec<Named> = match tags.is_empty() {
        true => vec![(by_digest(&recipe.reference, &finished.manifest), finished.manifest.clone())],
        false => tags.iter().map(|tag| (tag.clone(), finished.manifest.clone())).collect(),
    };
    layout.set_references(&names)?;
    let built: Vec<BuiltImage> = built.into_iter().map(|image| image.called(names[0].0.clone())).collect();
    let finished = Finished { reference: names[0].0.clone(), ..finished };
    session::attach_statements(layout, &built, None, request.build, observer)?;
    let writer = destination::Writer {
        layout,
        cache: &place.cache,
        observer,
        interrupt: &place.interrupt,
        owners: place.file_owners,
    };
    writer.write(request.destinations, &names, &platforms[0])?;
    let totals = match request.dockerfile.push {
        true => push(request, &place, &names)?,
        false => PushTotals::default(),
    };
    if let Some(caches) = caches.as_ref().filter(|caches| caches.wants_results()) {
        let lent = lend(&place.cache, elsewhere, &built, request.dockerfile.push)?;
        caches.store(layout, &lent)?;
    }
    // As docker: an image's id is the digest of its configuration; an index has none, and is known by its own.
    let id = match built.as_slice() {
        [only] => only.config_digest,
        _ => finished.manifest.digest,
    };
    if let Some(path) = &request.dockerfile.iidfile {
        write_file(path, &id.to_string())?;
    }
    if let Some(path) = &request.build.metadata_file {
        let named = std::slice::from_ref(&finished);
        metadata::write(path, (&built, named), totals, place.started.elapsed().as_secs_f64())?;
    }
    let text = match output.quiet {
        // As docker: the image's id and nothing else.
        true => format!("{id}\n"),
        false => names.iter().map(|(name, manifest)| format!("{name} {}\n", manifest.digest)).collect(),
    };
    if !destination::takes_stdout(request.destinations) {
        session::print(&text)?;
    }
    Ok(finished)
}

/// Says what a build would do, and why. Nothing is built or pulled; only what `ADD` fetches is kept.
pub fn explain(request: &Request<'_>) -> Result<ExplainedImage, Failure> {
    let tags = tags(request)?;
    let platforms = platform::each_once(request.build.platform.iter().cloned());
    let place = Workplace::to_look_at(request.build)?;
    let inputs = Inputs::read(request, &place)?;
    if platforms.len() > 1 {
        return Err(Failure::Usage("one platform at a time can be explained: give --platform once".to_owned()));
    }
    let recipe = recipe(request, &inputs, &tags, &platforms[0])?;
    let bases = Bases::new(&place.layout, &place.cache, None);
    let fetcher = session::plain_fetcher(request.build.lock.offline);
    let builder = builder(request, &recipe, &place, &inputs, (&fetcher, &bases))?;
    let steps = builder.explain_recipe(&recipe)?;
    Ok(ExplainedImage { image: recipe.name.to_string(), reference: recipe.reference.to_string(), steps })
}

/// The names that the image gets, if what is asked for can be done at all.
fn tags(request: &Request<'_>) -> Result<Vec<Reference>, Failure> {
    if request.build.locked {
        let text = "a Dockerfile outside of a family has no lock: leave --locked out, or name bases by digest";
        return Err(Failure::Usage(text.to_owned()));
    }
    request.tags.iter().map(|tag| reference(tag)).collect()
}

/// What is built, from what a command line says.
fn recipe<'a>(
    request: &Request<'_>,
    inputs: &'a Inputs,
    tags: &[Reference],
    platform: &Platform,
) -> Result<Recipe<'a>, Failure> {
    check(&inputs.dockerfile)?;
    let name = image_name(tags, &request.context);
    Ok(Recipe {
        dockerfile: &inputs.dockerfile,
        context: inputs.context.as_ref(),
        reference: tags.first().cloned().unwrap_or_else(|| unnamed(&name)),
        name,
        target: request.dockerfile.target.clone(),
        arguments: arguments(&request.dockerfile.build_arg),
        labels: pairs(&request.dockerfile.label, "--label")?,
        annotations: pairs(&request.dockerfile.annotation, "--annotation")?,
        platform: platform.clone(),
        network: match request.dockerfile.network {
            NetworkKind::None => Network::None,
            NetworkKind::Default | NetworkKind::Host => Network::Host,
        },
        agents: agents(&request.dockerfile.ssh)?,
        siblings: BTreeMap::new(),
    })
}

/// Who builds a recipe. An argument may say the date of the image.
fn builder<'a>(
    request: &Request<'_>,
    recipe: &Recipe<'_>,
    place: &'a Workplace,
    inputs: &Inputs,
    (fetcher, bases): (&'a Fetcher, &'a Bases<'a>),
) -> Result<Builder<'a>, Failure> {
    let mut builder = place.builder(request.build, &inputs.directory, fetcher, bases)?;
    if let Some(given) = recipe.arguments.get(SOURCE_DATE_EPOCH) {
        builder.options.epoch = session::epoch_of(given)?;
    }
    Ok(builder)
}

/// `# check=error=true`: what BuildKit would warn of is an error, and nothing is built. What only this program's rules say
/// is left to `lint`: who wrote the line does not know them.
fn check(dockerfile: &Dockerfile) -> Result<(), Failure> {
    if !dockerfile.directives.check.as_ref().is_some_and(|check| check.value.error) {
        return Ok(());
    }
    let report = lint::dockerfile(&dockerfile.file, None, &[], &lint::Selection::default());
    let mut found = Diagnostics::new();
    for finding in report.findings.into_iter().filter(|finding| finding.rule.is_of_buildkit()) {
        let mut diagnostic = finding.diagnostic;
        diagnostic.title = format!("{} ({}, an error by `# check=error=true`)", diagnostic.title, finding.rule.name);
        found.push(diagnostic);
    }
    if found.is_empty() { Ok(()) } else { Err(Failure::Spec(found)) }
}

/// What a build reads.
struct Inputs {
    dockerfile: Dockerfile,
    context: Option<Context>,
    /// The directory of the context.
    directory: PathBuf,
    /// Held, never read: where the context is if it came as a tar.
    _unpacked: Option<ScratchDir>,
}

impl Inputs {
    fn read(request: &Request<'_>, place: &Workplace) -> Result<Self, Failure> {
        let file = request.dockerfile.file.as_deref();
        let from_stdin = file.is_some_and(|file| file == Path::new(STDIN));
        if from_stdin && request.context == STDIN {
            let text = "the Dockerfile and the context cannot both come from standard input";
            return Err(Failure::Usage(text.to_owned()));
        }
        let context = ContextSource::find(request, place)?;
        if let ContextSource::Text(text) = context {
            let dockerfile = parsed(DOCKERFILE, text.into_bytes())?;
            return Ok(Self { dockerfile, context: None, directory: PathBuf::from("."), _unpacked: None });
        }
        let (directory, unpacked) = match context {
            ContextSource::Directory(directory) => (directory, None),
            ContextSource::Unpacked(directory, scratch) => (directory, Some(scratch)),
            ContextSource::Text(_) => unreachable!("returned above"),
        };
        let (name, path, bytes) = match (from_stdin, file) {
            (true, _) => ("standard input".to_owned(), directory.join(DOCKERFILE), read_stdin()?),
            (false, file) => {
                let path = dockerfile_path(file, &directory, unpacked.is_some())?;
                (path.display().to_string(), path.clone(), read_text(&path)?)
            }
        };
        let dockerfile = parsed(&name, bytes)?;
        let context = Context::of_dockerfile(&path, &directory)?;
        Ok(Self { dockerfile, context: Some(context), directory, _unpacked: unpacked })
    }
}

/// The repository that a context is, if it is one.
fn repository(context: &str) -> Result<Option<GitAddress>, Failure> {
    let wrong = |error: String| Failure::Usage(format!("the context `{context}`: {error}"));
    GitAddress::parse(context).filter(|_| !Path::new(context).exists()).transpose().map_err(wrong)
}

/// Where a context is.
enum ContextSource {
    Directory(PathBuf),
    Unpacked(PathBuf, ScratchDir),
    /// None: standard input is a Dockerfile.
    Text(String),
}

impl ContextSource {
    fn find(request: &Request<'_>, place: &Workplace) -> Result<Self, Failure> {
        let context = request.context.as_str();
        if context == STDIN {
            let mut stdin = std::io::stdin().lock();
            let mut head = Vec::new();
            stdin.by_ref().take(512).read_to_end(&mut head).map_err(Failure::of)?;
            if !is_archive(&head) {
                stdin.take(LARGEST_TEXT).read_to_end(&mut head).map_err(Failure::of)?;
                let text = String::from_utf8(head).map_err(|_| {
                    Failure::Usage("standard input is neither a tar nor the text of a Dockerfile".to_owned())
                })?;
                return Ok(Self::Text(text));
            }
            // What unpacks it locks it itself.
            drop(stdin);
            return Self::unpack("standard input", std::io::Cursor::new(head).chain(std::io::stdin()), place);
        }
        if let Some(address) = repository(context)? {
            return Self::check_out(&address, request, place);
        }
        if ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| context.starts_with(scheme)) {
            let text = format!(
                "`{context}`: a context is a directory, a tar file, `-` for a tar on standard input, or a repository"
            );
            return Err(Failure::Usage(text));
        }
        let path = Path::new(context);
        let missing =
            |error: std::io::Error| Failure::Usage(format!("the context `{context}` cannot be read: {error}"));
        match std::fs::metadata(path).map_err(missing)?.is_dir() {
            true => Ok(Self::Directory(path.to_path_buf())),
            false => Self::unpack(context, std::fs::File::open(path).map_err(missing)?, place),
        }
    }

    /// A directory of a repository, as it is now.
    fn check_out(address: &GitAddress, request: &Request<'_>, place: &Workplace) -> Result<Self, Failure> {
        if request.build.lock.offline {
            let text = format!("{} is a repository, and with --offline nothing is fetched", address.shown());
            return Err(Failure::new(text));
        }
        let scratch = place.cache.scratch_dir()?;
        let agents = agents(&request.dockerfile.ssh)?;
        let git = Git {
            interrupt: &place.interrupt,
            agent: agents.get("default").map(PathBuf::as_path),
            authorization: Authorization::of(place.secrets()),
        };
        let keep = arguments(&request.dockerfile.build_arg).get(KEEPS_GIT).is_some_and(|value| value == "1");
        let directory =
            git.context(address, &scratch.path().join("git"), keep).map_err(|error| match error.kind() {
                std::io::ErrorKind::Interrupted => Failure::Interrupted,
                _ => Failure::new(error.to_string()),
            })?;
        match directory.is_dir() {
            true => Ok(Self::Unpacked(directory, scratch)),
            false => {
                let text = format!("there is no directory `{}` in {}", address.directory, address.shown());
                Err(Failure::new(text))
            }
        }
    }

    fn unpack(name: &str, tar: impl std::io::Read + Send, place: &Workplace) -> Result<Self, Failure> {
        let scratch = place.cache.scratch_dir()?;
        let unpacked = drystone::dockerfile::context::unpack(tar, &scratch.path().join("context"));
        let directory =
            unpacked.map_err(|error| Failure::new(format!("the context from {name} cannot be unpacked: {error}")))?;
        Ok(Self::Unpacked(directory, scratch))
    }
}

fn is_archive(head: &[u8]) -> bool {
    layer::compress::is_compressed(head) || head.get(257..262) == Some(b"ustar")
}

/// Where the Dockerfile is: what `-f` says, seen from here, or in a tar or a repository from its root; else the one of the
/// context.
fn dockerfile_path(file: Option<&Path>, directory: &Path, is_unpacked: bool) -> Result<PathBuf, Failure> {
    let Some(file) = file else {
        let at = |name: &str| match is_unpacked {
            true => inside(directory, name).unwrap_or_else(|_| directory.join(name)),
            false => directory.join(name),
        };
        let usual = [DOCKERFILE, CONTAINERFILE].map(at);
        let found = usual.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            let text = format!("there is no {DOCKERFILE} in `{}`: name one with -f", directory.display());
            Failure::Usage(text)
        })?;
        // Who builds what others sent has not chosen where its links lead.
        if leads_out(&found, directory).map_err(Failure::of)? {
            let text = "is a link that leads out of the context: if you mean that file, name it with -f";
            return Err(Failure::Usage(format!("`{}` {text}", found.display())));
        }
        return Ok(found);
    };
    if is_unpacked && !file.is_absolute() {
        // Whoever made the context says where its links lead.
        let found = file.to_str().and_then(|file| inside(directory, file).ok()).filter(|path| path.is_file());
        return found.ok_or_else(|| Failure::Usage(format!("there is no Dockerfile `{}`", file.display())));
    }
    let inside = directory.join(file);
    if file.is_file() || file.is_absolute() {
        return Ok(file.to_path_buf());
    }
    match inside.is_file() {
        true => Ok(inside),
        false => Err(Failure::Usage(format!("there is no Dockerfile `{}`", file.display()))),
    }
}

fn parsed(name: &str, bytes: Vec<u8>) -> Result<Dockerfile, Failure> {
    let file = SourceFile::from_bytes(name, bytes).map_err(Failure::Spec)?;
    parse(&Arc::new(file)).map_err(Failure::Spec)
}

fn read_text(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::Usage(format!("cannot read `{}`: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LARGEST_TEXT + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > LARGEST_TEXT {
        true => Err(Failure::Usage(format!("`{}` is larger than {LARGEST_TEXT} bytes", path.display()))),
        false => Ok(bytes),
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(LARGEST_TEXT).read_to_end(&mut bytes).map_err(Failure::of)?;
    Ok(bytes)
}

/// The name of an image as its users write it. Without a registry it is this machine's, as for podman: nothing should
/// get to a public registry because somebody left a name out.
pub fn reference(text: &str) -> Result<Reference, Failure> {
    let parsed = text.parse::<Reference>().or_else(|error| match text.contains("://") {
        true => Err(error),
        false => format!("localhost/{text}").parse(),
    });
    let reference = parsed.map_err(|error| Failure::Usage(format!("`{text}` cannot name an image: {error}")))?;
    if reference.digest().is_some() {
        return Err(Failure::Usage(format!(
            "`{text}` cannot name an image: its digest is not known before it is built"
        )));
    }
    match reference.tag() {
        Some(_) => Ok(reference),
        None => Ok(reference.with_tag(Some(USUAL_TAG.parse().expect("a constant tag is valid")))),
    }
}

/// What the image is called in what is told of the build.
fn image_name(tags: &[Reference], context: &str) -> ImageName {
    let of_tag = tags.first().and_then(|tag| tag.repository().as_str().rsplit('/').next().map(str::to_owned));
    let of_directory = || {
        let path = std::fs::canonicalize(context).ok()?;
        Some(path.file_name()?.to_string_lossy().to_ascii_lowercase())
    };
    let name = of_tag.or_else(of_directory).and_then(|name| name.parse().ok());
    name.unwrap_or_else(|| "image".parse().expect("a constant name is valid"))
}

fn unnamed(name: &ImageName) -> Reference {
    format!("localhost/{name}").parse().unwrap_or_else(|_| "localhost/image".parse().expect("a constant name is valid"))
}

fn by_digest(reference: &Reference, manifest: &Descriptor) -> Reference {
    reference.clone().with_tag(None).with_digest(Some(manifest.digest))
}

/// Values for `ARG`: `NAME=VALUE`, or `NAME` for what the environment says.
fn arguments(given: &[String]) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some((name, value)) => drop(arguments.insert(name.to_owned(), value.to_owned())),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the command line")]
                let value = std::env::var(text);
                if let Ok(value) = value {
                    arguments.insert(text.clone(), value);
                }
            }
        }
    }
    arguments
}

fn pairs(given: &[String], flag: &str) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for text in given {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(Failure::Usage(format!("{flag} `{text}`: expected KEY=VALUE")));
        }
        pairs.insert(key.to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// Sockets of agents: `default`, `NAME`, or `NAME=SOCKET`.
fn agents(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut agents = BTreeMap::new();
    for text in given {
        let (name, socket) = match text.split_once('=') {
            Some((name, socket)) => (name, Some(PathBuf::from(socket))),
            None => (text.as_str(), None),
        };
        #[expect(clippy::disallowed_methods, reason = "this is the command line")]
        let socket = socket.or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from));
        let Some(socket) = socket else {
            return Err(Failure::Usage(format!("--ssh {text}: SSH_AUTH_SOCK is not set, so there is no agent")));
        };
        use std::os::unix::fs::FileTypeExt as _;
        if !std::fs::metadata(&socket).is_ok_and(|found| found.file_type().is_socket()) {
            let text = format!("--ssh {text}: `{}` is not the socket of an agent", socket.display());
            return Err(Failure::with_hint(text, "start one with `ssh-agent`, and load keys with `ssh-add`"));
        }
        agents.insert(name.to_owned(), socket);
    }
    Ok(agents)
}

/// Pushes the image under all of its names.
fn push(request: &Request<'_>, place: &Workplace, names: &[Named]) -> Result<PushTotals, Failure> {
    let outgoing: Vec<Outgoing> =
        names.iter().map(|(name, manifest)| Outgoing { target: name.clone(), manifest: manifest.clone() }).collect();
    let options = registries::options_with_kept_credentials(request.registry)?;
    let client = push::client_of(&place.layout, options, Arc::clone(&place.observer))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::of)?;
    let done = runtime.block_on(async {
        tokio::select! {
            totals = push::push(&client, &place.layout, &outgoing, place.observer.as_ref()) => totals.map_err(Failure::from),
            () = session::interrupted(&place.interrupt) => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    done
}

/// Writes a small file of results.
pub fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display())))
}
