//! A small mesh, and what its proxies are told.

use pilot::model::mesh::admit;
use pilot::model::{Mesh, MeshConfig, mesh_config, scope};
use pilot::source::{Key, Object, Problem, Store, memory};
use pilot::translate::cache::{Cache, ResourceType};
use pilot::translate::node::Role;
use pilot::translate::{Class, Node, Snapshot};
use proto::envoy::core::{Extension, Node as WireNode};
use proto::envoy::wkt::value::Kind as ValueKind;
use proto::envoy::wkt::{Struct, Value as WireValue};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Services `reviews` (three versions), `ratings`, `mysql` (TCP), `plain` (sniffed) in `default`, `far` in `other`; a
/// client and a gateway.
pub(crate) const BASE: &str = r"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z2}}
---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {topology.kubernetes.io/region: r2, topology.kubernetes.io/zone: z3}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, nodeName: n1}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-2, labels: {app: reviews, version: v2, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews, nodeName: n2}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-3, labels: {app: reviews, version: v3}}
spec: {serviceAccountName: reviews, nodeName: n3}
status: {podIP: 10.0.0.3}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: reviews-1}}
- {addresses: [10.0.0.2], targetRef: {kind: Pod, name: reviews-2}}
- {addresses: [10.0.0.3], targetRef: {kind: Pod, name: reviews-3}}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {clusterIP: 10.96.0.2, selector: {app: ratings}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: mysql}
spec: {clusterIP: 10.96.0.3, selector: {app: mysql}, ports: [{name: tcp, port: 3306}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mysql-1, labels: {app: mysql, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: mysql, nodeName: n1}
status: {podIP: 10.0.0.6}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mysql, labels: {kubernetes.io/service-name: mysql}}
addressType: IPv4
ports: [{name: tcp, port: 3306}]
endpoints: [{addresses: [10.0.0.6], targetRef: {kind: Pod, name: mysql-1}}]
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {clusterIP: 10.96.0.4, ports: [{name: web, port: 8000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: plain, labels: {kubernetes.io/service-name: plain}}
addressType: IPv4
ports: [{name: web, port: 8000}]
endpoints: [{addresses: [10.0.0.5]}]
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.96.0.5, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-1, labels: {app: client, version: v1}}
spec: {serviceAccountName: client, nodeName: n1}
status: {podIP: 10.0.0.9}
---
apiVersion: v1
kind: Service
metadata: {name: gw, namespace: istio-system}
spec: {clusterIP: 10.96.0.9, selector: {istio: ingressgateway}, ports: [{name: http2, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gw, nodeName: n1}
status: {podIP: 10.0.0.10}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gw, namespace: istio-system, labels: {kubernetes.io/service-name: gw}}
addressType: IPv4
ports: [{name: http2, port: 8080}]
endpoints: [{addresses: [10.0.0.10], targetRef: {kind: Pod, name: gw-1}}]
";

pub(crate) const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

/// An object of Istio's networking or security group in `default`.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    object_in("default", kind, name, spec)
}

pub(crate) fn object_in(namespace: &str, kind: &str, name: &str, spec: &str) -> String {
    let group = if matches!(kind, "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication") {
        "security"
    } else {
        "networking"
    };
    let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{indented}"
    )
}

pub(crate) struct World {
    pub(crate) mesh: Mesh,
}

/// Everything that is wrong with a text.
pub(crate) fn problems(yaml: &str) -> Vec<Problem> {
    let parsed = memory::parse(yaml, None);
    let own = parsed.objects.iter().filter_map(|object| admit(object, &MeshConfig::default()).err());
    parsed.problems.into_iter().chain(own.flatten()).collect()
}

/// The field of the only problem, which must be there.
pub(crate) fn refused(kind: &str, spec: &str) -> String {
    let found = problems(&object(kind, "x", spec));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].field.clone()
}

impl World {
    /// The base and more, with Istio's defaults.
    pub(crate) fn new(more: &str) -> Self {
        Self::with_mesh("", more)
    }

