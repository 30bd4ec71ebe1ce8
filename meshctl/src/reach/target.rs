//! Which pods are meant by a name: a workload's, a service's, a namespace's, or one.

use serde::Deserialize;
use std::collections::BTreeSet;

/// A pod, as far as it matters here (pilot's `/debug/workloadz`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What owns it.
    pub workload: String,
    /// Host names of the services that it serves.
    pub services: Vec<String>,
}

impl Pod {
    /// As pilot names its proxy: `NAME.NAMESPACE`.
    pub fn id(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// What may stand in front of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deploy,
    Svc,
    Ns,
    Pod,
}

const KINDS: [(&str, Kind); 15] = [
    ("deploy", Kind::Deploy),
    ("deployment", Kind::Deploy),
    ("deployments", Kind::Deploy),
    ("workload", Kind::Deploy),
    ("statefulset", Kind::Deploy),
    ("sts", Kind::Deploy),
    ("daemonset", Kind::Deploy),
    ("ds", Kind::Deploy),
    ("svc", Kind::Svc),
    ("service", Kind::Svc),
    ("services", Kind::Svc),
    ("ns", Kind::Ns),
    ("namespace", Kind::Ns),
    ("pod", Kind::Pod),
    ("pods", Kind::Pod),
];

/// What is looked at: `NAME`, `KIND/NAME`, each with `.NAMESPACE` where it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    kind: Option<Kind>,
    name: String,
}

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once('/') {
            None => (None, text),
            Some((kind, name)) => {
                let found = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, kind)| *kind);
                (Some(found.ok_or_else(|| format!("{kind}/: use deploy/, svc/, ns/ or pod/"))?), name)
            }
        };
        if name.is_empty() {
            return Err("the name is missing: deploy/NAME, svc/NAME, ns/NAME, pod/NAME or NAME".to_owned());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl Wanted {
    /// The namespace that the name says: behind its last dot, or of a host name its second label.
    pub fn namespace(&self) -> Option<&str> {
        if self.kind == Some(Kind::Ns) {
            return Some(&self.name);
        }
        let mut labels = self.name.split('.');
        match (labels.next(), labels.next(), labels.next()) {
            (_, Some(namespace), Some("svc")) => Some(namespace),
            _ => self.name.rsplit_once('.').map(|(_, namespace)| namespace),
        }
    }

    /// Whether a Service is meant.
    pub fn is_service(&self) -> bool {
        self.kind == Some(Kind::Svc)
    }

    /// The name without kind and namespace.
    pub fn bare(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The pods that are meant. A name without a kind is that of a workload, else of a service, else of a pod.
    ///
    /// # Errors
    /// Where there is none; the text lists what exists.
    pub fn of<'a>(&self, pods: &'a [Pod]) -> anyhow::Result<Vec<&'a Pod>> {
        let kinds = match &self.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => &[Kind::Deploy, Kind::Svc, Kind::Pod],
        };
        let all = |kind: &Kind| pods.iter().filter(|pod| self.is(*kind, pod)).collect::<Vec<_>>();
        let found = kinds.iter().map(all).find(|found| !found.is_empty());
        found.ok_or_else(|| {
            let known: BTreeSet<String> =
                pods.iter().map(|pod| format!("{}.{}", pod.workload, pod.namespace)).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            match known.is_empty() {
                true => anyhow::anyhow!("nothing is called {:?}, and no pod runs there", self.name),
                false => anyhow::anyhow!("nothing of the mesh is called {:?}: its workloads are {known}", self.name),
            }
        })
    }

    fn is(&self, kind: Kind, pod: &Pod) -> bool {
        match kind {
            Kind::Deploy => self.is_called(&pod.workload, &pod.namespace),
            Kind::Pod => self.is_called(&pod.name, &pod.namespace),
            Kind::Ns => self.name == pod.namespace,
            Kind::Svc => pod.services.iter().any(|host| {
                let mut parts = host.split('.');
                let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                self.is_called(name, namespace) || self.name == *host
            }),
        }
    }

    fn is_called(&self, name: &str, namespace: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.') == Some(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<Pod> {
        let pod = |name: &str, namespace: &str, workload: &str, service: &str| Pod {
            name: name.into(),
            namespace: namespace.into(),
            workload: workload.into(),
            services: vec![format!("{service}.{namespace}.svc.cluster.local")],
        };
        vec![
            pod("reviews-v1-0", "default", "reviews-v1", "reviews"),
            pod("reviews-v2-0", "default", "reviews-v2", "reviews"),
            pod("web-0", "shop", "web", "web"),
            pod("web-0", "other", "web", "front"),
        ]
    }

    fn found(text: &str) -> Vec<String> {
        text.parse::<Wanted>().unwrap().of(&pods()).unwrap().iter().map(|pod| pod.id()).collect()
    }

    // spec: CT-43
    #[test]
    fn a_service_means_all_its_pods_and_a_bare_name_a_workload_first() {
        assert_eq!(found("svc/reviews"), ["reviews-v1-0.default", "reviews-v2-0.default"]);
        assert_eq!(found("reviews"), found("svc/reviews"));
        assert_eq!(found("svc/reviews.default.svc.cluster.local"), found("reviews"));
        assert_eq!(found("deploy/reviews-v2"), ["reviews-v2-0.default"]);
        assert_eq!(found("reviews-v2-0"), found("reviews-v2"));
        assert_eq!(found("web"), ["web-0.shop", "web-0.other"]);
        assert_eq!(found("web.other"), ["web-0.other"]);
        assert_eq!(found("front"), ["web-0.other"]);
        assert_eq!(found("ns/shop"), ["web-0.shop"]);
        assert_eq!(found("sts/web.shop"), ["web-0.shop"]);
    }

    #[test]
    fn a_name_may_say_its_namespace() {
        let of = |text: &str| text.parse::<Wanted>().unwrap().namespace().map(str::to_owned);
        assert_eq!(of("web-0.shop").as_deref(), Some("shop"));
        assert_eq!(of("svc/web.shop.svc.cluster.local").as_deref(), Some("shop"));
        assert_eq!(of("ns/shop").as_deref(), Some("shop"));
        assert_eq!(of("deploy/web"), None);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let error = "svc/nothing".parse::<Wanted>().unwrap().of(&pods()).unwrap_err().to_string();
        assert!(error.contains("\"nothing\"") && error.contains("reviews-v1.default, reviews-v2.default"), "{error}");
        assert!("job/x".parse::<Wanted>().unwrap_err().contains("use deploy/, svc/, ns/ or pod/"));
        assert!("svc/".parse::<Wanted>().unwrap_err().contains("the name is missing"));
    }
}
