//! Archives made here, good and damaged, and by dpkg-deb where the machine has it.

use std::io::Write;

use super::*;

const CONTROL: &str = "Package: a\nVersion: 1\nArchitecture: all\n";

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_path(name).unwrap();
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn compress(suffix: &str, bytes: &[u8]) -> Vec<u8> {
    match suffix {
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    }
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", content.len()).unwrap();
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn deb(suffix: &str) -> Vec<u8> {
    let control = compress(suffix, &tar(&[("./control", CONTROL.as_bytes()), ("./postinst", b"#!/bin/sh\n")]));
    let data = compress(suffix, &data_tar());
    let (control_name, data_name) = (format!("control.tar{suffix}"), format!("data.tar{suffix}"));
    ar(&[("debian-binary", b"2.0\n"), (&control_name, &control), (&data_name, &data)])
}

fn data_tar() -> Vec<u8> {
    tar(&[("./usr/bin/a", &[7; 5000]), ("./etc/a", b"x")])
}

fn read_all(bytes: &[u8]) -> Result<(ControlArchive, Vec<u8>), String> {
    let reader = DebReader::new(bytes).map_err(|error| describe(&error))?;
    let control = reader.control().clone();
    let mut data = reader.data(1 << 20).map_err(|error| describe(&error))?;
    let mut tar = Vec::new();
    data.read_to_end(&mut tar).map_err(|error| describe(&error))?;
    data.finish().map_err(|error| describe(&error))?;
    Ok((control, tar))
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn archives_of_all_compressions_are_read() {
    for suffix in ["", ".gz", ".xz", ".zst"] {
        let (control, data) = read_all(&deb(suffix)).unwrap();
        assert_eq!(control.stanza().unwrap().get("Package"), Some("a"), "{suffix}");
        assert_eq!(control.file("postinst").unwrap().mode, 0o755);
        assert_eq!(control.text("postinst"), Some("#!/bin/sh\n"));
        assert_eq!(data, data_tar(), "{suffix}");
    }
}

#[test]
fn every_truncated_archive_is_an_error() {
    for suffix in ["", ".gz", ".xz", ".zst"] {
        let whole = deb(suffix);
        for length in 0..whole.len() {
            // A last member's padding may be missing.
            let is_padding = length + 1 == whole.len() && whole.last() == Some(&b'\n');
            assert!(read_all(&whole[..length]).is_err() || is_padding, "{suffix}: {length} of {} bytes", whole.len());
        }
    }
}

#[test]
fn damaged_archives_say_what_is_wrong() {
    let control = compress(".gz", &tar(&[("./control", CONTROL.as_bytes())]));
    let data = compress(".gz", &data_tar());
    let binary: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let parts = |members: &[(&str, &[u8])]| read_all(&ar(members)).unwrap_err();
    let mut garbage = data.clone();
    garbage.extend_from_slice(&[9; 40]);
    let mut trailing = ar(&[binary, ("control.tar.gz", &control), ("data.tar.gz", &data)]);
    trailing.extend_from_slice(b"trailing garbage");
    let cases = [
        (read_all(b"PK\x03\x04").unwrap_err(), "this is not a .deb"),
        (read_all(&trailing).unwrap_err(), "the .deb is truncated in a member's header"),
        (parts(&[("debian-binary", b"3.0\n")]), "expected version 2 of the .deb format, found `3.0`"),
        (parts(&[("control.tar.gz", &control)]), "expected the member `debian-binary`, found `control.tar.gz`"),
        (parts(&[binary]), "expected a member `control.tar`, found the end of the .deb"),
        (parts(&[binary, ("data.tar.gz", &data)]), "expected the member `control.tar`, found `data.tar.gz`"),
        (parts(&[binary, ("control.tar.bz2", &control)]), "the member `control.tar.bz2` is compressed in a way"),
        (parts(&[binary, ("control.tar.gz", &data)]), "the control archive is not usable"),
        (parts(&[binary, ("control.tar.gz", &control)]), "expected a member `data.tar`, found the end of the .deb"),
        (parts(&[binary, ("control.tar.gz", &control), ("data.tar.gz", &garbage)]), ""),
        (
            parts(&[binary, ("control.tar.gz", &control), ("data.tar.gz", &data), ("more", b"")]),
            "expected the end of the .deb behind the data, found a member `more`",
        ),
    ];
    for (error, beginning) in cases {
        assert!(error.starts_with(beginning), "{error}\nexpected: {beginning}");
    }
    let ignorable: [(&str, &[u8]); 5] =
        [binary, ("_one", b"x"), ("control.tar.gz", &control), ("data.tar.gz", &data), ("_gpgorigin", b"xyz")];
    read_all(&ar(&ignorable)).unwrap();
}

#[test]
fn bytes_behind_the_compressed_data_are_an_error() {
    for suffix in [".gz", ".xz", ".zst"] {
        let control = compress("", &tar(&[("control", CONTROL.as_bytes())]));
        let mut data = compress(suffix, &data_tar());
        data.extend_from_slice(b"garbage");
        let archive =
            ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (&format!("data.tar{suffix}"), &data)]);
        assert!(read_all(&archive).is_err(), "{suffix}");
    }
}

