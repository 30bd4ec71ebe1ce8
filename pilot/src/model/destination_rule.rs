//! DestinationRule as meant: merged per host and namespace, found per client (DR-5, DR-6, PI-88).

use super::MeshConfig;
use super::check::Check;
use super::export;
use super::host;
use super::secret;
use super::shared::Shared;
use crate::registry::ServiceKey;
use crate::registry::endpoint::LABEL_NODE;
use crate::source::{Key, Object, Problem};
use proto::istio::destination_rule as written;
use proto::istio::destination_rule::{ClientTlsMode, LocalityLbSetting, Subset, TrafficPolicy};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// The rules of one namespace for one host, merged.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// The oldest of the objects.
    pub key: Key,
    /// All of the objects.
    pub sources: Vec<Key>,
    /// Host, completed; may be a wildcard.
    pub host: String,
    /// Who sees it.
    pub export_to: Vec<String>,
    /// Clients it is limited to.
    pub workload_selector: BTreeMap<String, String>,
    /// What holds for the whole service.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts.
    pub subsets: Vec<Subset>,
}

/// Parses, and so validates, a DestinationRule.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    object: &Object,
    spec: &written::DestinationRule,
    mesh: &MeshConfig,
) -> Result<DestinationRule, Vec<Problem>> {
    let mut check = Check::new(object);
    check.host(&spec.host, "spec.host");
    let mut names = std::collections::HashSet::new();
    for (i, subset) in spec.subsets.iter().enumerate() {
        check.require(!subset.name.is_empty(), format!("spec.subsets[{i}].name"), "a name is needed");
        check.require(names.insert(&subset.name), format!("spec.subsets[{i}].name"), "the name is there twice");
        if let Some(policy) = &subset.traffic_policy {
            self::policy(&mut check, policy, &format!("spec.subsets[{i}].trafficPolicy"));
        }
    }
    if let Some(policy) = &spec.traffic_policy {
        self::policy(&mut check, policy, "spec.trafficPolicy");
    }
    check.finish(DestinationRule {
        key: object.key.clone(),
        sources: vec![object.key.clone()],
        host: host::resolve(&spec.host, &object.key.namespace, &mesh.domain),
        export_to: spec.export_to.clone(),
        workload_selector: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        traffic_policy: spec.traffic_policy.clone(),
        subsets: spec.subsets.clone(),
    })
}

fn policy(check: &mut Check<'_>, policy: &TrafficPolicy, at: &str) {
    balancer(check, policy.load_balancer.as_ref(), &format!("{at}.loadBalancer"));
    tls(check, policy.tls.as_ref(), &format!("{at}.tls"));
    outliers(check, policy.outlier_detection.as_ref(), &format!("{at}.outlierDetection"));
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{i}]");
        check.port(port.port.as_ref().map_or(0, |port| port.number), format!("{at}.port.number"));
        balancer(check, port.load_balancer.as_ref(), &format!("{at}.loadBalancer"));
        tls(check, port.tls.as_ref(), &format!("{at}.tls"));
        outliers(check, port.outlier_detection.as_ref(), &format!("{at}.outlierDetection"));
    }
}

