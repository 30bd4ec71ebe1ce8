//! One logged request or connection, in our words: what access logs write and what the page shows of a failure (MX-107).

use super::point::cut;
use crate::report::traffic::{Node, Reporter, UNKNOWN};
use crate::workload::Workload;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Longest text that is kept of a field.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Headers that are kept.
pub const MAX_HEADERS: usize = 64;

/// What was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A request.
    #[default]
    Http,
    /// A connection that opened.
    TcpOpen,
    /// A connection that goes on.
    TcpContinue,
    /// A connection that ended.
    TcpEnd,
}

impl Kind {
    /// Mixer's `connection.event`; none for requests.
    pub fn event(self) -> Option<&'static str> {
        match self {
            Self::Http => None,
            Self::TcpOpen => Some("open"),
            Self::TcpContinue => Some("continue"),
            Self::TcpEnd => Some("close"),
        }
    }
}

/// One end of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// Name of the pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its workload.
    pub workload: String,
    /// Canonical service.
    pub app: String,
    /// Canonical revision.
    pub version: String,
    /// SPIFFE id that its certificate proved.
    pub principal: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its cluster.
    pub cluster: String,
    /// What owns it, as Istio writes it.
    pub owner: String,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl Party {
    /// Fills in what the table of workloads knows of its address, where the report did not say.
    pub fn join(&mut self, known: &Workload) {
        fill(&mut self.name, &known.name);
        fill(&mut self.namespace, &known.namespace);
        fill(&mut self.workload, &known.workload);
        fill(&mut self.cluster, &known.cluster);
        if self.labels.is_empty() {
            self.labels.clone_from(&known.labels);
        }
        self.canonical();
    }

    /// Fills in what a SPIFFE id says: namespace and, as the last resort, the service account for a name.
    pub fn join_principal(&mut self) {
        let Some((_, rest)) = self.principal.split_once("/ns/") else { return };
        let Some((namespace, account)) = rest.split_once("/sa/") else { return };
        let (namespace, account) = (namespace.to_owned(), account.to_owned());
        fill(&mut self.namespace, &namespace);
        fill(&mut self.app, &account);
    }

    /// Canonical service and revision from the labels, as Istio's metrics have them (LBL-2).
    pub fn canonical(&mut self) {
        let label = |names: &[&str]| names.iter().find_map(|name| self.labels.get(*name)).cloned();
        let app = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let version = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        fill(&mut self.app, app.as_ref().unwrap_or(&self.workload));
        fill(&mut self.version, version.as_deref().unwrap_or(if self.app.is_empty() { "" } else { "latest" }));
    }

    /// The node of the graph.
    pub fn node(&self) -> Node {
        if self.app.is_empty() {
            return Node { namespace: UNKNOWN.to_owned(), app: UNKNOWN.to_owned(), ..Node::default() };
        }
        Node { namespace: self.namespace.clone(), app: self.app.clone(), version: self.version.clone() }
    }
}

fn fill(text: &mut String, with: &str) {
    if text.is_empty() {
        cut(with, MAX_TEXT_BYTES).clone_into(text);
    }
}

/// Why a request failed, as our proxies say it (D13); fields that do not apply are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// The guilty one: `client`, `server`, `network` or `mesh`.
    pub side: String,
    /// Whom it concerns.
    pub peer: String,
    /// The limit that was hit, with its value.
    pub limit: String,
    /// The policy that decided.
    pub policy: String,
    /// The object behind it, as `VirtualService/namespace/name`.
    pub object: String,
    /// One sentence.
    pub why: String,
}

