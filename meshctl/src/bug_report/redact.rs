//! What nobody else may see is taken out: keys, tokens, passwords, and what an application's environment holds (robustness
//! S2).

use serde_json::{Value, json};

/// What stands in the place of something secret.
pub const HIDDEN: &str = "(hidden)";
/// Headers that hold credentials.
const CREDENTIALS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
/// How PEM of private keys (PKCS 8, SEC 1, PKCS 1) begins in base64.
const KEYS: [&str; 3] = ["LS0tLS1CRUdJTiBQUklWQVRF", "LS0tLS1CRUdJTiBFQyBQUklWQVRF", "LS0tLS1CRUdJTiBSU0EgUFJJVkFUR"];
/// Bytes of which words consist that may be a token.
const MIN_TOKEN: usize = 20;

/// A text without private keys, tokens and the values of `authorization` and `cookie`.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        // Of a key in one line (JSON) what follows on the line is hidden with it.
        if let Some((before, rest)) = line.split_once("-----BEGIN ").filter(|(_, rest)| is_key(rest)) {
            in_key = !rest.contains("-----END ");
            out.push_str(&words(before));
            out.push_str(HIDDEN);
            let after =
                rest.split_once("-----END ").and_then(|(_, end)| end.split_once("KEY-----")).map(|(_, after)| after);
            out.push_str(&after.map_or_else(|| "\n".to_owned(), words));
        } else if in_key {
            in_key = !line.contains("-----END ");
        } else {
            out.push_str(&words(line));
        }
    }
    out
}

fn is_key(rest: &str) -> bool {
    rest.split_once("-----").is_some_and(|(what, _)| what.ends_with("PRIVATE KEY"))
}

/// A line with the words hidden that are tokens or stand behind `Bearer` and `Basic`, and what stands behind the name of a
/// header that holds credentials, up to a quotation mark or the end of the line.
fn words(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut rest, mut hide_next) = (line, false);
    while !rest.is_empty() {
        let (word, after) = split(rest, |c| !is_word(c));
        let (gap, next) = split(after, is_word);
        let is_one_of = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
        out.push_str(if (hide_next && !word.is_empty()) || is_token(word) { HIDDEN } else { word });
        out.push_str(gap);
        hide_next = is_one_of(&["bearer", "basic"]) && gap.starts_with(' ');
        rest = next;
        if is_one_of(&CREDENTIALS) && gap.contains([':', '=']) && !gap.contains('\n') {
            let (hidden, end) = split(next, |c| matches!(c, '"' | '\n'));
            out.push_str(if hidden.is_empty() { "" } else { HIDDEN });
            rest = end;
        }
    }
    out
}

/// What stands before the first character that fits, and the rest.
fn split(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(fits).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '/' | '%')
}

/// A JSON Web Token, whose first part is JSON in base64; or a private key in base64 once more.
fn is_token(word: &str) -> bool {
    let is_key = || KEYS.iter().any(|begin| word.starts_with(begin));
    word.len() >= MIN_TOKEN && (word.starts_with("eyJ") && word.contains('.') || is_key())
}

/// An object without what is not the mesh's: who changed what, its copy in an annotation, and the values in the environment
/// of containers that are not the mesh's.
pub fn object(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.shift_remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    for path in ["/spec", "/spec/template/spec"] {
        for list in ["containers", "initContainers"] {
            let found = object.pointer_mut(&format!("{path}/{list}")).and_then(Value::as_array_mut);
            found.into_iter().flatten().for_each(container);
        }
    }
}

fn container(container: &mut Value) {
    let own = ["istio-proxy", "istio-init", "istio-validation", "discovery", "istiod", "citadel", "mixer"];
    if container["name"].as_str().is_some_and(|name| own.contains(&name)) {
        return;
    }
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if !variable["value"].is_null() {
            variable["value"] = json!(HIDDEN);
        }
    }
    for list in ["args", "command"] {
        if !container[list].is_null() {
            container[list] = json!([HIDDEN]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-23, S2
    #[test]
    fn keys_and_tokens_are_hidden_and_the_rest_stays() {
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\nAQ==\n-----END EC PRIVATE KEY-----\nb\n";
        assert_eq!(text(key), "a\n(hidden)\nb\n");
        let json = r#"{"key": "-----BEGIN PRIVATE KEY-----\nMHcC\n-----END PRIVATE KEY-----\n", "a": 1}"#;
        assert!(!text(json).contains("MHcC") && text(json).contains(r#""a": 1"#), "{}", text(json));
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(text(certificate), certificate);
        assert_eq!(text("GET / authorization: Bearer abc.def-1 200\n"), "GET / authorization: (hidden)\n");
        assert_eq!(text("cookie: session=1; b=2"), "cookie: (hidden)");
        assert_eq!(text(r#"{"authorization": "Basic YTpi", "a": 1}"#), r#"{"authorization": "(hidden)", "a": 1}"#);
        assert_eq!(text("sent Bearer abc, then 1\n"), "sent Bearer (hidden), then 1\n");
        assert_eq!(text("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln x"), "token (hidden) x");
        assert_eq!(text(r#""inline_bytes": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t""#), r#""inline_bytes": "(hidden)""#);
        let harmless = "bearer of news: reviews.default.svc.cluster.local|9080 été\n";
        assert!(text(harmless).ends_with("news: reviews.default.svc.cluster.local|9080 été\n"));
    }

    // spec: CT-23, S2
    #[test]
    fn an_applications_environment_is_hidden_and_the_proxys_is_not() {
        let env = json!([{"name": "PASSWORD", "value": "hunter2"}, {"name": "A", "valueFrom": {}}]);
        let mut pod = json!({
            "metadata": {"managedFields": [], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "b": "c"}},
            "spec": {"containers": [{"name": "app", "env": env, "args": ["--password=hunter2"]}, {"name": "istio-proxy", "env": [{"name": "X", "value": "y"}]}]},
        });
        object(&mut pod);
        let text = pod.to_string();
        assert!(!text.contains("hunter2") && text.contains("PASSWORD") && text.contains(r#""value":"y""#), "{text}");
    }
}
