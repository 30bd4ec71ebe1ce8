//! Spans and merged metrics handed on to another collector by OTLP over gRPC.

use crate::report::family::Kind;
use crate::report::hub::Hub;
use crate::report::names::Meters;
use crate::report::point::{Value, attribute};
use crate::report::series::{Labels, Series};
use anyhow::Context as _;
use proto::otlp::metrics::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use proto::otlp::metrics_service::ExportMetricsServiceRequest;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use proto::otlp::resource::Resource;
use proto::otlp::trace_service::ExportTraceServiceRequest;
use proto::otlp::trace_service::trace_service_client::TraceServiceClient;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

/// Messages with spans that wait; further ones are dropped and counted.
const QUEUE: usize = 64;
/// Metrics are handed on so often.
const PERIOD: Duration = Duration::from_secs(10);
/// Series of one message.
const SERIES: usize = 500;
/// How long the collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the other collector.
#[derive(Debug, Clone)]
pub struct Exporter {
    spans: mpsc::Sender<ExportTraceServiceRequest>,
    meters: Meters,
}

impl Exporter {
    /// An exporter to a URL such as `http://collector:4317`, and its loop. It connects when there is something to send.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn new(url: &str, hub: Hub) -> anyhow::Result<(Self, impl Future<Output = anyhow::Result<()>> + use<>)> {
        let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("--otlp-export {url}"))?;
        let channel = endpoint.timeout(TIMEOUT).connect_timeout(TIMEOUT).connect_lazy();
        let (spans, queue) = mpsc::channel(QUEUE);
        let exporter = Self { spans, meters: hub.meters().clone() };
        Ok((exporter, run(channel, queue, hub)))
    }

    /// Hands on spans, or drops them where too many wait.
    pub fn spans(&self, request: ExportTraceServiceRequest) {
        let count = request.resource_spans.len();
        if self.spans.try_send(request).is_err() {
            self.meters.drop("export_spans", "queue", count);
        }
    }
}

async fn run(channel: Channel, mut queue: mpsc::Receiver<ExportTraceServiceRequest>, hub: Hub) -> anyhow::Result<()> {
    let mut traces = TraceServiceClient::new(channel.clone());
    let mut metrics = MetricsServiceClient::new(channel);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start = nanos();
    let meters = hub.meters().clone();
    let count = |taken: Result<(), tonic::Status>, kind: &str| match taken {
        Ok(()) => meters.exported.inc(),
        Err(status) => {
            meters.drop(kind, "collector", 1);
            tracing::debug!(%status, kind, "the other collector did not take a message");
        }
    };
    loop {
        tokio::select! {
            request = queue.recv() => match request {
                Some(request) => count(traces.export(request).await.map(|_| ()), "export_spans"),
                None => return Ok(()),
            },
            _ = tick.tick() => {
                let Some(series) = hub.ask(|state, _| state.series().all().to_vec()).await else { return Ok(()) };
                for part in series.chunks(SERIES) {
                    count(metrics.export(message(part, start)).await.map(|_| ()), "export_metrics");
                }
            }
        }
    }
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn message(series: &[Series], start: u64) -> ExportMetricsServiceRequest {
    let now = nanos();
    let metrics = series.iter().map(|series| metric(series, start, now)).collect();
    let resource = Resource { attributes: vec![attribute("service.name", "mixer")], ..Resource::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(series: &Series, start: u64, now: u64) -> Metric {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let attributes = |labels: &Labels| labels.iter().map(|(name, value)| attribute(name, value)).collect();
    let data = match &series.total {
        Value::Number(total) => {
            let point = NumberDataPoint {
                attributes: attributes(&series.labels),
                start_time_unix_nano: start,
                time_unix_nano: now,
                value: Some(number_data_point::Value::AsDouble(*total)),
                ..NumberDataPoint::default()
            };
            match series.family.kind() {
                Kind::Gauge => metric::Data::Gauge(Gauge { data_points: vec![point] }),
                _ => {
                    let data_points = vec![point];
                    metric::Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic: true })
                }
            }
        }
        Value::Histogram(counts, sum, bounds) => metric::Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                attributes: attributes(&series.labels),
                start_time_unix_nano: start,
                time_unix_nano: now,
                count: counts.iter().sum(),
                sum: Some(*sum),
                bucket_counts: counts.clone(),
                explicit_bounds: bounds.clone(),
                ..HistogramDataPoint::default()
            }],
            aggregation_temporality: cumulative,
        }),
    };
    Metric { name: series.family.name().to_owned(), data: Some(data), ..Metric::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::family::{BOUNDS, Family};
    use crate::report::point::{self, Since};
    use crate::report::proof::Caller;
    use crate::report::series::SeriesTable;

    // spec: MX-99
    #[test]
    fn what_is_handed_on_says_the_same() {
        let mut table = SeriesTable::new(10);
        let labels = [attribute("reporter", "source"), attribute("response_code", "200")];
        let counts = table.find(Family::Requests, &labels);
        table.add(counts, &Value::Number(42.));
        let histogram = Value::Histogram(vec![1; BOUNDS.len() + 1], 77., BOUNDS.to_vec());
        let times = table.find(Family::Duration, &labels);
        table.add(times, &histogram);
        let sent = message(table.all(), 7);
        let caller = Caller { address: [127, 0, 0, 1].into(), id: None };
        let intake = point::take(sent.resource_metrics, caller, &foldhash::fast::RandomState::default()).unwrap();
        let taken = &intake.reports[0].points;
        assert_eq!((intake.unknown, intake.refused, taken.len()), (0, 0, 2));
        assert_eq!((taken[0].family, &taken[0].value, taken[0].start), (Family::Requests, &Value::Number(42.), 7));
        assert_eq!((taken[1].family, &taken[1].value), (Family::Duration, &histogram));
        assert!(taken.iter().all(|point| point.since == Since::Start && point.labels == labels));
    }
}
