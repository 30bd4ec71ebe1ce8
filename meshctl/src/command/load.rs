//! `meshctl load`: Fortio's load test (spec FO-1, FO-10 … FO-33), with what it lacks (FO-43).

use crate::load::bound::Bound;
use crate::load::client::Facts;
use crate::load::comparison::{self, Comparison};
use crate::load::flags::{Level, RequestArgs};
use crate::load::format::{duration, parse_duration, parse_percentiles, shortest};
use crate::load::plan::{Late, Plan, Schedule, Spread};
use crate::load::record::Code;
use crate::load::report::{Identity, Report};
use crate::load::run::{Crew, Meter, Outcome, Settings, Stop, WarmUp};
use crate::load::target::{GrpcArgs, Kind, Target};
use crate::output;
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How often the line of progress is renewed.
const PROGRESS: Duration = Duration::from_millis(250);

/// Exit code where a bound of --fail-if is broken.
const BROKEN: u8 = 2;

/// `meshctl load`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)] // of a flag that stands twice the last counts, as in Fortio
pub struct LoadArgs {
    /// http(s)://…, tcp://host:port, udp://host:port, or host:port with -grpc.
    #[arg(value_name = "TARGET")]
    target: String,
    /// Calls per second over all connections; 0 for as many as possible.
    #[arg(long, default_value_t = 8.0)]
    qps: f64,
    /// Connections, each with one call at a time.
    #[arg(short = 'c', default_value_t = 4, value_name = "CONNECTIONS")]
    connections: usize,
    /// How long; 0 until Ctrl-C.
    #[arg(short = 't', default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    length: Duration,
    /// So many calls exactly, instead of -t.
    #[arg(short = 'n', default_value_t = 0, value_name = "CALLS")]
    exactly: u64,
    /// Take the rate from -n and -t.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    calc_qps: bool,
    /// Resolution of the histogram in seconds.
    #[arg(short = 'r', default_value_t = 0.001, value_name = "SECONDS")]
    resolution: f64,
    /// Latency at which the histogram begins.
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    offset: Duration,
    /// Percentiles to report.
    #[arg(short = 'p', default_value = "50,75,90,99,99.9", value_name = "LIST")]
    percentiles: String,
    /// Spread the connections' calls evenly.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    uniform: bool,
    /// Make waits up to a tenth longer or shorter.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    jitter: bool,
    /// Leave out calls that are late, instead of catching up.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    nocatchup: bool,
    /// Start even where the first calls fail.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_initial_errors: bool,
    /// Stop at the first answer of this status; -1 for a failed connection.
    #[arg(long, default_value_t = 0, value_name = "STATUS")]
    abort_on: i16,
    /// Time for an answer over UDP.
    #[arg(long, default_value = "750ms", value_parser = parse_duration, value_name = "DURATION")]
    udp_timeout: Duration,
    /// Threads; as many as processors where it is 0.
    #[arg(long, default_value_t = 0)]
    gomaxprocs: usize,
    /// Write the result as JSON; - for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Write the result into --data-dir, named by time and labels.
    #[arg(short = 'a', action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    autosave: bool,
    /// Directory of results.
    #[arg(long, default_value = ".", value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// Labels of the result; the target and this machine where it is empty.
    #[arg(long, default_value = "")]
    labels: String,
    /// Number of the result.
    #[arg(long, default_value_t = 0)]
    runid: i64,
    /// Exit with 2 where this holds, for tests in CI; several may be given. Values: p50 … p99.9 (any percentile), avg, min,
    /// max, each raw or from when calls were due (corrected-p99); qps, errors, success. Comparisons: > >= < <= ==.
    /// Units: us, ms, s, or % of calls for errors and success.
    #[arg(long, value_name = "p99>20ms")]
    fail_if: Vec<Bound>,
    /// A second target: both are called in turn in short slices, each for the whole length, and shown side by side.
    #[arg(long, value_name = "TARGET")]
    compare: Option<String>,
    #[command(flatten)]
    grpc: GrpcArgs,
    #[command(flatten)]
    request: RequestArgs,
}

