//! Descriptors: what a rate limit service is asked about a request (Envoy: `config.route.v3.RateLimit`).

use crate::message::RequestHead;
use crate::message::matcher::HeaderMatcher;
use crate::net::PeerFacts;
use crate::refusal::{Refusal, Within};
use proto::envoy::extensions::rate_limit_descriptors::expr::v3 as expr;
use proto::envoy::route::RateLimit as Written;
use proto::envoy::route::rate_limit::HitsAddend;
use proto::envoy::route::rate_limit::action::ActionSpecifier;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One descriptor in the making.
#[derive(Debug)]
pub struct RateLimit {
    /// Which filter asks about it, of several.
    pub stage: u32,
    actions: Box<[Action]>,
    hits: Option<Hits>,
}

/// How many hits a request is.
#[derive(Debug)]
enum Hits {
    Fixed(u32),
    /// The number in this header; 1 where there is none.
    Header(Box<[u8]>),
}

/// Keys and values, in order.
pub type Entries = Vec<(Box<str>, String)>;

/// What descriptors are made of.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorFacts<'a> {
    /// The request.
    pub head: &'a RequestHead,
    /// The client.
    pub peer: &'a PeerFacts,
    /// Name of this proxy's own service cluster.
    pub source: &'a str,
    /// Name of the cluster that the request goes to.
    pub destination: Option<&'a str>,
}

#[derive(Debug)]
enum Action {
    SourceCluster,
    DestinationCluster,
    RemoteAddress,
    MaskedRemoteAddress { v4: u32, v6: u32 },
    Fixed { key: Box<str>, value: Box<str> },
    Header { name: Box<[u8]>, key: Box<str>, skip: bool },
    Query { name: Box<str>, key: Box<str>, skip: bool },
    HeaderMatch { key: Box<str>, value: Box<str>, expect: bool, headers: Box<[HeaderMatcher]> },
    Named { attribute: Attribute, key: Box<str>, skip: bool },
}

/// The part of CEL that descriptors of a mesh are made of: one attribute.
#[derive(Debug, Clone, Copy)]
enum Attribute {
    PeerUri,
    Path,
    UrlPath,
    Method,
    Host,
}

impl RateLimit {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &Written) -> Result<Self, Refusal> {
        let refused = [
            ("limit", written.limit.is_some()),
            ("apply_on_stream_done", written.apply_on_stream_done),
            ("x_ratelimit_option", written.x_ratelimit_option != 0),
            ("hits_addend.is_negative_hits", written.hits_addend.as_ref().is_some_and(|hits| hits.is_negative_hits)),
        ];
        if let Some((field, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(Refusal::unsupported(*field));
        }
        if written.actions.is_empty() {
            return Err(Refusal::new("actions", "at least one is needed"));
        }
        let actions = written.actions.iter().enumerate();
        Ok(Self {
            stage: written.stage.map_or(0, |stage| stage.value),
            actions: actions
                .map(|(i, action)| parse_action(action.action_specifier.as_ref()).within(&format!("actions[{i}]")))
                .collect::<Result<_, _>>()?,
            hits: written.hits_addend.as_ref().map(hits).transpose().within("hits_addend")?.flatten(),
        })
    }

    /// How many hits a request is, where it is not one.
    pub fn hits(&self, head: &RequestHead) -> Option<u32> {
        match self.hits.as_ref()? {
            Hits::Fixed(hits) => Some(*hits),
            Hits::Header(name) => std::str::from_utf8(head.headers.get_name(name)?).ok()?.trim().parse().ok(),
        }
    }

    /// The descriptor of a request; `None` where one of its actions has nothing to say.
    pub fn descriptor(&self, facts: DescriptorFacts<'_>) -> Option<Entries> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            match action.entry(facts) {
                Entry::Is(key, value) => entries.push((key.into(), value.into_owned())),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
    }
}

