//! The step that runs maintainer scripts over packages that were laid: every `preinst`, after what it has to find
//! configured, then `dpkg --configure`, with the image's own programs. An image without dpkg takes packages without
//! scripts, and runs nothing.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;

use debian::deb822::single_stanza;
use debian::package::Package;
use debian::{PackageId, Universe};
use layer::entry::ImagePath;
use layer::record::TreeDir;
use layer::view::View;
use sandbox::{Network, Stdin, User};
use spec::ImageName;

use crate::error::BuildError;
use crate::image::DEFAULT_PATH;
use crate::package::compiles::Compile;
use crate::package::database::{DPKG, Database, Unpacked};
use crate::package::segment::Segment;
use crate::plan::LockedPackage;
use crate::python::Compiling;
use crate::steps::bytecode;
use crate::steps::commands::{Invocation, Runner};
use crate::steps::keystore;

/// Counts versions of what this module does; part of the step's key.
pub const VERSION: &str = "configure 5";

/// How dpkg is called: the sandbox does not wait for the disk anyway.
const DPKG_RUN: &str = "dpkg --force-unsafe-io";
/// Printed before the name of the package whose `preinst` failed.
const PREINST_FAILED: &str = "drystone: preinst failed: ";
/// What dpkg prints before the name of a package that it could not configure.
const CONFIGURE_FAILED: &str = "dpkg: error processing package ";
/// The largest file that scripts left and that is read to be written in another way.
const LARGEST_REWRITTEN: u64 = 16 << 20;

/// Packages whose scripts have not run.
pub struct Waiting<'a> {
    /// Them.
    pub packages: &'a [LockedPackage],
    /// Their segments.
    pub segments: &'a [Segment],
    /// What becomes of their Python modules.
    pub compiling: &'a Compiling,
}

impl Waiting<'_> {
    fn unpacked(&self) -> Vec<Unpacked<'_>> {
        self.packages.iter().zip(self.segments).map(|(package, segment)| Unpacked { package, segment }).collect()
    }

    /// Whether a script need not, or must not, compile this.
    fn is_taken_out(&self, compile: &Compile) -> bool {
        match self.compiling {
            Compiling::ByScripts => false,
            Compiling::Never => true,
            Compiling::Once(interpreter) => {
                let mut pairs = self.packages.iter().zip(self.segments);
                compile.is_for(&interpreter.version)
                    && pairs.any(|(package, segment)| package.name == compile.package && segment.bytecode.is_some())
            }
        }
    }
}

/// Runs the scripts of packages over the trees `laid`, of which the first `before` were there before the packages; the
/// changes are in `upper`.
pub fn run(
    runner: &Runner<'_>,
    image: &ImageName,
    waiting: &Waiting<'_>,
    (laid, before): (&[TreeDir], usize),
    upper: &TreeDir,
    epoch: i64,
) -> Result<(), BuildError> {
    let unpacked = waiting.unpacked();
    let root = upper.root();
    let database = Database { before: &laid[..before], laid, root: &root };
    let names = database.write(&unpacked)?;
    // A new system configures nothing before all of it is there, as debootstrap does.
    let early = if database.is_new()? { Vec::new() } else { configured_before(&unpacked)? };
    let changed = database.take_out(&unpacked, &names, &|compile| waiting.is_taken_out(compile))?;
    let invocation = Invocation {
        image,
        what: "the packages' scripts",
        argv: ["/bin/sh", "-s"].map(OsString::from).to_vec(),
        env: environment(epoch),
        directory: "/".into(),
        user: User::default(),
        network: Network::None,
        mounts: Vec::new(),
        stdin: Stdin::Data(script(&unpacked, &names, &early).into_bytes()),
    };
    runner.run(invocation, laid, upper).map_err(name_the_package)?;
    database.clean(upper, &changed)?;
    if *waiting.compiling == Compiling::Never {
        bytecode::remove(upper, laid)?;
    }
    scrub_accounts(upper, epoch)?;
    scrub_keystore(upper, epoch)?;
    Ok(())
}

/// Whether the image can run maintainer scripts.
pub fn has_dpkg(laid: &View<'_>) -> io::Result<bool> {
    Ok(laid.lookup(&path_of(DPKG)?)?.is_some())
}

/// What takes the place of scripts in an image without dpkg: packages that have none are entered into the database as
/// installed, and nothing runs; for one that has some, this fails and names it.
pub fn without_dpkg(
    image: &ImageName,
    waiting: &Waiting<'_>,
    (laid, before): (&[TreeDir], usize),
    upper: &TreeDir,
) -> Result<(), BuildError> {
    let unpacked = waiting.unpacked();
    let root = upper.root();
    for Unpacked { package, segment } in &unpacked {
        if let Some(script) = script_of(segment, &View::new(laid))? {
            let text = format!(
                "{image}: the package {} has a {script} script, which needs dpkg and a shell, and the image has no dpkg: \
                 add the package `dpkg` to it or to its parent",
                package.label()
            );
            return Err(BuildError::Io(io::Error::new(io::ErrorKind::Unsupported, text)));
        }
    }
    Database { before: &laid[..before], laid, root: &root }.write_installed(&unpacked)
}

