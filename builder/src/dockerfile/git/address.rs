//! Addresses of repositories, as BuildKit reads them:
//! <https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository>.

use url::Url;

/// Where a repository is, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitAddress {
    /// What `git` is given.
    pub remote: String,
    /// A branch, a tag or a commit; the remote's own branch if there is none.
    pub reference: Option<String>,
    /// A directory of the repository; empty for all of it.
    pub directory: String,
    /// What the commit must begin with.
    pub commit: Option<String>,
    /// Whether `.git` is kept, if the address says so.
    pub keep_git_directory: Option<bool>,
    /// Whether submodules come along.
    pub submodules: bool,
}

impl GitAddress {
    /// Reads an address; none if it is none of a repository. Over HTTP that is told by `.git` at the end of its path.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        if is_http || text.starts_with("ssh://") || text.starts_with("git://") {
            let url = match Url::parse(text) {
                Ok(url) => url,
                Err(_) if is_http => return None,
                Err(error) => return Some(Err(error.to_string())),
            };
            let is_repository = !is_http || url.path().ends_with(".git");
            return is_repository.then(|| Self::of_url(url));
        }
        Self::of_scp(text)
    }

    fn of_url(mut url: Url) -> Result<Self, String> {
        let fragment = url.fragment().map(str::to_owned);
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.set_fragment(None);
        url.set_query(None);
        let mut address = Self::new(url.to_string());
        if let Some(fragment) = fragment {
            address.set_fragment(&fragment);
        }
        for (name, value) in query {
            address.set(&name, value)?;
        }
        address.checked()
    }

    /// `user@host:path`, as ssh's users write it.
    fn of_scp(text: &str) -> Option<Result<Self, String>> {
        let (remote, fragment) = text.split_once('#').map_or((text, None), |(remote, part)| (remote, Some(part)));
        let (user, rest) = remote.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let is_word = |word: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        if !is_word(user) || !is_word(host) || path.is_empty() {
            return None;
        }
        let mut address = Self::new(remote.to_owned());
        if let Some(fragment) = fragment {
            address.set_fragment(fragment);
        }
        Some(address.checked())
    }

    fn new(remote: String) -> Self {
        Self {
            remote,
            reference: None,
            directory: String::new(),
            commit: None,
            keep_git_directory: None,
            submodules: true,
        }
    }

    /// `#reference:directory`.
    fn set_fragment(&mut self, fragment: &str) {
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        self.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
        self.directory = directory.to_owned();
    }

    /// `?name=value`.
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let truth = |value: &str| match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("`{name}={value}`: expected `true` or `false`")),
        };
        match name {
            "ref" | "branch" | "tag" => {
                if self.reference.is_some() {
                    return Err("the address names two references".to_owned());
                }
                self.reference = Some(match name {
                    "branch" => format!("refs/heads/{value}"),
                    "tag" => format!("refs/tags/{value}"),
                    _ => value,
                });
            }
            "subdir" => self.directory = value,
            "checksum" | "commit" => self.commit = Some(value),
            "keep-git-dir" => self.keep_git_directory = Some(truth(&value)?),
            "submodules" => self.submodules = truth(&value)?,
            _ => {
                let known = "ref, branch, tag, subdir, checksum, keep-git-dir and submodules";
                return Err(format!("`{name}` is not known of a repository: expected one of {known}"));
            }
        }
        Ok(())
    }

    /// A reference is an argument of git, and must not be an option, nor a pattern.
    fn checked(self) -> Result<Self, String> {
        let is_bad = |letter: char| letter.is_control() || " ~^:?*[\\".contains(letter);
        let bad = |name: &str| name.starts_with('-') || name.contains("..") || name.contains(is_bad);
        if let Some(reference) = self.reference.as_deref().filter(|reference| bad(reference)) {
            return Err(format!("`{reference}` cannot be a branch, a tag or a commit"));
        }
        match self.commit.as_deref() {
            Some(commit) if !is_part_of_id(commit) => Err(format!("`{commit}` is not the id of a commit")),
            _ => Ok(self),
        }
    }

    /// The address without a password, for people.
    pub fn shown(&self) -> String {
        Url::parse(&self.remote).map_or_else(|_| self.remote.clone(), |url| crate::fetch::shown(&url).to_string())
    }
}

/// Whether a text can be what the id of a commit begins with.
pub fn is_part_of_id(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

pub(super) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_part_of_id(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> GitAddress {
        GitAddress::parse(text).unwrap().unwrap()
    }

    #[test]
    fn addresses_of_repositories_are_told_from_others() {
        let repositories = [
            "https://git.example/team/app.git",
            "https://git.example/team/app.git#v1:sub/dir",
            "http://git.example:8080/app.git?branch=main&subdir=x",
            "ssh://git@git.example/app",
            "git://git.example/app",
            "git@git.example:team/app.git#main",
            "user@git.example:app",
        ];
        for text in repositories {
            assert!(matches!(GitAddress::parse(text), Some(Ok(_))), "{text}");
        }
        let others = [
            "https://git.example/app.tar.gz",
            "https://git.example/app.git/archive.tar",
            "https://git.example/file#app.git",
            "file",
            "a@b",
            "directory/a@b:c",
            "./git@host:path",
        ];
        for text in others {
            assert_eq!(GitAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn parts_of_an_address_stand_in_its_fragment_or_its_query() {
        let plain = GitAddress::new("https://git.example/app.git".to_owned());
        assert_eq!(parsed("https://git.example/app.git"), plain);
        assert_eq!(parsed("https://git.example/app.git#"), plain);
        let expected = GitAddress { reference: Some("v1".to_owned()), directory: "sub".to_owned(), ..plain.clone() };
        assert_eq!(parsed("https://git.example/app.git#v1:sub"), expected);
        assert_eq!(parsed("https://git.example/app.git?ref=v1&subdir=sub"), expected);
        assert_eq!(parsed("https://git.example/app.git#:sub").directory, "sub");
        assert_eq!(parsed("https://git.example/app.git?tag=v1").reference.unwrap(), "refs/tags/v1");
        assert_eq!(parsed("git@git.example:app.git#v1:sub").remote, "git@git.example:app.git");
        let full = parsed("https://git.example/app.git?branch=b&checksum=0123456789&keep-git-dir=1&submodules=false");
        assert_eq!(full.commit.as_deref(), Some("0123456789"));
        assert_eq!((full.keep_git_directory, full.submodules), (Some(true), false));
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        let bad = [
            "https://git.example/app.git#--upload-pack=x",
            "https://git.example/app.git#a..b",
            "https://git.example/app.git#a*",
            "https://git.example/app.git?branch=a&tag=b",
            "https://git.example/app.git?checksum=nonsense",
            "https://git.example/app.git?bran=x",
            "https://git.example/app.git?keep-git-dir=perhaps",
        ];
        for text in bad {
            assert!(matches!(GitAddress::parse(text), Some(Err(_))), "{text}");
        }
        assert_eq!(GitAddress::parse("-oProxyCommand=x@host:path"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(parsed("https://me:secret@git.example/app.git").shown(), "https://git.example/app.git");
    }
}
