//! The owner of everything that is known: one task, commands in, snapshots out.

use super::debounce::{Debounce, Delays};
use super::intake::Intake;
use super::metrics::Metrics;
use super::progress::{Progress, Reports};
use super::publish::{ClassId, Classes};
use super::standing::{Advance, Reach, Standing};
use crate::model::mesh::Change;
use crate::model::shared::Shared;
use crate::model::{Mesh, MeshConfig};
use crate::source::key_sets::Wanted;
use crate::source::{Event, Key, Kind, Object, Problem};
use crate::translate::cache::ResourceType;
use crate::translate::{Class, Node, Snapshot};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// How many commands may wait.
const QUEUE: usize = 4096;

/// What the hub is asked.
pub enum Command {
    /// A node connects; it is answered with its snapshots and the number under which it reports.
    Connect(Box<Node>, oneshot::Sender<Connection>),
    /// A node is gone.
    Disconnect(u64),
    /// What is connected, for people.
    Peers(oneshot::Sender<Vec<Peer>>),
    /// What is wrong.
    Status(oneshot::Sender<Status>),
    /// How every object of the mesh's own kinds stands.
    Standings(oneshot::Sender<Vec<Standing>>),
    /// Everything that is known.
    World(oneshot::Sender<World>),
    /// What the admission of an object of this namespace needs.
    Look(Arc<str>, oneshot::Sender<Known>),
}

/// What a connected node is given.
pub struct Connection {
    /// Under which it reports.
    pub id: u64,
    /// Its snapshots: the newest alone is kept.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where it reports how far it is.
    pub progress: Reports,
    /// Number of the snapshot that was sent last; written by the stream, read by the hub.
    pub offered: Arc<AtomicU64>,
}

/// A connected node, for people.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The node.
    pub node: Arc<Node>,
    /// When it connected.
    pub since: std::time::SystemTime,
    /// How far it is, per type.
    pub progress: BTreeMap<ResourceType, Progress>,
    /// What it is told now.
    pub snapshot: Arc<Snapshot>,
}

/// What is wrong, and some counts.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Status {
    /// Whether every object that existed at the start has been taken in.
    pub synced: bool,
    /// The problems.
    pub problems: Vec<Problem>,
    /// Objects in force.
    pub objects: usize,
    /// Classes of connected nodes.
    pub classes: usize,
    /// Resources held.
    pub cached_resources: usize,
    /// Resources made since the start.
    pub made_resources: u64,
}

/// Everything that is known, for people.
pub struct World {
    /// The mesh.
    pub mesh: Mesh,
    /// The objects in force.
    pub objects: Vec<Arc<Object>>,
}

/// What the admission of an object needs.
pub struct Known {
    /// The mesh's own settings.
    pub config: Shared<MeshConfig>,
    /// The object's namespace, where it is known.
    pub namespace: Option<Arc<Object>>,
}

struct Member {
    node: Arc<Node>,
    class: ClassId,
    since: std::time::SystemTime,
    progress: watch::Receiver<BTreeMap<ResourceType, Progress>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    offered: Arc<AtomicU64>,
    advance: Advance,
}

/// The way to the hub.
#[derive(Clone)]
pub struct HubHandle {
    commands: mpsc::Sender<Command>,
    ready: watch::Receiver<bool>,
    wanted_keys: watch::Receiver<Wanted>,
}

impl HubHandle {
    /// Sends a command and waits for its answer; none when the hub is gone.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Sends a command that has no answer.
    pub async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the hub is gone");
        }
    }

    /// Sends a command that has no answer, from where nothing can be awaited; a full queue loses it.
    pub fn try_tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::debug!("the hub is busy or gone");
        }
    }

    /// The key sets of token issuers that the mesh rests on.
    pub fn wanted_keys(&self) -> watch::Receiver<Wanted> {
        self.wanted_keys.clone()
    }

    /// Whether every object that existed at the start has been taken in (PI-4), and every key set that they want was
    /// fetched or could not be: a proxy that connects must not lose the keys that it has.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }
}

