//! Times as health checks have them: `30s`, `1m30s`, `1.5h`, `500ms`.

use std::time::Duration;

/// Reads a time. `None` if it is none, or negative, or longer than a few centuries.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let number_end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        // The number has digits: a lone point is none.
        total += number.parse::<f64>().ok()? * seconds_in(unit)?;
        rest = next;
    }
    // Nanoseconds in 63 bits, as the image's configuration keeps them.
    let is_time = !text.is_empty() && total * 1e9 < i64::MAX as f64;
    is_time.then(|| Duration::from_nanos((total * 1e9).round() as u64))
}

fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_their_authors_mean_them() {
        let cases = [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("+1s", Some(1000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("s", None),
            (".s", None),
            ("5 s", None),
            ("5d", None),
            ("99999999999999h", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }
}
