//! From what the API server says to lines: before an installation, of the control plane, and of pods. Pure.

use super::cluster::{Hook, Kubernetes, PodFacts};
use super::report::{Group, Line, Result};
use identity::svid::LeafFacts;
use pilot::source::kinds::TABLE;
use std::time::{Duration, SystemTime};

/// Oldest minor version of Kubernetes 1 that is taken: sidecars as init containers are on by default from here.
const OLDEST_MINOR: u32 = 29;
/// How far a node's last word may lie ahead of our clock, and behind it: a kubelet speaks every five minutes at least.
const AHEAD: Duration = Duration::from_secs(60);
const BEHIND: Duration = Duration::from_secs(6 * 60);
/// Restarts of the mesh's containers in a pod that should be looked at.
const MANY_RESTARTS: i32 = 5;
/// What runs in the namespace of the control plane, and what stands still without it.
const DEPLOYMENTS: [(&str, &str); 3] = [
    ("istiod", "proxies keep what they have; nothing new reaches them, and labelled pods cannot start"),
    ("citadel", "proxies keep their certificates until these expire; new pods get none"),
    ("mixer", "requests go on; metrics are not merged, and policies that close refuse"),
];

/// Before an installation.
pub fn before(kubernetes: &Kubernetes) -> Vec<Group> {
    let Ok(_) = &kubernetes.version else { return vec![api(kubernetes)] };
    vec![api(kubernetes), rights(kubernetes), present(kubernetes)]
}

/// Of what is installed.
pub fn after(kubernetes: &Kubernetes, now: SystemTime) -> Vec<Group> {
    let Ok(_) = &kubernetes.version else { return vec![api(kubernetes)] };
    vec![api(kubernetes), control_plane(kubernetes, now), data_plane(kubernetes)]
}

fn api(kubernetes: &Kubernetes) -> Group {
    let version = match &kubernetes.version {
        Ok(version) => version,
        Err(error) => {
            let hint = "is the kubeconfig current, and does its context name the cluster that you mean?";
            let lines = vec![Line::bad("the API server answers", error.clone(), hint)];
            return Group { name: "kubernetes-api", lines };
        }
    };
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    let old: Vec<String> = (minor < OLDEST_MINOR).then(|| format!("it is {version}")).into_iter().collect();
    let description = format!("Kubernetes is 1.{OLDEST_MINOR} or later");
    let hint = "upgrade it: before, a sidecar ends neither Jobs nor starts before init containers";
    let lines = vec![Line::good("the API server answers"), Line::of(&description, &old, hint, Result::Error)];
    Group { name: "kubernetes-api", lines }
}

fn rights(kubernetes: &Kubernetes) -> Group {
    let lack = |(what, may): &(String, super::facts::Told<bool>)| match may {
        Ok(true) => None,
        Ok(false) => Some(format!("you may not create {what}")),
        Err(error) => Some(format!("{what}: {error}")),
    };
    let lacking: Vec<String> = kubernetes.rights.iter().filter_map(lack).collect();
    let hint = "install as an administrator of the cluster, or let one apply what meshctl manifest generate writes";
    Group {
        name: "rights",
        lines: vec![Line::of("you may create what an installation needs", &lacking, hint, Result::Error)],
    }
}

/// What is there already of a mesh.
fn present(kubernetes: &Kubernetes) -> Group {
    let mut lines = vec![versions(kubernetes)];
    let definitions = kubernetes.definitions.as_deref().unwrap_or_default();
    let helm: Vec<String> = definitions
        .iter()
        .filter(|one| !["", "meshctl"].contains(&one.owner.as_str()))
        .map(|one| format!("{} belongs to {}", one.name, one.owner))
        .collect();
    let hint = "it goes on serving the same kinds; whoever brought it will change it back at its next upgrade: let one of the two keep it";
    lines.push(Line::of("nobody else keeps the mesh's definitions", &helm, hint, Result::Warning));
    lines.extend(platform(kubernetes));
    let others: Vec<String> = kubernetes
        .webhooks
        .as_deref()
        .unwrap_or_default()
        .iter()
        .filter(|hook| !hook.ours && hook.injects)
        .map(|hook| format!("{} injects by way of a Service in {}", hook.name, hook.namespace))
        .collect();
    let hint = "a pod that two choose gets two proxies: uninstall the other, or give this one a revision (--set revision=NAME)";
    lines.push(Line::of("nobody else injects sidecars", &others, hint, Result::Warning));
    Group { name: "what is there", lines }
}

