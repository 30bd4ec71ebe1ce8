//! Reports the metrics to a collector, as the bootstrap's `stats_sinks` says.

use super::admin::StatsReader;
use crate::publish::Workers;
use crate::telemetry::MetricSink;
use crate::upstream::framed;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
/// Time that the last report has.
const LAST: Duration = Duration::from_secs(1);

/// The task that reports.
#[derive(Debug)]
pub(super) struct Reporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Reporter {
    /// Starts it.
    pub(super) fn start(sink: MetricSink, stats: StatsReader, workers: Workers) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(report(sink, stats, workers, stopped)) }
    }

    /// Reports once more, and ends.
    pub(super) async fn finish(self) {
        let Self { stop, mut task } = self;
        drop(stop);
        if tokio::time::timeout(LAST, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn report(mut sink: MetricSink, stats: StatsReader, workers: Workers, mut stopped: oneshot::Receiver<()>) {
    let mut tick = tokio::time::interval(sink.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut going_on = true;
    while going_on {
        tokio::select! {
            _ = tick.tick() => {}
            _ = &mut stopped => going_on = false,
        }
        let Some(snapshot) = stats.snapshot().await else { return };
        let Some(report) = sink.report(&snapshot, SystemTime::now()) else { continue };
        let Ok(message) = framed(&report.message) else { continue };
        if workers.call(&sink.service, METRICS, message).await {
            sink.accepted(report);
        } else {
            sink.refused();
        }
    }
}
