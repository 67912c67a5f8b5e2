//! Package URLs: names of packages that tools of all kinds understand. See the specification of purl, types `deb` and
//! `oci`.

use std::fmt::Write as _;

use content::Digest;

use crate::inventory::InstalledPackage;

/// A Debian package; the distribution is its id and version.
pub fn deb(package: &InstalledPackage, distribution: Option<(&str, Option<&str>)>) -> String {
    let (id, version) = distribution.unwrap_or(("debian", None));
    let mut purl = format!("{}?arch={}", deb_of(id, &package.name, &package.version), package.architecture);
    if let Some(version) = version {
        let _ = write!(purl, "&distro={id}-{version}");
    }
    // The name of the source package is what security trackers know.
    if package.source != package.name || package.source_version != package.version {
        let mut upstream = encoded(&package.source);
        if package.source_version != package.version {
            let _ = write!(upstream, "%40{}", encoded(&package.source_version));
        }
        let _ = write!(purl, "&upstream={upstream}");
    }
    purl
}

/// A file of an archive of Debian's form, whoever it is from.
pub fn deb_file(name: &str, version: &str, architecture: &str) -> String {
    format!("{}?arch={architecture}", deb_of("debian", name, version))
}

/// A Debian package by name and version, without qualifiers.
fn deb_of(distribution: &str, name: &str, version: &str) -> String {
    format!("pkg:deb/{distribution}/{}@{}", encoded(name), encoded(version))
}

/// An image.
pub fn oci(repository: &str, digest: Digest, architecture: &str) -> String {
    let name = repository.rsplit('/').next().unwrap_or(repository);
    format!("pkg:oci/{}@sha256%3A{}?arch={architecture}", encoded(name), digest.hex())
}

/// All bytes but those that mean themselves in a purl.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => {
                let _ = write!(encoded, "%{other:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_encoded_and_sources_named_where_they_differ() {
        assert_eq!(deb_of("debian", "libstdc++6", "1:12.2-14+b1"), "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2-14%2Bb1");
        let mut package = InstalledPackage {
            name: "libc6".into(),
            version: "2.36-9+deb12u9".into(),
            architecture: "amd64".into(),
            source: "glibc".into(),
            source_version: "2.36-9+deb12u9".into(),
            status: "installed".into(),
            maintainer: None,
            licences: Vec::new(),
            layer: None,
        };
        let expected = "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc";
        assert_eq!(deb(&package, Some(("debian", Some("12")))), expected);
        package.source = "libc6".into();
        assert_eq!(deb(&package, None), "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64");
    }
}
