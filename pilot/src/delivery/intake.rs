//! Admission of objects: what is broken is refused and its last good version stays; what dangles waits.

use super::grace::{self, Grace};
use super::selection::Selection;
use super::standing::{Reach, Standing};
use crate::model::mesh::{self, Change};
use crate::model::{Mesh, MeshConfig, references, request_authn, virtual_service};
use crate::registry::allocate;
use crate::source::kinds::{self, Row};
use crate::source::{Event, Key, Kind, Object, Problem, Spec, Store};
use crate::translate::snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The store and the mesh that rests on it.
pub struct Intake {
    /// The last good version of every object.
    pub store: Store,
    /// The mesh.
    pub mesh: Mesh,
    /// Versions of rules that wait for what they refer to.
    held: BTreeMap<Key, Arc<Object>>,
    /// What waits for another object to follow.
    grace: Grace,
    /// What time it is; none where nothing waits.
    now: Option<Instant>,
    /// What is wrong with objects of which an older version is in force, or none.
    refused: BTreeMap<Key, Vec<Problem>>,
    /// Rules in force that lead nowhere.
    dangling: BTreeMap<Key, Vec<Problem>>,
    /// Rules in force of which a part has no effect.
    idle: BTreeMap<Key, Vec<Problem>>,
    /// What the source itself found.
    source: Arc<[Problem]>,
    /// Which namespaces count.
    selection: Selection,
    /// Of the mesh's own kinds: the newest version that was seen, and since which snapshot one is in force.
    seen: BTreeMap<Key, Seen>,
}

/// What is known of the newest version of an object.
#[derive(Debug, Clone, Default)]
struct Seen {
    generation: Option<i64>,
    created: Option<String>,
    /// The least number of a snapshot that rests on it.
    since: u64,
}

impl Intake {
    /// No objects yet.
    pub fn new(mesh: Mesh) -> Self {
        let mut selection = Selection::default();
        selection.handle_selectors(&mesh.config.discovery_selectors);
        Self {
            selection,
            store: Store::default(),
            mesh,
            held: BTreeMap::new(),
            grace: Grace::default(),
            now: None,
            refused: BTreeMap::new(),
            dangling: BTreeMap::new(),
            idle: BTreeMap::new(),
            source: Arc::new([]),
            seen: BTreeMap::new(),
        }
    }

