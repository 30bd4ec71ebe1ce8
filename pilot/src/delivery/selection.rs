//! Which namespaces count: those that a discovery selector matches (GEN-8, PI-24). No I/O.

use crate::source::{Key, Kind, Object};
use proto::istio::meta::LabelSelector;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The selectors, the labels of all namespaces, and the objects that wait in those that do not count.
#[derive(Default)]
pub struct Selection {
    selectors: Vec<LabelSelector>,
    namespaces: BTreeMap<Arc<str>, BTreeMap<String, String>>,
    hidden: BTreeMap<Key, Arc<Object>>,
}

impl Selection {
    /// Whether objects of a key count: without selectors all do, and what is in no namespace always does.
    pub fn sees(&self, key: &Key) -> bool {
        self.selectors.is_empty() || key.namespace.is_empty() || self.counts(&key.namespace)
    }

    fn counts(&self, namespace: &str) -> bool {
        let labels = self.namespaces.get(namespace);
        labels.is_some_and(|labels| self.selectors.iter().any(|selector| selector.matches(labels)))
    }

    /// Keeps an object until its namespace counts.
    pub fn hide(&mut self, object: Arc<Object>) {
        self.hidden.insert(object.key.clone(), object);
    }

    /// Forgets an object that waits.
    pub fn forget(&mut self, key: &Key) {
        self.hidden.remove(key);
    }

    /// The objects that waited and count now.
    pub fn shown(&mut self) -> Vec<Arc<Object>> {
        let (shown, hidden) = std::mem::take(&mut self.hidden).into_iter().partition(|(key, _)| self.sees(key));
        self.hidden = hidden;
        BTreeMap::into_values(shown).collect()
    }

    /// Takes in an object if it is a namespace; says whether what is seen may have changed.
    pub fn handle_upsert(&mut self, object: &Object) -> bool {
        if object.key.kind != Kind::Namespace {
            return false;
        }
        let name = &object.key.name;
        let before = self.counts(name);
        self.namespaces.insert(name.clone(), object.meta.labels.clone());
        before != self.counts(name)
    }

    /// Takes in that an object is gone; says whether what is seen may have changed.
    pub fn handle_delete(&mut self, key: &Key) -> bool {
        key.kind == Kind::Namespace && self.counts(&key.name) && self.namespaces.remove(&key.name).is_some()
    }

    /// Takes in the selectors of new settings; says whether what is seen may have changed.
    pub fn handle_selectors(&mut self, selectors: &[LabelSelector]) -> bool {
        let differ = self.selectors != selectors;
        if differ {
            self.selectors = selectors.to_vec();
        }
        differ
    }
}
