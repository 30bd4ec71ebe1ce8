//! Snapshots of classes: what a change affects is made anew, the rest stays (PI-35, PI-37).

use crate::model::mesh::Change;
use crate::model::{Mesh, Scope, scope};
use crate::translate::cache::Cache;
use crate::translate::node::Role;
use crate::translate::{Class, Snapshot};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Whose scope it is: role, namespace, and the revision of the Sidecar.
type ScopeKey = (Role, String, Option<u64>);

/// A class that has nodes; nodes of one class have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassId(u64);

struct Told {
    class: Arc<Class>,
    /// None until a node of the class is told something.
    snapshot: Option<Arc<Snapshot>>,
}

/// The snapshot of every class that has nodes.
#[derive(Default)]
pub struct Classes {
    ids: HashMap<Arc<Class>, ClassId>,
    told: HashMap<ClassId, Told, RandomState>,
    next: u64,
    scopes: HashMap<ScopeKey, Arc<Scope>>,
    cache: Cache,
}

impl Classes {
    /// How many resources have been made so far.
    pub fn made(&self) -> u64 {
        self.cache.made()
    }

    /// How many resources are held.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    fn scope(&mut self, class: &Class, mesh: &Mesh) -> (ScopeKey, Arc<Scope>) {
        let sidecar = match class.role {
            Role::Sidecar => scope::choose(mesh, &class.namespace, &class.place.labels),
            Role::Router => None,
        };
        let key = (class.role, class.namespace.clone(), sidecar.map(crate::model::Shared::revision));
        let build = || match class.role {
            Role::Sidecar => scope::build(mesh, &class.namespace, sidecar),
            Role::Router => scope::of_gateway(mesh, &class.namespace),
        };
        let scope = self.scopes.entry(key.clone()).or_insert_with(|| Arc::new(build())).clone();
        (key, scope)
    }

    /// The class under its number.
    pub fn enter(&mut self, class: Class) -> ClassId {
        if let Some(id) = self.ids.get(&class) {
            return *id;
        }
        let (id, class) = (ClassId(self.next), Arc::new(class));
        self.next += 1;
        self.ids.insert(class.clone(), id);
        self.told.insert(id, Told { class, snapshot: None });
        id
    }

    /// The snapshot of a class; of one that was forgotten it says nothing.
    pub fn snapshot(&mut self, id: ClassId, mesh: &Mesh) -> Arc<Snapshot> {
        let Some(told) = self.told.get(&id) else { return Arc::default() };
        if let Some(snapshot) = &told.snapshot {
            return snapshot.clone();
        }
        let class = told.class.clone();
        let (_, scope) = self.scope(&class, mesh);
        let snapshot = Arc::new(Snapshot::build(&class, mesh, &scope, &mut self.cache));
        self.told.insert(id, Told { class, snapshot: Some(snapshot.clone()) });
        snapshot
    }

    /// Makes anew what a change affects; classes without nodes are forgotten. A class whose snapshot says the same as
    /// before keeps it, and so its nodes are not even woken.
    pub fn update(&mut self, change: &Change, mesh: &Mesh, alive: &HashSet<ClassId>) {
        self.told.retain(|id, _| alive.contains(id));
        self.ids.retain(|_, id| alive.contains(id));
        if change.is_empty() {
            return;
        }
        let anew = change.full || change.virtual_services;
        let scopes = if anew { std::mem::take(&mut self.scopes) } else { HashMap::default() };
        let before = |(id, told): (&ClassId, &Told)| Some((*id, told.class.clone(), told.snapshot.clone()?));
        let classes: Vec<(ClassId, Arc<Class>, Arc<Snapshot>)> = self.told.iter().filter_map(before).collect();
        for (id, class, before) in classes {
            let (key, scope) = self.scope(&class, mesh);
            let same_services = || scopes.get(&key).is_some_and(|old| old.sees_the_same_as(&scope));
            let mut next = if change.full || (change.virtual_services && !same_services()) {
                Snapshot::build(&class, mesh, &scope, &mut self.cache)
            } else if change.virtual_services {
                before.with_rules(&class, mesh, &scope, &mut self.cache)
            } else {
                (*before).clone()
            };
            if !change.full && change.secrets {
                next = next.with_secrets(&class, mesh, &scope, &mut self.cache);
            }
            if !change.full && !change.endpoints.is_empty() {
                next = next.with_endpoints(&class, mesh, &scope, (&change.endpoints, &mut self.cache));
            }
            let next = next.after(&before);
            if !next.is_same() {
                self.told.insert(id, Told { class, snapshot: Some(Arc::new(next)) });
            }
        }
        self.cache.sweep();
    }
}
