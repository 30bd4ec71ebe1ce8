//! The Helm charts, taken by the real helm.

use crate::install::meshctl;
use e2e::cluster::{Bare, Cluster};
use e2e::helm::Helm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Objects of a text of documents, by kind and name.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for document in text.split("\n---\n").flat_map(|part| part.split("---\n")).filter(|part| part.contains("kind:")) {
        let value: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
        let key = format!("{} {}", value["kind"].as_str().unwrap(), value["metadata"]["name"].as_str().unwrap());
        found.insert(key, value);
    }
    found
}

/// All arguments say the same of the trust domain.
fn of_one_trust_domain(helm: &dyn Fn(&[&str]) -> String) {
    let set = "meshConfig.trustDomain=a@corp,meshConfig.trustDomainAliases={old,older}";
    let moved = helm(&["template", "istiod", "charts/istiod", "-n", "istio-system", "--set", set]);
    for text in [
        "--trust-domain=a@corp",
        "--relay=spiffe://a.corp/ns/istio-system/sa/istiod",
        "--identity=spiffe://a.corp/ns/istio-system/sa/mixer",
        "--trust-domain-aliases=old,older",
    ] {
        assert!(moved.contains(text), "{text} in {moved}");
    }
    assert!(!moved.contains("spiffe://cluster.local"), "{moved}");
}

