//! `RUN --mount=…`: what a command sees beside the image.
//!
//! Values may hold variables, so the flag is read twice: [`MountFlag`] is what is written, with every name known;
//! [`RunMount`] what it means in a scope.

use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Diagnostics, quoted};
use crate::source::{Located, Span};
use crate::suggest::did_you_mean;

/// What a mount may be called, and what its options may be.
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const OPTIONS: [&str; 20] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "size",
    "env",
    "relabel",
];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];

/// A mount as written.
#[derive(Clone, Debug)]
pub struct MountFlag {
    options: Vec<(String, Option<String>)>,
    span: Span,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountType {
    /// A directory or file of the context, a stage or an image.
    Bind,
    /// A directory that is kept between builds.
    Cache,
    /// A directory in memory.
    Tmpfs,
    /// A secret of the build.
    Secret,
    /// A socket of an SSH agent.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everyone.
    #[default]
    Shared,
    /// One command; others get caches of their own.
    Private,
    /// One command; others wait.
    Locked,
}

/// A mount with its variables in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// What it is.
    pub kind: MountType,
    /// `from`: a stage by name or number, or an image; `None` for the context.
    pub from: Option<String>,
    /// `source`: a path below `from`. Of a secret, this is its `id`.
    pub source: Option<String>,
    /// `target`: where it appears; relative to the directory of the command. Only secrets and agents do without.
    pub target: Option<String>,
    /// Whether the command may not write there.
    pub read_only: bool,
    /// `id` of a cache, a secret or an agent. Secrets have one always, by their source or target if need be.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: CacheSharing,
    /// `required`: whether a secret or an agent that is not given is an error.
    pub required: bool,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// `size`: what a tmpfs may hold, in bytes.
    pub size: Option<u64>,
    /// `env`: the variable that a secret becomes.
    pub env: Option<String>,
}

impl MountFlag {
    /// Reads the flag's value. What can be wrong without knowing a variable is found here.
    pub(super) fn parse(written: &Located<String>) -> Result<Self, Diagnostics> {
        let mut options = Vec::new();
        for field in fields(&written.value) {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let key = key.trim().to_ascii_lowercase();
            if !OPTIONS.contains(&key.as_str()) {
                let diagnostic =
                    Diagnostic::new(written.span.clone(), format!("{} is no option of a mount", quoted(&key)));
                return Err(diagnostic
                    .label("expected `type=…`, `target=…`, `source=…` and the like")
                    .help_if(did_you_mean(&key, OPTIONS))
                    .into());
            }
            options.push((key, value));
        }
        let flag = Self { options, span: written.span.clone() };
        if !written.value.contains('$') {
            flag.resolve(&Scope::default())?;
        }
        Ok(flag)
    }

    /// Where it is written.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The values of its options, as written.
    pub(crate) fn texts(&self) -> impl Iterator<Item = Located<String>> {
        self.options.iter().filter_map(|(_, value)| Some(Located::new(value.clone()?, self.span.clone())))
    }

    /// Puts variables in place, and says what the mount is.
    pub fn resolve(&self, scope: &Scope) -> Result<RunMount, Diagnostics> {
        let mut mount = RunMount {
            kind: self.kind(scope)?,
            from: None,
            source: None,
            target: None,
            read_only: false,
            id: None,
            sharing: CacheSharing::Shared,
            required: false,
            mode: None,
            uid: None,
            gid: None,
            size: None,
            env: None,
        };
        mount.read_only = !matches!(mount.kind, MountType::Cache | MountType::Tmpfs);
        for (key, value) in &self.options {
            self.belongs(key, mount.kind)?;
            match value {
                Some(value) => self.set(&mut mount, key, self.expanded(value, scope)?)?,
                None => self.set_bare(&mut mount, key)?,
            }
        }
        self.finish(mount)
    }

    /// The type stands anywhere among the options, and decides what the others mean.
    fn kind(&self, scope: &Scope) -> Result<MountType, Diagnostics> {
        let Some((_, Some(written))) = self.options.iter().find(|(key, _)| key == "type") else {
            return Ok(MountType::Bind);
        };
        let name = self.expanded(written, scope)?.to_ascii_lowercase();
        Ok(match name.as_str() {
            "bind" => MountType::Bind,
            "cache" => MountType::Cache,
            "tmpfs" => MountType::Tmpfs,
            "secret" => MountType::Secret,
            "ssh" => MountType::Ssh,
            other => {
                let diagnostic = self.wrong(format!("{} is no type of a mount", quoted(other)));
                let diagnostic = diagnostic.label("expected bind, cache, tmpfs, secret or ssh");
                return Err(diagnostic.help_if(did_you_mean(other, TYPES)).into());
            }
        })
    }

    fn expanded(&self, value: &str, scope: &Scope) -> Result<String, Diagnostics> {
        Ok(scope.expand(&Located::new(value.to_owned(), self.span.clone()))?.value.text)
    }

