//! `TcpProxy` and other network filters → what serves a connection.

use super::ext_authz::ExtAuthz;
use crate::filter::rbac::{self, Rbac};
use crate::filter::stats;
use crate::http::config::access_logs;
use crate::refusal::{Refusal, Within};
use crate::route::RouteContext;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::istio::Changes;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::tcp_proxy::{
    TcpProxy,
    tcp_proxy::{ClusterSpecifier, TcpAccessLogOptions},
};
use proto::envoy::wkt::Any;
use proto::missing::PluginConfig;
use std::sync::Arc;
use std::time::Duration;

/// A network filter before the terminal one.
#[derive(Debug)]
pub enum NetworkFilter {
    /// `envoy.filters.network.rbac`
    Rbac(Box<Rbac>),
    /// `envoy.filters.network.ext_authz`
    ExtAuthz(ExtAuthz),
    /// `istio.stats` on TCP.
    Stats(Stats),
    /// `istio.metadata_exchange` on TCP: the protocol whose negotiation asks for it.
    MetadataExchange(Box<str>),
}

/// What `istio.stats` reports of a connection.
#[derive(Debug)]
pub struct Stats {
    /// What is changed of its metrics.
    pub changes: Option<Arc<Changes>>,
    /// Time between two reports of a connection that goes on (TM-6, TL-3).
    pub period: Duration,
}

/// A parsed TCP proxy (TC-1).
#[derive(Debug)]
pub struct TcpConfig {
    /// Prefix of its statistics.
    pub stat_prefix: Box<str>,
    /// Clusters and their weights.
    pub clusters: Box<[(Arc<str>, u32)]>,
    /// Both directions quiet for so long end the connection; none: never.
    pub idle_timeout: Option<Duration>,
    /// Life of a connection.
    pub max_duration: Option<Duration>,
    /// Connects that are tried.
    pub max_connect_attempts: u32,
    /// Access logs.
    pub access_log: Vec<AccessLog>,
    /// Time between two entries of a connection that goes on; none: it has none.
    pub log_interval: Option<Duration>,
    /// A connection has an entry also when its upstream is connected.
    pub log_connected: bool,
}

/// Parses a TCP proxy.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any, cx: RouteContext<'_>) -> Result<TcpConfig, Refusal> {
    let written: TcpProxy = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let clusters: Box<[(Arc<str>, u32)]> = match &written.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => [(name.as_str().into(), 1)].into(),
        Some(ClusterSpecifier::WeightedClusters(split)) => {
            split.clusters.iter().map(|c| (c.name.as_str().into(), c.weight)).collect()
        }
        None => return Err(Refusal::new("cluster_specifier", "cluster or weighted_clusters is needed")),
    };
    // Metadata and hashes choose among endpoints of subsets and of rings: as in Envoy they mean nothing to others, and a
    // cluster with those is refused.
    let options = log_options(&written);
    let asked = [
        ("tunneling_config", written.tunneling_config.is_some()),
        ("on_demand", written.on_demand.is_some()),
        ("downstream_idle_timeout", written.downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", written.upstream_idle_timeout.is_some()),
        ("backoff_options", written.backoff_options.is_some()),
        ("proxy_protocol_tlvs", !written.proxy_protocol_tlvs.is_empty()),
        ("upstream_connect_mode", written.upstream_connect_mode != 0),
        ("max_early_data_bytes", written.max_early_data_bytes.is_some()),
        ("access_log_options.flush_access_log_on_start", options.flush_access_log_on_start),
    ];
    if let Some((field, _)) = asked.iter().find(|(_, written)| *written) {
        return Err(Refusal::unsupported(*field));
    }
    let idle = written.idle_timeout.as_ref().map_or(Duration::from_secs(3600), from_proto);
    Ok(TcpConfig {
        stat_prefix: written.stat_prefix.as_str().into(),
        clusters,
        idle_timeout: Some(idle).filter(|t| !t.is_zero()),
        max_duration: written.max_downstream_connection_duration.as_ref().map(from_proto).filter(|t| !t.is_zero()),
        max_connect_attempts: written.max_connect_attempts.as_ref().map_or(1, |n| n.value.max(1)),
        access_log: access_logs(&written.access_log, cx)?,
        log_interval: options.access_log_flush_interval.as_ref().map(from_proto).filter(|t| !t.is_zero()),
        log_connected: options.flush_access_log_on_connected,
    })
}

