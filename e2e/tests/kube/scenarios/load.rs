//! Load from within the mesh: `meshctl load` in the client's pod, on its own until it is told to end.

use super::space::Space;
use e2e::cluster::PATIENCE;
use serde_json::Value;
use std::time::Instant;

/// Load that runs.
pub(crate) struct Load<'a> {
    space: &'a Space,
    id: String,
}

/// What became of the calls.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How many there were.
    pub(crate) calls: u64,
    /// How many of them had no 200.
    pub(crate) failed: u64,
    /// Latency in milliseconds.
    pub(crate) p99_ms: f64,
    /// Who said what of those that failed; empty where none did.
    why: String,
}

impl<'a> Load<'a> {
    /// Begins to call with so many requests per second over 16 connections, so that one slow answer does not hold up the
    /// calls that are due meanwhile. `more` are flags of `meshctl load`.
    pub(crate) fn start(space: &'a Space, id: &str, rate: u32, more: &str, target: &str) -> Self {
        let flags =
            format!("-qps {rate} -c 16 -t 0 -nocatchup -gomaxprocs 1 -loglevel error {more} -json /tmp/{id}.json");
        let line = format!("meshctl load {flags} {target} >/tmp/{id}.log 2>&1 & echo $! >/tmp/{id}.pid");
        space.shell(&line);
        Self { space, id: id.to_owned() }
    }

    /// Ends it.
    #[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
    pub(crate) fn end(self) -> Outcome {
        let id = &self.id;
        let begun = Instant::now();
        self.space.shell(&format!("kill -INT $(cat /tmp/{id}.pid)"));
        let text = loop {
            let text = self.space.shell(&format!("cat /tmp/{id}.json"));
            if serde_json::from_str::<Value>(&text).is_ok() {
                break text;
            }
            let log = || self.space.shell(&format!("cat /tmp/{id}.log"));
            assert!(begun.elapsed() < PATIENCE, "no result of {id}: {text}\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(200));
        };
        let report: Value = serde_json::from_str(&text).unwrap();
        let calls = report["DurationHistogram"]["Count"].as_u64().unwrap();
        let good = report["RetCodes"]["200"].as_u64().unwrap_or(0);
        let quantiles = report["DurationHistogram"]["Percentiles"].as_array().unwrap();
        let p99 = quantiles.iter().find(|one| one["Percentile"] == 99.0 || one["Percentile"] == 99);
        let failed = calls - good;
        let why = if failed == 0 {
            String::new()
        } else {
            let log = self.space.shell(&format!("tail -n 8 /tmp/{id}.log"));
            format!(": {}\n{log}\n{}", report["RetCodes"], self.space.not_good())
        };
        Outcome { calls, failed, p99_ms: p99.map_or(0.0, |one| one["Value"].as_f64().unwrap() * 1e3), why }
    }
}

impl Outcome {
    /// All calls were answered by 200, and there were so many at least.
    pub(crate) fn all_good(&self, least: u64) -> &Self {
        assert_eq!(self.failed, 0, "{} of {} failed{}", self.failed, self.calls, self.why);
        assert!(self.calls >= least, "only {} calls, not {least}", self.calls);
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} calls failed, p99 {:.1} ms{}", self.failed, self.calls, self.p99_ms, self.why)
    }
}
