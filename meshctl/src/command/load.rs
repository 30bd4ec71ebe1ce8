//! `meshctl load`: Fortio's load test (spec FO-1, FO-10 … FO-33), with what it lacks (FO-43).

use crate::load::bound::Bound;
use crate::load::flags::{Level, RequestArgs};
use crate::load::format::{duration, parse_duration, parse_percentiles, shortest};
use crate::load::plan::{Late, Plan, Schedule, Spread};
use crate::load::record::Code;
use crate::load::report::{Identity, Report};
use crate::load::run::{Crew, Meter, Outcome, Settings, Stop, WarmUp};
use crate::load::target::{GrpcArgs, Kind, Target};
use crate::output;
use anyhow::Context;
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

    fn settings(&self, plan: &Plan, target: &Target, threads: usize) -> Settings {
        let unanswered = matches!(target.kind, Kind::Tcp(_) | Kind::Udp(..)); // as Fortio: those may fail at first
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
    let target = Target::new(&args.target, &args.request, &args.grpc, args.udp_timeout)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if args.gomaxprocs > 0 { args.gomaxprocs } else { processors };
    let schedule = Schedule::new(&plan, threads);
    let level = args.request.level();
    output::note(&args.announcement(&plan, processors, threads));
    schedule.warnings.iter().for_each(|warning| output::note(warning));

    let settings = args.settings(&plan, &target, threads);
    let warm_up_calls = settings.warm_up.map_or(0, |_| schedule.connections);
    let stop = Stop::default();
    let interrupts = tokio::spawn(obey_interrupts(stop.clone()));
    let assembled = Crew::assemble(&plan, &schedule, vec![target.clone()], settings, stop);
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
    let progress = (level < Level::Error).then(|| tokio::spawn(show_progress(crew.meters.clone(), plan.length)));
    let outcome = crew.work(0, &plan, &schedule).await;
    if let Some(progress) = progress {
        progress.abort();
        output::progress("");
    }
    let outcome = outcome?;
    let facts = crew.dismiss().await?.into_iter().next().unwrap_or_default();
    interrupts.abort();
    let report = Report {
        plan: &plan,
        schedule: &schedule,
        target: &target,
        outcome: &outcome,
        facts: &facts,
        identity: &identity,
        warm_up_calls,
        abort_on: args.abort_on,
    };
    report.lines(level).iter().for_each(|line| output::note(line));
    save(&args, &report)?;
    Ok(verdict(&args.fail_if, &outcome))
}

/// As for Fortio, failed calls are a result and no failure of the tool, unless a bound says so.
fn verdict(bounds: &[Bound], outcome: &Outcome) -> ExitCode {
    let broken: Vec<String> = bounds.iter().filter_map(|bound| bound.broken_by(outcome)).collect();
    broken.iter().for_each(|text| output::note(text));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
}

fn save(args: &LoadArgs, report: &Report<'_>) -> anyhow::Result<()> {
    let path = match &args.json {
        Some(path) if path == "-" => None,
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ if args.autosave => Some(args.data_dir.join(format!("{}.json", report.identity.id()))),
        _ => return Ok(()),
    };
    let text = serde_json::to_string_pretty(&report.json())?;
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
