//! The end of a process (D2): connections leave as their requests end, then the process does.
//!
//! Who calls it learns late that it is going: kube-proxy changes its rules once a second at most, and until then sends new
//! connections here. A listener that had closed by then would refuse them.

use crate::bootstrap::pod::ProxyConfig;
use crate::bootstrap::{Bootstrap, DrainStrategy, Environment};
use crate::drain::Terms;
use crate::publish::Workers;
use crate::worker::Which;
use anyhow::{Context, bail};
use std::cell::Cell;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks at the open connections.
const LOOK: Duration = Duration::from_millis(100);
/// Time for which a sidecar that nobody ever called accepts on, as that of a job.
const UNCALLED: Duration = Duration::from_secs(1);
/// Time without a new connection after which nobody is expected any more.
const QUIET: Duration = Duration::from_secs(1);
/// Time over which connections are asked to leave where nothing is set: Istio's `terminationDrainDuration`.
const SPREAD: Duration = Duration::from_secs(5);
/// Life of a draining process at least, as others learn that it is going: Istio's `MINIMUM_DRAIN_DURATION`.
const MINIMUM: Duration = Duration::from_secs(5);

/// How a draining listener's connections leave: by `--drain-strategy`, within `time`.
pub(super) fn terms(strategy: DrainStrategy, time: Duration, end: Option<Duration>) -> Terms {
    let spread = match strategy {
        DrainStrategy::Gradual => time,
        DrainStrategy::Immediate => Duration::ZERO,
    };
    Terms { spread, end }
}

/// What a SIGTERM begins (HL-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Termination {
    /// A sidecar's outbound listeners serve the application to its end.
    pub(super) which: Which,
    /// How connections leave.
    pub(super) terms: Terms,
    earliest: Duration,
    /// The same where nobody called.
    uncalled: Duration,
    latest: Duration,
}

impl Termination {
    /// Reads flags, and the variables by which Istio's users set it; that for the drain alone wins over `PROXY_CONFIG`.
    ///
    /// # Errors
    /// The variable that cannot be read.
    pub(super) fn of(bootstrap: &Bootstrap) -> anyhow::Result<Self> {
        let which = if bootstrap.node.id.starts_with("sidecar~") { Which::Inbound } else { Which::All };
        let set = match seconds(&bootstrap.environment, "TERMINATION_DRAIN_DURATION_SECONDS")? {
            None => drain_duration(&ProxyConfig::of(&bootstrap.environment)?)?,
            set => set,
        };
        let (earliest, uncalled, latest) = match set {
            _ if is_true(&bootstrap.environment, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS")? => {
                let least = go_duration(&bootstrap.environment, "MINIMUM_DRAIN_DURATION")?.unwrap_or(MINIMUM);
                (least, least, bootstrap.drain_time.max(least))
            }
            Some(set) => (set, set, set),
            None => {
                let least = MINIMUM.min(bootstrap.drain_time);
                let uncalled = if which == Which::Inbound { UNCALLED.min(least) } else { least };
                (least, uncalled, bootstrap.drain_time)
            }
        };
        let spread = set.unwrap_or(SPREAD).min(latest);
        Ok(Self { which, terms: terms(bootstrap.flags.drain_strategy, spread, None), earliest, uncalled, latest })
    }
}

fn seconds(environment: &Environment, name: &str) -> anyhow::Result<Option<Duration>> {
    let set = environment.get(name).map(str::parse).transpose();
    Ok(set.with_context(|| format!("{name}: whole seconds are needed"))?.map(Duration::from_secs))
}

fn drain_duration(config: &ProxyConfig) -> anyhow::Result<Option<Duration>> {
    let set = config.text("terminationDrainDuration").map(proto::duration::parse).transpose();
    set.context("PROXY_CONFIG.terminationDrainDuration: a duration as 5s or 1m30s is needed")
}

fn is_true(environment: &Environment, name: &str) -> anyhow::Result<bool> {
    match environment.get(name) {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => bail!("{name}: {other:?} is neither true nor false"),
    }
}

/// A duration as Go writes it, of one unit: `5s`, `1m`, `500ms`.
fn go_duration(environment: &Environment, name: &str) -> anyhow::Result<Option<Duration>> {
    let Some(text) = environment.get(name) else { return Ok(None) };
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("{name}: {text:?} is no duration such as 5s, 1m or 500ms"),
    };
    let number: f64 = number.parse().with_context(|| format!("{name}: {text:?} is no duration such as 5s"))?;
    let parsed = Duration::try_from_secs_f64(number * factor);
    Ok(Some(parsed.with_context(|| format!("{name}: {text:?} is no time to wait"))?))
}

/// A drain in progress.
#[derive(Debug)]
pub(super) struct Drain {
    termination: Termination,
    begun: Instant,
    workers: Workers,
    /// Connections taken so far, and when the last of them was seen.
    taken: Cell<(u64, Instant)>,
}

impl Drain {
    /// A drain that ends the process.
    pub(super) fn start(termination: Termination, workers: Workers) -> Self {
        let begun = Instant::now();
        Self { termination, begun, workers, taken: Cell::new((0, begun)) }
    }

