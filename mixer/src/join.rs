//! A call joined with the workloads at its ends, as a bag of attributes.
//!
//! The table of workloads is the only thing that is asked: no call per request (MX-106). A source's facts are joined by
//! its address; where the caller has proven an identity and the workload at the address has another one (a hop in
//! between), the address says nothing and only the identity counts.

pub mod entry;

use crate::attribute::touched::SERVICE_HOST;
use crate::attribute::vocabulary as v;
use crate::attribute::{AttributeId, Bag, Map, Value, Vocabulary};
use crate::workload::{Table, Workload};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The service account of a workload that names none.
const DEFAULT_ACCOUNT: &str = "default";
/// The most parameters of a query that are taken apart.
const MAX_PARAMETERS: usize = 256;

/// A call as a protocol reports it. What is empty is not known.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Address of the caller.
    pub source: Option<IpAddr>,
    /// Identity that the caller has proven, as `spiffe://…` or without the scheme.
    pub source_principal: String,
    /// Address of the called.
    pub destination: Option<SocketAddr>,
    /// Identity of the called.
    pub destination_principal: String,
    /// Whether it is a request of HTTP; else a connection.
    pub http: bool,
    /// Method.
    pub method: String,
    /// `:authority`.
    pub host: String,
    /// Path with its query.
    pub path: String,
    /// Scheme.
    pub scheme: String,
    /// Headers, names in small letters.
    pub headers: HashMap<String, String>,
    /// Size of the body in bytes, where it is known.
    pub size: Option<i64>,
    /// When it began.
    pub time: Option<jiff::Timestamp>,
    /// Server name that the client asked for by TLS.
    pub sni: String,
    /// What the proxy's configuration adds: attributes by name.
    pub context: HashMap<String, String>,
    /// Claims of a verified token.
    pub claims: BTreeMap<String, String>,
}

/// A call with what was joined.
#[derive(Debug)]
pub struct Facts {
    call: Call,
    source: Option<Arc<Workload>>,
    destination: Option<Arc<Workload>>,
    source_texts: Texts,
    destination_texts: Texts,
    source_services: String,
    service: Service,
    query: BTreeMap<String, String>,
    auth_principal: String,
}

/// Texts that are made of a workload's facts.
#[derive(Debug, Default)]
struct Texts {
    uid: String,
    workload_uid: String,
    namespace: String,
    account: String,
}

/// The service that is called.
#[derive(Debug, Default)]
struct Service {
    host: String,
    name: String,
    namespace: String,
    uid: String,
}

impl Facts {
    /// Joins a call.
    pub fn join(mut call: Call, table: &Table) -> Self {
        let plain = |principal: &str| principal.strip_prefix("spiffe://").unwrap_or(principal).to_owned();
        call.source_principal = plain(&call.source_principal);
        call.destination_principal = plain(&call.destination_principal);
        let identity =
            identity(&call.source_principal).map(|(namespace, account)| (namespace.to_owned(), account.to_owned()));
        let source = call.source.and_then(|address| table.by_address(address.to_canonical()).cloned());
        let source = source.filter(|workload| {
            identity
                .as_ref()
                .is_none_or(|(namespace, name)| *namespace == workload.namespace && name == account(workload))
        });
        let destination = call.destination.and_then(|at| table.by_address(at.ip().to_canonical()).cloned());
        let mut source_texts = source.as_deref().map(texts).unwrap_or_default();
        if let Some((namespace, account)) = identity {
            source_texts.namespace = namespace;
            source_texts.account = account;
        }
        let mut destination_texts = destination.as_deref().map(texts).unwrap_or_default();
        let service = service(&call, destination.as_deref());
        if destination_texts.namespace.is_empty() {
            destination_texts.namespace.clone_from(&service.namespace);
        }
        let source_services = source.as_deref().map(|source| source.services.join(",")).unwrap_or_default();
        let query = call.path.split_once('?').map(|(_, query)| parameters(query)).unwrap_or_default();
        let auth_principal = match (call.claims.get("iss"), call.claims.get("sub")) {
            (Some(issuer), Some(subject)) => format!("{issuer}/{subject}"),
            _ => String::new(),
        };
        Self {
            call,
            source,
            destination,
            source_texts,
            destination_texts,
            source_services,
            service,
            query,
            auth_principal,
        }
    }

