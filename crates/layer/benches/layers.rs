//! What a layer costs for each byte: compressing, reading back, hashing, writing tar entries.
#![expect(clippy::unwrap_used, reason = "a measurement may fail")]

use std::io::Write;

use content::Digest;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use layer::compress::{BlockWriter, Compression, decompress};
use layer::entry::{Entry, ImagePath, Kind, Metadata};
use layer::write::EntryWriter;

/// Bytes that compress about as programs do: lines with numbers between words.
fn content(length: usize) -> Vec<u8> {
    let line = |number: u32| {
        format!("{:08x} the same words in each line {:04}\n", number.wrapping_mul(2_654_435_761), number % 9973)
    };
    (0..).flat_map(|number| line(number).into_bytes()).take(length).collect()
}

fn compressed(content: &[u8], compression: Compression) -> Vec<u8> {
    let mut writer = BlockWriter::new(Vec::new(), compression);
    writer.write_all(content).unwrap();
    writer.finish().unwrap().0
}

fn compression(criterion: &mut Criterion) {
    let content = content(16 << 20);
    let mut group = criterion.benchmark_group("compression");
    group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(10);
    for kind in [Compression::Gzip, Compression::Zstd] {
        group.bench_function(format!("{kind} write"), |bencher| bencher.iter(|| compressed(&content, kind)));
        let stored = compressed(&content, kind);
        group.bench_function(format!("{kind} read"), |bencher| {
            bencher.iter(|| std::io::copy(&mut decompress(&stored[..]).unwrap(), &mut std::io::sink()).unwrap());
        });
    }
    group.finish();
}

fn hashing(criterion: &mut Criterion) {
    let content = content(16 << 20);
    let mut group = criterion.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("sha256", |bencher| bencher.iter(|| Digest::of(&content)));
    group.finish();
}

fn tar(criterion: &mut Criterion) {
    const FILES: usize = 1000;
    let content = content(4096);
    let mut group = criterion.benchmark_group("tar");
    group.throughput(Throughput::Elements(FILES as u64));
    let entries: Vec<Entry> = (0..FILES)
        .map(|number| Entry {
            path: ImagePath::parse(format!("usr/share/some-package/directory-{}/file-{number}", number % 10)).unwrap(),
            kind: Kind::File { size: content.len() as u64 },
            metadata: Metadata { mode: 0o644, mtime: 1_700_000_000, ..Metadata::default() },
        })
        .collect();
    let write = || {
        let mut writer = EntryWriter::new(Vec::new());
        entries.iter().for_each(|entry| writer.write(entry, &mut &content[..]).unwrap());
        writer.into_inner()
    };
    group.bench_function("write", |bencher| bencher.iter(write));
    let stored = write();
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            layer::read::entries(&stored[..], |_, content| content.read_to_end(&mut Vec::new()).map(drop)).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, compression, hashing, tar);
criterion_main!(benches);
