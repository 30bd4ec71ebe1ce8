//! Names and types of attributes (spec 1.5): the two manifests that Istio ships, and what `attributemanifest` objects add.

use std::collections::HashMap;

/// The type of an attribute or expression (`istio.policy.v1beta1.ValueType`, MX-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `STRING`.
    String,
    /// `INT64`.
    Int64,
    /// `DOUBLE`.
    Double,
    /// `BOOL`.
    Bool,
    /// `TIMESTAMP`.
    Timestamp,
    /// `IP_ADDRESS`.
    IpAddress,
    /// `EMAIL_ADDRESS`.
    EmailAddress,
    /// `URI`.
    Uri,
    /// `DNS_NAME`.
    DnsName,
    /// `DURATION`.
    Duration,
    /// `STRING_MAP`.
    StringMap,
}

/// Names of the types, as YAML has them.
const TYPES: [(&str, Type); 11] = [
    ("STRING", Type::String),
    ("INT64", Type::Int64),
    ("DOUBLE", Type::Double),
    ("BOOL", Type::Bool),
    ("TIMESTAMP", Type::Timestamp),
    ("IP_ADDRESS", Type::IpAddress),
    ("EMAIL_ADDRESS", Type::EmailAddress),
    ("URI", Type::Uri),
    ("DNS_NAME", Type::DnsName),
    ("DURATION", Type::Duration),
    ("STRING_MAP", Type::StringMap),
];

impl Type {
    /// The type of this name.
    pub fn named(name: &str) -> Option<Self> {
        TYPES.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }

    /// Its name, as YAML has it.
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(_, known)| *known == self).map_or("STRING", |(name, _)| name)
    }
}

/// Which attribute: an index into the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeId(pub(super) u16);

