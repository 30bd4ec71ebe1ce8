//! The part of CEL that the labels of Istio's users are made of: a text, an attribute, and an attribute with a text for
//! where it is missing. Attributes are Envoy's; each stands for a command operator.

use super::ends::UNKNOWN;
use crate::bootstrap::Environment;
use crate::telemetry::access_log::{Format, LogFacts};

/// What a label shows.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    format: Format,
    /// Where the attribute is missing.
    otherwise: Box<str>,
}

/// Attributes (Envoy: "Attributes") by command operator.
const ATTRIBUTES: [(&str, &str); 31] = [
    ("request.host", "%REQ(:AUTHORITY)%"),
    ("request.id", "%REQ(X-REQUEST-ID)%"),
    ("request.method", "%REQ(:METHOD)%"),
    ("request.path", "%REQ(:PATH)%"),
    ("request.protocol", "%PROTOCOL%"),
    ("request.referer", "%REQ(REFERER)%"),
    ("request.scheme", "%REQ(:SCHEME)%"),
    ("request.url_path", "%REQ_WITHOUT_QUERY(:PATH)%"),
    ("request.useragent", "%REQ(USER-AGENT)%"),
    ("response.code", "%RESPONSE_CODE%"),
    ("response.code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response.grpc_status", "%GRPC_STATUS(NUMBER)%"),
    ("source.address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("source.port", "%DOWNSTREAM_REMOTE_PORT%"),
    ("destination.address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("destination.port", "%DOWNSTREAM_LOCAL_PORT%"),
    ("connection.requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("connection.tls_version", "%DOWNSTREAM_TLS_VERSION%"),
    ("connection.uri_san_peer_certificate", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("connection.uri_san_local_certificate", "%DOWNSTREAM_LOCAL_URI_SAN%"),
    ("connection.subject_peer_certificate", "%DOWNSTREAM_PEER_SUBJECT%"),
    ("connection.subject_local_certificate", "%DOWNSTREAM_LOCAL_SUBJECT%"),
    ("connection.sha256_peer_certificate_digest", "%DOWNSTREAM_PEER_FINGERPRINT_256%"),
    ("connection.termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream.address", "%UPSTREAM_HOST%"),
    ("upstream.local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream.transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("upstream.request_attempt_count", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("xds.cluster_name", "%UPSTREAM_CLUSTER%"),
    ("xds.route_name", "%ROUTE_NAME%"),
    ("xds.virtual_host_name", "%VIRTUAL_CLUSTER_NAME%"),
];

impl Expression {
    /// Reads an expression: `'text'`, `request.host`, `string(destination.port)`, `request.headers['x']`, or
    /// `has(A) ? A : 'text'`.
    ///
    /// # Errors
    /// What it is not.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (value, otherwise) = match text.split_once('?') {
            Some((condition, rest)) => {
                let (value, otherwise) = rest.rsplit_once(':').ok_or_else(|| refused(text))?;
                let asked = asked(condition.trim()).ok_or_else(|| refused(text))?;
                let otherwise = literal(otherwise.trim()).ok_or_else(|| refused(text))?;
                (
                    Some(value).filter(|value| operator(value) == operator(&asked)).ok_or_else(|| refused(text))?,
                    otherwise,
                )
            }
            None => (text, UNKNOWN),
        };
        let format = operator(value).ok_or_else(|| refused(text))?;
        let format = Format::parse(&format, &Environment::default()).map_err(|error| error.to_string())?;
        Ok(Self { format, otherwise: otherwise.into() })
    }

    /// Appends the value.
    pub(super) fn write(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        let from = out.len();
        self.format.write_omitting(facts, out);
        if out.len() == from {
            out.extend_from_slice(self.otherwise.as_bytes());
        }
    }
}

fn refused(text: &str) -> String {
    format!(
        "not supported yet: {text:?}; a label shows 'text', an attribute such as request.host or request.headers['x'], or \
         has(request.host) ? request.host : 'text'"
    )
}

/// What a condition asks for: the A of `has(A)`, and of `'x' in request.headers`.
fn asked(condition: &str) -> Option<String> {
    if let Some(attribute) = condition.strip_prefix("has(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(attribute.to_owned());
    }
    let (key, headers) = condition.split_once(" in ")?;
    Some(format!("{}[{}]", headers.trim(), key.trim()))
}

/// The command operator of a value.
fn operator(value: &str) -> Option<String> {
    let value = value.trim();
    if let Some(text) = literal(value) {
        return Some(text.replace('%', "%%"));
    }
    if let Some(inner) = value.strip_prefix("string(").and_then(|rest| rest.strip_suffix(')')) {
        return operator(inner);
    }
    if let Some((_, operator)) = ATTRIBUTES.iter().find(|(name, _)| *name == value) {
        return Some((*operator).to_owned());
    }
    let (of, name) = value.split_once(".headers")?;
    let name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(quoted) => literal(quoted.trim())?,
        None => name.strip_prefix('.')?,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
    let operator = match of {
        "request" => "REQ",
        "response" => "RESP",
        _ => return None,
    };
    (!name.is_empty() && name.bytes().all(plain)).then(|| format!("%{operator}({name})%"))
}

/// The text between quotes.
fn literal(value: &str) -> Option<&str> {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote).filter(|text| !text.contains(quote));
    within('\'').or_else(|| within('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{RequestHead, Version};

    // spec: TL-2
    #[test]
    fn labels_are_texts_and_attributes() {
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"shop.example", b"/a/b?c=1");
        head.headers.append(b"x-team", b"red");
        let facts = LogFacts { request: Some(&head), status: Some(503), ..LogFacts::default() };
        let shown = |text: &str| {
            let mut out = Vec::new();
            Expression::parse(text).unwrap().write(&facts, &mut out);
            String::from_utf8(out).unwrap()
        };
        for (text, value) in [
            ("'50% off'", "50% off"),
            ("request.host", "shop.example"),
            ("request.url_path", "/a/b"),
            ("string(response.code)", "503"),
            ("request.headers['x-team']", "red"),
            ("request.headers['x-none']", "unknown"),
            ("has(request.headers['x-none']) ? request.headers['x-none'] : 'nobody'", "nobody"),
            ("'x-team' in request.headers ? request.headers[\"x-team\"] : \"nobody\"", "red"),
        ] {
            assert_eq!(shown(text), value, "{text}");
        }
        for wrong in [
            "",
            "request.color",
            "request.host + 'x'",
            "has(request.host) ? request.path : 'x'",
            "request.headers['%']",
        ] {
            assert!(Expression::parse(wrong).unwrap_err().contains("not supported yet"), "{wrong}");
        }
    }

    #[test]
    fn every_attribute_has_an_operator() {
        for (name, _) in ATTRIBUTES {
            assert!(Expression::parse(name).is_ok(), "{name}");
        }
    }
}
