//! Registry rows, from YAML.

use super::*;
use crate::source::memory;

fn world(yaml: &str) -> (Store, Settings, Vec<Service>) {
    let parsed = memory::parse(yaml, None);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    let mut store = Store::default();
    for object in parsed.objects {
        store.insert(object);
    }
    let settings = Settings {
        domain: "cluster.local".into(),
        cluster: "Kubernetes".into(),
        trust_domains: vec!["td".into()],
        autoallocate: true,
    };
    let services = services(&store, &settings);
    (store, settings, services)
}

const PODS: &str = r"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z, topology.istio.io/subzone: s}}
---
apiVersion: v1
kind: Pod
metadata: {name: p1, labels: {app: a, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: sa1, nodeName: n1}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: p2, labels: {app: a, istio-locality: x.y.w}}
spec: {serviceAccountName: sa2, nodeName: n1}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Service
metadata: {name: a, annotations: {networking.istio.io/exportTo: '., other'}}
spec: {clusterIP: 10.9.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: other, port: 1}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: p1}}
- {addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: p2}}
- {addresses: [10.0.0.3], conditions: {ready: false}}
- {addresses: [10.0.0.4], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.5], conditions: {ready: true, terminating: true}}
";

// spec: PI-14, PR-4, GEN-4
#[test]
fn a_kubernetes_service_has_its_host_ports_address_and_exports() {
    let (_, _, services) = world(PODS);
    let service = &services[0];
    assert_eq!(&*service.key.host, "a.default.svc.cluster.local");
    assert_eq!(service.addresses, ["10.9.0.1"]);
    assert_eq!(service.ports.len(), 1, "UDP is not proxied");
    assert_eq!(service.export_to, [".", "other"]);
}

// spec: PI-15, PI-16, PI-92, MT-6, CA-7
#[test]
fn endpoints_take_identity_locality_and_tls_mode_from_their_pod() {
    let (store, settings, services) = world(PODS);
    let set = endpoints(&services[0], &store, &settings);
    let seen: Vec<_> = set.endpoints.iter().map(|e| (e.address.as_str(), e.health, e.mesh_tls)).collect();
    assert_eq!(
        seen,
        [
            ("10.0.0.1", Health::Healthy, true),
            ("10.0.0.2", Health::Healthy, false),
            ("10.0.0.3", Health::NotReady, false),
            ("10.0.0.4", Health::NotReady, false),
            ("10.0.0.5", Health::Healthy, false)
        ],
        "the port without a service port of its name gives none"
    );
    assert_eq!(set.endpoints[0].locality, Locality::parse("r/z/s"));
    assert_eq!(set.endpoints[1].locality, Locality::parse("x/y/w"), "the pod's own label wins");
    assert_eq!(set.identities, ["spiffe://td/ns/default/sa/sa1", "spiffe://td/ns/default/sa/sa2"]);
    let domains = ["td".to_owned(), "old".to_owned()];
    let moving = EndpointSet::new(set.endpoints.clone(), &domains).identities;
    assert_eq!((moving.len(), moving[0].as_str()), (4, "spiffe://old/ns/default/sa/sa1"), "aliases are as good");
    assert_eq!(set.endpoints[0].workload, "p1;default;a;;Kubernetes");
}

// spec: PI-15
#[test]
fn an_endpoint_waits_for_its_pod() {
    let (_, pod) = PODS.split_once("---").unwrap();
    let (pod, _) = pod.split_once("---").unwrap();
    let addresses = |yaml: &str| -> Vec<String> {
        let (store, settings, services) = world(yaml);
        endpoints(&services[0], &store, &settings).endpoints.into_iter().map(|endpoint| endpoint.address).collect()
    };
    let all = addresses(PODS);
    assert_eq!(all[0], "10.0.0.1");
    assert_eq!(addresses(&PODS.replace(pod, "\n")), all[1..], "those without a pod do not wait");
    assert_eq!(addresses(&PODS.replace("status: {podIP: 10.0.0.1}", "status: {}")), all[1..], "it has no address yet");
    let derived = "{multicluster.kubernetes.io/service-name: a, kubernetes.io/service-name: a}";
    assert_eq!(
        addresses(&PODS.replace("{kubernetes.io/service-name: a}", derived)),
        [""; 0],
        "it repeats other slices"
    );
}

// spec: PI-85
#[test]
fn a_kubernetes_service_wins_over_a_service_entry_of_its_name() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: squat, creationTimestamp: '2000-01-01T00:00:00Z'}
spec: {hosts: [a.default.svc.cluster.local], ports: [{number: 80, name: http, protocol: HTTP}], resolution: NONE}
";
    let (_, _, services) = world(&format!("{entry}---{PODS}"));
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].registry, Registry::Kubernetes);
}

