//! The process: order of start, owner of threads, order of stop. Main thread.
//!
//! Knows bootstrap, feed, publisher and workers. Must never know a request.

pub mod admin;
mod answer;
pub mod application;
pub mod ask;
mod code_pages;
mod drain;
mod identity;
pub mod logging;
mod names;
pub mod probe;
mod sink;

use crate::bootstrap::pod::{self, PodArgs};
use crate::bootstrap::{Bootstrap, BootstrapError, Converter, Environment, Flags, Mode, extensions};
use crate::drain::Terms;
use crate::env::ProcessClock;
use crate::filter::registry;
use crate::node::NodeFacts;
use crate::publish::{Publisher, Workers};
use crate::telemetry::access_log::LogWriter;
use crate::telemetry::tap::Tap;
use crate::telemetry::{MAX_SCOPES, MetricSink, Registry, StatsConfig};
use crate::worker::{self, Message, Parts, Which};
use crate::xds::{Batch, Cause, Feed, FeedOptions, Kind};
use admin::{Admin, AdminParts, Command, Lifecycle, MainStats, Published, Stage, StatsReader, TapDoor, own_stats};
use anyhow::{Context, anyhow, bail};
use application::Application;
use drain::{Drain, Termination, terms};
use logging::Logging;
use probe::Probes;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Commands of the admin interface that may wait.
const COMMANDS: usize = 16;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// What keeps it from starting, with the file or field to mend.
pub fn run(flags: Flags) -> anyhow::Result<()> {
    run_with(flags, Environment::of_process(), None)
}

/// Runs a proxy in a pod.
///
/// # Errors
/// When a variable of the pod cannot be used, or as [`run`].
pub fn run_in_pod(args: &PodArgs) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let mut flags = pod::flags(args, &environment)?;
    // Names that only Envoy has must not keep a pod from starting.
    flags.component_log_level =
        flags.component_log_level.map(|list| logging::known(&list)).filter(|list| !list.is_empty());
    let silent = pod::reports_to(&environment).err();
    run_with(flags, environment, silent)
}

/// `warning` is what its caller saw before there was a log.
fn run_with(flags: Flags, environment: Environment, warning: Option<BootstrapError>) -> anyhow::Result<()> {
    let logging = Logging::start(&flags).map_err(|why| anyhow!(why))?;
    if let Some(warning) = warning {
        tracing::warn!("{warning}");
    }
    let converter = Converter::of_this_binary()?;
    let mut bootstrap = Bootstrap::load(flags, environment, &converter)?;
    let filters = registry::names().map(|name| ("envoy.filters.http", name, name));
    bootstrap.node.extensions = extensions(filters.chain(PRIVATE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = Box::pin(Server::start(bootstrap, converter, logging)).await?;
        Box::pin(server.work()).await?;
        Box::pin(server.stop()).await;
        Ok(())
    })
}

/// Istio's filters by the names that control planes ask for (XM-5).
const PRIVATE: [(&str, &str, &str); 3] = [
    ("envoy.filters.http", "istio.stats", "stats.PluginConfig"),
    ("envoy.filters.http", "istio.metadata_exchange", "io.istio.http.peer_metadata.Config"),
    ("envoy.filters.http", "istio.alpn", "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"),
];

/// What the main thread owns.
struct Server {
    bootstrap: Arc<Bootstrap>,
    feed: Feed,
    publisher: Publisher,
    threads: Vec<JoinHandle<()>>,
    log_writer: LogWriter,
    published: watch::Sender<Arc<Published>>,
    stage: watch::Sender<Stage>,
    commands: mpsc::Receiver<Command>,
    taps: mpsc::Receiver<Tap>,
    signals: (Signal, Signal),
    termination: Termination,
    drain: Option<Drain>,
    /// Reports metrics.
    sink: Option<sink::Reporter>,
    /// When these listeners stop accepting.
    stopping: Option<(Instant, Which)>,
}

