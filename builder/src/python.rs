//! Which Python compiles the modules of an image's packages, decided when the image is planned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use content::{Digest, FramedHasher};
use debian::package::{Package, RelationField};

use crate::plan::LockedPackage;

/// The package with py3compile, which scripts call.
const PY3COMPILE: &str = "python3-minimal";

/// What becomes of the modules that a step's packages bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiling {
    /// They are compiled once for all images, with this interpreter, and laid with their packages.
    Once(Interpreter),
    /// The packages' scripts compile what they will.
    ByScripts,
    /// They are not compiled.
    Never,
}

impl Compiling {
    /// By this interpreter if there is one.
    pub fn by(interpreter: Option<Interpreter>) -> Self {
        interpreter.map_or(Self::ByScripts, Self::Once)
    }

    /// Names it in the key of a step.
    pub fn key(&self) -> String {
        match self {
            Self::Once(interpreter) => interpreter.key().to_string(),
            Self::ByScripts => "by scripts".to_owned(),
            Self::Never => "never".to_owned(),
        }
    }
}

/// A Python and what it needs to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its version, as `3.11`.
    pub version: String,
    /// The packages with it, and those that they depend on, sorted by name.
    pub packages: Vec<LockedPackage>,
}

impl Interpreter {
    /// The interpreter that py3compile takes in an image with these packages, if there is exactly one. `locked` are
    /// the same packages by digest.
    pub fn among(installed: &[Package], locked: &[&LockedPackage]) -> Option<Self> {
        let chooser = installed.iter().find(|package| package.name() == PY3COMPILE)?;
        let mut versions = installed.iter().filter_map(|package| minimal_version(package.name()));
        let version = versions.next()?.to_owned();
        let name = format!("python{version}-minimal");
        let is_chosen = relations(chooser).any(|group| group.contains(&name));
        // With several, py3compile takes each for public modules, and that is left to it.
        if versions.next().is_some() || !is_chosen {
            return None;
        }
        let needed = closure(&name, installed);
        let by_name: BTreeMap<&str, &LockedPackage> =
            locked.iter().map(|package| (package.name.as_str(), *package)).collect();
        let packages: Option<Vec<LockedPackage>> =
            needed.iter().map(|name| by_name.get(name).map(|package| (*package).clone())).collect();
        Some(Self { version, packages: packages? })
    }

    /// Names it, by the digests of its packages.
    pub fn key(&self) -> Digest {
        let digests: Vec<&[u8]> = self.packages.iter().map(|package| package.sha256.as_bytes()).collect();
        FramedHasher::new("interpreter").field("version", &self.version).list("debs", digests).finish()
    }

    /// Where the program is in an image.
    pub fn program(&self) -> String {
        format!("usr/bin/python{}", self.version)
    }

    /// The module that knows how bytecode is written.
    pub fn importer(&self) -> String {
        format!("usr/lib/python{}/importlib/util.py", self.version)
    }

    /// Where the bytecode of a module goes; nothing for a name that no module can have. See PEP 3147.
    pub fn bytecode_of(&self, module: &str) -> Option<String> {
        let (directory, name) = module.rsplit_once('/')?;
        let stem = name.strip_suffix(".py").filter(|stem| !stem.is_empty())?;
        let tag = self.version.replace('.', "");
        Some(format!("{directory}/__pycache__/{stem}.cpython-{tag}.pyc"))
    }
}

/// The version of a package that holds an interpreter, `python3.11-minimal`.
fn minimal_version(package: &str) -> Option<&str> {
    let version = package.strip_prefix("python")?.strip_suffix("-minimal")?;
    let (major, minor) = version.split_once('.')?;
    [major, minor]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(version)
}

/// The names of a package and of all installed ones that it depends on.
fn closure<'p>(root: &'p str, installed: &'p [Package]) -> BTreeSet<&'p str> {
    let by_name: BTreeMap<&str, &Package> = installed.iter().map(|package| (package.name(), package)).collect();
    let provider = |name: &str| {
        let provides = |package: &&Package| {
            package.provides().is_ok_and(|provided| provided.iter().any(|provided| *provided.name == *name))
        };
        installed.iter().filter(|package| package.has_provides()).find(provides)
    };
    let mut needed = BTreeSet::new();
    let mut waiting = VecDeque::from([root]);
    while let Some(name) = waiting.pop_front() {
        let Some(package) = by_name.get(name) else { continue };
        if !needed.insert(package.name()) {
            continue;
        }
        for group in relations(package) {
            let installed = group.iter().find_map(|name| by_name.get(name.as_str()).copied());
            let found = installed.or_else(|| group.iter().find_map(|name| provider(name)));
            waiting.extend(found.map(Package::name));
        }
    }
    needed
}

