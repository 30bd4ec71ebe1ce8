//! When the names of a DNS cluster are looked up again (LB-16).

use crate::refusal::Refusal;
use proto::duration::from_proto;
use proto::envoy::cluster::Cluster;
use std::time::Duration;

/// Shortest time between two look-ups.
const LEAST: Duration = Duration::from_millis(100);

/// Times between look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After an answer (`dns_refresh_rate`, 5 s).
    refresh: Duration,
    /// After an answer its records' life counts instead, where it is known (`respect_dns_ttl`).
    pub by_ttl: bool,
    /// A random part of it is added (`dns_jitter`).
    jitter: Duration,
    /// Bounds of the exponential back-off after a failure (`dns_failure_refresh_rate`); none: as after an answer.
    failure: Option<(Duration, Duration)>,
}

impl Pace {
    /// Reads a cluster's fields.
    ///
    /// # Errors
    /// Bounds that exclude each other.
    #[expect(deprecated, reason = "Istio sends these fields")]
    pub fn parse(written: &Cluster) -> Result<Self, Refusal> {
        let failure = match &written.dns_failure_refresh_rate {
            None => None,
            Some(rate) => {
                let base = rate.base_interval.as_ref().map(from_proto).unwrap_or_default();
                let most = rate.max_interval.as_ref().map_or(base * 10, from_proto);
                if base.is_zero() || most < base {
                    let why = "base_interval above 0 is needed, and max_interval not below it";
                    return Err(Refusal::new("dns_failure_refresh_rate", why));
                }
                Some((base, most))
            }
        };
        Ok(Self {
            refresh: written.dns_refresh_rate.as_ref().map_or(Duration::from_secs(5), from_proto),
            by_ttl: written.respect_dns_ttl,
            jitter: written.dns_jitter.as_ref().map(from_proto).unwrap_or_default(),
            failure,
        })
    }

    /// Time to wait after an answer; `ttl` is the life of its records, `random` from 0 to below 1.
    pub fn after_answer(&self, ttl: Option<Duration>, random: f64) -> Duration {
        let base = ttl.filter(|ttl| self.by_ttl && !ttl.is_zero()).unwrap_or(self.refresh);
        (base + self.jitter.mul_f64(random)).max(LEAST)
    }

    /// Time to wait after so many failures in a row, from 1; `random` from 0 to below 1.
    pub fn after_failure(&self, failures: u32, random: f64) -> Duration {
        let Some((base, most)) = self.failure else { return self.after_answer(None, random) };
        let bound = base.saturating_mul(1 << (failures - 1).min(20)).min(most);
        bound.mul_f64(random).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use serde_json::{Value, json};

    fn pace(fields: Value) -> Result<Pace, Refusal> {
        let bytes = proto::json::from_value("envoy.config.cluster.v3.Cluster", &fields).unwrap();
        Pace::parse(&Cluster::decode(bytes.as_slice()).unwrap())
    }

    const S: Duration = Duration::from_secs(1);

    // spec: LB-16
    #[test]
    fn answers_are_used_for_their_life_or_the_refresh_rate_and_a_bit() {
        let plain = pace(json!({})).unwrap();
        assert_eq!(plain.after_answer(Some(S * 77), 0.5), S * 5, "the life of records is not asked for");
        let istio = pace(json!({"dns_refresh_rate": "60s", "dns_jitter": "0.1s", "respect_dns_ttl": true})).unwrap();
        assert_eq!(istio.after_answer(None, 0.0), S * 60);
        assert_eq!(istio.after_answer(None, 0.5), S * 60 + Duration::from_millis(50));
        assert_eq!(istio.after_answer(Some(S * 7), 0.5), S * 7 + Duration::from_millis(50));
        assert_eq!(istio.after_answer(Some(Duration::ZERO), 0.0), S * 60, "no life at all is no pace");
        assert_eq!(pace(json!({"dns_refresh_rate": "0.001s"})).unwrap().after_answer(None, 0.0), S / 10);
    }

    // spec: LB-16
    #[test]
    fn failures_back_off() {
        assert_eq!(pace(json!({"dns_refresh_rate": "9s"})).unwrap().after_failure(3, 0.0), S * 9);
        let rate = |base: &str, most: &str| {
            pace(json!({"dns_failure_refresh_rate": {"base_interval": base, "max_interval": most}}))
        };
        let backs_off = rate("2s", "10s").unwrap();
        assert_eq!([1, 2, 3, 4, 99].map(|n| backs_off.after_failure(n, 0.5)), [S, S * 2, S * 4, S * 5, S * 5]);
        assert!(rate("2s", "1s").is_err() && rate("0s", "1s").is_err());
        let ten_times = pace(json!({"dns_failure_refresh_rate": {"base_interval": "2s"}})).unwrap();
        assert_eq!(ten_times.after_failure(9, 0.5), S * 10);
    }
}
