//! A logged request or connection as a bag of attributes (MX-107): what reports are made of.

use super::parameters;
use crate::attribute::vocabulary as v;
use crate::attribute::{AttributeId, Bag, Map, Value, Vocabulary};
use crate::report::entry::{Entry, Kind, Party};
use crate::report::traffic::Reporter;
use std::collections::BTreeMap;

/// An entry with the texts that are made of it.
#[derive(Debug)]
pub struct Logged<'e> {
    entry: &'e Entry,
    source: Texts,
    destination: Texts,
    query: BTreeMap<String, String>,
    service: (String, String),
}

/// Texts that are made of one end.
#[derive(Debug, Default)]
struct Texts {
    uid: String,
    workload_uid: String,
    account: String,
    principal: String,
}

/// The attributes of one end.
struct End {
    ip: AttributeId,
    uid: AttributeId,
    name: AttributeId,
    namespace: AttributeId,
    labels: AttributeId,
    owner: AttributeId,
    account: AttributeId,
    principal: AttributeId,
    workload_uid: AttributeId,
    workload_name: AttributeId,
    workload_namespace: AttributeId,
}

const SOURCE: End = End {
    ip: v::SOURCE_IP,
    uid: v::SOURCE_UID,
    name: v::SOURCE_NAME,
    namespace: v::SOURCE_NAMESPACE,
    labels: v::SOURCE_LABELS,
    owner: v::SOURCE_OWNER,
    account: v::SOURCE_SERVICE_ACCOUNT,
    principal: v::SOURCE_PRINCIPAL,
    workload_uid: v::SOURCE_WORKLOAD_UID,
    workload_name: v::SOURCE_WORKLOAD_NAME,
    workload_namespace: v::SOURCE_WORKLOAD_NAMESPACE,
};

const DESTINATION: End = End {
    ip: v::DESTINATION_IP,
    uid: v::DESTINATION_UID,
    name: v::DESTINATION_NAME,
    namespace: v::DESTINATION_NAMESPACE,
    labels: v::DESTINATION_LABELS,
    owner: v::DESTINATION_OWNER,
    account: v::DESTINATION_SERVICE_ACCOUNT,
    principal: v::DESTINATION_PRINCIPAL,
    workload_uid: v::DESTINATION_WORKLOAD_UID,
    workload_name: v::DESTINATION_WORKLOAD_NAME,
    workload_namespace: v::DESTINATION_WORKLOAD_NAMESPACE,
};

impl<'e> Logged<'e> {
    /// Makes the texts.
    pub fn new(entry: &'e Entry) -> Self {
        let mut labels = entry.service.split('.');
        let name = labels.next().unwrap_or_default().to_owned();
        let namespace = labels.next().filter(|_| labels.next() == Some("svc")).unwrap_or_default().to_owned();
        Self {
            entry,
            source: texts(&entry.source),
            destination: texts(&entry.destination),
            query: entry.path.split_once('?').map(|(_, query)| parameters(query)).unwrap_or_default(),
            service: (name, namespace),
        }
    }

