//! The injection configuration: key `config` of the ConfigMap `istio-sidecar-injector` (spec PI-57).

use super::InjectError;
use super::labels::Selector;
use super::template::Template;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What is done with a pod that says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// It is injected.
    #[default]
    Enabled,
    /// It is left alone.
    Disabled,
    /// Neither is written: every pod is left alone.
    Unknown,
}

/// The injection configuration, parsed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What is done with a pod that says nothing.
    pub policy: Policy,
    /// Templates of a pod that names none.
    pub default_templates: Vec<String>,
    /// Templates as text, by name; those built in are not among them unless replaced.
    pub(super) templates: BTreeMap<String, Template>,
    /// One name for several templates.
    pub(super) aliases: BTreeMap<String, Vec<String>>,
    pub(super) never_inject_selector: Vec<Selector>,
    pub(super) always_inject_selector: Vec<Selector>,
    pub(super) injected_annotations: BTreeMap<String, String>,
}

/// The configuration as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    policy: Option<String>,
    default_templates: Option<Vec<String>>,
    templates: Option<BTreeMap<String, String>>,
    aliases: Option<BTreeMap<String, Vec<String>>>,
    never_inject_selector: Option<Vec<Selector>>,
    always_inject_selector: Option<Vec<Selector>>,
    injected_annotations: Option<BTreeMap<String, String>>,
}

/// Name of the template of a pod that names none.
pub(super) const SIDECAR: &str = "sidecar";
/// Name of the template of gateways.
pub(super) const GATEWAY: &str = "gateway";
/// The templates that are built in.
const BUILT_IN: [&str; 2] = [SIDECAR, GATEWAY];

impl Config {
    /// Reads the configuration. `sidecar` and `gateway` are built in; a template of that name in the text replaces ours.
    ///
    /// # Errors
    /// [`InjectError::Config`] or [`InjectError::Template`] with the place.
    pub fn parse(text: &str) -> Result<Self, InjectError> {
        let written: Written = serde_saphyr::from_str(text)
            .map_err(|error| InjectError::config("injection configuration", first(&error)))?;
        let mut templates = BTreeMap::new();
        for (name, text) in written.templates.unwrap_or_default() {
            let parsed = Template::parse(&text).map_err(|why| InjectError::template(&name, why))?;
            templates.insert(name, parsed);
        }
        let selectors = |list: Option<Vec<Selector>>, name: &str| {
            let list = list.unwrap_or_default();
            let mut checks = list.iter().enumerate();
            checks.try_for_each(|(index, selector)| selector.check(&format!("{name}[{index}]"))).map(|()| list)
        };
        Ok(Self {
            policy: match written.policy.as_deref() {
                None | Some("enabled") => Policy::Enabled,
                Some("disabled") => Policy::Disabled,
                Some(_) => Policy::Unknown,
            },
            default_templates: written
                .default_templates
                .filter(|names| !names.is_empty())
                .unwrap_or_else(|| vec![SIDECAR.to_owned()]),
            templates,
            aliases: written.aliases.unwrap_or_default(),
            never_inject_selector: selectors(written.never_inject_selector, "neverInjectSelector")?,
            always_inject_selector: selectors(written.always_inject_selector, "alwaysInjectSelector")?,
            injected_annotations: written.injected_annotations.unwrap_or_default(),
        })
    }

    /// The configuration of an installation without any: `policy: enabled`, the template `sidecar`.
    pub fn built_in() -> Self {
        Self { default_templates: vec![SIDECAR.to_owned()], ..Self::default() }
    }

    /// Adds a template as text, as the values' `sidecarInjectorWebhook.templates` do.
    ///
    /// # Errors
    /// Where it cannot be parsed.
    pub fn add_template(&mut self, name: &str, text: &str) -> Result<(), InjectError> {
        let parsed = Template::parse(text).map_err(|why| InjectError::template(name, why))?;
        self.templates.insert(name.to_owned(), parsed);
        Ok(())
    }

    /// The names of the templates for a pod, by its annotation `inject.istio.io/templates` where it has one.
    pub(super) fn names_for(&self, annotation: Option<&str>) -> Vec<String> {
        let names: Vec<String> = match annotation {
            Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
            None => self.default_templates.clone(),
        };
        let resolve = |name: String| self.aliases.get(&name).cloned().unwrap_or_else(|| vec![name]);
        names.into_iter().flat_map(resolve).collect()
    }

    /// All names of templates, for messages.
    pub(super) fn known(&self) -> String {
        let mut names: Vec<&str> = self.templates.keys().map(String::as_str).chain(BUILT_IN).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }
}

/// The first line of an error, which is the message; the rest is a picture of the place.
fn first(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or("it cannot be read").to_owned()
}
