//! What is wrong with a spec, shown where it is wrong.
//!
//! A [`Diagnostic`] holds facts; [`render`] draws them with the line, a caret and a hint. Text that came from a file is
//! shown through [`quoted`], so that a hostile spec cannot steer a terminal or flood it.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::source::Span;

/// Long values are cut here when a message repeats them.
const LONGEST_QUOTE: usize = 80;

/// Longer lines are not drawn, only named.
const LONGEST_DRAWN_LINE: usize = 4096;

/// One thing that is wrong, and where.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Where it is wrong.
    pub span: Span,
    /// What is wrong, in lower case and without a full stop.
    pub title: String,
    /// What is said at the caret: what was expected there.
    pub label: String,
    /// How to put it right, when that can be known.
    pub help: Option<String>,
    /// A second place that explains the first, and what to say there.
    pub related: Option<(Span, String)>,
}

impl Diagnostic {
    /// Says `title` about the place `span`.
    pub fn new(span: Span, title: impl Into<String>) -> Self {
        Self { span, title: title.into(), label: String::new(), help: None, related: None }
    }

    /// Adds the words at the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a hint, if there is one.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Adds a second place, and the words shown there.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.span, self.title)
    }
}

impl std::error::Error for Diagnostic {}

/// Everything that is wrong with a family, in the order of its files.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one finding.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The findings, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Orders the findings by file and place, which is the order in which a person mends them.
    pub(crate) fn sort(&mut self) {
        self.list.sort_by(|left, right| {
            (&left.span.file().name, left.span.range().start, &left.title).cmp(&(
                &right.span.file().name,
                right.span.range().start,
                &right.title,
            ))
        });
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        self.list.extend(more);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Draws the findings as a compiler would: file:line:column, the line, a caret, and a hint.
pub fn render(diagnostics: &Diagnostics, color: bool) -> String {
    let drawn: Vec<String> = diagnostics.iter().map(|diagnostic| draw(Level::ERROR, None, diagnostic, color)).collect();
    drawn.join("\n\n")
}

/// Draws one finding; `id` stands in brackets behind the level.
pub(crate) fn draw(level: Level<'_>, id: Option<&str>, diagnostic: &Diagnostic, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let title = level.primary_title(printable(&diagnostic.title));
    let title = match id {
        Some(id) => title.id(id),
        None => title,
    };
    let mut group = title.element(snippet(diagnostic));
    if let Some((span, label)) = &diagnostic.related
        && span.file().name != diagnostic.span.file().name
    {
        group = group.element(lone_snippet(span, label));
    }
    let group: Group<'_> = match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(printable(help))),
        None => group,
    };
    renderer.render(&[group])
}

/// The lines around the finding; a related place in the same file is drawn with them.
fn snippet(diagnostic: &Diagnostic) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let span = &diagnostic.span;
    let drawing = lone_snippet(span, &diagnostic.label);
    match &diagnostic.related {
        Some((related, label)) if related.file().name == span.file().name && is_drawable(related) => {
            drawing.annotation(AnnotationKind::Context.span(visible(related)).label(printable(label)))
        }
        _ => drawing,
    }
}

fn lone_snippet<'a>(span: &'a Span, label: &str) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    // A file of one endless line would be drawn whole: name the place and draw nothing of it.
    let text = if is_drawable(span) { span.file().text.as_str() } else { "" };
    let range = if is_drawable(span) { visible(span) } else { 0..0 };
    let annotation = AnnotationKind::Primary.span(range);
    let annotation = if label.is_empty() { annotation } else { annotation.label(printable(label)) };
    Snippet::source(text).path(printable(&span.file().name)).fold(true).annotation(annotation)
}

fn is_drawable(span: &Span) -> bool {
    let text = &span.file().text;
    let start = span.range().start;
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    line_end - line_start <= LONGEST_DRAWN_LINE
}

/// The part of a place that is on its first line: carets below ten lines help no one.
fn visible(span: &Span) -> std::ops::Range<usize> {
    let range = span.range();
    let first_line = span.text().lines().next().unwrap_or("").trim_end();
    range.start..range.start + first_line.len()
}

/// A value from a spec between backticks, cut if long and without control characters.
pub(crate) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_QUOTE).collect();
    let ellipsis = if cut.len() < text.len() { "…" } else { "" };
    format!("`{}{ellipsis}`", printable(&cut))
}

fn printable(text: &str) -> String {
    text.chars().map(|character| if steers_a_terminal(character) { '\u{fffd}' } else { character }).collect()
}

/// Control characters, and those that turn the direction of writing and so make text look like another.
fn steers_a_terminal(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
