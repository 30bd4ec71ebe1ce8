//! Who took part in a request or a connection, and how it was protected (spec LBL-1 to LBL-3).

use std::rc::Rc;

/// What is shown where nothing is known.
pub(super) const UNKNOWN: &str = "unknown";

/// One end of a request, as its labels show it (LBL-2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Name of the workload.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its SPIFFE id, as `spiffe://…`.
    pub principal: Box<str>,
    /// Label `app`.
    pub app: Box<str>,
    /// Label `version`.
    pub version: Box<str>,
    /// Canonical service.
    pub canonical_service: Box<str>,
    /// Canonical revision.
    pub canonical_revision: Box<str>,
    /// Cluster that it runs in.
    pub cluster: Box<str>,
}

impl Default for Workload {
    fn default() -> Self {
        let unknown = || Box::from(UNKNOWN);
        Self {
            name: unknown(),
            namespace: unknown(),
            principal: unknown(),
            app: unknown(),
            version: unknown(),
            canonical_service: unknown(),
            canonical_revision: "latest".into(),
            cluster: unknown(),
        }
    }
}

impl Workload {
    /// A workload from node metadata, of which `text` gives the string at a path (`["LABELS", "app"]`), and from the
    /// identity that its certificate proved: the namespace is taken from there first.
    pub fn new<'a>(text: impl Fn(&[&str]) -> Option<&'a str>, identity: Option<&str>) -> Self {
        let or_unknown =
            |value: Option<&str>| -> Box<str> { value.filter(|v| !v.is_empty()).unwrap_or(UNKNOWN).into() };
        let proven = identity.and_then(|id| id.split("/ns/").nth(1)).and_then(|rest| rest.split('/').next());
        let name = text(&["WORKLOAD_NAME"]);
        Self {
            name: or_unknown(name),
            namespace: or_unknown(proven.or_else(|| text(&["NAMESPACE"]))),
            principal: or_unknown(identity),
            app: or_unknown(text(&["LABELS", "app"]).or_else(|| text(&["LABELS", "app.kubernetes.io/name"]))),
            version: or_unknown(
                text(&["LABELS", "version"]).or_else(|| text(&["LABELS", "app.kubernetes.io/version"])),
            ),
            canonical_service: or_unknown(text(&["LABELS", "service.istio.io/canonical-name"]).or(name)),
            canonical_revision: text(&["LABELS", "service.istio.io/canonical-revision"]).unwrap_or("latest").into(),
            cluster: or_unknown(text(&["CLUSTER_ID"])),
        }
    }
}

/// The service that was asked for (LBL-3, LBL-4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Host name.
    pub host: Box<str>,
    /// Short name.
    pub name: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
}

impl Service {
    /// The service of a cluster: what its `istio` metadata says (host, name, namespace), or what its name stands for;
    /// a catch-all cluster is its own name, with `host` as the host.
    pub fn of_cluster(cluster: &str, metadata: Option<(&str, &str, &str)>, host: Option<&str>) -> Self {
        if let Some((host, name, namespace)) = metadata {
            return Self { host: host.into(), name: name.into(), namespace: namespace.into() };
        }
        let host = host.map(|host| host.to_ascii_lowercase());
        match cluster {
            "BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster" => Self {
                host: host.as_deref().unwrap_or(UNKNOWN).into(),
                name: cluster.into(),
                namespace: UNKNOWN.into(),
            },
            _ => {
                let host = host.as_deref().unwrap_or(UNKNOWN);
                Self {
                    host: host.into(),
                    name: host.split('.').next().unwrap_or(UNKNOWN).into(),
                    namespace: UNKNOWN.into(),
                }
            }
        }
    }
}

/// Who reports (LBL-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's side.
    Source,
    /// The server's side.
    Destination,
}

/// How the connection was protected (LBL-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Not known: the client's side never says.
    Unknown,
    /// Plain text, or TLS without identities.
    None,
    /// Both sides proved who they are.
    MutualTls,
}

impl Security {
    /// What a reporter says, given whether both ends proved a URI identity.
    pub fn of(reporter: Reporter, both_proven: bool) -> Self {
        match (reporter, both_proven) {
            (Reporter::Source, _) => Self::Unknown,
            (Reporter::Destination, true) => Self::MutualTls,
            (Reporter::Destination, false) => Self::None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => UNKNOWN,
            Self::None => "none",
            Self::MutualTls => "mutual_tls",
        }
    }
}

/// The two ends of requests or of a connection.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Who reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Rc<Workload>,
    /// The server.
    pub destination: Rc<Workload>,
    /// The service that was asked for.
    pub service: Rc<Service>,
    /// How the connection was protected.
    pub security: Security,
}

impl Ends {
    /// What all further series share past the limit.
    pub(super) fn overflow() -> Self {
        let name = || Box::from("overflow");
        let workload =
            Rc::new(Workload { name: name(), app: name(), canonical_service: name(), ..Workload::default() });
        Self {
            reporter: Reporter::Destination,
            source: workload.clone(),
            destination: workload,
            service: Rc::new(Service { host: name(), name: name(), namespace: name() }),
            security: Security::Unknown,
        }
    }

    /// Labels of the two ends, and of the service that was asked for.
    pub(super) fn labels(&self) -> Vec<(&'static str, &str)> {
        let reporter = match self.reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        };
        let (source, destination, service) = (&self.source, &self.destination, &self.service);
        vec![
            ("reporter", reporter),
            ("source_workload", &source.name),
            ("source_workload_namespace", &source.namespace),
            ("source_principal", &source.principal),
            ("source_app", &source.app),
            ("source_version", &source.version),
            ("source_canonical_service", &source.canonical_service),
            ("source_canonical_revision", &source.canonical_revision),
            ("source_cluster", &source.cluster),
            ("destination_workload", &destination.name),
            ("destination_workload_namespace", &destination.namespace),
            ("destination_principal", &destination.principal),
            ("destination_app", &destination.app),
            ("destination_version", &destination.version),
            ("destination_service", &service.host),
            ("destination_service_name", &service.name),
            ("destination_service_namespace", &service.namespace),
            ("destination_canonical_service", &destination.canonical_service),
            ("destination_canonical_revision", &destination.canonical_revision),
            ("destination_cluster", &destination.cluster),
        ]
    }
}
