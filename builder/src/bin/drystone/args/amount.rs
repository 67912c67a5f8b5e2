//! Sizes and times as people write them.

use std::time::Duration;

/// Reads `4096`, `200MB`, `1.5GiB`, `10G`.
pub fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is not a size: expected a number of bytes, or one such as 200MB or 10GiB");
    let split = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim().to_ascii_lowercase());
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(expected);
    }
    let number: f64 = number.parse().map_err(|_| expected())?;
    let bytes = number * factor as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(expected()) }
}

/// Reads `90`, `90s`, `30m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("`{text}` is not a time: expected a number of seconds, or one such as 90s, 30m, 1h or 7d");
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[split..].trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(expected()),
    };
    let number: u64 = text[..split].parse().map_err(|_| expected())?;
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("200MB", Some(200_000_000)),
            ("1.5GiB", Some(1_610_612_736)),
            ("10G", Some(10 << 30)),
            ("2 kib", Some(2048)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551615k", None),
            ("-1", None),
            ("", None),
            ("MB", None),
            ("1XB", None),
            ("1.2.3M", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("30m", Some(1800)),
            ("1h", Some(3600)),
            ("7d", Some(604_800)),
            ("0", None),
            ("1w", None),
            ("h", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_secs), "{text}");
        }
    }
}
