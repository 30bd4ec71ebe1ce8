//! What a verified token leaves behind: headers for the upstream, metadata for policies and logs.

use super::{JwtAuthn, NAME, Provider, StreamCx, Verified};
use crate::message::RequestHead;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

impl JwtAuthn {
    pub(super) fn leave(&self, token: Verified, head: &mut RequestHead, cx: &StreamCx) {
        let Some(provider) = self.providers.get(token.provider) else { return };
        if let Some((name, padded)) = &provider.payload_header {
            let mut value = token.payload.into_string();
            while *padded && !value.len().is_multiple_of(4) {
                value.push('=');
            }
            head.headers.append(name, value.as_bytes());
        }
        for (name, path) in &provider.claim_headers {
            if let Some(value) = claim(&token.claims.all, path).and_then(shown) {
                head.headers.append(name, value.as_bytes());
            }
        }
        if !provider.forward {
            token.place.remove_from(head);
        }
        if !provider.metadata.is_empty() {
            let mut claims = token.claims.all;
            spread(&mut claims, &provider.spaced);
            let payload = (provider.metadata.to_string(), Value::Object(claims));
            cx.info.borrow_mut().leave(NAME, Map::from_iter([payload]));
        }
        if provider.clear_route {
            cx.clear_route();
        }
    }
}

impl Provider {
    /// Removes headers that only this filter may write.
    pub(super) fn remove_forged(&self, head: &mut RequestHead) {
        let written = self.payload_header.iter().map(|(name, _)| name);
        for name in written.chain(self.claim_headers.iter().map(|(name, _)| name)) {
            head.headers.remove_name(name);
        }
    }
}

fn claim<'a>(claims: &'a Map<String, Value>, path: &[Box<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(&**first)?, |value, key| value.get(&**key))
}

/// A claim as a header value: texts, numbers and truth as they are, everything else as base64url of its JSON.
fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.bytes().any(|byte| byte < b' ' || byte == 0x7f)),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(URL_SAFE_NO_PAD.encode(value.to_string())),
    }
}

/// Turns the words of these claims into lists.
fn spread(claims: &mut Map<String, Value>, names: &[Box<str>]) {
    for name in names {
        if let Some(Value::String(words)) = claims.get(&**name) {
            let list = words.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect();
            claims.insert(name.to_string(), Value::Array(list));
        }
    }
}
