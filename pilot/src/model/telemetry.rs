//! Telemetry as meant: what a workload reports of each side of a request, and to whom (spec 1.10).

use super::check::Check;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::provider::ExtensionProvider;
use proto::istio::telemetry as written;
use proto::istio::telemetry::{CustomTag, IstioMetric, ModeSelector, TagOperation, WorkloadMode};
use std::collections::BTreeMap;
use std::time::Duration;

/// A side of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The workload asks.
    Client,
    /// The workload is asked.
    Server,
}

/// One Telemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    key: Key,
    selector: BTreeMap<String, String>,
    spec: written::Telemetry,
}

/// Parses, and so validates, a Telemetry.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    object: &Object,
    spec: &written::Telemetry,
    providers: &[ExtensionProvider],
) -> Result<Telemetry, Vec<Problem>> {
    let mut check = Check::new(object);
    let known = |names: &[written::ProviderRef], built_in: &str, field: &str, check: &mut Check<'_>| {
        for (i, provider) in names.iter().enumerate() {
            let known = provider.name == built_in || providers.iter().any(|known| known.name == provider.name);
            let message =
                format!("{:?} is no provider: MeshConfig.extensionProviders has none of this name", provider.name);
            check.require(known, format!("{field}.providers[{i}].name"), message);
        }
    };
    for (i, tracing) in spec.tracing.iter().enumerate() {
        let field = format!("spec.tracing[{i}]");
        known(&tracing.providers, "", &field, &mut check);
        check.require(
            tracing.providers.len() <= 1,
            format!("{field}.providers"),
            "there can be one provider of traces",
        );
        let good = tracing.random_sampling_percentage.is_none_or(|percent| (0.0..=100.0).contains(&percent));
        check.require(good, format!("{field}.randomSamplingPercentage"), "from 0 to 100");
        for (name, tag) in &tracing.custom_tags {
            let forms =
                [tag.literal.is_some(), tag.environment.is_some(), tag.header.is_some(), tag.formatter.is_some()];
            let one = forms.into_iter().filter(|there| *there).count() == 1;
            check.require(
                one,
                format!("{field}.customTags.{name}"),
                "exactly one of literal, environment, header and formatter is needed",
            );
        }
    }
    for (i, metrics) in spec.metrics.iter().enumerate() {
        let field = format!("spec.metrics[{i}]");
        known(&metrics.providers, "prometheus", &field, &mut check);
        let often = metrics.reporting_interval.is_some_and(|time| time.0 < SHORTEST_INTERVAL);
        check.require(!often, format!("{field}.reportingInterval"), "at least 1s");
        for (j, change) in metrics.overrides.iter().enumerate() {
            let field = format!("{field}.overrides[{j}]");
            let custom = change.r#match.as_ref().is_some_and(|selector| selector.custom_metric.is_some());
            let message = "no proxy has metrics beyond Istio's: name one by metric, such as REQUEST_COUNT";
            check.require(!custom, format!("{field}.match.customMetric"), message);
            for (tag, change) in &change.tag_overrides {
                let empty = change.operation == TagOperation::Upsert && change.value.is_empty();
                check.require(
                    !empty,
                    format!("{field}.tagOverrides.{tag}.value"),
                    "is needed to add or change a label",
                );
            }
        }
    }
    for (i, logging) in spec.access_logging.iter().enumerate() {
        let field = format!("spec.accessLogging[{i}]");
        known(&logging.providers, "envoy", &field, &mut check);
        let empty = logging.filter.as_ref().is_some_and(|filter| filter.expression.is_empty());
        check.require(!empty, format!("{field}.filter.expression"), "is empty");
    }
    let selector = spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default();
    check.finish(Telemetry { key: object.key.clone(), selector, spec: spec.clone() })
}

/// All Telemetries of the mesh, oldest first, and what holds without them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetries {
    all: Vec<Telemetry>,
    root: String,
}

/// An access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Logging {
    /// Name of the provider.
    pub provider: String,
    /// Which entries are written, in CEL.
    pub filter: Option<String>,
}