#[test]
fn the_limits_hold() {
    let bytes = deb(".gz");
    let error = DebReader::new(&*bytes).unwrap().data(1000).unwrap().finish().unwrap_err();
    assert_eq!(error.to_string(), "the member `data.tar.gz` has more than 1000 bytes when decompressed");
    let size = usize::try_from(MAX_CONTROL_BYTES).unwrap();
    let bomb = compress(".gz", &tar(&[("./control", CONTROL.as_bytes()), ("./md5sums", &vec![0; size])]));
    let error = read_all(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &bomb)])).unwrap_err();
    assert!(error.contains("has more than 33554432 bytes when decompressed"), "{error}");
}

#[test]
fn an_xz_that_asks_for_too_much_memory_is_refused() {
    let mut xz = compress(".xz", &data_tar());
    // Block header: size, flags, filter id, size of properties, dictionary size (the .xz file format, 3.1 and 5.3.1); 36 stands for 1 GiB.
    assert_eq!(&xz[12..16], &[2, 0, 0x21, 1]);
    xz[16] = 36;
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    let control = tar(&[("control", CONTROL.as_bytes())]);
    let error =
        read_all(&ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &xz)])).unwrap_err();
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn control_archives_with_strange_entries_are_refused() {
    let read = |files: &[(&str, &[u8])]| ControlArchive::read(&mut &*tar(files)).unwrap_err().to_string();
    let control = ("control", CONTROL.as_bytes());
    assert_eq!(read(&[("postinst", b"")]), "expected a file `control`, found none");
    assert_eq!(read(&[control, ("sub/file", b"")]), "expected plain files, found `sub/file`");
    assert_eq!(read(&[control, ("control", b"")]), "the file `control` is there twice");
    assert_eq!(read(&[control, ("a b", b"")]), "expected plain files, found `a b`");
    assert_eq!(read(&[("control", b"nonsense")]), "the file `control`");
    assert_eq!(read(&[("control", b"A: \xff\n")]), "the file `control` is not UTF-8 text");
    let names: Vec<String> = (0..=256).map(|number| format!("f{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(read(&files), "there are more than 256 files");
}

#[test]
fn archives_by_dpkg_deb_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/share/a")).unwrap();
    std::fs::write(tree.join("usr/share/a/file"), vec![1; 100_000]).unwrap();
    let control = format!("{CONTROL}Maintainer: A <a@example.org>\nDescription: a\n");
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    for compression in ["none", "gzip", "xz", "zstd"] {
        let file = directory.path().join(format!("{compression}.deb"));
        let mut command = std::process::Command::new("dpkg-deb");
        let built = command.arg(format!("-Z{compression}")).arg("-b").arg(&tree).arg(&file).output();
        let output = built.expect("dpkg-deb: these tests need a Debian machine");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let reader = DebReader::new(std::fs::File::open(&file).unwrap()).unwrap();
        let mut archive = tar::Archive::new(reader.data(1 << 20).unwrap());
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            paths.push(entry.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(paths, ["./", "./usr/", "./usr/share/", "./usr/share/a/", "./usr/share/a/file"]);
        archive.into_inner().finish().unwrap();
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(position in 0_usize..2000, byte in 0_u8..=255, suffix in 0_usize..4) {
        let mut bytes = deb(["", ".gz", ".xz", ".zst"][suffix]);
        let position = position % bytes.len();
        bytes[position] = byte;
        let _ = read_all(&bytes);
    }
}
