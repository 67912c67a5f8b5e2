//! Instructions that change how a container is started, and nothing in the image's files.

use std::time::Duration;

use oci::ImageConfig;
use spec::dockerfile::{CommandForm, Healthcheck, Instruction, Kind, Pairs, Scope};
use spec::{Located, Port};

use crate::error::BuildError;

/// What commands in shell form are given to, unless `SHELL` says otherwise.
const USUAL_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The signals of Linux, without their `SIG`.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The shell of an image.
pub fn shell(config: &ImageConfig) -> Vec<String> {
    config.config.shell.clone().unwrap_or_else(|| USUAL_SHELL.map(str::to_owned).to_vec())
}

/// The settings of a stage while it is built.
pub struct Settings<'a> {
    /// What they are written into.
    pub config: &'a mut ImageConfig,
    /// The values of variables.
    pub scope: &'a mut Scope,
    /// Whether this stage has set a command of its own, which an entry point after it leaves alone.
    pub has_command: &'a mut bool,
}

impl Settings<'_> {
    /// Does what an instruction says. False if it is one that does more than that.
    pub fn apply(&mut self, instruction: &Instruction) -> Result<bool, BuildError> {
        match &instruction.kind {
            Kind::Cmd(form) => {
                self.config.config.cmd = Some(form.arguments(&shell(self.config)));
                *self.has_command = true;
            }
            Kind::Entrypoint(form) => self.entrypoint(form),
            Kind::Env(pairs) => self.env(pairs)?,
            Kind::Expose(ports) => self.expose(ports)?,
            Kind::Healthcheck(check) => self.config.config.healthcheck = Some(healthcheck(check)),
            Kind::Label(pairs) => {
                for (key, value) in self.pairs(pairs)? {
                    self.config.config.labels.insert(key, value);
                }
            }
            Kind::Maintainer(author) => self.config.author = Some(self.text(author)?),
            Kind::Onbuild(trigger) => self.config.config.on_build.push(trigger.text.clone()),
            Kind::Shell(words) => self.config.config.shell = Some(words.clone()),
            Kind::StopSignal(signal) => self.stop_signal(signal)?,
            Kind::User(user) => {
                let text = self.text(user)?;
                if text.is_empty() {
                    return Err(BuildError::at(&user.span, "USER without a user", "name one, or give its number"));
                }
                self.config.config.user = text;
            }
            Kind::Volume(paths) => self.volumes(paths)?,
            Kind::Add(_) | Kind::Arg(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => return Ok(false),
        }
        Ok(true)
    }

    /// A text with its variables in place.
    fn text(&self, written: &Located<String>) -> Result<String, BuildError> {
        text(self.scope, written)
    }

    /// Names and values, all of them as the variables were before the instruction.
    fn pairs(&self, pairs: &Pairs) -> Result<Vec<(String, String)>, BuildError> {
        pairs.list.iter().map(|pair| Ok((self.text(&pair.key)?, self.text(&pair.value)?))).collect()
    }

    fn env(&mut self, pairs: &Pairs) -> Result<(), BuildError> {
        for (name, value) in self.pairs(pairs)? {
            crate::image::set_variable(&mut self.config.config.env, &name, &value);
            self.scope.set(&name, value);
        }
        Ok(())
    }

    fn entrypoint(&mut self, form: &CommandForm) {
        let arguments = form.arguments(&shell(self.config));
        self.config.config.entrypoint = (!arguments.is_empty()).then_some(arguments);
        // A command belongs to the entry point it was written for.
        if !*self.has_command {
            self.config.config.cmd = None;
        }
    }

    fn expose(&mut self, ports: &[Located<String>]) -> Result<(), BuildError> {
        for written in ports {
            for word in words(self.scope, written)? {
                // `8080:80` once published a port; what is exposed is the container's.
                let container = word.rsplit(':').next().unwrap_or(&word).to_ascii_lowercase();
                let port: Port = container.parse().map_err(|_| {
                    let help = "expected a port such as `80`, `53/udp` or `8000-8010`";
                    BuildError::at(&written.span, format!("`{word}` is not a port"), help)
                })?;
                self.config.config.exposed_ports.extend(port.each());
            }
        }
        Ok(())
    }

    fn volumes(&mut self, paths: &[Located<String>]) -> Result<(), BuildError> {
        for written in paths {
            let path = self.text(written)?;
            if path.trim().is_empty() {
                return Err(BuildError::at(&written.span, "VOLUME without a path", "expected a path in the image"));
            }
            self.config.config.volumes.insert(path);
        }
        Ok(())
    }

    fn stop_signal(&mut self, written: &Located<String>) -> Result<(), BuildError> {
        let signal = self.text(written)?;
        let is_number = signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
        let upper = signal.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let is_real_time = name.starts_with("RTMIN") || name.starts_with("RTMAX");
        if !is_number && !is_real_time && !SIGNALS.contains(&name) {
            let title = format!("`{signal}` is not a signal");
            return Err(BuildError::at(&written.span, title, "expected a name such as SIGTERM, or a number"));
        }
        self.config.config.stop_signal = Some(signal);
        Ok(())
    }
}

/// A text with its variables in place.
pub fn text(scope: &Scope, written: &Located<String>) -> Result<String, BuildError> {
    let expanded = scope.expand(written).map_err(BuildError::Spec)?;
    Ok(expanded.value.text)
}

/// A text cut into words, with its variables in place.
pub fn words(scope: &Scope, written: &Located<String>) -> Result<Vec<String>, BuildError> {
    let expanded = scope.expand_words(written).map_err(BuildError::Spec)?;
    Ok(expanded.value)
}

fn healthcheck(check: &Healthcheck) -> oci::Healthcheck {
    let nanoseconds =
        |time: &Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    match check {
        Healthcheck::None => oci::Healthcheck { test: vec!["NONE".to_owned()], ..oci::Healthcheck::default() },
        Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } => {
            oci::Healthcheck {
                test: match command {
                    CommandForm::Shell(line) => vec!["CMD-SHELL".to_owned(), line.value.clone()],
                    CommandForm::Exec(arguments) => [vec!["CMD".to_owned()], arguments.value.clone()].concat(),
                },
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.unwrap_or_default().into(),
            }
        }
    }
}
