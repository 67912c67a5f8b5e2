//! What planning costs: reading an index as large as Debian's, collecting what it offers, and choosing from it.
#![expect(clippy::unwrap_used, reason = "a measurement may fail")]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use debian::package::{Package, parse_index};
use debian::solver::{Request, Universe};

/// As many as Debian's main has.
const PACKAGES: usize = 60_000;

/// An index in which each package needs a few of those before it.
fn index() -> String {
    let mut text = String::new();
    for number in 0..PACKAGES {
        let needed: Vec<String> =
            (1..=number.min(4)).map(|step| format!("package-{} (>= 1.0)", number / (step * 3 + 1))).collect();
        let _ = write!(
            text,
            "Package: package-{number}\nVersion: 1.{number}-1\nInstalled-Size: 120\nArchitecture: amd64\nPriority: optional\n\
             Maintainer: Somebody <somebody@example.org>\nDescription: the package with this number\n{}\
             Filename: pool/main/p/package-{number}/package-{number}_1.{number}-1_amd64.deb\nSize: 1234\nSHA256: {number:064x}\n\n",
            if needed.is_empty() { String::new() } else { format!("Depends: {}\n", needed.join(", ")) },
        );
    }
    text
}

fn planning(criterion: &mut Criterion) {
    let text = index();
    let packages: Vec<Package> = parse_index(&text).unwrap();
    let mut group = criterion.benchmark_group("planning");
    group.sample_size(10).throughput(Throughput::Elements(PACKAGES as u64));
    group.bench_function("read an index", |bencher| bencher.iter(|| parse_index(black_box(&text)).unwrap()));
    group.bench_function("collect what it offers", |bencher| {
        let copies = || vec![packages.clone()];
        bencher.iter_batched(copies, |indexes| Universe::new("amd64", indexes).unwrap(), BatchSize::LargeInput);
    });
    let universe = Universe::new("amd64", vec![packages.clone()]).unwrap();
    let install: Vec<_> =
        (0..50).map(|number| format!("package-{}", PACKAGES - 1 - number * 37).parse().unwrap()).collect();
    let request = Request { install: &install, ..Request::default() };
    group.throughput(Throughput::Elements(universe.resolve(&request).unwrap().packages.len() as u64));
    group.bench_function("choose", |bencher| bencher.iter(|| universe.resolve(black_box(&request)).unwrap()));
    group.finish();
}

criterion_group!(benches, planning);
criterion_main!(benches);
