//! The small values of specs: names, paths, ports, modes. Each is checked once, here, and cannot be wrong later.

mod account;
mod name;
mod package;
mod path;
mod port;

pub(crate) use account::is_account;
pub use account::{Mode, Owner};
pub(crate) use name::check_reference;
pub use name::{EnvName, ImageName, LabelKey, Platform, Registry, StopSignal, Tag};
pub use package::PackageRequest;
pub use path::{ImagePath, RelativePath};
pub use port::{Port, Protocol};

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{title}")]
pub struct Invalid {
    /// What is wrong with the text.
    pub title: String,
    /// What was expected in its place.
    pub expected: String,
    /// How to put it right, when that can be known.
    pub help: Option<String>,
}

impl Invalid {
    fn new(text: &str, what: &str, expected: &str) -> Self {
        Self {
            title: format!("{} is not {what}", crate::diagnostic::quoted(text)),
            expected: format!("expected {expected}"),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A checked text: `Display`, `AsRef<str>`, and a private field that only its parser fills.
macro_rules! text_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}
use text_type;
