//! What a program learns from the machine that it runs on: variables, the clock, signals.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drystone::secrets::Secrets;

use crate::args::{ColorKind, SecretArgument, SecretSource};
use crate::failure::Failure;

/// How long work may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// As much as a secret may be, as for BuildKit.
const LARGEST_SECRET: u64 = 500 << 10;

/// Reads the secrets of the command line.
pub(super) fn secrets(given: &[SecretArgument]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for SecretArgument { id, from } in given {
        let value = value_of(from).map_err(|problem| Failure::Usage(format!("the secret `{id}`: {problem}")))?;
        if !secrets.add(id, value) {
            return Err(Failure::Usage(format!("the secret `{id}` is given twice")));
        }
    }
    Ok(secrets)
}

fn value_of(source: &SecretSource) -> Result<Vec<u8>, String> {
    match source {
        SecretSource::SameName(name) => {
            #[expect(clippy::disallowed_methods, reason = "this is the command line")]
            let is_set = std::env::var_os(name).is_some();
            value_of(&if is_set { SecretSource::Variable(name.clone()) } else { SecretSource::File(name.into()) })
        }
        SecretSource::Variable(name) => {
            #[expect(clippy::disallowed_methods, reason = "this is the command line")]
            let value = std::env::var_os(name);
            let value = value.ok_or_else(|| format!("the variable {name} is not set"))?;
            Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
        }
        SecretSource::File(path) => {
            let failed = |error: io::Error| format!("cannot read `{}`: {error}", path.display());
            let mut value = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(LARGEST_SECRET + 1).read_to_end(&mut value))
                .map_err(failed)?;
            match value.len() as u64 > LARGEST_SECRET {
                true => Err(format!("`{}` is larger than {LARGEST_SECRET} bytes", path.display())),
                false => Ok(value),
            }
        }
    }
}

/// `$XDG_CACHE_HOME/drystone`, or `~/.cache/drystone`. See the XDG base directory specification.
#[expect(clippy::disallowed_methods, reason = "this is the command line")]
pub fn cache_directory(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_path_buf());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let caches = caches.ok_or_else(|| {
        Failure::Usage("neither XDG_CACHE_HOME nor HOME is set: say with --cache-dir where to keep downloads".into())
    })?;
    Ok(caches.join("drystone"))
}

#[expect(clippy::disallowed_methods, reason = "this is the command line")]
pub(super) fn source_date_epoch() -> Result<Option<i64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty()) else { return Ok(None) };
    epoch_of(&value.to_string_lossy())
}

/// A date of images, as `SOURCE_DATE_EPOCH` has it; none if it says nothing.
pub fn epoch_of(text: &str) -> Result<Option<i64>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let epoch = text.parse().ok().filter(|epoch| (0..=253_402_300_799).contains(epoch));
    let wrong = || Failure::Usage(format!("SOURCE_DATE_EPOCH is `{text}`: expected seconds since 1970"));
    epoch.map(Some).ok_or_else(wrong)
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the command line")]
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Sets the flag at the first Ctrl-C or SIGTERM. Gives the process up at the second, or if it does not stop: a read
/// from a server that says nothing does not look at the flag.
pub fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::of)?;
    let wait = async move {
        let (Ok(mut pressed), Ok(mut asked)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {} }
        flag.store(true, Ordering::SeqCst);
        tokio::select! { _ = pressed.recv() => {}, _ = asked.recv() => {}, () = tokio::time::sleep(PATIENCE) => {} }
        Failure::Interrupted.print(ColorKind::Never);
        #[expect(
            clippy::disallowed_methods,
            clippy::exit,
            reason = "the user asked twice, or something does not stop"
        )]
        std::process::exit(130);
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(wait)).map_err(Failure::of)?;
    Ok(interrupt)
}

/// Ready once somebody asked to stop.
pub async fn interrupted(flag: &AtomicBool) {
    while !flag.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Prints a result. A reader that has gone away wants no more, which is not an error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::of(error)),
        _ => Ok(()),
    }
}