impl LoadArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let exactly = (self.exactly > 0).then_some(self.exactly);
        let length = (!self.length.is_zero()).then_some(self.length);
        anyhow::ensure!(self.qps.is_finite(), "-qps {} is no rate", self.qps);
        let mut rate = (self.qps > 0.0).then_some(self.qps);
        if self.calc_qps {
            let (calls, length) = exactly.zip(length).context("-calc-qps takes the rate from -n and -t: give both")?;
            rate = Some(calls as f64 / length.as_secs_f64());
        }
        anyhow::ensure!(self.resolution > 0.0, "-r {} must be above 0", self.resolution);
        anyhow::ensure!(self.connections > 0, "-c must be at least 1");
        anyhow::ensure!(self.compare.is_none() || exactly.is_none(), "--compare needs a length: give -t instead of -n");
        anyhow::ensure!(self.compare.is_none() || length.is_some(), "--compare needs an end: give -t");
        Ok(Plan {
            rate,
            length,
            exactly,
            connections: self.connections * if self.grpc.grpc { self.grpc.streams.max(1) } else { 1 },
            spread: Spread { uniform: self.uniform, jitter: self.jitter },
            late: if self.nocatchup { Late::Skip } else { Late::CatchUp },
            percentiles: parse_percentiles(&self.percentiles).map_err(|text| anyhow::anyhow!("-p: {text}"))?,
            resolution: self.resolution,
            offset: self.offset.as_secs_f64(),
        })
    }

    fn settings(&self, plan: &Plan, targets: &[Target], threads: usize) -> Settings {
        // as Fortio: those may fail at first
        let unanswered = targets.iter().any(|target| matches!(target.kind, Kind::Tcp(_) | Kind::Udp(..)));
        Settings {
            threads,
            warm_up: plan.exactly.is_none().then_some(WarmUp {
                sequential: self.request.sequential_warmup,
                allow_errors: self.allow_initial_errors || unanswered,
            }),
            abort_on: (self.abort_on != 0).then_some(Code::Status(self.abort_on)),
            log_errors: self.request.log_errors && self.request.level() < Level::Error,
        }
    }

    fn identity(&self) -> Identity {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host = host.split('.').next().unwrap_or_default();
        let short = self.target.trim_start_matches("https://").trim_start_matches("http://");
        let labels = if self.labels.is_empty() { format!("{short} , {host}") } else { self.labels.clone() };
        Identity { labels, run: self.runid, start: jiff::Zoned::now() }
    }

    fn announcement(&self, plan: &Plan, processors: usize, threads: usize) -> String {
        let rate = shortest(plan.rate.unwrap_or(0.0));
        let version = env!("CARGO_PKG_VERSION");
        let start = format!("Ferromesh {version} running at {rate} queries per second, {processors}->{threads} procs");
        match (plan.exactly, plan.length) {
            (Some(calls), _) => format!("{start}, for {calls} calls: {}", self.target),
            (_, Some(length)) => format!("{start}, for {}: {}", duration(length), self.target),
            _ => format!("{start}, until interrupted: {}", self.target),
        }
    }
}

