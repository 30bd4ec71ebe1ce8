//! Metrics for a collector: `envoy.stat_sinks.open_telemetry` (MX-99).
//!
//! A report carries running totals, and only of series that have changed since the last report that was accepted: a lost
//! report loses nothing. Now and then all series go, so that a collector that came back knows all of them. Main thread.

use super::config::StatsConfig;
use super::counters::{BUCKETS, Family, Metric, MetricKind};
use super::istio::Workload;
use super::otlp::{nanos, resource, string};
use super::scrape::Snapshot;
use super::series::Labels;
use crate::net::Service;
use crate::refusal::{Refusal, Within};
use bytes::Bytes;
use foldhash::HashMap;
use prost::Message;
use proto::duration::from_proto;
use proto::envoy::bootstrap::Bootstrap;
use proto::envoy::extensions::stat_sinks::open_telemetry::v3::{SinkConfig, sink_config::ProtocolSpecifier};
use proto::envoy::metrics::stats_sink::ConfigType;
use proto::otlp::common::KeyValue;
use proto::otlp::metrics::metric::Data;
use proto::otlp::metrics::number_data_point::Value;
use proto::otlp::metrics::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Told, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use proto::otlp::metrics_service::ExportMetricsServiceRequest;
use proto::otlp::resource::Resource;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime};

/// Time between two reports where nothing is configured (`stats_flush_interval`).
const FLUSH: Duration = Duration::from_secs(5);
/// After so many reports one holds all series.
const ALL_EVERY: u32 = 15;

/// A sink, and what has been accepted.
#[derive(Debug)]
pub struct MetricSink {
    /// Who is told.
    pub service: Service,
    /// Time between two reports.
    pub interval: Duration,
    prefix: Box<str>,
    resource: Bytes,
    started: u64,
    /// Hashes of series and of their values.
    accepted: HashMap<u64, u64>,
    hasher: foldhash::fast::RandomState,
    reports: u32,
}

/// A report on its way; it is to be given back when it was accepted.
#[derive(Debug)]
pub struct Report {
    /// The encoded `ExportMetricsServiceRequest`.
    pub message: Vec<u8>,
    told: Vec<(u64, u64)>,
}

/// Data points by metric.
type Points = BTreeMap<String, (MetricKind, Vec<(Vec<KeyValue>, Vec<u64>)>)>;

