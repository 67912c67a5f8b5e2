//! From a lock to its text.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{LOCK_VERSION, Lock, LockedDeb, LockedImage, LockedPython, LockedSource, LockedStep};

const HEAD: &str = "\
# Every input of this family by digest, and the layers of its packages: written by `drystone lock`, and by builds.
# `drystone lock --update` takes what the archives have today; after a merge with conflicts, `drystone lock` repairs.
";

/// How many digits of a digest tell packages apart that have everything else in common.
pub(super) const SHORT_DIGEST: usize = 12;

impl Lock {
    /// The text of the file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}drystone-lock {LOCK_VERSION}\n");
        let packages = self.packages();
        let names = Names::of(&packages);
        for source in &self.sources {
            text.push('\n');
            write_source(&mut text, source);
        }
        paragraph(&mut text, &self.parents, |parent| {
            let size = parent.size.map(|size| format!(" {size}")).unwrap_or_default();
            format!("parent {} {} {}{size}", parent.reference, parent.platform, parent.digest)
        });
        paragraph(&mut text, &self.files, |file| format!("file {} {} {}", file.url, file.size, file.sha256));
        paragraph(&mut text, &packages, |package| {
            let LockedDeb { name, version, architecture, source, suite, path, size, sha256 } = package;
            format!("package {name} {version} {architecture} {source} {suite} {path} {size} {sha256}")
        });
        for image in &self.images {
            text.push('\n');
            write_image(&mut text, image, &names);
        }
        text
    }
}

fn paragraph<T>(text: &mut String, items: &[T], line: impl Fn(&T) -> String) {
    if !items.is_empty() {
        text.push('\n');
    }
    for item in items {
        let _ = writeln!(text, "{}", line(item));
    }
}

fn write_source(text: &mut String, source: &LockedSource) {
    let _ = writeln!(text, "source {} {}", source.name, source.description.join(" "));
    for release in &source.releases {
        let signer = release.signer.as_deref().unwrap_or("unsigned");
        let _ =
            writeln!(text, "  release {} {} {} {} {signer}", release.suite, release.date, release.size, release.sha256);
    }
    for index in &source.indexes {
        let _ = writeln!(text, "  index {} {} {} {}", index.suite, index.path, index.size, index.sha256);
    }
}

fn write_image(text: &mut String, image: &LockedImage, names: &Names<'_>) {
    let _ = writeln!(text, "image {} {}", image.name, image.platform);
    let _ = writeln!(text, "  from {}", image.from);
    let _ = writeln!(text, "  budget {}{}", image.budget, if image.squashed { " squashed" } else { "" });
    if !image.sources.is_empty() {
        let _ = writeln!(text, "  sources {}", image.sources.join(" "));
    }
    let _ = writeln!(text, "  recommends {}", if image.recommends { "yes" } else { "no" });
    for (number, step) in (1..).zip(&image.steps) {
        let _ = writeln!(text, "  step {number}");
        write_step(text, step, names);
    }
}

fn write_step(text: &mut String, step: &LockedStep, names: &Names<'_>) {
    for ask in &step.asks {
        let _ = writeln!(text, "    ask {ask}");
    }
    let _ = match &step.python {
        LockedPython::Never => writeln!(text, "    python never"),
        LockedPython::ByScripts => writeln!(text, "    python by-scripts"),
        LockedPython::Interpreter { version, packages } => {
            writeln!(text, "    python {version} {}", packages.join(" "))
        }
    };
    let mut labels = HashMap::new();
    for layer in &step.layers {
        let Some(label) = layer.iter().map(|place| step.packages[*place].name.as_str()).min() else { continue };
        let _ = writeln!(text, "    layer {label}");
        labels.extend(layer.iter().map(|place| (*place, label)));
    }
    for (place, package) in step.packages.iter().enumerate() {
        let label = labels.get(&place).copied().unwrap_or_default();
        let _ = writeln!(text, "    lay {} {label}", names.name(package));
    }
}

/// The shortest ways to name each package.
pub(super) struct Names<'a> {
    by_name: HashMap<&'a str, Vec<&'a LockedDeb>>,
}

impl<'a> Names<'a> {
    pub(super) fn of(packages: &[&'a LockedDeb]) -> Self {
        let mut by_name: HashMap<&str, Vec<&LockedDeb>> = HashMap::new();
        for package in packages {
            by_name.entry(&package.name).or_default().push(package);
        }
        Self { by_name }
    }

    fn name(&self, package: &LockedDeb) -> String {
        let LockedDeb { name, version, architecture, sha256, .. } = package;
        let digits = &sha256.as_str()[..SHORT_DIGEST];
        let forms = [
            name.clone(),
            format!("{name}:{architecture}"),
            format!("{name}={version}"),
            format!("{name}={version}#{digits}"),
        ];
        let [.., last] = &forms;
        let clear = forms.iter().find(|form| self.find(form).len() == 1);
        clear.unwrap_or(last).clone()
    }

    /// The packages that a name may mean.
    pub(super) fn find(&self, text: &str) -> Vec<&'a LockedDeb> {
        let (text, digits) = text.split_once('#').unwrap_or((text, ""));
        let (name, version) = text.split_once('=').map_or((text, None), |(name, version)| (name, Some(version)));
        // A version may have a colon in it.
        let (name, architecture) =
            name.split_once(':').map_or((name, None), |(name, architecture)| (name, Some(architecture)));
        let fits = |package: &&&LockedDeb| {
            version.is_none_or(|version| package.version == version)
                && architecture.is_none_or(|architecture| package.architecture == architecture)
                && package.sha256.as_str().starts_with(digits)
        };
        self.by_name.get(name).into_iter().flatten().filter(fits).copied().collect()
    }
}
