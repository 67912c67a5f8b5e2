//! A builder: enters a sandbox, and does one thing.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use layer::record::{self, Owners, Sidecar, TreeDir};
use sandbox::{Choice, Hidden, Job, Mount, MountSource, Network, Outcome, RunError, Sandbox, Stdin, User};

/// What a builder exits with when a run was impossible.
pub(crate) const IMPOSSIBLE: i32 = 99;

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [action, flag, rung, rest @ ..] = arguments else { panic!("builder ACTION --rung RUNG ...") };
    assert_eq!(flag, "--rung");
    let choice: Choice = rung.parse().unwrap();
    if action == "late" {
        return enter_late(choice);
    }
    let sandbox = match sandbox::enter(choice) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("{error} {:?}", error.fixes());
            return exit(IMPOSSIBLE);
        }
    };
    match action.as_str() {
        "run" => run(&sandbox, rest),
        "make-tree" => make_tree(rest),
        "dump" => dump(sandbox.owners(), Path::new(&rest[0])),
        "layer" => layer(sandbox.owners(), rest),
        "reason" => println!("{}", sandbox.reason()),
        action => panic!("{action}"),
    }
    ExitCode::SUCCESS
}

fn exit(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap())
}

fn enter_late(choice: Choice) -> ExitCode {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| std::thread::park_timeout(Duration::from_secs(5)));
        println!("{}", sandbox::enter(choice).unwrap_err());
        thread.thread().unpark();
    });
    ExitCode::SUCCESS
}

fn run(sandbox: &Sandbox, arguments: &[String]) {
    let mut arguments = arguments.iter();
    let mut job = Job {
        lowers: Vec::new(),
        upper: TreeDir::new("/nowhere"),
        argv: Vec::new(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/bin".into())],
        directory: "/".into(),
        user: User::default(),
        network: Network::None,
        mounts: Vec::new(),
        hostname: "stone".into(),
        stdin: Stdin::Null,
        interrupt: Arc::new(AtomicBool::new(false)),
    };
    let mut runs = 1;
    let mut on_terminal = false;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap().as_str();
        match argument.as_str() {
            "--lower" => job.lowers.push(TreeDir::new(value())),
            "--upper" => job.upper = TreeDir::new(value()),
            "--env" => {
                let (name, value) = value().split_once('=').unwrap();
                job.env.push((name.into(), value.into()));
            }
            "--directory" => job.directory = value().into(),
            "--user" => job.user = user(value()),
            "--host" => job.network = Network::Host,
            "--mount" => job.mounts.push(mount(value())),
            "--stdin" => job.stdin = Stdin::Data(value().into()),
            "--terminal" => on_terminal = true,
            "--interrupt-after" => interrupt_after(&job, value().parse().unwrap()),
            "--runs" => runs = value().parse().unwrap(),
            "--" => job.argv.extend(arguments.by_ref().map(OsString::from)),
            argument => panic!("{argument}"),
        }
    }
    let outcomes = if on_terminal { vec![run_on_terminal(sandbox, job)] } else { run_all(sandbox, &job, runs) };
    let worst = outcomes.into_iter().max_by_key(|outcome| match outcome {
        Ok(outcome) => outcome.code(),
        Err(_) => i32::MAX,
    });
    match worst.unwrap() {
        Ok(outcome) => std::process::exit(outcome.code()),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            eprintln!("{error}{source}");
            std::process::exit(IMPOSSIBLE);
        }
    }
}

fn run_on_terminal(sandbox: &Sandbox, job: Job) -> Result<Outcome, RunError> {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let lent = sandbox::lend_terminal(input.as_fd(), output.as_fd(), |terminal| {
        let job = Job { stdin: Stdin::Terminal(Arc::new(terminal)), ..job };
        sandbox.run(&job, &mut |_| panic!("the output goes to the terminal"))
    });
    lent.unwrap()
}

