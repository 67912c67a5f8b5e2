//! What happened while images were made: a file for each image, that of the newest build and of the one before.
//!
//! ```text
//! <cache>/logs/                          mode 0700
//!   localhost:5100/redis:v1.log          mode 0600; the newest build that had something to do
//!   localhost:5100/redis:v1.log.1        the one before
//! ```
//!
//! Lines are as observers see them: without secrets, and without what would upset a terminal. A log that cannot be
//! written does not stop a build, which says so once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use oci::Reference;
use spec::ImageName;

use crate::events::Event;

/// The logs of a build.
pub struct Logs {
    directory: PathBuf,
    images: Mutex<BTreeMap<ImageName, Log>>,
}

/// The log of an image.
struct Log {
    path: PathBuf,
    state: State,
}

enum State {
    /// Nothing has happened, and what an earlier build wrote is still there.
    Untouched,
    Open(File),
    /// It cannot be written.
    Lost,
}

impl Logs {
    /// Logs in a directory, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), images: Mutex::default() }
    }

    /// Names the log of an image. Nothing is written before something happens.
    pub fn name(&self, image: &ImageName, reference: &Reference) {
        // A reference has neither empty names nor `..` in it.
        let path = self.directory.join(format!("{reference}.log"));
        self.images
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(image.clone(), Log { path, state: State::Untouched });
    }

    /// Where the log of an image is, if this build has written something there.
    pub fn path(&self, image: &ImageName) -> Option<PathBuf> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let log = images.get(image)?;
        matches!(log.state, State::Open(_)).then(|| log.path.clone())
    }

    /// Writes down what happened to an image. Fails the first time that a log cannot be written.
    pub fn record(&self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::StepStarted { image, step } => self.line(image, &format!("# {step}")),
            Event::StepOutput { image, line } => self.line(image, line),
            Event::StepFinished { image, cached: false, elapsed, .. } => {
                self.line(image, &format!("# done ({:.1} s)", elapsed.as_secs_f64()))
            }
            Event::ImageFailed { image, error, .. } => self.line(image, &format!("# failed: {error}")),
            _ => Ok(()),
        }
    }

    fn line(&self, image: &ImageName, line: &str) -> io::Result<()> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = images.get_mut(image) else { return Ok(()) };
        log.line(line).inspect_err(|_| log.state = State::Lost)
    }
}

impl Log {
    fn line(&mut self, line: &str) -> io::Result<()> {
        if let State::Untouched = self.state {
            self.state = State::Open(self.start()?);
        }
        match &mut self.state {
            State::Open(file) => file.write_all(format!("{line}\n").as_bytes()),
            State::Untouched | State::Lost => Ok(()),
        }
    }

    /// Puts the log of an earlier build aside, and starts one.
    fn start(&self) -> io::Result<File> {
        if let Some(directory) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match fs::rename(&self.path, self.path.with_extension("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_log_is_the_newest_builds_and_the_one_before_is_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let image: ImageName = "redis".parse().unwrap();
        let reference: Reference = "localhost:5100/team/redis:v1".parse().unwrap();
        let build = |lines: &[&str]| {
            let logs = Logs::new(directory.path().join("logs"));
            logs.name(&image, &reference);
            assert_eq!(logs.path(&image), None);
            lines.iter().for_each(|line| logs.record(&Event::StepOutput { image: &image, line }).unwrap());
            logs.path(&image)
        };
        let path = build(&["first"]).unwrap();
        assert_eq!(path, directory.path().join("logs/localhost:5100/team/redis:v1.log"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(build(&[]), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\n");
        build(&["second", "more"]);
        build(&["third"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(fs::read_to_string(path.with_extension("log.1")).unwrap(), "second\nmore\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error_once() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("logs"), "in the way").unwrap();
        let image: ImageName = "redis".parse().unwrap();
        let logs = Logs::new(directory.path().join("logs"));
        logs.name(&image, &"localhost:5100/redis:v1".parse().unwrap());
        let line = Event::StepOutput { image: &image, line: "x" };
        assert!(logs.record(&line).is_err());
        assert!(logs.record(&line).is_ok());
        assert_eq!(logs.path(&image), None);
    }
}
