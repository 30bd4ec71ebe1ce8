//! One worker: a thread with its own runtime, listeners, clusters and pools.
//!
//! Knows what it serves. Must never know where configuration comes from, nor another worker.

mod inbox;

pub use inbox::{Message, ReportTo, WorkerReport};

use crate::cluster::{Cluster, ClusterSet};
use crate::env::{Env, ProcessClock};
use crate::filter::Facts;
use crate::http::{
    Settings,
    config::{HcmConfig, Routes},
};
use crate::listener::{Chain, Listener, ListenerConfig, Serve, accept_loop, config::Terminal};
use crate::node::NodeFacts;
use crate::route::RouteTable;
use crate::telemetry::Registrar;
use crate::telemetry::access_log::{LogBuffers, LogSinks, LoggedStats};
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::istio::IstioMetrics;
use crate::xds::FeedHandle;
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
        logs: Rc::new(LogSinks { lines: parts.logs, stats: LoggedStats::new(registrar) }),
        clock: Arc::clone(&parts.clock),
        feed: Some(parts.feed),
    });
    let serve = Rc::new(Serve {
        facts,
        listeners: RefCell::default(),
        connections: Cell::new(0),
        next_id: Cell::new((parts.index as u64) << 48),
    });
    let worker =
        Worker { serve, accepting: HashMap::new(), tables: HashMap::new(), users: HashMap::new(), clock: parts.clock };
    local.block_on(&runtime, worker.work(inbox));
    Ok(())
}

impl Worker {
    async fn work(mut self, mut inbox: mpsc::Receiver<Message>) {
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
                }
            }
        }
        self.serve.facts.logs.lines.flush();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Cluster(config, hosts) => {
                let env = Rc::clone(&self.serve.facts.env);
                self.serve.facts.clusters.insert(Cluster::new(config, hosts, env));
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
            Message::Drain { inbound_only } => self.drain(inbound_only),
            Message::Report(to) => to.answer(self.report()),
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

    fn set_listener(&mut self, config: Arc<ListenerConfig>, sockets: Vec<std::net::TcpListener>) {
        let mut chains = Vec::new();
        for chain in config.chains.iter().chain(&config.default_chain) {
            let http = match &chain.terminal {
                Terminal::Tcp(_) => None,
                Terminal::Http(hcm) => Some(self.settings(hcm, config.inbound)),
            };
            chains.push(Rc::new(Chain { config: Arc::clone(chain), inbound: config.inbound, http }));
        }
        let name = Arc::clone(&config.name);
        let stats = self.serve.facts.stats.listener(&config.address.to_string());
        let replaced =
            self.serve.listeners.borrow_mut().insert(Arc::clone(&name), Rc::new(Listener { config, chains, stats }));
        // As in Envoy: a kept connection must not go on under the policy that it began with.
        if let Some(replaced) = replaced {
            replaced.drain();
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
        if let Some(listener) = self.serve.listeners.borrow_mut().remove(name) {
            listener.drain();
        }
    }

    fn drain(&self, inbound_only: bool) {
        for listener in self.serve.listeners.borrow().values() {
            if !inbound_only || listener.config.inbound {
                listener.drain();
            }
        }
    }

    fn report(&self) -> WorkerReport {
        WorkerReport { connections: self.serve.connections.get() }
    }
}