    /// The same with settings of the mesh.
    pub(crate) fn with_mesh(config: &str, more: &str) -> Self {
        Self::with_text(config, &format!("{BASE}{more}"))
    }

    /// A text alone, with settings of the mesh.
    pub(crate) fn with_text(config: &str, yaml: &str) -> Self {
        let written = if config.is_empty() { Default::default() } else { mesh_config::parse(config).unwrap() };
        let config = MeshConfig { istio_defaults: true, ..MeshConfig::new(written, "cluster.local", "Kubernetes") };
        Self::of(config, yaml)
    }

    pub(crate) fn of(config: MeshConfig, yaml: &str) -> Self {
        let parsed = memory::parse(yaml, None);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let (mut store, mut changed) = (Store::default(), BTreeMap::<Key, Arc<Object>>::new());
        for object in parsed.objects {
            admit(&object, &config).unwrap();
            changed.insert(object.key.clone(), object.clone());
            store.insert(object);
        }
        let mut mesh = Mesh::empty(config);
        mesh.update(&store, &changed);
        Self { mesh }
    }

    /// What the client in `default` is told.
    pub(crate) fn client(&self) -> Told {
        self.node("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local", &[])
    }

    /// What the proxy of `reviews-1` is told.
    pub(crate) fn server(&self) -> Told {
        self.node("sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local", &[])
    }

    /// What the gateway is told.
    pub(crate) fn gateway(&self) -> Told {
        self.node("router~10.0.0.10~gw-1.istio-system~istio-system.svc.cluster.local", &[])
    }

    pub(crate) fn node(&self, id: &str, extensions: &[&str]) -> Told {
        let extension = |name: &&str| Extension { name: (*name).to_owned(), ..Extension::default() };
        let wire = WireNode {
            id: id.to_owned(),
            extensions: extensions.iter().map(extension).collect(),
            ..WireNode::default()
        };
        self.told(&wire)
    }

    /// What a node with these texts as metadata is told.
    pub(crate) fn with_metadata(&self, id: &str, metadata: &[(&str, &str)]) -> Told {
        let text = |value: &str| WireValue { kind: Some(ValueKind::StringValue(value.to_owned())) };
        let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
        self.told(&WireNode { id: id.to_owned(), metadata: Some(Struct { fields }), ..WireNode::default() })
    }

    /// What a node that says this of itself is told.
    pub(crate) fn with_proxy_config(&self, id: &str, config: &Value) -> Told {
        let fields = [("PROXY_CONFIG".to_owned(), of_json(config))].into_iter().collect();
        self.told(&WireNode { id: id.to_owned(), metadata: Some(Struct { fields }), ..WireNode::default() })
    }

    /// What sidecars of these ids are told, from one cache.
    pub(crate) fn sidecars<const N: usize>(&self, ids: [&str; N]) -> [Told; N] {
        let mut cache = Cache::default();
        ids.map(|id| {
            let id = format!("sidecar~{id}.default~default.svc.cluster.local");
            self.told_from(&mut cache, &WireNode { id, ..WireNode::default() })
        })
    }

    fn told(&self, wire: &WireNode) -> Told {
        self.told_from(&mut Cache::default(), wire)
    }

    fn told_from(&self, cache: &mut Cache, wire: &WireNode) -> Told {
        let class = Class::of(&Node::parse(wire).unwrap(), &self.mesh);
        let scope = match class.role {
            Role::Sidecar => scope::build(
                &self.mesh,
                &class.namespace,
                scope::choose(&self.mesh, &class.namespace, &class.place.labels),
            ),
            Role::Router => scope::of_gateway(&self.mesh, &class.namespace),
        };
        Told { snapshot: Snapshot::build(&class, &self.mesh, &scope, cache) }
    }
}

fn of_json(value: &Value) -> WireValue {
    let kind = match value {
        Value::Object(fields) => ValueKind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), of_json(value))).collect(),
        }),
        Value::Number(number) => ValueKind::NumberValue(number.as_f64().unwrap()),
        other => ValueKind::StringValue(other.as_str().unwrap().to_owned()),
    };
    WireValue { kind: Some(kind) }
}