/// OpenShift, and the other meshes that it may have (IN-24).
fn platform(kubernetes: &Kubernetes) -> Vec<Line> {
    let platform = match &kubernetes.platform {
        Ok(platform) => platform,
        Err(error) => {
            let hint = "listing API groups, clusterversions, gatewayclasses and the objects of other meshes' operators is needed";
            return vec![Line::bad("it is known what else is in the cluster", error.clone(), hint)];
        }
    };
    let mut lines = Vec::new();
    if let Some(version) = &platform.openshift {
        lines.push(Line::good(format!("OpenShift {version}: install with --set profile=openshift")));
    }
    if let Some(class) = platform.gateway_classes.first() {
        lines.push(Line::good(format!("Gateway API is left to OpenShift's Ingress Operator (GatewayClass {class})")));
    }
    let own = &kubernetes.control_plane;
    let here: Vec<String> = { platform.neighbours.iter().filter(|other| other.namespace == *own) }
        .map(|other| format!("{} ({}) has its control plane in {own}", other.object, other.product))
        .collect();
    let description = "no other control plane is in the namespace";
    lines.push(Line::of(description, &here, "give this mesh another one: --set namespace=NAME", Result::Error));
    let rivals: Vec<String> = { platform.neighbours.iter() }
        .filter(|other| other.namespace != *own && (other.roots == kubernetes.roots_map || other.is_default))
        .map(|other| format!("{} ({}) in {}", other.object, other.product, other.namespace))
        .collect();
    let hint = "two meshes need namespaces of their own: meshctl install says which of namespace, revision and meshConfig.discoverySelectors it wants";
    lines.push(Line::of("no other mesh shares its namespaces", &rivals, hint, Result::Warning));
    lines.extend(
        { platform.warnings().into_iter() }
            .map(|found| Line::warning("operators of other meshes", found.what, found.hint)),
    );
    lines
}

/// Whether the definitions that are there serve the versions that pilot watches.
fn versions(kubernetes: &Kubernetes) -> Line {
    let description = "definitions that are there serve what pilot watches";
    let definitions = match &kubernetes.definitions {
        Ok(definitions) => definitions,
        Err(error) => return Line::bad(description, error.clone(), "listing customresourcedefinitions is needed"),
    };
    let old: Vec<String> = TABLE
        .iter()
        .filter(|row| row.is_custom())
        .filter_map(|row| {
            let name = format!("{}.{}", row.plural(), row.group);
            let found = definitions.iter().find(|one| one.name == name)?;
            let known = found.served.iter().any(|served| row.versions.contains(&served.as_str()));
            (!known).then(|| format!("{name} serves {} alone", found.served.join(", ")))
        })
        .collect();
    Line::of(description, &old, "meshctl install brings newer ones; objects that are there are kept", Result::Error)
}

