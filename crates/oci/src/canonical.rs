//! The one way in which this project writes JSON whose bytes are hashed: RFC 8785, keys sorted, no white space.

use canon_json::CanonicalFormatter;
use serde::Serialize;

/// A value that canonical JSON cannot express: a number that is not finite, or a map whose keys are not strings.
#[derive(Debug, thiserror::Error)]
#[error("cannot be written as canonical JSON")]
pub struct CanonicalError(#[from] serde_json::Error);

/// The canonical JSON of `value`. Equal values give equal bytes, whatever order their maps iterate in.
pub fn canonical_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, CanonicalFormatter::new());
    value.serialize(&mut serializer)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn maps_in_hash_order_give_the_same_bytes() {
        let fresh = || (0..50).map(|n| (format!("key{n}"), n)).collect::<HashMap<_, _>>();
        let first = canonical_bytes(&fresh()).unwrap();
        for _ in 0..20 {
            assert_eq!(canonical_bytes(&fresh()).unwrap(), first);
        }
    }

    #[test]
    fn keys_are_sorted_and_nothing_is_padded() {
        let value = serde_json::json!({"b": [1, 2], "a": {"z": "é\u{1}", "y": null}});
        let text = String::from_utf8(canonical_bytes(&value).unwrap()).unwrap();
        assert_eq!(text, "{\"a\":{\"y\":null,\"z\":\"é\\u0001\"},\"b\":[1,2]}");
    }
}
