//! Injection of sidecars: a pod → the pod with its proxy. Pure; the webhook and `meshctl kube-inject` call the same.
//!
//! What this part knows: pods as JSON, Istio's labels and annotations on them, the injection configuration with its
//! values and templates. What it must never know: the Kubernetes API, HTTP, what a proxy is told later.
//!
//! Pods are JSON trees, not typed structures: what is not understood here must come out as it went in.
//! `sidecar` and `gateway` are built as trees too, so no label or annotation can break their structure; templates as
//! text are for those that users bring along ([`template`]).

mod annotations;
mod cluster;
mod config;
mod decision;
mod gateway;
mod image;
mod labels;
mod merge;
mod mesh;
mod openshift;
mod order;
mod overrides;
mod owner;
mod pod;
mod probes;
mod prometheus;
mod proxy;
mod redirect;
mod run;
mod sidecar;
mod template;
mod uninject;
mod values;
mod volumes;
mod workload;

pub use cluster::ClusterPath;
pub use config::{Config, Policy};
pub use decision::{Decision, IGNORED_NAMESPACES, Labels, Reason, chosen_by_webhooks, required};
pub use mesh::{MeshSettings, ProxyConfig};
pub use owner::{Owner, owner_of_pod};
pub use pod::Pod;
pub use run::{Input, Settings, patch, run};
pub use uninject::out_of_object;
pub use values::Values;
pub use workload::{Namespaces, Outcome, into_object, namespaces};

/// Why a pod cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The object is no pod that could be read.
    #[error("{path}: {why}")]
    Pod {
        /// Path of the field.
        path: Box<str>,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// An annotation has a value that cannot be used.
    #[error("annotation {name}: {value:?}: {why}")]
    Annotation {
        /// Its name.
        name: Box<str>,
        /// Its value.
        value: Box<str>,
        /// What would be right.
        why: Box<str>,
    },
    /// The pod asks for a template that the configuration does not have.
    #[error("annotation inject.istio.io/templates: there is no template {name:?}; there are {known}")]
    UnknownTemplate {
        /// The name that it asks for.
        name: Box<str>,
        /// The names that there are.
        known: Box<str>,
    },
    /// A template does not work out.
    #[error("template {name}: {why}")]
    Template {
        /// Its name.
        name: Box<str>,
        /// Line and reason.
        why: Box<str>,
    },
    /// The configuration cannot be read.
    #[error("{path}: {why}")]
    Config {
        /// Path of the field.
        path: Box<str>,
        /// What is wrong with it.
        why: Box<str>,
    },
}

impl InjectError {
    fn pod(path: impl Into<Box<str>>, why: impl Into<Box<str>>) -> Self {
        Self::Pod { path: path.into(), why: why.into() }
    }

    fn annotation(name: &str, value: &str, why: impl Into<Box<str>>) -> Self {
        Self::Annotation { name: name.into(), value: value.into(), why: why.into() }
    }

    fn template(name: &str, why: String) -> Self {
        Self::Template { name: name.into(), why: why.into() }
    }

    fn config(path: impl Into<Box<str>>, why: impl Into<Box<str>>) -> Self {
        Self::Config { path: path.into(), why: why.into() }
    }
}

/// Name of the proxy's container.
const PROXY: &str = "istio-proxy";
/// Name of the init container that redirects traffic.
const INIT: &str = "istio-init";
/// Name of the init container that checks whether a node agent has redirected it.
const VALIDATION: &str = "istio-validation";

/// What injection added, as JSON, so that a second injection finds it.
const STATUS: &str = "sidecar.istio.io/status";
/// The containers of ours that the pod had written itself, as JSON.
const OVERRIDES: &str = "proxy.istio.io/overrides";
/// A piece of ProxyConfig for this pod, YAML.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

#[cfg(test)]
mod tests;