fn hits(written: &HitsAddend) -> Result<Option<Hits>, Refusal> {
    if let Some(number) = written.number {
        return Ok(Some(Hits::Fixed(u32::try_from(number.value).unwrap_or(u32::MAX))));
    }
    if written.format.is_empty() {
        return Ok(None);
    }
    let name = written.format.strip_prefix("%REQ(").and_then(|rest| rest.strip_suffix(")%"));
    let name = name.ok_or_else(|| Refusal::unsupported("format: only %REQ(NAME)%"))?;
    Ok(Some(Hits::Header(name.to_ascii_lowercase().into_bytes().into())))
}

enum Entry<'a> {
    Is(&'a str, Cow<'a, str>),
    /// Left out of the descriptor.
    Skipped,
    /// Without it there is no descriptor.
    Missing,
}

fn or<'a>(key: &'a str, default: &'a str) -> Box<str> {
    if key.is_empty() { default.into() } else { key.into() }
}

fn parse_action(written: Option<&ActionSpecifier>) -> Result<Action, Refusal> {
    Ok(match written.ok_or_else(|| Refusal::new("action_specifier", "is needed"))? {
        ActionSpecifier::SourceCluster(_) => Action::SourceCluster,
        ActionSpecifier::DestinationCluster(_) => Action::DestinationCluster,
        ActionSpecifier::RemoteAddress(_) => Action::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(masked) => Action::MaskedRemoteAddress {
            v4: masked.v4_prefix_mask_len.map_or(32, |bits| bits.value.min(32)),
            v6: masked.v6_prefix_mask_len.map_or(128, |bits| bits.value.min(128)),
        },
        ActionSpecifier::GenericKey(fixed) => Action::Fixed {
            key: or(&fixed.descriptor_key, "generic_key"),
            value: fixed.descriptor_value.as_str().into(),
        },
        ActionSpecifier::RequestHeaders(header) => Action::Header {
            name: header.header_name.to_ascii_lowercase().into_bytes().into(),
            key: header.descriptor_key.as_str().into(),
            skip: header.skip_if_absent,
        },
        ActionSpecifier::QueryParameters(query) => Action::Query {
            name: query.query_parameter_name.as_str().into(),
            key: query.descriptor_key.as_str().into(),
            skip: query.skip_if_absent,
        },
        ActionSpecifier::HeaderValueMatch(written) => {
            let headers = written.headers.iter().enumerate();
            Action::HeaderMatch {
                key: or(&written.descriptor_key, "header_match"),
                value: written.descriptor_value.as_str().into(),
                expect: written.expect_match.as_ref().is_none_or(|expect| expect.value),
                headers: headers
                    .map(|(i, header)| HeaderMatcher::parse(header).within(&format!("header_value_match.headers[{i}]")))
                    .collect::<Result<_, _>>()?,
            }
        }
        ActionSpecifier::Extension(extension) => {
            let any =
                extension.typed_config.as_ref().ok_or_else(|| Refusal::new("extension.typed_config", "is needed"))?;
            let written: expr::Descriptor = proto::any::unpack(any)
                .map_err(|_| Refusal::unsupported(format!("extension {}", proto::any::type_name(&any.type_url))))?;
            let Some(expr::descriptor::ExprSpecifier::Text(text)) = &written.expr_specifier else {
                return Err(Refusal::unsupported("extension.typed_config.parsed"));
            };
            Action::Named {
                attribute: Attribute::parse(text)?,
                key: written.descriptor_key.as_str().into(),
                skip: written.skip_if_error,
            }
        }
        ActionSpecifier::Metadata(_) => return Err(Refusal::unsupported("metadata")),
        ActionSpecifier::QueryParameterValueMatch(_) => {
            return Err(Refusal::unsupported("query_parameter_value_match"));
        }
        ActionSpecifier::RemoteAddressMatch(_) => return Err(Refusal::unsupported("remote_address_match")),
        #[expect(deprecated, reason = "refused by name")]
        ActionSpecifier::DynamicMetadata(_) => return Err(Refusal::unsupported("dynamic_metadata")),
    })
}

