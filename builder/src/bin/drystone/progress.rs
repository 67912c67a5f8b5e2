//! Progress: lines for logs, moving lines for terminals, JSON for programs; always on standard error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drystone::events::{Event, Observer};
use drystone::output::printable;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{Output, ProgressKind};
use crate::table::size;

/// Someone who shows events in the way that was asked for.
pub fn observer(output: Output) -> Arc<dyn Observer> {
    observer_on_screen(output).0
}

/// The same, and a way to keep it quiet for a while.
pub fn observer_on_screen(output: Output) -> (Arc<dyn Observer>, Screen) {
    let terminal = io::stderr().is_terminal();
    let still = Screen { bars: None };
    match output.progress {
        _ if output.quiet => (Arc::new(Quiet), still),
        ProgressKind::Rawjson => (Arc::new(RawJson), still),
        ProgressKind::Tty => on_terminal(output.verbose),
        ProgressKind::Auto if terminal => on_terminal(output.verbose),
        ProgressKind::Auto | ProgressKind::Plain => {
            (Arc::new(Plain { verbose: output.verbose, fetching: AtomicU64::new(0) }), still)
        }
    }
}

fn on_terminal(verbose: u8) -> (Arc<dyn Observer>, Screen) {
    let terminal = Terminal::new(verbose);
    let screen = Screen { bars: Some(terminal.bars.clone()) };
    (Arc::new(terminal), screen)
}

/// Where progress is shown.
pub struct Screen {
    /// What moves there.
    bars: Option<MultiProgress>,
}

impl Screen {
    /// Acts while nobody shows anything; whoever wants to waits.
    pub fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        let act = || {
            let _nobody_else = shown_one_by_one();
            act()
        };
        match &self.bars {
            Some(bars) => bars.suspend(act),
            None => act(),
        }
    }
}

/// Held by whoever shows something. Who also wants the bars has them first.
fn shown_one_by_one() -> MutexGuard<'static, ()> {
    static SHOWING: Mutex<()> = Mutex::new(());
    SHOWING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line that tells of an event, if it is worth one.
fn line(event: &Event<'_>, verbose: u8) -> Option<String> {
    Some(match event {
        Event::Note(text) => (*text).to_owned(),
        Event::Warning(text) => format!("warning: {text}"),
        Event::FetchStarted { files, bytes } => {
            format!("fetching {files} package{}, {}", if *files == 1 { "" } else { "s" }, size(*bytes))
        }
        Event::StepStarted { image, step } if verbose > 0 => format!("{image}: {step} …"),
        Event::StepOutput { image, line } if verbose > 0 => format!("{image}: | {line}"),
        Event::StepFinished { image, step, cached: false, elapsed } => {
            format!("{image}: {step} ({})", seconds(elapsed))
        }
        Event::StepFinished { image, step, cached: true, .. } if verbose > 0 => format!("{image}: {step} (cached)"),
        Event::ImageFinished { image, cached: false, .. } => format!("{image}: done"),
        Event::ImageFinished { image, cached: true, .. } if verbose > 0 => format!("{image}: up to date"),
        Event::ImageFailed { image, error, last_lines, .. } => {
            let lines = last_lines.iter().map(|line| format!("\n{image}: | {line}"));
            format!("{image}: failed: {error}{}", lines.collect::<String>())
        }
        Event::ImagePulled { reference, already_there: false } => format!("pulled {reference}"),
        Event::ImagePulled { reference, already_there: true } => format!("{reference} is up to date"),
        Event::ImagePushed { reference, already_there: false } => format!("pushed {reference}"),
        Event::ImagePushed { reference, already_there: true } if verbose > 0 => format!("{reference} was there"),
        _ => return None,
    })
}

