//! Istio's families counted from access logs (MX-102, LBL-1 to LBL-6): for proxies that log every request and do not
//! count themselves, such as a plain Envoy. Requests of one message that differ in no label are counted together.

use super::entry::{Entry, Kind, Party};
use super::family::{BOUNDS, BUCKETS, Family, bucket_of};
use super::point::{Point, Report, Since, Value, attribute, hash};
use super::traffic::{Reporter, UNKNOWN};
use std::collections::BTreeMap;
use std::hash::BuildHasher;

/// What requests, or connections, of one set of labels add up to.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    duration_ms: Buckets,
    request_bytes: Buckets,
    response_bytes: Buckets,
    /// Of connections.
    received: u64,
    sent: u64,
}

#[derive(Debug)]
struct Buckets([u64; BUCKETS], f64);

impl Default for Buckets {
    fn default() -> Self {
        Self([0; BUCKETS], 0.)
    }
}

impl Buckets {
    fn add(&mut self, value: f64) {
        if let Some(count) = self.0.get_mut(bucket_of(value)) {
            *count += 1;
        }
        self.1 += value;
    }

    fn value(&self) -> Value {
        Value::Histogram(self.0.to_vec(), self.1, BOUNDS.to_vec())
    }
}

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// What the entries of one proxy count; nothing for an empty message.
pub fn count(entries: &[Entry], hasher: &impl BuildHasher) -> Option<Report> {
    let sender = entries.first()?.node.clone();
    let mut sums: BTreeMap<Labels, (Kind, Sum)> = BTreeMap::new();
    for entry in entries {
        // A connection is counted once, when it ends: its bytes are known then.
        if matches!(entry.kind, Kind::TcpOpen | Kind::TcpContinue) {
            continue;
        }
        let (_, sum) = sums.entry(labels(entry)).or_insert_with(|| (entry.kind, Sum::default()));
        sum.count += 1;
        sum.duration_ms.add(entry.duration.as_secs_f64() * 1000.);
        sum.request_bytes.add(entry.request_bytes.1 as f64);
        sum.response_bytes.add(entry.response_bytes.1 as f64);
        sum.received = sum.received.saturating_add(entry.request_bytes.1);
        sum.sent = sum.sent.saturating_add(entry.response_bytes.1);
    }
    let mut points = Vec::new();
    for (labels, (kind, sum)) in sums {
        let number = |count: u64| Value::Number(count as f64);
        let values = match kind {
            Kind::Http => vec![
                (Family::Requests, number(sum.count)),
                (Family::Duration, sum.duration_ms.value()),
                (Family::RequestBytes, sum.request_bytes.value()),
                (Family::ResponseBytes, sum.response_bytes.value()),
            ],
            _ => vec![
                (Family::TcpOpened, number(sum.count)),
                (Family::TcpClosed, number(sum.count)),
                (Family::TcpReceived, number(sum.received)),
                (Family::TcpSent, number(sum.sent)),
            ],
        };
        let labels: Vec<_> = labels.iter().map(|(name, value)| attribute(name, value)).collect();
        points.extend(values.into_iter().map(|(family, value)| {
            let labels = labels.clone();
            Point {
                family,
                hash: hash(family, &labels, hasher),
                labels,
                start: 0,
                value,
                since: Since::LastReport,
                fresh: false,
            }
        }));
    }
    Some(Report { sender, points, counted_here: true })
}

fn labels(entry: &Entry) -> Labels {
    let or_unknown = |text: &str| if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() };
    let inbound = entry.reporter == Reporter::Destination;
    let tcp = entry.kind != Kind::Http;
    let protocol = match (tcp, entry.grpc_status.is_empty()) {
        (true, _) => "tcp",
        (false, true) => "http",
        (false, false) => "grpc",
    };
    let security = match (inbound, entry.mutual_tls) {
        (false, _) => UNKNOWN,
        (true, true) => "mutual_tls",
        (true, false) => "none",
    };
    let mut labels = vec![("reporter", if inbound { "destination" } else { "source" }.to_owned())];
    let source = &entry.source;
    labels.extend(SOURCE.iter().zip(party(source)).map(|(name, value)| (*name, value)));
    labels.extend(DESTINATION.iter().zip(party(&entry.destination)).map(|(name, value)| (*name, value)));
    let (name, namespace) = service(entry);
    labels.extend([
        ("destination_service", or_unknown(&entry.service)),
        ("destination_service_name", or_unknown(&name)),
        ("destination_service_namespace", or_unknown(&namespace)),
        ("request_protocol", protocol.to_owned()),
        ("response_code", entry.code.to_string()),
        ("response_flags", if entry.flags.is_empty() { "-".to_owned() } else { entry.flags.clone() }),
        ("connection_security_policy", security.to_owned()),
    ]);
    if !tcp {
        labels.push(("grpc_response_status", entry.grpc_status.clone()));
    }
    labels
}

/// Labels of one end, in the order of [`party`].
const SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
];
const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
];

fn party(party: &Party) -> [String; 8] {
    let label = |name: &str, other: &str| party.labels.get(name).map_or(other, String::as_str).to_owned();
    let values = [
        party.workload.clone(),
        party.namespace.clone(),
        party.principal.clone(),
        label("app", &party.app),
        label("version", &party.version),
        party.app.clone(),
        if party.version.is_empty() { "latest".to_owned() } else { party.version.clone() },
        party.cluster.clone(),
    ];
    values.map(|value| if value.is_empty() { UNKNOWN.to_owned() } else { value })
}

