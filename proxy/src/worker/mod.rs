//! One worker: a thread with its own runtime, listeners, clusters and pools.
//!
//! Knows what it serves. Must never know where configuration comes from, nor another worker.

mod export;
mod inbox;

pub use inbox::{Call, Message, ReportTo, Which, WorkerReport};

use crate::cluster::{Cluster, ClusterSet};
use crate::drain::{Drain, Terms};
use crate::env::{Env, ProcessClock};
use crate::filter::Facts;
use crate::http::{
    Settings,
    config::{HcmConfig, Routes},
};
use crate::listener::{
    Chain, Listener, ListenerConfig, Serve, accept_loop,
    config::{ChainConfig, Terminal},
};
use crate::node::NodeFacts;
use crate::route::RouteTable;
use crate::telemetry::Registrar;
use crate::telemetry::access_log::{LogBuffers, LogSinks};
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::istio::IstioMetrics;
use crate::telemetry::tap::Taps;
use crate::xds::FeedHandle;
use export::Exporter;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet};

/// Messages that may wait for a worker.
pub const INBOX_MESSAGES: usize = 1024;
/// Time between two looks at ejections and idle connections.
const SWEEP: Duration = Duration::from_secs(1);

/// A worker's state.
struct Worker {
    serve: Rc<Serve>,
    accepting: HashMap<Arc<str>, Vec<JoinHandle<()>>>,
    tables: HashMap<Arc<str>, Arc<RouteTable>>,
    /// Who uses a table of RDS, to be told of a new one.
    users: HashMap<Arc<str>, Vec<Weak<Settings>>>,
    clock: Arc<ProcessClock>,
    terms: Terms,
    /// What was replaced or removed, for as long as connections are left.
    leaving: Vec<(Which, Weak<Drain>)>,
    /// A drain of listeners, which those that come later take part in.
    draining: Option<(Which, Terms)>,
}

/// What the process gives a worker on its way.
#[derive(Debug)]
pub struct Parts {
    /// Number of the worker.
    pub index: usize,
    /// The clock that workers share.
    pub clock: Arc<ProcessClock>,
    /// Who this proxy is.
    pub node: Arc<NodeFacts>,
    /// Registers its series.
    pub registrar: Registrar,
    /// Its lines of access logs.
    pub logs: LogBuffers,
    /// Asks for configuration on demand.
    pub feed: FeedHandle,
    /// How connections leave what is replaced or removed.
    pub terms: Terms,
}

/// Runs a worker on this thread until its inbox closes.
///
/// # Errors
/// The runtime cannot be made.
pub fn run(parts: Parts, inbox: mpsc::Receiver<Message>) -> std::io::Result<()> {
    crate::pool::flush_at_park();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(crate::pool::flush_all).build()?;
    let local = LocalSet::new();
    let registrar = Rc::new(parts.registrar);
    let facts = Rc::new(Facts {
        env: Rc::new(Env::new()),
        clusters: Rc::new(ClusterSet::default()),
        node: parts.node,
        metrics: Rc::new(IstioMetrics::new(Rc::clone(&registrar))),
        stats: Rc::new(EnvoyStats::new(Rc::clone(&registrar))),
        logs: Rc::new(LogSinks::new(parts.logs, registrar)),
        taps: Taps::default(),
        clock: Arc::clone(&parts.clock),
        leases: Rc::default(),
        feed: Some(parts.feed),
    });
    let serve = Rc::new(Serve {
        facts,
        listeners: RefCell::default(),
        connections: Cell::default(),
        next_id: Cell::new((parts.index as u64) << 48),
    });
    let worker = Worker {
        serve,
        accepting: HashMap::new(),
        tables: HashMap::new(),
        users: HashMap::new(),
        clock: parts.clock,
        terms: parts.terms,
        leaving: Vec::new(),
        draining: None,
    };
    local.block_on(&runtime, worker.work(inbox));
    Ok(())
}

