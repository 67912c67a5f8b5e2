//! The mirrors and the registry, asked all at once.

use std::fs;
use std::io::Read;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use debian::release::Release;
use oci::Registry;
use registry_client::{Client, Error, Options, RetryPolicy};
use url::Url;

use super::{Check, Question, Status};
use crate::apt::archive::{LARGEST_RELEASE, without_signature};
use crate::error::chain;
use crate::fetch::{client, shown};

/// What to do where no mirror serves.
const NAME_A_MIRROR: &str = "name a mirror with --mirror URL, or SUITE=URL for one suite";

/// Questions on their way.
pub(super) struct Asked {
    deadline: Instant,
    patience: Duration,
    named_by: &'static str,
    now: i64,
    mirrors: Mirror,
    /// Whether this machine has certificates.
    certificates: Receiver<bool>,
    registry: Option<(Registry, Receiver<Result<(), RegistryProblem>>)>,
}

enum Mirror {
    Unknown(Check),
    /// For each suite, those that may serve it, the likeliest first.
    Suites(Vec<(String, Vec<Candidate>)>),
}

/// An archive, and what it says of a suite.
type Candidate = (Url, Receiver<Result<Release, String>>);

enum RegistryProblem {
    /// No connection came about.
    Silent(String),
    /// There was no answer in time.
    Late(String),
    /// Somebody is there.
    WantsCredentials,
    Other(String),
}

impl Asked {
    /// Asks everybody. Whoever does not answer in time is left behind in a thread of its own: looking up a name cannot
    /// be given up.
    pub(super) fn start(question: &Question) -> Self {
        let patience = question.patience;
        let mirrors = match &question.mirrors {
            Err(error) => Mirror::Unknown(Check::new("mirror", Status::Fail, error.clone()).fix(NAME_A_MIRROR)),
            Ok(mirrors) if mirrors.is_empty() => {
                let found =
                    "none is known: neither --mirror, DRYSTONE_MIRROR nor the apt sources of this machine name one";
                Mirror::Unknown(Check::new("mirror", Status::Fail, found).fix(NAME_A_MIRROR))
            }
            Ok(mirrors) => {
                let ask = |suite: &String, url: Url| {
                    let (asked, suite) = (url.clone(), suite.clone());
                    (url, in_background(move || release(&asked, &suite, patience)))
                };
                let of_suite = |suite: &String| {
                    let candidates = mirrors.candidates(suite).into_iter().map(|url| ask(suite, url)).collect();
                    (suite.clone(), candidates)
                };
                Mirror::Suites(question.suites.iter().map(of_suite).collect())
            }
        };
        let registry = question.registry.clone().map(|registry| {
            let (asked, reach) = (registry.clone(), question.reach.clone());
            (registry, in_background(move || ping(&asked, reach, patience)))
        });
        let certificates = in_background(|| reqwest::blocking::Client::builder().build().is_ok());
        let deadline = Instant::now() + patience;
        Self { deadline, patience, named_by: question.named_by, now: question.now, mirrors, certificates, registry }
    }

    /// Waits for answers.
    pub(super) fn answers(self) -> Vec<Check> {
        let wait = Wait { deadline: self.deadline, patience: self.patience };
        let mut checks = vec![of_certificates(answer_of(&wait, &self.certificates).unwrap_or(false))];
        match self.mirrors {
            Mirror::Unknown(check) => checks.push(check),
            Mirror::Suites(suites) => checks.extend(suites.into_iter().map(|(suite, candidates)| {
                let answers = candidates.into_iter().map(|(url, answer)| (shown(&url), wait.on(&answer)));
                of_mirror(&suite, &answers.collect::<Vec<_>>(), self.named_by, self.now)
            })),
        }
        checks.push(match self.registry {
            None => Check::new("registry", Status::Info, "not asked: name a family, or a registry with --registry"),
            Some((registry, answer)) => {
                let answer = answer_of(&wait, &answer).unwrap_or_else(|late| Err(RegistryProblem::Late(late)));
                of_registry(&registry, answer)
            }
        });
        checks
    }
}

/// Until when answers are waited for.
struct Wait {
    deadline: Instant,
    patience: Duration,
}

