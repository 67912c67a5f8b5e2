//! What a Dockerfile of ten thousand lines costs: reading it, and all rules of `lint`.
#![expect(clippy::unwrap_used, reason = "a measurement may fail")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use spec::SourceFile;
use spec::dockerfile::parse;
use spec::lint::{self, Selection};

/// Instructions of most kinds, with continued lines, comments and a heredoc.
const BLOCK: &str = "\
ENV NAME=value OTHER=\"two words\"
RUN apt-get update && \\
    apt-get install -y --no-install-recommends \\
    curl ca-certificates
COPY --chown=a:b src /dst
# comment

LABEL a=b
RUN <<EOF
true
EOF
";

fn ten_thousand_lines(criterion: &mut Criterion) {
    let text = format!("FROM base\n{}", BLOCK.repeat(10_000_usize.div_ceil(BLOCK.lines().count())));
    let mut group = criterion.benchmark_group("a Dockerfile of 10,000 lines");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let file = Arc::new(SourceFile::new("Dockerfile", text));
    group.bench_function("parse", |bencher| bencher.iter(|| parse(&file).unwrap()));
    let selection = Selection::default();
    group.sample_size(10);
    group.bench_function("lint", |bencher| bencher.iter(|| lint::dockerfile(&file, None, &[], &selection)));
    group.finish();
}

criterion_group!(benches, ten_thousand_lines);
criterion_main!(benches);
