//! Commands of another machine, which an emulator of the kernel runs.

use std::fs;
use std::path::Path;

use crate::support::family::{Bench, FAMILY, read_json};
use crate::support::program::tool;

/// What Debian registers; see binfmt.d(5).
const SETTING: &str = "/usr/lib/binfmt.d/qemu-aarch64.conf";
/// Where the kernel takes it.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// A program for 64-bit ARM that only exits with 0: an ELF header, one segment, and `mov x0, 0; mov x8, 93; svc 0`.
fn program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
    for number in [0x40_0078_u64, 64, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0");
    for number in [0_u64, 0x40_0000, 0x40_0000, 132, 132, 0x1000] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"\0\0\x80\xd2\xa8\x0b\x80\xd2\x01\0\0\xd4");
    bytes
}

/// Makes the kernel call qemu, as Debian's systemd does at boot.
fn register() {
    if Path::new(BINFMT).join("qemu-aarch64").exists() {
        return;
    }
    if !Path::new(BINFMT).join("register").exists() {
        tool("mount", ["-t", "binfmt_misc", "none", BINFMT]);
    }
    let setting = fs::read_to_string(SETTING).expect("tests/run installs qemu-user-static");
    let setting = setting.lines().find(|line| line.starts_with(':')).unwrap();
    // Another test may be faster.
    let registered = fs::write(Path::new(BINFMT).join("register"), setting);
    assert!(registered.is_ok() || Path::new(BINFMT).join("qemu-aarch64").exists(), "{registered:?}");
}

#[test]
fn commands_of_another_machine_run_where_the_kernel_has_an_emulator() {
    register();
    let bench = Bench::new();
    bench.spec("family.yaml", FAMILY);
    let image = "\
from: scratch
platforms: [linux/arm64]
files:
  - {target: /bin/true, source: true, mode: \"0755\"}
run:
  - [/bin/true]
";
    bench.spec("arm/image.yaml", image);
    fs::write(bench.at("family/arm/true"), program()).unwrap();
    let built = bench.build(&[]).success();
    assert!(built.stderr.contains("RUN [\"/bin/true\"]"), "{}", built.stderr);
    let image = bench.manifest("arm");
    let config = read_json(&bench.blob(image["config"]["digest"].as_str().unwrap()));
    assert_eq!(config["architecture"], "arm64");
}