impl AttributeId {
    /// The index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Declares the attributes that are always there: a constant each, and one table.
macro_rules! attributes {
    ($($constant:ident $name:literal $kind:ident,)*) => {
        #[expect(non_camel_case_types, reason = "numbers the constants below")]
        enum Number { $($constant),* }
        $(#[doc = concat!("`", $name, "`.")]
        pub const $constant: AttributeId = AttributeId(Number::$constant as u16);)*
        /// Name and type of each, by number.
        pub(super) const BUILT_IN: &[(&str, Type)] = &[$(($name, Type::$kind)),*];
    };
}

attributes! {
    ORIGIN_IP "origin.ip" IpAddress,
    ORIGIN_UID "origin.uid" String,
    ORIGIN_USER "origin.user" String,
    REQUEST_ID "request.id" String,
    REQUEST_HOST "request.host" String,
    REQUEST_METHOD "request.method" String,
    REQUEST_PATH "request.path" String,
    REQUEST_URL_PATH "request.url_path" String,
    REQUEST_REASON "request.reason" String,
    REQUEST_REFERER "request.referer" String,
    REQUEST_SCHEME "request.scheme" String,
    REQUEST_USERAGENT "request.useragent" String,
    REQUEST_API_KEY "request.api_key" String,
    REQUEST_SIZE "request.size" Int64,
    REQUEST_TOTAL_SIZE "request.total_size" Int64,
    REQUEST_HEADERS "request.headers" StringMap,
    REQUEST_QUERY_PARAMS "request.query_params" StringMap,
    REQUEST_TIME "request.time" Timestamp,
    REQUEST_AUTH_PRINCIPAL "request.auth.principal" String,
    REQUEST_AUTH_AUDIENCES "request.auth.audiences" String,
    REQUEST_AUTH_PRESENTER "request.auth.presenter" String,
    REQUEST_AUTH_RAW_CLAIMS "request.auth.raw_claims" String,
    REQUEST_AUTH_CLAIMS "request.auth.claims" StringMap,
    RESPONSE_CODE "response.code" Int64,
    RESPONSE_SIZE "response.size" Int64,
    RESPONSE_TOTAL_SIZE "response.total_size" Int64,
    RESPONSE_HEADERS "response.headers" StringMap,
    RESPONSE_TIME "response.time" Timestamp,
    RESPONSE_DURATION "response.duration" Duration,
    RESPONSE_GRPC_STATUS "response.grpc_status" String,
    RESPONSE_GRPC_MESSAGE "response.grpc_message" String,
    SOURCE_UID "source.uid" String,
    SOURCE_USER "source.user" String,
    SOURCE_PRINCIPAL "source.principal" String,
    SOURCE_IP "source.ip" IpAddress,
    SOURCE_LABELS "source.labels" StringMap,
    SOURCE_METADATA "source.metadata" StringMap,
    SOURCE_NAME "source.name" String,
    SOURCE_NAMESPACE "source.namespace" String,
    SOURCE_OWNER "source.owner" String,
    SOURCE_SERVICE_ACCOUNT "source.serviceAccount" String,
    SOURCE_WORKLOAD_UID "source.workload.uid" String,
    SOURCE_WORKLOAD_NAME "source.workload.name" String,
    SOURCE_WORKLOAD_NAMESPACE "source.workload.namespace" String,
    SOURCE_SERVICES "source.services" String,
    SOURCE_SERVICE "source.service" String,
    DESTINATION_UID "destination.uid" String,
    DESTINATION_PRINCIPAL "destination.principal" String,
    DESTINATION_IP "destination.ip" IpAddress,
    DESTINATION_PORT "destination.port" Int64,
    DESTINATION_LABELS "destination.labels" StringMap,
    DESTINATION_METADATA "destination.metadata" StringMap,
    DESTINATION_NAME "destination.name" String,
    DESTINATION_NAMESPACE "destination.namespace" String,
    DESTINATION_OWNER "destination.owner" String,
    DESTINATION_SERVICE_ACCOUNT "destination.serviceAccount" String,
    DESTINATION_WORKLOAD_UID "destination.workload.uid" String,
    DESTINATION_WORKLOAD_NAME "destination.workload.name" String,
    DESTINATION_WORKLOAD_NAMESPACE "destination.workload.namespace" String,
    DESTINATION_CONTAINER_NAME "destination.container.name" String,
    DESTINATION_SERVICE "destination.service" String,
    DESTINATION_SERVICE_UID "destination.service.uid" String,
    DESTINATION_SERVICE_NAME "destination.service.name" String,
    DESTINATION_SERVICE_NAMESPACE "destination.service.namespace" String,
    DESTINATION_SERVICE_HOST "destination.service.host" String,
    CONNECTION_EVENT "connection.event" String,
    CONNECTION_ID "connection.id" String,
    CONNECTION_MTLS "connection.mtls" Bool,
    CONNECTION_REQUESTED_SERVER_NAME "connection.requested_server_name" String,
    CONNECTION_DURATION "connection.duration" Duration,
    CONNECTION_RECEIVED_BYTES "connection.received.bytes" Int64,
    CONNECTION_RECEIVED_BYTES_TOTAL "connection.received.bytes_total" Int64,
    CONNECTION_SENT_BYTES "connection.sent.bytes" Int64,
    CONNECTION_SENT_BYTES_TOTAL "connection.sent.bytes_total" Int64,
    CONTEXT_PROTOCOL "context.protocol" String,
    CONTEXT_PROXY_ERROR_CODE "context.proxy_error_code" String,
    CONTEXT_PROXY_VERSION "context.proxy_version" String,
    CONTEXT_REPORTER_KIND "context.reporter.kind" String,
    CONTEXT_REPORTER_UID "context.reporter.uid" String,
    CONTEXT_REPORTER_LOCAL "context.reporter.local" Bool,
    CONTEXT_TIME "context.time" Timestamp,
    CONTEXT_TIMESTAMP "context.timestamp" Timestamp,
    API_SERVICE "api.service" String,
    API_VERSION "api.version" String,
    API_OPERATION "api.operation" String,
    API_PROTOCOL "api.protocol" String,
    RBAC_PERMISSIVE_RESPONSE_CODE "rbac.permissive.response_code" String,
    RBAC_PERMISSIVE_EFFECTIVE_POLICY_ID "rbac.permissive.effective_policy_id" String,
    CHECK_ERROR_CODE "check.error_code" Int64,
    CHECK_ERROR_MESSAGE "check.error_message" String,
    CHECK_CACHE_HIT "check.cache_hit" Bool,
    QUOTA_CACHE_HIT "quota.cache_hit" Bool,
}

/// How many attributes objects may add.
pub const MAX_ADDED: usize = 1_000;

/// All attributes: what is built in, and what objects added.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    attributes: Vec<(String, Type)>,
    by_name: HashMap<String, AttributeId>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::built_in()
    }
}

