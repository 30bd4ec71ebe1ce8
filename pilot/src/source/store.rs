//! The last good version of every object, with the indexes that discovery needs.

use super::object::{Key, Kind, Object};
use proto::wire;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// All objects, ordered by namespace and name within a kind.
#[derive(Debug, Clone, Default)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Object>>,
    slices: HashMap<(Arc<str>, Arc<str>), BTreeSet<Key>>,
}

/// Label of slices that a controller of the multi-cluster API has made: what they hold is in other slices too.
const LABEL_DERIVED: &str = "multicluster.kubernetes.io/service-name";

/// The Service that an EndpointSlice belongs to, by its label (PI-15).
pub fn service_of_slice(object: &Object) -> Option<(Arc<str>, Arc<str>)> {
    if object.meta.labels.contains_key(LABEL_DERIVED) {
        return None;
    }
    let service = object.meta.labels.get(wire::LABEL_SERVICE_NAME)?;
    Some((object.key.namespace.clone(), service.as_str().into()))
}

impl Store {
    /// Takes an object in; returns the one that it replaces.
    pub fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let old = self.objects.insert(object.key.clone(), object.clone());
        if object.key.kind == Kind::EndpointSlice {
            if let Some(service) = old.as_deref().and_then(service_of_slice) {
                self.forget_slice(&service, &object.key);
            }
            if let Some(service) = service_of_slice(&object) {
                self.slices.entry(service).or_default().insert(object.key.clone());
            }
        }
        old
    }

    /// Lets an object go; returns it.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        if let Some(service) = (key.kind == Kind::EndpointSlice).then(|| service_of_slice(&old)).flatten() {
            self.forget_slice(&service, key);
        }
        Some(old)
    }

    fn forget_slice(&mut self, service: &(Arc<str>, Arc<str>), key: &Key) {
        if let Some(keys) = self.slices.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    /// The object of a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let from = Key { kind, namespace: "".into(), name: "".into() };
        self.objects.range(from..).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// The objects of a kind in one namespace.
    pub fn in_namespace<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = Key { kind, namespace: namespace.into(), name: "".into() };
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.kind == kind && &*key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The slices of a Service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<Object>> {
        let key = (Arc::from(namespace), Arc::from(service));
        self.slices.get(&key).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}