impl MetricSink {
    /// The sink of a bootstrap, if there is one; `node` is the node's id.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn of(
        bootstrap: &Bootstrap,
        node: &str,
        workload: &Workload,
        now: SystemTime,
    ) -> Result<Option<Self>, Refusal> {
        let written = match bootstrap.stats_sinks.as_slice() {
            [] => return Ok(None),
            [sink] => sink,
            _ => return Err(Refusal::unsupported("stats_sinks: more than one")),
        };
        let Some(ConfigType::TypedConfig(any)) = &written.config_type else {
            return Err(Refusal::new("stats_sinks[0].typed_config", "is missing"));
        };
        let config: SinkConfig = proto::any::unpack(any)
            .map_err(|_| Refusal::unsupported(format!("stats sink {}", proto::any::type_name(&any.type_url))))
            .within("stats_sinks[0]")?;
        let at = "stats_sinks[0].typed_config";
        let refused = [
            ("report_counters_as_deltas", config.report_counters_as_deltas),
            ("report_histograms_as_deltas", config.report_histograms_as_deltas),
            ("resource_detectors", !config.resource_detectors.is_empty()),
            ("custom_metric_conversions", config.custom_metric_conversions.is_some()),
        ];
        if let Some((name, _)) = refused.iter().find(|(_, written)| *written) {
            return Err(Refusal::unsupported(*name)).within(at);
        }
        let service = match &config.protocol_specifier {
            Some(ProtocolSpecifier::GrpcService(service)) => Service::parse(Some(service)).within(at)?,
            Some(ProtocolSpecifier::HttpService(_)) => return Err(Refusal::unsupported("http_service")).within(at),
            None => return Err(Refusal::new("grpc_service", "is needed")).within(at),
        };
        let about = [
            ("service.instance.id", node),
            ("service.name", &*workload.canonical_service),
            ("service.namespace", &*workload.namespace),
            ("service.version", &*workload.canonical_revision),
            ("k8s.cluster.name", &*workload.cluster),
        ];
        Ok(Some(Self {
            service,
            interval: bootstrap
                .stats_flush_interval
                .as_ref()
                .map(from_proto)
                .filter(|time| !time.is_zero())
                .unwrap_or(FLUSH),
            prefix: if config.prefix.is_empty() { "".into() } else { format!("{}.", config.prefix).into() },
            resource: resource(about.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec()),
            started: nanos(now),
            accepted: HashMap::default(),
            hasher: foldhash::fast::RandomState::default(),
            reports: 0,
        }))
    }

    /// The report that is due at `now`; `None` where nothing has changed.
    pub fn report(&mut self, snapshot: &Snapshot, now: SystemTime) -> Option<Report> {
        let all = self.reports.is_multiple_of(ALL_EVERY);
        self.reports = self.reports.wrapping_add(1);
        let mut points = Points::new();
        let mut told = Vec::new();
        for (family, labels, cells) in snapshot.scopes() {
            let series = self.hasher.hash_one((std::ptr::from_ref(family).addr(), labels));
            let values = self.hasher.hash_one(cells);
            if !all && self.accepted.get(&series) == Some(&values) {
                continue;
            }
            if self.collect(snapshot, (family, labels, cells), &mut points) {
                told.push((series, values));
            }
        }
        if points.is_empty() {
            return None;
        }
        let (started, now) = (self.started, nanos(now));
        let metrics = points.into_iter().map(|(name, (kind, points))| metric(name, kind, points, (started, now)));
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Resource::decode(self.resource.clone()).ok(),
                scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }],
                ..ResourceMetrics::default()
            }],
        };
        Some(Report { message: request.encode_to_vec(), told })
    }

    /// Adds the used metrics of a scope; whether there are any.
    fn collect(
        &self,
        snapshot: &Snapshot,
        (family, labels, cells): (&'static Family, &Labels, &[u64]),
        points: &mut Points,
    ) -> bool {
        let mut any = false;
        for (index, metric) in family.metrics.iter().enumerate() {
            let values = family.of(index, cells);
            if values.iter().all(|value| *value == 0) || !snapshot.keeps(family, metric, labels) {
                continue;
            }
            any = true;
            let name = name(&self.prefix, family, metric);
            let attributes = labels.iter().map(|(key, value)| string(&attribute(snapshot.config(), key), &**value));
            let (_, all) = points.entry(name).or_insert_with(|| (metric.kind, Vec::new()));
            all.push((attributes.collect(), values.to_vec()));
        }
        any
    }

    /// A report was accepted.
    pub fn accepted(&mut self, report: Report) {
        self.accepted.extend(report.told);
    }

    /// A report was not accepted: the next one holds all series.
    pub fn refused(&mut self) {
        self.reports = 0;
    }
}

/// `cluster.upstream_rq_total`; Istio's names stand alone.
fn name(prefix: &str, family: &Family, metric: &Metric) -> String {
    match family.prefix {
        "" => format!("{prefix}{}", metric.name),
        first => format!("{prefix}{first}.{}", metric.name),
    }
}

/// The tag's name as Envoy has it: `envoy.cluster_name`.
fn attribute(config: &StatsConfig, label: &str) -> String {
    match config.label(label).split_once('_') {
        Some(("envoy", rest)) => format!("envoy.{rest}"),
        _ => config.label(label).to_owned(),
    }
}

