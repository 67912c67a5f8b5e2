//! `drystone images`: what the layout holds.

use drystone::error::chain;
use drystone::image::rfc3339;
use drystone::listing::{self, Listing, Row, Sharing};
use serde::Serialize;
use serde_json::json;
use store::Layout;

use crate::args::Images;
use crate::failure::Failure;
use crate::session::{self, print};
use crate::table::{ago, columns, size};

/// Runs the command.
pub fn run(arguments: &Images) -> Result<(), Failure> {
    let layout = Layout::open(&arguments.layout.layout)?;
    if arguments.sharing {
        return sharing(&readable(listing::list(&layout, &[])?), arguments);
    }
    let rows = readable(listing::list(&layout, &arguments.filter)?);
    let now = session::now();
    match arguments.format.as_str() {
        "table" => print(&table(&rows, now, arguments.no_trunc)),
        "json" => print(&json(&rows)?),
        template => print(&templated(&rows, template, now, arguments.no_trunc)?),
    }
}

/// The images that pass the filters, with what each shares with any image of the layout.
fn sharing(rows: &[Row], arguments: &Images) -> Result<(), Failure> {
    let with_sharing = rows.iter().zip(listing::sharing(rows));
    let passes = |row: &Row| arguments.filter.iter().all(|filter| filter.passes(&row.labels));
    let chosen: Vec<(&Row, Sharing)> = with_sharing.filter(|(row, _)| passes(row)).collect();
    let whole = chosen.iter().fold(0, |sum: u64, (row, _)| sum.saturating_add(row.virtual_size));
    let once = listing::bytes_once(&chosen.iter().map(|(row, _)| (*row).clone()).collect::<Vec<_>>());
    match arguments.format.as_str() {
        "table" => print(&sharing_table(&chosen, whole, once, arguments.no_trunc)),
        "json" => print(&sharing_json(&chosen, whole, once)?),
        _ => Err(Failure::Usage("--sharing is for the formats `table` and `json`".to_owned())),
    }
}

fn sharing_table(chosen: &[(&Row, Sharing)], whole: u64, once: u64, untruncated: bool) -> String {
    let header = ["REPOSITORY", "TAG", "IMAGE ID", "VIRTUAL SIZE", "SHARED SIZE", "UNIQUE SIZE"];
    let cells = |(row, sharing): &(&Row, Sharing)| {
        let sizes = [row.virtual_size, sharing.shared, sharing.unique].map(size);
        [vec![row.repository.clone(), row.tag.clone(), id(row, untruncated)], sizes.to_vec()].concat()
    };
    let rows: Vec<Vec<String>> =
        std::iter::once(header.map(str::to_owned).to_vec()).chain(chosen.iter().map(cells)).collect();
    let count = chosen.len();
    format!("{}\n{count} images: {} counted whole, {} with each layer once\n", columns(&rows), size(whole), size(once))
}

fn sharing_json(chosen: &[(&Row, Sharing)], whole: u64, once: u64) -> Result<String, Failure> {
    let image = |(row, sharing): &(&Row, Sharing)| {
        let mut object = serde_json::to_value(object(row)).map_err(Failure::of)?;
        object["shared_size"] = sharing.shared.into();
        object["unique_size"] = sharing.unique.into();
        Ok(object)
    };
    let images = chosen.iter().map(image).collect::<Result<Vec<_>, Failure>>()?;
    let whole = json!({"images": images, "totals": {"virtual_size": whole, "layers_once": once}});
    serde_json::to_string_pretty(&whole).map(|text| text + "\n").map_err(Failure::of)
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
    let Row { repository, tag, id, digest, created, virtual_size, stored_size, labels, layers: _ } = row;
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
            layers: Vec::new(),
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
