//! Package versions and their order, as dpkg compares them (Debian policy 5.6.12, deb-version(7)).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest version that is read.
const MAX_BYTES: usize = 1024;

/// A version `[epoch:]upstream[-revision]`.
///
/// Equality is dpkg's: `1.0`, `0:1.0`, `1.00` and `1.0-0` are equal, though they print differently.
#[derive(Clone)]
pub struct Version(Box<str>);

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number before the colon, 0 if there is none.
    pub fn epoch(&self) -> u32 {
        self.0.split_once(':').map_or(0, |(epoch, _)| epoch.parse().expect("the epoch was checked when parsed"))
    }

    /// The part between epoch and revision.
    pub fn upstream(&self) -> &str {
        self.parts().0
    }

    /// The part after the last hyphen, empty if there is none.
    pub fn revision(&self) -> &str {
        self.parts().1
    }

    /// The version without its epoch, as file names of packages carry it.
    pub fn without_epoch(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(_, rest)| rest)
    }

    fn parts(&self) -> (&str, &str) {
        let rest = self.without_epoch();
        rest.rsplit_once('-').unwrap_or((rest, ""))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let invalid = |problem| VersionError { text: text.chars().take(80).collect(), problem };
        if text.len() > MAX_BYTES {
            return Err(invalid(Problem::TooLong));
        }
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        if epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_digit()) || epoch.parse::<i32>().is_err() {
            return Err(invalid(Problem::Epoch));
        }
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        if upstream.is_empty() {
            return Err(invalid(Problem::NoUpstream));
        }
        if revision.is_empty() {
            return Err(invalid(Problem::NoRevision));
        }
        let upstream_is_valid = upstream.bytes().all(|byte| is_version_byte(byte) || matches!(byte, b'-' | b':'));
        if !upstream_is_valid || !revision.bytes().all(is_version_byte) {
            return Err(invalid(Problem::Character));
        }
        Ok(Self(text.into()))
    }
}

fn is_version_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'~')
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (upstream, revision) = self.parts();
        let (other_upstream, other_revision) = other.parts();
        let by_epoch = self.epoch().cmp(&other.epoch());
        by_epoch.then_with(|| compare(upstream, other_upstream)).then_with(|| compare(revision, other_revision))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// Compares two upstream versions or two revisions: in turn a run without digits, by character class, and a number.
fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        if left.is_empty() && right.is_empty() {
            return Ordering::Equal;
        }
        let (left_text, left_rest) = split_while(left, |byte| !byte.is_ascii_digit());
        let (right_text, right_rest) = split_while(right, |byte| !byte.is_ascii_digit());
        let by_text = compare_text(left_text, right_text);
        if by_text.is_ne() {
            return by_text;
        }
        let (left_number, left_rest) = split_while(left_rest, |byte| byte.is_ascii_digit());
        let (right_number, right_rest) = split_while(right_rest, |byte| byte.is_ascii_digit());
        let by_number = compare_number(left_number, right_number);
        if by_number.is_ne() {
            return by_number;
        }
        (left, right) = (left_rest, right_rest);
    }
}

fn split_while(bytes: &[u8], take: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&byte| !take(byte)).unwrap_or(bytes.len());
    bytes.split_at(end)
}

fn compare_text(left: &[u8], right: &[u8]) -> Ordering {
    // One more than the shorter one: its end has a weight, too, above `~` and below everything else.
    for index in 0..left.len().max(right.len()) {
        let by_weight = weight(left.get(index)).cmp(&weight(right.get(index)));
        if by_weight.is_ne() {
            return by_weight;
        }
    }
    Ordering::Equal
}

fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Compares digits of any length, so that no number is too large.
fn compare_number(left: &[u8], right: &[u8]) -> Ordering {
    let (_, left) = split_while(left, |byte| byte == b'0');
    let (_, right) = split_while(right, |byte| byte == b'0');
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {problem}")]
pub struct VersionError {
    text: String,
    problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the epoch before the colon must be a number below 2147483648")]
    Epoch,
    #[error("there is nothing before the revision")]
    NoUpstream,
    #[error("there is nothing after the last hyphen")]
    NoRevision,
    #[error("only ASCII letters, digits and `.+-~:` may be in it")]
    Character,
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering::{Equal, Greater, Less};
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const ORDER: &[(&str, Ordering, &str)] = &[
        ("1.0~rc1", Less, "1.0"),
        ("1.0~~", Less, "1.0~"),
        ("1.0~~a", Less, "1.0~"),
        ("1.0", Less, "1.0-1"),
        ("1.0", Equal, "1.0-0"),
        ("1.0", Equal, "0:1.0"),
        ("1.00", Equal, "1.0"),
        ("1:0", Greater, "9"),
        ("1.2.3", Less, "1.2.10"),
        ("1.2a", Greater, "1.2"),
        ("1.2a", Less, "1.2+"),
        ("1.2a", Greater, "1.2-a"),
        ("2.36-9+deb12u7", Less, "2.36-9+deb12u10"),
        ("1-1", Less, "1-1+b1"),
        ("1-1.1", Greater, "1-1"),
        ("1.0-1~bpo1", Less, "1.0-1"),
        ("7.6p2-4", Greater, "7.6-0"),
        ("1.0.3-3", Greater, "1.0-1"),
        ("0:1.18.36:5.4-20", Less, "0:1.18.36:5.5-1"),
        ("99999999999999999999999999", Greater, "9999999999999999999999999"),
        ("a", Less, "b"),
    ];

    #[test]
    fn versions_order_as_the_table_says() {
        for &(left, expected, right) in ORDER {
            let (left, right): (Version, Version) = (left.parse().unwrap(), right.parse().unwrap());
            assert_eq!(left.cmp(&right), expected, "{left} against {right}");
            assert_eq!(right.cmp(&left), expected.reverse(), "{right} against {left}");
        }
    }

    #[test]
    fn parts_are_found() {
        let version: Version = "1:2.3-4-5".parse().unwrap();
        assert_eq!((version.epoch(), version.upstream(), version.revision()), (1, "2.3-4", "5"));
        assert_eq!(version.without_epoch(), "2.3-4-5");
        assert_eq!(version.to_string(), "1:2.3-4-5");
    }

    #[test]
    fn a_version_is_a_string_in_json() {
        let version: Version = serde_json::from_str("\"1:2-3\"").unwrap();
        assert_eq!(serde_json::to_string(&version).unwrap(), "\"1:2-3\"");
        assert!(serde_json::from_str::<Version>("\"1_2\"").is_err());
    }

    #[test]
    fn what_is_not_a_version_is_refused() {
        for text in ["", ":1", "a:1", "1:", "-1", "1-", "1 2", "1_2", "1.0-a:b", "é", "4294967296:1", "2147483648:1"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
        assert!("1".repeat(MAX_BYTES + 1).parse::<Version>().is_err());
        let message = "1_2".parse::<Version>().unwrap_err().to_string();
        assert_eq!(message, "`1_2` is not a version: only ASCII letters, digits and `.+-~:` may be in it");
    }

    fn dpkg_says(left: &str, operator: &str, right: &str) -> bool {
        let status = Command::new("dpkg").args(["--compare-versions", left, operator, right]).status();
        status.expect("dpkg: these tests need a Debian machine").success()
    }

    #[test]
    fn dpkg_orders_the_table_in_the_same_way() {
        for &(left, expected, right) in ORDER {
            let operator = match expected {
                Less => "lt",
                Equal => "eq",
                Greater => "gt",
            };
            let agrees = dpkg_says(left, operator, right);
            assert!(agrees, "dpkg denies that {left} {operator} {right}");
        }
    }

    fn any_version() -> impl Strategy<Value = Version> {
        "([0-2]:)?[0-9][0-9a-c.+~-]{0,6}(-[0-9a-c.+~]{1,4})?".prop_filter_map("not a version", |text| text.parse().ok())
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in any_version(), b in any_version(), c in any_version()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn a_version_reads_what_it_prints(a in any_version()) {
            let again: Version = a.to_string().parse().unwrap();
            prop_assert_eq!(again.as_str(), a.as_str());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Version>();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn dpkg_agrees_about_random_versions(a in any_version(), b in any_version()) {
            let operator = match a.cmp(&b) { Less => "lt", Equal => "eq", Greater => "gt" };
            let agrees = dpkg_says(a.as_str(), operator, b.as_str());
            prop_assert!(agrees, "dpkg denies that {a} {operator} {b}");
        }
    }
}