    /// All that is known, by attribute.
    pub fn bag(&self, vocabulary: &Vocabulary) -> Bag<'_> {
        let mut bag = Bag::new(vocabulary.len());
        self.ends(&mut bag);
        self.service_into(&mut bag);
        if self.call.http {
            self.request(&mut bag);
        } else {
            bag.set(v::CONTEXT_PROTOCOL, Value::text("tcp"));
        }
        self.context_into(&mut bag, vocabulary);
        bag
    }

    fn ends<'f>(&'f self, bag: &mut Bag<'f>) {
        let call = &self.call;
        if let Some(address) = call.source {
            bag.set(v::SOURCE_IP, Value::Ip(address));
            bag.set(v::ORIGIN_IP, Value::Ip(address));
        }
        bag.set(v::CONNECTION_MTLS, Value::Bool(!call.source_principal.is_empty()));
        bag.set_text(v::CONNECTION_REQUESTED_SERVER_NAME, &call.sni);
        bag.set_text(v::SOURCE_PRINCIPAL, &call.source_principal);
        bag.set_text(v::SOURCE_USER, &call.source_principal);
        bag.set_text(v::ORIGIN_USER, &call.source_principal);
        bag.set_text(v::SOURCE_NAMESPACE, &self.source_texts.namespace);
        bag.set_text(v::SOURCE_SERVICE_ACCOUNT, &self.source_texts.account);
        bag.set_text(v::SOURCE_SERVICES, &self.source_services);
        if let Some(source) = &self.source {
            bag.set_text(v::SOURCE_UID, &self.source_texts.uid);
            bag.set_text(v::ORIGIN_UID, &self.source_texts.uid);
            bag.set(v::SOURCE_LABELS, Value::Map(Map::Tree(&source.labels)));
            bag.set_text(v::SOURCE_NAME, &source.name);
            bag.set_text(v::SOURCE_WORKLOAD_UID, &self.source_texts.workload_uid);
            bag.set_text(v::SOURCE_WORKLOAD_NAME, &source.workload);
            bag.set_text(v::SOURCE_WORKLOAD_NAMESPACE, &source.namespace);
            bag.set_text(v::SOURCE_SERVICE, source.services.first().map_or("", String::as_str));
        }
        if let Some(address) = call.destination {
            bag.set(v::DESTINATION_IP, Value::Ip(address.ip()));
            bag.set(v::DESTINATION_PORT, Value::Int(i64::from(address.port())));
        }
        bag.set_text(v::DESTINATION_PRINCIPAL, &call.destination_principal);
        bag.set_text(v::DESTINATION_NAMESPACE, &self.destination_texts.namespace);
        if let Some(destination) = &self.destination {
            bag.set_text(v::DESTINATION_UID, &self.destination_texts.uid);
            bag.set(v::DESTINATION_LABELS, Value::Map(Map::Tree(&destination.labels)));
            bag.set_text(v::DESTINATION_NAME, &destination.name);
            bag.set_text(v::DESTINATION_SERVICE_ACCOUNT, &self.destination_texts.account);
            bag.set_text(v::DESTINATION_WORKLOAD_UID, &self.destination_texts.workload_uid);
            bag.set_text(v::DESTINATION_WORKLOAD_NAME, &destination.workload);
            bag.set_text(v::DESTINATION_WORKLOAD_NAMESPACE, &destination.namespace);
        }
    }

    fn service_into<'f>(&'f self, bag: &mut Bag<'f>) {
        bag.set_text(v::DESTINATION_SERVICE, &self.service.host);
        bag.set_text(v::DESTINATION_SERVICE_HOST, &self.service.host);
        bag.set_text(v::DESTINATION_SERVICE_NAME, &self.service.name);
        bag.set_text(v::DESTINATION_SERVICE_NAMESPACE, &self.service.namespace);
        bag.set_text(v::DESTINATION_SERVICE_UID, &self.service.uid);
    }

    fn request<'f>(&'f self, bag: &mut Bag<'f>) {
        let call = &self.call;
        let header = |name: &str| call.headers.get(name).map_or("", String::as_str);
        let grpc = header("content-type").starts_with("application/grpc");
        bag.set(v::CONTEXT_PROTOCOL, Value::text(if grpc { "grpc" } else { "http" }));
        bag.set(v::REQUEST_HEADERS, Value::Map(Map::Hash(&call.headers)));
        bag.set(v::REQUEST_QUERY_PARAMS, Value::Map(Map::Tree(&self.query)));
        bag.set_text(v::REQUEST_METHOD, &call.method);
        bag.set_text(v::REQUEST_HOST, &call.host);
        bag.set_text(v::REQUEST_SCHEME, &call.scheme);
        bag.set_text(v::REQUEST_PATH, &call.path);
        bag.set_text(v::REQUEST_URL_PATH, call.path.split_once('?').map_or(call.path.as_str(), |(path, _)| path));
        bag.set_text(v::REQUEST_ID, header("x-request-id"));
        bag.set_text(v::REQUEST_REFERER, header("referer"));
        bag.set_text(v::REQUEST_USERAGENT, header("user-agent"));
        bag.set_text(v::REQUEST_API_KEY, header("x-api-key"));
        if let Some(size) = call.size {
            bag.set(v::REQUEST_SIZE, Value::Int(size));
        }
        if let Some(time) = call.time {
            for id in [v::REQUEST_TIME, v::CONTEXT_TIME, v::CONTEXT_TIMESTAMP] {
                bag.set(id, Value::Time(time));
            }
        }
        if !call.claims.is_empty() {
            let claim = |name: &str| call.claims.get(name).map_or("", String::as_str);
            bag.set(v::REQUEST_AUTH_CLAIMS, Value::Map(Map::Tree(&call.claims)));
            bag.set_text(v::REQUEST_AUTH_PRINCIPAL, &self.auth_principal);
            bag.set_text(v::REQUEST_AUTH_AUDIENCES, claim("aud"));
            bag.set_text(v::REQUEST_AUTH_PRESENTER, claim("azp"));
        }
    }

    /// What the proxy's configuration says: who reports, which API, and attributes that objects added.
    fn context_into<'f>(&'f self, bag: &mut Bag<'f>, vocabulary: &Vocabulary) {
        const KNOWN: [(AttributeId, &str); 6] = [
            (v::CONTEXT_REPORTER_KIND, "context.reporter.kind"),
            (v::CONTEXT_REPORTER_UID, "context.reporter.uid"),
            (v::API_SERVICE, "api.service"),
            (v::API_VERSION, "api.version"),
            (v::API_OPERATION, "api.operation"),
            (v::API_PROTOCOL, "api.protocol"),
        ];
        bag.set(v::CONTEXT_REPORTER_KIND, Value::text("inbound"));
        for (id, name) in KNOWN {
            bag.set_text(id, self.call.context.get(name).map_or("", String::as_str));
        }
        let outbound = self.call.context.get("context.reporter.kind").is_some_and(|kind| kind == "outbound");
        bag.set(v::CONTEXT_REPORTER_LOCAL, Value::Bool(!outbound));
        for (id, name, kind) in vocabulary.added() {
            let text = self.call.context.get(name).map(String::as_str);
            if let Some(value) = text.and_then(|text| typed(text, kind)) {
                bag.set(id, value);
            }
        }
    }
}

