//! A line for each request of the embedded registry, on standard error.

use std::io::{self, Write};

use jiff::Timestamp;
use registry_server::{Access, AccessLog};
use serde_json::json;

/// The longest text that a client may put into a line.
const MAX_TEXT: usize = 400;

/// Lines for people: who, what, and how it ended.
pub struct Plain;

/// A JSON object a line.
pub struct Json;

impl AccessLog for Plain {
    fn request(&self, access: &Access<'_>) {
        say(&plain(access, Timestamp::now()));
    }
}

impl AccessLog for Json {
    fn request(&self, access: &Access<'_>) {
        say(&json_line(access, Timestamp::now()));
    }
}

fn say(line: &str) {
    // A closed standard error must not end a server.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn plain(access: &Access<'_>, now: Timestamp) -> String {
    format!(
        "{} {} {} \"{} {}\" {} {} {:.3}s \"{}\"{}",
        time(now),
        access.peer.map_or_else(|| "-".to_owned(), |peer| peer.ip().to_string()),
        quoted(access.user.unwrap_or("-")),
        quoted(access.method),
        quoted(access.path),
        access.status,
        access.bytes,
        access.duration.as_secs_f64(),
        quoted(access.agent.unwrap_or("-")),
        if access.broken { " broken" } else { "" },
    )
}

fn json_line(access: &Access<'_>, now: Timestamp) -> String {
    json!({
        "time": time(now),
        "peer": access.peer.map(|peer| peer.to_string()),
        "user": access.user,
        "method": access.method,
        "path": access.path,
        "status": access.status,
        "bytes": access.bytes,
        "seconds": (access.duration.as_secs_f64() * 1e6).round() / 1e6,
        "agent": access.agent,
        "broken": access.broken,
    })
    .to_string()
}

/// Text of a client that can neither end a line nor a quotation, and is not too long.
fn quoted(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .flat_map(|character| {
            let visible = !character.is_control() && !matches!(character, '"' | '\\');
            let escaped = (!visible).then(|| character.escape_default());
            escaped.into_iter().flatten().chain(visible.then_some(character))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_stays_one_line_whatever_a_client_calls_itself() {
        let access = Access {
            peer: Some("127.0.0.1:1234".parse().unwrap()),
            user: Some("a\nb"),
            method: "GET",
            path: "/v2/x\"y",
            status: 200,
            bytes: 7,
            duration: Duration::from_millis(12),
            agent: Some("evil\u{1b}[31m\r\n\"200\""),
            broken: true,
        };
        let now = Timestamp::UNIX_EPOCH;
        let line = plain(&access, now);
        let expected =
            r#"1970-01-01T00:00:00.000Z 127.0.0.1 a\nb "GET /v2/x\"y" 200 7 0.012s "evil\u{1b}[31m\r\n\"200\"" broken"#;
        assert_eq!(line, expected);
        let json: serde_json::Value = serde_json::from_str(&json_line(&access, now)).unwrap();
        assert_eq!((json["status"].as_u64(), json["seconds"].as_f64()), (Some(200), Some(0.012)));
        assert!(!json_line(&access, now).contains('\n'));
    }
}