/// Traces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tracing {
    /// Name of the provider; none: nobody is told.
    pub provider: Option<String>,
    /// Share of requests in ten-thousandths.
    pub sampling: u32,
    /// The collector is not told, but the next hop is.
    pub no_reports: bool,
    /// Tags by name.
    pub tags: BTreeMap<String, CustomTag>,
    /// The request's id decides.
    pub by_request_id: bool,
    /// Tags about the workload and the mesh.
    pub istio_tags: bool,
}

/// What one side of a workload reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Effective {
    /// Access logs by provider.
    pub logs: Vec<Logging>,
    /// Traces; none: not at all.
    pub tracing: Option<Tracing>,
    /// Providers of metrics.
    pub metrics: Vec<String>,
    /// What is changed of Istio's metrics, by their Prometheus name without `istio_`.
    pub changes: BTreeMap<&'static str, MetricChange>,
    /// Time between two reports of a connection that goes on (TL-3); none: the proxy's own.
    pub reporting_interval: Option<Duration>,
}

/// What is changed of a metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MetricChange {
    /// It is left out.
    pub disabled: bool,
    /// Labels with the expression of their value; none: the label is left out.
    pub tags: BTreeMap<String, Option<String>>,
}

/// Reports of a connection are not made more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What holds for every workload without a Telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults<'a> {
    /// Providers of access logs.
    pub logs: &'a [String],
    /// Provider of traces.
    pub tracing: Option<&'a String>,
    /// Traces are made at all.
    pub enable_tracing: bool,
    /// Share of requests that are traced, in hundredths of a percent.
    pub sampling: u32,
    /// Providers of metrics.
    pub metrics: &'a [String],
}

/// Istio's metrics and what they are called.
const METRICS: [(IstioMetric, &str); 10] = [
    (IstioMetric::RequestCount, "requests_total"),
    (IstioMetric::RequestDuration, "request_duration_milliseconds"),
    (IstioMetric::RequestSize, "request_bytes"),
    (IstioMetric::ResponseSize, "response_bytes"),
    (IstioMetric::TcpOpenedConnections, "tcp_connections_opened_total"),
    (IstioMetric::TcpClosedConnections, "tcp_connections_closed_total"),
    (IstioMetric::TcpSentBytes, "tcp_sent_bytes_total"),
    (IstioMetric::TcpReceivedBytes, "tcp_received_bytes_total"),
    (IstioMetric::GrpcRequestMessages, "request_messages_total"),
    (IstioMetric::GrpcResponseMessages, "response_messages_total"),
];

impl Telemetries {
    /// Telemetries that come oldest first.
    pub fn new(all: Vec<Telemetry>, root: &str) -> Self {
        Self { all, root: root.to_owned() }
    }

    /// What holds for one side of a workload: mesh, then namespace, then workload; the oldest counts in each (TL-1).
    pub fn effective(
        &self,
        (namespace, labels): (&str, &BTreeMap<String, String>),
        side: Side,
        defaults: &Defaults<'_>,
    ) -> Effective {
        let mut effective = Effective {
            logs: defaults.logs.iter().map(|name| Logging { provider: name.clone(), filter: None }).collect(),
            tracing: defaults.enable_tracing.then(|| Tracing {
                provider: defaults.tracing.cloned(),
                sampling: defaults.sampling,
                no_reports: false,
                tags: BTreeMap::new(),
                by_request_id: true,
                istio_tags: true,
            }),
            metrics: defaults.metrics.to_vec(),
            changes: BTreeMap::new(),
            reporting_interval: None,
        };
        for telemetry in self.scopes(namespace, labels).into_iter().flatten() {
            effective.apply(&telemetry.spec, side);
        }
        effective
    }

    /// The Telemetry of the mesh, of the namespace and of the workload.
    fn scopes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> [Option<&Telemetry>; 3] {
        let mut scopes = [None; 3];
        for telemetry in &self.all {
            let (own, root) = (&*telemetry.key.namespace == namespace, *telemetry.key.namespace == self.root);
            let scope = match (telemetry.selector.is_empty(), own, root) {
                (false, true, _) if selects(&telemetry.selector, labels) => 2,
                (true, _, true) => 0,
                (true, true, false) => 1,
                _ => continue,
            };
            scopes[scope].get_or_insert(telemetry);
        }
        scopes
    }
}

