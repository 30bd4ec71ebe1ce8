//! Which endpoints may be used now, and how load spreads over priorities (LB-7, LB-8).

use super::Wish;
use crate::endpoint::{Endpoint, Health, HostSet};
use crate::env::Env;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The usable endpoints of one priority.
#[derive(Debug, Default)]
pub(super) struct Usable {
    pub(super) hosts: Vec<Arc<Endpoint>>,
    /// Share of the load in percent.
    load: u32,
}

/// The usable endpoints of all priorities.
#[derive(Debug, Default)]
pub(super) struct Eligible {
    pub(super) priorities: Vec<Usable>,
}

impl Eligible {
    pub(super) fn of(hosts: &HostSet, panic_percent: u32, now_ms: u64) -> Self {
        let factor = if hosts.overprovisioning_percent == 0 { 140 } else { hosts.overprovisioning_percent };
        let sorted: Vec<_> = hosts.priorities.iter().map(|p| Sorted::of(&p.all, now_ms)).collect();
        let availability: Vec<u32> = sorted.iter().map(|s| s.percent(factor)).collect();
        let total: u32 = availability.iter().sum::<u32>().min(100);
        let mut left = 100_u32;
        let mut priorities = Vec::with_capacity(sorted.len());
        for (mut sorted, available) in sorted.into_iter().zip(availability) {
            let load = (available * 100).checked_div(total).unwrap_or(0).min(left);
            left -= load;
            let panic = total < 100 && sorted.healthy_percent() < panic_percent;
            let hosts = match (panic, sorted.healthy.is_empty()) {
                (true, _) => std::mem::take(&mut sorted.all),
                (false, true) => sorted.degraded,
                (false, false) => sorted.healthy,
            };
            priorities.push(Usable { hosts, load });
        }
        // What rounding left over, or everything where nothing is healthy, goes to the first priority with endpoints.
        if let Some(first) = priorities.iter_mut().find(|p| !p.hosts.is_empty()) {
            first.load += left;
        }
        Self { priorities }
    }

    /// Priorities that a retry leaves; all are open again once each was tried, as in Envoy (XT-9).
    pub(super) fn left(&self, wish: &Wish<'_>) -> SmallVec<[usize; 4]> {
        let mut left = SmallVec::new();
        let Some(every) = wish.leave_priorities_every.and_then(|n| usize::try_from(n).ok()) else { return left };
        let counted = wish.tried.len() - wish.tried.len() % every.max(1);
        let usable = self.priorities.iter().filter(|p| !p.hosts.is_empty()).count();
        for endpoint in wish.tried.iter().take(counted) {
            let holds = |p: &Usable| p.hosts.iter().any(|host| host.address == endpoint.address);
            let Some(index) = self.priorities.iter().position(holds) else { continue };
            if !left.contains(&index) {
                left.push(index);
            }
            if left.len() >= usable {
                left.clear();
            }
        }
        left
    }

    /// Index of the priority that takes the next request, which is none of `left`.
    pub(super) fn priority(&self, env: &Env, left: &[usize]) -> Option<usize> {
        if !left.is_empty() {
            let open = |(index, p): &(usize, &Usable)| !left.contains(index) && !p.hosts.is_empty();
            return self.priorities.iter().enumerate().find(open).map(|(index, _)| index);
        }
        let mut usable = self.priorities.iter().enumerate().filter(|(_, p)| p.load > 0 && !p.hosts.is_empty());
        let (first, priority) = usable.next()?;
        if priority.load >= 100 {
            return Some(first);
        }
        let mut roll = u32::try_from(env.below(100)).unwrap_or(0);
        for (index, priority) in self.priorities.iter().enumerate().filter(|(_, p)| !p.hosts.is_empty()) {
            if roll < priority.load {
                return Some(index);
            }
            roll -= priority.load;
        }
        Some(first)
    }
}

struct Sorted {
    all: Vec<Arc<Endpoint>>,
    healthy: Vec<Arc<Endpoint>>,
    degraded: Vec<Arc<Endpoint>>,
}

impl Sorted {
    fn of(all: &[Arc<Endpoint>], now_ms: u64) -> Self {
        let ok = |host: &&Arc<Endpoint>| host.shared.ejected_until.load(Ordering::Acquire) <= now_ms;
        let pick = |health: Health| all.iter().filter(|h| h.health == health).filter(ok).cloned().collect();
        // A draining endpoint takes no new request, in panic neither.
        let all = all.iter().filter(|h| h.health != Health::Draining).cloned().collect();
        Self { all, healthy: pick(Health::Healthy), degraded: pick(Health::Degraded) }
    }

    fn healthy_percent(&self) -> u32 {
        percent(self.healthy.len(), self.all.len())
    }

    fn percent(&self, factor: u32) -> u32 {
        (percent(self.healthy.len() + self.degraded.len(), self.all.len()) * factor / 100).min(100)
    }
}

fn percent(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 100).unwrap_or(100).checked_div(u32::try_from(whole).unwrap_or(u32::MAX)).unwrap_or(0)
}
