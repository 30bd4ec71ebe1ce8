//! Which group a request belongs to: that of the workload, pod's namespace or service it was sent to.

use super::scrape::Labels;

/// What is shown, a line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Resource {
    /// Workloads.
    #[default]
    #[value(aliases = ["deployment", "deployments", "workload", "workloads"])]
    Deploy,
    /// Services.
    #[value(aliases = ["service", "services"])]
    Svc,
    /// Namespaces.
    #[value(aliases = ["namespace", "namespaces"])]
    Ns,
}

/// A group: its namespace (of a namespace: empty) and its name.
pub type Group = (String, String);

impl Resource {
    /// The group of a series.
    pub fn group(self, labels: &Labels) -> Option<Group> {
        let text = |name: &str| labels.get(name).to_owned();
        let (namespace, name) = match self {
            Self::Deploy => (text("destination_workload_namespace"), text("destination_workload")),
            Self::Ns => (String::new(), text("destination_workload_namespace")),
            Self::Svc => (text("destination_service_namespace"), text("destination_service_name")),
        };
        (!name.is_empty()).then_some((namespace, name))
    }

    /// Whether a series counts, for two proxies tell of most requests. Workloads and namespaces are told by the proxies
    /// of servers; services by those of clients, which also see what reaches no server, and by servers for clients
    /// without a proxy.
    pub fn counts(self, labels: &Labels) -> bool {
        let server = labels.get("reporter") == "destination";
        match self {
            Self::Deploy | Self::Ns => server,
            Self::Svc => !server || labels.get("source_principal").is_empty(),
        }
    }
}

/// A workload or service by name, `NAME` or `NAME.NAMESPACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(String);

impl std::str::FromStr for Named {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // linkerd's form has the kind in front.
        Ok(Self(text.rsplit('/').next().unwrap_or(text).to_owned()))
    }
}

impl Named {
    /// Whether it is this one.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.0 == name || self.0.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) == Some(namespace)
    }

    /// Whether it is no name but the kind of all workloads, `deploy`.
    pub fn is_every(&self) -> bool {
        <Resource as clap::ValueEnum>::from_str(&self.0, true) == Ok(Resource::Deploy)
    }

    /// Whether requests come from it.
    pub fn sends(&self, labels: &Labels) -> bool {
        self.is(labels.get("source_workload"), labels.get("source_workload_namespace"))
    }

    /// Whether requests go to it: as a workload or as a service.
    pub fn receives(&self, labels: &Labels) -> bool {
        self.is(labels.get("destination_workload"), labels.get("destination_workload_namespace"))
            || self.is(labels.get("destination_service_name"), labels.get("destination_service_namespace"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Scrape;

    fn labels(text: &str) -> Labels {
        Scrape::parse(&format!("istio_requests_total{{{text}}} 1")).values.into_keys().next().unwrap().1
    }

    // spec: CT-41
    #[test]
    fn a_request_counts_once() {
        let of = |reporter: &str, principal: &str| {
            labels(&format!(
                "reporter=\"{reporter}\",source_principal=\"{principal}\",destination_workload=\"w\",\
                 destination_workload_namespace=\"n\",destination_service_name=\"s\",destination_service_namespace=\"n\""
            ))
        };
        let group = |name: &str| Some(("n".to_owned(), name.to_owned()));
        let (server, client) = (of("destination", "spiffe://x"), of("source", "spiffe://x"));
        assert_eq!((Resource::Deploy.group(&server), Resource::Svc.group(&client)), (group("w"), group("s")));
        assert_eq!(Resource::Ns.group(&server), Some((String::new(), "n".to_owned())));
        assert!(Resource::Deploy.counts(&server) && !Resource::Deploy.counts(&client));
        assert!(Resource::Svc.counts(&client) && !Resource::Svc.counts(&server), "the client has told it");
        assert!(Resource::Svc.counts(&of("destination", "unknown")), "no proxy of the client has told it");
    }

    #[test]
    fn names_may_have_kind_and_namespace() {
        let named = |text: &str| text.parse::<Named>().unwrap();
        assert!(named("deploy/web").is("web", "shop") && named("web.shop").is("web", "shop"));
        assert!(!named("web.other").is("web", "shop") && !named("we").is("web", "shop"));
        assert!(named("deploy").is_every() && !named("deploy/web").is_every() && !named("svc").is_every());
    }
}
