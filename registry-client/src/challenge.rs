//! What a registry answers to strangers: `WWW-Authenticate` (RFC 7235).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be shown who comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token, bought elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what, if the registry says.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge in an answer; a token is better than a password that travels with every request.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut found: Vec<Self> =
            headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(parse).collect();
        found.sort_by_key(|challenge| matches!(challenge, Self::Basic));
        found.into_iter().next()
    }
}

/// Reads one header, which may hold several challenges. What is not understood is passed over.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    for token in tokens(header) {
        match token {
            Token::Scheme(next) => {
                challenges.extend(build(&scheme, &parameters));
                scheme = next;
                parameters.clear();
            }
            Token::Parameter(name, value) => parameters.push((name, value)),
        }
    }
    challenges.extend(build(&scheme, &parameters));
    challenges
}

fn build(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
        }
        _ => None,
    }
}

enum Token {
    Scheme(String),
    Parameter(String, String),
}

fn tokens(header: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return tokens;
        }
        let word = word.to_ascii_lowercase();
        let after_space = after.trim_start_matches([' ', '\t']);
        match after_space.strip_prefix('=') {
            Some(value) => {
                let (value, after) = quoted_or_plain(value.trim_start());
                tokens.push(Token::Parameter(word, value));
                rest = after;
            }
            None => {
                tokens.push(Token::Scheme(word));
                rest = after;
            }
        }
    }
}

fn quoted_or_plain(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        let cases = [
            (r#"Basic realm="basic-realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://a.example/token",service="s",scope="repository:a/b:pull,push""#,
                vec![bearer("https://a.example/token", Some("s"), Some("repository:a/b:pull,push"))],
            ),
            (r#"bearer service=s , REALM = "https://a" "#, vec![bearer("https://a", Some("s"), None)]),
            (r#"Bearer realm="a\"b""#, vec![bearer("a\"b", None, None)]),
            (r#"Negotiate, Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y", None, None)]),
            (r#"Bearer service="no realm""#, vec![]),
            ("", vec![]),
            ("=,=,", vec![]),
            (r#"Bearer realm="unfinished"#, vec![bearer("unfinished", None, None)]),
            ("Bearer realm=\"\\", vec![bearer("", None, None)]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_is_preferred() {
        let headers: HeaderMap = [r#"Basic realm="x""#, r#"Bearer realm="y""#]
            .iter()
            .map(|value| (WWW_AUTHENTICATE, value.parse().unwrap()))
            .collect();
        assert_eq!(Challenge::of(&headers), Some(bearer("y", None, None)));
    }
}
