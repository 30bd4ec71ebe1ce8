//! Which endpoint gets the next request.
//!
//! Knows endpoints and numbers in flight. Must never know a connection.

mod edf;
mod health;

use crate::endpoint::{Endpoint, HostSet};
use crate::env::Env;
use edf::Schedule;
use health::Eligible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A balancing policy (DR-9, LB-1, LB-2, LB-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn, by weight.
    RoundRobin,
    /// The less loaded of two random choices; by weight and load where weights differ.
    LeastRequest {
        /// How many random choices are compared.
        choices: u32,
    },
    /// Any, by weight.
    Random,
    /// The address that the client dialled.
    OriginalDst,
}

/// What one pick may take into account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Endpoints already tried for this request.
    pub tried: &'a [Arc<Endpoint>],
    /// Picks that are made to avoid them.
    pub avoid_attempts: u32,
    /// After every so many tries their priorities are left (`previous_priorities`); none: never.
    pub leave_priorities_every: Option<u32>,
}

/// Balancer of one cluster on one worker.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    panic_percent: u32,
    eligible: Eligible,
    turn: usize,
    schedules: Vec<Option<Schedule>>,
}

impl Balancer {
    /// A balancer over `hosts`. `panic_percent`: below this share of healthy endpoints all are used (LB-7); 0 never.
    pub fn new(policy: Policy, panic_percent: u32, hosts: &HostSet, env: &Env) -> Self {
        let turn = usize::try_from(env.below(1 << 16)).unwrap_or(0);
        let mut this = Self { policy, panic_percent, eligible: Eligible::default(), turn, schedules: Vec::new() };
        this.refresh(hosts, 0);
        this
    }

    /// Takes notice of another host set or of ejections; `now_ms` is the process clock.
    pub fn refresh(&mut self, hosts: &HostSet, now_ms: u64) {
        self.eligible = Eligible::of(hosts, self.panic_percent, now_ms);
        self.schedules = self.eligible.priorities.iter().map(|p| Schedule::for_unequal(&p.hosts)).collect();
    }

    /// The next endpoint; `None` where no endpoint may be used (LR-1).
    pub fn pick(&mut self, env: &Env, wish: Wish<'_>) -> Option<Arc<Endpoint>> {
        let left = self.eligible.left(&wish);
        let mut choice = self.choose(env, &left)?;
        for _ in 0..wish.avoid_attempts {
            if !wish.tried.iter().any(|tried| tried.address == choice.address) {
                break;
            }
            choice = self.choose(env, &left)?;
        }
        Some(choice)
    }

    fn choose(&mut self, env: &Env, left: &[usize]) -> Option<Arc<Endpoint>> {
        let index = self.eligible.priority(env, left)?;
        let hosts = &self.eligible.priorities.get(index)?.hosts;
        let n = hosts.len() as u64;
        let at = |i: u64| usize::try_from(i).ok().and_then(|i| hosts.get(i));
        if let Some(Some(schedule)) = self.schedules.get_mut(index) {
            let by_load = matches!(self.policy, Policy::LeastRequest { .. });
            return match self.policy {
                Policy::Random => random_by_weight(hosts, env).cloned(),
                _ => schedule.next(hosts, by_load).cloned(),
            };
        }
        match self.policy {
            Policy::RoundRobin => {
                self.turn = self.turn.wrapping_add(1);
                hosts.get(self.turn % hosts.len().max(1)).cloned()
            }
            Policy::Random => at(env.below(n)).cloned(),
            Policy::LeastRequest { choices } => {
                let mut best = at(env.below(n))?;
                for _ in 1..choices {
                    let other = at(env.below(n))?;
                    if active(other) < active(best) {
                        best = other;
                    }
                }
                Some(Arc::clone(best))
            }
            // The cluster makes an endpoint of the dialled address and never asks.
            Policy::OriginalDst => None,
        }
    }
}

fn active(endpoint: &Endpoint) -> u32 {
    endpoint.shared.active.load(Ordering::Relaxed)
}

fn random_by_weight<'a>(hosts: &'a [Arc<Endpoint>], env: &Env) -> Option<&'a Arc<Endpoint>> {
    let total: u64 = hosts.iter().map(|h| u64::from(h.weight)).sum();
    let mut left = env.below(total);
    hosts.iter().find(|h| {
        let weight = u64::from(h.weight);
        let here = left < weight;
        left = left.saturating_sub(weight);
        here
    })
}

#[cfg(test)]
mod tests;