// spec: PI-85, GEN-2
#[test]
fn services_come_oldest_first_and_the_oldest_of_one_name_stays() {
    let entry = |name: &str, year: u32, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}\nspec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: NONE}}\n"
        )
    };
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: k, creationTimestamp: '2020-01-01T00:00:00Z'}\nspec: {clusterIP: 10.9.9.9, ports: [{name: http, port: 80}]}\n";
    let k = "k.default.svc.cluster.local";
    for year in [2000, 2030] {
        let (_, _, services) = world(&format!("{}{service}", entry("squat", year, k)));
        assert_eq!((services.len(), services[0].registry), (1, Registry::Kubernetes), "{year}");
    }
    let yaml =
        format!("{}{}{}{service}", entry("a", 2030, "x.com"), entry("b", 2010, "x.com"), entry("c", 2000, "y.com"));
    let (_, _, services) = world(&yaml);
    let seen: Vec<_> = services.iter().map(|s| (&*s.key.host, &*s.declared_by.name)).collect();
    assert_eq!(seen, [("y.com", "c"), ("x.com", "b"), (k, "k")]);
}

// spec: PI-20
#[test]
fn a_workload_entry_serves_the_port_of_the_name_that_a_service_targets() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.9.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: web}]}\n";
    let entry = |ports: &str| {
        format!(
            "{service}---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w}}\nspec: {{address: 10.1.0.1, labels: {{app: a}}, ports: {{{ports}}}}}\n"
        )
    };
    let ports = |yaml: &str| -> Vec<u16> {
        let (store, settings, services) = world(yaml);
        endpoints(&services[0], &store, &settings).endpoints.into_iter().map(|endpoint| endpoint.port).collect()
    };
    assert_eq!(ports(&entry("web: 8080")), [8080]);
    assert_eq!(ports(&entry("http: 8080")), [0u16; 0], "it has no port of this name");
}

// spec: PI-19
#[test]
fn pods_that_share_the_address_of_their_node_are_told_apart_by_name() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{}}\nstatus: {{podIP: 10.0.0.9}}\n"
        )
    };
    let (store, settings, _) = world(&format!("{}{}", pod("b"), pod("c")));
    let workloads = pod::workloads(&store, &settings);
    let label = |name: &str, namespace: &str| {
        pod::at(&workloads, "10.0.0.9", namespace, name).map(|found| found.labels["app"].clone())
    };
    assert_eq!(label("b", "default").as_deref(), Some("b"));
    assert_eq!(label("c", "default").as_deref(), Some("c"));
    assert_eq!(label("other", "default").as_deref(), Some("b"), "who has another name is the first of its namespace");
    assert_eq!(label("b", "other"), None);
}

// spec: PI-86
#[test]
fn entries_of_one_host_add_their_ports_where_they_say_the_same_of_the_rest() {
    let entry = |name: &str, year: u32, port: u32, resolution: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}\nspec: {{hosts: [x.com], ports: [{{number: {port}, name: p{port}, protocol: TCP}}], resolution: {resolution}, endpoints: [{{address: 10.1.0.{port}}}]}}\n"
        )
    };
    let found = |yaml: &str| -> Vec<(u16, String)> {
        let (store, settings, services) = world(yaml);
        assert_eq!(services.len(), 1);
        assert!(services[0].ports.len() >= endpoints(&services[0], &store, &settings).endpoints.len());
        let set = endpoints(&services[0], &store, &settings);
        set.endpoints.into_iter().map(|endpoint| (endpoint.service_port, endpoint.address)).collect()
    };
    let both = format!("{}{}", entry("a", 2000, 80, "STATIC"), entry("b", 2010, 81, "STATIC"));
    assert_eq!(found(&both), [(80, "10.1.0.80".to_owned()), (81, "10.1.0.81".to_owned())]);
    let other = format!("{}{}", entry("a", 2000, 80, "STATIC"), entry("b", 2010, 81, "DNS"));
    assert_eq!(found(&other), [(80, "10.1.0.80".to_owned())], "the older stays as it is");
    let round_robin = |second: u32| {
        let second = entry("b", 2010, second, "DNS_ROUND_ROBIN").replace("address: 10.1.0.80", "address: 10.0.0.1");
        found(&format!("{}{second}", entry("a", 2000, 80, "DNS_ROUND_ROBIN")))
    };
    assert_eq!(round_robin(80), [(80, "10.1.0.80".to_owned())], "such a cluster has one name, the older's");
    assert_eq!(round_robin(81).len(), 2);
}

// spec: SE-10
#[test]
fn a_pod_that_does_not_serve_does_not_hide_the_one_that_has_its_address_now() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [x.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: a}}}\n";
    let pod = |name: &str, account: &str, status: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: a}}}}\nspec: {{serviceAccountName: {account}}}\nstatus: {{podIP: 10.0.0.1, {status}}}\n"
        )
    };
    let condition = |ready: &str| format!("conditions: [{{type: Ready, status: '{ready}'}}]");
    for status in [condition("False"), "phase: Failed".to_owned(), "phase: Succeeded".to_owned()] {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let pods = pod(first, "old", &status) + &pod(second, "new", &condition("True"));
            let (store, settings, services) = world(&format!("{entry}{pods}"));
            let set = endpoints(&services[0], &store, &settings);
            let seen: Vec<_> = set.endpoints.iter().map(|e| (e.service_account.as_str(), e.health)).collect();
            assert_eq!(seen, [("new", Health::Healthy)], "{status}");
        }
    }
}

