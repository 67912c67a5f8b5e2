//! What the `postinst` scripts of packages compile: Python modules, by lines that Debian's tools write.
//!
//! Three forms are understood, each only where nothing but their own condition stands around it:
//!
//! - `py3compile -p PACKAGE`, which debhelper appends, for public modules;
//! - `py3compile -p PACKAGE DIRECTORY`, for those of one program;
//! - `/usr/bin/python3.11 -E -S /usr/lib/python3.11/py_compile.py $files`, of the standard library, where `files` are
//!   those of a package.
//!
//! A line that is understood can be taken out, because what it does was done already, or must not be done. All else
//! stays, and runs. See py3compile(1); which files it takes is `debpython/files.py` in the package python3-minimal.

use serde::{Deserialize, Serialize};

/// What stands before a line of py3compile.
const CONDITIONS: [&str; 3] = [
    "if command -v py3compile >/dev/null 2>&1; then",
    "if which py3compile >/dev/null 2>&1; then",
    "if [ \"$1\" = configure ] && command -v py3compile > /dev/null; then",
];

/// Modules that a script compiles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Compile {
    /// The package that they belong to, which need not be the one whose script it is.
    pub package: String,
    /// Which of its modules.
    pub modules: Modules,
}

/// Which modules of a package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modules {
    /// Those in directories that all programs see.
    Public,
    /// Those whose paths begin with this text.
    Below(String),
    /// The standard library of this version, `3.11`.
    Library(String),
}

impl Compile {
    /// Whether the file at `path` is compiled when the interpreter has this version, as `3.11`.
    pub fn takes(&self, path: &str, version: &str) -> bool {
        path.ends_with(".py")
            && self.is_for(version)
            && match &self.modules {
                Modules::Public => is_public(path, version),
                Modules::Below(directory) => path.starts_with(directory),
                Modules::Library(_) => {
                    let rest = path.strip_prefix("/usr/lib/python").and_then(|rest| rest.strip_prefix(version));
                    rest.is_some_and(|rest| rest.starts_with('/'))
                }
            }
    }

    /// Whether an interpreter of this version does it.
    pub fn is_for(&self, version: &str) -> bool {
        !matches!(&self.modules, Modules::Library(of) if of != version)
    }
}

/// Everything that a `postinst` is understood to compile, sorted.
pub fn compiles(script: &str) -> Vec<Compile> {
    let mut found: Vec<Compile> = lines(script).filter_map(|(_, compile)| compile).collect();
    found.sort();
    found.dedup();
    found
}

/// The script without the lines that compile what `is_taken_out` says, or nothing if there is none.
pub fn without(script: &str, is_taken_out: &dyn Fn(&Compile) -> bool) -> Option<String> {
    let mut changed = false;
    let mut text = String::with_capacity(script.len());
    for (line, compile) in lines(script) {
        if compile.is_some_and(|compile| is_taken_out(&compile)) {
            changed = true;
            // A shell wants a command between `then` and `fi`.
            text.push_str(":\n");
        } else {
            text.push_str(line);
        }
    }
    changed.then_some(text)
}

/// Each line, and what it compiles.
fn lines(script: &str) -> impl Iterator<Item = (&str, Option<Compile>)> {
    let library = library(script);
    let mut before = "";
    script.split_inclusive('\n').map(move |line| {
        let condition = std::mem::replace(&mut before, line.trim_end());
        let compile = match &library {
            Some((command, compile)) if line.trim() == command => Some(compile.clone()),
            _ if CONDITIONS.contains(&condition) => py3compile(line),
            _ => None,
        };
        (line, compile)
    })
}

fn py3compile(line: &str) -> Option<Compile> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (package, modules) = match words[..] {
        ["py3compile", "-p", package] => (package, Modules::Public),
        ["py3compile", "-p", package, directory] if is_private(directory) => {
            (package, Modules::Below(directory.to_owned()))
        }
        _ => return None,
    };
    Some(Compile { package: package_name(package)?, modules })
}

/// Whether this is a plain path of a directory that belongs to no version of Python.
fn is_private(directory: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    directory.starts_with('/') && directory.bytes().all(plain) && !directory.contains("/usr/lib/python")
}