impl Wait {
    fn on<T>(&self, answer: &Receiver<Result<T, String>>) -> Result<T, String> {
        answer_of(self, answer)?
    }
}

fn answer_of<T>(wait: &Wait, answer: &Receiver<T>) -> Result<T, String> {
    let left = wait.deadline.saturating_duration_since(Instant::now());
    answer.recv_timeout(left).map_err(|_| format!("no answer within {} s", wait.patience.as_secs_f64()))
}

fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    // Nobody waits any more if the answer comes late.
    thread::spawn(move || drop(sender.send(work())));
    receiver
}

/// What an archive says of a suite. Whether it is signed, and by whom, is for a build to find out.
fn release(archive: &Url, suite: &str, patience: Duration) -> Result<Release, String> {
    let url = archive.join(&format!("dists/{suite}/InRelease")).map_err(|error| error.to_string())?;
    let text = match url.to_file_path() {
        Ok(path) if url.scheme() == "file" => fs::read_to_string(path).map_err(|error| error.to_string())?,
        _ => over_http(url, patience)?,
    };
    Release::parse(without_signature(&text)).map_err(|error| format!("this is no InRelease: {}", chain(&error)))
}

fn over_http(url: Url, patience: Duration) -> Result<String, String> {
    // Without the address, which may hold a password.
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let response = client(patience, patience).and_then(|client| client.get(url).send()).map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("the server answered {}", response.status()));
    }
    let mut text = String::new();
    response.take(LARGEST_RELEASE).read_to_string(&mut text).map_err(|error| chain(&error))?;
    Ok(text)
}

fn of_certificates(known: bool) -> Check {
    let name = "certificates";
    match known {
        true => Check::new(name, Status::Ok, "this machine has some"),
        false => Check::new(name, Status::Warn, "this machine has none, so that nothing can be reached by https")
            .fix("apt-get install ca-certificates"),
    }
}

fn of_mirror(suite: &str, answers: &[(Url, Result<Release, String>)], named_by: &str, now: i64) -> Check {
    let name = format!("mirror of {suite}");
    let found = answers.iter().find_map(|(url, answer)| Some((url, answer.as_ref().ok()?)));
    let Some((url, release)) = found else {
        let told = answers.iter().map(|(url, answer)| match answer {
            Err(error) => format!("{url} (of {named_by}): {error}"),
            Ok(_) => format!("{url} (of {named_by})"),
        });
        let told = told.collect::<Vec<_>>().join("; ");
        let told = if told.is_empty() { format!("none of {named_by} is for this suite") } else { told };
        return Check::new(name, Status::Fail, told).fix(NAME_A_MIRROR);
    };
    let found = format!("{url} (of {named_by}) has it, of {}", crate::image::rfc3339(release.date));
    match release.check_validity(now) {
        Ok(()) => Check::new(name, Status::Ok, found),
        Err(error) => Check::new(name, Status::Warn, format!("{found}; {error}"))
            .fix("set the clock if it is wrong, or take another mirror with --mirror"),
    }
}

