//! The parts of a request on which a decision depended: what a lease may be reused by.
//!
//! Every attribute comes from certain parts. Where it is joined by mixer (labels, namespace, service) the part is what
//! it was joined by. Whatever an evaluation reads is noted here, absent values as well: two requests that are equal in
//! the noted parts take the same way through every rule, and so get the same decision.

use super::vocabulary::{self as v, AttributeId, BUILT_IN};
use smallvec::SmallVec;
use std::borrow::Cow;

/// A part of a request that every request has: a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Part {
    /// IP address of the caller.
    SourceAddress = 1,
    /// Identity of the caller.
    SourcePrincipal = 1 << 1,
    /// IP address and port of the called.
    DestinationAddress = 1 << 2,
    /// Identity of the called.
    DestinationPrincipal = 1 << 3,
    /// Method.
    Method = 1 << 4,
    /// `:authority`.
    Host = 1 << 5,
    /// Path without the query.
    Path = 1 << 6,
    /// Scheme.
    Scheme = 1 << 7,
    /// Query.
    Query = 1 << 8,
    /// Server name that the client asked for by TLS.
    Sni = 1 << 9,
}

/// Names of the parts in a lease.
const NAMES: [(Part, &str); 10] = [
    (Part::SourceAddress, "source.address"),
    (Part::SourcePrincipal, "source.principal"),
    (Part::DestinationAddress, "destination.address"),
    (Part::DestinationPrincipal, "destination.principal"),
    (Part::Method, "request.method"),
    (Part::Host, "request.host"),
    (Part::Path, "request.path"),
    (Part::Scheme, "request.scheme"),
    (Part::Query, "request.query"),
    (Part::Sni, "connection.sni"),
];