/// The package of `NAME` or `NAME:ARCHITECTURE`.
fn package_name(word: &str) -> Option<String> {
    let name = word.split_once(':').map_or(word, |(name, _)| name);
    debian::relation::is_package_name(name).then(|| name.to_owned())
}

/// The command that compiles a part of the standard library, and what that is. Such scripts say which files first:
/// `files=$(dpkg -L PACKAGE | sed -n '/^\/usr\/lib\/python3.11\/.*\.py$/p')`.
fn library(script: &str) -> Option<(String, Compile)> {
    let joined = script.replace("\\\n", " ");
    let mut lists = joined.match_indices("files=$(");
    let (start, opening) = lists.next()?;
    if lists.next().is_some() {
        return None;
    }
    let list = joined[start + opening.len()..].split_once(')')?.0;
    let list = list.split_whitespace().collect::<Vec<_>>().join(" ");
    let (package, selection) = list.strip_prefix("dpkg -L ")?.split_once(" | ")?;
    // What it filters out is a link that leads nowhere, and a package with such a link is left to its script.
    let selection = selection.strip_suffix(" | $filt").unwrap_or(selection);
    let pattern = selection.strip_prefix(r"sed -n '/^\/usr\/lib\/")?.strip_suffix(r"\/.*\.py$/p'")?;
    let (command, version) = if pattern == "'$python'" {
        let has = |wanted: &str| script.lines().any(|line| line.trim() == wanted);
        let version = script.lines().find_map(|line| line.strip_prefix("versions=\"")?.strip_suffix('"'))?;
        if !has("for v in $versions; do") || !has("python=python$v") {
            return None;
        }
        ("/usr/bin/$python -E -S /usr/lib/$python/py_compile.py $files".to_owned(), version)
    } else {
        let version = pattern.strip_prefix("python")?;
        (format!("/usr/bin/python{version} -E -S /usr/lib/python{version}/py_compile.py $files"), version)
    };
    let is_version = version.split_once('.').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let modules = Modules::Library(version.to_owned());
    is_version.then_some((command, Compile { package: package_name(package)?, modules }))
}

