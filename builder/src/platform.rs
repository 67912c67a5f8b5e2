//! Which platforms images are built for, and what Debian calls them.

use std::collections::BTreeSet;

use oci::Platform;
use spec::{Family, Image};

/// What images are built for if nobody says it. It does not depend on the machine that builds, so that one spec gives
/// one image.
pub fn usual() -> Platform {
    Platform::linux("amd64")
}

/// The platforms that a family's images name, in the order in which they first do; the usual one if they name none.
/// `wanted` says which images count.
pub fn of_family(family: &Family, wanted: &dyn Fn(&str) -> bool) -> Vec<Platform> {
    let images = family.images.iter().filter(|image| wanted(image.name.as_str()));
    each_once(images.flat_map(of_image))
}

/// These platforms, each where it first stands; the usual one if there are none.
pub fn each_once(platforms: impl IntoIterator<Item = Platform>) -> Vec<Platform> {
    let mut seen = BTreeSet::new();
    let found: Vec<Platform> = platforms.into_iter().filter(|platform| seen.insert(platform.clone())).collect();
    if found.is_empty() { vec![usual()] } else { found }
}

/// The platforms that an image names; the usual one if it names none.
fn of_image(image: &Image) -> Vec<Platform> {
    match image.platforms.is_empty() {
        true => vec![usual()],
        false => image.platforms.iter().map(|platform| read(platform)).collect(),
    }
}

/// Whether an image may be built for a platform: one that it names, or any if it names none.
pub fn is_for(image: &Image, platform: &Platform) -> bool {
    image.platforms.is_empty() || image.platforms.iter().any(|named| read(named) == *platform)
}

fn read(platform: &spec::Platform) -> Platform {
    platform.as_str().parse().expect("what a spec takes for a platform is one")
}

/// What Debian calls the architecture of a platform; as images call it, if Debian has no such port.
///
/// See the list of ports, `dpkg-architecture -L`.
pub fn debian_architecture(platform: &Platform) -> &str {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("386", _) => "i386",
        ("arm", Some("v5" | "v6")) => "armel",
        ("arm", _) => "armhf",
        ("ppc64le", _) => "ppc64el",
        ("mips64le", _) => "mips64el",
        (architecture, _) => architecture,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_debians_names() {
        for (platform, expected) in [
            ("linux/amd64", "amd64"),
            ("linux/arm64", "arm64"),
            ("linux/arm/v7", "armhf"),
            ("linux/arm/v6", "armel"),
            ("linux/386", "i386"),
            ("linux/ppc64le", "ppc64el"),
            ("linux/s390x", "s390x"),
        ] {
            assert_eq!(debian_architecture(&platform.parse().unwrap()), expected, "{platform}");
        }
    }
}