fn run_all(sandbox: &Sandbox, job: &Job, runs: usize) -> Vec<Result<Outcome, RunError>> {
    let one = |job: &Job| {
        sandbox.run(job, &mut |bytes| {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).unwrap();
            out.flush().unwrap();
        })
    };
    if runs == 1 {
        return vec![one(job)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..runs)
            .map(|number| {
                let upper = TreeDir::create(job.upper.path().join(number.to_string())).unwrap();
                let job = Job { upper, ..job.clone() };
                scope.spawn(move || one(&job))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn user(text: &str) -> User {
    let mut ids = text.split(':').map(|id| id.parse().unwrap());
    User { uid: ids.next().unwrap(), gid: ids.next().unwrap(), groups: ids.collect() }
}

fn mount(text: &str) -> Mount {
    let parts: Vec<&str> = text.split(':').collect();
    let source = match (parts[0], parts[0].strip_prefix("hidden=")) {
        ("memory", _) => MountSource::Memory { size: None },
        (_, Some(text)) => MountSource::File { content: Hidden::new(text.as_bytes()), mode: 0o400, owner: None },
        (path, None) => PathBuf::from(path).into(),
    };
    Mount { source, target: parts[1].into(), read_only: parts.get(2) == Some(&"ro") }
}

fn interrupt_after(job: &Job, milliseconds: u64) {
    let interrupt = job.interrupt.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(milliseconds));
        interrupt.store(true, Ordering::Relaxed);
    });
}

fn make_tree(arguments: &[String]) {
    let tree = TreeDir::create(&arguments[0]).unwrap();
    if let Some(template) = arguments.get(1) {
        copy(Path::new(template), &tree.root());
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            fs::create_dir(&to).unwrap();
            fs::set_permissions(&to, metadata.permissions()).unwrap();
            copy(&from, &to);
        } else if metadata.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap();
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Prints the entries of the layer that a tree is, over the trees before it: all that is written, content too.
fn layer(owners: Owners, trees: &[String]) {
    let mut trees: Vec<TreeDir> = trees.iter().map(TreeDir::new).collect();
    let upper = trees.pop().unwrap();
    let born = fs::metadata(upper.path()).unwrap().created().unwrap();
    let since = i64::try_from(born.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let rules = layer::diff::Rules { since, latest: 1_500_000_000, keep: &|_, _| true };
    for change in layer::diff::changes(&upper, &trees, owners, &rules).unwrap() {
        let content = change.content.map(|path| fs::read(path).unwrap()).unwrap_or_default();
        let sum = content.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        println!("{:?} {} bytes {sum:x}", change.entry, content.len());
    }
}

/// Prints what a layer would store of each file of a tree, times excepted.
fn dump(owners: Owners, tree: &Path) {
    let tree = TreeDir::new(tree);
    let links = Sidecar::load(&tree).unwrap();
    dump_directory(owners, &tree.root(), Path::new("/"), &links);
}

fn dump_directory(owners: Owners, at: &Path, name: &Path, links: &Sidecar) {
    dump_one(owners, at, name, links);
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(at).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (at, name) = (entry.path(), name.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => dump_directory(owners, &at, &name, links),
            false => dump_one(owners, &at, &name, links),
        }
    }
}

fn dump_one(owners: Owners, at: &Path, name: &Path, links: &Sidecar) {
    let metadata = fs::symlink_metadata(at).unwrap();
    let file_type = metadata.file_type();
    if file_type.is_char_device() && metadata.rdev() == 0 {
        println!("{} whiteout", name.display());
        return;
    }
    let attributes = record::attributes(owners, at, links).unwrap();
    let kind = match attributes.device {
        Some(device) => format!("{:?} {}:{}", device.kind, device.major, device.minor),
        None if file_type.is_dir() => "directory".to_owned(),
        None if file_type.is_symlink() => format!("link to {}", fs::read_link(at).unwrap().display()),
        None if file_type.is_file() => format!("file of {} bytes, {} names", metadata.len(), metadata.nlink()),
        None if file_type.is_fifo() => "fifo".to_owned(),
        None => format!("{file_type:?}"),
    };
    let xattrs: Vec<String> = attributes
        .xattrs
        .iter()
        .map(|(name, value)| format!(" {}={value:02x?}", String::from_utf8_lossy(name)))
        .collect();
    let (uid, gid, mode) = (attributes.uid, attributes.gid, attributes.mode);
    println!("{} {uid}:{gid} {mode:04o} {kind}{}", name.display(), xattrs.concat());
}