    /// Ready when the last connection has ended and nobody is expected, or the time is over; never without a drain.
    /// Cancel-safe.
    pub(super) async fn over(drain: Option<&Self>) {
        let Some(drain) = drain else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            if drain.begun.elapsed() >= drain.termination.latest || drain.is_idle().await {
                return;
            }
        }
    }

    async fn is_idle(&self) -> bool {
        let connections = self.workers.connections().await;
        let taken = match self.termination.which {
            Which::All => connections.taken,
            Which::Inbound => connections.inbound,
        };
        let (before, last) = self.taken.get();
        if taken > before {
            self.taken.set((taken, Instant::now()));
            return false;
        }
        let least = if taken == 0 { self.termination.uncalled } else { self.termination.earliest };
        connections.open == 0 && last.elapsed() >= QUIET && self.begun.elapsed() >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Connections;
    use crate::worker::{Message, WorkerReport};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: crate::bootstrap::Flags,
    }

    fn termination(id: &str, arguments: &[&str], variables: Environment) -> anyhow::Result<Termination> {
        let flags = Cli::parse_from(["proxy"].iter().chain(arguments)).flags;
        let mut written = proto::envoy::bootstrap::Bootstrap::default();
        written.node.get_or_insert_default().id = id.to_owned();
        Termination::of(&Bootstrap::check(written, flags, variables).unwrap())
    }

    // spec: HL-5, LC-3
    #[test]
    fn a_termination_is_as_istio_sets_it() {
        let s = Duration::from_secs;
        let of = |arguments: &[&str], variables: Environment| {
            let settings = ["TERMINATION_DRAIN_DURATION_SECONDS", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"];
            let is_set = settings.iter().any(|name| variables.get(name).is_some());
            let found = termination("sidecar~1.2.3.4~a.b~b", arguments, variables).unwrap();
            assert_eq!(found.which, Which::Inbound);
            assert_eq!(found.uncalled, if is_set { found.earliest } else { s(1) });
            (found.terms.spread, found.earliest, found.latest)
        };
        let none = || Environment::default();
        let immediate = ["--drain-strategy", "immediate", "--drain-time-s", "45"];
        assert_eq!(of(&[], none()), (s(5), s(5), s(600)));
        assert_eq!(of(&immediate, none()), (s(0), s(5), s(45)));
        let set = Environment::from([("TERMINATION_DRAIN_DURATION_SECONDS", "20")]);
        assert_eq!(of(&[], set.clone()), (s(20), s(20), s(20)));
        assert_eq!(of(&immediate, set), (s(0), s(20), s(20)));
        let exits =
            |least| Environment::from([("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", least)]);
        assert_eq!(of(&immediate, exits("2s")), (s(0), s(2), s(45)));
        assert_eq!(of(&immediate, exits("1m")), (s(0), s(60), s(60)));
        for bad in ["2", "x", "s", "-1s"] {
            let error = termination("a", &[], exits(bad)).unwrap_err().to_string();
            assert!(error.starts_with("MINIMUM_DRAIN_DURATION: "), "{error}");
        }
        let gateway = termination("router~1.2.3.4~a.b~b", &[], none()).unwrap();
        assert_eq!((gateway.which, gateway.uncalled), (Which::All, s(5)), "somebody may call it for the first time");
    }

    // spec: HL-5, PC-2
    #[test]
    fn proxy_config_sets_the_drain_where_the_variable_does_not() {
        let of = |config: &str, variable: Option<&str>| {
            let config = ("PROXY_CONFIG", config);
            let set = variable.map(|seconds| ("TERMINATION_DRAIN_DURATION_SECONDS", seconds));
            let variables = set.map_or_else(|| Environment::from([config]), |set| Environment::from([config, set]));
            let found = termination("sidecar~1.2.3.4~a.b~b", &[], variables)?;
            Ok::<_, anyhow::Error>([found.terms.spread, found.earliest, found.uncalled, found.latest])
        };
        let all = |seconds| [Duration::from_secs(seconds); 4];
        let config = r#"{"terminationDrainDuration": "1m30s"}"#;
        assert_eq!(of(config, None).unwrap(), all(90));
        assert_eq!(of(config, Some("20")).unwrap(), all(20));
        assert_eq!(of("{}", None).unwrap()[3], Duration::from_secs(600));
        let error = of(r#"{"terminationDrainDuration": "soon"}"#, None).unwrap_err().to_string();
        assert!(error.starts_with("PROXY_CONFIG.terminationDrainDuration: "), "{error}");
    }

    // spec: HL-5
    #[tokio::test(start_paused = true)]
    async fn whoever_learns_late_is_still_served() {
        let sidecar = termination("sidecar~1.2.3.4~a.b~b", &[], Environment::default()).unwrap();
        let gateway = Termination { which: Which::All, uncalled: sidecar.earliest, ..sidecar };
        let set = Termination { earliest: Duration::from_secs(3), latest: Duration::from_secs(3), ..sidecar };
        // (taken before, and so many seconds after the start the last one)
        for (termination, before, last, seconds) in
            [(sidecar, 0, 0, 1), (sidecar, 1, 0, 5), (sidecar, 1, 7, 8), (gateway, 0, 0, 5), (set, 1, 7, 3)]
        {
            let (inbox, mut messages) = tokio::sync::mpsc::channel(1);
            let begun = Instant::now();
            tokio::spawn(async move {
                while let Some(Message::Report(to)) = messages.recv().await {
                    let late = if last == 0 { 0 } else { begun.elapsed().as_secs().min(last) };
                    let inbound = before + late;
                    to.answer(WorkerReport { connections: Connections { open: 0, taken: inbound, inbound } });
                }
            });
            let drain = Drain::start(termination, Workers::new(vec![inbox]));
            Drain::over(Some(&drain)).await;
            let took = begun.elapsed().as_millis();
            let expected = u128::from(seconds * 1000_u64);
            assert!((expected..expected + 400).contains(&took), "{before} {last}: {took} ms of {expected}");
        }
    }
}