fn control_plane(kubernetes: &Kubernetes, now: SystemTime) -> Group {
    let space = &kubernetes.control_plane;
    let mut lines = Vec::new();
    if !kubernetes.namespaces.contains_key(space) {
        let hint = "meshctl install brings the mesh; -i names another namespace";
        lines.push(Line::bad("its namespace is there", format!("there is no namespace {space}"), hint));
        return Group { name: "control plane", lines };
    }
    lines.push(Line::good("its namespace is there"));
    let definitions = kubernetes.definitions.as_deref().unwrap_or_default();
    let missing: Vec<String> = TABLE
        .iter()
        .filter(|row| row.is_custom())
        .map(|row| format!("{}.{}", row.plural(), row.group))
        .filter(|name| !definitions.iter().any(|one| one.name == *name))
        .map(|name| format!("{name} is not defined"))
        .collect();
    lines.push(Line::of("the mesh's kinds are defined", &missing, "meshctl install brings them", Result::Error));
    lines.extend(deployments(kubernetes));
    let own = kubernetes.pods.as_deref().unwrap_or_default().iter().filter(|pod| pod.namespace == *space);
    let restarting: Vec<String> = own.filter_map(restarts).collect();
    let hint = "kubectl logs --previous tells why; meshctl bug-report keeps it";
    lines.push(Line::of("its pods do not restart", &restarting, hint, Result::Warning));
    lines.extend(webhooks(kubernetes, now));
    lines.push(clocks(kubernetes, now));
    Group { name: "control plane", lines }
}

fn deployments(kubernetes: &Kubernetes) -> Vec<Line> {
    let found = match &kubernetes.deployments {
        Ok(found) => found,
        Err(error) => {
            return vec![Line::bad("its Deployments are ready", error.clone(), "listing deployments is needed")];
        }
    };
    let one = |(name, without): (&str, &str)| {
        // With a revision the name goes on with it.
        let own = |key: &String| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
        let all: Vec<_> = found.iter().filter(|(key, _)| own(key)).collect();
        let late: Vec<String> = all
            .iter()
            .filter(|(_, (ready, wanted))| ready < wanted)
            .map(|(key, (ready, wanted))| format!("{key}: {ready} of {wanted} pods are ready"))
            .collect();
        if all.is_empty() && name != "mixer" {
            return Some(Line::bad(
                format!("{name} is there"),
                format!("no Deployment {name}: {without}"),
                "meshctl install brings it",
            ));
        }
        let hint = format!("kubectl describe tells what its pods wait for; without it {without}");
        (!all.is_empty()).then(|| Line::of(&format!("{name} is ready"), &late, &hint, Result::Error))
    };
    DEPLOYMENTS.into_iter().filter_map(one).collect()
}

fn webhooks(kubernetes: &Kubernetes, now: SystemTime) -> Vec<Line> {
    let hooks = match &kubernetes.webhooks {
        Ok(hooks) => hooks,
        Err(error) => {
            return vec![Line::bad("webhooks are there", error.clone(), "listing webhook configurations is needed")];
        }
    };
    let own = || hooks.iter().filter(|hook| hook.namespace == kubernetes.control_plane);
    let none = |what: &str, injects: bool| {
        let there = own().any(|hook| hook.injects == injects);
        (!there).then(|| format!("no webhook {what}")).into_iter().collect::<Vec<_>>()
    };
    let holds = |root: &LeafFacts| root.lifetime.not_before <= now && root.lifetime.not_after > now;
    let blind = |hook: &Hook| match &hook.bundle {
        Ok(roots) if roots.iter().any(holds) => None,
        Ok(_) => Some(format!("{}: no root that it trusts is valid now", hook.name)),
        Err(error) => Some(format!("{}: {error}", hook.name)),
    };
    let blind: Vec<String> = own().filter_map(blind).collect();
    let silent = |hook: &Hook| match &hook.refuses {
        Some(Err(error)) => Some(format!("{}: {error}", hook.name)),
        _ => None,
    };
    let silent: Vec<String> = own().filter_map(silent).collect();
    let open: Vec<String> = own()
        .filter(|hook| !hook.injects && !hook.closes)
        .map(|hook| format!("{} lets objects pass while nobody answers", hook.name))
        .collect();
    vec![
        Line::of("pods are injected", &none("injects sidecars", true), "meshctl install brings it", Result::Error),
        Line::of(
            "objects are validated",
            &none("validates objects", false),
            "meshctl install brings it",
            Result::Warning,
        ),
        Line::of(
            "webhooks trust pilot",
            &blind,
            "pilot writes its root into them once it has a certificate: look at its log",
            Result::Error,
        ),
        Line::of(
            "an invalid object is refused",
            &silent,
            "the API server must reach the webhook's Service: look at its endpoints, at network policies, and at pilot's log",
            Result::Error,
        ),
        Line::of(
            "validation is obligatory",
            &open,
            "pilot makes it so once it has seen it answer: look again with --wait 1m, then at its log",
            Result::Warning,
        ),
    ]
}

