//! What commands print, before anybody sees it: cut into lines, without secrets, and without what would upset a
//! terminal.

use std::collections::VecDeque;

use crate::secrets::Redactor;

/// How many of a command's last lines an error shows.
const LAST_LINES: usize = 30;
/// A longer line is cut.
const LONGEST_LINE: usize = 4096;

/// Output cut into lines.
pub struct Lines<'a> {
    redactor: &'a Redactor,
    pending: Vec<u8>,
    /// Whether the end of the pending line was left out.
    cut: bool,
    last: VecDeque<String>,
}

impl<'a> Lines<'a> {
    /// No output yet.
    pub fn new(redactor: &'a Redactor) -> Self {
        Self { redactor, pending: Vec::new(), cut: false, last: VecDeque::new() }
    }

    /// More output; `show` gets every line that is whole.
    pub fn add(&mut self, bytes: &[u8], show: &dyn Fn(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.append(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") {
                self.end_line(show);
            }
        }
    }

    /// The end of the output: its last lines.
    pub fn finish(mut self, show: &dyn Fn(&str)) -> Vec<String> {
        if !self.pending.is_empty() {
            self.end_line(show);
        }
        self.last.into()
    }

    /// Lengthens the pending line, up to what is shown of it and room for a secret that begins there.
    fn append(&mut self, part: &[u8]) {
        let most = LONGEST_LINE + self.redactor.longest();
        let mut rest = part;
        while !rest.is_empty() {
            let taken = rest.len().min(2 * most - self.pending.len());
            self.pending.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if self.pending.len() <= most {
                continue;
            }
            // A meter that moves within one line for minutes: only where it is now counts. What follows the carriage
            // return at the very end is not known yet.
            let end = self.pending.len() - 1;
            match self.pending[..end].iter().rposition(|byte| *byte == b'\r') {
                Some(place) if end - place <= most => {
                    self.pending.drain(..=place);
                    self.cut = false;
                }
                _ => {
                    self.pending.truncate(most);
                    self.cut = true;
                    return;
                }
            }
        }
    }

    fn end_line(&mut self, show: &dyn Fn(&str)) {
        let line = self.clean();
        self.pending.clear();
        self.cut = false;
        show(&line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The pending line as people may see it.
    fn clean(&self) -> String {
        let mut redacted = self.redactor.redact(&self.pending);
        if self.cut {
            // The first bytes of a secret whose end was left out are none that could be found.
            redacted.truncate(redacted.len().saturating_sub(self.redactor.longest()));
        }
        let text = String::from_utf8_lossy(&redacted);
        // A carriage return starts the line again; what counts is what stands there at the end.
        let line = printable(text.trim_end().rsplit('\r').next().unwrap_or_default());
        // A secret that was printed with colours in it is one again now.
        let line = self.redactor.redact(line.as_bytes());
        let mut line = String::from_utf8_lossy(&line).into_owned();
        line.truncate(line.floor_char_boundary(LONGEST_LINE));
        line
    }
}

/// A text without escape sequences and control characters, other than tabs: they could move a terminal's cursor, and
/// make it show, or type, what nobody wrote.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\t' => shown.push('\t'),
            '\u{1b}' => match characters.next() {
                Some('[') => skip_until(&mut characters, is_final),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut characters),
                // Others are one character, after intermediate ones.
                Some(' '..='/') => skip_until(&mut characters, |character| ('0'..='~').contains(&character)),
                Some(_) | None => {}
            },
            '\u{9b}' => skip_until(&mut characters, is_final),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut characters),
            character if character.is_control() || is_direction(character) => {}
            character => shown.push(character),
        }
    }
    shown
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn skip_until(characters: &mut Characters<'_>, is_last: impl Fn(char) -> bool) {
    while let Some(character) = characters.peek() {
        // A control character ends a broken sequence, and may begin another one.
        if character.is_control() {
            return;
        }
        if characters.next().is_some_and(&is_last) {
            return;
        }
    }
}