impl Worker {
    async fn work(mut self, mut inbox: mpsc::Receiver<Message>) {
        let exporter = Exporter::new(Rc::clone(&self.serve.facts));
        let exporting = tokio::task::spawn_local(Rc::clone(&exporter).run());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.handle(message),
                    None => break,
                },
                _ = sweep.tick() => {
                    let now_ms = self.clock.now_ms();
                    self.serve.facts.clusters.all().iter().for_each(|cluster| cluster.sweep(now_ms));
                    self.serve.facts.logs.lines.flush();
                    self.serve.facts.taps.sweep(self.serve.facts.env.now());
                    let listeners = self.serve.listeners.borrow();
                    listeners.values().flat_map(|listener| &listener.chains).for_each(|chain| chain.sweep());
                }
            }
        }
        self.serve.facts.logs.lines.flush();
        exporting.abort();
        exporter.finish().await;
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Cluster(config, hosts) => {
                let env = Rc::clone(&self.serve.facts.env);
                let cluster = Cluster::new(config, hosts, env);
                cluster.count(Rc::clone(&self.serve.facts.stats));
                self.serve.facts.clusters.insert(cluster);
            }
            Message::RemoveCluster(name) => {
                self.serve.facts.clusters.remove(&name);
                self.serve.facts.stats.forget_cluster(&name);
            }
            Message::Hosts(name, hosts) => {
                if let Some(cluster) = self.serve.facts.clusters.get(&name) {
                    cluster.set_hosts(hosts, self.clock.now_ms());
                }
            }
            Message::Routes(name, table) => self.set_routes(name, table),
            Message::RemoveRoutes(name) => {
                self.tables.remove(&name);
                self.tell(&name, &Arc::default());
            }
            Message::Listener(config, sockets) => self.set_listener(config, sockets),
            Message::RemoveListener(name) => self.remove_listener(&name),
            Message::Drain(which, terms) => {
                self.draining = Some((which, terms));
                self.drains(which).for_each(|drain| drain.begin(terms));
            }
            Message::CallOffDrain => {
                self.draining = None;
                self.drains(Which::All).for_each(|drain| drain.call_off());
            }
            Message::StopAccepting(which) => self.stop_accepting_on(which),
            Message::Report(to) => to.answer(self.report()),
            Message::Tap(tap) => self.serve.facts.taps.add(tap, self.serve.facts.env.now()),
            Message::Call(asked) => export::call_for_main(&self.serve.facts, *asked),
        }
    }

    fn set_routes(&mut self, name: Arc<str>, table: Arc<RouteTable>) {
        self.tell(&name, &table);
        self.tables.insert(name, table);
    }

    fn tell(&mut self, name: &str, table: &Arc<RouteTable>) {
        let Some(users) = self.users.get_mut(name) else { return };
        users.retain(|user| match user.upgrade() {
            Some(settings) => {
                *settings.routes.borrow_mut() = Arc::clone(table);
                true
            }
            None => false,
        });
    }

    /// Takes a listener over. Chains that are as they were keep their connections; the others' leave (LC-1): as in
    /// Envoy, a connection must not go on for ever under the policy that it began with.
    fn set_listener(&mut self, config: Arc<ListenerConfig>, sockets: Vec<std::net::TcpListener>) {
        let name = Arc::clone(&config.name);
        let old = self.serve.listeners.borrow_mut().remove(&name);
        let mut before = old.as_ref().map(|old| old.chains.clone()).unwrap_or_default();
        let mut chains = Vec::new();
        for chain in config.chains.iter().chain(&config.default_chain) {
            let same = before.iter().position(|other| Arc::ptr_eq(&other.config, chain));
            chains.push(match same {
                Some(at) => before.swap_remove(at),
                None => self.chain(chain, &config),
            });
        }
        let stats = self.serve.facts.stats.listener(&config.address.to_string());
        let listener = Rc::new(Listener { config, chains, stats, drain: Rc::default() });
        self.serve.listeners.borrow_mut().insert(Arc::clone(&name), listener);
        if let Some(old) = old {
            self.leave(&old, before);
        }
        if sockets.is_empty() {
            return;
        }
        // New sockets mean a new address: the old ones stop, their connections go on.
        self.stop_accepting(&name);
        for socket in sockets {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => {
                    let accepting = accept_loop(Rc::clone(&self.serve), Arc::clone(&name), socket);
                    let task = tokio::task::spawn_local(accepting);
                    self.accepting.entry(Arc::clone(&name)).or_default().push(task);
                }
                Err(error) => tracing::error!(listener = &*name, %error, "socket cannot be used"),
            }
        }
    }

    fn chain(&mut self, config: &Arc<ChainConfig>, listener: &ListenerConfig) -> Rc<Chain> {
        let inbound = listener.inbound;
        let (http, drain) = match &config.terminal {
            Terminal::Tcp(_) => (None, Rc::default()),
            Terminal::Http(hcm) => {
                let settings = self.settings(hcm, inbound);
                let drain = Rc::clone(&settings.drain);
                (Some(settings), drain)
            }
        };
        if let Some((_, terms)) = self.draining.filter(|(which, _)| which.takes(listener)) {
            drain.begin(terms);
        }
        Rc::new(Chain { config: Arc::clone(config), inbound, http, drain, peers: Rc::default() })
    }

    /// Has the connections of these chains of a listener leave, and those that have no chain yet where it keeps none.
    fn leave(&mut self, listener: &Listener, gone: Vec<Rc<Chain>>) {
        self.leaving.retain(|(_, drain)| drain.strong_count() > 0);
        let undecided = (gone.len() == listener.chains.len()).then(|| Rc::clone(&listener.drain));
        for drain in gone.iter().map(|chain| Rc::clone(&chain.drain)).chain(undecided) {
            drain.begin(self.terms);
            self.leaving.push((Which::of(&listener.config), Rc::downgrade(&drain)));
        }
    }

    fn settings(&mut self, hcm: &Arc<HcmConfig>, inbound: bool) -> Rc<Settings> {
        let facts = Rc::clone(&self.serve.facts);
        match &hcm.routes {
            Routes::Inline(table) => Rc::new(Settings::new(Arc::clone(hcm), facts, Arc::clone(table), inbound)),
            Routes::Rds(name) => {
                let table = self.tables.get(name).cloned().unwrap_or_default();
                let settings = Rc::new(Settings::new(Arc::clone(hcm), facts, table, inbound));
                self.users.entry(Arc::clone(name)).or_default().push(Rc::downgrade(&settings));
                settings
            }
        }
    }

    fn stop_accepting(&mut self, name: &str) {
        for task in self.accepting.remove(name).into_iter().flatten() {
            task.abort();
        }
    }

    fn remove_listener(&mut self, name: &str) {
        self.stop_accepting(name);
        let removed = self.serve.listeners.borrow_mut().remove(name);
        if let Some(listener) = removed {
            self.leave(&listener, listener.chains.clone());
        }
    }

    /// What these listeners' connections, also those that are leaving already, are asked through.
    fn drains(&self, which: Which) -> impl Iterator<Item = Rc<Drain>> {
        let listeners = self.serve.listeners.borrow();
        let asked = listeners.values().filter(|listener| which.takes(&listener.config));
        let mut drains: Vec<Rc<Drain>> = asked.flat_map(|listener| listener.drains()).collect();
        let leaving = self.leaving.iter().filter(|(of, _)| which == Which::All || *of == Which::Inbound);
        drains.extend(leaving.filter_map(|(_, drain)| drain.upgrade()));
        drains.into_iter()
    }

    fn stop_accepting_on(&mut self, which: Which) {
        let listeners = self.serve.listeners.borrow();
        let names: Vec<Arc<str>> =
            listeners.values().filter(|l| which.takes(&l.config)).map(|l| Arc::clone(&l.config.name)).collect();
        drop(listeners);
        names.iter().for_each(|name| self.stop_accepting(name));
    }

    fn report(&self) -> WorkerReport {
        WorkerReport { connections: self.serve.connections.get() }
    }
}