/// The owner of store, mesh, cache and members.
pub struct Hub {
    intake: Intake,
    classes: Classes,
    members: HashMap<u64, Member>,
    next_member: u64,
    debounce: Debounce,
    pending: Vec<Event>,
    metrics: Metrics,
    synced: bool,
    ready: watch::Sender<bool>,
    wanted_keys: watch::Sender<Wanted>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Vec<Event>>,
}

impl Hub {
    /// A hub that nothing has been told yet, and the way to it.
    pub fn new(
        config: MeshConfig,
        delays: Delays,
        metrics: Metrics,
        events: mpsc::Receiver<Vec<Event>>,
    ) -> (Self, HubHandle) {
        let (commands, received) = mpsc::channel(QUEUE);
        let (ready, is_ready) = watch::channel(false);
        let (wanted_keys, keys) = watch::channel(Wanted::new());
        let hub = Self {
            intake: Intake::new(Mesh::empty(config)),
            classes: Classes::default(),
            members: HashMap::new(),
            next_member: 1,
            debounce: Debounce::new(delays),
            pending: Vec::new(),
            metrics,
            synced: false,
            ready,
            wanted_keys,
            commands: received,
            events,
        };
        (hub, HubHandle { commands, ready: is_ready, wanted_keys: keys })
    }

