//! Outlier detection: endpoints that fail are left alone for a while (DR-31, LB-13). Sans-IO.

use super::{Endpoint, HostSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When an endpoint is ejected.
#[derive(Debug, Clone)]
pub struct Outlier {
    /// 5xx answers (and failures to get one) in a row.
    pub consecutive_5xx: InARow,
    /// Gateway failures (502, 503, 504 and failures to get an answer) in a row.
    pub consecutive_gateway: InARow,
    /// Failures to get an answer in a row, where those are told apart from answers.
    pub consecutive_local: InARow,
    /// Failures to get an answer count on their own (`split_external_local_origin_errors`).
    pub split_local: bool,
    /// Endpoints whose share of good answers is far below that of the others.
    pub success_rate: Share,
    /// Endpoints whose share of bad answers is above a threshold.
    pub failure_percentage: Share,
    /// Time between two sweeps.
    pub interval: Duration,
    /// Length of the first ejection; grows with each further one.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// A random part of it is added to each ejection.
    pub jitter: Duration,
    /// Share of endpoints that may be ejected at a time, in percent.
    pub max_ejection_percent: u32,
    /// One endpoint may be ejected whatever that share is.
    pub always_one: bool,
    /// When any worker sweeps next, by the process clock; written by the worker that does.
    pub next_sweep_ms: Arc<AtomicU64>,
}

/// So many in a row eject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InARow {
    /// How many; 0: off.
    pub count: u32,
    /// In how many of a hundred cases it is done.
    pub enforcing_percent: u32,
}

impl InARow {
    fn reached(self, n: u32, now_ms: u64) -> bool {
        self.count > 0 && n >= self.count && chance(self.enforcing_percent, now_ms)
    }
}

/// A rule about the answers of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// In how many of a hundred cases it is done; 0: off.
    pub enforcing_percent: u32,
    /// Endpoints with enough answers that there must be.
    pub minimum_hosts: u32,
    /// Answers that are enough.
    pub request_volume: u32,
    /// Thousandths of a standard deviation below the mean, or the percentage of failures.
    pub threshold: u32,
}

/// What an answer, or the lack of one, says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An answer below 500.
    Good,
    /// A 5xx that is no gateway error.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// No answer: it could not be connected, or did not answer in time.
    LocalError,
}

impl Outlier {
    /// Notes an answer of `endpoint`; ejects it where a limit is reached and the share of ejected endpoints allows.
    /// Says whether it was ejected. `now_ms` is the process clock.
    pub fn note(&self, endpoint: &Endpoint, hosts: &HostSet, verdict: Verdict, now_ms: u64) -> bool {
        let shared = &endpoint.shared;
        let local = self.split_local && verdict == Verdict::LocalError;
        if verdict != Verdict::LocalError {
            shared.local_failures.store(0, Ordering::Relaxed);
        }
        if !local {
            shared.answers.fetch_add(1, Ordering::Relaxed);
        }
        let reached = match verdict {
            Verdict::Good => {
                shared.good_answers.fetch_add(1, Ordering::Relaxed);
                shared.failures.store(0, Ordering::Relaxed);
                shared.gateway_failures.store(0, Ordering::Relaxed);
                false
            }
            Verdict::LocalError if local => {
                let failures = shared.local_failures.fetch_add(1, Ordering::Relaxed) + 1;
                self.consecutive_local.reached(failures, now_ms)
            }
            Verdict::ServerError => {
                shared.gateway_failures.store(0, Ordering::Relaxed);
                let failures = shared.failures.fetch_add(1, Ordering::Relaxed) + 1;
                self.consecutive_5xx.reached(failures, now_ms)
            }
            Verdict::GatewayError | Verdict::LocalError => {
                let failures = shared.failures.fetch_add(1, Ordering::Relaxed) + 1;
                let gateway = shared.gateway_failures.fetch_add(1, Ordering::Relaxed) + 1;
                self.consecutive_5xx.reached(failures, now_ms) || self.consecutive_gateway.reached(gateway, now_ms)
            }
        };
        if reached {
            for failures in [&shared.failures, &shared.gateway_failures, &shared.local_failures] {
                failures.store(0, Ordering::Relaxed);
            }
        }
        reached && self.eject(endpoint, hosts, now_ms)
    }