/// Runs the load test.
///
/// # Errors
/// Where a flag is unusable, the first calls fail, or the result cannot be written.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let plan = args.plan()?;
    let mut targets = Vec::new();
    for url in std::iter::once(&args.target).chain(&args.compare) {
        let mut target = Target::new(url, &args.request, &args.grpc, args.udp_timeout)?;
        Box::pin(target.resolve(&args.grpc.grpc_method)).await?;
        targets.push(target);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.gomaxprocs > 0 { args.gomaxprocs } else { processors };
    let schedule = Schedule::new(&plan, threads);
    let level = args.request.level();
    output::note(&args.announcement(&plan, processors, threads));
    schedule.warnings.iter().for_each(|warning| output::note(warning));

    let settings = args.settings(&plan, &targets, threads);
    let stop = Stop::default();
    let interrupts = tokio::spawn(obey_interrupts(stop.clone()));
    let assembled = Crew::assemble(&plan, &schedule, targets.clone(), settings, stop.clone());
    let mut crew = match assembled.await {
        Ok(crew) => crew,
        Err(error) => {
            output::note(&format!("Aborting because of {error:#}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    if level < Level::Error || plan.length.is_none() {
        output::note(&schedule.announcement);
    }
    let identity = args.identity();
    let length = plan.length.map(|length| length * u32::try_from(targets.len()).unwrap_or(1));
    let progress = (level < Level::Error).then(|| tokio::spawn(show_progress(crew.meters.clone(), length)));
    let made = match &args.compare {
        Some(_) => comparison::run(&mut crew, &plan, threads, &stop).await.map(|both| Made::Both(Box::new(both))),
        None => crew.work(0, &plan, &schedule).await.map(|outcome| Made::One(Box::new(outcome))),
    };
    if let Some(progress) = progress {
        progress.abort();
        output::progress("");
    }
    let made = made?;
    let facts = crew.dismiss().await?;
    interrupts.abort();
    let shown = Shown { args: &args, plan: &plan, schedule: &schedule, targets: &targets, identity: &identity };
    shown.show(&made, &facts)
}

/// What was made.
enum Made {
    /// Calls of one target.
    One(Box<Outcome>),
    /// Calls of two.
    Both(Box<Comparison>),
}

/// What a report is made of, besides what came of the calls.
struct Shown<'a> {
    args: &'a LoadArgs,
    plan: &'a Plan,
    schedule: &'a Schedule,
    targets: &'a [Target],
    identity: &'a Identity,
}

impl Shown<'_> {
    fn show(&self, made: &Made, facts: &[Vec<Facts>]) -> anyhow::Result<ExitCode> {
        let level = self.args.request.level();
        match made {
            Made::One(outcome) => {
                let report = self.report(0, outcome, facts);
                report.lines(level).iter().for_each(|line| output::note(line));
                save(self.args, &report.json(), &self.identity.id())?;
                Ok(verdict(&self.args.fail_if, &[outcome.as_ref()]))
            }
            Made::Both(comparison) => {
                let mut results = Vec::new();
                for (number, outcome) in comparison.totals.iter().enumerate() {
                    let report = self.report(number, outcome, facts);
                    if level < Level::Warning {
                        output::note(&format!("--- {}", report.target.url));
                        report.lines(level).iter().for_each(|line| output::note(line));
                    }
                    results.push(report.json());
                }
                let names = [self.targets[0].url.as_str(), self.targets[1].url.as_str()];
                comparison.lines(names).iter().for_each(|line| output::note(line));
                // the result is that of the first target, which Fortio reads; the other stands beside it
                let other = results.pop().unwrap_or_default();
                let mut result = results.pop().unwrap_or_default();
                result["Comparison"] = comparison.json();
                result["ComparedWith"] = other;
                save(self.args, &result, &self.identity.id())?;
                let [a, b] = &comparison.totals;
                Ok(verdict(&self.args.fail_if, &[a, b]))
            }
        }
    }

    fn report<'a>(&'a self, target: usize, outcome: &'a Outcome, facts: &'a [Vec<Facts>]) -> Report<'a> {
        Report {
            plan: self.plan,
            schedule: self.schedule,
            target: &self.targets[target],
            outcome,
            facts: facts.get(target).map_or(&[], Vec::as_slice),
            identity: self.identity,
            warm_up_calls: if self.plan.exactly.is_none() { self.schedule.connections } else { 0 },
            abort_on: self.args.abort_on,
        }
    }
}

/// As for Fortio, failed calls are a result and no failure of the tool, unless a bound says so.
fn verdict(bounds: &[Bound], outcomes: &[&Outcome]) -> ExitCode {
    let of = |outcome: &&Outcome| bounds.iter().filter_map(|bound| bound.broken_by(outcome)).collect::<Vec<_>>();
    let broken: Vec<String> = outcomes.iter().flat_map(of).collect();
    broken.iter().for_each(|text| output::note(text));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
}

fn save(args: &LoadArgs, result: &Value, id: &str) -> anyhow::Result<()> {
    let path = match &args.json {
        Some(path) if path == "-" => None,
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ if args.autosave => Some(args.data_dir.join(format!("{id}.json"))),
        _ => return Ok(()),
    };
    let text = serde_json::to_string_pretty(result)?;
    let size = text.len() + 1;
    let name = match path {
        None => {
            output::say(&text)?;
            "stdout".to_owned()
        }
        Some(path) => {
            std::fs::write(&path, format!("{text}\n")).with_context(|| format!("cannot write {}", path.display()))?;
            path.display().to_string()
        }
    };
    output::note(&format!("Successfully wrote {size} bytes of Json data to {name}"));
    Ok(())
}

/// Ctrl-C once ends the run, and its result is shown; twice ends the tool.
async fn obey_interrupts(stop: Stop) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.set();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(1);
    }
}

async fn show_progress(meters: Vec<Arc<Meter>>, length: Option<Duration>) {
    let start = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(PROGRESS);
    let mut before = 0;
    loop {
        ticks.tick().await;
        let (calls, failures) = Meter::sum(&meters);
        let elapsed = start.elapsed().as_secs_f64();
        let of = length.map(|length| format!(" of {}", duration(length))).unwrap_or_default();
        let rate = (calls - before) as f64 / PROGRESS.as_secs_f64();
        output::progress(&format!("{elapsed:.1}s{of}: {calls} calls, {rate:.0} qps, {failures} failed"));
        before = calls;
    }
}
