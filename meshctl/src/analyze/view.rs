//! The objects by kind, and who matches whom.

use super::message::Message;
use crate::offline::Offline;
use pilot::model::{caution, host};
use pilot::registry::Service;
use pilot::registry::entry::selects;
use pilot::source::{Kind, Object, Spec};
use proto::istio::destination_rule::DestinationRule;
use proto::istio::gateway::Gateway;
use proto::istio::virtual_service::VirtualService;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What analyzers see.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The mesh out of files.
    pub offline: &'a Offline,
}

/// An object with its content.
pub type Of<'a, T> = (&'a Object, &'a T);

impl<'a> View<'a> {
    /// A view of these files.
    pub fn new(offline: &'a Offline) -> Self {
        Self { offline }
    }

    /// Objects of a kind.
    pub fn kind(&self, kind: Kind) -> impl Iterator<Item = &'a Object> + use<'a> {
        self.offline.objects.iter().map(Arc::as_ref).filter(move |object| object.key.kind == kind)
    }

    /// VirtualServices.
    pub fn virtual_services(&self) -> Vec<Of<'a, VirtualService>> {
        let all = self.kind(Kind::VirtualService);
        all.filter_map(|o| if let Spec::VirtualService(spec) = &o.spec { Some((o, &**spec)) } else { None }).collect()
    }

    /// DestinationRules.
    pub fn rules(&self) -> Vec<Of<'a, DestinationRule>> {
        let all = self.kind(Kind::DestinationRule);
        all.filter_map(|o| if let Spec::DestinationRule(spec) = &o.spec { Some((o, &**spec)) } else { None }).collect()
    }

    /// Gateways.
    pub fn gateways(&self) -> Vec<Of<'a, Gateway>> {
        let all = self.kind(Kind::Gateway);
        all.filter_map(|o| if let Spec::Gateway(spec) = &o.spec { Some((o, &**spec)) } else { None }).collect()
    }

    /// A host as seen from a namespace.
    pub fn resolve(&self, name: &str, namespace: &str) -> String {
        host::resolve(name, namespace, &self.offline.mesh.config.domain)
    }

    /// The service of a complete host; a wildcard host of a ServiceEntry covers more than one.
    pub fn service(&self, name: &str) -> Option<&'a Service> {
        let services = &self.offline.mesh.services;
        let exact = services.iter().find(|service| *service.key.host == *name);
        exact.or_else(|| services.iter().find(|service| host::covers(&service.key.host, name))).map(|found| &**found)
    }

    /// Whether a service has a Kubernetes selector and a pod matches it together with more labels.
    pub fn has_pod(&self, service: &Service, labels: &BTreeMap<String, String>) -> bool {
        let fits = |pod: &Object| {
            *pod.key.namespace == *service.key.namespace
                && selects(&service.selector, &pod.meta.labels)
                && selects(labels, &pod.meta.labels)
        };
        self.kind(Kind::Pod).any(fits)
    }

    /// Pods that a selector selects; in one namespace, or in all.
    pub fn pods(&self, selector: &BTreeMap<String, String>, namespace: Option<&str>) -> Vec<&'a Object> {
        let own = |pod: &&Object| namespace.is_none_or(|namespace| &*pod.key.namespace == namespace);
        self.kind(Kind::Pod).filter(own).filter(|pod| selects(selector, &pod.meta.labels)).collect()
    }

    /// Whether the object of a message asks for silence about it.
    pub fn suppresses(&self, message: &Message) -> bool {
        let Some(key) = &message.object else { return false };
        let object = self.offline.objects.iter().find(|object| object.key == *key);
        let codes = object.and_then(|object| object.meta.annotations.get(caution::SUPPRESS));
        codes.is_some_and(|codes| caution::silences(codes, message.code.text()))
    }
}

/// Labels as Istio prints a selector: `a=b,c=d`.
pub fn shown(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Names as Go prints a list: `[a b]`.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    format!("[{}]", items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" "))
}

/// `namespace/name`.
pub fn full(object: &Object) -> String {
    format!("{}/{}", object.key.namespace, object.key.name)
}