/// What ends a control sequence (ECMA-48, 5.4).
fn is_final(character: char) -> bool {
    ('@'..='~').contains(&character)
}

/// A title of a window and the like: up to a bell, or a string terminator.
fn skip_string(characters: &mut Characters<'_>) {
    while let Some(character) = characters.next() {
        match character {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                characters.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// Characters that turn the direction of text around, and so its order.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::Secrets;

    fn lines_of(redactor: &Redactor, parts: &[&[u8]]) -> Vec<String> {
        let seen = std::sync::Mutex::new(Vec::new());
        let show = |line: &str| seen.lock().unwrap().push(line.to_owned());
        let mut lines = Lines::new(redactor);
        parts.iter().for_each(|part| lines.add(part, &show));
        let last = lines.finish(&show);
        let seen = seen.into_inner().unwrap();
        assert!(seen.ends_with(&last), "{seen:?} {last:?}");
        seen
    }

    #[test]
    fn output_becomes_lines_however_it_is_cut() {
        let parts = ["one\ntw", "o\n10%\r50%\r100%\n", "", "dos\r", "\nrest"].map(str::as_bytes);
        assert_eq!(lines_of(&Redactor::default(), &parts), ["one", "two", "100%", "dos", "rest"]);
    }

    #[test]
    fn only_the_last_lines_are_kept_and_long_ones_cut() {
        let redactor = Redactor::default();
        let mut lines = Lines::new(&redactor);
        for number in 0..100 {
            lines.add(format!("{number}\n").as_bytes(), &|_| {});
        }
        lines.add(&vec![b'x'; 1 << 20], &|_| {});
        let last = lines.finish(&|_| {});
        assert_eq!(last.len(), LAST_LINES);
        assert_eq!(last[0], "71");
        assert_eq!(last[LAST_LINES - 1].len(), LONGEST_LINE);
    }

    #[test]
    fn a_meter_shows_where_it_is_however_long_it_moves() {
        let meter: Vec<String> = (0..10_000).map(|number| format!("{number} of 10000\r")).collect();
        let mut parts: Vec<&[u8]> = meter.iter().map(String::as_bytes).collect();
        parts.push(b"done\n");
        assert_eq!(lines_of(&Redactor::default(), &parts), ["done"]);
    }

    #[test]
    fn a_secret_is_masked_wherever_output_is_cut() {
        let mut secrets = Secrets::default();
        secrets.add("token", b"correct-horse".to_vec());
        let redactor = secrets.redactor();
        assert_eq!(lines_of(&redactor, &[b"a correct-", b"horse b\n"]), ["a *** b"]);
        assert_eq!(lines_of(&redactor, &[b"correct\x1b[1m-\x1b[0mhorse"]), ["***"]);
        for length in LONGEST_LINE - 40..LONGEST_LINE + 40 {
            let line = [&vec![b'x'; length], b"correct-horse".as_slice(), &[b'y'; 100]].concat();
            for shown in lines_of(&redactor, &[&line]) {
                assert!(!shown.contains("xc") && shown.len() <= LONGEST_LINE, "{length}: {shown}");
            }
        }
        // Masked ones make a line shorter, and bring its end into sight.
        let tokens = b"correct-horse".repeat(1000);
        for length in 0..40 {
            let shown = lines_of(&redactor, &[&vec![b'x'; length], &tokens]).concat();
            assert!(!shown.contains('c'), "{length}: {shown}");
        }
    }

    #[test]
    fn what_upsets_a_terminal_is_left_out() {
        let cases = [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}(Bplain\u{1b}=", "plain"),
            ("\u{9b}2Jc1", "c1"),
            ("be\u{7}ll ba\u{8}ck nul\0 tab\there", "bell back nul tab\there"),
            ("\u{1b}[12\u{1b}[1mx", "x"),
            ("\u{202e}evil", "evil"),
            ("größe ✓", "größe ✓"),
            ("\u{1b}", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected, "{text:?}");
        }
    }
}
