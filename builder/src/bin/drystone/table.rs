//! Tables, sizes and times as people know them from other container tools.

/// A size with four digits in decimal units, `562.9 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        value if unit == 0 || value >= 1000.0 => format!("{value:.0}"),
        value => format!("{value:.1}").trim_end_matches(".0").to_owned(),
    };
    format!("{digits} {}", UNITS[unit])
}

/// A number of things, `1 blob`, `2 blobs`; the plural has an `s`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How long ago something was, `16 hours ago`. Times to come are `just now`.
pub fn ago(then: i64, now: i64) -> String {
    let seconds = now.saturating_sub(then).max(0);
    let count = |amount: i64, unit: &str| format!("{amount} {unit}s ago");
    match seconds {
        0 => "just now".to_owned(),
        1..=59 => count(seconds, "second"),
        60..=119 => "About a minute ago".to_owned(),
        120..=3599 => count(seconds / 60, "minute"),
        3600..=7199 => "About an hour ago".to_owned(),
        7200..=172_799 => count(seconds / 3600, "hour"),
        172_800..=1_209_599 => count(seconds / 86_400, "day"),
        1_209_600..=5_183_999 => count(seconds / 604_800, "week"),
        5_184_000..=63_071_999 => count(seconds / 2_592_000, "month"),
        _ => count(seconds / 31_536_000, "year"),
    }
}

/// Columns three blanks apart, each as wide as its widest cell; the last has no padding.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_units() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (109_200_000, "109.2 MB"),
            (573_000_000, "573 MB"),
            (999_960_000, "1 GB"),
            (1_550_000_000, "1.6 GB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn times_are_told_as_docker_tells_them() {
        let hour = 3600;
        for (seconds, expected) in [
            (0, "just now"),
            (45, "45 seconds ago"),
            (90, "About a minute ago"),
            (16 * hour, "16 hours ago"),
            (50 * hour, "2 days ago"),
            (15 * 24 * hour, "2 weeks ago"),
            (-5, "just now"),
        ] {
            assert_eq!(ago(1_000_000_000 - seconds, 1_000_000_000), expected);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = columns(&[row(&["A", "LONG", "C"]), row(&["abc", "d", "e"])]);
        assert_eq!(text, "A     LONG   C\nabc   d      e\n");
    }
}
