//! Registries that refuse, break, or are none.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use fixtures::http::{FileServer, Outage};

use crate::support::family::{Bench, debs};
use crate::support::program::{Background, eventually, free_port, run};

fn built() -> Bench {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.build(&[]).success();
    bench
}

/// `up` for a registry on this port of this machine.
fn up(bench: &Bench, port: u16) -> Command {
    let mut command = bench.drystone();
    command.args(["up", "family", "--once", "--registry", &format!("127.0.0.1:{port}")]);
    command
}

#[test]
fn up_builds_pushes_and_lists_and_does_nothing_the_second_time() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    let port = free_port();
    let first = run(&mut up(&bench, port)).success();
    let lines: Vec<&str> = first.stdout.lines().collect();
    assert!(
        lines[0].starts_with("REPOSITORY") && lines[0].ends_with("VIRTUAL SIZE") && lines.len() == 4,
        "{}",
        first.stdout
    );
    assert!(lines[1..].iter().all(|line| line.starts_with(&format!("127.0.0.1:{port}/"))), "{}", first.stdout);
    assert!(first.stderr.contains("built 3 of 3 images"), "{}", first.stderr);
    let again = run(&mut up(&bench, port)).success();
    assert!(again.stderr.contains("nothing to build") && !again.stderr.contains("pushed "), "{}", again.stderr);
    bench.is_whole();
}

#[test]
fn a_port_taken_by_something_else_is_an_error_that_says_so() {
    let bench = built();
    // A server of files answers HTTP, but is no registry.
    let server = FileServer::start(bench.at("archive")).unwrap();
    let expected = ["is not a registry that can be used", "something else may listen there", "--registry"];
    run(&mut up(&bench, server.address().port())).failure(1, &expected);
    // One that says something else than HTTP, and goes.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The client may be gone.
            let _ = std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP\r\n");
        }
    });
    run(&mut up(&bench, port)).failure(1, &["is not a registry that can be used"]);
    bench.is_whole();
}

#[test]
fn what_is_built_is_in_the_registry_though_a_later_image_fails() {
    let bench = Bench::with_family();
    bench.archive(debs(), &[]);
    bench.spec("app/image.yaml", "from: base\nfiles: [{content: x, target: /etc/x, owner: nobody-of-that-name}]\n");
    let other = Bench::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let _serving = Background(other.drystone().args(["serve", "--listen", &address]).spawn().unwrap());
    eventually("the registry listens", Duration::from_secs(20), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    run(&mut up(&bench, port)).failure(2, &["app", "nobody-of-that-name"]);
    let named = other.digests();
    assert!(named.contains("/base:v1 ") && !named.contains("/app:v1 "), "{named}");
    assert_eq!(bench.digests(), "", "the layout gets all names or none");
    // It still serves, so that it holds its place for what is unfinished.
    other.layout_is_valid();
}

#[test]
fn a_port_that_is_taken_stops_serve() {
    let bench = built();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    run(bench.drystone().args(["serve", "--listen", &address])).failure(1, &["cannot listen at", &address, "--listen"]);
}

#[test]
fn a_registry_that_refuses_is_an_error_with_its_answer() {
    let bench = built();
    let server = FileServer::start(bench.at("archive")).unwrap();
    let target = server.address().to_string();
    for (status, text) in [(500, "500"), (401, "not authorized"), (403, "403"), (404, "404")] {
        server.recover();
        server.fail(Outage::Status(status));
        let failed = run(bench.drystone().args(["push", "base", "--to", &target]));
        assert_eq!(failed.code, Some(1), "{status}: {}", failed.stderr);
        assert!(failed.stderr.contains(&target) && failed.stderr.contains(text), "{status}: {}", failed.stderr);
        assert!(failed.stdout.is_empty(), "{status}: {}", failed.stdout);
    }
    server.fail(Outage::Refuse);
    run(bench.drystone().args(["push", "base", "--to", &target])).failure(1, &["cannot push", &target]);
    bench.is_whole();
}

#[test]
fn a_read_only_registry_takes_nothing() {
    let bench = built();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let serving = bench.drystone().args(["serve", "--read-only", "--listen", &address]).spawn().unwrap();
    let _serving = Background(serving);
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    let failed = run(bench.drystone().args(["push", "base", "--to", &format!("{address}/copy")]));
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("cannot push"), "{}", failed.stderr);
}

#[test]
fn what_is_damaged_in_the_layout_is_not_pushed() {
    let bench = built();
    let layer = bench.manifest("base")["layers"][0]["digest"].as_str().unwrap().to_owned();
    crate::support::family::overwrite(&bench.blob(&layer), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let other = Bench::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let _serving = Background(other.drystone().args(["serve", "--listen", &address]).spawn().unwrap());
    eventually("the registry listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(&address).map(drop).map_err(|error| error.to_string())
    });
    run(bench.drystone().args(["push", "--to", &address])).failure(1, &["cannot push", &layer]);
    assert_eq!(other.digests(), "", "no name was given to anything");
}

#[test]
fn a_layout_that_is_not_there_or_lacks_the_image_is_an_error() {
    let bench = Bench::new();
    run(bench.drystone().args(["push"])).failure(1, &["oci"]);
    run(bench.drystone().args(["images"])).failure(1, &["oci"]);
    let bench = built();
    run(bench.drystone().args(["push", "bsae"])).failure(1, &["called `bsae`", "drystone images"]);
}
