//! From a text to a lock, with the place of whatever is wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::write::Names;
use super::{
    LOCK_VERSION, Lock, LockedDeb, LockedFile, LockedImage, LockedIndex, LockedParent, LockedPython, LockedRelease,
    LockedSource, LockedStep, Sha256, conflict,
};
use crate::diagnostic::{Diagnostic, quoted};
use crate::source::{SourceFile, Span};
use crate::suggest::did_you_mean;

/// The words that lines begin with.
const KEYWORDS: [&str; 16] = [
    "drystone-lock",
    "source",
    "release",
    "index",
    "parent",
    "file",
    "package",
    "image",
    "from",
    "budget",
    "sources",
    "recommends",
    "step",
    "ask",
    "python",
    "layer",
];

type Read<T> = Result<T, Box<Diagnostic>>;

impl Lock {
    /// Reads the text of a lock.
    pub fn parse(file: &Arc<SourceFile>) -> Result<Self, Box<Diagnostic>> {
        if let Some(span) = conflict::first_mark(file) {
            let title = "this lock has the marks of a merge with conflicts in it";
            return Err(Diagnostic::new(span, title).help("`drystone lock` repairs it").into());
        }
        let mut reader = Reader::default();
        for line in lines(file) {
            reader.line(&line)?;
        }
        if !reader.versioned {
            return Err(not_a_lock(Span::start_of(file)));
        }
        reader.finish()
    }
}

fn not_a_lock(span: Span) -> Box<Diagnostic> {
    let title = format!("this is not a lock: expected `drystone-lock {LOCK_VERSION}`");
    Diagnostic::new(span, title).help("remove the file, and `drystone lock` writes a new one").into()
}

/// The words of a line, each with its place.
struct Line {
    keyword: Span,
    words: Vec<Span>,
}

fn lines(file: &Arc<SourceFile>) -> impl Iterator<Item = Line> {
    let mut offset = 0;
    file.text.split_inclusive('\n').filter_map(move |line| {
        let start = offset;
        offset += line.len();
        let mut words = words(file, start, line);
        if words.is_empty() || words[0].text().starts_with('#') {
            return None;
        }
        let keyword = words.remove(0);
        Some(Line { keyword, words })
    })
}

fn words(file: &Arc<SourceFile>, start: usize, line: &str) -> Vec<Span> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(begin) = rest.find(|character: char| !character.is_ascii_whitespace()) {
        let at = start + (line.len() - rest.len()) + begin;
        let word = &rest[begin..];
        let length = word.find(|character: char| character.is_ascii_whitespace()).unwrap_or(word.len());
        words.push(Span::new(file, at..at + length));
        rest = &word[length..];
    }
    words
}

impl Line {
    /// The words, if they are so many.
    fn exactly<const N: usize>(&self, form: &str) -> Read<[&Span; N]> {
        let words: Vec<&Span> = self.words.iter().collect();
        words.try_into().map_err(|_| self.expected(form))
    }

    /// The words, if they are so many, or one more.
    fn one_more_or_none<const N: usize>(&self, form: &str) -> Read<([&Span; N], Option<&Span>)> {
        let (first, more) = self.words.split_first_chunk::<N>().ok_or_else(|| self.expected(form))?;
        match more {
            [] | [_] => Ok((first.each_ref(), more.first())),
            _ => Err(self.expected(form)),
        }
    }

    /// The first word and the others.
    fn first_and_more(&self, form: &str) -> Read<(&Span, &[Span])> {
        self.words.split_first().ok_or_else(|| self.expected(form))
    }

    fn expected(&self, form: &str) -> Box<Diagnostic> {
        let keyword = self.keyword.text();
        let words = if self.words.len() == 1 { "1 word".to_owned() } else { format!("{} words", self.words.len()) };
        let title = format!("expected `{keyword} {form}`, found {words} after `{keyword}`");
        Diagnostic::new(self.keyword.clone(), title).into()
    }

    fn misplaced(&self, above: &str) -> Box<Diagnostic> {
        let title = format!("`{}` belongs below `{above}`", self.keyword.text());
        Diagnostic::new(self.keyword.clone(), title).into()
    }
}

