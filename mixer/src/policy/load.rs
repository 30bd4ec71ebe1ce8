//! Objects → compiled policy. A bad object is refused alone, and its last good version stays in force.

use super::decision::LONGEST_LEASE;
use super::handler::{self, Handler};
use super::instance::{self, Instance};
use super::object::{Key, Object, Objects, Problem, references};
use super::program::Programs;
use super::quota_spec::{Binding, QuotaSpec};
use super::shapes::Shapes;
use crate::attribute::{Type, Vocabulary};
use crate::ratelimit::domain::{Domain, Domains};
use crate::ratelimit::object as ratelimit;
use crate::rule::{Resolve, Rule};
use crate::source::Texts;
use crate::yaml::{Fault, Place};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The namespace whose rules hold everywhere (`configDefaultNamespace`, MX-21).
pub const ROOT_NAMESPACE: &str = "istio-system";

/// Everything that is in force.
#[derive(Debug, Default)]
pub struct Policy {
    /// Names and types of attributes.
    pub vocabulary: Vocabulary,
    /// Rules that hold everywhere.
    pub root: Vec<Arc<Rule>>,
    /// Rules by the namespace in which they hold.
    pub by_namespace: HashMap<String, Vec<Arc<Rule>>>,
    /// Which requests are charged.
    pub bindings: Vec<Arc<Binding>>,
    /// The handlers.
    pub handlers: Vec<Arc<Handler>>,
    /// Shared limits of RateLimit objects.
    pub domains: Domains,
    /// By what leases are given.
    pub shapes: Shapes,
    /// What proxies may decide by themselves.
    pub programs: Programs,
    /// What was refused.
    pub problems: Vec<Problem>,
    /// How many objects of which kind were read, and how many of them refused.
    pub counts: BTreeMap<&'static str, Count>,
}

/// How many were read and refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All.
    pub read: usize,
    /// Those refused.
    pub refused: usize,
}

impl Policy {
    /// Rules that hold in a namespace, those for everywhere first.
    pub fn rules(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Rule>> {
        let own = namespace.and_then(|namespace| self.by_namespace.get(namespace));
        self.root.iter().chain(own.into_iter().flatten())
    }

    /// Whether any rule depends on the namespace.
    pub fn is_scoped(&self) -> bool {
        !self.by_namespace.is_empty()
    }

    /// All rules.
    pub fn all_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.root.iter().chain(self.by_namespace.values().flatten())
    }
}

/// Reads texts again and again, and keeps what was good.
#[derive(Debug, Default)]
pub struct Loader {
    objects: Objects,
    handlers: BTreeMap<Key, Arc<Handler>>,
    instances: BTreeMap<Key, Arc<Instance>>,
    rules: BTreeMap<Key, Arc<Rule>>,
    specs: BTreeMap<Key, Arc<QuotaSpec>>,
    bindings: BTreeMap<Key, Arc<Binding>>,
    limits: BTreeMap<Key, Arc<Domain>>,
}

