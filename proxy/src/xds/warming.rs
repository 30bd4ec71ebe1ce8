//! Make before break, sans-IO: clusters wait for their endpoints and secrets, listeners for their routes and secrets,
//! but never for ever (spec XD-10, XM-1, XM-2).

use super::batch::Staged;
use super::{Kind, Need};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changes of clusters, or of listeners, that wait for what they need.
#[derive(Debug)]
pub(super) struct Gate {
    patience: Duration,
    staged: Vec<Staged>,
    needs: BTreeMap<Arc<str>, Vec<Need>>,
    deadline: Option<Instant>,
}

impl Gate {
    /// An empty gate that opens after `patience` at the latest.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, staged: Vec::new(), needs: BTreeMap::new(), deadline: None }
    }

    /// Adds a change and what each of its resources needs. The time runs from the first change that waits.
    pub(super) fn stage(&mut self, staged: Staged, needs: Vec<(Arc<str>, Vec<Need>)>, now: Instant) {
        self.needs.extend(needs);
        self.staged.push(staged);
        self.deadline.get_or_insert(now + self.patience);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// What the waiting resources need.
    pub(super) fn needs(&self) -> impl Iterator<Item = &Need> {
        self.needs.values().flatten()
    }

    /// When the gate opens whatever is missing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes what waited, once all of its needs are there or the time is up.
    pub(super) fn take(&mut self, now: Instant, is_there: impl Fn(&Need) -> bool) -> Option<Opened> {
        if self.staged.is_empty() {
            return None;
        }
        let missing: BTreeSet<Need> = self.needs().filter(|need| !is_there(need)).cloned().collect();
        let late = self.deadline.is_some_and(|deadline| now >= deadline);
        if !missing.is_empty() && !late {
            return None;
        }
        for need in &missing {
            tracing::warn!(
                kind = need.kind.short_name(),
                name = &*need.name,
                "going on without a resource that did not arrive"
            );
        }
        self.deadline = None;
        Some(Opened { staged: std::mem::take(&mut self.staged), needs: std::mem::take(&mut self.needs) })
    }
}

/// What came out of a gate.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) staged: Vec<Staged>,
    pub(super) needs: BTreeMap<Arc<str>, Vec<Need>>,
}

/// Clusters that the control plane took away: they stay until the routes that came after them are in use.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    names: BTreeMap<Arc<str>, Instant>,
}

impl Lingering {
    /// Takes these names away later.
    pub(super) fn add(&mut self, names: impl IntoIterator<Item = Arc<str>>, due: Instant) {
        for name in names {
            self.names.entry(name).or_insert(due);
        }
    }

    /// A cluster of this name is back.
    pub(super) fn keep(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// The names to take away now: those whose time has come, or all once routes or listeners have changed.
    pub(super) fn take(&mut self, now: Instant, routes_changed: bool) -> Vec<Arc<str>> {
        let due = |at: &Instant| routes_changed || now >= *at;
        let gone: Vec<Arc<str>> = self.names.iter().filter(|(_, at)| due(at)).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.names.remove(name);
        }
        gone
    }

    /// When the next name is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.names.values().min().copied()
    }
}

/// Whether resources of a kind are used only through others, and so may be taken over at any time.
pub(super) fn is_leaf(kind: Kind) -> bool {
    matches!(kind, Kind::Endpoint | Kind::Secret | Kind::ExtensionConfig | Kind::NameTable | Kind::ProxyConfig)
}