/// Whether the nodes' clocks agree with ours (linkerd's check of clock skew).
fn clocks(kubernetes: &Kubernetes, now: SystemTime) -> Line {
    let description = "clocks of nodes agree with this machine's";
    let heartbeats = match &kubernetes.heartbeats {
        Ok(heartbeats) => heartbeats,
        Err(error) => return Line::warning(description, error.clone(), "listing nodes is needed"),
    };
    let skewed = |(node, at): &(String, SystemTime)| {
        let ahead = at.duration_since(now).unwrap_or_default();
        let behind = now.duration_since(*at).unwrap_or_default();
        match () {
            () if ahead > AHEAD => Some(format!("{node} last spoke {} s in the future", ahead.as_secs())),
            () if behind > BEHIND => Some(format!("{node} is ready, and last spoke {} s ago", behind.as_secs())),
            () => None,
        }
    };
    let skewed: Vec<String> = heartbeats.iter().filter_map(skewed).collect();
    let hint = "set clocks by NTP: certificates and tokens are refused where clocks differ by minutes";
    Line::of(description, &skewed, hint, Result::Warning)
}

fn data_plane(kubernetes: &Kubernetes) -> Group {
    let pods = match &kubernetes.pods {
        Ok(pods) => pods,
        Err(error) => {
            let line = Line::bad("pods can be looked at", error.clone(), "listing pods is needed");
            return Group { name: "data plane", lines: vec![line] };
        }
    };
    let wanted = |pod: &&PodFacts| {
        let labels = kubernetes.namespaces.get(&pod.namespace);
        let asked = labels.is_some_and(|labels| {
            labels.get("istio-injection").is_some_and(|value| value == "enabled") || labels.contains_key("istio.io/rev")
        });
        asked && !pod.declined && pod.running
    };
    let without: Vec<String> =
        pods.iter().filter(wanted).filter(|pod| !pod.injected).map(|pod| format!("{} has no proxy", pod.id)).collect();
    let proxied = || pods.iter().filter(|pod| pod.injected);
    let waiting: Vec<String> =
        proxied().filter_map(|pod| Some(format!("{}: {}", pod.id, pod.waits.as_ref()?))).collect();
    let restarting: Vec<String> = proxied().filter_map(restarts).collect();
    let mut lines = vec![
        Line::of(
            "pods of labelled namespaces have a proxy",
            &without,
            "restart them: kubectl rollout restart; a pod from before the label has none",
            Result::Warning,
        ),
        Line::of("proxies start", &waiting, "kubectl describe pod tells more", Result::Error),
        Line::of(
            "proxies do not restart",
            &restarting,
            "kubectl logs -c istio-proxy --previous tells why",
            Result::Warning,
        ),
    ];
    if let Some((ready, wanted)) = kubernetes.agent {
        let late: Vec<String> =
            (ready < wanted).then(|| format!("it is ready on {ready} of {wanted} nodes")).into_iter().collect();
        let hint = "pods with a sidecar cannot start on the others: look at the log of istio-cni-node";
        lines.push(Line::of("the node agent runs on every node", &late, hint, Result::Error));
    }
    Group { name: "data plane", lines }
}

fn restarts(pod: &PodFacts) -> Option<String> {
    (pod.restarts >= MANY_RESTARTS).then(|| format!("{} has restarted {} times", pod.id, pod.restarts))
}

#[cfg(test)]
mod tests;