impl Server {
    async fn start(bootstrap: Bootstrap, converter: Converter, logging: Logging) -> anyhow::Result<Self> {
        let validate = bootstrap.flags.mode == Mode::Validate;
        let enrolment = identity::config(&bootstrap)?;
        let names = names::Settings::of(&bootstrap)?;
        let termination = Termination::of(&bootstrap)?;
        let change = terms(bootstrap.flags.drain_strategy, bootstrap.drain_time, Some(bootstrap.drain_time));
        let own_secret_services = identity::own_secret_services(enrolment.as_ref());
        let (node, also) = (bootstrap.node.clone(), vec![Kind::NameTable]);
        let options = FeedOptions { node, converter: converter.clone(), tls: None, also, own_secret_services };
        let registry = registry(&bootstrap)?;
        let node = Arc::new(NodeFacts::of(&bootstrap.node, identity::own_id(enrolment.as_ref()).as_deref()));
        let metric_sink = metric_sink(&bootstrap, &node)?;
        let feed = Feed::new(bootstrap.clone(), options)?;
        let log_writer = LogWriter::start()?;
        let clock = ProcessClock::start();
        let (workers, threads) = start_workers(bootstrap.concurrency.get(), |index| Parts {
            index,
            clock: Arc::clone(&clock),
            node: Arc::clone(&node),
            registrar: registry.registrar(MAX_SCOPES),
            logs: log_writer.buffers(),
            feed: feed.handle(),
            terms: change,
        })?;
        let publisher = Publisher::new(workers, &bootstrap);
        let (published, published_to) = watch::channel(Arc::default());
        let (stage, stage_to) = watch::channel(Stage::PreInitializing);
        let (command_to, commands) = mpsc::channel(COMMANDS);
        let (tap_to, taps) = mpsc::channel(COMMANDS);
        let bootstrap = Arc::new(bootstrap);
        let mut sink = None;
        if !validate {
            let main_stats = MainStats::new(&registry);
            let (stats, asked) = StatsReader::channel();
            tokio::spawn(own_stats(registry, asked));
            sink = metric_sink.map(|sink| sink::Reporter::start(sink, stats.clone(), publisher.workers()));
            let parts = Arc::new(AdminParts {
                bootstrap: Arc::clone(&bootstrap),
                converter,
                store: feed.store(),
                published: published_to,
                lifecycle: Lifecycle::starting_at(Instant::now(), stage_to.clone()),
                stage: stage_to,
                stats,
                main_stats,
                logging,
                clock,
                commands: command_to,
                taps: TapDoor::new(tap_to),
            });
            open_ports(&bootstrap, parts)?;
            tokio::spawn(code_pages::let_go_of_cold_ones());
            if let Some(config) = enrolment {
                identity::start(config, feed.handle());
            }
            if let Some(names) = names {
                names.start(feed.store()).await?;
            }
        }
        let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (drain, stopping) = (None, None);
        #[rustfmt::skip]
        let server = Self {
            bootstrap, feed, publisher, threads, log_writer, published, stage, commands, taps, signals, termination, drain,
            sink, stopping,
        };
        Ok(server)
    }

