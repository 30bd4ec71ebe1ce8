//! The traffic policy that holds for one port and subset of a service (DR-7).

use crate::model::MeshConfig;
use crate::model::destination_rule::DestinationRule;
use crate::registry::Service;
use proto::istio::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, LocalityLbSetting, OutlierDetection, RetryBudget,
    TrafficPolicy,
};

/// What is left after inheritance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// Choice of an endpoint.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits.
    pub pool: Option<ConnectionPoolSettings>,
    /// Ejection.
    pub outliers: Option<OutlierDetection>,
    /// TLS.
    pub tls: Option<ClientTlsSettings>,
    /// Retries in flight as a share of requests in flight; holds for the whole service.
    pub retry_budget: Option<RetryBudget>,
}

/// Blocks of the subset override blocks of the rule; settings of a port replace everything below them.
pub fn effective(rule: Option<&DestinationRule>, subset: Option<usize>, port: u16) -> Policy {
    let mut policy = Policy::default();
    let Some(rule) = rule else { return policy };
    let subset = subset.and_then(|index| rule.subsets.get(index)).and_then(|subset| subset.traffic_policy.as_ref());
    for level in [rule.traffic_policy.as_ref(), subset].into_iter().flatten() {
        policy.override_with(level, port);
    }
    policy
}

impl Policy {
    fn override_with(&mut self, level: &TrafficPolicy, port: u16) {
        if level.retry_budget.is_some() {
            self.retry_budget.clone_from(&level.retry_budget);
        }
        let own = level
            .port_level_settings
            .iter()
            .find(|own| own.port.as_ref().is_some_and(|own| own.number == u32::from(port)));
        if let Some(own) = own {
            *self = Self {
                load_balancer: own.load_balancer.clone(),
                pool: own.connection_pool.clone(),
                outliers: own.outlier_detection.clone(),
                tls: own.tls.clone(),
                retry_budget: self.retry_budget.take(),
            };
            return;
        }
        if level.load_balancer.is_some() {
            self.load_balancer.clone_from(&level.load_balancer);
        }
        if level.connection_pool.is_some() {
            self.pool.clone_from(&level.connection_pool);
        }
        if level.outlier_detection.is_some() {
            self.outliers.clone_from(&level.outlier_detection);
        }
        if level.tls.is_some() {
            self.tls.clone_from(&level.tls);
        }
    }

    /// The locality setting in force: the rule's, else the order that the service asks for (DR-19), else the mesh's. None
    /// where it is off or would do nothing: failover needs outlier detection (DR-14, PI-94), but the service's order holds
    /// without.
    pub fn locality(&self, service: &Service, mesh: &MeshConfig) -> Option<LocalityLbSetting> {
        let own = self.load_balancer.as_ref().and_then(|balancer| balancer.locality_lb_setting.as_ref());
        let order = service.distribution.order();
        if own.is_none() && !order.is_empty() {
            let failover_priority = order.iter().map(|key| (*key).to_owned()).collect();
            return Some(LocalityLbSetting { failover_priority, ..LocalityLbSetting::default() });
        }
        let setting = own.unwrap_or(&mesh.locality);
        let enabled = setting.enabled.unwrap_or(true);
        let useful = self.outliers.is_some() || !setting.distribute.is_empty();
        (enabled && useful).then(|| setting.clone())
    }

    /// Whether a locality is chosen before an endpoint in it: only where shares or an order are written (DR-14).
    pub fn weighs_localities(&self, service: &Service, mesh: &MeshConfig) -> bool {
        self.locality(service, mesh).is_some_and(|setting| {
            !setting.distribute.is_empty() || !setting.failover.is_empty() || !setting.failover_priority.is_empty()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Key, Kind};
    use proto::istio::destination_rule::{PortTrafficPolicy, SimpleLb, Subset};
    use proto::istio::virtual_service::PortSelector;

    fn balancer(simple: SimpleLb) -> Option<LoadBalancerSettings> {
        Some(LoadBalancerSettings { simple: Some(simple), ..LoadBalancerSettings::default() })
    }

    fn simple(policy: &Policy) -> Option<SimpleLb> {
        policy.load_balancer.as_ref().and_then(|balancer| balancer.simple)
    }

    // spec: DR-7
    #[test]
    fn subsets_override_blocks_and_ports_replace_everything() {
        let subset_policy = TrafficPolicy { load_balancer: balancer(SimpleLb::Random), ..TrafficPolicy::default() };
        let port = PortTrafficPolicy { port: Some(PortSelector { number: 81 }), ..PortTrafficPolicy::default() };
        let rule = DestinationRule {
            key: Key { kind: Kind::DestinationRule, namespace: "n".into(), name: "r".into() },
            sources: Vec::new(),
            host: "h".into(),
            export_to: Vec::new(),
            workload_selector: Default::default(),
            traffic_policy: Some(TrafficPolicy {
                load_balancer: balancer(SimpleLb::RoundRobin),
                outlier_detection: Some(OutlierDetection::default()),
                port_level_settings: vec![port],
                ..TrafficPolicy::default()
            }),
            subsets: vec![Subset { name: "s".into(), traffic_policy: Some(subset_policy), ..Subset::default() }],
        };
        assert_eq!(simple(&effective(Some(&rule), None, 80)), Some(SimpleLb::RoundRobin));
        let subset = effective(Some(&rule), Some(0), 80);
        assert_eq!(simple(&subset), Some(SimpleLb::Random));
        assert!(subset.outliers.is_some(), "a block that the subset lacks is inherited");
        let port = effective(Some(&rule), None, 81);
        assert_eq!(port, Policy::default(), "the port's settings inherit nothing");
        assert_eq!(simple(&effective(Some(&rule), Some(0), 81)), Some(SimpleLb::Random));
    }
}