    /// All that is known, by attribute.
    pub fn bag(&self, vocabulary: &Vocabulary) -> Bag<'_> {
        let mut bag = Bag::new(vocabulary.len());
        end(&mut bag, &SOURCE, &self.entry.source, &self.source);
        end(&mut bag, &DESTINATION, &self.entry.destination, &self.destination);
        self.ends(&mut bag);
        self.both(&mut bag);
        match self.entry.kind {
            Kind::Http => self.request(&mut bag),
            Kind::TcpOpen | Kind::TcpContinue | Kind::TcpEnd => self.connection(&mut bag),
        }
        bag
    }

    fn ends<'b>(&'b self, bag: &mut Bag<'b>) {
        let entry = self.entry;
        bag.set_text(v::SOURCE_USER, &self.source.principal);
        if let Some(address) = entry.source.address {
            bag.set(v::ORIGIN_IP, Value::Ip(address));
        }
        if entry.destination.port != 0 {
            bag.set(v::DESTINATION_PORT, Value::Int(entry.destination.port.into()));
        }
        bag.set_text(v::DESTINATION_SERVICE, &entry.service);
        bag.set_text(v::DESTINATION_SERVICE_HOST, &entry.service);
        bag.set_text(v::DESTINATION_SERVICE_NAME, &self.service.0);
        bag.set_text(v::DESTINATION_SERVICE_NAMESPACE, &self.service.1);
    }

    fn both<'b>(&'b self, bag: &mut Bag<'b>) {
        let entry = self.entry;
        let inbound = entry.reporter == Reporter::Destination;
        bag.set(v::CONTEXT_REPORTER_KIND, Value::text(if inbound { "inbound" } else { "outbound" }));
        bag.set(v::CONTEXT_REPORTER_LOCAL, Value::Bool(inbound));
        let uid = if inbound { &self.destination.uid } else { &self.source.uid };
        bag.set_text(v::CONTEXT_REPORTER_UID, uid);
        bag.set(v::CONTEXT_PROXY_ERROR_CODE, Value::text(if entry.flags.is_empty() { "-" } else { &entry.flags }));
        bag.set(v::CONNECTION_MTLS, Value::Bool(entry.mutual_tls));
        bag.set_text(v::CONNECTION_REQUESTED_SERVER_NAME, &entry.server_name);
        let began = i64::try_from(entry.start.as_secs()).ok();
        let began = began.and_then(|s| jiff::Timestamp::new(s, i32::try_from(entry.start.subsec_nanos()).ok()?).ok());
        if let Some(time) = began {
            bag.set(v::CONTEXT_TIME, Value::Time(time));
            bag.set(v::CONTEXT_TIMESTAMP, Value::Time(time));
            if entry.kind == Kind::Http {
                bag.set(v::REQUEST_TIME, Value::Time(time));
                let ended = time.checked_add(entry.duration).unwrap_or(time);
                bag.set(v::RESPONSE_TIME, Value::Time(ended));
            }
        }
    }

    fn request<'b>(&'b self, bag: &mut Bag<'b>) {
        let entry = self.entry;
        let content = entry.request_headers.get("content-type").map_or("", String::as_str);
        let grpc = content.starts_with("application/grpc") || !entry.grpc_status.is_empty();
        bag.set(v::CONTEXT_PROTOCOL, Value::text(if grpc { "grpc" } else { "http" }));
        bag.set_text(v::REQUEST_METHOD, &entry.method);
        bag.set_text(v::REQUEST_HOST, &entry.authority);
        bag.set_text(v::REQUEST_SCHEME, &entry.scheme);
        bag.set_text(v::REQUEST_PATH, &entry.path);
        bag.set_text(v::REQUEST_URL_PATH, entry.path.split_once('?').map_or(entry.path.as_str(), |(path, _)| path));
        bag.set_text(v::REQUEST_USERAGENT, &entry.user_agent);
        bag.set_text(v::REQUEST_REFERER, &entry.referer);
        bag.set_text(v::REQUEST_ID, &entry.request_id);
        bag.set(v::REQUEST_HEADERS, Value::Map(Map::Tree(&entry.request_headers)));
        bag.set(v::RESPONSE_HEADERS, Value::Map(Map::Tree(&entry.response_headers)));
        bag.set(v::REQUEST_QUERY_PARAMS, Value::Map(Map::Tree(&self.query)));
        let number = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
        bag.set(v::REQUEST_SIZE, number(entry.request_bytes.0));
        bag.set(v::REQUEST_TOTAL_SIZE, number(entry.request_bytes.1));
        bag.set(v::RESPONSE_SIZE, number(entry.response_bytes.0));
        bag.set(v::RESPONSE_TOTAL_SIZE, number(entry.response_bytes.1));
        bag.set(v::RESPONSE_CODE, Value::Int(entry.code.into()));
        bag.set(v::RESPONSE_DURATION, Value::Duration(entry.duration));
        bag.set_text(v::RESPONSE_GRPC_STATUS, &entry.grpc_status);
    }

    fn connection<'b>(&'b self, bag: &mut Bag<'b>) {
        let entry = self.entry;
        bag.set(v::CONTEXT_PROTOCOL, Value::text("tcp"));
        bag.set_text(v::CONNECTION_ID, &entry.stream);
        bag.set_text(v::CONNECTION_EVENT, entry.kind.event().unwrap_or_default());
        bag.set(v::CONNECTION_DURATION, Value::Duration(entry.duration));
        let number = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
        for (id, bytes) in [
            (v::CONNECTION_RECEIVED_BYTES, entry.request_bytes.0),
            (v::CONNECTION_RECEIVED_BYTES_TOTAL, entry.request_bytes.1),
            (v::CONNECTION_SENT_BYTES, entry.response_bytes.0),
            (v::CONNECTION_SENT_BYTES_TOTAL, entry.response_bytes.1),
        ] {
            bag.set(id, number(bytes));
        }
    }
}

