//! Figures for Prometheus, in its text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// What is counted while the server runs.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) refused_logins: AtomicU64,
}

/// What is looked up when somebody asks.
pub(crate) struct Levels {
    pub(crate) uploads: u64,
    pub(crate) layout_bytes: u64,
    pub(crate) layout_limit: Option<u64>,
    pub(crate) repositories: u64,
    pub(crate) tags: u64,
}

impl Metrics {
    /// Counts a request that has ended. Both names are from short lists of ours: whoever asks must not be able to make
    /// new series.
    pub(crate) fn ended(&self, method: &'static str, route: &'static str, status: u16, duration: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, route, status)).or_default() += 1;
        drop(requests);
        let seconds = duration.as_secs_f64();
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            if seconds <= end {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn text(&self, levels: &Levels) -> String {
        let mut text = String::new();
        let name = "drystone_registry_http_requests_total";
        head(&mut text, name, "counter", "Requests that were answered.");
        for ((method, route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "{name}{{method=\"{method}\",route=\"{route}\",code=\"{status}\"}} {count}");
        }
        self.histogram(&mut text);
        let now = |value: &AtomicU64| value.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("http_requests_in_flight", "gauge", "Requests whose answer has not ended.", now(&self.in_flight)),
            ("http_sent_bytes_total", "counter", "Bytes of bodies sent.", now(&self.sent)),
            ("http_received_bytes_total", "counter", "Bytes of blobs and manifests received.", now(&self.received)),
            ("refused_logins_total", "counter", "Requests with a wrong name or password.", now(&self.refused_logins)),
            ("uploads", "gauge", "Uploads that are open.", levels.uploads),
            ("layout_bytes", "gauge", "Bytes in the layout, with what is on its way.", levels.layout_bytes),
            ("repositories", "gauge", "Repositories.", levels.repositories),
            ("tags", "gauge", "Tags in all repositories.", levels.tags),
        ] {
            level(&mut text, name, kind, help, value);
        }
        if let Some(limit) = levels.layout_limit {
            level(&mut text, "layout_limit_bytes", "gauge", "Bytes that the layout may hold.", limit);
        }
        text
    }

    fn histogram(&self, text: &mut String) {
        let name = "drystone_registry_http_request_duration_seconds";
        head(text, name, "histogram", "How long requests took, until the end of their answer.");
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {}", bucket.load(Ordering::Relaxed));
        }
        let count = self.count.load(Ordering::Relaxed);
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}");
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn level(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format!("drystone_registry_{name}");
    head(text, &name, kind, help);
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_its_help_and_type_and_buckets_add_up() {
        let metrics = Metrics::default();
        metrics.ended("GET", "blob", 200, Duration::from_millis(10));
        metrics.ended("GET", "blob", 200, Duration::from_secs(1000));
        let levels = Levels { uploads: 1, layout_bytes: 2, layout_limit: Some(3), repositories: 4, tags: 5 };
        let text = metrics.text(&levels);
        assert!(text.contains("drystone_registry_http_requests_total{method=\"GET\",route=\"blob\",code=\"200\"} 2\n"));
        assert!(text.contains("_bucket{le=\"0.005\"} 0\n") && text.contains("_bucket{le=\"0.025\"} 1\n"));
        assert!(text.contains("_bucket{le=\"+Inf\"} 2\n") && text.contains("_seconds_sum 1000.01\n"));
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let plain = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
        for name in series.map(plain) {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        assert!(text.contains("drystone_registry_tags 5\n"));
    }
}
