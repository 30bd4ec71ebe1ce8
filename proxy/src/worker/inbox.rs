//! What the main thread tells a worker.

use crate::cluster::ClusterConfig;
use crate::endpoint::HostSet;
use crate::listener::ListenerConfig;
use crate::route::RouteTable;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::oneshot;

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
    /// Connections are to end as their requests end.
    Drain {
        /// Only those of inbound listeners.
        inbound_only: bool,
    },
    /// How is it going?
    Report(ReportTo),
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Downstream connections that are open.
    pub connections: u64,
}

/// Where a report goes.
#[derive(Debug)]
pub struct ReportTo(pub oneshot::Sender<WorkerReport>);

impl ReportTo {
    pub(super) fn answer(self, report: WorkerReport) {
        if self.0.send(report).is_err() {
            tracing::trace!("nobody waits for the report any more");
        }
    }
}
