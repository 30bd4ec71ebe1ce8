//! Outlier detection: endpoints that fail are left alone for a while (DR-31, LB-13). Sans-IO.

use super::{Endpoint, HostSet};
use proto::duration::from_proto;
use proto::envoy::cluster::OutlierDetection;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// When an endpoint is ejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// 5xx answers (and failures to get one) in a row; 0: off.
    pub consecutive_5xx: u32,
    /// Gateway failures (502, 503, 504 and failures) in a row; 0: off.
    pub consecutive_gateway: u32,
    /// Time between two sweeps.
    pub interval: Duration,
    /// Length of the first ejection; grows with each further one.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Share of endpoints that may be ejected at a time, in percent.
    pub max_ejection_percent: u32,
}

impl From<&OutlierDetection> for Outlier {
    fn from(written: &OutlierDetection) -> Self {
        let number = |n: &Option<proto::envoy::wkt::UInt32Value>, default| n.as_ref().map_or(default, |n| n.value);
        let time = |d: &Option<proto::envoy::wkt::Duration>, default| {
            d.as_ref().map_or_else(|| Duration::from_secs(default), from_proto)
        };
        let base_ejection = time(&written.base_ejection_time, 30);
        let enforced = |share: &Option<proto::envoy::wkt::UInt32Value>, default| number(share, default) > 0;
        let on = |is_on, n| if is_on { n } else { 0 };
        Self {
            consecutive_5xx: on(enforced(&written.enforcing_consecutive_5xx, 100), number(&written.consecutive_5xx, 5)),
            consecutive_gateway: on(
                enforced(&written.enforcing_consecutive_gateway_failure, 0),
                number(&written.consecutive_gateway_failure, 5),
            ),
            interval: time(&written.interval, 10),
            base_ejection,
            max_ejection: time(&written.max_ejection_time, 300).max(base_ejection),
            max_ejection_percent: number(&written.max_ejection_percent, 10),
        }
    }
}

/// What an answer, or the lack of one, says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An answer below 500.
    Good,
    /// A 5xx that is no gateway error.
    ServerError,
    /// 502, 503, 504, or no answer.
    GatewayError,
}

impl Outlier {
    /// Notes an answer of `endpoint`; ejects it where the limit is reached and the share of ejected endpoints allows.
    /// With two or more endpoints one may always be ejected: below ten, Envoy's 10 % would never eject any (deviation).
    /// Says whether it was ejected. `now_ms` is the process clock.
    pub fn note(&self, endpoint: &Endpoint, hosts: &HostSet, verdict: Verdict, now_ms: u64) -> bool {
        let shared = &endpoint.shared;
        if verdict == Verdict::Good {
            shared.failures.store(0, Ordering::Relaxed);
            shared.gateway_failures.store(0, Ordering::Relaxed);
            return false;
        }
        let failures = shared.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let gateway = match verdict {
            Verdict::GatewayError => shared.gateway_failures.fetch_add(1, Ordering::Relaxed) + 1,
            _ => {
                shared.gateway_failures.store(0, Ordering::Relaxed);
                0
            }
        };
        let reached = |limit: u32, n: u32| limit > 0 && n >= limit;
        if !reached(self.consecutive_5xx, failures) && !reached(self.consecutive_gateway, gateway) {
            return false;
        }
        shared.failures.store(0, Ordering::Relaxed);
        shared.gateway_failures.store(0, Ordering::Relaxed);
        if shared.ejected_until.load(Ordering::Acquire) > now_ms || !self.may_eject(hosts, now_ms) {
            return false;
        }
        let times = shared.ejections.fetch_add(1, Ordering::Relaxed) + 1;
        let length = self.base_ejection.saturating_mul(times).min(self.max_ejection);
        let until = now_ms + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2);
        shared.ejected_until.store(until, Ordering::Release);
        true
    }

    fn may_eject(&self, hosts: &HostSet, now_ms: u64) -> bool {
        let all = hosts.iter().count();
        let ejected = hosts.iter().filter(|host| host.shared.ejected_until.load(Ordering::Acquire) > now_ms).count();
        let share = all * self.max_ejection_percent as usize / 100;
        let at_least = usize::from(all > 1 && self.max_ejection_percent > 0);
        ejected < share.max(at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Address;

    fn hosts(n: u16) -> HostSet {
        HostSet::flat((1..=n).map(|port| Endpoint::at(Address::Ip(([127, 0, 0, 1], port).into()))).collect())
    }

    fn outlier(percent: u32) -> Outlier {
        let written = OutlierDetection {
            max_ejection_percent: Some(proto::envoy::wkt::UInt32Value { value: percent }),
            ..Default::default()
        };
        Outlier::from(&written)
    }

    // spec: LB-13, DR-31
    #[test]
    fn five_failures_in_a_row_eject_and_a_good_answer_starts_anew() {
        let (set, outlier) = (hosts(20), outlier(10));
        let first = &set.priorities[0].all[0];
        for _ in 0..4 {
            assert!(!outlier.note(first, &set, Verdict::ServerError, 0));
        }
        assert!(!outlier.note(first, &set, Verdict::Good, 0));
        for _ in 0..4 {
            assert!(!outlier.note(first, &set, Verdict::ServerError, 0));
        }
        assert!(outlier.note(first, &set, Verdict::GatewayError, 0));
        assert_eq!(first.shared.ejected_until.load(Ordering::Acquire), 30_000);
        for _ in 0..5 {
            outlier.note(first, &set, Verdict::GatewayError, 40_000);
        }
        assert_eq!(first.shared.ejected_until.load(Ordering::Acquire), 100_000, "the second ejection is twice as long");
    }

    // spec: LB-13
    #[test]
    fn the_share_of_ejected_endpoints_is_capped_but_one_of_several_may_always_go() {
        let eject = |set: &HostSet, outlier: &Outlier, i: usize| {
            (0..5).any(|_| outlier.note(&set.priorities[0].all[i], set, Verdict::GatewayError, 0))
        };
        let (three, ten_percent) = (hosts(3), outlier(10));
        assert!(eject(&three, &ten_percent, 0));
        assert!(!eject(&three, &ten_percent, 1));
        assert!(!eject(&hosts(1), &ten_percent, 0), "the last endpoint stays");
        assert!(!eject(&three, &outlier(0), 2));
        let twenty = hosts(20);
        assert!(eject(&twenty, &ten_percent, 0) && eject(&twenty, &ten_percent, 1) && !eject(&twenty, &ten_percent, 2));
    }
}
