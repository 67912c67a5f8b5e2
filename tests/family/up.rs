//! `drystone up` on the family: the first run, and the next.

use super::{IMAGES, REGISTRY, TAG, family, port};

#[test]
fn up_once_builds_pushes_lists_and_ends() {
    let first = &family().first;
    let listed = rows(&first.stdout);
    assert_eq!(listed[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "VIRTUAL SIZE"]);
    let names: Vec<&str> = listed[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, IMAGES.map(|image| format!("{REGISTRY}/{image}")), "{}", first.stdout);
    for row in &listed[1..] {
        assert_eq!(row[1], TAG);
        assert!(row[2].len() == 12 && row[2].bytes().all(|byte| byte.is_ascii_hexdigit()), "{row:?}");
        assert!(row[3].ends_with(" ago"), "{row:?}");
        assert!(row[4].ends_with(" MB"), "{row:?}");
    }
    let all = format!("built {0} of {0} images", IMAGES.len());
    for text in [all.as_str(), "the embedded registry serves"] {
        assert!(first.stderr.contains(text), "no `{text}` in\n{}", first.stderr);
    }
}

#[test]
fn up_again_builds_nothing_and_says_so() {
    let _port = port_after_first();
    let again = family().up_once();
    let nothing = format!("nothing to build: all {} images are up to date", IMAGES.len());
    assert!(again.stderr.contains(&nothing), "{}", again.stderr);
    let without_age = |text: &str| rows(text).into_iter().map(|row| [0, 1, 2, 4].map(|column| row[column].clone()));
    let first = without_age(&family().first.stdout);
    assert!(without_age(&again.stdout).eq(first), "the list changed:\n{}", again.stdout);
}

#[test]
fn the_builder_needs_less_memory_than_512_mebibytes() {
    let peak = family().peak;
    // Less than that would mean that something else was measured.
    assert!((16 << 10..512 << 10).contains(&peak), "{peak} KiB");
}

fn port_after_first() -> std::sync::MutexGuard<'static, ()> {
    family();
    port()
}

/// The cells of a table, whose columns are three blanks or more apart.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.split("   ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.map(str::to_owned).collect()
    };
    table.lines().map(cells).collect()
}
