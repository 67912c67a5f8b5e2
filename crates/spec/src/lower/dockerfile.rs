//! Lowers a Dockerfile of a family: which images of the family it needs. What it does is left to whoever builds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lowering;
use super::family::Settings;
use super::image::Names;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::dockerfile::{Arguments, Dockerfile, Kind, MountType, Scope};
use crate::model::{Config, Image, Parent};
use crate::source::{Located, Span};
use crate::value::{ImageName, Invalid};

/// The image of a Dockerfile, called like its directory. `None` if there is a note of why.
pub(crate) fn lower_dockerfile(
    lowering: &mut Lowering<'_>,
    directory: &str,
    dockerfile: &Arc<Dockerfile>,
    settings: &Settings,
    names: &Names,
) -> Option<Image> {
    let span = Span::start_of(&dockerfile.file);
    let name = match directory.parse::<ImageName>() {
        Ok(name) => Located::new(name, span),
        Err(Invalid { title, expected, help }) => {
            let diagnostic = Diagnostic::new(span, format!("this image is called like its directory: {title}"));
            lowering.report(diagnostic.label(expected).help("rename the directory").help_if(help));
            return None;
        }
    };
    let found = Needs::of(dockerfile, names).map_err(|found| lowering.diagnostics.extend(found)).ok()?;
    let defaults = &settings.defaults;
    let from = found.from?;
    let needs = found.siblings.into_iter().filter(|need| from.value != Parent::Sibling(need.value.clone())).collect();
    Some(Image {
        name,
        directory: directory.to_owned(),
        file: dockerfile.file.clone(),
        from,
        dockerfile: Some(Arc::clone(dockerfile)),
        needs,
        tag: settings.tag.clone()?,
        sources: Vec::new(),
        recommends: false,
        bytecode: false,
        steps: Vec::new(),
        on_build: Vec::new(),
        config: Config::default(),
        annotations: defaults.annotations.clone(),
        platforms: Vec::new(),
        exclude: Vec::new(),
        build_only: false,
        layer_budget: None,
    })
}

/// What a Dockerfile is built on, and takes files from.
struct Needs {
    from: Option<Located<Parent>>,
    siblings: Vec<Located<ImageName>>,
}

impl Needs {
    fn of(dockerfile: &Arc<Dockerfile>, names: &Names) -> Result<Self, Diagnostics> {
        // Nobody has given an argument yet: what is built on depends on defaults only.
        let arguments = Arguments::read(dockerfile, BTreeMap::new(), []);
        let scope = match &arguments {
            Ok(arguments) => arguments.global().clone(),
            Err(_) => Scope::new(dockerfile.directives.escape),
        };
        let mut needs = Self { from: None, siblings: Vec::new() };
        let mut origins: Vec<Located<Parent>> = Vec::new();
        for (place, stage) in dockerfile.stages.iter().enumerate() {
            let written = scope.expand(&stage.from)?.map(|expanded| expanded.text);
            let earlier = dockerfile.stages[..place].iter().rposition(|earlier| {
                earlier.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(&written.value))
            });
            let origin = match earlier {
                Some(stage) => origins[stage].clone(),
                None => needs.origin(written, names),
            };
            origins.push(origin);
            for instruction in &stage.instructions {
                let from = match &instruction.kind {
                    Kind::Copy(copy) => copy.from.clone().into_iter().collect(),
                    Kind::Run(run) => {
                        let mounts =
                            run.mounts.iter().filter_map(|flag| Some((flag.resolve(&scope).ok()?, flag.span())));
                        mounts
                            .filter(|(mount, _)| matches!(mount.kind, MountType::Bind | MountType::Cache))
                            .filter_map(|(mount, span)| Some(Located::new(mount.from?, span.clone())))
                            .collect::<Vec<_>>()
                    }
                    _ => Vec::new(),
                };
                for from in from {
                    let Ok(expanded) = scope.expand(&from) else { continue };
                    let text = expanded.map(|expanded| expanded.text);
                    if dockerfile.stage(&text.value).is_none_or(|stage| stage >= place) {
                        needs.sibling(&text, names);
                    }
                }
            }
        }
        needs.from = origins.pop();
        Ok(needs)
    }

    fn origin(&mut self, written: Located<String>, names: &Names) -> Located<Parent> {
        if written.value == "scratch" {
            return written.map(|_| Parent::Scratch);
        }
        match self.sibling(&written, names) {
            Some(name) => written.map(|_| Parent::Sibling(name)),
            None => written.map(Parent::External),
        }
    }

    /// Notes an image of the family, if it is one.
    fn sibling(&mut self, written: &Located<String>, names: &Names) -> Option<ImageName> {
        let name: ImageName = written.value.parse().ok().filter(|_| names.contains_key(&written.value))?;
        if !self.siblings.iter().any(|known| known.value == name) {
            self.siblings.push(Located::new(name.clone(), written.span.clone()));
        }
        Some(name)
    }
}