fn seconds(elapsed: &Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// What failing commands said last, and nothing else.
struct Quiet;

impl Observer for Quiet {
    fn observe(&self, event: Event<'_>) {
        if let (Event::ImageFailed { last_lines: [_, ..], .. }, Some(line)) = (event, line(&event, 0)) {
            write_line(&line);
        }
    }
}

/// A line for each event.
struct Plain {
    verbose: u8,
    fetching: AtomicU64,
}

impl Observer for Plain {
    fn observe(&self, event: Event<'_>) {
        if let Some(line) = line(&event, self.verbose) {
            write_line(&line);
        }
        // A build that fetches for minutes says so now and then.
        const EVERY: u64 = 64 << 20;
        if let Event::FetchProgress { bytes } = event {
            let before = self.fetching.fetch_add(bytes, Ordering::Relaxed);
            if before / EVERY != (before + bytes) / EVERY {
                write_line(&format!("fetched {}", size(before + bytes)));
            }
        }
    }
}

/// Lines that change, and lines that stay above them.
struct Terminal {
    verbose: u8,
    bars: MultiProgress,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    steps: BTreeMap<String, ProgressBar>,
    fetch: Option<ProgressBar>,
    push: Option<ProgressBar>,
    pull: Option<ProgressBar>,
}

impl Terminal {
    fn new(verbose: u8) -> Self {
        Self { verbose, bars: MultiProgress::new(), shown: Mutex::default() }
    }

    fn spinner(&self, text: String) -> ProgressBar {
        let style =
            ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").expect("a constant template is valid");
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(style).with_message(text));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn meter(&self, text: &'static str, length: Option<u64>) -> ProgressBar {
        let template = match length {
            Some(_) => "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
            None => "{msg} {decimal_bytes} {decimal_bytes_per_sec}",
        };
        let style = ProgressStyle::with_template(template).expect("a constant template is valid");
        let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
        self.bars.add(bar.with_style(style).with_message(text))
    }

    fn change(&self, event: &Event<'_>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::FetchStarted { bytes, .. } => match &shown.fetch {
                Some(bar) => bar.inc_length(*bytes),
                None => shown.fetch = Some(self.meter("fetching", Some(*bytes))),
            },
            Event::FetchProgress { bytes } => shown.fetch.iter().for_each(|bar| bar.inc(*bytes)),
            Event::FetchFinished if shown.fetch.as_ref().is_some_and(is_full) => {
                shown.fetch.take().iter().for_each(ProgressBar::finish_and_clear);
            }
            Event::StepStarted { image, step } => {
                let bar = self.spinner(format!("{image}: {step}"));
                shown.steps.insert(image.to_string(), bar);
            }
            Event::StepOutput { image, line } => {
                let line = line.replace('\t', " ");
                shown.steps.get(image.as_str()).iter().for_each(|bar| bar.set_message(format!("{image}: {line}")));
            }
            Event::StepFinished { image, .. } | Event::ImageFailed { image, .. } => {
                shown.steps.remove(image.as_str()).iter().for_each(ProgressBar::finish_and_clear);
            }
            Event::PushProgress { bytes } => {
                shown.push.get_or_insert_with(|| self.meter("pushing", None)).inc(*bytes);
            }
            Event::PullProgress { bytes } => {
                shown.pull.get_or_insert_with(|| self.meter("pulling", None)).inc(*bytes);
            }
            _ => {}
        }
    }
}

/// Whether all that was announced has come.
fn is_full(bar: &ProgressBar) -> bool {
    bar.length().is_some_and(|length| bar.position() >= length)
}

impl Observer for Terminal {
    fn observe(&self, event: Event<'_>) {
        self.change(&event);
        if let Some(line) = line(&event, self.verbose) {
            self.bars.suspend(|| write_line(&line));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that has gone away needs no cleaning.
        let _ = self.bars.clear();
    }
}

/// An object for each event.
struct RawJson;

impl Observer for RawJson {
    fn observe(&self, event: Event<'_>) {
        write_raw_line(&object(&event).to_string());
    }
}

fn object(event: &Event<'_>) -> Value {
    match event {
        Event::Note(text) => json!({"event": "note", "text": text}),
        Event::Warning(text) => json!({"event": "warning", "text": text}),
        Event::FetchStarted { files, bytes } => json!({"event": "fetch-started", "files": files, "bytes": bytes}),
        Event::FetchProgress { bytes } => json!({"event": "fetch-progress", "bytes": bytes}),
        Event::FetchFinished => json!({"event": "fetch-finished"}),
        Event::StepStarted { image, step } => {
            json!({"event": "step-started", "image": image.as_str(), "step": step})
        }
        Event::StepOutput { image, line } => json!({"event": "step-output", "image": image.as_str(), "line": line}),
        Event::StepFinished { image, step, cached, elapsed } => json!({
            "event": "step-finished", "image": image.as_str(), "step": step, "cached": cached,
            "seconds": elapsed.as_secs_f64(),
        }),
        Event::ImageFinished { image, cached, log } => {
            json!({"event": "image-finished", "image": image.as_str(), "cached": cached, "log": log})
        }
        Event::ImageFailed { image, error, last_lines, log } => json!({
            "event": "image-failed", "image": image.as_str(), "error": error, "last_lines": last_lines, "log": log,
        }),
        Event::PushProgress { bytes } => json!({"event": "push-progress", "bytes": bytes}),
        Event::PullProgress { bytes } => json!({"event": "pull-progress", "bytes": bytes}),
        Event::ImagePulled { reference, already_there } => {
            json!({"event": "image-pulled", "reference": reference, "already_there": already_there})
        }
        Event::ImagePushed { reference, already_there } => {
            json!({"event": "image-pushed", "reference": reference, "already_there": already_there})
        }
        _ => json!({"event": "other"}),
    }
}

/// Writes lines of text, which may come from anywhere.
fn write_line(lines: &str) {
    write_raw_line(&lines.split('\n').map(printable).collect::<Vec<_>>().join("\n"));
}

fn write_raw_line(line: &str) {
    let _nobody_else = shown_one_by_one();
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_log_tells_what_was_done_and_not_what_was_there() {
        let image = "redis".parse().unwrap();
        let elapsed = Duration::from_millis(1234);
        let finished = |cached| Event::StepFinished { image: &image, step: "12 packages", cached, elapsed };
        assert_eq!(line(&finished(false), 0).as_deref(), Some("redis: 12 packages (1.2 s)"));
        assert_eq!(line(&finished(true), 0), None);
        assert_eq!(line(&finished(true), 1).as_deref(), Some("redis: 12 packages (cached)"));
    }
}