/// Whether a path is in a directory where every program of this version finds its modules.
fn is_public(path: &str, version: &str) -> bool {
    const PYTHON: &str = "/usr/lib/python";
    let major = version.split_once('.').map_or(version, |(major, _)| major);
    path.match_indices(PYTHON).any(|(place, _)| {
        let Some((of, rest)) = path[place + PYTHON.len()..].split_once('/') else { return false };
        (of == version || of == major) && ["site-packages", "dist-packages"].iter().any(|name| rest.starts_with(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBHELPER: &str = "#!/bin/sh\nset -e\n\n# Automatically added by dh_python3\n\
        if command -v py3compile >/dev/null 2>&1; then\n\tpy3compile -p python3-apt:amd64 \nfi\n\
        if command -v pypy3compile >/dev/null 2>&1; then\n\tpypy3compile -p python3-apt:amd64  || true\nfi\n";

    const MINIMAL: &str = "#! /bin/sh\nif [ \"$1\" = configure ]; then\n    files=$(dpkg -L libpython3.11-minimal:amd64 \\\n\
        \t\t| sed -n '/^\\/usr\\/lib\\/python3.11\\/.*\\.py$/p' | $filt)\n    if [ -n \"$files\" ]; then\n\
        \t/usr/bin/python3.11 -E -S /usr/lib/python3.11/py_compile.py $files\n\
        \tif grep -sq '^byte-compile[^#]*optimize' /etc/python/debian_config; then\n\
        \t    /usr/bin/python3.11 -E -S -O /usr/lib/python3.11/py_compile.py $files\n\tfi\n    fi\nfi\n";

    const DISTUTILS: &str = "versions=\"3.11\"\ncase \"$1\" in\n  configure)\n    for v in $versions; do\n\
        \x20     python=python$v\n      files=$(dpkg -L python3-distutils | sed -n '/^\\/usr\\/lib\\/'$python'\\/.*\\.py$/p')\n\
        \t/usr/bin/$python -E -S /usr/lib/$python/py_compile.py $files\n    done\nesac\n";

    fn compile(package: &str, modules: Modules) -> Compile {
        Compile { package: package.to_owned(), modules }
    }

    #[test]
    fn what_debians_scripts_compile_is_understood() {
        let private = "if which py3compile >/dev/null 2>&1; then\n\tpy3compile -p python3 /usr/share/python3/\nfi\n";
        let cases = [
            (DEBHELPER, compile("python3-apt", Modules::Public)),
            (private, compile("python3", Modules::Below("/usr/share/python3/".to_owned()))),
            (MINIMAL, compile("libpython3.11-minimal", Modules::Library("3.11".to_owned()))),
            (DISTUTILS, compile("python3-distutils", Modules::Library("3.11".to_owned()))),
        ];
        for (script, expected) in cases {
            assert_eq!(compiles(script), [expected], "{script}");
        }
    }

    #[test]
    fn whatever_else_a_script_says_is_left_to_it() {
        let when = "if command -v py3compile >/dev/null 2>&1; then\n";
        let lines = [
            "\tpy3compile -p python3-x -V 3.9-\n",
            "\tpy3compile -p python3-x /usr/share/x -X 'tests'\n",
            "\tpy3compile -p $DPKG_MAINTSCRIPT_PACKAGE\n",
            "\tpy3compile -p x /usr/lib/python3.9/dist-packages\n",
            "\tpy3compile -p x $DIRECTORY\n",
            "\tpy3compile -p x relative\n",
            "\tpy3compile /usr/share/x\n",
        ];
        for line in lines {
            assert_eq!(compiles(&format!("{when}{line}fi\n")), [], "{line}");
        }
        assert_eq!(compiles("if [ \"$2\" = special ]; then\n\tpy3compile -p x\nfi\n"), []);
        assert_eq!(compiles(&format!("case $1 in\nno)\n\t{when}\tpy3compile -p x\nfi\nesac\n")), []);
        assert_eq!(compiles(&MINIMAL.replace("sed -n", "sed -e s/a/b/ -n")), []);
        assert_eq!(compiles(&DISTUTILS.replace("3.11", "3.11 3.12")), []);
        assert_eq!(compiles(&MINIMAL.replace("if [ -n", "files=$(echo other)\nif [ -n")), []);
    }

    #[test]
    fn only_the_lines_that_compile_are_taken_out() {
        let script = without(DEBHELPER, &|_| true).unwrap();
        assert_eq!(script, DEBHELPER.replace("\tpy3compile -p python3-apt:amd64 \n", ":\n"));
        let script = without(MINIMAL, &|_| true).unwrap();
        assert_eq!(
            script,
            MINIMAL.replace("\t/usr/bin/python3.11 -E -S /usr/lib/python3.11/py_compile.py $files\n", ":\n")
        );
        assert_eq!(without(DEBHELPER, &|compile| compile.package == "other"), None);
        assert_eq!(without("#!/bin/sh\nexit 0\n", &|_| true), None);
    }

    #[test]
    fn files_are_taken_as_py3compile_takes_them() {
        let cases = [
            (Modules::Public, "/usr/lib/python3/dist-packages/x.py", true),
            (Modules::Public, "/usr/lib/python3.11/site-packages/x.py", true),
            (Modules::Public, "/opt/x/usr/lib/python3/dist-packages/x.py", true),
            (Modules::Public, "/usr/lib/python3.9/dist-packages/x.py", false),
            (Modules::Public, "/usr/lib/python2.7/dist-packages/x.py", false),
            (Modules::Public, "/usr/lib/python3/dist-packages/x.pyx", false),
            (Modules::Public, "/usr/lib/python3.11/x.py", false),
            (Modules::Public, "/usr/share/x/x.py", false),
            (Modules::Below("/usr/share/x".to_owned()), "/usr/share/x/a.py", true),
            (Modules::Below("/usr/share/x".to_owned()), "/usr/share/xy/a.py", true),
            (Modules::Below("/usr/share/x".to_owned()), "/usr/share/a.py", false),
            (Modules::Library("3.11".to_owned()), "/usr/lib/python3.11/os.py", true),
            (Modules::Library("3.11".to_owned()), "/usr/lib/python3/os.py", false),
            (Modules::Library("3.12".to_owned()), "/usr/lib/python3.12/os.py", false),
        ];
        for (modules, path, expected) in cases {
            assert_eq!(compile("x", modules.clone()).takes(path, "3.11"), expected, "{modules:?} {path}");
        }
    }
}