/// A text of the configuration as a value of an attribute that an object added.
fn typed(text: &str, kind: crate::attribute::Type) -> Option<Value<'_>> {
    use crate::attribute::Type;
    Some(match kind {
        Type::Int64 => Value::Int(text.parse().ok()?),
        Type::Double => Value::Double(text.parse().ok()?),
        Type::Bool => Value::Bool(text.parse().ok()?),
        Type::IpAddress => Value::Ip(text.parse().ok()?),
        Type::Timestamp => Value::Time(text.parse().ok()?),
        Type::Duration => Value::Duration(proto::duration::parse(text).ok()?),
        Type::StringMap => return None,
        Type::String | Type::EmailAddress | Type::Uri | Type::DnsName => Value::text(text),
    })
}

/// Namespace and service account of an identity `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn identity(principal: &str) -> Option<(&str, &str)> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split_once("/sa/")
}

fn account(workload: &Workload) -> &str {
    if workload.service_account.is_empty() { DEFAULT_ACCOUNT } else { &workload.service_account }
}

fn texts(workload: &Workload) -> Texts {
    Texts {
        uid: format!("kubernetes://{}.{}", workload.name, workload.namespace),
        workload_uid: format!("istio://{}/workloads/{}", workload.namespace, workload.workload),
        namespace: workload.namespace.clone(),
        account: account(workload).to_owned(),
    }
}

/// Which service is called: what the context says; else the one of the destination that the host names; else the
/// destination's first; else the host as it stands.
fn service(call: &Call, destination: Option<&Workload>) -> Service {
    let asked = call.host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let asked = asked.map_or(call.host.as_str(), |(host, _)| host).to_ascii_lowercase();
    let named = |host: &&String| **host == asked || host.starts_with(&format!("{asked}."));
    let own = destination.and_then(|at| at.services.iter().find(named).or_else(|| at.services.first()));
    let host = call.context.get(SERVICE_HOST).or(own).cloned().unwrap_or(asked);
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    // Only a name of the cluster carries a namespace; a host without dots is a name and no more.
    let in_cluster = labels.next() == Some("svc");
    if !in_cluster && host.contains('.') || host.is_empty() {
        return Service { name: host.clone(), host, ..Service::default() };
    }
    let namespace = if in_cluster { namespace } else { "" };
    Service {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        uid: if namespace.is_empty() { String::new() } else { format!("istio://{namespace}/services/{name}") },
        host,
    }
}

/// The parameters of a query; of several with one name the first counts.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for pair in query.split('&').take(MAX_PARAMETERS).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        found.entry(decode(name)).or_insert_with(|| decode(value));
    }
    found
}

/// Percent-decoding; what is no UTF-8 is replaced.
fn decode(text: &str) -> String {
    let bytes = text.replace('+', " ").into_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                out.push(hex(high).unwrap_or_default() * 16 + hex(low).unwrap_or_default());
                rest = after;
            }
            (byte, after) => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
