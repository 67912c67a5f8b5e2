//! How long it takes to cut a thousand images of five hundred packages each, from five thousand, and how much memory:
//! `cargo run --release -p drystone --example cut_a_thousand_images`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use content::Digest;
use drystone::cut::{Budget, Image, Piece, Remembered, cut};

const IMAGES: usize = 1000;
const PACKAGES: u64 = 500;
const ALL_PACKAGES: u64 = 5000;

fn main() {
    let names: Vec<String> = (0..ALL_PACKAGES).map(|package| format!("package-{package}")).collect();
    let pieces: Vec<Piece<'_>> = names
        .iter()
        .enumerate()
        .map(|(place, name)| Piece {
            name,
            digest: Digest::of(name.as_bytes()),
            size: 1000 + (place as u64 * 7919) % 999_983,
        })
        .collect();
    let image_names: Vec<String> = (0..IMAGES).map(|image| format!("image-{image}")).collect();
    for (what, choose) in [("by chance", by_chance as Choose), ("popular ones more often", by_popularity)] {
        let mut random = Random(1);
        let images: Vec<Image<'_>> = image_names
            .iter()
            .map(|name| {
                let mut chosen = BTreeSet::new();
                while chosen.len() < PACKAGES as usize {
                    chosen.insert(choose(&mut random));
                }
                let packages = chosen.into_iter().map(|package| pieces[package as usize]).collect();
                let (parent, other_layers, remembered) = (None, vec![0, 1], Remembered::default());
                Image {
                    name,
                    parent,
                    steps: vec![packages],
                    fixed_layers: 0,
                    other_layers,
                    budget: Budget::Usual,
                    remembered,
                }
            })
            .collect();
        let started = Instant::now();
        let result = cut(&images).unwrap();
        let took = started.elapsed();
        let mut stored: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
        for (image, steps) in images.iter().zip(&result.images) {
            for group in &steps[0] {
                let group: Vec<&Piece<'_>> = group.iter().map(|place| &image.steps[0][*place]).collect();
                let names = group.iter().map(|piece| piece.name).collect();
                stored.insert(names, group.iter().map(|piece| piece.size).sum());
            }
        }
        let most = result.images.iter().map(|steps| steps[0].len()).max().unwrap_or_default();
        let whole: u64 = images.iter().flat_map(|image| &image.steps[0]).map(|piece| piece.size).sum();
        println!(
            "{IMAGES} images of {PACKAGES} packages, {what}: {:.1} s, at most {most} groups an image, {} layers, \
             {} MB stored instead of {} MB",
            took.as_secs_f64(),
            stored.len(),
            stored.values().sum::<u64>() / 1_000_000,
            whole / 1_000_000,
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}

type Choose = fn(&mut Random) -> u64;

fn by_chance(random: &mut Random) -> u64 {
    random.below(ALL_PACKAGES)
}

/// The smallest of some numbers: as in an archive, where few packages are needed by nearly all images.
fn by_popularity(random: &mut Random) -> u64 {
    (0..4).map(|_| random.below(ALL_PACKAGES)).min().unwrap_or_default()
}

/// Marsaglia's xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
