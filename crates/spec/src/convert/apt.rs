//! What of a command is `apt-get`'s business: packages, and what is tidied up after them.

use super::run::segments;
use crate::value::PackageRequest;

/// A command, taken apart.
pub(super) struct Split {
    /// Packages that it installs, in order.
    pub(super) packages: Vec<String>,
    /// Whether recommended packages come along.
    pub(super) recommends: bool,
    /// What is left of it.
    pub(super) rest: String,
}

/// Takes the packages out of a script of commands that are joined by `&&`, if that is all that can be said of its
/// beginning; tidying up goes wherever it stands. `None` if nothing can be taken out.
pub(super) fn split(script: &str) -> Option<Split> {
    let mut packages = Vec::new();
    let mut recommends = false;
    let mut rest: Vec<&str> = Vec::new();
    let mut is_apt = false;
    for segment in segments(script)? {
        let words: Vec<&str> = segment.words.iter().map(String::as_str).collect();
        match part(&words) {
            Part::Packages { names, with_recommends } if rest.is_empty() => {
                packages.extend(names);
                recommends |= with_recommends;
                is_apt = true;
            }
            // What it installs may depend on what came before it.
            Part::Packages { .. } => return None,
            Part::Bookkeeping => is_apt = true,
            Part::Setting if rest.is_empty() => {}
            // One that is not understood needs what the others do.
            Part::Other if matches!(words[0], "apt-get" | "apt") => return None,
            Part::Setting | Part::Other => rest.push(segment.text),
        }
    }
    is_apt.then(|| Split { packages, recommends, rest: rest.join(" && ") })
}

enum Part {
    Packages {
        names: Vec<String>,
        with_recommends: bool,
    },
    /// `update`, and what removes caches and lists.
    Bookkeeping,
    /// `set -e` and the like, for the commands behind it.
    Setting,
    Other,
}

fn part(words: &[&str]) -> Part {
    match words {
        ["set", options @ ..] if options.iter().all(|option| option.starts_with(['-', 'e', 'x', 'u', 'p'])) => {
            Part::Setting
        }
        ["export", setting] if setting.starts_with("DEBIAN_FRONTEND=") => Part::Setting,
        ["apt-get" | "apt", rest @ ..] => apt(rest),
        ["rm", rest @ ..] => {
            let mut paths = rest.iter().filter(|word| !word.starts_with('-')).peekable();
            match paths.peek().is_some() && paths.all(|path| is_leftover(path)) {
                true => Part::Bookkeeping,
                false => Part::Other,
            }
        }
        _ => Part::Other,
    }
}

fn apt(words: &[&str]) -> Part {
    let mut with_recommends = true;
    let mut operands = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--no-install-recommends" => with_recommends = false,
            "-o" | "-t" => match rest.next() {
                Some(&"APT::Install-Recommends=0" | &"APT::Install-Recommends=false") => with_recommends = false,
                // Options of the fetching change nothing; those of the choice would.
                Some(option) if option.starts_with("Acquire::") || option.starts_with("Dpkg::") => {}
                _ => return Part::Other,
            },
            "-y"
            | "--yes"
            | "--assume-yes"
            | "-q"
            | "-qq"
            | "-qqy"
            | "-qy"
            | "-yq"
            | "-yqq"
            | "--quiet"
            | "--force-yes"
            | "--fix-missing"
            | "--no-install-suggests"
            | "-f" => {}
            word if word.starts_with('-') => return Part::Other,
            word => operands.push(word),
        }
    }
    match operands.as_slice() {
        ["update"] | ["clean" | "autoclean"] | ["autoremove"] => Part::Bookkeeping,
        ["install", names @ ..] if !names.is_empty() => {
            let is_package = |name: &&str| !name.ends_with(['-', '+']) && name.parse::<PackageRequest>().is_ok();
            match names.iter().all(is_package) {
                true => {
                    Part::Packages { names: names.iter().map(|name| (*name).to_owned()).collect(), with_recommends }
                }
                false => Part::Other,
            }
        }
        _ => Part::Other,
    }
}

/// What apt leaves behind, and directories that are empty in an image anyway.
fn is_leftover(path: &str) -> bool {
    ["/var/lib/apt/lists", "/var/cache/apt", "/var/cache/debconf"].iter().any(|directory| path.starts_with(directory))
        || matches!(path, "/tmp/*" | "/var/tmp/*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_taken_out_of_commands() {
        let tidy = "rm -rf /var/lib/apt/lists/*";
        let lean = "apt-get install -y --no-install-recommends";
        // Packages, whether others come along, and what is left.
        let cases = [
            ("apt-get update".to_owned(), Some(" / false / ")),
            ("apt-get update && apt-get install -y curl wget".to_owned(), Some("curl wget / true / ")),
            (
                format!("apt-get -qqy update && {lean} ab=1.2 && apt-get clean && {tidy} /tmp/*"),
                Some("ab=1.2 / false / "),
            ),
            (format!("set -eux; apt-get update; {lean} ab; {tidy}"), Some("ab / false / ")),
            (format!("apt-get update && {lean} ab && useradd b && {tidy}"), Some("ab / false / useradd b")),
            (format!("{lean} ab && echo $HOME > /x && true"), Some("ab / false / echo $HOME > /x && true")),
            (format!("{lean} ab; {tidy}"), None),
            (format!("useradd b && {lean} ab"), None),
            (format!("{lean} $PACKAGES"), None),
            (format!("{lean} linux-headers-`uname -r`"), None),
            (format!("{lean} ./x.deb"), None),
            (format!("{lean} ab-"), None),
            (format!("{lean} -t backports ab"), None),
            ("apt-get update || true".to_owned(), None),
            (format!("{tidy} /srv"), None),
            ("echo a".to_owned(), None),
        ];
        for (script, expected) in cases {
            let found = split(&script);
            let found =
                found.map(|split| format!("{} / {} / {}", split.packages.join(" "), split.recommends, split.rest));
            assert_eq!(found.as_deref(), expected, "{script}");
        }
    }
}