/// When entries are written beside the last one; the older fields say the same.
#[expect(deprecated, reason = "Envoy still reads the older fields")]
fn log_options(written: &TcpProxy) -> TcpAccessLogOptions {
    written.access_log_options.unwrap_or_else(|| TcpAccessLogOptions {
        access_log_flush_interval: written.access_log_flush_interval,
        flush_access_log_on_connected: written.flush_access_log_on_connected,
        ..TcpAccessLogOptions::default()
    })
}

/// Parses a network filter that is not terminal; none where there is nothing to do.
///
/// # Errors
/// Envoy's text for an unknown type (XM-5), or the field that is wrong.
pub fn parse_filter(name: &str, typed: &Any) -> Result<Option<NetworkFilter>, Refusal> {
    let type_name = any::type_of(typed);
    match type_name.as_str() {
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let written: proto::envoy::network_filters::rbac::v3::Rbac =
                any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
            for (field, set) in
                [("matcher", written.matcher.is_some()), ("shadow_matcher", written.shadow_matcher.is_some())]
            {
                if set {
                    return Err(Refusal::unsupported(field));
                }
            }
            let rules = written.rules.as_ref().map(|rules| rbac::parse_rules(rules).within("rules")).transpose()?;
            let shadow = rbac::shadow(written.shadow_rules.as_ref(), &written.shadow_rules_stat_prefix)?;
            Ok(Some(NetworkFilter::Rbac(Box::new(Rbac { rules, shadow }))))
        }
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" => {
            ExtAuthz::parse(typed).map(|filter| Some(NetworkFilter::ExtAuthz(filter)))
        }
        "stats.PluginConfig" => {
            let written: PluginConfig = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
            let (changes, period) = (Changes::parse(&written.metrics)?, stats::period(&written));
            Ok(Some(NetworkFilter::Stats(Stats { changes, period })))
        }
        "envoy.tcp.metadataexchange.config.MetadataExchange" => {
            Ok(Some(NetworkFilter::MetadataExchange("istio-peer-exchange".into())))
        }
        _ => Err(Refusal::new(
            "",
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::registry;
    use serde_json::{Value, json};

    fn parsed(more: &Value) -> TcpConfig {
        let mut json = json!({"stat_prefix": "p", "cluster": "c"});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let name = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        let bytes = proto::json::from_value(name, &json).unwrap();
        let any = Any { type_url: format!("type.googleapis.com/{name}"), value: bytes };
        let (environment, runtime) = Default::default();
        let parse_override = &registry::parse_override;
        parse(&any, RouteContext { environment: &environment, runtime: &runtime, parse_override }).unwrap()
    }

    // spec: TL-3, TM-6
    #[test]
    fn a_connection_is_told_of_as_often_as_is_said() {
        let period = |written: Option<Duration>| {
            let tcp_reporting_duration = written.map(proto::duration::to_proto);
            let plugin = PluginConfig { tcp_reporting_duration, ..PluginConfig::default() };
            match parse_filter("istio.stats", &any::pack(&plugin)) {
                Ok(Some(NetworkFilter::Stats(stats))) => stats.period,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(period(None), Duration::from_secs(5));
        assert_eq!(period(Some(Duration::from_secs(1))), Duration::from_secs(1));
        assert_eq!(period(Some(Duration::ZERO)), stats::SHORTEST_PERIOD);
    }

    // spec: TC-1
    #[test]
    fn one_connect_is_tried_and_an_hour_of_silence_ends_where_nothing_is_said() {
        let plain = parsed(&json!({}));
        assert_eq!((plain.max_connect_attempts, plain.idle_timeout), (1, Some(Duration::from_secs(3600))));
        assert_eq!((plain.max_duration, &*plain.clusters), (None, &[("c".into(), 1)][..]));
        assert_eq!(parsed(&json!({"idle_timeout": "0s"})).idle_timeout, None, "zero switches it off");
        assert_eq!(parsed(&json!({"max_connect_attempts": 3})).max_connect_attempts, 3);
    }
}