impl Loader {
    /// Compiles the texts of all files.
    pub fn load(&mut self, texts: &Texts) -> Policy {
        let mut loading = Loading { problems: self.objects.read(texts), counts: BTreeMap::new() };
        let vocabulary = loading.vocabulary(&self.objects);
        let before = std::mem::take(&mut self.handlers);
        self.handlers =
            loading.compile("handler", self.objects.of(handler::KINDS), &before, |object, last| match last {
                Some(last) if last.spec == object.spec => Ok(last.clone()),
                _ => Handler::parse(object).map(Arc::new),
            });
        let before = std::mem::take(&mut self.instances);
        self.instances = loading.compile("instance", self.objects.of(instance::KINDS), &before, |object, _| {
            Instance::parse(object, &vocabulary).map(Arc::new)
        });
        let before = std::mem::take(&mut self.rules);
        let names = Names { handlers: &self.handlers, instances: &self.instances };
        self.rules = loading.compile("rule", self.objects.of(&["rule"]), &before, |object, last| {
            let tally = last.map_or_else(Arc::default, |last: &Arc<Rule>| last.tally.clone());
            Rule::parse(object, &vocabulary, &names, tally).map(Arc::new)
        });
        let before = std::mem::take(&mut self.specs);
        self.specs = loading.compile("quotaspec", self.objects.of(&["QuotaSpec"]), &before, |object, _| {
            QuotaSpec::parse(object, &vocabulary).map(Arc::new)
        });
        let before = std::mem::take(&mut self.bindings);
        self.bindings = loading.compile("binding", self.objects.of(&["QuotaSpecBinding"]), &before, |object, _| {
            Binding::parse(object, &self.specs).map(Arc::new)
        });
        let before = std::mem::take(&mut self.limits);
        self.limits = loading.compile("ratelimit", self.objects.of(&[ratelimit::KIND]), &before, |object, _| {
            let spec = ratelimit::parse(object)?;
            Ok(Arc::new(ratelimit::domain((&object.key.namespace, &object.key.name), &spec)))
        });
        let mut policy = Policy {
            vocabulary,
            domains: self.limits.values().map(|domain| (domain.name.clone(), domain.clone())).collect(),
            bindings: self.bindings.values().cloned().collect(),
            handlers: self.handlers.values().cloned().collect(),
            problems: loading.problems,
            counts: loading.counts,
            ..Policy::default()
        };
        for rule in self.rules.values() {
            match rule.namespace.as_str() {
                ROOT_NAMESPACE => policy.root.push(rule.clone()),
                _ => policy.by_namespace.entry(rule.namespace.clone()).or_default().push(rule.clone()),
            }
        }
        policy.shapes = Shapes::of(&policy);
        policy.programs = Programs::of(&policy, LONGEST_LEASE);
        policy
    }
}

/// What one round of loading finds.
struct Loading {
    problems: Vec<Problem>,
    counts: BTreeMap<&'static str, Count>,
}

impl Loading {
    fn refuse(&mut self, object: &Object, fault: Fault) {
        self.problems.push(Problem { object: Some(object.key.clone()), file: object.file.clone(), fault });
    }

    /// Compiles objects of one sort; what fails keeps its last good version.
    fn compile<'o, T>(
        &mut self,
        sort: &'static str,
        objects: impl Iterator<Item = &'o Object>,
        before: &BTreeMap<Key, Arc<T>>,
        compile: impl Fn(&Object, Option<&Arc<T>>) -> Result<Arc<T>, Fault>,
    ) -> BTreeMap<Key, Arc<T>> {
        let mut found = BTreeMap::new();
        let mut count = Count::default();
        for object in objects {
            count.read += 1;
            let last = before.get(&object.key);
            match compile(object, last) {
                Ok(compiled) => drop(found.insert(object.key.clone(), compiled)),
                Err(fault) => {
                    count.refused += 1;
                    self.refuse(object, fault);
                    found.extend(last.map(|last| (object.key.clone(), last.clone())));
                }
            }
        }
        self.counts.insert(sort, count);
        found
    }

    /// Istio's attributes and those that objects add (MX-44).
    fn vocabulary(&mut self, objects: &Objects) -> Vocabulary {
        let mut vocabulary = Vocabulary::built_in();
        let mut count = Count::default();
        for object in objects.of(&["attributemanifest"]) {
            match manifest(object, &mut vocabulary) {
                Ok(attributes) => count.read += attributes,
                Err(fault) => {
                    count.refused += 1;
                    self.refuse(object, fault);
                }
            }
        }
        self.counts.insert("attribute", count);
        vocabulary
    }
}

fn manifest(object: &Object, vocabulary: &mut Vocabulary) -> Result<usize, Fault> {
    let mut fields = Place::new(&object.spec, "spec").fields()?;
    fields.get("revision");
    fields.get("name");
    let attributes = match fields.get("attributes") {
        Some(place) => place.entries()?,
        None => Vec::new(),
    };
    fields.done()?;
    for (name, place) in &attributes {
        let mut fields = place.fields()?;
        fields.get("description");
        let kind = fields.need("valueType")?;
        let text = kind.text()?;
        let found = Type::named(&text).ok_or_else(|| kind.fault(format!("unknown type {text}, such as STRING")))?;
        fields.done()?;
        vocabulary.add(name, found).map_err(|reason| place.fault(reason))?;
    }
    Ok(attributes.len())
}

struct Names<'l> {
    handlers: &'l BTreeMap<Key, Arc<Handler>>,
    instances: &'l BTreeMap<Key, Arc<Instance>>,
}