    /// Options that mean nothing beside a type are errors: their author expects them to do something.
    fn belongs(&self, key: &str, kind: MountType) -> Result<(), Diagnostics> {
        use MountType::{Bind, Cache, Secret, Ssh, Tmpfs};
        let fits = match key {
            "from" => matches!(kind, Bind | Cache),
            "source" | "src" => !matches!(kind, Tmpfs | Ssh),
            "mode" | "uid" | "gid" => matches!(kind, Cache | Secret | Ssh),
            "required" => matches!(kind, Secret | Ssh),
            "id" => matches!(kind, Cache | Secret | Ssh),
            "sharing" => kind == Cache,
            "size" => kind == Tmpfs,
            "env" => kind == Secret,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let kind = format!("{kind:?}").to_ascii_lowercase();
        Err(self
            .wrong(format!("a mount of the type {kind} has no option {}", quoted(key)))
            .label("expected none")
            .into())
    }

    fn set(&self, mount: &mut RunMount, key: &str, value: String) -> Result<(), Diagnostics> {
        match key {
            "from" => mount.from = Some(value),
            "source" | "src" => mount.source = Some(value),
            "target" | "dst" | "destination" => mount.target = Some(value),
            "readonly" | "ro" => mount.read_only = self.truth(key, &value)?,
            "readwrite" | "rw" => mount.read_only = !self.truth(key, &value)?,
            "required" => mount.required = self.truth(key, &value)?,
            "id" => mount.id = Some(value),
            "sharing" => mount.sharing = self.sharing(&value)?,
            "mode" => mount.mode = Some(self.number(key, &value, 8, "octal digits")?),
            "uid" => mount.uid = Some(self.number(key, &value, 10, "a number")?),
            "gid" => mount.gid = Some(self.number(key, &value, 10, "a number")?),
            "size" => mount.size = Some(bytes(&value).ok_or_else(|| self.bad_value(key, &value, "a size like `64m`"))?),
            "env" => mount.env = Some(value),
            // The type is known already, and SELinux labels are not ours to set.
            _ => {}
        }
        Ok(())
    }

    fn set_bare(&self, mount: &mut RunMount, key: &str) -> Result<(), Diagnostics> {
        match key {
            "readonly" | "ro" => mount.read_only = true,
            "readwrite" | "rw" => mount.read_only = false,
            "required" => mount.required = true,
            _ => {
                let diagnostic = self.wrong(format!("the option {} has no value", quoted(key)));
                return Err(diagnostic.label(format!("expected `{key}=…`")).into());
            }
        }
        Ok(())
    }

    fn finish(&self, mut mount: RunMount) -> Result<RunMount, Diagnostics> {
        match mount.kind {
            MountType::Secret => {
                if mount.source.is_some() && mount.id.is_some() {
                    let diagnostic = self.wrong("a secret has both `id` and `source`".to_owned());
                    return Err(diagnostic.label("expected one of them: they mean the same").into());
                }
                let by_target = || Some(mount.target.as_deref()?.rsplit('/').next()?.to_owned());
                let id = mount.id.clone().or_else(|| mount.source.clone()).or_else(by_target);
                let Some(id) = id.filter(|id| !id.is_empty()) else {
                    return Err(self.wrong("a secret without a name".to_owned()).label("expected `id=…`").into());
                };
                mount.id = Some(id);
            }
            MountType::Ssh => {}
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                if mount.target.as_ref().is_none_or(String::is_empty) {
                    return Err(self.wrong("a mount without a place".to_owned()).label("expected `target=…`").into());
                }
            }
        }
        Ok(mount)
    }

    fn truth(&self, key: &str, value: &str) -> Result<bool, Diagnostics> {
        match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.bad_value(key, value, "`true` or `false`").into()),
        }
    }

    fn sharing(&self, value: &str) -> Result<CacheSharing, Diagnostics> {
        match value.to_ascii_lowercase().as_str() {
            "shared" => Ok(CacheSharing::Shared),
            "private" => Ok(CacheSharing::Private),
            "locked" => Ok(CacheSharing::Locked),
            other => Err(self
                .bad_value("sharing", other, "shared, private or locked")
                .help_if(did_you_mean(other, SHARINGS))
                .into()),
        }
    }

    fn number(&self, key: &str, value: &str, radix: u32, expected: &str) -> Result<u32, Diagnostics> {
        let is_digits = value.chars().all(|digit| digit.is_digit(radix));
        let number = u32::from_str_radix(value, radix).ok().filter(|_| is_digits);
        number.ok_or_else(|| self.bad_value(key, value, expected).into())
    }

    fn bad_value(&self, key: &str, value: &str, expected: &str) -> Diagnostic {
        self.wrong(format!("{} is no value for the option `{key}`", quoted(value)))
            .label(format!("expected {expected}"))
    }

    fn wrong(&self, title: String) -> Diagnostic {
        Diagnostic::new(self.span.clone(), title)
    }
}

/// Comma-separated fields; one that begins with a double quote ends with one, and holds its doubles as themselves.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is one from the beginning");
        match letter {
            '"' if is_quoted && letters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            ',' if !is_quoted => fields.push(String::new()),
            letter => field.push(letter),
        }
    }
    fields
}

/// A size with a unit of 1024: `64m`, `1g`, `512k`, `100`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number_end = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_end);
    let exponent = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let size = number.parse::<f64>().ok()? * 1024f64.powi(exponent);
    (size < u64::MAX as f64).then_some(size as u64)
}