fn wrong(span: &Span, expected: &str) -> Box<Diagnostic> {
    Diagnostic::new(span.clone(), format!("expected {expected}, found {}", quoted(span.text()))).into()
}

fn text(span: &Span) -> String {
    span.text().to_owned()
}

fn number<T: std::str::FromStr>(span: &Span) -> Read<T> {
    let digits = span.text().bytes().all(|byte| byte.is_ascii_digit());
    span.text().parse().ok().filter(|_| digits).ok_or_else(|| wrong(span, "a number"))
}

fn sha256(span: &Span) -> Read<Sha256> {
    Sha256::new(span.text()).ok_or_else(|| wrong(span, "a sha256 of 64 hexadecimal digits in lower case"))
}

/// A path below an archive's root, which must not lead out of it nor to another host.
fn path(span: &Span) -> Read<String> {
    let text = span.text();
    let part = |part: &str| !part.is_empty() && part.to_ascii_lowercase().replace("%2e", ".") != "..";
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'?' | b'#' | b':' | b'[' | b']');
    if text.bytes().all(allowed) && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(wrong(span, "a path below an archive's root"))
}

#[derive(Default)]
struct Reader {
    versioned: bool,
    lock: Lock,
    packages: BTreeMap<LockedDeb, Span>,
    images: Vec<ReadImage>,
    /// Whether the lines that follow belong to the last source, or to the last image.
    within: Within,
}

#[derive(Default, PartialEq)]
enum Within {
    #[default]
    Nothing,
    Source,
    Image,
}

/// An image whose packages are names yet.
struct ReadImage {
    span: Span,
    image: LockedImage,
    steps: Vec<ReadStep>,
}

struct ReadStep {
    span: Span,
    asks: Vec<String>,
    python: Option<LockedPython>,
    layers: Vec<Span>,
    /// Each package, and the label of its layer.
    lay: Vec<(Span, Span)>,
}

impl Reader {
    fn line(&mut self, line: &Line) -> Read<()> {
        if !self.versioned {
            return self.version(line);
        }
        match line.keyword.text() {
            "source" | "parent" | "file" | "package" | "image" => self.entry(line),
            "release" | "index" => self.of_source(line),
            "from" | "budget" | "sources" | "recommends" | "step" => self.of_image(line),
            "ask" | "python" | "layer" | "lay" => self.of_step(line),
            other => {
                let title = format!("a lock has no lines that begin with {}", quoted(other));
                let help = did_you_mean(other, KEYWORDS.into_iter().chain(["lay"]));
                Err(Diagnostic::new(line.keyword.clone(), title).help_if(help).into())
            }
        }
    }

    fn version(&mut self, line: &Line) -> Read<()> {
        if line.keyword.text() != "drystone-lock" {
            return Err(not_a_lock(line.keyword.clone()));
        }
        let [version] = line.exactly("VERSION")?;
        let found: u32 = number(version)?;
        if found != LOCK_VERSION {
            let title = format!("this lock has the format {found}, and this version of drystone knows {LOCK_VERSION}");
            let help = "use the version of drystone that wrote it; or remove it, and `drystone lock` writes a new one";
            return Err(Diagnostic::new(version.clone(), title).help(help).into());
        }
        self.versioned = true;
        Ok(())
    }

    /// A line that belongs to nothing above it.
    fn entry(&mut self, line: &Line) -> Read<()> {
        self.within = Within::Nothing;
        match line.keyword.text() {
            "source" => {
                let (name, description) = line.first_and_more("NAME KEY=VALUE…")?;
                let (name, description) = (text(name), description.iter().map(text).collect());
                let source = LockedSource { name, description, releases: Vec::new(), indexes: Vec::new() };
                self.lock.sources.push(source);
                self.within = Within::Source;
            }
            "parent" => {
                let ([reference, platform, digest], size) =
                    line.one_more_or_none("REFERENCE PLATFORM DIGEST [SIZE]")?;
                let digits = digest.text().strip_prefix("sha256:").and_then(Sha256::new);
                digits.ok_or_else(|| wrong(digest, "a digest, `sha256:` and 64 hexadecimal digits"))?;
                let (reference, platform, digest) = (text(reference), text(platform), text(digest));
                let size = size.map(number).transpose()?;
                self.lock.parents.push(LockedParent { reference, platform, digest, size });
            }
            "file" => {
                let [url, size, digest] = line.exactly("URL SIZE SHA256")?;
                let file = LockedFile { url: text(url), size: number(size)?, sha256: sha256(digest)? };
                self.lock.files.push(file);
            }
            "package" => self.package(line)?,
            _ => {
                let [name, platform] = line.exactly("NAME PLATFORM")?;
                self.images.push(ReadImage::new(name, platform));
                self.within = Within::Image;
            }
        }
        Ok(())
    }

