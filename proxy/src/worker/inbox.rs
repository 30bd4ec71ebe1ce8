//! What the main thread tells a worker.

use crate::cluster::ClusterConfig;
use crate::drain::Terms;
use crate::endpoint::HostSet;
use crate::listener::{Connections, ListenerConfig};
use crate::net::Service;
use crate::route::RouteTable;
use crate::telemetry::tap::Tap;
use bytes::Bytes;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Which listeners are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those for traffic to the workload.
    Inbound,
}

impl Which {
    /// The narrower of the two that a listener belongs to.
    pub fn of(listener: &ListenerConfig) -> Self {
        if listener.inbound { Self::Inbound } else { Self::All }
    }

    /// Whether a listener is meant.
    pub fn takes(self, listener: &ListenerConfig) -> bool {
        !listener.drains_by_change && (self == Self::All || listener.inbound)
    }
}

/// A changed part, or a question.
#[derive(Debug)]
pub enum Message {
    /// A cluster is new or changed.
    Cluster(Arc<ClusterConfig>, Arc<HostSet>),
    /// A cluster is gone.
    RemoveCluster(Arc<str>),
    /// A cluster's endpoints have changed.
    Hosts(Arc<str>, Arc<HostSet>),
    /// A route table is new or changed.
    Routes(Arc<str>, Arc<RouteTable>),
    /// A route table is gone.
    RemoveRoutes(Arc<str>),
    /// A listener is new or changed; sockets only where the address is new.
    Listener(Arc<ListenerConfig>, Vec<TcpListener>),
    /// A listener is gone.
    RemoveListener(Arc<str>),
    /// The connections of these listeners are to leave.
    Drain(Which, Terms),
    /// A drain of all listeners is called off.
    CallOffDrain,
    /// These listeners accept no more.
    StopAccepting(Which),
    /// How is it going?
    Report(ReportTo),
    /// Somebody looks at requests.
    Tap(Tap),
    /// A gRPC call that the main thread has to make.
    Call(Box<Call>),
}

/// A gRPC call of the main thread.
#[derive(Debug)]
pub struct Call {
    /// The service.
    pub service: Service,
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The message, framed.
    pub message: Bytes,
    /// Gets whether it was answered with OK.
    pub done: oneshot::Sender<bool>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Its downstream connections.
    pub connections: Connections,
}

/// Where a report goes.
#[derive(Debug)]
pub struct ReportTo(pub oneshot::Sender<WorkerReport>);

impl ReportTo {
    pub(crate) fn answer(self, report: WorkerReport) {
        if self.0.send(report).is_err() {
            tracing::trace!("nobody waits for the report any more");
        }
    }
}
