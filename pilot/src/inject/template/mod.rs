//! Templates as text, which users of Istio bring along: the part of Go's `text/template` with the functions of sprig and
//! of Istio's injector that such templates use (spec PI-57).
//!
//! A template is parsed once. It is given the pod and the settings as JSON and must give YAML that is merged into the
//! pod. It can reach neither files nor the environment, and its work and its output are limited. A function that is
//! not known is refused when the configuration is read, not when a pod is made.

mod eval;
mod functions;
mod lex;
mod parse;
mod text_functions;

use super::proxy::Facts;
use parse::Parsed;
use serde_json::{Value, json};

/// Largest text of a template.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A parsed template.
#[derive(Debug, Clone)]
pub(super) struct Template(Parsed);

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The line and what is wrong there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("it is longer than {MAX_TEXT_BYTES} bytes"));
        }
        parse::parse(text).map(Self)
    }

    /// The text that the template gives for these data.
    ///
    /// # Errors
    /// The line and what is wrong there.
    fn render(&self, data: &Value) -> Result<String, String> {
        eval::render(&self.0, data)
    }

    /// What is merged into a pod.
    ///
    /// # Errors
    /// Where the template fails, or does not give a mapping.
    pub(super) fn overlay(&self, facts: &Facts<'_>) -> Result<Value, String> {
        let text = self.render(&data(facts))?;
        let options = serde_saphyr::options! { strict_booleans: true };
        let parsed: Value = serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
            format!("it does not give YAML: {}", error.to_string().lines().next().unwrap_or_default())
        })?;
        if parsed.is_object() {
            Ok(parsed)
        } else {
            Err("it does not give a mapping with metadata and spec".to_owned())
        }
    }
}

/// The data of a template under the names that Istio gives them.
fn data(facts: &Facts<'_>) -> Value {
    let (pod, owner) = (facts.pod, facts.owner);
    json!({
        "TypeMeta": {"APIVersion": owner.api_version, "Kind": owner.kind},
        "DeploymentMeta": {"Name": owner.name, "Namespace": owner.namespace},
        "ObjectMeta": pod.value()["metadata"],
        "Spec": pod.value()["spec"],
        "ProxyConfig": facts.proxy.all(),
        "MeshConfig": facts.mesh.all(),
        "Values": facts.values.all(),
        "Revision": facts.revision,
        "NativeSidecars": facts.cluster_has_native,
        "ProxyImage": super::image::proxy(pod, facts.values, facts.proxy.image_type()),
        "ProxyInitImage": super::image::redirect(pod, facts.values),
        "ProxyUID": facts.ids.user,
        "ProxyGID": facts.ids.group,
        "InboundTrafficPolicyMode": if facts.mesh.inbound_localhost { "localhost" } else { "passthrough" },
        "CompliancePolicy": "",
    })
}

#[cfg(test)]
mod tests;