/// A logged request or connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Whose view it is.
    pub reporter: Reporter,
    /// Node id of the proxy that reports.
    pub node: String,
    /// When it began, since 1970.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// Host of the service that was asked for, from the cluster's name or the request.
    pub service: String,
    /// Whether both ends proved who they are.
    pub mutual_tls: bool,
    /// SNI.
    pub server_name: String,
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// Method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host header.
    pub authority: String,
    /// Path as the client sent it.
    pub path: String,
    /// User agent.
    pub user_agent: String,
    /// Referer.
    pub referer: String,
    /// X-Forwarded-For.
    pub forwarded_for: String,
    /// X-Request-Id.
    pub request_id: String,
    /// Headers that the log was asked to carry.
    pub request_headers: BTreeMap<String, String>,
    /// The same of the answer.
    pub response_headers: BTreeMap<String, String>,
    /// Body and all bytes of the request; of a connection, what it received.
    pub request_bytes: (u64, u64),
    /// Status; 0 when there was none.
    pub code: u32,
    /// Where the status comes from.
    pub details: String,
    /// `grpc-status`.
    pub grpc_status: String,
    /// Body and all bytes of the answer; of a connection, what it sent.
    pub response_bytes: (u64, u64),
    /// Time until the upstream's answer began.
    pub upstream_time: Option<Duration>,
    /// Short names of the response flags, with commas; empty when there are none.
    pub flags: String,
    /// Route.
    pub route: String,
    /// Cluster as configured.
    pub cluster: String,
    /// Tries.
    pub attempts: u32,
    /// What TLS or the network said about the upstream.
    pub transport_failure: String,
    /// Why the connection was ended.
    pub termination: String,
    /// Addresses: upstream host, upstream local, downstream local, downstream remote.
    pub addresses: [String; 4],
    /// Name of the stream.
    pub stream: String,
    /// Why it failed.
    pub reason: Reason,
}

impl Entry {
    /// Whether something went wrong: no answer, an error of the server, or a refusal that the mesh itself made.
    pub fn failed(&self) -> bool {
        let answered = self.details == "via_upstream";
        let flagged = self.flags.split(',').any(|flag| !matches!(flag, "" | "DI" | "RFCF"));
        match self.kind {
            Kind::TcpOpen | Kind::TcpContinue => false,
            Kind::TcpEnd => flagged || !self.reason.side.is_empty(),
            Kind::Http => {
                flagged
                    || !self.reason.side.is_empty()
                    || self.code == 0
                    || self.code >= 500
                    || (self.code >= 400 && !answered && !self.details.is_empty())
            }
        }
    }

    /// One sentence on why it failed: the proxy's own where it gave one.
    pub fn sentence(&self) -> String {
        if !self.reason.why.is_empty() {
            return self.reason.why.clone();
        }
        let first = self.flags.split(',').next().unwrap_or_default();
        let meaning = match first {
            "UH" => "no healthy endpoint",
            "UF" => "the endpoint could not be connected",
            "UC" => "the endpoint closed the connection",
            "UR" => "the endpoint reset the stream",
            "UO" => "a limit of connections or requests was reached",
            "UT" => "the endpoint did not answer in time",
            "URX" => "all retries were used up",
            "NR" => "no route matches",
            "NC" => "the route's cluster does not exist",
            "RL" => "rate limited",
            "FI" => "a fault was injected",
            "UAEX" => "the authorization service denied it",
            "DC" => "the client left before the answer was complete",
            "SI" => "the stream was idle for too long",
            "DPE" => "the client broke the protocol",
            "UPE" => "the endpoint broke the protocol",
            "DF" => "the endpoint's name could not be resolved",
            "OM" => "the proxy is overloaded",
            "DT" => "the connection reached its greatest age",
            _ if self.details.starts_with("rbac_access_denied") => "an authorization policy denied it",
            _ if self.details.starts_with("jwt_authn") => "the token was missing or not valid",
            _ if self.details == "via_upstream" => "the server itself answered so",
            _ => "the proxy answered so",
        };
        let cause = [&self.transport_failure, &self.termination, &self.details];
        match cause.into_iter().find(|text| !text.is_empty()) {
            Some(cause) => format!("{meaning}: {cause}"),
            None => meaning.to_owned(),
        }
    }
}

/// The host in a cluster's name `outbound|9080|v1|reviews.shop.svc.cluster.local`.
pub fn host_of_cluster(cluster: &str) -> Option<&str> {
    let mut parts = cluster.split('|');
    let direction = parts.next()?;
    let host = parts.nth(2)?;
    (matches!(direction, "outbound" | "inbound") && !host.is_empty()).then_some(host)
}