/// The first script that installing a package would run.
fn script_of(segment: &Segment, laid: &View<'_>) -> Result<Option<&'static str>, BuildError> {
    let name = segment.database_name();
    for script in ["preinst", "config", "postinst"] {
        if laid.lookup(&path_of(&format!("var/lib/dpkg/info/{name}.{script}"))?)?.is_some() {
            return Ok(Some(script));
        }
    }
    Ok(None)
}

fn path_of(text: &str) -> io::Result<ImagePath> {
    ImagePath::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// As dpkg gives it to scripts, with nothing of the builder's own environment.
fn environment(epoch: i64) -> Vec<(OsString, OsString)> {
    let epoch = epoch.to_string();
    let variables = [
        ("PATH", DEFAULT_PATH),
        ("HOME", "/root"),
        ("SHELL", "/bin/sh"),
        ("TERM", "dumb"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DPKG_COLORS", "never"),
        // The day of a password's change and the order of sets in Python's bytecode would differ from run to run.
        ("SOURCE_DATE_EPOCH", &epoch),
        ("PYTHONHASHSEED", "0"),
    ];
    variables.map(|(name, value)| (name.into(), value.into())).to_vec()
}

/// For each package, by their places, those that dpkg configures before it unpacks that package.
fn configured_before(packages: &[Unpacked<'_>]) -> Result<Vec<Vec<usize>>, BuildError> {
    let mut index = Vec::with_capacity(packages.len());
    for Unpacked { package, segment } in packages {
        let stanza = single_stanza(&segment.record.control)
            .map_err(|error| BuildError::Package { package: package.label(), source: error.into() })?;
        index.push(Package::from_stanza(&stanza)?);
    }
    let architectures = packages.iter().map(|unpacked| unpacked.package.architecture.as_str());
    let architecture = architectures.into_iter().find(|architecture| *architecture != "all").unwrap_or("all");
    let universe = Universe::new(architecture, vec![index])?;
    // One version of each, and in the order in which they were given.
    let order: Vec<PackageId> = universe.packages().map(|(id, _)| id).collect();
    debug_assert_eq!(order.len(), packages.len());
    Ok(debian::order::configured_before(&universe, &order)?)
}

/// The driver, read by the image's shell from standard input. Names and versions are checked where they are parsed and
/// hold nothing that a shell would act upon; they are quoted all the same.
///
/// What a package pre-depends on is configured before its `preinst`, so that accounts get their numbers in the order in
/// which apt would have made them; triggers wait for the end, as they do for apt.
///
/// While a `preinst` runs, dpkg has the package's control file in `tmp.ci`, where debconf reads whose questions it asks.
fn script(packages: &[Unpacked<'_>], names: &[String], early: &[Vec<usize>]) -> String {
    let mut script = String::from(
        "umask 022\n\
         export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_MAINTSCRIPT_DEBUG=0\n\
         DPKG_RUNNING_VERSION=$(dpkg-query -W -f '${Version}' dpkg 2>/dev/null); export DPKG_RUNNING_VERSION\n\
         preinst() {\n\
         \t[ -d /var/lib/dpkg/tmp.ci ] || mkdir /var/lib/dpkg/tmp.ci\n\
         \techo \"Package: $1\" >/var/lib/dpkg/tmp.ci/control\n\
         \tDPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE=$1 DPKG_MAINTSCRIPT_ARCH=$2 \\\n\
         \tDPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 \"/var/lib/dpkg/info/$3.preinst\" install </dev/null && return\n",
    );
    let _ = writeln!(script, "\tcode=$?\n\techo \"{PREINST_FAILED}$1\"\n\texit $code\n}}");
    let _ = writeln!(script, "early() {{\n\t{DPKG_RUN} --no-triggers --configure \"$@\" </dev/null || exit\n}}");
    // base-passwd's script makes /etc/passwd, which others need.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|place| packages[*place].package.name != "base-passwd");
    for place in order {
        let Unpacked { package, segment } = packages[place];
        if let Some(demanded) = early.get(place).filter(|demanded| !demanded.is_empty()) {
            let named: Vec<String> = demanded.iter().map(|place| format!("'{}'", names[*place])).collect();
            let _ = writeln!(script, "early {}", named.join(" "));
        }
        if segment.record.preinst {
            let _ = writeln!(script, "preinst '{}' '{}' '{}'", package.name, native(segment), names[place]);
        }
    }
    script.push_str("rm -rf /var/lib/dpkg/tmp.ci\n");
    let _ = writeln!(script, "exec {DPKG_RUN} --configure --pending </dev/null");
    script
}

fn native(segment: &Segment) -> String {
    single_stanza(&segment.record.control)
        .ok()
        .and_then(|stanza| stanza.get("Architecture").map(|text| text.trim().to_owned()))
        .unwrap_or_default()
}

/// Finds in the output which package failed.
fn name_the_package(error: BuildError) -> BuildError {
    let BuildError::Command { image, what, outcome, last_lines, log } = error else { return error };
    let what = last_lines.iter().find_map(|line| named_in(line)).unwrap_or(what);
    BuildError::Command { image, what, outcome, last_lines, log }
}

fn named_in(line: &str) -> Option<String> {
    if let Some(package) = line.strip_prefix(PREINST_FAILED) {
        return Some(format!("the preinst script of {package}"));
    }
    let rest = line.strip_prefix(CONFIGURE_FAILED)?;
    let package = rest.split_whitespace().next()?;
    Some(format!("configuring the package {package}"))
}

/// Passwords' dates in `/etc/shadow` become those of the image; most programs honour `SOURCE_DATE_EPOCH`, not all.
fn scrub_accounts(upper: &TreeDir, epoch: i64) -> io::Result<()> {
    let day = (epoch / 86400).to_string();
    rewrite(upper, "etc/shadow", |bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        let lines: String = text.split_inclusive('\n').map(|line| with_day(line, &day)).collect();
        Some(lines.into_bytes())
    })
}

/// Java's certificates become as old as the image; the program that imports them takes the time of the machine.
fn scrub_keystore(upper: &TreeDir, epoch: i64) -> io::Result<()> {
    rewrite(upper, "etc/ssl/certs/java/cacerts", |store| keystore::dated(store, epoch))
}

/// Replaces the content of a file that scripts left, if there is one; `None` leaves it.
///
/// A script may have put a link there, to a file of this machine: the view follows none, and a file is what it takes.
fn rewrite(upper: &TreeDir, path: &str, rewritten: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
    let left = View::new(std::slice::from_ref(upper)).lookup(&path_of(path)?)?;
    let Some(file) = left.filter(|found| found.metadata.is_file() && found.metadata.len() <= LARGEST_REWRITTEN) else {
        return Ok(());
    };
    let content = fs::read(&file.path)?;
    match rewritten(&content).filter(|new| *new != content) {
        Some(new) => fs::write(file.path, new),
        None => Ok(()),
    }
}

/// Replaces the third field of a line of shadow(5) unless it is empty or 0, which mean something.
fn with_day(line: &str, day: &str) -> String {
    let mut fields: Vec<&str> = line.split(':').collect();
    if let Some(field) = fields.get_mut(2).filter(|field| !field.is_empty() && **field != "0") {
        *field = day;
    }
    fields.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_package_is_found_in_the_output() {
        let cases = [
            ("drystone: preinst failed: redis", Some("the preinst script of redis")),
            ("dpkg: error processing package uwsgi-core (--configure):", Some("configuring the package uwsgi-core")),
            ("Setting up redis (7.0) ...", None),
        ];
        for (line, expected) in cases {
            assert_eq!(named_in(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_accounts_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::write(&outside, "root:*:19000:0:99999:7:::\n").unwrap();
        let upper = TreeDir::create(directory.path().join("upper")).unwrap();
        fs::create_dir(upper.root().join("etc")).unwrap();
        std::os::unix::fs::symlink(&outside, upper.root().join("etc/shadow")).unwrap();
        scrub_accounts(&upper, 86400 * 20000).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "root:*:19000:0:99999:7:::\n");
        fs::remove_file(upper.root().join("etc/shadow")).unwrap();
        fs::copy(&outside, upper.root().join("etc/shadow")).unwrap();
        scrub_accounts(&upper, 86400 * 20000).unwrap();
        let scrubbed = fs::read_to_string(upper.root().join("etc/shadow")).unwrap();
        assert_eq!(scrubbed, "root:*:20000:0:99999:7:::\n");
    }

    #[test]
    fn only_the_day_of_a_shadow_line_changes() {
        let cases = [
            ("root:*:19000:0:99999:7:::\n", "root:*:20000:0:99999:7:::\n"),
            ("must:change:0:0:99999:7:::\n", "must:change:0:0:99999:7:::\n"),
            ("never::::::::\n", "never::::::::\n"),
            ("", ""),
        ];
        for (line, expected) in cases {
            assert_eq!(with_day(line, "20000"), expected);
        }
    }
}