    /// Works until all handles and the source are gone.
    pub async fn run(mut self) {
        let mut sources = true;
        loop {
            let due = [self.debounce.due(), self.intake.due()].into_iter().flatten().min();
            tokio::select! {
                events = self.events.recv(), if sources => match events {
                    Some(events) => self.take(events),
                    None => sources = false,
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                () = until(due), if due.is_some() => self.push(),
            }
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        events.iter().for_each(|event| self.metrics.count_event(event));
        self.debounce.handle_event(Instant::now());
        self.pending.extend(events);
    }

    fn push(&mut self) {
        let began = Instant::now();
        if let Some(first) = self.debounce.clear() {
            self.metrics.debounce_time.observe(began.saturating_duration_since(first).as_secs_f64());
        }
        let events = std::mem::take(&mut self.pending);
        let was_synced = self.synced;
        self.synced |= events.iter().any(|event| matches!(event, Event::Synced));
        let made = self.classes.made();
        // Until all is there that there was, nobody follows whom.
        let change = if was_synced { self.intake.apply_at(events, began) } else { self.intake.apply(events) };
        self.metrics.context_init.observe(began.elapsed().as_secs_f64());
        self.publish(&change);
        let wanted = self.intake.mesh.wanted_keys();
        let all_tried = wanted.keys().all(|source| self.intake.mesh.key_sets.contains_key(source));
        self.wanted_keys.send_if_modified(|told| {
            let differs = *told != wanted;
            *told = wanted;
            differs
        });
        if self.synced && all_tried && !*self.ready.borrow() {
            tracing::info!(objects = self.intake.store.len(), "synced");
            self.ready.send_replace(true);
        }
        let fresh = self.classes.made() - made;
        self.metrics.resources_made.inc_by(fresh);
        self.metrics.convergence.observe(began.elapsed().as_secs_f64());
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.rejected_configs.set(count(self.intake.refused()));
        self.metrics.services.set(count(self.intake.mesh.services.len()));
        self.metrics.virtual_services.set(count(self.intake.mesh.virtual_services.len()));
        self.metrics.duplicate_hosts.set(count(duplicate_hosts(&self.intake.mesh)));
        let deserted = self.intake.mesh.endpoints.values().filter(|set| set.endpoints.is_empty()).count();
        self.metrics.no_instances.set(count(deserted));
        self.metrics.cached.set(count(self.classes.cached()));
        if !change.is_empty() {
            tracing::debug!(full = change.full, rules = change.virtual_services, endpoints = change.endpoints.len(), made = fresh, took = ?began.elapsed(), "pushed");
        }
    }

    fn publish(&mut self, change: &Change) {
        if change.is_empty() {
            return;
        }
        let mesh = &self.intake.mesh;
        // A node whose facts have changed moves to another class; endpoints alone rarely do that.
        let moves =
            |node: &Node| change.full || node.addresses.iter().any(|address| change.addresses.contains(address));
        for member in self.members.values_mut().filter(|member| moves(&member.node)) {
            member.class = self.classes.enter(Class::of(&member.node, mesh));
        }
        let alive: HashSet<ClassId> = self.members.values().map(|member| member.class).collect();
        self.classes.update(change, mesh, &alive);
        for member in self.members.values() {
            let snapshot = self.classes.snapshot(member.class, mesh);
            member.snapshots.send_if_modified(|held| {
                let differs = held.number != snapshot.number;
                if differs {
                    *held = snapshot;
                }
                differs
            });
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Connect(node, answer) => self.connect(*node, answer),
            Command::Disconnect(id) => {
                self.members.remove(&id);
                self.metrics.connected.set(i64::try_from(self.members.len()).unwrap_or(i64::MAX));
            }
            Command::Peers(answer) => reply(answer, self.members.values().map(peer).collect()),
            Command::Status(answer) => reply(answer, self.status()),
            Command::Standings(answer) => reply(answer, self.standings()),
            Command::World(answer) => {
                let objects = self.intake.store.iter().cloned().collect();
                reply(answer, World { mesh: self.intake.mesh.clone(), objects });
            }
            Command::Look(namespace, answer) => {
                let key = Key { kind: Kind::Namespace, namespace: Arc::from(""), name: namespace };
                let namespace = self.intake.store.get(&key).cloned();
                reply(answer, Known { config: self.intake.mesh.config.clone(), namespace });
            }
        }
    }

    fn connect(&mut self, node: Node, answer: oneshot::Sender<Connection>) {
        self.metrics.triggers.with_label_values(&["proxy"]).inc();
        let class = self.classes.enter(Class::of(&node, &self.intake.mesh));
        let made = self.classes.made();
        let snapshot = self.classes.snapshot(class, &self.intake.mesh);
        self.metrics.resources_made.inc_by(self.classes.made() - made);
        self.metrics.cached.set(i64::try_from(self.classes.cached()).unwrap_or(i64::MAX));
        let (snapshots, receiver) = watch::channel(snapshot);
        let (progress, reported) = watch::channel(BTreeMap::new());
        let id = self.next_member;
        self.next_member += 1;
        let offered = Arc::new(AtomicU64::new(0));
        let advance = Advance { node: node.id.clone(), published: 0, settled: 0, refusal: None };
        let member = Member {
            node: Arc::new(node),
            class,
            since: std::time::SystemTime::now(),
            progress: reported,
            snapshots,
            offered: offered.clone(),
            advance,
        };
        self.members.insert(id, member);
        self.metrics.connected.set(i64::try_from(self.members.len()).unwrap_or(i64::MAX));
        reply(answer, Connection { id, snapshots: receiver, progress, offered });
    }

    fn standings(&mut self) -> Vec<Standing> {
        for member in self.members.values_mut() {
            let (published, offered) = (member.snapshots.borrow().number, member.offered.load(Ordering::Relaxed));
            member.advance.observe(published, offered, &member.progress.borrow());
        }
        let mut standings = self.intake.standings();
        for standing in &mut standings {
            standing.reach = Reach::of(standing.since, self.members.values().map(|member| &member.advance));
        }
        standings
    }

    fn status(&self) -> Status {
        Status {
            synced: *self.ready.borrow(),
            problems: self.intake.problems().cloned().collect(),
            objects: self.intake.store.len(),
            classes: self.classes.len(),
            cached_resources: self.classes.cached(),
            made_resources: self.classes.made(),
        }
    }
}

fn peer(member: &Member) -> Peer {
    Peer {
        node: member.node.clone(),
        since: member.since,
        progress: member.progress.borrow().clone(),
        snapshot: member.snapshots.borrow().clone(),
    }
}

fn reply<T>(answer: oneshot::Sender<T>, value: T) {
    if answer.send(value).is_err() {
        tracing::trace!("who asked is gone");
    }
}

/// Hosts of sidecars for whose requests more than one rule has routes: the oldest alone is used (VSM-1, GEN-11).
pub(super) fn duplicate_hosts(mesh: &Mesh) -> usize {
    let mut seen: HashSet<&str> = HashSet::new();
    let bound = mesh.virtual_services.iter().filter(|rule| rule.routes_requests_of_sidecars());
    bound.flat_map(|rule| &rule.hosts).filter(|host| !seen.insert(host)).count()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
