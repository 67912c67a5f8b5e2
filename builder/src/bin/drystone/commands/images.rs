//! `drystone images`: what the layout holds.

use drystone::error::chain;
use drystone::image::rfc3339;
use drystone::listing::{self, Listing, Row};
use serde::Serialize;
use store::Layout;

use crate::args::Images;
use crate::failure::Failure;
use crate::session::{self, print};
use crate::table::{ago, columns, size};

/// Runs the command.
pub fn run(arguments: &Images) -> Result<(), Failure> {
    let layout = Layout::open(&arguments.layout.layout)?;
    let rows = readable(listing::list(&layout, &arguments.filter)?);
    let now = session::now();
    match arguments.format.as_str() {
        "table" => print(&table(&rows, now, arguments.no_trunc)),
        "json" => print(&json(&rows)?),
        template => print(&templated(&rows, template, now, arguments.no_trunc)?),
    }
}

/// The rows of a listing; images that cannot be read are told of.
#[expect(clippy::print_stderr, reason = "this is the command line")]
pub fn readable(listing: Listing) -> Vec<Row> {
    for (name, error) in &listing.damaged {
        eprintln!("warning: {name} cannot be read: {}", chain(error));
    }
    listing.rows
}

/// The columns that the seed of container tools had.
pub fn table(rows: &[Row], now: i64, whole: bool) -> String {
    let header = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "VIRTUAL SIZE"].map(str::to_owned).to_vec();
    let cells = |row: &Row| {
        vec![row.repository.clone(), row.tag.clone(), id(row, whole), created(row, now), size(row.virtual_size)]
    };
    let all: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    columns(&all)
}

fn id(row: &Row, whole: bool) -> String {
    if whole { row.id.to_string() } else { row.id.short() }
}

fn created(row: &Row, now: i64) -> String {
    row.created.map_or_else(|| "N/A".to_owned(), |created| ago(created, now))
}

#[derive(Serialize)]
struct Json<'a> {
    repository: &'a str,
    tag: &'a str,
    id: content::Digest,
    digest: content::Digest,
    created: Option<String>,
    virtual_size: u64,
    size: u64,
    labels: &'a std::collections::BTreeMap<String, String>,
}

fn json(rows: &[Row]) -> Result<String, Failure> {
    let objects: Vec<Json<'_>> = rows.iter().map(object).collect();
    serde_json::to_string_pretty(&objects).map(|text| text + "\n").map_err(Failure::of)
}

fn object(row: &Row) -> Json<'_> {
    let Row { repository, tag, id, digest, created, virtual_size, stored_size, labels } = row;
    let created = created.map(rfc3339);
    Json { repository, tag, id: *id, digest: *digest, created, virtual_size: *virtual_size, size: *stored_size, labels }
}

/// Fills in `{{.Field}}` for each row, with docker's names of the fields.
fn templated(rows: &[Row], template: &str, now: i64, whole: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&filled(row, template, now, whole)?);
        text.push('\n');
    }
    Ok(text)
}

fn filled(row: &Row, template: &str, now: i64, whole: bool) -> Result<String, Failure> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((field, after)) = after.split_once("}}") else {
            return Err(Failure::Usage(format!("`{template}`: `{{{{` without `}}}}`")));
        };
        text.push_str(&unescaped(before));
        text.push_str(&value(row, field.trim(), now, whole)?);
        rest = after;
    }
    Ok(text + &unescaped(rest))
}

fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn value(row: &Row, field: &str, now: i64, whole: bool) -> Result<String, Failure> {
    Ok(match field {
        ".Repository" => row.repository.clone(),
        ".Tag" => row.tag.clone(),
        ".ID" => id(row, whole),
        ".Digest" => row.digest.to_string(),
        ".CreatedAt" => row.created.map(rfc3339).unwrap_or_default(),
        ".CreatedSince" => created(row, now),
        ".Size" | ".VirtualSize" => size(row.virtual_size),
        ".Labels" => row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","),
        other => {
            let known = ".Repository .Tag .ID .Digest .CreatedAt .CreatedSince .Size .VirtualSize .Labels";
            return Err(Failure::Usage(format!("`{{{{{other}}}}}` is not known in a format; there are: {known}")));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            repository: "localhost:5100/redis".into(),
            tag: "v1".into(),
            id: content::Digest::of(b"config"),
            digest: content::Digest::of(b"manifest"),
            created: Some(1000),
            virtual_size: 109_200_000,
            stored_size: 40_000_000,
            labels: [("a".into(), "b".into())].into(),
        }
    }

    #[test]
    fn the_table_has_the_columns_of_docker() {
        let text = table(&[row()], 1000 + 7200, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>(),
            ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "VIRTUAL SIZE"]
        );
        assert!(lines[1].contains("2 hours ago"), "{text}");
        assert!(lines[1].ends_with("109.2 MB"), "{text}");
    }

    #[test]
    fn templates_fill_in_fields_and_refuse_unknown_ones() {
        let filled = |template| templated(&[row()], template, 2000, false);
        assert_eq!(filled("{{.Repository}}:{{ .Tag }}\\t{{.Labels}}").unwrap(), "localhost:5100/redis:v1\ta=b\n");
        assert!(filled("{{.Nonsense}}").is_err());
        assert!(filled("{{.Tag").is_err());
    }
}