impl Vocabulary {
    /// Istio's own manifests (MX-43).
    pub fn built_in() -> Self {
        let mut vocabulary = Self { attributes: Vec::new(), by_name: HashMap::new() };
        for (name, kind) in BUILT_IN {
            vocabulary.push(name, *kind);
        }
        vocabulary
    }

    /// Adds an attribute, or confirms one.
    ///
    /// # Errors
    /// Where it is known with another type, or there are too many.
    pub fn add(&mut self, name: &str, kind: Type) -> Result<(), String> {
        match self.get(name) {
            Some((_, known)) if known == kind => Ok(()),
            Some((_, known)) => Err(format!("{name} is {} already, it cannot be {} too", known.name(), kind.name())),
            None if self.attributes.len() >= BUILT_IN.len() + MAX_ADDED => {
                Err(format!("more than {MAX_ADDED} added attributes"))
            }
            None => {
                self.push(name, kind);
                Ok(())
            }
        }
    }

    fn push(&mut self, name: &str, kind: Type) {
        let id = AttributeId(u16::try_from(self.attributes.len()).unwrap_or(u16::MAX));
        self.attributes.push((name.to_owned(), kind));
        self.by_name.insert(name.to_owned(), id);
    }

    /// The attribute of this name, and its type.
    pub fn get(&self, name: &str) -> Option<(AttributeId, Type)> {
        let id = *self.by_name.get(name)?;
        Some((id, self.attributes.get(id.index())?.1))
    }

    /// The name of an attribute.
    pub fn name(&self, id: AttributeId) -> &str {
        self.attributes.get(id.index()).map_or("", |(name, _)| name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    /// Whether there is none: never.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// What objects added.
    pub fn added(&self) -> impl Iterator<Item = (AttributeId, &str, Type)> {
        self.attributes
            .iter()
            .enumerate()
            .skip(BUILT_IN.len())
            .map(|(index, (name, kind))| (AttributeId(u16::try_from(index).unwrap_or(u16::MAX)), name.as_str(), *kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MX-43, MX-17
    #[test]
    fn istios_manifests_are_built_in() {
        let vocabulary = Vocabulary::built_in();
        for (name, kind) in [
            ("source.ip", Type::IpAddress),
            ("request.headers", Type::StringMap),
            ("destination.port", Type::Int64),
            ("connection.mtls", Type::Bool),
            ("response.duration", Type::Duration),
            ("context.time", Type::Timestamp),
            ("quota.cache_hit", Type::Bool),
        ] {
            let (id, found) = vocabulary.get(name).unwrap();
            assert_eq!((found, vocabulary.name(id)), (kind, name));
        }
        assert_eq!(vocabulary.get("source.ip").unwrap().0, SOURCE_IP);
        assert_eq!(vocabulary.get("quota.cache_hit").unwrap().0, QUOTA_CACHE_HIT);
        for (name, kind) in TYPES {
            assert_eq!((Type::named(name), kind.name()), (Some(kind), name));
        }
    }

    // spec: MX-44
    #[test]
    fn objects_add_attributes_and_cannot_change_a_type() {
        let mut vocabulary = Vocabulary::built_in();
        vocabulary.add("shop.tier", Type::String).unwrap();
        vocabulary.add("source.ip", Type::IpAddress).unwrap();
        assert!(vocabulary.add("source.ip", Type::String).unwrap_err().contains("IP_ADDRESS already"));
        assert_eq!(vocabulary.added().map(|(_, name, _)| name).collect::<Vec<_>>(), ["shop.tier"]);
    }
}
