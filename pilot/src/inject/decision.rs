//! Whether a pod gets a sidecar, and why (spec PI-54 to PI-56).
//!
//! Two stations decide: the selectors of the webhook objects, by labels of namespace and pod ([`chosen_by_webhooks`]),
//! and the injector itself, by the pod and the configuration ([`required`]). In a cluster the API server does the first.

use super::config::{Config, Policy};
use super::pod::Pod;
use std::fmt;

/// Label, formerly annotation, of a pod: whether it wants a sidecar.
pub(super) const INJECT: &str = "sidecar.istio.io/inject";
/// Label of a namespace: `enabled` or `disabled`.
const INJECTION: &str = "istio-injection";
/// Label of a namespace or pod: the revision or tag whose sidecar it wants.
const REVISION: &str = "istio.io/rev";
/// The revision that answers `istio-injection=enabled`.
const DEFAULT_REVISION: &str = "default";

/// Namespaces of Kubernetes itself, whose pods are never injected.
pub const IGNORED_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject(Reason),
    /// It stays as it is.
    Skip(Reason),
}

impl Decision {
    /// Whether the pod gets a sidecar.
    pub fn injects(self) -> bool {
        matches!(self, Self::Inject(_))
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inject(reason) => write!(f, "injected: {reason}"),
            Self::Skip(reason) => write!(f, "not injected: {reason}"),
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The namespace has `istio-injection=disabled`.
    NamespaceDisabled,
    /// The namespace has `istio-injection=enabled`.
    NamespaceEnabled,
    /// The namespace has `istio.io/rev` of this revision.
    NamespaceRevision,
    /// The namespace belongs to another revision.
    NamespaceOtherRevision,
    /// The pod has `sidecar.istio.io/inject=true`.
    PodWants,
    /// The pod has `sidecar.istio.io/inject=false`.
    PodRefuses,
    /// The pod has `istio.io/rev` of this revision.
    PodRevision,
    /// The pod belongs to another revision.
    PodOtherRevision,
    /// Namespaces without labels are injected (`enableNamespacesByDefault`).
    NamespacesByDefault,
    /// Neither namespace nor pod has a label.
    NoLabel,
    /// The pod uses the host's network.
    HostNetwork,
    /// The namespace is one of Kubernetes' own.
    IgnoredNamespace,
    /// A `neverInjectSelector` selects the pod.
    NeverSelector,
    /// An `alwaysInjectSelector` selects the pod.
    AlwaysSelector,
    /// `policy: enabled`.
    PolicyEnabled,
    /// `policy: disabled`.
    PolicyDisabled,
    /// `policy` has a value that means nothing: nothing is injected.
    PolicyUnknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NamespaceDisabled => "the namespace has the label istio-injection=disabled",
            Self::NamespaceEnabled => "the namespace has the label istio-injection=enabled",
            Self::NamespaceRevision => "the namespace's label istio.io/rev names this revision",
            Self::NamespaceOtherRevision => "the namespace's label istio.io/rev names another revision",
            Self::PodWants => "the pod has the label sidecar.istio.io/inject=true",
            Self::PodRefuses => "the pod has sidecar.istio.io/inject=false",
            Self::PodRevision => "the pod's label istio.io/rev names this revision",
            Self::PodOtherRevision => "the pod's label istio.io/rev names another revision",
            Self::NamespacesByDefault => {
                "the installation injects namespaces without labels (enableNamespacesByDefault)"
            }
            Self::NoLabel => "neither the namespace nor the pod has a label that asks for it",
            Self::HostNetwork => "the pod uses the host's network, whose traffic must not be redirected",
            Self::IgnoredNamespace => "the namespace belongs to Kubernetes itself",
            Self::NeverSelector => "a neverInjectSelector of the injection configuration selects the pod",
            Self::AlwaysSelector => "an alwaysInjectSelector of the injection configuration selects the pod",
            Self::PolicyEnabled => "the injection policy is enabled",
            Self::PolicyDisabled => "the injection policy is disabled and the pod does not ask for it",
            Self::PolicyUnknown => "the injection policy is neither enabled nor disabled",
        })
    }
}

