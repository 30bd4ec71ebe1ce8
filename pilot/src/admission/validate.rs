//! An object of the mesh that is created or changed: the same admission as that of a directory of files (PI-48, PI-49).

use super::review::{Answer, Request};
use crate::model::{MeshConfig, caution, mesh};
use crate::source::kinds::{self, Found, Row};
use crate::source::yaml::Node;
use crate::source::{Problem, memory};
use proto::istio::meta::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;

/// The answer for an object; it names every field that is wrong, and warns of what is valid and will surprise.
pub(super) fn answer(request: &Request, config: &MeshConfig) -> Answer {
    // What is deleted need not be valid.
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return Answer::Allowed;
    }
    let (api_version, kind) = (request.kind.api_version(), request.kind.kind.as_str());
    match kinds::find(&api_version, kind) {
        Found::Watched(row) => admitted(request, row, config),
        Found::Unused => Answer::Allowed,
        Found::Later => Answer::Refused(format!("{}: kind {kind} of {api_version}", proto::istio::NOT_SUPPORTED_YET)),
        Found::WrongVersion(row) => {
            Answer::Refused(format!("{kind}: {api_version} is no version of it; there are {}", row.versions.join(", ")))
        }
    }
}

fn admitted(request: &Request, row: &Row, config: &MeshConfig) -> Answer {
    let document = Node::from_json(without_server_fields(&request.object));
    let object = match memory::object(row, meta(request), &document) {
        Ok(object) => object,
        Err(broken) => {
            let (key, fault) = *broken;
            return Answer::Refused(text(&[memory::problem(&fault, Some(&key), None)]));
        }
    };
    match mesh::admit(&object, config) {
        Err(problems) => Answer::Refused(text(&problems)),
        Ok(()) => match caution::warnings(&object, config) {
            none if none.is_empty() => Answer::Allowed,
            warnings => Answer::Warned(warnings),
        },
    }
}

/// What is decoded: the status is the API server's business, and metadata are read apart.
fn without_server_fields(object: &Value) -> Value {
    let kept = object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata" && *name != "status");
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn meta(request: &Request) -> ObjectMeta {
    let metadata = &request.object["metadata"];
    let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
    let texts = |name: &str| -> BTreeMap<String, String> {
        let pairs = metadata[name].as_object().into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    };
    let name = text("name");
    ObjectMeta {
        name: if name.is_empty() { text("generateName") } else { name },
        namespace: request.namespace.clone(),
        labels: texts("labels"),
        annotations: texts("annotations"),
        ..ObjectMeta::default()
    }
}

fn text(problems: &[Problem]) -> String {
    let line = |problem: &Problem| match problem.field.as_str() {
        "" => problem.message.clone(),
        field => format!("{field}: {}", problem.message),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}