    fn package(&mut self, line: &Line) -> Read<()> {
        let [name, version, architecture, source, suite, place, size, digest] =
            line.exactly("NAME VERSION ARCHITECTURE SOURCE SUITE PATH SIZE SHA256")?;
        let package = LockedDeb {
            name: text(name),
            version: text(version),
            architecture: text(architecture),
            source: text(source),
            suite: text(suite),
            path: path(place)?,
            size: number(size)?,
            sha256: sha256(digest)?,
        };
        if let Some(first) = self.packages.insert(package, line.keyword.clone()) {
            let title = format!("the package {} is here twice", quoted(name.text()));
            return Err(Diagnostic::new(name.clone(), title).related(first, "and here").into());
        }
        Ok(())
    }

    fn of_source(&mut self, line: &Line) -> Read<()> {
        let Some(source) = self.lock.sources.last_mut().filter(|_| self.within == Within::Source) else {
            return Err(line.misplaced("source"));
        };
        if line.keyword.text() == "release" {
            let [suite, date, size, digest, signer] = line.exactly("SUITE DATE SIZE SHA256 KEY")?;
            let signer = Some(text(signer)).filter(|signer| signer != "unsigned");
            let (suite, date, size, sha256) = (text(suite), text(date), number(size)?, sha256(digest)?);
            source.releases.push(LockedRelease { suite, date, size, sha256, signer });
        } else {
            let [suite, place, size, digest] = line.exactly("SUITE PATH SIZE SHA256")?;
            let (suite, path, size, sha256) = (text(suite), path(place)?, number(size)?, sha256(digest)?);
            source.indexes.push(LockedIndex { suite, path, size, sha256 });
        }
        Ok(())
    }

    fn of_image(&mut self, line: &Line) -> Read<()> {
        let Some(read) = self.images.last_mut().filter(|_| self.within == Within::Image) else {
            return Err(line.misplaced("image"));
        };
        match line.keyword.text() {
            "from" => read.image.from = text(line.exactly::<1>("PARENT")?[0]),
            "budget" => {
                let (layers, more) = line.first_and_more("LAYERS [squashed]")?;
                read.image.budget = number(layers)?;
                read.image.squashed = match more {
                    [] => false,
                    [word] if word.text() == "squashed" => true,
                    [word, ..] => return Err(wrong(word, "`squashed` or nothing")),
                };
            }
            "sources" => read.image.sources = line.words.iter().map(text).collect(),
            "recommends" => {
                let [answer] = line.exactly("yes|no")?;
                read.image.recommends = match answer.text() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong(answer, "`yes` or `no`")),
                };
            }
            _ => {
                let [place] = line.exactly("NUMBER")?;
                let expected = read.steps.len() + 1;
                if number::<usize>(place)? != expected {
                    return Err(wrong(place, &format!("step {expected}")));
                }
                read.steps.push(ReadStep::new(place));
            }
        }
        Ok(())
    }

    fn of_step(&mut self, line: &Line) -> Read<()> {
        let image = self.images.last_mut().filter(|_| self.within == Within::Image);
        let Some(step) = image.and_then(|image| image.steps.last_mut()) else {
            return Err(line.misplaced("step"));
        };
        match line.keyword.text() {
            "ask" => step.asks.push(text(line.exactly::<1>("REQUEST")?[0])),
            "python" => {
                let (first, packages) = line.first_and_more("VERSION NAME…|by-scripts|never")?;
                step.python = Some(match (first.text(), packages) {
                    ("never", []) => LockedPython::Never,
                    ("by-scripts", []) => LockedPython::ByScripts,
                    (version, packages) if version.starts_with(|first: char| first.is_ascii_digit()) => {
                        let packages = packages.iter().map(text).collect();
                        LockedPython::Interpreter { version: version.to_owned(), packages }
                    }
                    _ => return Err(wrong(first, "a version, `by-scripts` or `never`")),
                });
            }
            "layer" => step.layers.push(line.exactly::<1>("LABEL")?[0].clone()),
            _ => {
                let [package, label] = line.exactly("NAME LABEL")?;
                step.lay.push((package.clone(), label.clone()));
            }
        }
        Ok(())
    }

    /// Puts packages in the place of their names.
    fn finish(mut self) -> Read<Lock> {
        let packages: Vec<&LockedDeb> = self.packages.keys().collect();
        let names = Names::of(&packages);
        let mut seen: BTreeMap<(String, String), Span> = BTreeMap::new();
        for read in self.images {
            let span = read.span.clone();
            let image = read.finish(&names)?;
            if let Some(first) = seen.insert((image.name.clone(), image.platform.clone()), span.clone()) {
                let title = format!("the image {} is here twice", quoted(&image.name));
                return Err(Diagnostic::new(span, title).related(first, "and here").into());
            }
            self.lock.images.push(image);
        }
        self.lock.sort();
        Ok(self.lock)
    }
}

