//! The five ways to run a command, and how one is chosen.

use std::fmt;
use std::str::FromStr;

/// A way to run commands with true owners, from the best to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// The builder is root: mount namespace, overlayfs, real owners.
    Root,
    /// A plain user with a range of subordinate ids.
    Userns,
    /// A plain user with nothing but one id: owners are recorded.
    UsernsSingle,
    /// Root that may neither unshare nor mount: a copied root and `chroot`.
    Chroot,
    /// Nothing can be run: packages and files only.
    None,
}

impl Rung {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::Root, Self::Userns, Self::UsernsSingle, Self::Chroot, Self::None];

    /// As written on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Userns => "userns",
            Self::UsernsSingle => "userns-single",
            Self::Chroot => "chroot",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The first rung that works.
    #[default]
    Auto,
    /// This one or an error.
    Forced(Rung),
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let rung = Rung::ALL.into_iter().find(|rung| rung.name() == text);
        rung.map(Self::Forced).ok_or_else(|| ChoiceError { found: text.to_owned() })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Forced(rung) => rung.fmt(formatter),
        }
    }
}

/// A word that names no rung.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected auto, root, userns, userns-single, chroot or none, found `{found}`")]
pub struct ChoiceError {
    found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_can_be_chosen_by_its_name() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse(), Ok(Choice::Forced(rung)));
        }
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        let error = "rootless".parse::<Choice>().unwrap_err().to_string();
        assert_eq!(error, "expected auto, root, userns, userns-single, chroot or none, found `rootless`");
    }
}
