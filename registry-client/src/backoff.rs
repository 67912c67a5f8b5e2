//! Pauses between attempts: exponential with full jitter, or what the registry asks for.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// How often something is tried, and with which pauses.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// How often at most. 1 means never again.
    pub attempts: u32,
    /// The longest first pause; it doubles with each attempt.
    pub base: Duration,
    /// The longest pause of our own making.
    pub cap: Duration,
    /// The longest pause that a registry may ask for.
    pub max_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(20),
            max_wait: Duration::from_secs(120),
        }
    }
}

/// The attempts of one piece of work.
pub(crate) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    attempt: u32,
}

/// What to do after a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Pause, then try again.
    Wait(Duration),
    /// That was the last attempt.
    GiveUp,
    /// The registry asks for more patience than there is.
    TooLong(Duration),
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, attempt: 0 }
    }

    /// How many attempts failed since the last success.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Something worked: the count starts again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// An attempt failed; `asked` is the pause that the registry asked for.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Next {
        self.attempt += 1;
        if self.attempt >= self.policy.attempts {
            return Next::GiveUp;
        }
        match asked {
            Some(wait) if wait > self.policy.max_wait => Next::TooLong(wait),
            Some(wait) => Next::Wait(wait),
            None => Next::Wait(self.jittered()),
        }
    }

    /// Anything between nothing and the doubled pause: clients that failed together should not come back together.
    fn jittered(&self) -> Duration {
        let doubled = self.policy.base.saturating_mul(1 << (self.attempt - 1).min(16));
        let longest = doubled.min(self.policy.cap);
        let mut random = [0; 4];
        if getrandom::fill(&mut random).is_err() {
            return longest;
        }
        longest.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX))
    }
}

/// The pause in a `Retry-After`: seconds, or a date, which is read against the answer's own `Date`.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
    let (now, then) = (date(headers.get(DATE)?.to_str().ok()?)?, date(text)?);
    let seconds = then.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        let cases = [
            (headers(&[("retry-after", "7")]), Some(7)),
            (headers(&[date, ("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")]), Some(30)),
            (headers(&[date, ("retry-after", "Wed, 21 Oct 2026 07:27:30 GMT")]), Some(0)),
            (headers(&[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")]), None),
            (headers(&[("retry-after", "-5")]), None),
            (headers(&[("retry-after", "soon")]), None),
            (headers(&[]), None),
        ];
        for (headers, expected) in cases {
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{headers:?}");
        }
    }

    #[test]
    fn pauses_grow_to_the_cap_and_end() {
        let policy = RetryPolicy {
            attempts: 30,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(1),
            max_wait: Duration::from_secs(10),
        };
        let mut backoff = Backoff::new(&policy);
        for attempt in 1..30u32 {
            let Next::Wait(wait) = backoff.failed(None) else { panic!("gave up after {attempt}") };
            let doubled = Duration::from_millis(100) * 2u32.pow(attempt.min(10) - 1);
            assert!(wait <= doubled.min(policy.cap), "{wait:?} at attempt {attempt}");
        }
        assert_eq!(backoff.failed(None), Next::GiveUp);
        backoff.reset();
        assert_eq!(backoff.failed(Some(Duration::from_secs(3))), Next::Wait(Duration::from_secs(3)));
        assert_eq!(backoff.failed(Some(Duration::from_secs(11))), Next::TooLong(Duration::from_secs(11)));
    }
}
