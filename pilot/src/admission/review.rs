//! AdmissionReview of `admission.k8s.io`: v1, and v1beta1, which has the same fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Status of an answer that refuses.
const REFUSED: u16 = 400;
/// Characters of a warning that Kubernetes surely shows (`AdmissionResponse.warnings`).
const MAX_WARNING_CHARS: usize = 256;
/// Warnings of one answer: 16 of that length are the 4,096 characters of which Kubernetes shows no more.
const MAX_WARNINGS: usize = 16;

/// What the API server sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    #[serde(default)]
    api_version: String,
    /// The question.
    pub(super) request: Option<Request>,
}

/// A question.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    /// Comes back with the answer.
    pub(super) uid: String,
    /// Kind of the object.
    pub(super) kind: GroupVersionKind,
    /// Namespace of the object; empty where its kind has none.
    pub(super) namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(super) operation: String,
    /// The object as it would be stored.
    pub(super) object: Value,
}

/// A kind with its group and version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupVersionKind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

impl GroupVersionKind {
    /// `GROUP/VERSION`, or `VERSION` of the core group.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// An answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The object is stored as it is.
    Allowed,
    /// The object is stored as it is; these sentences go to whoever sent it.
    Warned(Vec<String>),
    /// The object is stored with a change, a JSON patch.
    Patched(json_patch::Patch),
    /// The object is not stored; the text goes to whoever sent it.
    Refused(String),
}

impl Review {
    /// What is sent back.
    pub(super) fn answered(&self, answer: &Answer) -> Value {
        let version = if self.api_version.is_empty() { "admission.k8s.io/v1" } else { &self.api_version };
        let mut response = json!({
            "uid": self.request.as_ref().map(|request| request.uid.as_str()).unwrap_or_default(),
            "allowed": !matches!(answer, Answer::Refused(_)),
        });
        match answer {
            Answer::Allowed => {}
            Answer::Warned(texts) => {
                response["warnings"] = texts.iter().take(MAX_WARNINGS).map(|text| shortened(text)).collect();
            }
            Answer::Patched(patch) => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(STANDARD.encode(json!(patch).to_string()));
            }
            Answer::Refused(why) => response["status"] = json!({"message": why, "code": REFUSED}),
        }
        json!({"apiVersion": version, "kind": "AdmissionReview", "response": response})
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_WARNING_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_WARNING_CHARS - 1).chain(['…']).collect()
}