fn is_for(mode: Option<&ModeSelector>, side: Side) -> bool {
    match mode.map(|selector| selector.mode).unwrap_or_default() {
        WorkloadMode::ClientAndServer => true,
        WorkloadMode::Client => side == Side::Client,
        WorkloadMode::Server => side == Side::Server,
    }
}

impl Effective {
    fn apply(&mut self, spec: &written::Telemetry, side: Side) {
        self.apply_logs(spec, side);
        for tracing in spec.tracing.iter().filter(|tracing| is_for(tracing.r#match.as_ref(), side)) {
            let Some(own) = &mut self.tracing else { continue };
            if let Some(provider) = tracing.providers.first() {
                own.provider = Some(provider.name.clone());
            }
            if let Some(percent) = tracing.random_sampling_percentage {
                own.sampling = (percent * 100.0).round() as u32;
            }
            if !tracing.custom_tags.is_empty() {
                own.tags.clone_from(&tracing.custom_tags);
            }
            own.no_reports = tracing.disable_span_reporting.unwrap_or(own.no_reports);
            own.by_request_id = tracing.use_request_id_for_trace_sampling.unwrap_or(own.by_request_id);
            own.istio_tags = tracing.enable_istio_tags.unwrap_or(own.istio_tags);
        }
        for metrics in &spec.metrics {
            self.reporting_interval = metrics.reporting_interval.map(|time| time.0).or(self.reporting_interval);
            if !metrics.providers.is_empty() {
                self.metrics = metrics.providers.iter().map(|provider| provider.name.clone()).collect();
            }
            if self.metrics.iter().any(|name| name == "prometheus") {
                self.apply_changes(&metrics.overrides, side);
            }
        }
    }

    /// Changes add up, and the last word on a label counts (TL-2).
    fn apply_changes(&mut self, overrides: &[written::MetricsOverride], side: Side) {
        for change in overrides {
            let selector = change.r#match.as_ref();
            let mode = selector.map(|selector| ModeSelector { mode: selector.mode });
            if !is_for(mode.as_ref(), side) {
                continue;
            }
            let metric = selector.and_then(|selector| selector.metric).unwrap_or_default();
            for (_, name) in METRICS.iter().filter(|(known, _)| metric == IstioMetric::AllMetrics || metric == *known) {
                let own = self.changes.entry(name).or_default();
                own.disabled = change.disabled.unwrap_or(own.disabled);
                let tags = change.tag_overrides.iter().map(|(tag, change)| {
                    (tag.clone(), (change.operation == TagOperation::Upsert).then(|| change.value.clone()))
                });
                own.tags.extend(tags);
            }
        }
    }

    /// Named providers take the place of the inherited ones; an entry without names speaks of all that are there.
    fn apply_logs(&mut self, spec: &written::Telemetry, side: Side) {
        let entries = || spec.access_logging.iter().filter(|entry| is_for(entry.r#match.as_ref(), side));
        if entries().any(|entry| !entry.providers.is_empty() && entry.disabled != Some(true)) {
            self.logs.clear();
        }
        for entry in entries() {
            let (names, off): (Vec<&String>, _) =
                (entry.providers.iter().map(|provider| &provider.name).collect(), entry.disabled == Some(true));
            let filter = entry.filter.as_ref().map(|filter| filter.expression.clone());
            match (names.is_empty(), off) {
                (true, true) => self.logs.clear(),
                (true, false) => {
                    if filter.is_some() {
                        self.logs.iter_mut().for_each(|log| log.filter.clone_from(&filter));
                    }
                }
                (false, true) => self.logs.retain(|log| !names.contains(&&log.provider)),
                (false, false) => {
                    self.logs.retain(|log| !names.contains(&&log.provider));
                    let added =
                        names.into_iter().map(|name| Logging { provider: name.clone(), filter: filter.clone() });
                    self.logs.extend(added);
                }
            }
        }
    }
}