pub(crate) struct Told {
    pub(crate) snapshot: Snapshot,
}

impl Told {
    fn get(&self, kind: ResourceType, name: &str) -> Option<Value> {
        let resource = self.snapshot.of(kind).get(name)?;
        let full = proto::any::type_name(kind.type_url());
        Some(proto::json::to_value(full, &resource.bytes).unwrap())
    }

    pub(crate) fn names(&self, kind: ResourceType) -> Vec<String> {
        self.snapshot.of(kind).iter().map(|resource| resource.name.to_string()).collect()
    }

    pub(crate) fn has_cluster(&self, name: &str) -> bool {
        self.snapshot.of(ResourceType::Cluster).get(name).is_some()
    }

    pub(crate) fn cluster(&self, name: &str) -> Value {
        self.get(ResourceType::Cluster, name).unwrap_or_else(|| panic!("no cluster {name}"))
    }

    pub(crate) fn endpoints(&self, name: &str) -> Value {
        self.get(ResourceType::Endpoints, name).unwrap_or_else(|| panic!("no endpoints {name}"))
    }

    /// Addresses of the endpoints of a cluster.
    pub(crate) fn addresses(&self, name: &str) -> Vec<String> {
        let assignment = self.endpoints(name);
        let groups = assignment["endpoints"].as_array().cloned().unwrap_or_default();
        let all = groups.iter().flat_map(|group| group["lb_endpoints"].as_array().cloned().unwrap_or_default());
        all.map(|e| e["endpoint"]["address"]["socket_address"]["address"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn listener(&self, name: &str) -> Value {
        self.get(ResourceType::Listener, name).unwrap_or_else(|| panic!("no listener {name}"))
    }

    pub(crate) fn has_listener(&self, name: &str) -> bool {
        self.snapshot.of(ResourceType::Listener).get(name).is_some()
    }

    pub(crate) fn routes(&self, name: &str) -> Value {
        self.get(ResourceType::Route, name).unwrap_or_else(|| panic!("no routes {name}"))
    }

    /// A virtual host of a table.
    pub(crate) fn host(&self, table: &str, name: &str) -> Value {
        let routes = self.routes(table);
        let host = routes["virtual_hosts"].as_array().unwrap().iter().find(|host| host["name"] == name);
        host.unwrap_or_else(|| panic!("no virtual host {name} in {routes}")).clone()
    }

    /// The routes of `reviews`.
    pub(crate) fn reviews(&self) -> Vec<Value> {
        self.host("9080", "reviews.default.svc.cluster.local:9080")["routes"].as_array().unwrap().clone()
    }

    /// The filter chains of the inbound listener.
    pub(crate) fn inbound(&self) -> Vec<Value> {
        self.listener("virtualInbound")["filter_chains"].as_array().unwrap().clone()
    }

    pub(crate) fn name_table(&self) -> proto::missing::NameTable {
        use prost::Message as _;
        let resource = self.snapshot.of(ResourceType::NameTable).get("").unwrap();
        proto::missing::NameTable::decode(resource.bytes.clone()).unwrap()
    }
}

/// The connection manager of a chain.
pub(crate) fn manager(chain: &Value) -> Value {
    let filters = chain["filters"].as_array().unwrap();
    let manager = filters.iter().find(|filter| filter["name"] == "envoy.filters.network.http_connection_manager");
    manager.unwrap_or_else(|| panic!("no HTTP in {chain}"))["typed_config"].clone()
}

/// Names of things in a list.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list.as_array().map(|items| items.iter().map(|item| item["name"].as_str().unwrap()).collect()).unwrap_or_default()
}

/// The text of a list of texts.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map(|items| items.iter().map(|item| item.as_str().unwrap()).collect()).unwrap_or_default()
}

/// The routes of `reviews` for the client under one VirtualService rule.
pub(crate) fn reviews_under(http: &str) -> Vec<Value> {
    World::new(&object("VirtualService", "v", &format!("hosts: [reviews]\nhttp:\n{http}"))).client().reviews()
}
