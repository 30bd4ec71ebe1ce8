//! Each line, well and not.

use super::super::cluster::Definition;
use super::*;
use crate::install::platform::{Neighbour, Platform, Product};
use identity::svid::{LeafFacts, Lifetime};
use std::collections::BTreeMap;

fn root(now: SystemTime, days: u64) -> LeafFacts {
    let lifetime = Lifetime { not_before: now, not_after: now + Duration::from_secs(days * 86_400) };
    LeafFacts {
        id: None,
        uris: Vec::new(),
        dns: Vec::new(),
        subject: String::new(),
        lifetime,
        serial: String::new(),
        fingerprint: String::new(),
    }
}

fn well(now: SystemTime) -> Kubernetes {
    let definition = |row: &pilot::source::kinds::Row| Definition {
        name: format!("{}.{}", row.plural(), row.group),
        served: vec![row.versions[0].to_owned()],
        owner: "meshctl".to_owned(),
    };
    let hook = |injects| Hook {
        name: format!("hook-{injects}"),
        namespace: "istio-system".into(),
        injects,
        bundle: Ok(vec![root(now, 3650)]),
        closes: true,
        ours: true,
        refuses: (!injects).then_some(Ok(())),
    };
    let labels = BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]);
    Kubernetes {
        control_plane: "istio-system".into(),
        version: Ok("v1.34.4".into()),
        rights: vec![("namespaces".into(), Ok(true))],
        platform: Ok(Platform::default()),
        definitions: Ok(TABLE.iter().filter(|row| row.is_custom()).map(definition).collect()),
        webhooks: Ok(vec![hook(true), hook(false)]),
        deployments: Ok(DEPLOYMENTS.iter().map(|(name, _)| ((*name).to_owned(), (1, 1))).collect()),
        agent: Some((2, 2)),
        namespaces: BTreeMap::from([("istio-system".to_owned(), BTreeMap::new()), ("shop".to_owned(), labels)]),
        pods: Ok(vec![PodFacts {
            namespace: "shop".into(),
            id: "a.shop".into(),
            injected: true,
            running: true,
            ..PodFacts::default()
        }]),
        roots_map: "istio-ca-root-cert".to_owned(),
        roots: Ok(Vec::new()),
        heartbeats: Ok(vec![("node".to_owned(), now)]),
    }
}

/// The lines that are not well, as `result description`.
fn complaints(change: impl FnOnce(&mut Kubernetes)) -> Vec<String> {
    let now = SystemTime::now();
    let mut kubernetes = well(now);
    change(&mut kubernetes);
    let groups = before(&kubernetes).into_iter().chain(after(&kubernetes, now).into_iter().skip(1));
    let lines = groups.flat_map(|group| group.lines).filter(|line| line.result != Result::Success);
    lines
        .map(|line| {
            assert!(!line.hint.is_empty() && !line.error.is_empty(), "{} says what to do", line.description);
            format!("{:?} {}", line.result, line.description)
        })
        .collect()
}

// spec: CT-18, CT-40
#[test]
fn before_an_installation_version_rights_and_others_are_looked_at() {
    assert_eq!(complaints(|_| {}), [""; 0]);
    assert_eq!(complaints(|k| k.version = Ok("v1.28.9".into())), ["Error Kubernetes is 1.29 or later"]);
    assert_eq!(complaints(|k| k.version = Err("refused".into())), ["Error the API server answers"]);
    assert_eq!(complaints(|k| k.rights[0].1 = Ok(false)), ["Error you may create what an installation needs"]);
    let first = |k: &mut Kubernetes, change: fn(&mut Definition)| change(&mut k.definitions.as_mut().unwrap()[0]);
    let old = "Error definitions that are there serve what pilot watches";
    assert_eq!(complaints(|k| first(k, |one| one.served = vec!["v1alpha1".into()])), [old]);
    let helm = "Warning nobody else keeps the mesh's definitions";
    assert_eq!(complaints(|k| first(k, |one| one.owner = "Helm".into())), [helm]);
    let hooks = |k: &mut Kubernetes, change: fn(&mut Hook)| k.webhooks.as_mut().unwrap().iter_mut().for_each(change);
    assert_eq!(complaints(|k| hooks(k, |hook| hook.ours = false)), ["Warning nobody else injects sidecars"]);
}