fn balancer(check: &mut Check<'_>, settings: Option<&written::LoadBalancerSettings>, at: &str) {
    let Some(settings) = settings else { return };
    let both = settings.simple.is_some() && settings.consistent_hash.is_some();
    check.require(!both, at, "only one of simple and consistentHash");
    if let Some(hash) = &settings.consistent_hash {
        let keys = [
            hash.http_header_name.is_some(),
            hash.http_cookie.is_some(),
            hash.use_source_ip.is_some(),
            hash.http_query_parameter_name.is_some(),
        ];
        let at = format!("{at}.consistentHash");
        check.require(keys.iter().filter(|set| **set).count() == 1, at.clone(), "exactly one hash key is needed");
        check.require(
            !(hash.ring_hash.is_some() && hash.maglev.is_some()),
            at.clone(),
            "only one of ringHash and maglev",
        );
        if let Some(size) = hash.maglev.as_ref().and_then(|maglev| maglev.table_size) {
            let good = size <= 5_000_011 && is_prime(size);
            check.require(good, format!("{at}.maglev.tableSize"), "use a prime number up to 5000011");
        }
    }
    if let Some(locality) = &settings.locality_lb_setting {
        let at = format!("{at}.localityLbSetting");
        let forms =
            [!locality.distribute.is_empty(), !locality.failover.is_empty(), !locality.failover_priority.is_empty()];
        check.require(
            forms.iter().filter(|set| **set).count() <= 1,
            at.clone(),
            "only one of distribute, failover and failoverPriority",
        );
        for (i, share) in locality.distribute.iter().enumerate() {
            let sum: u32 = share.to.values().sum();
            check.require(sum == 100, format!("{at}.distribute[{i}].to"), format!("the weights sum to {sum}, not 100"));
        }
        for (i, failover) in locality.failover.iter().enumerate() {
            let same = failover.from == failover.to;
            check.require(!same, format!("{at}.failover[{i}].to"), "a region cannot take over for itself");
        }
    }
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn tls(check: &mut Check<'_>, settings: Option<&written::ClientTlsSettings>, at: &str) {
    let Some(settings) = settings else { return };
    let files = !settings.client_certificate.is_empty() || !settings.private_key.is_empty();
    let named = !settings.credential_name.is_empty();
    if let Some(problem) = Some(&settings.credential_name).filter(|_| named).and_then(|name| secret::check_name(name)) {
        check.semantic(format!("{at}.credentialName"), problem);
    }
    let both = named && (files || !settings.ca_certificates.is_empty());
    check.require(
        !both,
        format!("{at}.credentialName"),
        "certificates come from a secret or from files, not from both",
    );
    match settings.mode {
        ClientTlsMode::Mutual if named => {}
        ClientTlsMode::Mutual => {
            check.require(
                !settings.client_certificate.is_empty(),
                format!("{at}.clientCertificate"),
                "MUTUAL needs it",
            );
            check.require(!settings.private_key.is_empty(), format!("{at}.privateKey"), "MUTUAL needs it");
        }
        ClientTlsMode::IstioMutual => {
            check.require(
                !files && !named && settings.ca_certificates.is_empty(),
                at,
                "ISTIO_MUTUAL takes the mesh's own certificates",
            );
        }
        ClientTlsMode::Disable | ClientTlsMode::Simple => {}
    }
}

/// Names of the secrets that TLS towards a service needs: a certificate where it is mutual, and authorities.
fn client_secrets(settings: &written::ClientTlsSettings) -> Vec<String> {
    let name = settings.credential_name.as_str();
    if name.is_empty() || name == secret::BUILTIN {
        return Vec::new();
    }
    match settings.mode {
        ClientTlsMode::Simple => vec![secret::authorities_of(name)],
        ClientTlsMode::Mutual => vec![secret::resource(name), secret::authorities_of(name)],
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => Vec::new(),
    }
}

fn outliers(check: &mut Check<'_>, settings: Option<&written::OutlierDetection>, at: &str) {
    let Some(settings) = settings else { return };
    for (name, value) in
        [("maxEjectionPercent", settings.max_ejection_percent), ("minHealthPercent", settings.min_health_percent)]
    {
        check.percent(f64::from(value.unwrap_or(0)), format!("{at}.{name}"));
    }
}

/// All rules by namespace and host, merged.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    by_namespace: HashMap<String, BTreeMap<String, Vec<Shared<DestinationRule>>>>,
    /// Any of them names a secret.
    name_secrets: bool,
    /// Any of them orders endpoints by the node of the client.
    order_by_nodes: bool,
}

/// Whether a setting orders endpoints by the node of the client.
pub fn orders_by_nodes(setting: &LocalityLbSetting) -> bool {
    setting.failover_priority.iter().any(|key| key == LABEL_NODE)
}

impl Rules {
    /// Merges rules that come oldest first; keeps the revisions of `old` where nothing has changed.
    pub fn build(rules: impl Iterator<Item = DestinationRule>, old: &Self) -> Self {
        let mut merged: HashMap<String, BTreeMap<String, Vec<DestinationRule>>> = HashMap::new();
        for rule in rules {
            let slot = merged.entry(rule.key.namespace.to_string()).or_default().entry(rule.host.clone()).or_default();
            let mate = slot
                .iter_mut()
                .find(|first| first.workload_selector == rule.workload_selector && first.export_to == rule.export_to);
            match mate {
                Some(first) => first.absorb(rule),
                None => slot.push(rule),
            }
        }
        let shared = |namespace: &str, (host, rules): (String, Vec<DestinationRule>)| {
            let before = old.by_namespace.get(namespace).and_then(|hosts| hosts.get(&host));
            let keep = |rule: DestinationRule| {
                let same = before.into_iter().flatten().find(|old| ***old == rule);
                same.cloned().unwrap_or_else(|| Shared::new(rule))
            };
            (host, rules.into_iter().map(keep).collect())
        };
        let by_namespace = merged
            .into_iter()
            .map(|(namespace, hosts)| {
                let hosts = hosts.into_iter().map(|entry| shared(&namespace, entry)).collect();
                (namespace, hosts)
            })
            .collect();
        let rules = Self { by_namespace, ..Self::default() };
        let name_secrets = rules.iter().any(|rule| !rule.secrets().is_empty());
        let order_by_nodes = rules.iter().any(|rule| rule.localities().any(orders_by_nodes));
        Self { name_secrets, order_by_nodes, ..rules }
    }