impl Resolve for Names<'_> {
    fn handler(&self, name: &str, namespace: &str) -> Option<Arc<Handler>> {
        find(self.handlers, handler::KINDS, |kind, handler| kind == handler.kind, (name, namespace))
    }

    fn instance(&self, name: &str, namespace: &str) -> Option<Arc<Instance>> {
        find(self.instances, instance::KINDS, |kind, instance| kind == instance.template.name(), (name, namespace))
    }
}

/// The object that a name means. `is` says whether an object of a general kind is of a special one.
fn find<T>(
    objects: &BTreeMap<Key, Arc<T>>,
    kinds: &[&str],
    is: impl Fn(&str, &T) -> bool,
    (name, namespace): (&str, &str),
) -> Option<Arc<T>> {
    references(name, namespace).into_iter().find_map(|(kind, namespace, name)| {
        let key = |kind: &str| Key { kind: kind.to_owned(), namespace: namespace.clone(), name: name.clone() };
        if !kind.is_empty() {
            let general = kinds.first().and_then(|general| objects.get(&key(general)));
            let general = general.filter(|found| kinds.first() == Some(&kind.as_str()) || is(&kind, found));
            return objects.get(&key(&kind)).or(general).cloned();
        }
        kinds.iter().find_map(|kind| objects.get(&key(kind))).cloned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the charts of Istio 1.3 install for Kubernetes, shortened; and what does nothing.
    const INSTALLED: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: kubernetesenv, namespace: istio-system}
spec:
  compiledAdapter: kubernetesenv
  params: {kubeconfig_path: "", cache_refresh_duration: 5m}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: attributes, namespace: istio-system}
spec:
  compiledTemplate: kubernetes
  params:
    source_uid: source.uid | ""
    source_ip: source.ip | ip("0.0.0.0")
    destination_uid: destination.uid | ""
    destination_port: destination.port | 0
  attributeBindings:
    source.ip: $out.source_pod_ip | ip("0.0.0.0")
    source.labels: $out.source_labels | emptyStringMap()
    destination.workload.name: $out.destination_workload_name | "unknown"
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: kubeattrgenrulerule, namespace: istio-system}
spec:
  actions: [{handler: kubernetesenv, instances: [attributes]}]
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: tcpkubeattrgenrulerule, namespace: istio-system}
spec:
  match: context.protocol == "tcp"
  actions: [{handler: kubernetesenv, instances: [attributes]}]
---
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: nobody, namespace: istio-system}
spec: {compiledAdapter: noop}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: checked, namespace: istio-system}
spec: {compiledTemplate: checknothing}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: told, namespace: istio-system}
spec: {compiledTemplate: reportnothing}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: nothing, namespace: istio-system}
spec:
  actions: [{handler: nobody, instances: [checked, told]}]
"#;

    // spec: MX-62, MX-68, MX-77
    #[test]
    fn what_istio_installs_for_kubernetes_is_taken_and_needs_no_work() {
        let policy = Loader::default().load(&Texts::from([("a.yaml".into(), INSTALLED.to_owned())]));
        assert_eq!(policy.problems, []);
        let rules: Vec<_> = policy.all_rules().map(|rule| (rule.name.as_str(), rule.checks, rule.reports)).collect();
        let expected = [
            ("istio-system/kubeattrgenrulerule", false, false),
            ("istio-system/nothing", true, true),
            ("istio-system/tcpkubeattrgenrulerule", false, false),
        ];
        assert_eq!(rules, expected, "workloads are joined without a rule");
        assert!(policy.programs.get("shop").is_some(), "proxies are not told to ask for it");
    }

    // spec: MX-65
    #[test]
    fn what_no_adapter_does_any_more_is_refused_with_what_does_it() {
        let instance = "apiVersion: config.istio.io/v1alpha2\nkind: instance\nmetadata: {name: a, namespace: shop}\n\
                        spec:\n  compiledTemplate: authorization\n  params: {subject: {user: source.user}}\n";
        let policy = Loader::default().load(&Texts::from([("a.yaml".into(), instance.to_owned())]));
        let problem = policy.problems[0].to_string();
        assert!(problem.contains("a.yaml") && problem.contains("AuthorizationPolicy"), "{problem}");
    }
}
