//! What a cold build does most: packages become segments; and what every build does: packages are cut into layers.
#![expect(clippy::unwrap_used, reason = "a measurement may fail")]

use std::collections::BTreeSet;
use std::io::Write as _;

use content::Digest;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use drystone::cut::{Budget, Image, Piece, Remembered, cut};
use drystone::package::segment::Segment;
use drystone::plan::{LockedPackage, Origin};
use fixtures::DebBuilder;
use layer::compress::Compression;
use store::{Area, Cache};

/// A package of text files, 8 MB in all.
fn package() -> fixtures::Deb {
    let content = |file: u64| -> Vec<u8> {
        (0..4000)
            .flat_map(|line| format!("{:x} some words {file}\n", (line ^ file) * 2_654_435_761).into_bytes())
            .collect()
    };
    let files = (0..64).map(|file| (format!("usr/share/example/{file}"), content(file)));
    files.fold(DebBuilder::new("example", "1.0"), |deb, (path, content)| deb.file(&path, 0o644, content)).build()
}

fn segments(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let deb = package();
    let package = LockedPackage {
        name: "example".to_owned(),
        version: "1.0".to_owned(),
        architecture: "amd64".to_owned(),
        origin: Origin { source: "bench".to_owned(), suite: "stable".to_owned(), path: "x.deb".to_owned() },
        urls: Vec::new(),
        size: deb.bytes().len() as u64,
        sha256: deb.digest(),
    };
    let mut writer = cache.writer(Area::Debs, package.sha256).unwrap();
    writer.write_all(deb.bytes()).unwrap();
    writer.commit().unwrap();
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(10).throughput(Throughput::Bytes(package.size));
    for compression in [Compression::Gzip, Compression::Zstd] {
        let forget = || {
            let (key, record) = Segment::keys_of(&package, compression, &BTreeSet::new());
            [key, record].iter().for_each(|key| cache.remove(Area::Segments, *key).unwrap());
        };
        let make = |()| Segment::of(&cache, &package, compression, &BTreeSet::new()).unwrap();
        group.bench_function(format!("of a .deb, {compression}"), |bencher| {
            bencher.iter_batched(forget, make, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn layers(criterion: &mut Criterion) {
    const IMAGES: usize = 200;
    const PACKAGES: usize = 100;
    let names: Vec<String> = (0..1000).map(|package| format!("package-{package}")).collect();
    let pieces: Vec<Piece<'_>> = names
        .iter()
        .zip(0_u64..)
        .map(|(name, place)| Piece { name, digest: Digest::of(name.as_bytes()), size: 1000 + (place * 7919) % 999_983 })
        .collect();
    let image_names: Vec<String> = (0..IMAGES).map(|image| format!("image-{image}")).collect();
    let images: Vec<Image<'_>> = image_names
        .iter()
        .zip(0_usize..)
        .map(|(name, image)| {
            let chosen: BTreeSet<usize> =
                (0..PACKAGES).map(|step| (step * step * (image % 13 + 1) + step) % pieces.len()).collect();
            let steps = vec![chosen.into_iter().map(|place| pieces[place]).collect()];
            let (parent, remembered) = (None, Remembered::default());
            Image { name, parent, steps, fixed_layers: 0, other_layers: vec![0, 1], budget: Budget::Usual, remembered }
        })
        .collect();
    let mut group = criterion.benchmark_group("planner");
    group.sample_size(10).throughput(Throughput::Elements(IMAGES as u64));
    group.bench_function("cut", |bencher| bencher.iter(|| cut(&images).unwrap()));
    group.finish();
}

criterion_group!(benches, segments, layers);
criterion_main!(benches);