    /// Applies configuration and obeys commands until the process is to end.
    async fn work(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                batch = self.feed.next() => {
                    if Box::pin(self.apply(batch)).await? {
                        return Ok(());
                    }
                }
                () = self.publisher.next_resolved() => {}
                Some(command) = self.commands.recv() => {
                    if self.obey(command).await {
                        return Ok(());
                    }
                }
                Some(tap) = self.taps.recv() => {
                    self.publisher.workers().tell(|_| Message::Tap(tap.clone())).await;
                }
                () = Drain::over(self.drain.as_ref()) => return Ok(()),
                which = due(self.stopping) => {
                    self.stopping = None;
                    self.publisher.workers().tell(|_| Message::StopAccepting(which)).await;
                }
                _ = self.signals.0.recv() => {
                    // A second signal does not wait (F21).
                    if self.drain.is_some() {
                        return Ok(());
                    }
                    self.terminate().await;
                }
                _ = self.signals.1.recv() => return Ok(()),
            }
        }
    }

    /// Takes a batch over; true where that was all (validation).
    async fn apply(&mut self, batch: Batch) -> anyhow::Result<bool> {
        let rejections = Box::pin(self.publisher.apply(&batch)).await;
        if matches!(batch.cause, Cause::Bootstrap) {
            if let Some(first) = rejections.first() {
                bail!("error initializing configuration: {first}");
            }
            if self.bootstrap.flags.mode == Mode::Validate {
                tracing::info!("configuration OK");
                return Ok(true);
            }
        }
        self.feed.settle(batch, rejections);
        self.published.send_replace(Arc::new(Published {
            clusters: self.publisher.clusters().map(|(c, h)| (Arc::clone(c), Arc::clone(h))).collect(),
            listeners: self.publisher.listeners().map(|(l, bound)| (Arc::clone(l), Arc::clone(bound))).collect(),
        }));
        if self.drain.is_none() {
            let ready = self.feed.is_ready();
            self.stage.send_replace(if ready { Stage::Live } else { Stage::Initializing });
        }
        Ok(false)
    }

    /// Obeys the admin interface; true where the process is to end.
    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return true,
            Command::Drain { inbound_only, graceful, skip_exit } => {
                let which = if inbound_only { Which::Inbound } else { Which::All };
                self.drain_listeners(which, graceful, skip_exit).await;
            }
            Command::FailHealthChecks => {
                self.stage.send_replace(Stage::Draining);
                self.publisher.drain(Which::All, Terms { spread: Duration::ZERO, end: None }).await;
            }
            Command::PassHealthChecks => {
                self.stage.send_replace(Stage::Live);
                self.publisher.workers().tell(|_| Message::CallOffDrain).await;
            }
            Command::ReopenLogs => self.log_writer.reopen(),
        }
        false
    }

    /// As in Envoy: without `graceful` listeners close at once and connections stay; with it connections are asked to
    /// leave, and listeners close at the end of the drain time unless `skip_exit` keeps them (AD-9).
    async fn drain_listeners(&mut self, which: Which, graceful: bool, skip_exit: bool) {
        let time = self.bootstrap.drain_time;
        if graceful {
            self.publisher.drain(which, terms(self.bootstrap.flags.drain_strategy, time, None)).await;
        }
        if !skip_exit {
            self.stage.send_replace(Stage::Draining);
            self.stopping = Some((if graceful { Instant::now() + time } else { Instant::now() }, which));
        }
    }

    async fn terminate(&mut self) {
        tracing::info!("draining");
        self.stage.send_replace(Stage::Draining);
        self.publisher.drain(self.termination.which, self.termination.terms).await;
        self.drain = Some(Drain::start(self.termination, self.publisher.workers()));
    }

    async fn stop(self) {
        let Self { mut feed, publisher, threads, log_writer, drain, sink, .. } = self;
        feed.save().await;
        if let Some(sink) = sink {
            sink.finish().await;
        }
        // A worker ends when nobody can send to it any more: a drain holds inboxes too.
        drop((feed, publisher, drain));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
        drop(log_writer);
    }
}

/// Which listeners stop accepting, once it is time.
async fn due(stopping: Option<(Instant, Which)>) -> Which {
    let Some((at, which)) = stopping else { return std::future::pending().await };
    tokio::time::sleep_until(at.into()).await;
    which
}

/// Opens the admin interface and the agent's ports.
fn open_ports(bootstrap: &Bootstrap, parts: Arc<AdminParts>) -> anyhow::Result<()> {
    if let Some(address) = &bootstrap.admin {
        let admin = Admin::bind(address, Arc::clone(&parts)).context("admin address")?;
        tokio::spawn(admin.serve());
    }
    let application = Application::of(&bootstrap.environment).map_err(|why| anyhow!(why))?;
    let probes = Probes::bind(&bootstrap.flags, application, parts)?;
    tokio::spawn(probes.serve());
    Ok(())
}

fn registry(bootstrap: &Bootstrap) -> anyhow::Result<Registry> {
    let config = bootstrap.written.stats_config.as_ref().map(StatsConfig::parse).transpose();
    Ok(Registry::with(config.map_err(|refusal| anyhow!("stats_config.{refusal}"))?.unwrap_or_default()))
}

fn metric_sink(bootstrap: &Bootstrap, node: &NodeFacts) -> anyhow::Result<Option<MetricSink>> {
    let sink = MetricSink::of(&bootstrap.written, &node.id, &node.workload, SystemTime::now());
    sink.map_err(|why| anyhow!("{why}"))
}

/// Starts the worker threads.
fn start_workers(count: usize, parts: impl Fn(usize) -> Parts) -> anyhow::Result<(Workers, Vec<JoinHandle<()>>)> {
    let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (inbox, messages) = mpsc::channel(worker::INBOX_MESSAGES);
        let parts = parts(index);
        let run = move || {
            if let Err(error) = worker::run(parts, messages) {
                tracing::error!(worker = index, %error, "worker cannot run");
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run);
        threads.push(thread.with_context(|| format!("cannot start worker {index}"))?);
        inboxes.push(inbox);
    }
    Ok((Workers::new(inboxes), threads))
}