fn texts(party: &Party) -> Texts {
    let principal = party.principal.strip_prefix("spiffe://").unwrap_or(&party.principal).to_owned();
    let account = principal.rsplit_once("/sa/").map(|(_, account)| account.to_owned()).unwrap_or_default();
    let made = |text: String| if party.name.is_empty() { String::new() } else { text };
    Texts {
        uid: made(format!("kubernetes://{}.{}", party.name, party.namespace)),
        workload_uid: made(format!("istio://{}/workloads/{}", party.namespace, party.workload)),
        account,
        principal,
    }
}

fn end<'b>(bag: &mut Bag<'b>, end: &End, party: &'b Party, texts: &'b Texts) {
    if let Some(address) = party.address {
        bag.set(end.ip, Value::Ip(address));
    }
    bag.set_text(end.uid, &texts.uid);
    bag.set_text(end.name, &party.name);
    bag.set_text(end.namespace, &party.namespace);
    bag.set(end.labels, Value::Map(Map::Tree(&party.labels)));
    bag.set_text(end.owner, &party.owner);
    bag.set_text(end.account, &texts.account);
    bag.set_text(end.principal, &texts.principal);
    bag.set_text(end.workload_uid, &texts.workload_uid);
    bag.set_text(end.workload_name, &party.workload);
    bag.set_text(end.workload_namespace, &party.namespace);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    // spec: MX-107
    #[test]
    fn a_logged_request_has_the_attributes_of_a_report() {
        let entry = Entry {
            reporter: Reporter::Destination,
            source: Party {
                name: "reviews-0".to_owned(),
                namespace: "shop".to_owned(),
                workload: "reviews".to_owned(),
                principal: "spiffe://cluster.local/ns/shop/sa/reviews".to_owned(),
                ..Party::default()
            },
            service: "ratings.shop.svc.cluster.local".to_owned(),
            method: "GET".to_owned(),
            path: "/a?b=c".to_owned(),
            code: 503,
            flags: "UF".to_owned(),
            duration: Duration::from_millis(1_500),
            start: Duration::from_secs(1_000),
            mutual_tls: true,
            ..Entry::default()
        };
        let logged = Logged::new(&entry);
        let vocabulary = Vocabulary::built_in();
        let bag = logged.bag(&vocabulary);
        for (name, expected) in [
            ("source.uid", "kubernetes://reviews-0.shop"),
            ("source.principal", "cluster.local/ns/shop/sa/reviews"),
            ("source.serviceAccount", "reviews"),
            ("destination.service.name", "ratings"),
            ("destination.service.namespace", "shop"),
            ("context.reporter.kind", "inbound"),
            ("context.protocol", "http"),
            ("context.proxy_error_code", "UF"),
            ("connection.mtls", "true"),
            ("request.url_path", "/a"),
            ("request.query_params", "b=c"),
            ("response.code", "503"),
            ("response.duration", "1.5s"),
            ("request.time", "1970-01-01T00:16:40Z"),
        ] {
            let (id, _) = vocabulary.get(name).unwrap();
            assert_eq!(bag.get(id).map(ToString::to_string).as_deref(), Some(expected), "{name}");
        }
        let closed = Entry { kind: Kind::TcpEnd, request_bytes: (3, 7), ..entry };
        let logged = Logged::new(&closed);
        let bag = logged.bag(&vocabulary);
        assert_eq!(bag.get(v::CONNECTION_EVENT), Some(&Value::text("close")));
        assert_eq!(bag.get(v::CONNECTION_RECEIVED_BYTES_TOTAL), Some(&Value::Int(7)));
        assert_eq!(bag.get(v::RESPONSE_CODE), None);
    }
}
