//! Priorities and shares by locality (DR-14 to DR-17).

use super::endpoint::group;
use super::message::uint;
use crate::registry::endpoint::{LABEL_NODE, LABEL_REGION, LABEL_SUB_ZONE, LABEL_ZONE};
use crate::registry::{Endpoint, Locality};
use proto::envoy::endpoint::LocalityLbEndpoints;
use proto::istio::destination_rule::{Distribute, LocalityLbSetting};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its locality.
    pub locality: Locality,
    /// Its node; empty where none is known, or no endpoint is chosen by it.
    pub node: String,
    /// Labels of its workload.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl Place {
    /// No more of it than decides, by node and by this order of labels: clients of all nodes share what does not depend on
    /// theirs.
    pub fn deciding(&self, node_local: bool, order: &[String]) -> Self {
        let by_node = node_local || order.iter().any(|key| key == LABEL_NODE);
        Self {
            locality: self.locality.clone(),
            node: if by_node { self.node.clone() } else { String::new() },
            labels: if order.is_empty() { Arc::default() } else { Arc::clone(&self.labels) },
        }
    }
}

type Groups<'a> = BTreeMap<&'a Locality, Vec<&'a Endpoint>>;

/// Groups with what the setting says for a client.
pub fn apply(
    setting: &LocalityLbSetting,
    client: &Place,
    groups: &Groups<'_>,
    tls: &dyn Fn(&Endpoint) -> bool,
) -> Vec<LocalityLbEndpoints> {
    let own = &client.locality;
    if let Some(shares) = setting.distribute.iter().find(|shares| covers(&shares.from, own)) {
        return distribute(shares, groups, tls);
    }
    if !setting.failover_priority.is_empty() {
        return by_labels(&setting.failover_priority, client, groups, tls);
    }
    let rank = |locality: &Locality| {
        if locality.region != own.region {
            let named = setting.failover.iter().any(|f| f.from == own.region && f.to == locality.region);
            return if named || setting.failover.iter().all(|f| f.from != own.region) { 3 } else { 4 };
        }
        match (locality.zone == own.zone, locality.sub_zone == own.sub_zone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        }
    };
    let ranked = groups.iter().map(|(locality, endpoints)| (rank(locality), group(locality, endpoints, tls)));
    compact(ranked.collect())
}

/// Whether `pattern` (`region/zone/*`) covers a locality.
fn covers(pattern: &str, locality: &Locality) -> bool {
    let own = [&locality.region, &locality.zone, &locality.sub_zone];
    for (part, own) in pattern.split('/').zip(own) {
        if part == "*" {
            return true;
        }
        if part != own {
            return false;
        }
    }
    true
}

/// Every locality takes its part of the share of the first pattern that covers it; those without a share get nothing.
fn distribute(shares: &Distribute, groups: &Groups<'_>, tls: &dyn Fn(&Endpoint) -> bool) -> Vec<LocalityLbEndpoints> {
    // More specific patterns come first, so that `a/b/*` takes its localities before `a/*`.
    let mut patterns: Vec<(&String, u32)> = shares.to.iter().map(|(pattern, weight)| (pattern, *weight)).collect();
    patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    let owner = |locality: &Locality| patterns.iter().position(|(pattern, _)| covers(pattern, locality));
    let mut total: BTreeMap<usize, u32> = BTreeMap::new();
    for (locality, endpoints) in groups {
        if let Some(index) = owner(locality) {
            *total.entry(index).or_default() += endpoints.iter().map(|endpoint| endpoint.weight).sum::<u32>();
        }
    }
    let mut out = Vec::new();
    for (locality, endpoints) in groups {
        let Some(index) = owner(locality) else { continue };
        let own: u32 = endpoints.iter().map(|endpoint| endpoint.weight).sum();
        let sum = total.get(&index).copied().unwrap_or(own).max(1);
        let mut group = group(locality, endpoints, tls);
        let share = f64::from(patterns[index].1) * f64::from(own) / f64::from(sum);
        group.load_balancing_weight = uint((share.ceil() as u32).max(1));
        out.push(group);
    }
    out
}

/// Priority by how many of the leading labels an endpoint shares with the client.
fn by_labels(
    keys: &[String],
    client: &Place,
    groups: &Groups<'_>,
    tls: &dyn Fn(&Endpoint) -> bool,
) -> Vec<LocalityLbEndpoints> {
    let shares = |key: &String, endpoint: &Endpoint| match key.split_once('=') {
        Some((key, value)) => label(key, &endpoint.locality, &endpoint.node, &endpoint.labels) == value,
        None => {
            label(key, &client.locality, &client.node, &client.labels)
                == label(key, &endpoint.locality, &endpoint.node, &endpoint.labels)
        }
    };
    let mut ranked: BTreeMap<(usize, &Locality), Vec<&Endpoint>> = BTreeMap::new();
    for (locality, endpoints) in groups {
        for endpoint in endpoints {
            let shared = keys.iter().take_while(|key| shares(key, endpoint)).count();
            ranked.entry((keys.len() - shared, locality)).or_default().push(endpoint);
        }
    }
    compact(ranked.iter().map(|((rank, locality), endpoints)| (*rank, group(locality, endpoints, tls))).collect())
}

/// The value of a label, empty where there is none. Places are labels too, without anybody writing them (as Istio has it).
fn label<'a>(key: &str, locality: &'a Locality, node: &'a str, labels: &'a BTreeMap<String, String>) -> &'a str {
    let place = match key {
        LABEL_REGION => &locality.region,
        LABEL_ZONE => &locality.zone,
        LABEL_SUB_ZONE => &locality.sub_zone,
        LABEL_NODE => node,
        _ => "",
    };
    if place.is_empty() { labels.get(key).map_or("", String::as_str) } else { place }
}

/// Ranks become priorities without gaps, as Envoy needs them.
fn compact(ranked: Vec<(usize, LocalityLbEndpoints)>) -> Vec<LocalityLbEndpoints> {
    let used: std::collections::BTreeSet<usize> = ranked.iter().map(|(rank, _)| *rank).collect();
    let priority = |rank: usize| u32::try_from(used.range(..rank).count()).unwrap_or(u32::MAX);
    let finish = |(rank, group)| LocalityLbEndpoints { priority: priority(rank), ..group };
    ranked.into_iter().map(finish).collect()
}
