//! The path of a webhook names the cluster and the network of its pods (spec PI-58).

use std::collections::BTreeMap;

/// Path under which pods are injected.
const PREFIX: &str = "/inject";
/// Stands for a slash within a value.
const SLASH: &str = "--slash--";
/// Most pairs of a path.
const MAX_PAIRS: usize = 32;

/// Variables of the proxy that a webhook's path sets, as `/inject/cluster/c1/net/n1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterPath {
    variables: BTreeMap<String, String>,
}

impl ClusterPath {
    /// Reads a path. `cluster` and `net` have names of their own; any other name is taken as that of a variable. A last
    /// name without a value is passed over, as in Istio.
    pub fn parse(path: &str) -> Self {
        let rest = path.trim_end_matches('/').strip_prefix(PREFIX).unwrap_or_default();
        let mut parts = rest.split('/').skip(1);
        let mut variables = BTreeMap::new();
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let name = match name {
                "cluster" => CLUSTER,
                "net" => NETWORK,
                other => other,
            };
            if !name.is_empty() && variables.len() < MAX_PAIRS {
                variables.insert(name.to_owned(), value.replace(SLASH, "/"));
            }
        }
        Self { variables }
    }

    /// The variables by name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The cluster, where the path names it.
    pub fn cluster(&self) -> Option<&str> {
        self.variables.get(CLUSTER).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The network, where the path names it.
    pub fn network(&self) -> Option<&str> {
        self.variables.get(NETWORK).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// Variable of the cluster's name.
pub(super) const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
/// Variable of the network's name.
pub(super) const NETWORK: &str = "ISTIO_META_NETWORK";

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PI-58
    #[test]
    fn a_path_names_cluster_network_and_other_variables() {
        let path = ClusterPath::parse("/inject/cluster/c1/net/a--slash--b/X/y/");
        assert_eq!((path.cluster(), path.network()), (Some("c1"), Some("a/b")));
        assert_eq!(path.variables().get("X").map(String::as_str), Some("y"));
        assert_eq!(ClusterPath::parse("/inject"), ClusterPath::default());
        assert_eq!(ClusterPath::parse("/inject/cluster").cluster(), None);
        assert_eq!(ClusterPath::parse("/injected/cluster/c").variables().len(), 1);
    }
}