fn ping(registry: &Registry, reach: Options, patience: Duration) -> Result<(), RegistryProblem> {
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let other = |error: &(dyn std::error::Error + 'static)| RegistryProblem::Other(chain(error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| other(&error))?;
    // Its own limit is the longer one, so that it does not matter who gives up first.
    let options = Options { retry, stall: patience * 2, ..reach };
    let client = Client::new(options).map_err(|error| other(&error))?;
    match runtime.block_on(client.ping(registry)) {
        Ok(()) => Ok(()),
        Err(Error::Connection { source, .. }) if source.is_connect() => {
            Err(RegistryProblem::Silent(chain(&source.without_url())))
        }
        Err(Error::Unauthorized { .. }) => Err(RegistryProblem::WantsCredentials),
        Err(error) => Err(other(&error)),
    }
}

fn of_registry(registry: &Registry, answer: Result<(), RegistryProblem>) -> Check {
    let name = "registry";
    let another = "free the port if something else listens there, or choose another registry with --registry";
    match answer {
        Ok(()) => Check::new(name, Status::Ok, format!("{registry} answers")),
        Err(RegistryProblem::Silent(_)) if registry.is_loopback() => {
            let found = format!("nothing listens at {registry}; `drystone up` starts a registry there");
            Check::new(name, Status::Info, found)
        }
        Err(RegistryProblem::Silent(error) | RegistryProblem::Late(error)) => {
            Check::new(name, Status::Fail, format!("{registry}: {error}"))
                .fix("check its name and the network, or choose another registry with --registry")
        }
        Err(RegistryProblem::WantsCredentials) => {
            Check::new(name, Status::Warn, format!("{registry} answers, and wants to know who asks"))
                .fix(format!("`drystone login {registry}` keeps a credential, or replaces one"))
        }
        Err(RegistryProblem::Other(error)) => {
            Check::new(name, Status::Fail, format!("{registry} is not a registry that can be used: {error}"))
                .fix(another)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release_of(date: &str) -> Release {
        Release::parse(&format!("Date: {date}\nSHA256:\n")).unwrap()
    }

    fn archive(name: &str) -> Url {
        format!("http://{name}.example/debian/").parse().unwrap()
    }

    #[test]
    fn the_first_mirror_that_has_the_suite_is_named_and_otherwise_what_each_said() {
        let date = "Sat, 17 May 2025 09:00:00 UTC";
        let now = 1_747_474_000;
        let answers = [
            (archive("a"), Err("no answer within 3 s".to_owned())),
            (archive("b"), Ok(release_of(date))),
            (archive("c"), Ok(release_of(date))),
        ];
        let check = of_mirror("bookworm", &answers, "--mirror", now);
        let expected = "http://b.example/debian/ (of --mirror) has it, of 2025-05-17T09:00:00Z";
        assert_eq!((check.status, check.found.as_str()), (Status::Ok, expected));
        let check = of_mirror("bookworm", &answers[..1], "--mirror", now);
        assert_eq!(check.name, "mirror of bookworm");
        assert_eq!(check.found, "http://a.example/debian/ (of --mirror): no answer within 3 s");
        assert_eq!(check.status, Status::Fail);
        let check = of_mirror("bookworm", &answers, "--mirror", 1_000_000_000);
        assert!(check.status == Status::Warn && check.fix.unwrap().contains("clock"));
    }

    #[test]
    fn a_registry_of_this_machine_may_be_silent_and_another_may_not() {
        let of = |registry: &str, answer| of_registry(&registry.parse().unwrap(), answer);
        let silent = || Err(RegistryProblem::Silent("connection refused".to_owned()));
        assert_eq!(of("localhost:5100", silent()).status, Status::Info);
        let elsewhere = of("registry.example", silent());
        assert_eq!(
            (elsewhere.status, elsewhere.found.as_str()),
            (Status::Fail, "registry.example: connection refused")
        );
        let late = of("localhost:5100", Err(RegistryProblem::Late("no answer within 3 s".to_owned())));
        assert_eq!((late.status, late.found.as_str()), (Status::Fail, "localhost:5100: no answer within 3 s"));
        assert_eq!(of("localhost:5100", Ok(())).found, "localhost:5100 answers");
        assert_eq!(of("localhost:5100", Err(RegistryProblem::WantsCredentials)).status, Status::Warn);
        assert_eq!(
            of("localhost:5100", Err(RegistryProblem::Other("it is a printer".to_owned()))).status,
            Status::Fail
        );
    }

    #[test]
    fn an_archive_on_disk_is_read_and_one_that_is_none_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(directory.path()).unwrap();
        assert!(release(&url, "stable", Duration::from_secs(1)).unwrap_err().contains("No such file"));
        let suite = directory.path().join("dists/stable");
        fs::create_dir_all(&suite).unwrap();
        fs::write(suite.join("InRelease"), "<html>\n").unwrap();
        assert!(release(&url, "stable", Duration::from_secs(1)).unwrap_err().starts_with("this is no InRelease"));
        fs::write(suite.join("InRelease"), "Date: Sat, 17 May 2025 09:00:00 UTC\nSHA256:\n").unwrap();
        assert_eq!(release(&url, "stable", Duration::from_secs(1)).unwrap().date, 1_747_472_400);
    }
}
