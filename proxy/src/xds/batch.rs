//! Changes on their way to the workers: what each response contributed, joined by kind and put in order.

use super::warming::Lingering;
use super::{Kind, Need, Origin, Receipt, Rejection, Update};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Why a batch is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Static resources: a rejection ends the start.
    Bootstrap,
    /// Last good state from disk.
    Restored,
    /// A change from a server or a file.
    Change,
}

/// Changes to apply together, in this order.
#[derive(Debug)]
pub struct Batch {
    /// Why.
    pub cause: Cause,
    /// The changes; a kind may appear twice (clusters are taken away last).
    pub updates: Vec<Update>,
    pub(super) parts: Vec<Part>,
    pub(super) needs: BTreeMap<(Kind, Arc<str>), Vec<Need>>,
}

/// What one response contributed to a batch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) origin: Origin,
    pub(super) receipt: Option<Receipt>,
    pub(super) kind: Kind,
    pub(super) names: Vec<Arc<str>>,
    pub(super) refused: Vec<Rejection>,
}

/// Who sent a change, and which response is to be acknowledged.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) origin: Origin,
    pub(super) receipt: Option<Receipt>,
}

/// A change that has not been handed out yet.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) part: Part,
    pub(super) update: Update,
}

impl Staged {
    pub(super) fn new(sender: Sender, update: Update, refused: Vec<Rejection>) -> Self {
        let Sender { origin, receipt } = sender;
        let names = update.added.iter().map(|resource| resource.name.clone()).collect();
        Self { part: Part { origin, receipt, kind: update.kind, names, refused }, update }
    }
}

/// Joins the changes of each kind, later ones over earlier ones; clusters that go are set aside.
pub(super) fn assemble(cause: Cause, staged: Vec<Staged>, lingering: &mut Lingering, due: Instant) -> Batch {
    let mut updates: Vec<Update> = Vec::new();
    let mut parts = Vec::new();
    for Staged { part, update } in staged {
        parts.push(part);
        match updates.iter_mut().find(|joined| joined.kind == update.kind) {
            Some(joined) => join(joined, update),
            None => updates.push(update),
        }
    }
    updates.sort_by_key(|update| order(update.kind));
    if let Some(clusters) = updates.iter_mut().find(|update| update.kind == Kind::Cluster) {
        clusters.added.iter().for_each(|resource| lingering.keep(&resource.name));
        lingering.add(std::mem::take(&mut clusters.removed), due);
    }
    updates.retain(|update| !update.added.is_empty() || !update.removed.is_empty());
    Batch { cause, updates, parts, needs: BTreeMap::new() }
}

/// What others refer to comes first.
fn order(kind: Kind) -> usize {
    match kind {
        Kind::Secret => 0,
        Kind::Endpoint => 1,
        Kind::Cluster => 2,
        Kind::ExtensionConfig => 3,
        Kind::VirtualHost => 4,
        Kind::Route => 5,
        Kind::Listener => 6,
        Kind::NameTable => 7,
        Kind::ProxyConfig => 8,
    }
}

fn join(joined: &mut Update, later: Update) {
    let added: HashSet<Arc<str>> = later.added.iter().map(|new| new.name.clone()).collect();
    let removed: HashSet<&Arc<str>> = later.removed.iter().collect();
    joined.added.retain(|old| !removed.contains(&old.name) && !added.contains(&old.name));
    joined.removed.retain(|old| !added.contains(old));
    drop(removed);
    joined.added.extend(later.added);
    joined.removed.extend(later.removed);
}
