//! Sends each worker the changed parts, in order.

use crate::worker::{Message, ReportTo, WorkerReport};
use tokio::sync::{mpsc, oneshot};

/// The inboxes of all workers.
#[derive(Debug, Clone)]
pub struct Workers {
    inboxes: Vec<mpsc::Sender<Message>>,
}

impl Workers {
    /// Workers with these inboxes.
    pub fn new(inboxes: Vec<mpsc::Sender<Message>>) -> Self {
        Self { inboxes }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// Sends every worker what `make` makes for its index. A worker that has ended is passed over.
    pub async fn tell(&self, mut make: impl FnMut(usize) -> Message) {
        for (index, inbox) in self.inboxes.iter().enumerate() {
            if inbox.send(make(index)).await.is_err() {
                tracing::warn!(worker = index, "worker has ended");
            }
        }
    }

    /// Reports of all workers; also a proof that everything sent before was taken over.
    pub async fn reports(&self) -> Vec<WorkerReport> {
        let mut reports = Vec::new();
        for inbox in &self.inboxes {
            let (to, from) = oneshot::channel();
            if inbox.send(Message::Report(ReportTo(to))).await.is_ok() {
                reports.extend(from.await);
            }
        }
        reports
    }

    /// Downstream connections that are open.
    pub async fn connections(&self) -> u64 {
        self.reports().await.iter().map(|report| report.connections).sum()
    }
}