/// Where an attribute comes from.
enum Origin {
    /// These parts.
    Parts(&'static [Part]),
    /// One header.
    Header(&'static str),
    /// An extension of the context that the proxy's configuration names after the attribute.
    Context,
    /// The service: what the context says it is, else the one of the destination that the host names.
    Service,
    /// Nothing that two requests would share: a size, a time.
    Never,
}

/// What an evaluation has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched<'a> {
    parts: u16,
    headers: SmallVec<[Cow<'a, str>; 4]>,
    contexts: SmallVec<[Cow<'a, str>; 2]>,
    unrepeatable: bool,
}

impl<'a> Touched<'a> {
    /// Notes a part.
    pub fn part(&mut self, part: Part) {
        self.parts |= part as u16;
    }

    /// Notes a header by its name in small letters; pseudo-headers are the parts that they carry.
    pub fn header(&mut self, name: Cow<'a, str>) {
        match name.as_ref() {
            ":method" => self.part(Part::Method),
            ":authority" | "host" => self.part(Part::Host),
            ":scheme" => self.part(Part::Scheme),
            ":path" => self.parts |= Part::Path as u16 | Part::Query as u16,
            _ if self.headers.contains(&name) => {}
            _ => self.headers.push(name),
        }
    }

    /// Notes an extension of the context.
    pub fn context(&mut self, key: Cow<'a, str>) {
        if !self.contexts.contains(&key) {
            self.contexts.push(key);
        }
    }

    /// Notes that no other request may reuse this decision.
    pub fn unrepeatable(&mut self) {
        self.unrepeatable = true;
    }

    /// Notes that an attribute was read as a whole. `name` is asked for an attribute that objects added.
    pub fn attribute(&mut self, id: AttributeId, name: impl FnOnce() -> Cow<'a, str>) {
        if id.index() >= BUILT_IN.len() {
            return self.context(name());
        }
        match origin(id) {
            Origin::Parts(parts) => parts.iter().for_each(|part| self.part(*part)),
            Origin::Header(header) => self.header(Cow::Borrowed(header)),
            Origin::Context => self.context(name()),
            Origin::Service => {
                self.context(Cow::Borrowed(SERVICE_HOST));
                self.part(Part::DestinationAddress);
                self.part(Part::Host);
            }
            Origin::Never => self.unrepeatable(),
        }
    }

    /// Notes that one entry of a map was read.
    pub fn entry(&mut self, id: AttributeId, key: Cow<'a, str>, name: impl FnOnce() -> Cow<'a, str>) {
        if id == v::REQUEST_HEADERS { self.header(key) } else { self.attribute(id, name) }
    }

    /// Takes over what another evaluation has read.
    pub fn include(&mut self, other: &'a Touched<'_>) {
        self.parts |= other.parts;
        self.unrepeatable |= other.unrepeatable;
        other.headers.iter().for_each(|header| self.header(Cow::Borrowed(header)));
        other.contexts.iter().for_each(|key| self.context(Cow::Borrowed(key)));
    }

    /// The parts by name, in a fixed order; nothing where no other request may reuse the decision.
    pub fn by(&self) -> Option<Vec<String>> {
        if self.unrepeatable {
            return None;
        }
        let mut by: Vec<String> = NAMES
            .iter()
            .filter(|(part, _)| self.parts & *part as u16 != 0)
            .map(|(_, name)| (*name).to_owned())
            .collect();
        let fixed = by.len();
        by.extend(self.headers.iter().map(|name| format!("request.headers/{name}")));
        by.extend(self.contexts.iter().map(|key| format!("context/{key}")));
        by.get_mut(fixed..).unwrap_or_default().sort_unstable();
        Some(by)
    }
}

/// A source's facts are joined by its address, guarded by its identity (`crate::join`).
const SOURCE: &[Part] = &[Part::SourceAddress, Part::SourcePrincipal];
/// A destination's facts are joined by its address.
const DESTINATION: &[Part] = &[Part::DestinationAddress];
/// The extension of the context that names the service.
pub const SERVICE_HOST: &str = "destination.service.host";

fn origin(id: AttributeId) -> Origin {
    match id {
        v::SOURCE_IP | v::ORIGIN_IP => Origin::Parts(&[Part::SourceAddress]),
        v::SOURCE_PRINCIPAL | v::SOURCE_USER | v::ORIGIN_USER | v::CONNECTION_MTLS => {
            Origin::Parts(&[Part::SourcePrincipal])
        }
        v::SOURCE_UID
        | v::ORIGIN_UID
        | v::SOURCE_LABELS
        | v::SOURCE_METADATA
        | v::SOURCE_NAME
        | v::SOURCE_NAMESPACE
        | v::SOURCE_OWNER
        | v::SOURCE_SERVICE_ACCOUNT
        | v::SOURCE_WORKLOAD_UID
        | v::SOURCE_WORKLOAD_NAME
        | v::SOURCE_WORKLOAD_NAMESPACE
        | v::SOURCE_SERVICES
        | v::SOURCE_SERVICE => Origin::Parts(SOURCE),
        v::DESTINATION_PRINCIPAL => Origin::Parts(&[Part::DestinationPrincipal]),
        v::DESTINATION_NAMESPACE
        | v::DESTINATION_SERVICE
        | v::DESTINATION_SERVICE_UID
        | v::DESTINATION_SERVICE_NAME
        | v::DESTINATION_SERVICE_NAMESPACE
        | v::DESTINATION_SERVICE_HOST => Origin::Service,
        v::DESTINATION_UID
        | v::DESTINATION_IP
        | v::DESTINATION_PORT
        | v::DESTINATION_LABELS
        | v::DESTINATION_METADATA
        | v::DESTINATION_NAME
        | v::DESTINATION_OWNER
        | v::DESTINATION_SERVICE_ACCOUNT
        | v::DESTINATION_WORKLOAD_UID
        | v::DESTINATION_WORKLOAD_NAME
        | v::DESTINATION_WORKLOAD_NAMESPACE
        | v::DESTINATION_CONTAINER_NAME => Origin::Parts(DESTINATION),
        v::CONTEXT_REPORTER_KIND
        | v::CONTEXT_REPORTER_UID
        | v::CONTEXT_REPORTER_LOCAL
        | v::API_SERVICE
        | v::API_VERSION
        | v::API_OPERATION
        | v::API_PROTOCOL => Origin::Context,
        v::REQUEST_METHOD => Origin::Parts(&[Part::Method]),
        v::REQUEST_HOST => Origin::Parts(&[Part::Host]),
        v::REQUEST_PATH => Origin::Parts(&[Part::Path, Part::Query]),
        v::REQUEST_URL_PATH => Origin::Parts(&[Part::Path]),
        v::REQUEST_QUERY_PARAMS => Origin::Parts(&[Part::Query]),
        v::REQUEST_SCHEME => Origin::Parts(&[Part::Scheme]),
        v::REQUEST_REFERER => Origin::Header("referer"),
        v::REQUEST_USERAGENT => Origin::Header("user-agent"),
        v::REQUEST_API_KEY => Origin::Header("x-api-key"),
        v::CONTEXT_PROTOCOL => Origin::Header("content-type"),
        v::CONNECTION_REQUESTED_SERVER_NAME => Origin::Parts(&[Part::Sni]),
        _ => Origin::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(read: &[AttributeId]) -> Option<Vec<String>> {
        let mut touched = Touched::default();
        let vocabulary = v::Vocabulary::built_in();
        read.iter().for_each(|id| touched.attribute(*id, || vocabulary.name(*id).to_owned().into()));
        touched.by()
    }

    #[test]
    fn joined_attributes_depend_on_what_they_were_joined_by() {
        assert_eq!(by(&[]).unwrap(), Vec::<String>::new());
        assert_eq!(by(&[v::SOURCE_LABELS]).unwrap(), ["source.address", "source.principal"]);
        let service = by(&[v::DESTINATION_SERVICE_NAME]).unwrap();
        assert_eq!(service, ["destination.address", "request.host", "context/destination.service.host"]);
        assert_eq!(by(&[v::REQUEST_PATH]).unwrap(), ["request.path", "request.query"]);
        assert_eq!(by(&[v::REQUEST_USERAGENT, v::REQUEST_USERAGENT]).unwrap(), ["request.headers/user-agent"]);
    }

    #[test]
    fn what_no_two_requests_share_is_not_leased() {
        for id in [v::REQUEST_TIME, v::REQUEST_ID, v::REQUEST_SIZE, v::REQUEST_HEADERS, v::REQUEST_AUTH_PRINCIPAL] {
            assert_eq!(by(&[v::REQUEST_METHOD, id]), None, "{id:?}");
        }
    }

    #[test]
    fn an_entry_of_the_headers_is_one_header_and_pseudo_headers_are_parts() {
        let mut touched = Touched::default();
        for key in ["cookie", ":path", ":method", ":authority"] {
            touched.entry(v::REQUEST_HEADERS, key.into(), || "request.headers".into());
        }
        let expected = ["request.method", "request.host", "request.path", "request.query", "request.headers/cookie"];
        assert_eq!(touched.by().unwrap(), expected);
    }
}
