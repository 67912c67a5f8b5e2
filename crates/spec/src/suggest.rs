//! "Did you mean": the known word nearest to a misspelt one.

use crate::diagnostic::quoted;

/// Below this likeness a suggestion confuses more than it helps.
const LIKE_ENOUGH: f64 = 0.8;

/// Words longer than this are not compared; nobody misspells them by accident.
const LONGEST_WORD: usize = 128;

/// A question to ask, if one of `known` resembles `word`.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|word| format!("did you mean {}?", quoted(word)))
}

fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST_WORD {
        return None;
    }
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST_WORD && *candidate != word)
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
        .max_by(|left, right| left.0.total_cmp(&right.0).then_with(|| right.1.cmp(left.1)))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_foreign_one_does_not() {
        let known = ["packages", "platforms", "entrypoint"];
        assert_eq!(nearest("pakages", known), Some("packages"));
        assert_eq!(nearest("entry_point", known), Some("entrypoint"));
        assert_eq!(nearest("zzz", known), None);
    }
}
