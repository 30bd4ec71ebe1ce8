//! `config.route.v3.RateLimit` → descriptors in the making.

use crate::message::matcher::HeaderMatcher;
use crate::refusal::{Refusal, Within};
use crate::route::RateLimit;
use crate::route::rate_limit::{Action, Attribute, Hits};
use proto::envoy::extensions::rate_limit_descriptors::expr::v3 as expr;
use proto::envoy::route::RateLimit as Written;
use proto::envoy::route::rate_limit::HitsAddend;
use proto::envoy::route::rate_limit::action::ActionSpecifier;

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

fn or(key: &str, default: &str) -> Box<str> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{RequestHead, Version};
    use crate::net::{CertFacts, PeerFacts, TlsFacts};
    use crate::route::DescriptorFacts;
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
