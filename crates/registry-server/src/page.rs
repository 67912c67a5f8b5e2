//! A page for people: what images there are, and a box to filter them with. It is plain HTML and needs no script.
//!
//! Everything on it was pushed by somebody, so all of it is escaped, and the page forbids itself scripts and everything
//! from elsewhere.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::Response;
use oci::{Descriptor, Platform};
use store::StoredImage;

use crate::api_error::ApiError;
use crate::respond::Respond;
use crate::router::{Server, parameter};

/// How many images are shown.
const MAX_ROWS: usize = 2000;
/// How many labels of an image are shown, and how much of each.
const MAX_LABELS: usize = 50;
const MAX_TEXT: usize = 300;
/// How much of a filter is looked at.
const MAX_FILTER: usize = 200;
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
const POLICY_HEADER: HeaderName = header::CONTENT_SECURITY_POLICY;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.35rem .8rem .35rem 0}
tr{border-bottom:1px solid #ddd}td.size{white-space:nowrap}code,.digest{font-family:ui-monospace,monospace}
ul{list-style:none;margin:0;padding:0;overflow-wrap:anywhere}li b{font-weight:600}.note{color:#666}
input{font:inherit;padding:.3rem;min-width:20rem}button{font:inherit;padding:.3rem .8rem}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}tr{border-color:#444}.note{color:#999}}";

/// `GET /`
pub(crate) async fn get(server: Arc<Server>, request: &Parts) -> Result<Response, ApiError> {
    let filter: String = parameter(request, "q").unwrap_or_default().trim().chars().take(MAX_FILTER).collect();
    let html = {
        let _turn = server.page.acquire().await;
        server.blocking(move |server| server.page(&filter)).await?
    };
    let respond = Respond::with(StatusCode::OK)
        .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
        .header(POLICY_HEADER, POLICY)
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CACHE_CONTROL, "no-cache");
    Ok(if request.method == Method::HEAD { respond.head() } else { respond.body(html) })
}

impl Server {
    fn page(&self, filter: &str) -> Result<String, ApiError> {
        let wanted = filter.to_lowercase();
        let (mut rows, mut total, mut unreadable) = (Vec::new(), 0, 0);
        for (_, image) in self.layout.images()? {
            total += 1;
            match image {
                Ok(image) => rows.extend(Some(Row::of(&image)).filter(|row| row.matches(&wanted))),
                Err(_) => unreadable += 1,
            }
        }
        Ok(render(self.name().as_str(), filter, &rows, total, unreadable))
    }
}

/// An image, as text that is not yet escaped.
struct Row {
    repository: String,
    tag: String,
    digest: String,
    platform: String,
    size: u64,
    labels: Vec<(String, String)>,
}

impl Row {
    fn of(image: &StoredImage) -> Self {
        let sizes = |descriptors: &[Descriptor]| descriptors.iter().map(|layer| layer.size).sum::<u64>();
        Self {
            repository: image.reference.repository().to_string(),
            tag: image.reference.tag().map(ToString::to_string).unwrap_or_default(),
            digest: image.descriptor.digest.to_string(),
            platform: platform(&image.config.platform()),
            size: image.descriptor.size + image.manifest.config.size + sizes(&image.manifest.layers),
            labels: image.config.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }

    /// Whether every word of the filter is somewhere in the name, the digest, the platform or a label (`key=value`).
    fn matches(&self, filter: &str) -> bool {
        let labels: String = self.labels.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let text = format!("{}:{}\n{}\n{}\n{labels}", self.repository, self.tag, self.digest, self.platform);
        let text = text.to_lowercase();
        filter.split_whitespace().all(|word| text.contains(word))
    }
}

fn platform(platform: &Platform) -> String {
    platform.to_string()
}

fn render(registry: &str, filter: &str, rows: &[Row], total: usize, unreadable: usize) -> String {
    let (title, query) = (escaped(registry), escaped(filter));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Images at {title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Images at {title}</h1>\n\
         <form method=\"get\" action=\"/\">\n<label>Filter <input type=\"search\" name=\"q\" value=\"{query}\" \
         placeholder=\"name, tag, or label=value\"></label>\n<button>Show</button>\n</form>\n"
    );
    let count = if filter.is_empty() { format!("{total} images") } else { format!("{} of {total} images", rows.len()) };
    let _ = writeln!(html, "<p class=\"note\" id=\"count\">{count}</p>");
    if unreadable > 0 {
        let _ = writeln!(html, "<p>{unreadable} images cannot be read: <code>drystone verify</code> says why.</p>");
    }
    if !rows.is_empty() {
        html.push_str(
            "<table>\n<thead><tr><th>Image<th>Tag<th>Digest<th>Platform<th>Size<th>Labels</tr></thead>\n<tbody>\n",
        );
        rows.iter().take(MAX_ROWS).for_each(|row| render_row(&mut html, row));
        html.push_str("</tbody>\n</table>\n");
    }
    if rows.len() > MAX_ROWS {
        let _ = writeln!(html, "<p class=\"note\">{} more are not shown: filter them.</p>", rows.len() - MAX_ROWS);
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn render_row(html: &mut String, row: &Row) {
    let short: String = row.digest.split(':').nth(1).unwrap_or_default().chars().take(12).collect();
    let _ = write!(
        html,
        "<tr><td>{}<td>{}<td class=\"digest\" title=\"{}\">{}<td>{}<td class=\"size\" title=\"{} bytes\">{}<td><ul>",
        escaped(&row.repository),
        escaped(&row.tag),
        escaped(&row.digest),
        escaped(&short),
        escaped(&row.platform),
        row.size,
        size(row.size),
    );
    for (key, value) in row.labels.iter().take(MAX_LABELS) {
        let _ = write!(html, "<li><b>{}</b>={}", escaped(&cut(key)), escaped(&cut(value)));
    }
    if row.labels.len() > MAX_LABELS {
        let _ = write!(html, "<li class=\"note\">and {} more", row.labels.len() - MAX_LABELS);
    }
    html.push_str("</ul></tr>\n");
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A size as container tools write it, `562.9 MB`.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.95 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = if unit == "B" { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{digits} {unit}")
}

/// Text that means itself in HTML, in elements as in attributes. Characters that turn the direction of text, or that
/// nobody sees, become `�`: a label must not look like another one.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(repository: &str, label: (&str, &str)) -> Row {
        Row {
            repository: repository.to_owned(),
            tag: "v1".to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            platform: "linux/amd64".to_owned(),
            size: 1_234_567,
            labels: vec![(label.0.to_owned(), label.1.to_owned())],
        }
    }

    #[test]
    fn everything_that_somebody_pushed_or_asked_is_escaped() {
        let evil = "</ul><script>alert('x')</script>\"&\u{202e}\0";
        let html = render(evil, evil, &[row(evil, (evil, evil))], 1, 0);
        assert!(!html.contains("<script") && !html.contains("'x'"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}\u{fffd}"));
    }

    #[test]
    fn all_words_of_a_filter_must_be_found() {
        let row = row("team/web", ("tier", "Front"));
        for filter in ["", "web", "team/web:v1", "tier=front", "web v1", "abab", "amd64"] {
            assert!(row.matches(filter), "{filter}");
        }
        for filter in ["web v2", "tier=back"] {
            assert!(!row.matches(filter), "{filter}");
        }
    }

    #[test]
    fn sizes_and_long_texts_are_cut_to_what_can_be_read() {
        assert_eq!(
            [0, 999, 1000, 1_234_567, 16_700_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "1.2 MB", "16.7 GB"]
        );
        assert_eq!(cut(&"ü".repeat(400)).chars().count(), MAX_TEXT + 1);
    }
}
