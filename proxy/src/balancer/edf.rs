//! Earliest deadline first: weighted turns where weights differ (LB-1, LB-2).

use crate::endpoint::Endpoint;
use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug, PartialEq)]
struct Entry {
    deadline: f64,
    /// Ties go to the entry that waits longer.
    order: u64,
    index: usize,
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Order {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

/// A schedule over the endpoints of one priority.
#[derive(Debug)]
pub(super) struct Schedule {
    heap: BinaryHeap<Entry>,
    now: f64,
    order: u64,
}

impl Schedule {
    /// `None` where all weights are equal: then plain turns do.
    pub(super) fn for_unequal(hosts: &[Arc<Endpoint>]) -> Option<Self> {
        let first = hosts.first()?.weight;
        if hosts.iter().all(|h| h.weight == first) {
            return None;
        }
        let heap = hosts.iter().enumerate().map(|(index, host)| Entry {
            deadline: 1.0 / f64::from(host.weight.max(1)),
            order: index as u64,
            index,
        });
        Some(Self { heap: heap.collect(), now: 0.0, order: hosts.len() as u64 })
    }

    /// The next endpoint; `by_load` divides the weight by the requests in flight plus one.
    pub(super) fn next<'a>(&mut self, hosts: &'a [Arc<Endpoint>], by_load: bool) -> Option<&'a Arc<Endpoint>> {
        let entry = self.heap.pop()?;
        self.now = entry.deadline;
        let host = hosts.get(entry.index)?;
        let load = if by_load { host.shared.active.load(Ordering::Relaxed) } else { 0 };
        let weight = f64::from(host.weight.max(1)) / (f64::from(load) + 1.0);
        self.order += 1;
        self.heap.push(Entry { deadline: self.now + 1.0 / weight, order: self.order, index: entry.index });
        Some(host)
    }
}