/// What stands under a value that is off: network policies, OpenShift's Routes, roots of token issuers, the roots' name.
fn wanted_by_values(helm: &dyn Fn(&[&str]) -> anyhow::Result<String>) {
    let rendered = |chart: &str, sets: &[&str]| {
        let mut arguments = vec!["template".to_owned(), "istio-ingressgateway".to_owned(), format!("charts/{chart}")];
        arguments.extend(["-n", "istio-system"].map(str::to_owned));
        arguments.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        objects(&helm(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap())
    };
    let by_meshctl = |sets: &[&str]| {
        let mut meshctl = Command::new(e2e::program("meshctl").unwrap());
        meshctl.args(["manifest", "generate"]).args(sets.iter().flat_map(|set| ["--set", set]));
        objects(&String::from_utf8(meshctl.output().unwrap().stdout).unwrap())
    };
    let of = |all: &BTreeMap<String, Value>, kind: &str| -> Vec<(String, Value)> {
        let kind = format!("{kind} ");
        all.iter().filter(|(key, _)| key.starts_with(&kind)).map(|(key, one)| (key.clone(), one.clone())).collect()
    };
    let ports = |policy: &Value| {
        let ports = policy["spec"]["ingress"][0]["ports"].as_array().unwrap().iter();
        ports.map(|port| port["port"].as_u64().unwrap()).collect::<std::collections::BTreeSet<_>>()
    };

    let wanted = "global.networkPolicy.enabled=true";
    let theirs: BTreeMap<String, Value> =
        ["istiod", "gateway", "cni"].iter().flat_map(|chart| rendered(chart, &[wanted])).collect();
    let own = by_meshctl(&["values.global.networkPolicy.enabled=true", "components.cni.enabled=true"]);
    let (theirs, own) = (of(&theirs, "NetworkPolicy"), of(&own, "NetworkPolicy"));
    assert_eq!(own.len(), 5, "istiod, citadel, mixer, gateway, agent");
    for ((name, theirs), (same, own)) in theirs.iter().zip(&own) {
        assert_eq!((name, ports(theirs)), (same, ports(own)));
        assert_eq!(theirs["spec"]["podSelector"], own["spec"]["podSelector"], "{name}");
    }
    assert_eq!(theirs.len(), own.len());

    let (theirs, own) = (rendered("gateway", &["routes.enabled=true"]), by_meshctl(&["profile=openshift"]));
    let (theirs, own) = (of(&theirs, "Route"), of(&own, "Route"));
    assert!(own.len() == 2 && theirs.len() == 2, "{theirs:?}");
    for ((name, theirs), (same, own)) in theirs.iter().zip(&own) {
        assert_eq!((name, &theirs["spec"]), (same, &own["spec"]));
    }

    let roots = "-----BEGIN CERTIFICATE-----\nAA==";
    for (revision, name) in [("", "pilot-jwks-extra-cacerts"), ("canary", "pilot-jwks-extra-cacerts-canary")] {
        let all = rendered("istiod", &[&format!("jwksResolverExtraRootCA={roots}"), &format!("revision={revision}")]);
        assert_eq!(all[&format!("ConfigMap {name}")]["data"]["extra.pem"], roots);
        let deployment = &all[&format!("Deployment {}", if revision.is_empty() { "istiod" } else { "istiod-canary" })];
        let pod = &deployment["spec"]["template"]["spec"];
        let volume = serde_json::json!({"name": "extracacerts", "configMap": {"name": name, "optional": true}});
        assert!(pod["volumes"].as_array().unwrap().contains(&volume), "{pod}");
        let variable = serde_json::json!({"name": "JWKS_EXTRA_ROOTS", "value": "/cacerts/extra.pem"});
        assert!(pod["containers"][0]["env"].as_array().unwrap().contains(&variable), "{pod}");
    }

    for (chart, set) in [
        ("istiod", "sidecarInjectorWebhook.templates.x=y"),
        ("gateway", "kind=DaemonSet"),
        ("cni", "ambient.enabled=true"),
    ] {
        let refused = helm(&["template", "x", &format!("charts/{chart}"), "--set", set]).unwrap_err().to_string();
        let name = set.split(['.', '=']).next().unwrap();
        assert!(refused.contains(name) && refused.contains("not allowed"), "{refused}");
    }

    let named = rendered("istiod", &["global.multiCluster.clusterName=c1"]);
    let pod = &named["Deployment istiod"]["spec"]["template"]["spec"];
    let variable = serde_json::json!({"name": "CLUSTER_ID", "value": "c1"});
    assert!(pod["containers"][0]["env"].as_array().unwrap().contains(&variable), "{pod}");
    let named = rendered("istiod", &["global.trustBundleName=second-roots"]);
    let text = serde_json::to_string(&named).unwrap();
    assert!(text.contains("--roots-config-map=second-roots") && !text.contains("istio-ca-root-cert"), "{text}");
}

// spec: IN-2, IN-3, IN-5
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn helm_installs_what_meshctl_installs() {
    let cluster = Cluster::bare("charts", Bare::Api).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let real = Helm { cluster: &cluster, directory: directory.path() };
    let helm = |arguments: &[&str]| real.run(arguments).unwrap();
    let written = Command::new(e2e::program("meshctl").unwrap())
        .args(["manifest", "charts"])
        .arg(directory.path().join("charts"))
        .output()
        .unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    for chart in ["base", "istiod", "gateway", "cni"] {
        helm(&["lint", "--strict", &format!("charts/{chart}")]);
    }

    let own = Command::new(e2e::program("meshctl").unwrap()).args(["manifest", "generate"]).output().unwrap();
    let own = objects(&String::from_utf8(own.stdout).unwrap());
    let mut theirs = objects(&helm(&["template", "base", "charts/base", "-n", "istio-system"]));
    let set = "global.imagePullPolicy=IfNotPresent";
    theirs.extend(objects(&helm(&["template", "istiod", "charts/istiod", "-n", "istio-system", "--set", set])));
    let named = ["template", "istio-ingressgateway", "charts/gateway", "-n", "istio-system"];
    theirs.extend(objects(&helm(&named)));
    let mut missing: Vec<&String> = own.keys().filter(|key| !theirs.contains_key(*key)).collect();
    missing.retain(|key| !["Namespace istio-system", "ConfigMap istio-install"].contains(&key.as_str()));
    assert!(missing.is_empty(), "not in the charts: {missing:?}");
    assert!(theirs.keys().all(|key| own.contains_key(key)), "{:?}", theirs.keys());
    for (key, object) in &theirs {
        for pointer in
            ["/rules", "/webhooks", "/spec/selector", "/spec/template/spec/containers/0/args", "/spec/versions"]
        {
            assert_eq!(object.pointer(pointer), own[key].pointer(pointer), "{key}{pointer}");
        }
    }
    for (chart, map) in [("istio", "mesh"), ("istio-sidecar-injector", "values")] {
        let read = |all: &BTreeMap<String, Value>| -> Value {
            serde_saphyr::from_str(all[&format!("ConfigMap {chart}")]["data"][map].as_str().unwrap()).unwrap()
        };
        if map == "mesh" {
            assert_eq!(read(&theirs), read(&own), "{chart}");
        } else {
            assert_eq!(read(&theirs)["global"]["istioNamespace"], read(&own)["global"]["istioNamespace"]);
        }
    }

    of_one_trust_domain(&helm);
    wanted_by_values(&|arguments| real.run(arguments));

    // The API server takes them, values reach their objects, and a revision stands beside.
    helm(&["install", "base", "charts/base", "-n", "mesh", "--create-namespace"]);
    let sets =
        "autoscaleEnabled=false,replicaCount=3,env.A=b,global.hub=example/mesh,meshConfig.accessLogFile=/dev/stdout";
    helm(&["install", "istiod", "charts/istiod", "-n", "mesh", "--set", sets, "--set", "revisions={canary}"]);
    helm(&["install", "canary", "charts/istiod", "-n", "mesh", "--set", "revision=canary"]);
    helm(&["install", "door", "charts/gateway", "-n", "door", "--create-namespace", "--set", "service.type=NodePort"]);
    helm(&["install", "cni", "charts/cni", "-n", "mesh", "--set", "cniBinDir=/other"]);
    let read = |what: &[&str], path: &str| {
        cluster.kubectl(&[&["get"], what, &["-o", &format!("jsonpath={path}")]].concat()).unwrap()
    };
    let istiod = ["deployment", "istiod", "-n", "mesh"];
    assert_eq!(read(&istiod, "{.spec.replicas}"), "3");
    assert!(read(&istiod, "{.spec.template.spec.containers[0]}").contains("example/mesh/pilot:"));
    assert!(read(&["configmap", "istio", "-n", "mesh"], "{.data.mesh}").contains("mixer.mesh.svc."));
    assert!(read(&["deployment", "citadel", "-n", "mesh"], "{..args}").contains("istiod-canary.mesh.svc"));
    assert_eq!(read(&["service", "door", "-n", "door"], "{.spec.type} {.spec.selector.istio}"), "NodePort door");
    assert!(read(&["daemonset", "istio-cni-node", "-n", "mesh"], "{..hostPath.path}").starts_with("/other"));
    assert!(read(&["deployment", "istiod-canary", "-n", "mesh"], "{..args}").contains("--revision=canary"));
    let (_, before) = meshctl(&cluster, &["check", "--pre"]);
    assert!(before.contains("belongs to Helm"), "{before}");
}