/// Short name and namespace of the service; the catch-all clusters are names of their own (LBL-4).
fn service(entry: &Entry) -> (String, String) {
    match entry.cluster.as_str() {
        catch_all @ ("BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster") => {
            (catch_all.to_owned(), String::new())
        }
        _ => {
            let mut parts = entry.service.split('.');
            let name = parts.next().unwrap_or_default().to_owned();
            let in_mesh = entry.service.contains(".svc");
            let namespace = if in_mesh { parts.next().unwrap_or_default().to_owned() } else { String::new() };
            (name, namespace)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::point;
    use std::time::Duration;

    fn party(app: &str) -> Party {
        let labels = [("app".to_owned(), app.to_owned()), ("version".to_owned(), "v1".to_owned())].into();
        let mut party = Party {
            workload: format!("{app}-v1"),
            namespace: "shop".into(),
            principal: format!("spiffe://cluster.local/ns/shop/sa/{app}"),
            labels,
            cluster: "east".into(),
            ..Party::default()
        };
        party.canonical();
        party
    }

    fn entry() -> Entry {
        Entry {
            reporter: Reporter::Destination,
            node: "n".into(),
            source: party("a"),
            destination: party("b"),
            service: "b.shop.svc.cluster.local".into(),
            mutual_tls: true,
            code: 200,
            duration: Duration::from_millis(7),
            request_bytes: (1, 300),
            response_bytes: (1, 3000),
            ..Entry::default()
        }
    }

    fn value(point: &Point, name: &str) -> String {
        point.labels.iter().find(|label| label.key == name).and_then(|l| point::text(l.value.as_ref())).unwrap()
    }

    // spec: LBL-1, LBL-2, LBL-3, LBL-5, LBL-6
    #[test]
    fn requests_of_a_message_are_counted_by_istios_labels() {
        let hasher = foldhash::fast::RandomState::default();
        let denied = Entry { code: 503, flags: "UF".into(), reporter: Reporter::Source, ..entry() };
        let grpc = Entry { grpc_status: "0".into(), mutual_tls: false, ..entry() };
        let report = count(&[entry(), entry(), denied, grpc], &hasher).unwrap();
        assert_eq!((report.points.len(), &*report.sender), (12, "n"));
        let requests: Vec<_> = report.points.iter().filter(|point| point.family == Family::Requests).collect();
        let of = |protocol: &str, code: &str| {
            let found =
                requests.iter().find(|p| value(p, "request_protocol") == protocol && value(p, "response_code") == code);
            *found.unwrap()
        };
        let plain = of("http", "200");
        assert_eq!((plain.labels.len(), &plain.value), (25, &Value::Number(2.)));
        for (name, wanted) in [
            ("reporter", "destination"),
            ("source_workload", "a-v1"),
            ("source_workload_namespace", "shop"),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/a"),
            ("source_app", "a"),
            ("source_version", "v1"),
            ("source_canonical_service", "a"),
            ("source_canonical_revision", "v1"),
            ("source_cluster", "east"),
            ("destination_canonical_service", "b"),
            ("destination_service", "b.shop.svc.cluster.local"),
            ("destination_service_name", "b"),
            ("destination_service_namespace", "shop"),
            ("response_flags", "-"),
            ("grpc_response_status", ""),
            ("connection_security_policy", "mutual_tls"),
        ] {
            assert_eq!(value(plain, name), wanted, "{name}");
        }
        let failed = of("http", "503");
        assert_eq!((&*value(failed, "reporter"), &*value(failed, "response_flags")), ("source", "UF"));
        assert_eq!(value(failed, "connection_security_policy"), "unknown", "the client's side never says");
        assert_eq!(value(of("grpc", "200"), "connection_security_policy"), "none");
        let Value::Histogram(counts, sum, _) = &report
            .points
            .iter()
            .find(|p| p.family == Family::Duration && value(p, "response_code") == "503")
            .unwrap()
            .value
        else {
            panic!("a histogram")
        };
        assert_eq!((counts[3], *sum), (1, 7.));
    }

    // spec: LBL-2, LBL-4
    #[test]
    fn what_is_not_known_is_unknown() {
        let hasher = foldhash::fast::RandomState::default();
        let entry = Entry { cluster: "PassthroughCluster".into(), service: "example.com".into(), ..Entry::default() };
        let report = count(&[entry], &hasher).unwrap();
        let point = &report.points[0];
        assert_eq!(value(point, "destination_service_name"), "PassthroughCluster");
        assert_eq!(value(point, "destination_service_namespace"), "unknown");
        assert_eq!(
            (&*value(point, "source_workload"), &*value(point, "source_canonical_revision")),
            ("unknown", "latest")
        );
    }

    #[test]
    fn a_connection_counts_once() {
        let hasher = foldhash::fast::RandomState::default();
        let of = |kind| Entry { kind, ..entry() };
        let report = count(&[of(Kind::TcpOpen), of(Kind::TcpContinue), of(Kind::TcpEnd)], &hasher).unwrap();
        let families: Vec<_> = report.points.iter().map(|point| (point.family, point.value.clone())).collect();
        let wanted = [
            (Family::TcpOpened, Value::Number(1.)),
            (Family::TcpClosed, Value::Number(1.)),
            (Family::TcpReceived, Value::Number(300.)),
            (Family::TcpSent, Value::Number(3000.)),
        ];
        assert_eq!(families, wanted);
    }
}
