//! Values that several commands read: variables of specs, and secrets.

use std::path::PathBuf;

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// A secret, and where its value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretArgument {
    /// Its name.
    pub id: String,
    /// Where the value is.
    pub from: SecretSource,
}

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
    /// In the variable of the secret's name, or if there is none, in the file of that name.
    SameName(String),
}

/// As BuildKit spells it: `id=NAME` with `src=FILE`, or `env=VARIABLE`, or `type=env,src=VARIABLE`.
pub(super) fn secret(text: &str) -> Result<SecretArgument, String> {
    let expected = "expected id=NAME,src=FILE or id=NAME,env=VARIABLE";
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or(expected)?;
        let place = match key {
            "id" => &mut id,
            "src" | "source" => &mut source,
            "env" => &mut variable,
            "type" => &mut kind,
            _ => return Err(format!("`{key}` is not known: {expected}")),
        };
        if value.is_empty() || place.replace(value).is_some() {
            return Err(format!("`{key}` needs one value: {expected}"));
        }
    }
    let from = match (kind, source, variable) {
        (None | Some("file"), Some(path), None) => SecretSource::File(path.into()),
        (None | Some("env"), None, Some(name)) | (Some("env"), Some(name), None) => SecretSource::Variable(name.into()),
        (None, None, None) => SecretSource::SameName(id.ok_or(expected)?.to_owned()),
        _ => return Err(expected.to_owned()),
    };
    Ok(SecretArgument { id: id.ok_or(expected)?.to_owned(), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_spelled_as_for_buildkit() {
        let file = |path: &str| SecretSource::File(path.into());
        let variable = |name: &str| SecretSource::Variable(name.into());
        let cases = [
            ("id=token,src=a/b=c", Some(file("a/b=c"))),
            ("id=token,source=x", Some(file("x"))),
            ("type=file,id=token,src=x", Some(file("x"))),
            ("id=token,env=TOKEN", Some(variable("TOKEN"))),
            ("type=env,id=token,src=TOKEN", Some(variable("TOKEN"))),
            ("token", None),
            ("id=token", Some(SecretSource::SameName("token".to_owned()))),
            ("src=x", None),
            ("id=,src=x", None),
            ("id=token,src=x,env=X", None),
            ("id=token,src=x,src=y", None),
            ("id=token,file=x", None),
            ("type=file,id=token,env=X", None),
        ];
        for (text, expected) in cases {
            let found = secret(text).ok();
            assert_eq!(found, expected.map(|from| SecretArgument { id: "token".to_owned(), from }), "{text}");
        }
    }
}
