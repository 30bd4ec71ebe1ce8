//! Envoy's access log service (MX-95, MX-118): a stream of entries from each proxy.
//!
//! Nothing waits for an answer: the service answers only when the proxy ends the stream. A stream that floods is read
//! more slowly than it sends, and what is beyond the rate is counted and not kept.

use crate::export::file::Writer;
use crate::join::entry::Logged;
use crate::policy::Engine;
use crate::report::als::Origin;
use crate::report::count::count;
use crate::report::entry::Entry;
use crate::report::hub::{Hub, Intake};
use crate::serve::door::peer_of;
use crate::workload::Follower;
use proto::envoy::accesslog_service::access_log_service_server::{AccessLogService, AccessLogServiceServer};
use proto::envoy::accesslog_service::stream_access_logs_message::LogEntries;
use proto::envoy::accesslog_service::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use proto::wire::LOG_FAILURES;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

/// Entries per second that one stream may send, with twice as many at once.
pub const ENTRIES_PER_SECOND: f64 = 5_000.;
/// Largest message; Envoy sends 16 KiB.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The service.
#[derive(Clone)]
pub struct AccessLog {
    /// Where failures go.
    pub hub: Hub,
    /// Who is behind an address.
    pub workloads: Follower,
    /// Where lines are written, if anywhere.
    pub writer: Option<Writer>,
    /// Whose adapters are told of requests that are over.
    pub engine: Arc<Engine>,
    /// Tells series apart.
    pub hasher: Arc<foldhash::fast::RandomState>,
}

/// What a log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Every request.
    Complete,
    /// Failed and sampled requests of a proxy that counts itself.
    Partial,
}

impl AccessLog {
    /// As a gRPC service.
    pub fn service(self) -> AccessLogServiceServer<Self> {
        AccessLogServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Takes entries of one proxy: lines are written, failures kept, and all counted where the log has every request.
    pub async fn take(&self, kind: &str, entries: Vec<Entry>, log: Log) {
        self.hub.meters().take(kind, entries.len());
        if let Some(report) = (log == Log::Complete).then(|| count(&entries, &*self.hasher)).flatten() {
            let points = report.points.len();
            if self.hub.take(Intake::Metrics(vec![report])).await.is_err() {
                self.hub.meters().drop("metrics", "busy", points);
            }
        }
        let policy = self.engine.policy();
        if log == Log::Complete && policy.reports() {
            entries.iter().for_each(|entry| policy.report(&Logged::new(entry).bag(&policy.vocabulary)));
        }
        if let Some(writer) = &self.writer {
            entries.iter().for_each(|entry| writer.write(entry));
        }
        let failed: Vec<Entry> = entries.into_iter().filter(Entry::failed).collect();
        let count = failed.len();
        if count > 0 && self.hub.take(Intake::Entries(failed)).await.is_err() {
            self.hub.meters().drop(kind, "busy", count);
        }
    }
}

#[tonic::async_trait]
impl AccessLogService for AccessLog {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let proven = peer_of(&request)?.id().cloned();
        let mut stream = request.into_inner();
        let mut origin = Origin::default();
        let mut log = Log::Complete;
        let mut bucket = Bucket::new(ENTRIES_PER_SECOND);
        while let Some(message) = stream.message().await? {
            // Only the first message of a stream names the sender.
            if let Some(identifier) = message.identifier {
                origin = identifier.node.as_ref().map(Origin::new).unwrap_or_default();
                if let Some(id) = &proven {
                    origin.prove(id).map_err(Status::permission_denied)?;
                }
                log = if identifier.log_name == LOG_FAILURES { Log::Partial } else { Log::Complete };
            }
            let table = self.workloads.table();
            let mut entries: Vec<Entry> = match message.log_entries {
                Some(LogEntries::HttpLogs(logs)) => {
                    logs.log_entry.into_iter().map(|logged| origin.http(logged, &table)).collect()
                }
                Some(LogEntries::TcpLogs(logs)) => {
                    logs.log_entry.into_iter().map(|logged| origin.tcp(logged, &table)).collect()
                }
                None => continue,
            };
            let allowed = bucket.take(entries.len());
            self.hub.meters().drop("access_log", "rate", entries.len() - allowed);
            entries.truncate(allowed);
            self.take("access_log", entries, log).await;
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

/// A rate of entries.
struct Bucket {
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: f64) -> Self {
        Self { per_second, left: 2. * per_second, filled: Instant::now() }
    }

    /// How many of `wanted` may pass now.
    fn take(&mut self, wanted: usize) -> usize {
        let elapsed: Duration = self.filled.elapsed();
        self.filled = Instant::now();
        self.left = (self.left + elapsed.as_secs_f64() * self.per_second).min(2. * self.per_second);
        let allowed = wanted.min(self.left as usize);
        self.left -= allowed as f64;
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_passes_at_the_rate() {
        let mut bucket = Bucket::new(100.);
        assert_eq!((bucket.take(150), bucket.take(100), bucket.take(1)), (150, 50, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(bucket.take(1000), 100);
    }
}