    /// Looks at the answers of an interval, once it has passed and no other worker was faster: ejects those that stand out,
    /// and lets those that were not ejected begin anew. Says whether any was ejected.
    pub fn sweep(&self, hosts: &HostSet, now_ms: u64) -> bool {
        let due = self.next_sweep_ms.load(Ordering::Relaxed);
        let next = now_ms + u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX / 2);
        let mine = || self.next_sweep_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if now_ms < due || !mine() || due == 0 {
            return false;
        }
        let counted: Vec<(&Endpoint, u32, u32)> = hosts
            .iter()
            .map(|host| {
                let (answers, good) = (&host.shared.answers, &host.shared.good_answers);
                (&**host, answers.swap(0, Ordering::Relaxed), good.swap(0, Ordering::Relaxed))
            })
            .collect();
        for (host, ..) in counted.iter().filter(|(host, ..)| !is_ejected(host, now_ms)) {
            let ejections = host.shared.ejections.load(Ordering::Relaxed);
            host.shared.ejections.store(ejections.saturating_sub(1), Ordering::Relaxed);
        }
        let by_rate = self.far_below(&counted);
        let by_percentage = self.too_bad(&counted);
        let mut ejected = false;
        for (rule, found) in [(self.success_rate, by_rate), (self.failure_percentage, by_percentage)] {
            for host in found.into_iter().filter(|_| chance(rule.enforcing_percent, now_ms)) {
                ejected |= self.eject(host, hosts, now_ms);
            }
        }
        ejected
    }

    /// Endpoints whose share of good answers lies too many standard deviations below the mean.
    fn far_below<'a>(&self, counted: &[(&'a Endpoint, u32, u32)]) -> Vec<&'a Endpoint> {
        let rates: Vec<(&Endpoint, f64)> = self
            .success_rate
            .enough(counted)
            .into_iter()
            .map(|(host, answers, good)| (host, 100.0 * f64::from(good) / f64::from(answers)))
            .collect();
        if rates.is_empty() {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(self.success_rate.threshold) / 1000.0;
        rates.into_iter().filter(|(_, rate)| *rate < least).map(|(host, _)| host).collect()
    }

    /// Endpoints whose share of bad answers reaches the threshold.
    fn too_bad<'a>(&self, counted: &[(&'a Endpoint, u32, u32)]) -> Vec<&'a Endpoint> {
        let bad = |(_, answers, good): &(&Endpoint, u32, u32)| {
            100 * u64::from(answers - good) >= u64::from(self.failure_percentage.threshold) * u64::from(*answers)
        };
        self.failure_percentage.enough(counted).into_iter().filter(bad).map(|(host, ..)| host).collect()
    }

    fn eject(&self, endpoint: &Endpoint, hosts: &HostSet, now_ms: u64) -> bool {
        if is_ejected(endpoint, now_ms) || !self.may_eject(hosts, now_ms) {
            return false;
        }
        let times = endpoint.shared.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        let jitter = self.jitter.mul_f64(f64::from(random(now_ms)) / 100.0);
        let length = self.base_ejection.saturating_mul(times).min(self.max_ejection) + jitter;
        let until = now_ms + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2);
        endpoint.shared.ejected_until.store(until, Ordering::Release);
        true
    }

    /// With two or more endpoints one may always be ejected: below ten, Envoy's 10 % would never eject any (deviation).
    fn may_eject(&self, hosts: &HostSet, now_ms: u64) -> bool {
        let all = hosts.iter().count();
        let ejected = hosts.iter().filter(|host| is_ejected(host, now_ms)).count();
        let share = all * self.max_ejection_percent as usize / 100;
        let at_least = usize::from(self.always_one || (all > 1 && self.max_ejection_percent > 0));
        ejected < share.max(at_least)
    }
}

impl Share {
    /// Endpoints with enough answers; none where those are too few, or the rule is off. All have an answer.
    fn enough<'a>(&self, counted: &[(&'a Endpoint, u32, u32)]) -> Vec<(&'a Endpoint, u32, u32)> {
        let volume = self.request_volume.max(1);
        let found: Vec<_> = counted.iter().filter(|(_, answers, _)| *answers >= volume).copied().collect();
        let off = self.enforcing_percent == 0 || found.len() < self.minimum_hosts as usize;
        if off { Vec::new() } else { found }
    }
}

fn is_ejected(endpoint: &Endpoint, now_ms: u64) -> bool {
    endpoint.shared.ejected_until.load(Ordering::Acquire) > now_ms
}

/// Whether something that happens in so many of a hundred cases happens now. The clock is random enough for that.
fn chance(percent: u32, now_ms: u64) -> bool {
    percent >= 100 || random(now_ms) < percent
}

/// From 0 to 99.
fn random(now_ms: u64) -> u32 {
    u32::try_from(now_ms.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).unwrap_or(0) % 100
}

#[cfg(test)]
mod tests;