// spec: IN-24
#[test]
fn before_an_installation_on_openshift_its_other_meshes_are_named() {
    let with = |change: fn(&mut Platform)| complaints(|k| change(k.platform.as_mut().unwrap()));
    let openshift = |platform: &mut Platform| {
        platform.openshift = Some("4.19.3".into());
        platform.gateway_classes = vec!["openshift-default".into()];
    };
    assert_eq!(with(openshift), [""; 0], "Gateway API is somebody else's, and stays so");
    assert_eq!(with(|platform| platform.operators = vec![Product::Three]), ["Warning operators of other meshes"]);
    let neighbour = |namespace: &str| Neighbour {
        product: Product::Two,
        object: "ServiceMeshControlPlane a/b".into(),
        namespace: namespace.into(),
        roots: "istio-ca-root-cert".to_owned(),
        is_default: false,
    };
    let beside = |namespace: &str| complaints(|k| k.platform.as_mut().unwrap().neighbours = vec![neighbour(namespace)]);
    assert_eq!(beside("istio-system"), ["Error no other control plane is in the namespace"]);
    assert_eq!(beside("ossm"), ["Warning no other mesh shares its namespaces"]);
    let apart = complaints(|k| {
        k.platform.as_mut().unwrap().neighbours = vec![neighbour("ossm")];
        k.roots_map = "ferromesh-ca-root-cert".to_owned();
    });
    assert_eq!(apart, [""; 0], "its roots do not meet ours");
    assert_eq!(complaints(|k| k.platform = Err("forbidden".into())), ["Error it is known what else is in the cluster"]);
}

// spec: CT-40
#[test]
fn of_the_control_plane_what_stands_still_is_named() {
    assert_eq!(complaints(|k| drop(k.namespaces.remove("istio-system"))), ["Error its namespace is there"]);
    let ready = |k: &mut Kubernetes, name: &str| k.deployments.as_mut().unwrap().extend([(name.to_owned(), (0, 1))]);
    assert_eq!(complaints(|k| ready(k, "citadel")), ["Error citadel is ready"]);
    assert_eq!(complaints(|k| ready(k, "istiod-canary")), ["Error istiod is ready"]);
    assert_eq!(
        complaints(|k| k.deployments.as_mut().unwrap().retain(|name, _| name != "istiod")),
        ["Error istiod is there"]
    );
    assert_eq!(complaints(|k| drop(k.definitions.as_mut().unwrap().pop())), ["Error the mesh's kinds are defined"]);
    let hooks = |k: &mut Kubernetes, change: fn(&mut Hook)| k.webhooks.as_mut().unwrap().iter_mut().for_each(change);
    let blind = ["Error webhooks trust pilot"];
    assert_eq!(complaints(|k| hooks(k, |hook| hook.bundle = Err("it knows no root".into()))), blind);
    assert_eq!(complaints(|k| hooks(k, |hook| hook.bundle = Ok(vec![root(SystemTime::UNIX_EPOCH, 1)]))), blind);
    let broken = |hook: &mut Hook| hook.refuses = Some(Err("failed calling webhook".into()));
    assert_eq!(complaints(|k| hooks(k, broken)), ["Error an invalid object is refused"]);
    assert_eq!(complaints(|k| hooks(k, |hook| hook.refuses = None)), [""; 0], "who may not try learns nothing");
    assert_eq!(complaints(|k| hooks(k, |hook| hook.closes = false)), ["Warning validation is obligatory"]);
    let none = ["Error pods are injected", "Warning objects are validated"];
    assert_eq!(complaints(|k| k.webhooks = Ok(Vec::new())), none);
    let skewed = ["Warning clocks of nodes agree with this machine's"];
    let now = SystemTime::now();
    let spoke = |at: SystemTime| complaints(|k| k.heartbeats = Ok(vec![("node".to_owned(), at)]));
    assert_eq!(spoke(now + Duration::from_secs(120)), skewed);
    assert_eq!(spoke(now - Duration::from_secs(600)), skewed);
    assert_eq!(spoke(now - Duration::from_secs(290)), [""; 0]);
}

// spec: CT-40
#[test]
fn of_pods_those_without_a_working_proxy_are_named() {
    let pod = |k: &mut Kubernetes, change: fn(&mut PodFacts)| change(&mut k.pods.as_mut().unwrap()[0]);
    assert_eq!(
        complaints(|k| pod(k, |pod| pod.injected = false)),
        ["Warning pods of labelled namespaces have a proxy"]
    );
    let declined = |pod: &mut PodFacts| (pod.injected, pod.declined) = (false, true);
    assert_eq!(complaints(|k| pod(k, declined)), [""; 0]);
    let waits = |pod: &mut PodFacts| pod.waits = Some("istio-proxy: ImagePullBackOff".into());
    assert_eq!(complaints(|k| pod(k, waits)), ["Error proxies start"]);
    assert_eq!(complaints(|k| pod(k, |pod| pod.restarts = 7)), ["Warning proxies do not restart"]);
    assert_eq!(complaints(|k| k.agent = Some((1, 2))), ["Error the node agent runs on every node"]);
}