/// What a package needs: groups of names of which any one will do.
fn relations(package: &Package) -> impl Iterator<Item = Vec<String>> {
    [RelationField::PreDepends, RelationField::Depends].into_iter().flat_map(|field| {
        // A field that cannot be read was an error when the packages were chosen.
        let groups = package.relations(field).unwrap_or_default();
        groups.into_iter().map(|group| group.iter().map(|relation| relation.name.to_string()).collect())
    })
}

#[cfg(test)]
mod tests {
    use debian::parse_index;

    use super::*;
    use crate::plan::Origin;

    const INSTALLED: &str = "\
Package: python3-minimal\nVersion: 3.11.2-1\nArchitecture: amd64\nPre-Depends: python3.11-minimal (>= 3.11.2)\n
Package: python3.11-minimal\nVersion: 3.11.2-6\nArchitecture: amd64\nDepends: libpython3.11-minimal (= 3.11.2-6)
Pre-Depends: libc6 (>= 2.35), libexpat | libexpat1\n
Package: libpython3.11-minimal\nVersion: 3.11.2-6\nArchitecture: amd64\nDepends: libssl\n
Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\nDepends: libgcc-s1\n
Package: libgcc-s1\nVersion: 12\nArchitecture: amd64\nDepends: libc6 (>= 2.35)\n
Package: libexpat1\nVersion: 2.5\nArchitecture: amd64\n
Package: libssl3\nVersion: 3.0\nArchitecture: amd64\nProvides: libssl\n
Package: redis\nVersion: 7\nArchitecture: amd64\nDepends: libc6\n";

    fn among(index: &str) -> Option<Interpreter> {
        let installed: Vec<Package> = index
            .split("\n\n")
            .map(|stanza| format!("{}\nFilename: x.deb\nSize: 1\nSHA256: {}\n\n", stanza.trim_end(), "0".repeat(64)))
            .flat_map(|stanza| parse_index(&stanza).unwrap())
            .collect();
        let locked: Vec<LockedPackage> = installed
            .iter()
            .map(|package| LockedPackage {
                name: package.name().to_owned(),
                version: package.version().to_string(),
                architecture: package.architecture().to_owned(),
                origin: Origin { source: "x".to_owned(), suite: "x".to_owned(), path: "x.deb".to_owned() },
                urls: Vec::new(),
                size: 1,
                sha256: Digest::of(package.name().as_bytes()),
            })
            .collect();
        Interpreter::among(&installed, &locked.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_interpreter_comes_with_all_that_it_depends_on_and_nothing_else() {
        let found = among(INSTALLED).unwrap();
        let names: Vec<&str> = found.packages.iter().map(|package| package.name.as_str()).collect();
        let expected = ["libc6", "libexpat1", "libgcc-s1", "libpython3.11-minimal", "libssl3", "python3.11-minimal"];
        assert_eq!((found.version.as_str(), names.as_slice()), ("3.11", expected.as_slice()));
    }

    #[test]
    fn without_one_certain_interpreter_there_is_none() {
        assert_eq!(among(&INSTALLED.replace("Package: python3-minimal", "Package: other")), None);
        let two = format!("{INSTALLED}\nPackage: python3.12-minimal\nVersion: 3.12\nArchitecture: amd64\n");
        assert_eq!(among(&two), None);
        assert_eq!(among(&INSTALLED.replace("Package: python3.11-minimal", "Package: python3.12-minimal")), None);
    }

    #[test]
    fn bytecode_lies_where_python_looks_for_it() {
        let interpreter = among(INSTALLED).unwrap();
        let cases = [
            ("/usr/share/x/a.py", Some("/usr/share/x/__pycache__/a.cpython-311.pyc")),
            ("/usr/share/x/a.b.py", Some("/usr/share/x/__pycache__/a.b.cpython-311.pyc")),
            ("/usr/share/x/.py", None),
            ("/usr/share/x/a", None),
        ];
        for (module, expected) in cases {
            assert_eq!(interpreter.bytecode_of(module).as_deref(), expected, "{module}");
        }
    }
}