    /// Everything that is wrong now.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let noted = self.dangling.values().chain(self.idle.values()).flatten();
        self.source.iter().chain(self.refused.values().flatten()).chain(noted)
    }

    /// How many objects are refused now.
    pub fn refused(&self) -> usize {
        self.refused.len() + self.source.len()
    }

    /// How every object of the mesh's own kinds stands, but for the proxies.
    pub fn standings(&self) -> Vec<Standing> {
        let of_source = self.source.iter().filter_map(|problem| problem.object.as_ref());
        let of_mesh = |key: &&Key| kinds::row(key.kind).is_some_and(Row::is_custom);
        let keys: BTreeSet<&Key> = self.seen.keys().chain(of_source).filter(of_mesh).collect();
        keys.into_iter().map(|key| self.standing(key)).collect()
    }

    fn standing(&self, key: &Key) -> Standing {
        let of_source = self.source.iter().filter(|problem| problem.object.as_ref() == Some(key));
        let refused: Vec<Problem> = of_source.chain(self.refused.get(key).into_iter().flatten()).cloned().collect();
        let seen = self.seen.get(key).cloned().unwrap_or_default();
        Standing {
            in_force: self.store.get(key).is_some(),
            dangling: [&self.dangling, &self.idle]
                .into_iter()
                .filter_map(|of| of.get(key))
                .flatten()
                .cloned()
                .collect(),
            // What does not parse has not been seen, and its generation is not known.
            generation: seen.generation.filter(|_| !self.source.iter().any(|p| p.object.as_ref() == Some(key))),
            created: seen.created,
            since: seen.since,
            addresses: allocate::chosen(self.mesh.services.iter().map(|service| &**service), key),
            refused,
            key: key.clone(),
            reach: Reach::default(),
        }
    }

    /// As [`Self::apply`], but objects that belong together may come one after the other.
    pub fn apply_at(&mut self, events: Vec<Event>, now: Instant) -> Change {
        self.now = Some(now);
        let change = self.apply(events);
        self.now = None;
        change
    }

    /// When to call [`Self::apply_at`] again though nothing has happened.
    pub fn due(&self) -> Option<Instant> {
        self.grace.due()
    }

    /// Takes events in and rebuilds what rests on them.
    pub fn apply(&mut self, events: Vec<Event>) -> Change {
        let mut changed: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        let mut anew = false;
        for event in events {
            let Some(event) = self.kept_back(event) else { continue };
            match event {
                Event::Upsert(object) => {
                    let reselect = self.selection.handle_upsert(&object);
                    self.upsert(object, &mut changed);
                    if reselect {
                        self.reselect(&mut changed);
                    }
                }
                Event::Delete(key) => {
                    let reselect = self.selection.handle_delete(&key);
                    self.selection.forget(&key);
                    self.forget(&key, &mut changed);
                    if reselect {
                        self.reselect(&mut changed);
                    }
                }
                Event::Mesh(written) => {
                    let own = &self.mesh.config;
                    let mut config = MeshConfig::new((*written).clone(), &own.domain, &own.cluster);
                    config.istio_defaults = own.istio_defaults;
                    config.ip_autoallocate = own.ip_autoallocate;
                    config.sampling = own.sampling;
                    if self.selection.handle_selectors(&config.discovery_selectors) {
                        self.reselect(&mut changed);
                    }
                    self.mesh = Mesh { key_sets: Arc::clone(&self.mesh.key_sets), ..Mesh::empty(config) };
                    // Everything rests on the settings.
                    changed.extend(self.store.iter().map(|object| (object.key.clone(), object.clone())));
                    anew = true;
                }
                Event::KeySets(known) => {
                    self.mesh.key_sets = known;
                    let resting = self.store.of_kind(Kind::RequestAuthentication);
                    changed.extend(resting.map(|object| (object.key.clone(), object.clone())));
                }
                Event::Problems(problems) => self.source = problems,
                Event::Synced => {}
            }
        }
        let of_gateways = self.touches_gateways(&changed);
        let mut change = if changed.is_empty() { Change::default() } else { self.mesh.update(&self.store, &changed) };
        change.merge(self.adopt_rules());
        change.merge(self.let_go());
        if changed.keys().any(|key| key.kind == Kind::RequestAuthentication) {
            self.look_for_keys();
        }
        change.full |= anew;
        if of_gateways {
            self.look_at_gateways();
        }
        if change.full || change.virtual_services {
            self.idle = references::without_effect(&self.store, &self.mesh);
        }
        change
    }

    /// Lets an object go; returns the version that was to be in force, or was.
    fn forget(&mut self, key: &Key, changed: &mut BTreeMap<Key, Arc<Object>>) -> Option<Arc<Object>> {
        let waiting = self.held.remove(key);
        self.grace.end(key);
        self.seen.remove(key);
        self.refused.remove(key);
        self.dangling.remove(key);
        let old = self.store.remove(key);
        if let Some(old) = &old {
            changed.insert(key.clone(), old.clone());
        }
        waiting.or(old)
    }

    /// Looks anew at which objects count.
    fn reselect(&mut self, changed: &mut BTreeMap<Key, Arc<Object>>) {
        let keys = self.store.iter().map(|object| &object.key).chain(self.held.keys());
        let left: BTreeSet<Key> = keys.filter(|key| !self.selection.sees(key)).cloned().collect();
        for key in left {
            if let Some(object) = self.forget(&key, changed) {
                self.selection.hide(object);
            }
        }
        for object in self.selection.shown() {
            self.upsert(object, changed);
        }
    }

    fn upsert(&mut self, object: Arc<Object>, changed: &mut BTreeMap<Key, Arc<Object>>) {
        if !self.selection.sees(&object.key) {
            self.selection.hide(object);
            return;
        }
        let key = object.key.clone();
        if kinds::row(key.kind).is_some_and(Row::is_custom) {
            let seen = self.seen.entry(key.clone()).or_default();
            seen.generation = object.meta.generation;
            seen.created.clone_from(&object.meta.creation_timestamp);
        }
        match mesh::admit(&object, &self.mesh.config) {
            Err(problems) => {
                for problem in &problems {
                    tracing::warn!(class = ?problem.class, "refused: {problem}");
                }
                self.refused.insert(key, problems);
            }
            Ok(()) => {
                self.refused.remove(&key);
                if matches!(object.spec, Spec::VirtualService(_)) {
                    self.held.insert(key, object);
                } else {
                    self.adopt(&object);
                    changed.insert(key, object);
                }
            }
        }
    }

    fn adopt(&mut self, object: &Arc<Object>) {
        self.store.insert(object.clone());
        if let Some(seen) = self.seen.get_mut(&object.key) {
            seen.since = snapshot::upcoming();
        }
    }

    /// Puts waiting rules in force that lead somewhere, or that have no version that does.
    fn adopt_rules(&mut self) -> Change {
        let mut adopted: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        for (key, object) in std::mem::take(&mut self.held) {
            let now = self.dangling_of(&object);
            let stays = !now.is_empty() && self.store.get(&key).is_some_and(|old| self.dangling_of(old).is_empty());
            let is_new = !now.is_empty() && self.store.get(&key).is_none();
            let waits = is_new && self.now.is_some_and(|now| self.grace.holds(&key, now));
            if stays || waits {
                if self.refused.get(&key) != Some(&now) {
                    for problem in &now {
                        tracing::warn!(class = ?problem.class, "waits, and what was before stays: {problem}");
                    }
                }
                self.refused.insert(key.clone(), now);
                self.held.insert(key, object);
                continue;
            }
            self.grace.end(&key);
            self.refused.remove(&key);
            for problem in &now {
                tracing::warn!(class = ?problem.class, "in force, and leads nowhere: {problem}");
            }
            if now.is_empty() {
                self.dangling.remove(&key);
            } else {
                self.dangling.insert(key.clone(), now);
            }
            self.adopt(&object);
            adopted.insert(key, object);
        }
        let change = if adopted.is_empty() { Change::default() } else { self.mesh.update(&self.store, &adopted) };
        // Gateways are looked at when Secrets change.
        let others = self.dangling.keys().filter(|key| key.kind != Kind::Gateway);
        let recheck: Vec<Key> = others.cloned().collect();
        for key in recheck {
            let now = self.store.get(&key).map(|object| self.dangling_of(object)).unwrap_or_default();
            if now.is_empty() {
                self.dangling.remove(&key);
            } else {
                self.dangling.insert(key, now);
            }
        }
        change
    }

    /// The event, unless it takes subsets away: that is looked at once everything else is taken in.
    fn kept_back(&mut self, event: Event) -> Option<Event> {
        let (key, new) = match &event {
            Event::Upsert(object) => (&object.key, Some(&**object)),
            Event::Delete(key) => (key, None),
            _ => return Some(event),
        };
        if self.now.is_none() || key.kind != Kind::DestinationRule {
            return Some(event);
        }
        if grace::lost(self.store.get(key).map(|old| &**old), new).is_empty() {
            self.grace.end(key);
            return Some(event);
        }
        self.grace.keep(key.clone(), event);
        None
    }

    /// Lets subsets go that no rule in force names, or that were kept long enough.
    fn let_go(&mut self) -> Change {
        let mut change = Change::default();
        for (key, event) in self.grace.take() {
            let new = if let Event::Upsert(object) = &event { Some(&**object) } else { None };
            let lost = grace::lost(self.store.get(&key).map(|old| &**old), new);
            let named = self
                .mesh
                .virtual_services
                .iter()
                .flat_map(|rule| rule.destinations())
                .any(|to| lost.contains(&to.subset));
            if named && self.now.is_some_and(|now| self.grace.holds(&key, now)) {
                self.grace.keep(key, event);
                continue;
            }
            self.grace.end(&key);
            let waits = self.now.take();
            change.merge(self.apply(vec![event]));
            self.now = waits;
        }
        change
    }

    /// Notes the RequestAuthentications whose keys cannot be fetched.
    fn look_for_keys(&mut self) {
        let resting: Vec<Arc<Object>> = self.store.of_kind(Kind::RequestAuthentication).cloned().collect();
        for object in resting {
            let now = self.dangling_of(&object);
            if now.is_empty() {
                self.dangling.remove(&object.key);
            } else {
                self.dangling.insert(object.key.clone(), now);
            }
        }
    }

    /// Whether Secrets that a Gateway names may be others than before, or other proxies may serve it.
    fn touches_gateways(&self, changed: &BTreeMap<Key, Arc<Object>>) -> bool {
        let named = || self.mesh.gateways.iter().filter(|gateway| gateway.secrets().next().is_some());
        changed.iter().any(|(key, object)| match key.kind {
            Kind::Gateway | Kind::Secret => true,
            Kind::Pod | Kind::WorkloadEntry => named().any(|gateway| gateway.selects(&object.meta.labels)),
            _ => false,
        })
    }

    /// Says anew which Secrets Gateways lack: they stay in force, with the servers that have theirs.
    fn look_at_gateways(&mut self) {
        self.dangling.retain(|key, _| key.kind != Kind::Gateway);
        for gateway in self.mesh.gateways.iter() {
            let Some(object) = self.store.get(&gateway.key) else { continue };
            let problems = references::secrets(object, gateway, &self.mesh);
            if !problems.is_empty() {
                self.dangling.insert(gateway.key.clone(), problems);
            }
        }
    }

    fn dangling_of(&self, object: &Object) -> Vec<Problem> {
        match &object.spec {
            Spec::VirtualService(spec) => {
                let rule = virtual_service::parse(object, spec, &self.mesh.config);
                rule.map(|rule| references::dangling(object, &rule, &self.mesh)).unwrap_or_default()
            }
            Spec::RequestAuthentication(spec) => request_authn::keyless(object, spec, &self.mesh.key_sets),
            _ => Vec::new(),
        }
    }
}