/// Labels of a namespace or a pod that decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    /// `istio-injection`; only of namespaces.
    pub injection: Option<&'a str>,
    /// `istio.io/rev`.
    pub revision: Option<&'a str>,
    /// `sidecar.istio.io/inject`; only of pods.
    pub inject: Option<&'a str>,
}

impl<'a> Labels<'a> {
    /// The labels that decide, out of all.
    pub fn of(label: impl Fn(&str) -> Option<&'a str>) -> Self {
        Self { injection: label(INJECTION), revision: label(REVISION), inject: label(INJECT) }
    }
}

/// Whether the webhooks of a revision (empty: the default one) choose a pod: their selectors as one function (PI-54,
/// PI-55). `by_default` is `enableNamespacesByDefault`, for a namespace that is not one of Kubernetes' own.
pub fn chosen_by_webhooks(namespace: Labels<'_>, pod: Labels<'_>, revision: &str, by_default: bool) -> Decision {
    use Decision::{Inject, Skip};
    let is_default = revision.is_empty() || revision == DEFAULT_REVISION;
    let own = if is_default { DEFAULT_REVISION } else { revision };
    if pod.inject == Some("false") && namespace.injection != Some("disabled") {
        return Skip(Reason::PodRefuses);
    }
    match (namespace.injection, namespace.revision, pod.revision) {
        // The older label beats the revision.
        (Some("enabled"), _, _) if is_default => Inject(Reason::NamespaceEnabled),
        (Some("enabled"), _, _) => Skip(Reason::NamespaceOtherRevision),
        (Some(_), _, _) => Skip(Reason::NamespaceDisabled),
        (None, Some(namespace), _) if namespace == own => Inject(Reason::NamespaceRevision),
        (None, Some(_), _) => Skip(Reason::NamespaceOtherRevision),
        (None, None, Some(pod)) if pod == own => Inject(Reason::PodRevision),
        (None, None, Some(_)) => Skip(Reason::PodOtherRevision),
        (None, None, None) if pod.inject == Some("true") && is_default => Inject(Reason::PodWants),
        (None, None, None) if pod.inject.is_none() && is_default && by_default => Inject(Reason::NamespacesByDefault),
        (None, None, None) => Skip(Reason::NoLabel),
    }
}

/// Whether the injector gives a pod that reached it a sidecar (PI-56). The order is Istio's: what can never be, then
/// what the pod says itself (its label beats its annotation), then the selectors, then the policy.
pub fn required(pod: &Pod, namespace: &str, config: &Config) -> Decision {
    use Decision::{Inject, Skip};
    if pod.spec("hostNetwork").as_bool() == Some(true) {
        return Skip(Reason::HostNetwork);
    }
    if IGNORED_NAMESPACES.contains(&namespace) {
        return Skip(Reason::IgnoredNamespace);
    }
    let known_policy = matches!(config.policy, Policy::Enabled | Policy::Disabled);
    let wish = match pod.label(INJECT).or_else(|| pod.annotation(INJECT)) {
        Some("true") => Some(Inject(Reason::PodWants)),
        Some("false") => Some(Skip(Reason::PodRefuses)),
        Some("") | None => None,
        Some(other) => {
            tracing::warn!(pod = pod.shown_name(), value = other, "{INJECT} is neither true nor false: passed over");
            None
        }
    };
    let label = |name: &str| pod.label(name);
    let selected = || {
        if config.never_inject_selector.iter().any(|selector| selector.selects(label)) {
            return Some(Skip(Reason::NeverSelector));
        }
        let always = config.always_inject_selector.iter().any(|selector| selector.selects(label));
        always.then_some(Inject(Reason::AlwaysSelector))
    };
    if !known_policy {
        return Skip(Reason::PolicyUnknown);
    }
    wish.or_else(selected).unwrap_or(match config.policy {
        Policy::Enabled => Inject(Reason::PolicyEnabled),
        _ => Skip(Reason::PolicyDisabled),
    })
}
