//! OTLP (MX-99): metrics, logs and traces, over gRPC and over HTTP (protobuf and JSON), also compressed.

use crate::export::otlp::Exporter;
use crate::report::hub::{Busy, Intake};
use crate::report::proof::{Caller, Forged, correct_spans};
use crate::report::{log, point, span};
use crate::serve::access_log::{AccessLog, Log};
use crate::serve::door::peer_of;
use proto::otlp::logs_service::logs_service_server::{LogsService, LogsServiceServer};
use proto::otlp::logs_service::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use proto::otlp::metrics_service::metrics_service_server::{MetricsService, MetricsServiceServer};
use proto::otlp::metrics_service::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use proto::otlp::trace_service::trace_service_server::{TraceService, TraceServiceServer};
use proto::otlp::trace_service::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::codec::CompressionEncoding;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

/// Largest message, decompressed.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Spans and log records that one message may hold.
const MAX_ITEMS: usize = 20_000;

/// Why a message is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// mixer cannot keep up: the sender may come again.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It is in the name of others.
    #[error(transparent)]
    Forged(#[from] Forged),
}

/// The three services.
#[derive(Clone)]
pub struct Otlp {
    logs: AccessLog,
    exporter: Option<Exporter>,
}

impl Otlp {
    /// The services; log records go the way of the access log.
    pub fn new(logs: AccessLog, exporter: Option<Exporter>) -> Self {
        Self { logs, exporter }
    }

    /// Adds them as gRPC services.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let gzip = CompressionEncoding::Gzip;
        let metrics = MetricsServiceServer::new(self.clone()).accept_compressed(gzip);
        let logs = LogsServiceServer::new(self.clone()).accept_compressed(gzip);
        let traces = TraceServiceServer::new(self.clone()).accept_compressed(gzip);
        routes
            .add_service(metrics.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(logs.max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(traces.max_decoding_message_size(MAX_MESSAGE_BYTES));
    }

    /// Takes metrics.
    ///
    /// # Errors
    /// When mixer cannot keep up, or when the sender is not who it says it is.
    pub async fn metrics(
        &self,
        request: ExportMetricsServiceRequest,
        caller: Caller<'_>,
    ) -> Result<ExportMetricsServiceResponse, Refused> {
        let meters = self.logs.hub.meters();
        let intake = point::take(request.resource_metrics, caller, &*self.logs.hasher)
            .inspect_err(|_| meters.drop("metrics", "forged", 1))?;
        meters.take("metrics", intake.reports.iter().map(|report| report.points.len()).sum());
        meters.drop("metrics", "unknown", intake.unknown);
        meters.drop("metrics", "malformed", intake.refused);
        meters.drop("metrics", "unproven", intake.unproven);
        let rejected = intake.refused + intake.unproven;
        self.logs.hub.take(Intake::Metrics(intake.reports)).await.inspect_err(|_| meters.drop("metrics", "busy", 1))?;
        let partial_success = (rejected > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: i64::try_from(rejected).unwrap_or(i64::MAX),
            error_message: format!(
                "values must be finite, histograms explicit, the reporter source or destination, and at most {} points \
                 in a message",
                point::MAX_POINTS
            ),
        });
        Ok(ExportMetricsServiceResponse { partial_success })
    }

    /// Takes log records.
    ///
    /// # Errors
    /// When the sender is not who it says it is.
    pub async fn logs(
        &self,
        mut request: ExportLogsServiceRequest,
        caller: Caller<'_>,
    ) -> Result<ExportLogsServiceResponse, Refused> {
        let mut room = MAX_ITEMS;
        for scope in request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs) {
            self.logs.hub.meters().drop("logs", "many", scope.log_records.len().saturating_sub(room));
            scope.log_records.truncate(room);
            room -= scope.log_records.len();
        }
        let (entries, other) = log::take(&request.resource_logs, caller, &self.logs.workloads.table())
            .inspect_err(|_| self.logs.hub.meters().drop("logs", "forged", 1))?;
        self.logs.hub.meters().drop("logs", "no_access_log", other);
        self.logs.take("logs", entries, Log::Partial).await;
        Ok(ExportLogsServiceResponse::default())
    }

    /// Takes spans, and hands them on to the other collector where there is one.
    ///
    /// # Errors
    /// When mixer cannot keep up: the sender may come again. When the sender is not who it says it is.
    pub async fn traces(
        &self,
        mut request: ExportTraceServiceRequest,
        caller: Caller<'_>,
    ) -> Result<ExportTraceServiceResponse, Refused> {
        let mut room = MAX_ITEMS;
        for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            self.logs.hub.meters().drop("spans", "many", scope.spans.len().saturating_sub(room));
            scope.spans.truncate(room);
            room -= scope.spans.len();
        }
        let meters = self.logs.hub.meters();
        correct_spans(&mut request.resource_spans, caller).inspect_err(|_| meters.drop("spans", "forged", 1))?;
        let spans = span::take(&request.resource_spans);
        meters.take("spans", spans.len());
        meters.drop("spans", "malformed", MAX_ITEMS - room - spans.len());
        self.logs.hub.take(Intake::Spans(spans)).await.inspect_err(|_| meters.drop("spans", "busy", 1))?;
        if let Some(exporter) = &self.exporter {
            exporter.spans(request);
        }
        Ok(ExportTraceServiceResponse::default())
    }
}

fn status(refused: Refused) -> Status {
    match refused {
        Refused::Busy(busy) => Status::unavailable(busy.to_string()),
        Refused::Forged(forged) => Status::permission_denied(forged.to_string()),
    }
}

#[tonic::async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let peer = peer_of(&request)?;
        self.metrics(request.into_inner(), (&peer).into()).await.map(Response::new).map_err(status)
    }
}

#[tonic::async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let peer = peer_of(&request)?;
        self.logs(request.into_inner(), (&peer).into()).await.map(Response::new).map_err(status)
    }
}

#[tonic::async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let peer = peer_of(&request)?;
        self.traces(request.into_inner(), (&peer).into()).await.map(Response::new).map_err(status)
    }
}
