//! Make before break between objects (D10): who applies or deletes two objects one after the other, in whichever order,
//! breaks nothing in between. For a while a new rule waits for what it refers to, and a subset stays that a rule names.
//! Then what was written holds as it is (VS-16).

use crate::source::{Event, Key, Object, Spec};
use proto::istio::destination_rule::Subset;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long one object waits for another.
pub const GRACE: Duration = Duration::from_secs(10);

/// What waits, and since when.
#[derive(Debug, Default)]
pub struct Grace {
    since: BTreeMap<Key, Instant>,
    /// DestinationRules that lose subsets.
    leaving: BTreeMap<Key, Event>,
}

impl Grace {
    /// Whether an object may wait still; it begins to wait where it did not.
    pub fn holds(&mut self, key: &Key, now: Instant) -> bool {
        now < *self.since.entry(key.clone()).or_insert(now) + GRACE
    }

    /// It waits no longer.
    pub fn end(&mut self, key: &Key) {
        self.since.remove(key);
        self.leaving.remove(key);
    }

    /// Keeps a change of a DestinationRule back.
    pub fn keep(&mut self, key: Key, event: Event) {
        self.leaving.insert(key, event);
    }

    /// The changes that are kept back, to be looked at anew.
    pub fn take(&mut self) -> BTreeMap<Key, Event> {
        std::mem::take(&mut self.leaving)
    }

    /// When the first of those that wait has waited enough.
    pub fn due(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + GRACE)
    }
}

/// Names of the subsets that a DestinationRule has now and will not have.
pub fn lost(old: Option<&Object>, new: Option<&Object>) -> BTreeSet<String> {
    let names = |object: Option<&Object>| match object.map(|object| &object.spec) {
        Some(Spec::DestinationRule(spec)) => spec.subsets.iter().map(|Subset { name, .. }| name.clone()).collect(),
        _ => BTreeSet::new(),
    };
    &names(old) - &names(new)
}