#[test]
fn of_the_conditions_of_a_pod_readiness_alone_counts() {
    let pod = |conditions: &str| {
        let pod = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nstatus: {{conditions: [{conditions}]}}\n");
        memory::parse(&pod, None).objects.remove(0)
    };
    let scheduled = pod("{type: PodScheduled, status: 'True'}");
    assert!(scheduled.same_content(&pod("{type: PodScheduled, status: 'True'}, {type: Ready, status: 'False'}")));
    assert!(!scheduled.same_content(&pod("{type: PodScheduled, status: 'True'}, {type: Ready, status: 'True'}")));
}

// spec: PI-14, PI-17
#[test]
fn a_service_has_all_its_addresses_once_and_a_headless_one_none() {
    let service = |spec: &str| {
        let yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}, ports: [{{name: http, port: 80}}]}}\n"
        );
        let parsed = memory::parse(&yaml, None);
        let mut store = Store::default();
        parsed.objects.into_iter().for_each(|object| drop(store.insert(object)));
        let settings = Settings {
            domain: "corp.test".into(),
            cluster: "c".into(),
            trust_domains: vec!["td".into()],
            autoallocate: true,
        };
        services(&store, &settings).remove(0)
    };
    let both = service("clusterIP: 10.9.0.1, clusterIPs: [10.9.0.1, 'fd00::1']");
    assert_eq!((&*both.key.host, both.resolution), ("s.default.svc.corp.test", Resolution::Endpoints));
    assert_eq!(both.addresses, ["10.9.0.1", "fd00::1"]);
    let headless = service("clusterIP: None");
    assert_eq!((headless.resolution, headless.headless), (Resolution::Passthrough, true));
    assert!(headless.addresses.is_empty());
}

// spec: PI-16
#[test]
fn the_label_of_the_pod_says_where_it_runs_before_that_of_its_node() {
    let yaml = PODS.replace("istio-locality: x.y.w", "istio-locality: x.y.w, topology.istio.io/locality: a.b.c");
    let (store, settings, services) = world(&yaml);
    let set = endpoints(&services[0], &store, &settings);
    assert_eq!(set.endpoints[1].locality, Locality::parse("a/b/c"));
}

// spec: PI-18
#[test]
fn external_names_are_aliases_along_chains_and_circles_end() {
    let alias = |name: &str, to: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: ExternalName, externalName: {to}}}\n"
        )
    };
    let yaml = format!(
        "{PODS}{}{}{}{}",
        alias("one", "a.default.svc.cluster.local"),
        alias("two", "one.default.svc.cluster.local"),
        alias("x", "y.default.svc.cluster.local"),
        alias("y", "x.default.svc.cluster.local")
    );
    let (_, _, services) = world(&yaml);
    let names: Vec<_> = services[0].aliases.iter().map(|alias| alias.host.split('.').next().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
}

// spec: SE-3, SE-4, SE-6, SE-7, SE-8, SE-10, WE-1
#[test]
fn service_entries_declare_hosts_ports_and_endpoints() {
    let (store, settings, services) = world(
        r"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: static}
spec:
  hosts: [s.example.com]
  resolution: STATIC
  ports: [{number: 5432, name: pg, protocol: TCP, targetPort: 15000}]
  endpoints: [{address: 1.2.3.4, ports: {pg: 6000}, weight: 3, locality: a/b/c}, {address: 1.2.3.5}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns}
spec: {hosts: [d.example.com], location: MESH_INTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: first}
spec: {hosts: [f.example.com], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm}
spec: {hosts: [vm.internal], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: vm}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w, labels: {app: vm}}
spec: {address: 10.1.1.1, serviceAccount: vmsa}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: other}
spec: {address: 10.1.1.2, labels: {app: other}}
",
    );
    let of = |host: &str| services.iter().find(|service| &*service.key.host == host).unwrap();
    let set = endpoints(of("s.example.com"), &store, &settings);
    let seen: Vec<_> = set.endpoints.iter().map(|e| (e.address.as_str(), e.port, e.weight)).collect();
    assert_eq!(seen, [("1.2.3.4", 6000, 3), ("1.2.3.5", 15000, 1)]);
    assert!(of("s.example.com").external && !of("d.example.com").external);
    assert_eq!(of("d.example.com").resolution, Resolution::Dns);
    assert_eq!(of("f.example.com").resolution, Resolution::DnsRoundRobin);
    assert_eq!(endpoints(of("d.example.com"), &store, &settings).endpoints[0].address, "d.example.com");
    let vm = endpoints(of("vm.internal"), &store, &settings);
    assert_eq!(vm.endpoints.len(), 1);
    assert!(vm.endpoints[0].mesh_tls, "a service account means mesh mTLS");
    assert_eq!(vm.identities, ["spiffe://td/ns/default/sa/vmsa"]);
}