impl Attribute {
    fn parse(text: &str) -> Result<Self, Refusal> {
        Ok(match text.trim() {
            "connection.uri_san_peer_certificate" => Self::PeerUri,
            "request.path" => Self::Path,
            "request.url_path" => Self::UrlPath,
            "request.method" => Self::Method,
            "request.host" => Self::Host,
            other => {
                let known =
                    "connection.uri_san_peer_certificate, request.path, request.url_path, request.method, request.host";
                return Err(Refusal::unsupported(format!("extension.typed_config.text {other:?}: one of {known}")));
            }
        })
    }

    fn of<'a>(self, facts: DescriptorFacts<'a>) -> Option<Cow<'a, str>> {
        let text = String::from_utf8_lossy;
        Some(match self {
            Self::PeerUri => facts.peer.peer_id()?.into(),
            Self::Path => text(facts.head.path()),
            Self::UrlPath => text(facts.head.path_only()),
            Self::Method => text(facts.head.method()),
            Self::Host => text(facts.head.authority()),
        })
    }
}

impl Action {
    fn entry<'a>(&'a self, facts: DescriptorFacts<'a>) -> Entry<'a> {
        let found = |key: &'a str, value: Option<Cow<'a, str>>, skip: bool| match value {
            Some(value) => Entry::Is(key, value),
            None if skip => Entry::Skipped,
            None => Entry::Missing,
        };
        match self {
            Self::SourceCluster => Entry::Is("source_cluster", facts.source.into()),
            Self::DestinationCluster => found("destination_cluster", facts.destination.map(Cow::Borrowed), false),
            Self::RemoteAddress => Entry::Is("remote_address", facts.peer.remote.ip().to_string().into()),
            Self::MaskedRemoteAddress { v4, v6 } => {
                Entry::Is("masked_remote_address", masked(facts.peer.remote.ip(), *v4, *v6).into())
            }
            Self::Fixed { key, value } => Entry::Is(key, (&**value).into()),
            Self::Header { name, key, skip } => found(key, header(facts.head, name), *skip),
            Self::Query { name, key, skip } => found(key, query(facts.head.path(), name), *skip),
            Self::HeaderMatch { key, value, expect, headers } => {
                let matches = headers.iter().all(|matcher| matcher.matches_request(facts.head));
                if matches == *expect { Entry::Is(key, (&**value).into()) } else { Entry::Missing }
            }
            Self::Named { attribute, key, skip } => found(key, attribute.of(facts), *skip),
        }
    }
}

fn header<'a>(head: &'a RequestHead, name: &'a [u8]) -> Option<Cow<'a, str>> {
    let text = |bytes: &'a [u8]| Some(String::from_utf8_lossy(bytes));
    match name {
        b":path" => text(head.path()),
        b":method" => text(head.method()),
        b":authority" | b"host" => text(head.authority()),
        b":scheme" => text(head.scheme()),
        _ => Some(String::from_utf8_lossy(&head.headers.joined(name)?).into_owned().into()),
    }
}

/// The first value of a query parameter, decoded.
fn query<'a>(path: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let text = std::str::from_utf8(path).ok()?;
    let pairs = text.split_once('?')?.1.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy())
}

