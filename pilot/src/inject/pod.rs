//! A pod as JSON.

use super::{InjectError, PROXY};
use serde_json::{Map, Value, json};

/// A pod as JSON, with a `metadata` and a `spec` that are objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod(Value);

/// The two lists of containers that can hold a proxy.
pub(super) const CONTAINERS: &str = "containers";
/// See [`CONTAINERS`].
pub(super) const INIT_CONTAINERS: &str = "initContainers";

impl Pod {
    /// A pod from its JSON.
    ///
    /// # Errors
    /// [`InjectError::Pod`] where a part that injection reads has the wrong shape.
    pub fn new(mut value: Value) -> Result<Self, InjectError> {
        let Value::Object(fields) = &mut value else {
            return Err(InjectError::pod("pod", "an object is needed"));
        };
        for name in ["metadata", "spec"] {
            let part = fields.entry(name).or_insert(Value::Null);
            if part.is_null() {
                *part = json!({});
            }
            if !part.is_object() {
                return Err(InjectError::pod(name, "an object is needed"));
            }
        }
        let pod = Self(value);
        for name in ["labels", "annotations"] {
            pod.check_texts(name)?;
        }
        for name in [CONTAINERS, INIT_CONTAINERS, "volumes", "imagePullSecrets"] {
            pod.check_list(name)?;
        }
        Ok(pod)
    }

    fn check_texts(&self, name: &str) -> Result<(), InjectError> {
        let part = &self.0["metadata"][name];
        let texts = part.is_null() || part.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if texts { Ok(()) } else { Err(InjectError::pod(format!("metadata.{name}"), "a map of texts is needed")) }
    }

    fn check_list(&self, name: &str) -> Result<(), InjectError> {
        let part = &self.0["spec"][name];
        let objects = part.is_null() || part.as_array().is_some_and(|list| list.iter().all(Value::is_object));
        if objects { Ok(()) } else { Err(InjectError::pod(format!("spec.{name}"), "a list of objects is needed")) }
    }

    /// The JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The JSON, owned.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0["metadata"]["labels"].get(name)?.as_str()
    }

    /// An annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0["metadata"]["annotations"].get(name)?.as_str()
    }

    /// All labels, in the order of writing.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(&self.0["metadata"]["labels"])
    }

    /// All annotations, in the order of writing.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(&self.0["metadata"]["annotations"])
    }

    /// A text of the metadata, such as `name`; empty where it is absent.
    pub fn meta(&self, name: &str) -> &str {
        self.0["metadata"][name].as_str().unwrap_or_default()
    }

    /// A field of the specification; null where it is absent.
    pub fn spec(&self, name: &str) -> &Value {
        &self.0["spec"][name]
    }

    /// Name or generated name, for messages.
    pub fn shown_name(&self) -> String {
        match (self.meta("name"), self.meta("generateName")) {
            ("", "") => "a pod without a name".to_owned(),
            ("", prefix) => format!("{prefix}***** (name not yet known)"),
            (name, _) => name.to_owned(),
        }
    }

    pub(super) fn set_annotation(&mut self, name: &str, value: impl Into<String>) {
        self.meta_map("annotations").insert(name.to_owned(), Value::String(value.into()));
    }

    pub(super) fn set_label(&mut self, name: &str, value: impl Into<String>) {
        self.meta_map("labels").insert(name.to_owned(), Value::String(value.into()));
    }

    pub(super) fn remove_annotation(&mut self, name: &str) {
        if let Some(annotations) = self.0["metadata"]["annotations"].as_object_mut() {
            annotations.shift_remove(name);
        }
    }

    pub(super) fn remove_label(&mut self, name: &str) {
        if let Some(labels) = self.0["metadata"]["labels"].as_object_mut() {
            labels.shift_remove(name);
        }
    }

    /// The pod without maps of metadata that hold nothing any more.
    pub(super) fn without_empty_metadata(mut self) -> Self {
        let metadata = self.0["metadata"].as_object_mut();
        metadata
            .into_iter()
            .for_each(|fields| fields.retain(|_, part| part.as_object().is_none_or(|map| !map.is_empty())));
        self
    }

    fn meta_map(&mut self, name: &str) -> &mut Map<String, Value> {
        let part = &mut self.0["metadata"][name];
        if !part.is_object() {
            *part = json!({});
        }
        match part {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object above"),
        }
    }

    /// A list of the specification; empty where it is absent.
    pub(super) fn list(&self, name: &str) -> &[Value] {
        self.0["spec"][name].as_array().map_or(&[], Vec::as_slice)
    }

    /// A list of the specification, for changes; `None` where it is absent.
    pub(super) fn list_mut(&mut self, name: &str) -> Option<&mut Vec<Value>> {
        self.0["spec"].get_mut(name)?.as_array_mut()
    }

    pub(super) fn set_list(&mut self, name: &str, items: Vec<Value>) {
        match &mut self.0["spec"] {
            Value::Object(spec) if items.is_empty() => drop(spec.shift_remove(name)),
            spec => spec[name] = Value::Array(items),
        }
    }

    /// The proxy's container, wherever it stands.
    pub(super) fn proxy(&self) -> Option<&Value> {
        find(self.list(CONTAINERS), PROXY).or_else(|| find(self.list(INIT_CONTAINERS), PROXY))
    }

    /// The proxy's container, for changes.
    pub(super) fn proxy_mut(&mut self) -> Option<&mut Value> {
        let list = if find(self.list(CONTAINERS), PROXY).is_some() { CONTAINERS } else { INIT_CONTAINERS };
        self.list_mut(list)?.iter_mut().find(|container| name(container) == PROXY)
    }

    /// What the proxy is told by a variable that is JSON.
    pub(super) fn told(&self, variable: &str) -> Option<Value> {
        let variable = find(self.proxy()?["env"].as_array()?, variable)?;
        serde_json::from_str(variable["value"].as_str()?).ok()
    }

    /// Names of the containers but the proxy.
    pub(super) fn app_containers(&self) -> Vec<&str> {
        self.list(CONTAINERS).iter().map(name).filter(|name| *name != PROXY).collect()
    }
}

/// The name of a container or volume.
pub(super) fn name(item: &Value) -> &str {
    item["name"].as_str().unwrap_or_default()
}

/// The item of a list with this name.
pub(super) fn find<'a>(items: &'a [Value], wanted: &str) -> Option<&'a Value> {
    items.iter().find(|item| name(item) == wanted)
}

/// Adds a variable to a container.
pub(super) fn add_env(container: &mut Value, name: &str, value: &str) {
    let variable = json!({"name": name, "value": value});
    match container["env"].as_array_mut() {
        Some(env) => env.push(variable),
        None => container["env"] = json!([variable]),
    }
}

fn texts(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    map.as_object().into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}