impl ReadImage {
    fn new(name: &Span, platform: &Span) -> Self {
        let image = LockedImage {
            name: text(name),
            platform: text(platform),
            from: String::new(),
            budget: 0,
            squashed: false,
            sources: Vec::new(),
            recommends: false,
            steps: Vec::new(),
        };
        Self { span: name.clone(), image, steps: Vec::new() }
    }

    fn finish(mut self, names: &Names<'_>) -> Read<LockedImage> {
        let missing = [("from", self.image.from.is_empty()), ("budget", self.image.budget == 0)];
        if let Some((line, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            let title = format!("the image {} has no line `{line}`", quoted(&self.image.name));
            return Err(Diagnostic::new(self.span, title).into());
        }
        self.image.steps = self.steps.into_iter().map(|step| step.finish(names)).collect::<Read<_>>()?;
        Ok(self.image)
    }
}

impl ReadStep {
    fn new(span: &Span) -> Self {
        Self { span: span.clone(), asks: Vec::new(), python: None, layers: Vec::new(), lay: Vec::new() }
    }

    fn finish(self, names: &Names<'_>) -> Read<LockedStep> {
        let python = self.python.ok_or_else(|| Diagnostic::new(self.span, "the step has no line `python`"))?;
        let labels: HashMap<&str, usize> = self.layers.iter().map(Span::text).zip(0..).collect();
        let mut layers = vec![Vec::new(); self.layers.len()];
        let mut packages = Vec::with_capacity(self.lay.len());
        for (place, (name, label)) in self.lay.iter().enumerate() {
            let package = one_package(name, names)?;
            let layer = labels.get(label.text()).ok_or_else(|| {
                let title = format!("the step has no line `layer {}`", label.text());
                Diagnostic::new(label.clone(), title)
            })?;
            layers[*layer].push(place);
            packages.push(package.clone());
        }
        if let Some(empty) = layers.iter().position(Vec::is_empty) {
            let span = self.layers[empty].clone();
            return Err(Diagnostic::new(span, "no package of the step is in this layer").into());
        }
        let by_name = |layer: &mut Vec<usize>| layer.sort_by_key(|place| &packages[*place].name);
        layers.iter_mut().for_each(by_name);
        Ok(LockedStep { asks: self.asks, python, packages, layers })
    }
}

fn one_package<'a>(name: &Span, names: &Names<'a>) -> Read<&'a LockedDeb> {
    match names.find(name.text()).as_slice() {
        [package] => Ok(package),
        [] => Err(Diagnostic::new(name.clone(), format!("the lock has no package {}", quoted(name.text()))).into()),
        several => {
            let title = format!("{} may be any of {} packages", quoted(name.text()), several.len());
            Err(Diagnostic::new(name.clone(), title).help("add a version: `NAME=VERSION`").into())
        }
    }
}