fn metric(name: String, kind: MetricKind, points: Vec<(Vec<KeyValue>, Vec<u64>)>, (started, now): (u64, u64)) -> Told {
    let number = |(attributes, values): (Vec<KeyValue>, Vec<u64>)| NumberDataPoint {
        attributes,
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(Value::AsInt(values.first().copied().unwrap_or_default().cast_signed())),
        ..NumberDataPoint::default()
    };
    let data = match kind {
        MetricKind::Counter => Data::Sum(Sum {
            data_points: points.into_iter().map(number).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        MetricKind::Gauge => Data::Gauge(Gauge { data_points: points.into_iter().map(number).collect() }),
        MetricKind::Histogram => Data::Histogram(Histogram {
            data_points: points
                .into_iter()
                .map(|(attributes, mut values)| {
                    let sum = values.pop().unwrap_or_default();
                    HistogramDataPoint {
                        attributes,
                        start_time_unix_nano: started,
                        time_unix_nano: now,
                        count: values.iter().sum(),
                        sum: Some(sum as f64),
                        bucket_counts: values,
                        explicit_bounds: BUCKETS.to_vec(),
                        ..HistogramDataPoint::default()
                    }
                })
                .collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    Told { name, data: Some(data), ..Told::default() }
}

#[cfg(test)]
mod tests {
    use super::super::names::IstioHttpMetric;
    use super::super::{MAX_SCOPES, Registry};
    use super::*;
    use serde_json::json;
    use std::time::UNIX_EPOCH;

    fn sink(config: &serde_json::Value) -> Result<Option<MetricSink>, Refusal> {
        let mut config = config.clone();
        config["@type"] = "type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig".into();
        let bootstrap = json!({"stats_sinks": [{"name": "s", "typed_config": config}]});
        let bytes = proto::json::from_value("envoy.config.bootstrap.v3.Bootstrap", &bootstrap).unwrap();
        MetricSink::of(&Bootstrap::decode(bytes.as_slice()).unwrap(), "n", &Workload::default(), UNIX_EPOCH)
    }

    // spec: MX-99
    #[test]
    fn a_series_is_told_when_it_changes_until_it_is_accepted_and_now_and_then_all_the_same() {
        let mut sink = sink(&json!({"grpc_service": {"envoy_grpc": {"cluster_name": "m"}}})).unwrap().unwrap();
        assert_eq!(sink.interval, FLUSH);
        let mut registry = Registry::new();
        let registrar = registry.registrar(MAX_SCOPES);
        let cells = registrar.try_cells::<IstioHttpMetric>([("reporter", "source".into())].into()).unwrap();
        let now = UNIX_EPOCH;
        assert!(sink.report(&registry.collect(), now).is_none(), "nothing has been counted");
        cells.increment(IstioHttpMetric::RequestsTotal);
        let first = sink.report(&registry.collect(), now).unwrap();
        let lost = sink.report(&registry.collect(), now).unwrap();
        assert_eq!(first.message, lost.message, "what was not accepted is told again");
        sink.accepted(lost);
        assert!(sink.report(&registry.collect(), now).is_none());
        cells.increment(IstioHttpMetric::RequestsTotal);
        let changed = sink.report(&registry.collect(), now).unwrap();
        sink.accepted(changed);
        let told = (0..2 * ALL_EVERY).filter(|_| sink.report(&registry.collect(), now).is_some()).count();
        assert_eq!(told, 2, "a collector that came back learns all of them");
        sink.refused();
        assert!(sink.report(&registry.collect(), now).is_some());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let with = |field: &str, value: serde_json::Value| {
            let mut config = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "m"}}});
            config[field] = value;
            sink(&config).unwrap_err().to_string()
        };
        assert!(with("report_counters_as_deltas", true.into()).contains("report_counters_as_deltas"));
        assert!(sink(&json!({})).unwrap_err().to_string().contains("stats_sinks[0].typed_config.grpc_service"));
    }
}