    /// Whether any of them orders endpoints by the node of the client.
    pub fn order_by_nodes(&self) -> bool {
        self.order_by_nodes
    }

    /// Whether any of them names a secret.
    pub fn name_secrets(&self) -> bool {
        self.name_secrets
    }

    /// The rule that a client of a namespace with these labels follows for a service: the client's namespace, then
    /// the service's, then the root namespace; no merge across namespaces (DR-5).
    pub fn find(
        &self,
        client: (&str, &BTreeMap<String, String>),
        service: &ServiceKey,
        mesh: &MeshConfig,
    ) -> Option<Shared<DestinationRule>> {
        let (namespace, _) = client;
        let default = &mesh.destination_rule_export_to;
        let in_root = namespace == mesh.root_namespace;
        let own = self.lookup(namespace, client, service, |rule| !in_root || export::private(&rule.export_to, default));
        own.or_else(|| self.lookup(&service.namespace, client, service, |rule| rule.exported(namespace, default)))
            .or_else(|| self.lookup(&mesh.root_namespace, client, service, |rule| rule.exported(namespace, default)))
    }

    fn lookup(
        &self,
        namespace: &str,
        (client, labels): (&str, &BTreeMap<String, String>),
        service: &ServiceKey,
        admits: impl Fn(&DestinationRule) -> bool,
    ) -> Option<Shared<DestinationRule>> {
        let hosts = self.by_namespace.get(namespace)?;
        let applies = |rule: &&Shared<DestinationRule>| {
            let selected = rule.workload_selector.is_empty()
                || (client == namespace && crate::registry::entry::selects(&rule.workload_selector, labels));
            selected && admits(rule)
        };
        // A rule with a selector beats one without.
        let pick = |rules: &Vec<Shared<DestinationRule>>| {
            let mut fitting: Vec<_> = rules.iter().filter(applies).collect();
            fitting.sort_by_key(|rule| rule.workload_selector.is_empty());
            fitting.first().map(|rule| (*rule).clone())
        };
        hosts.get(&*service.host).and_then(pick).or_else(|| {
            let wildcards = hosts.range::<str, _>((Bound::Included("*"), Bound::Excluded("+")));
            host::best(&service.host, wildcards.filter_map(|(host, rules)| Some((host.as_str(), pick(rules)?))))
        })
    }

    /// Every rule.
    pub fn iter(&self) -> impl Iterator<Item = &Shared<DestinationRule>> {
        self.by_namespace.values().flat_map(BTreeMap::values).flatten()
    }
}

impl DestinationRule {
    /// Names of the secrets that its clients need (DR-35): gateways, and the workloads that it selects.
    pub fn secrets(&self) -> Vec<String> {
        let settings = self.policies().flat_map(|policy| {
            let ports = policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref());
            policy.tls.iter().chain(ports)
        });
        settings.flat_map(client_secrets).collect()
    }

    /// Its policies, of all subsets.
    fn policies(&self) -> impl Iterator<Item = &TrafficPolicy> {
        self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()).chain(&self.traffic_policy)
    }

    /// Its locality settings, of all ports and subsets.
    fn localities(&self) -> impl Iterator<Item = &LocalityLbSetting> {
        let balancers = self.policies().flat_map(|policy| {
            let ports = policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref());
            policy.load_balancer.iter().chain(ports)
        });
        balancers.filter_map(|balancer| balancer.locality_lb_setting.as_ref())
    }

    fn exported(&self, client: &str, default: &[String]) -> bool {
        export::visible(&self.export_to, default, &self.key.namespace, client)
    }

    /// Takes a younger rule for the same host in: its new subsets, and its policy if there is none (DR-6).
    fn absorb(&mut self, younger: Self) {
        for subset in younger.subsets {
            if self.subsets.iter().all(|own| own.name != subset.name) {
                self.subsets.push(subset);
            }
        }
        if self.traffic_policy.is_none() {
            self.traffic_policy = younger.traffic_policy;
        }
        self.sources.extend(younger.sources);
    }
}
