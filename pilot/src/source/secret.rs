//! Secrets out of their documents: decoded here by hand, so that no fault ever quotes content.

use super::problem::Class;
use super::yaml::{Fault, Node, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::istio::secret::{FIELDS, Secret};

/// Largest content of a field: the API server's own limit of a Secret.
const MAX_BYTES: usize = 1 << 20;

/// The parts of a document with content.
const PARTS: [&str; 2] = ["data", "stringData"];

/// Decodes a Secret: `data` in base64, `stringData` over it as it stands.
///
/// # Errors
/// The field that is no text or no base64.
pub(super) fn decode(document: &Node) -> Result<Secret, Fault> {
    let mut fields = Vec::new();
    for part in PARTS {
        let Some(node) = document.field(part) else { continue };
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => continue,
            _ => {
                return Err(
                    Fault::new(Class::WrongType, node.line, "a mapping is needed").under(part.to_owned(), node.line)
                );
            }
        };
        for (name, value) in entries.iter().filter(|(name, _)| FIELDS.contains(&name.as_str())) {
            let fault = |class, what: &str| {
                Fault::new(class, value.line, what).under(name.clone(), value.line).under(part.to_owned(), node.line)
            };
            let Some(text) = value.text() else { return Err(fault(Class::WrongType, "a text is needed")) };
            if text.len() > MAX_BYTES {
                return Err(fault(Class::Semantic, "more than 1 MiB"));
            }
            let content = if part == "data" {
                let joined: String = text.split_whitespace().collect();
                STANDARD.decode(joined).map_err(|_| fault(Class::WrongType, "it is no base64"))?
            } else {
                text.as_bytes().to_vec()
            };
            fields.push((name.clone(), content));
        }
    }
    Ok(Secret::new(fields))
}

/// Takes the content out of a document that is kept for its lines.
pub(super) fn conceal(document: &mut Node) {
    let Value::Map(entries) = &mut document.value else { return };
    for (_, part) in entries.iter_mut().filter(|(name, _)| PARTS.contains(&name.as_str())) {
        match &mut part.value {
            Value::Map(fields) => fields.iter_mut().for_each(|(_, field)| field.value = Value::Null),
            other => *other = Value::Null,
        }
    }
    // Annotations may hold a copy of the whole object.
    let metadata = entries.iter_mut().find(|(name, _)| name == "metadata").map(|(_, metadata)| &mut metadata.value);
    if let Some(Value::Map(metadata)) = metadata {
        metadata.retain(|(name, _)| name != "annotations");
    }
}

#[cfg(test)]
mod tests {
    use crate::source::{Spec, memory};

    const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: {copy: 'S3CR3T'}\ndata: {tls.crt: YQ==, tls.key: UzNDUjNU, other: UzNDUjNU}\nstringData: {ca.crt: S3CR3T-root, tls.crt: b}\n";

    // spec: CA-26, CA-27
    #[test]
    fn content_is_decoded_and_never_shown() {
        let parsed = memory::parse(SECRET, Some(&"f.yaml".into()));
        let object = &parsed.objects[0];
        let Spec::Secret(secret) = &object.spec else { panic!("{:?}", object.key) };
        assert_eq!((secret.field("tls.crt"), secret.field("tls.key")), (Some(&b"b"[..]), Some(&b"S3CR3T"[..])));
        assert_eq!((secret.field("ca.crt"), secret.field("other")), (Some(&b"S3CR3T-root"[..]), None));
        let shown = format!("{object:?}");
        assert!(!shown.contains("S3CR3T") && !shown.contains("UzNDUjNU"), "{shown}");
        assert_eq!(object.origin.as_ref().unwrap().document.line_of("data"), 6);
    }

    #[test]
    fn a_fault_names_the_field_and_quotes_nothing() {
        for (broken, field) in [("data: {tls.key: '!S3CR3T'}", "data.tls.key"), ("data: S3CR3T", "data")] {
            let yaml = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{broken}\n");
            let parsed = memory::parse(&yaml, Some(&"f.yaml".into()));
            let problem = &parsed.problems[0];
            assert_eq!((problem.field.as_str(), problem.line), (field, Some(4)));
            assert!(!problem.to_string().contains("S3CR3T"), "{problem}");
        }
    }
}
