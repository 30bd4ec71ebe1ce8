//! Everything that one class of nodes is told at one moment.

use super::cache::{Cache, Encoded, ResourceType};
use super::class::Class;
use super::class_inputs::ClassInputs;
use super::node::Flavor;
use crate::model::{Mesh, Scope};
use crate::registry::ServiceKey;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Resources of one type, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    list: Arc<Vec<Arc<Encoded>>>,
}

impl Resources {
    fn new(mut list: Vec<Arc<Encoded>>) -> Self {
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list.dedup_by(|a, b| a.name == b.name);
        Self { list: Arc::new(list) }
    }

    /// The resource of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Encoded>> {
        self.list.binary_search_by(|resource| (*resource.name).cmp(name)).ok().and_then(|at| self.list.get(at))
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Encoded>> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Puts resources in the place of those with the same name.
    fn replace(&self, fresh: Vec<Arc<Encoded>>) -> Self {
        let mut list = (*self.list).clone();
        for resource in fresh {
            match list.binary_search_by(|known| known.name.cmp(&resource.name)) {
                Ok(at) => list[at] = resource,
                Err(at) => list.insert(at, resource),
            }
        }
        Self { list: Arc::new(list) }
    }

    /// Names whose resource differs between the two, or is in one alone.
    pub fn differences(&self, other: &Self) -> Vec<Arc<str>> {
        let mut out = Vec::new();
        if Arc::ptr_eq(&self.list, &other.list) {
            return out;
        }
        let (mut a, mut b) = (self.list.iter().peekable(), other.list.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (None, None) => return out,
                (Some(x), Some(y)) if x.name == y.name => {
                    if !Arc::ptr_eq(x, y) && x.version != y.version {
                        out.push(x.name.clone());
                    }
                    a.next();
                    b.next();
                }
                (Some(x), y) if y.is_none_or(|y| x.name < y.name) => {
                    out.push(x.name.clone());
                    a.next();
                }
                (_, Some(y)) => {
                    out.push(y.name.clone());
                    b.next();
                }
                (Some(_), None) => unreachable!("the arm before takes every name without a partner"),
            }
        }
    }
}

/// Names that differ from the snapshot before, per type.
#[derive(Debug, Clone, Default)]
pub struct Difference {
    /// Number of the snapshot before.
    pub from: u64,
    /// Names per type, in the order of [`ResourceType::ALL`].
    pub names: [Arc<[Arc<str>]>; 6],
}

/// Everything that one class of nodes is told.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Number of this snapshot, unique in this process; 0 for the empty one.
    pub number: u64,
    /// Resources per type, in the order of [`ResourceType::ALL`].
    resources: [Resources; 6],
    /// What differs from the one before, where there was one.
    pub difference: Option<Difference>,
}

/// Written by whoever makes a snapshot: the owner of the mesh.
static NEXT: AtomicU64 = AtomicU64::new(1);

fn next_number() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The least number that a snapshot made from now on has.
pub fn upcoming() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

impl Snapshot {
    /// Resources of a type.
    pub fn of(&self, kind: ResourceType) -> &Resources {
        &self.resources[kind as usize]
    }

    /// A snapshot of these resources.
    pub fn of_resources(resources: impl Iterator<Item = (ResourceType, Arc<Encoded>)>) -> Self {
        let mut lists: [Vec<Arc<Encoded>>; 6] = Default::default();
        for (kind, resource) in resources {
            lists[kind as usize].push(resource);
        }
        Self { number: next_number(), resources: lists.map(Resources::new), difference: None }
    }

    /// Everything for a class.
    pub fn build(class: &Class, mesh: &Mesh, scope: &Scope, cache: &mut Cache) -> Self {
        let mut inputs = ClassInputs { class, mesh, scope, cache };
        let endpoints = inputs.endpoints(None);
        let clusters = if class.flavor == Flavor::Grpc { inputs.grpc_clusters() } else { inputs.clusters() };
        let (listeners, routes) = inputs.listeners_and_routes();
        // In the order of `ResourceType::ALL`.
        let resources = [clusters, endpoints, listeners, routes, inputs.secrets(), vec![inputs.name_table()]];
        Self { number: next_number(), resources: resources.map(Resources::new), difference: None }
    }

    /// The fast path: only the endpoints of some services have changed (PI-35).
    pub fn with_endpoints(
        &self,
        class: &Class,
        mesh: &Mesh,
        scope: &Scope,
        (services, cache): (&HashSet<ServiceKey>, &mut Cache),
    ) -> Self {
        let fresh = ClassInputs { class, mesh, scope, cache }.endpoints(Some(services));
        let mut next = self.clone();
        let slot = &mut next.resources[ResourceType::Endpoints as usize];
        *slot = slot.replace(fresh);
        next.number = next_number();
        next.difference = None;
        next
    }

    /// The path of rules: only VirtualServices have changed, and the class sees the same services as before.
    pub fn with_rules(&self, class: &Class, mesh: &Mesh, scope: &Scope, cache: &mut Cache) -> Self {
        let (listeners, routes) = ClassInputs { class, mesh, scope, cache }.listeners_and_routes();
        let mut next = self.clone();
        next.resources[ResourceType::Listener as usize] = Resources::new(listeners);
        next.resources[ResourceType::Route as usize] = Resources::new(routes);
        next.number = next_number();
        next.difference = None;
        next
    }

    /// The path of secrets: nothing rests on them but what is told of them.
    pub fn with_secrets(&self, class: &Class, mesh: &Mesh, scope: &Scope, cache: &mut Cache) -> Self {
        let secrets = ClassInputs { class, mesh, scope, cache }.secrets();
        let mut next = self.clone();
        next.resources[ResourceType::Secret as usize] = Resources::new(secrets);
        next.number = next_number();
        next.difference = None;
        next
    }

    /// This snapshot with what differs from `before` worked out once for all nodes of the class.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        let names = ResourceType::ALL.map(|kind| Arc::from(before.of(kind).differences(self.of(kind))));
        self.difference = Some(Difference { from: before.number, names });
        self
    }

    /// Whether it says the same as the one before it.
    pub fn is_same(&self) -> bool {
        self.difference.as_ref().is_some_and(|difference| difference.names.iter().all(|names| names.is_empty()))
    }
}
