//! Sends each worker the changed parts, in order.

use crate::listener::Connections;
use crate::net::Service;
use crate::worker::{Call, Message, ReportTo, WorkerReport};
use bytes::Bytes;
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

    /// Has the first worker make a call; whether it was answered with OK.
    pub async fn call(&self, service: &Service, path: &'static str, message: Bytes) -> bool {
        let (done, answer) = oneshot::channel();
        let call = Box::new(Call { service: service.clone(), path, message, done });
        match self.inboxes.first() {
            Some(inbox) if inbox.send(Message::Call(call)).await.is_ok() => answer.await.unwrap_or(false),
            _ => false,
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

    /// Downstream connections of all workers.
    pub async fn connections(&self) -> Connections {
        self.reports().await.iter().map(|report| report.connections).fold(Connections::default(), std::ops::Add::add)
    }
}
