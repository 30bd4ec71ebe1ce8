//! How a cluster chooses an endpoint (DR-9, DR-11, DR-13).

use super::super::message::duration;
use super::super::policy::Policy;
use proto::envoy::cluster::Cluster;
use proto::envoy::cluster::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use proto::envoy::core::RuntimeDouble;
use proto::envoy::types::Percent;
use proto::envoy::wkt::UInt64Value;
use proto::istio::destination_rule::{ConsistentHashLb, LoadBalancerSettings, SimpleLb};

/// Choice of an endpoint (DR-9, DR-11, DR-13).
pub(super) fn balance(cluster: &mut Cluster, policy: &Policy) {
    if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) {
        return;
    }
    let Some(settings) = &policy.load_balancer else {
        cluster.lb_policy = LbPolicy::LeastRequest.into();
        return;
    };
    if let Some(hash) = &settings.consistent_hash {
        by_hash(cluster, hash);
        return;
    }
    let slow_start_config = slow_start(settings);
    let (kind, config) = match settings.simple.unwrap_or_default() {
        SimpleLb::RoundRobin => (
            LbPolicy::RoundRobin,
            slow_start_config
                .map(|config| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(config) })),
        ),
        SimpleLb::Random => (LbPolicy::Random, None),
        SimpleLb::Passthrough => (LbPolicy::ClusterProvided, None),
        SimpleLb::Unspecified | SimpleLb::LeastRequest | SimpleLb::LeastConn => (
            LbPolicy::LeastRequest,
            slow_start_config.map(|config| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(config),
                    ..LeastRequestLbConfig::default()
                })
            }),
        ),
    };
    cluster.lb_policy = kind.into();
    cluster.lb_config = config;
}

/// The choice by a hash of the request; the hash itself stands in the routes.
pub fn by_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev.into();
        let size = maglev.table_size.map(|value| UInt64Value { value });
        cluster.lb_config = size.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) }));
    } else {
        cluster.lb_policy = LbPolicy::RingHash.into();
        // Istio's default holds only where no algorithm is named.
        let size = match &hash.ring_hash {
            Some(ring) => ring.minimum_ring_size,
            None => Some(hash.minimum_ring_size.unwrap_or(1024)),
        };
        cluster.lb_config = size.map(|value| {
            LbConfig::RingHashLbConfig(RingHashLbConfig {
                minimum_ring_size: Some(UInt64Value { value }),
                ..RingHashLbConfig::default()
            })
        });
    }
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let Some(warmup) = &settings.warmup else {
        let window = settings.warmup_duration_secs?;
        return Some(SlowStartConfig { slow_start_window: duration(window.0), ..SlowStartConfig::default() });
    };
    Some(SlowStartConfig {
        slow_start_window: warmup.duration.and_then(|window| duration(window.0)),
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.unwrap_or(1.0),
            // A key must be there; this one, which istiod sends too, is never set.
            runtime_key: "(".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    })
}
