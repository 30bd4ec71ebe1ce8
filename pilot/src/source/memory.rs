//! Objects out of a text: the decoder that every source of YAML shares, and the source of tests.

use super::kinds::{self, Found, Row};
use super::object::{HostAddress, Key, Kind, Object, Origin};
use super::problem::{Class, Problem};
use super::secret;
use super::yaml::{Fault, Node, Value, decode};
use proto::istio::meta::ObjectMeta;
use serde::Deserialize;
use std::sync::Arc;

/// What a text holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The good objects, in order of writing.
    pub objects: Vec<Arc<Object>>,
    /// Keys of objects that are there and broken: their last good version stays.
    pub broken: Vec<Key>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Kinds that were passed over.
    pub unused: Vec<String>,
    /// Some document could not be read so far that its object is known: nothing of this text may be deleted.
    pub unreadable: bool,
}

/// Parses a text of one or more documents, `kind: List` among them.
pub fn parse(text: &str, file: Option<&Arc<str>>) -> Parsed {
    let mut parsed = Parsed::default();
    for (first_line, document) in outline::documents(text) {
        match Node::parse(document, first_line) {
            Ok(node) => add(&mut parsed, node, file),
            Err(broken) => {
                parsed.unreadable = true;
                parsed.problems.push(problem(&broken.into(), None, file));
            }
        }
    }
    parsed
}

fn add(parsed: &mut Parsed, mut node: Node, file: Option<&Arc<str>>) {
    if node.value == Value::Null {
        return;
    }
    let kind = node.field("kind").and_then(Node::text).unwrap_or_default().to_owned();
    if kind == "List" {
        if let Value::Map(entries) = node.value {
            let items = entries.into_iter().find(|(key, _)| key == "items").map(|(_, items)| items.value);
            if let Some(Value::List(items)) = items {
                items.into_iter().for_each(|item| add(parsed, item, file));
            }
        }
        return;
    }
    let api_version = node.field("apiVersion").and_then(Node::text).unwrap_or_default();
    if kind.is_empty() || api_version.is_empty() {
        parsed.unreadable = true;
        let fault = Fault::new(Class::Syntax, node.line, "no object: apiVersion and kind are needed");
        parsed.problems.push(problem(&fault, None, file));
        return;
    }
    let row = match kinds::find(api_version, &kind) {
        Found::Watched(row) => row,
        Found::Unused => return parsed.unused.push(kind),
        Found::Later => return parsed.problems.push(problem(&kinds::later(&kind, node.line), None, file)),
        Found::WrongVersion(row) => {
            let message = format!("{kind} has the versions {}, not {api_version}", row.versions.join(", "));
            let fault = Fault::new(Class::Semantic, node.line, message);
            return parsed.problems.push(problem(&fault, None, file));
        }
    };
    match metadata(&node) {
        Ok(meta) => match object(row, meta, &node) {
            Ok(mut object) => {
                if row.kind == Kind::Secret {
                    secret::conceal(&mut node);
                }
                object.origin = file.map(|file| Origin { file: file.clone(), document: Arc::new(node) });
                parsed.objects.push(Arc::new(object));
            }
            Err(broken) => {
                let (key, fault) = *broken;
                parsed.problems.push(problem(&fault, Some(&key), file));
                parsed.broken.push(key);
            }
        },
        Err(fault) => {
            parsed.unreadable = true;
            parsed.problems.push(problem(&fault, None, file));
        }
    }
}

/// The object of a document of a kind that is watched: the door by which every source brings its objects in.
///
/// # Errors
/// The key of the object that is broken, and what is wrong with it.
pub fn object(row: &Row, mut meta: ObjectMeta, document: &Node) -> Result<Object, Box<(Key, Fault)>> {
    if row.namespaced && meta.namespace.is_empty() {
        meta.namespace = "default".to_owned();
    }
    if row.kind == Kind::Secret {
        // They may hold a copy of the whole object.
        meta.annotations.clear();
    }
    let namespace = if row.namespaced { meta.namespace.as_str() } else { "" };
    let key = Key { kind: row.kind, namespace: namespace.into(), name: meta.name.as_str().into() };
    match row.decode(document) {
        Ok(spec) => {
            let recorded = if row.kind == Kind::ServiceEntry { recorded(document) } else { Vec::new() };
            Ok(Object { key, meta, spec, recorded, origin: None })
        }
        Err(fault) => Err(Box::new((key, fault))),
    }
}

/// What the status of a ServiceEntry has for its hosts; a status is pilot's own work, and no reason to refuse an object.
fn recorded(document: &Node) -> Vec<HostAddress> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        addresses: Vec<HostAddress>,
    }
    #[derive(Deserialize)]
    struct WithStatus {
        #[serde(default)]
        status: Option<Status>,
    }
    let decoded = decode::<WithStatus>(document).ok().and_then(|with| with.status);
    decoded.unwrap_or_default().addresses
}

fn metadata(node: &Node) -> Result<ObjectMeta, Fault> {
    #[derive(Deserialize)]
    struct WithMeta {
        #[serde(default)]
        metadata: ObjectMeta,
    }
    let meta = decode::<WithMeta>(node)?.metadata;
    if meta.name.is_empty() {
        return Err(Fault::new(Class::Syntax, node.line, "metadata.name is missing"));
    }
    Ok(meta)
}

/// A fault as a problem of its object.
pub fn problem(fault: &Fault, object: Option<&Key>, file: Option<&Arc<str>>) -> Problem {
    let field = fault.field();
    let message = if fault.message == proto::istio::NOT_SUPPORTED_YET {
        format!("{}: {field}", proto::istio::NOT_SUPPORTED_YET)
    } else {
        fault.message.clone()
    };
    let line = (fault.line > 0).then_some(fault.line);
    Problem { class: fault.class, object: object.cloned(), file: file.cloned(), line, field, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    const TWO: &str = "# comment\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec: {ports: [{port: 80, name: http}]}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: n}\nspec:\n  hosts: [a]\n  http:\n  - retires: {}\n";

    // spec: PI-9
    #[test]
    fn reads_documents_and_lists_and_passes_over_what_it_has_no_use_for() {
        let parsed = parse(TWO, None);
        assert_eq!(parsed.objects.len(), 1);
        assert_eq!(parsed.objects[0].key, Key { kind: Kind::Service, namespace: "default".into(), name: "a".into() });
        assert_eq!(parsed.unused, ["Deployment"]);
        assert_eq!(parsed.problems.len(), 1);
        assert_eq!((parsed.problems[0].line, parsed.problems[0].field.as_str()), (Some(18), "spec.http[0].retires"));
        assert_eq!(parsed.broken.len(), 1);
        assert!(!parsed.unreadable);
    }

    #[test]
    fn one_unreadable_document_does_not_hide_the_others() {
        let parsed = parse("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: [\n", None);
        assert_eq!(parsed.objects.len(), 1);
        assert!(parsed.unreadable);
        assert_eq!(parsed.problems[0].class, Class::Syntax);
    }
}
