//! `drystone images`: what the layout holds, as a table, as JSON, or as one likes.

use serde_json::Value;

use crate::support::family::{Bench, debs};
use crate::support::program::{Finished, run};

fn built() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    bench
}

#[track_caller]
fn images(bench: &Bench, arguments: &[&str]) -> Finished {
    run(bench.drystone().arg("images").args(arguments))
}

#[test]
fn the_table_has_the_columns_and_a_line_for_each_image() {
    let bench = built();
    let listed = images(&bench, &[]).success();
    let lines: Vec<Vec<&str>> = listed
        .stdout
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "VIRTUAL SIZE"]);
    let names: Vec<&str> = lines[1..].iter().map(|line| line[0]).collect();
    assert_eq!(names, ["localhost:5100/app", "localhost:5100/base", "localhost:5100/worker"]);
    for line in &lines[1..] {
        assert_eq!((line.len(), line[1], line[2].len()), (5, "v1", 12), "{line:?}");
        assert!(line[3].ends_with("ago") && line[4].ends_with("kB"), "{line:?}");
    }
    let whole = images(&bench, &["--no-trunc"]).success();
    assert_eq!(whole.stdout.matches("sha256:").count(), 3, "{}", whole.stdout);
}

#[test]
fn filters_choose_by_label_and_several_must_all_be_met() {
    let bench = built();
    for (filters, expected) in [
        (vec!["label=role"], vec!["app", "worker"]),
        (vec!["label=role=worker"], vec!["worker"]),
        (vec!["label=role", "label=tier=front"], vec!["app"]),
        (vec!["label=role=app", "label=tier=back"], vec![]),
        (vec!["label=nobody"], vec![]),
    ] {
        let arguments: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        let listed = images(&bench, &[&arguments[..], &["--format", "{{.Repository}}"]].concat()).success();
        let names: Vec<&str> = listed.stdout.lines().map(|line| line.trim_start_matches("localhost:5100/")).collect();
        assert_eq!(names, expected, "{filters:?}");
    }
    images(&bench, &["--filter", "color=red"]).failure(2, &["color=red"]);
}

#[test]
fn json_is_an_array_with_everything_that_the_table_has() {
    let bench = built();
    let listed: Vec<Value> = serde_json::from_str(&images(&bench, &["--format", "json"]).success().stdout).unwrap();
    assert_eq!(listed.len(), 3);
    let app = &listed[0];
    assert_eq!((&app["repository"], &app["tag"]), (&"localhost:5100/app".into(), &"v1".into()));
    assert_eq!(app["id"], bench.manifest("app")["config"]["digest"]);
    assert_eq!(app["labels"], serde_json::json!({"role": "app", "tier": "front"}));
    assert_eq!(app["created"], "2015-11-10T00:00:00Z");
    assert!(bench.digests().contains(&format!("app:v1 {}", app["digest"].as_str().unwrap())));
    let (virtual_size, size) = (app["virtual_size"].as_u64().unwrap(), app["size"].as_u64().unwrap());
    assert!(virtual_size > 300_000 && size > 300_000, "{app}");
}

#[test]
fn templates_are_filled_in_for_each_image() {
    let bench = built();
    let format = "{{.Repository}}:{{ .Tag }}\\t{{.CreatedAt}}";
    let listed = images(&bench, &["--format", format, "--filter", "label=role=app"]).success();
    assert_eq!(listed.stdout, "localhost:5100/app:v1\t2015-11-10T00:00:00Z\n");
    images(&bench, &["--format", "{{.Nonsense}}"]).failure(2, &["{{.Nonsense}}", ".Repository .Tag .ID"]);
    images(&bench, &["--format", "{{.Tag"]).failure(2, &["{{.Tag"]);
}

#[test]
fn an_empty_layout_has_a_header_only_and_one_that_is_not_there_is_an_error() {
    let bench = Bench::with_image("absent");
    bench.archive(debs(), &[]);
    images(&bench, &[]).failure(1, &["oci"]);
    bench.build(&[]).failure(2, &["absent"]);
    let listed = images(&bench, &[]);
    assert!(listed.code == Some(1) || listed.stdout.lines().count() == 1, "{}{}", listed.stdout, listed.stderr);
}
