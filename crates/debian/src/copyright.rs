//! Copyright files in the machine-readable format 1.0 (DEP-5), which many packages have in `/usr/share/doc`: the short
//! names of their licences. Files that are not in this format, or not quite, are free text and say nothing here.

use crate::deb822::stanzas;

/// The licences that a copyright file names for files of the package, as it writes them, such as `GPL-2+ or Artistic`:
/// sorted, each once. Nothing if the file is not in the format.
pub fn licences(text: &str) -> Option<Vec<String>> {
    let mut stanzas = stanzas(text);
    let header = stanzas.next()?.ok()?;
    let format = header.get("Format").or_else(|| header.get("Format-Specification"))?;
    if !format.contains("copyright-format") && !format.contains("dep5") {
        return None;
    }
    let mut licences = Vec::from_iter(header.get("License").and_then(short_name));
    for stanza in stanzas {
        let stanza = stanza.ok()?;
        if stanza.get("Files").is_some() {
            licences.extend(stanza.get("License").and_then(short_name));
        }
    }
    licences.sort();
    licences.dedup();
    (!licences.is_empty()).then_some(licences)
}

/// The first line of a licence; what follows is its text.
fn short_name(value: &str) -> Option<String> {
    let line = value.lines().next()?.split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_of_files_are_named_once_and_texts_are_not_names() {
        let text = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: x

Files: *
Copyright: 2001 A
License: GPL-2+  or Artistic

Files: debian/*
Copyright: 2002 B
License: Expat
 The text.
 .
 More of it.

Files: other
Copyright: 2003 C
License: Expat

License: GPL-2+
 Another text.
";
        assert_eq!(licences(text).unwrap(), ["Expat", "GPL-2+ or Artistic"]);
    }

    #[test]
    fn free_text_and_broken_files_say_nothing() {
        for text in
            ["", "This package was made by A.\n", "Format: something\n", "Format: copyright-format/1.0\n\nno colon\n"]
        {
            assert_eq!(licences(text), None, "{text}");
        }
    }
}
