//! Ranges of bytes: in `Range` headers of downloads, and in `Content-Range` headers of uploads, which this API writes
//! without a unit.

use std::ops::Range;

/// What a `Range` header asks of a content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: no header, or one that may be ignored.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that do not exist.
    Unsatisfiable,
}

/// Reads a `Range` header for a content of `size` bytes. Several ranges at once, other units and malformed headers
/// give the whole content, as RFC 9110 allows.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Wanted::Whole };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim().is_empty(), number(first), last.trim().is_empty(), number(last)) {
        (true, _, false, Some(0)) => Wanted::Unsatisfiable,
        (true, _, false, Some(length)) if size > 0 => Wanted::Part(size.saturating_sub(length)..size),
        (false, Some(first), true, _) if first < size => Wanted::Part(first..size),
        (false, Some(first), false, Some(last)) if first <= last && first < size => {
            Wanted::Part(first..size.min(last.saturating_add(1)))
        }
        (false, Some(first), false, Some(last)) if first > last => Wanted::Whole,
        (true, _, false, Some(_)) | (false, Some(_), true, _) | (false, Some(_), false, Some(_)) => {
            Wanted::Unsatisfiable
        }
        _ => Wanted::Whole,
    }
}

/// Reads the `Content-Range` of an uploaded chunk: `<first>-<last>`; some clients write `bytes` before it and a total
/// after it. `None` if it is neither.
pub(crate) fn chunk(header: &str) -> Option<Range<u64>> {
    let header = header.trim();
    let spec = header.strip_prefix("bytes ").or_else(|| header.strip_prefix("bytes=")).unwrap_or(header);
    let spec = spec.split_once('/').map_or(spec, |(spec, _)| spec);
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let cases = [
            (None, 10, Wanted::Whole),
            (Some("bytes=0-0"), 10, Wanted::Part(0..1)),
            (Some("bytes=2-5"), 10, Wanted::Part(2..6)),
            (Some("bytes=2-"), 10, Wanted::Part(2..10)),
            (Some("bytes=-3"), 10, Wanted::Part(7..10)),
            (Some("bytes=-30"), 10, Wanted::Part(0..10)),
            (Some("bytes=0-99"), 10, Wanted::Part(0..10)),
            (Some("bytes=0-18446744073709551615"), 10, Wanted::Part(0..10)),
            (Some("bytes=10-"), 10, Wanted::Unsatisfiable),
            (Some("bytes=10-12"), 10, Wanted::Unsatisfiable),
            (Some("bytes=-0"), 10, Wanted::Unsatisfiable),
            (Some("bytes=0-"), 0, Wanted::Unsatisfiable),
            (Some("bytes=5-2"), 10, Wanted::Whole),
            (Some("bytes=0-1,3-4"), 10, Wanted::Whole),
            (Some("bytes=a-b"), 10, Wanted::Whole),
            (Some("bytes=-"), 10, Wanted::Whole),
            (Some("lines=1-2"), 10, Wanted::Whole),
        ];
        for (header, size, expected) in cases {
            assert_eq!(wanted(header, size), expected, "{header:?} of {size}");
        }
    }

    #[test]
    fn chunks_say_where_they_belong() {
        for (header, expected) in [
            ("0-9", Some(0..10)),
            ("bytes 5-9/100", Some(5..10)),
            ("bytes=5-9", Some(5..10)),
            ("9-5", None),
            ("5", None),
            ("a-b", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }
}
