//! The last good resource of each kind and name, and what was refused since.

use super::{Kind, Origin, Rejection, Resource, Update};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// An accepted resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Where it came from.
    pub origin: Origin,
    /// When it was accepted.
    pub accepted_at: SystemTime,
}

/// A resource that was refused and has not been replaced by a good one since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was wrong.
    pub rejection: Rejection,
    /// The version that was refused.
    pub version: Arc<str>,
    /// When.
    pub at: SystemTime,
}

/// How often a kind was updated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Responses seen.
    pub attempts: u64,
    /// Responses accepted in full.
    pub successes: u64,
    /// Responses with a refused resource.
    pub rejections: u64,
}

type ByName = BTreeMap<Arc<str>, Arc<Held>>;

/// Everything accepted. Cheap to clone: kinds are shared until one of them changes.
#[derive(Debug, Clone, Default)]
pub struct Store {
    kinds: BTreeMap<Kind, Arc<ByName>>,
    refused: BTreeMap<(Kind, Arc<str>), Arc<Refused>>,
    stats: BTreeMap<Kind, KindStats>,
    /// Whether the stream to the control plane is up.
    pub connected: bool,
    /// Whether what is here comes from disk and has not been confirmed by the control plane yet.
    pub stale: bool,
}

impl Store {
    /// All resources of a kind, by name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Held>> {
        self.kinds.get(&kind).into_iter().flat_map(|held| held.values())
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Held>> {
        self.kinds.get(&kind)?.get(name)
    }

    /// What stands refused.
    pub fn refused(&self) -> impl Iterator<Item = &Arc<Refused>> {
        self.refused.values()
    }

    /// How often a kind was updated.
    pub fn stats(&self, kind: Kind) -> KindStats {
        self.stats.get(&kind).copied().unwrap_or_default()
    }

    /// Takes over an update but for what was refused of it (spec XD-12: there the last good one stays).
    pub(super) fn apply(&mut self, update: &Update, origins: &Origins<'_>, refused: &[Rejection], at: SystemTime) {
        let kind = update.kind;
        let held = Arc::make_mut(self.kinds.entry(kind).or_default());
        for name in &update.removed {
            held.remove(name);
            self.refused.remove(&(kind, name.clone()));
        }
        for resource in &update.added {
            let key = (kind, resource.name.clone());
            match refused.iter().find(|rejection| rejection.kind == kind && rejection.name == resource.name) {
                Some(rejection) => {
                    let version = resource.version.clone();
                    self.refused.insert(key, Arc::new(Refused { rejection: rejection.clone(), version, at }));
                }
                None => {
                    let origin = origins.get(&key).cloned().unwrap_or(Origin::Ads);
                    held.insert(
                        resource.name.clone(),
                        Arc::new(Held { resource: resource.clone(), origin, accepted_at: at }),
                    );
                    self.refused.remove(&key);
                }
            }
        }
    }

    pub(super) fn count(&mut self, kind: Kind, accepted: bool) {
        let stats = self.stats.entry(kind).or_default();
        stats.attempts += 1;
        if accepted {
            stats.successes += 1;
        } else {
            stats.rejections += 1;
        }
    }
}

/// Where each resource of a batch came from.
pub(super) type Origins<'a> = BTreeMap<(Kind, Arc<str>), Origin>;

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, version: &str) -> Arc<Resource> {
        Arc::new(Resource { name: name.into(), version: version.into(), body: Default::default() })
    }

    // spec: XD-12
    #[test]
    fn a_refused_resource_leaves_the_last_good_one() {
        let mut store = Store::default();
        let update = |version: &str| Update {
            kind: Kind::Cluster,
            added: vec![resource("a", version), resource("b", version)],
            removed: Vec::new(),
        };
        store.apply(&update("1"), &Origins::new(), &[], SystemTime::UNIX_EPOCH);
        let before = store.clone();
        let refused = Rejection { kind: Kind::Cluster, name: "a".into(), field: "lb_policy".into(), why: "bad".into() };
        store.apply(&update("2"), &Origins::new(), &[refused], SystemTime::UNIX_EPOCH);
        let version = |store: &Store, name: &str| store.get(Kind::Cluster, name).unwrap().resource.version.to_string();
        assert_eq!((version(&store, "a"), version(&store, "b")), ("1".into(), "2".into()));
        assert_eq!(store.refused().map(|refused| refused.version.to_string()).collect::<Vec<_>>(), ["2"]);
        assert_eq!(version(&before, "b"), "1", "a snapshot does not change");
        store.apply(&update("3"), &Origins::new(), &[], SystemTime::UNIX_EPOCH);
        assert_eq!(store.refused().count(), 0);
    }
}