/// `10.1.0.0/16`
fn masked(ip: IpAddr, v4: u32, v6: u32) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - v4).unwrap_or_default();
            format!("{}/{v4}", Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or_default();
            format!("{}/{v6}", Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Version;
    use crate::net::{CertFacts, TlsFacts};
    use serde_json::json;

    fn parse(actions: serde_json::Value) -> Result<RateLimit, Refusal> {
        let bytes = proto::json::from_value("envoy.config.route.v3.RateLimit", &json!({"actions": actions})).unwrap();
        RateLimit::parse(&prost::Message::decode(bytes.as_slice()).unwrap())
    }

    fn descriptor(actions: serde_json::Value) -> Option<Vec<(String, String)>> {
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop", b"/a?user=j%20o");
        head.headers.append(b"x-user", b"jo");
        let cert = CertFacts { uri_sans: vec!["spiffe://td/ns/a/sa/b".into()], ..CertFacts::default() };
        let plain = PeerFacts::plain(1, ([10, 1, 2, 3], 9).into(), ([10, 0, 0, 1], 80).into());
        let peer = PeerFacts { tls: Some(TlsFacts { peer: Some(cert), ..TlsFacts::default() }), ..plain };
        let facts = DescriptorFacts { head: &head, peer: &peer, source: "front", destination: Some("outbound|80||x") };
        let entries = parse(actions).unwrap().descriptor(facts)?;
        Some(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    // spec: MX-110, MX-116
    #[test]
    fn each_action_makes_its_entry_as_envoy_names_it() {
        let one = |action: serde_json::Value| descriptor(json!([action])).map(|entries| entries[0].clone());
        let is = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(one(json!({"source_cluster": {}})), is("source_cluster", "front"));
        assert_eq!(one(json!({"destination_cluster": {}})), is("destination_cluster", "outbound|80||x"));
        assert_eq!(one(json!({"remote_address": {}})), is("remote_address", "10.1.2.3"));
        assert_eq!(
            one(json!({"masked_remote_address": {"v4_prefix_mask_len": 16}})),
            is("masked_remote_address", "10.1.0.0/16")
        );
        assert_eq!(one(json!({"generic_key": {"descriptor_value": "v"}})), is("generic_key", "v"));
        assert_eq!(one(json!({"request_headers": {"header_name": "X-User", "descriptor_key": "u"}})), is("u", "jo"));
        assert_eq!(
            one(json!({"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}})),
            is("PATH", "/a?user=j%20o")
        );
        assert_eq!(
            one(json!({"query_parameters": {"query_parameter_name": "user", "descriptor_key": "u"}})),
            is("u", "j o")
        );
        let matching = |expect: bool| json!({"header_value_match": {"descriptor_value": "yes", "expect_match": expect, "headers": [{"name": "x-user", "string_match": {"exact": "jo"}}]}});
        assert_eq!((one(matching(true)), one(matching(false))), (is("header_match", "yes"), None));
        let peer = json!({"extension": {"name": "e", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
            "descriptor_key": "id", "text": "connection.uri_san_peer_certificate"}}});
        assert_eq!(one(peer), is("id", "spiffe://td/ns/a/sa/b"));
    }

    // spec: MX-110
    #[test]
    fn a_request_is_as_many_hits_as_it_says() {
        let limit = |addend: serde_json::Value| {
            let written = json!({"actions": [{"remote_address": {}}], "hits_addend": addend});
            let bytes = proto::json::from_value("envoy.config.route.v3.RateLimit", &written).unwrap();
            RateLimit::parse(&prost::Message::decode(bytes.as_slice()).unwrap())
        };
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop", b"/");
        assert_eq!(limit(json!({"number": 7})).unwrap().hits(&head), Some(7));
        let of_header = limit(json!({"format": "%REQ(X-Tokens)%"})).unwrap();
        assert_eq!(of_header.hits(&head), None, "one");
        head.headers.append(b"x-tokens", b"30");
        assert_eq!(of_header.hits(&head), Some(30));
        assert_eq!(limit(json!({"format": "%BYTES_SENT%"})).unwrap_err().field, "hits_addend.format: only %REQ(NAME)%");
    }

    // spec: MX-110
    #[test]
    fn a_missing_header_leaves_the_descriptor_out_or_itself() {
        let header = |skip: bool| json!([{"generic_key": {"descriptor_value": "v"}}, {"request_headers": {"header_name": "x-no", "descriptor_key": "n", "skip_if_absent": skip}}]);
        assert_eq!(descriptor(header(false)), None);
        assert_eq!(descriptor(header(true)).unwrap().len(), 1);
        assert_eq!(parse(json!([])).unwrap_err().field, "actions");
        assert_eq!(parse(json!([{"metadata": {"descriptor_key": "k"}}])).unwrap_err().field, "actions[0].metadata");
    }
}
