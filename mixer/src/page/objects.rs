//! Objects of the configuration, as pilot lists them: which shape a service, and which weights they give its versions.

use serde::Deserialize;
use serde_json::Value;

/// An object in force.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file it is written in, where it is in one.
    pub file: Option<String>,
    /// Its content.
    pub spec: Value,
}

impl Object {
    /// `VirtualService/shop/reviews`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Objects(Vec<Object>);

impl Objects {
    /// From pilot's `/debug/configz`.
    ///
    /// # Errors
    /// When it is no list of objects.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// The objects that shape calls of a service: those that name its host, that select its workloads, and those of its
    /// namespace or of the whole mesh that select everything.
    pub fn shaping(&self, namespace: &str, app: &str) -> Vec<&Object> {
        let shapes = |object: &&Object| match object.kind.as_str() {
            "VirtualService" => {
                let mut hosts = strings(&object.spec["hosts"]);
                hosts.any(|host| names(host, &object.namespace, namespace, app)) || routes_to(object, namespace, app)
            }
            "DestinationRule" => {
                object.spec["host"].as_str().is_some_and(|host| names(host, &object.namespace, namespace, app))
            }
            "ServiceEntry" => strings(&object.spec["hosts"]).any(|host| names(host, &object.namespace, namespace, app)),
            "Service" => object.namespace == namespace && object.name == app,
            "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" | "Telemetry" | "RateLimit" => {
                let labels = object.spec["selector"]["matchLabels"].as_object();
                let near = object.namespace == namespace || object.namespace == "istio-system";
                near && labels.is_none_or(|labels| labels.values().any(|value| value.as_str() == Some(app)))
            }
            _ => false,
        };
        self.0.iter().filter(shapes).collect()
    }

    /// The percentage that the configuration gives to a version of a service; nothing where no rule splits it.
    pub fn weight(&self, host: &str, version: &str) -> Option<f64> {
        let (app, rest) = host.split_once('.')?;
        let namespace = rest.split('.').next()?;
        let of_host = |object: &&Object, hosts: &Value| {
            let named = |name: &str| names(name, &object.namespace, namespace, app);
            hosts.as_str().is_some_and(named) || strings(hosts).any(named)
        };
        let split =
            self.0.iter().filter(|o| o.kind == "VirtualService" && of_host(o, &o.spec["hosts"])).find_map(|o| {
                let routes = o.spec["http"].as_array().into_iter().chain(o.spec["tcp"].as_array()).flatten();
                // Rules with conditions come first; the split that most requests meet is that of the last one.
                routes.filter_map(|route| route["route"].as_array().filter(|to| to.len() > 1)).next_back()
            })?;
        let total: f64 = split.iter().filter_map(|to| to["weight"].as_f64()).sum();
        let of_version = split.iter().filter(|to| {
            let subset = to["destination"]["subset"].as_str().unwrap_or_default();
            self.version_of_subset(&of_host, subset).unwrap_or(subset) == version
        });
        let weight: f64 = of_version.filter_map(|to| to["weight"].as_f64()).sum();
        (total > 0.).then_some(weight / total * 100.)
    }

    fn version_of_subset<'a>(
        &'a self,
        of_host: &impl Fn(&&'a Object, &Value) -> bool,
        subset: &str,
    ) -> Option<&'a str> {
        let rules = self.0.iter().filter(|o| o.kind == "DestinationRule" && of_host(o, &o.spec["host"]));
        let mut subsets = rules.flat_map(|rule| rule.spec["subsets"].as_array().into_iter().flatten());
        subsets.find(|known| known["name"].as_str() == Some(subset))?["labels"]["version"].as_str()
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Whether `host`, written in `home`, means the service `app` of `namespace`.
fn names(host: &str, home: &str, namespace: &str, app: &str) -> bool {
    match host.split_once('.') {
        None => host == app && home == namespace,
        Some((first, rest)) => first == app && rest.split('.').next() == Some(namespace),
    }
}

fn routes_to(object: &Object, namespace: &str, app: &str) -> bool {
    let routes = ["http", "tcp", "tls"].into_iter().flat_map(|kind| object.spec[kind].as_array().into_iter().flatten());
    let mut hosts = routes
        .flat_map(|route| route["route"].as_array().into_iter().flatten())
        .filter_map(|to| to["destination"]["host"].as_str());
    hosts.any(|host| names(host, &object.namespace, namespace, app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects() -> Objects {
        let all = json!([
            {"kind": "VirtualService", "namespace": "shop", "name": "reviews", "file": "a.yaml", "spec": {
                "hosts": ["reviews"], "http": [
                    {"match": [{"headers": {}}], "route": [{"destination": {"host": "reviews", "subset": "old"}}]},
                    {"route": [{"destination": {"host": "reviews", "subset": "old"}, "weight": 99},
                               {"destination": {"host": "reviews", "subset": "new"}, "weight": 1}]}]}},
            {"kind": "DestinationRule", "namespace": "shop", "name": "reviews", "spec": {"host": "reviews.shop.svc.cluster.local",
                "subsets": [{"name": "old", "labels": {"version": "v1"}}, {"name": "new", "labels": {"version": "v2"}}]}},
            {"kind": "AuthorizationPolicy", "namespace": "shop", "name": "all", "spec": {}},
            {"kind": "AuthorizationPolicy", "namespace": "shop", "name": "other", "spec": {"selector": {"matchLabels": {"app": "ratings"}}}},
            {"kind": "VirtualService", "namespace": "other", "name": "reviews", "spec": {"hosts": ["reviews"]}}
        ]);
        Objects::parse(all.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn weights_are_those_of_the_version_behind_the_subset() {
        let objects = objects();
        let host = "reviews.shop.svc.cluster.local";
        assert_eq!((objects.weight(host, "v1"), objects.weight(host, "v2")), (Some(99.), Some(1.)));
        assert_eq!(objects.weight("ratings.shop.svc.cluster.local", "v1"), None);
    }

    #[test]
    fn what_shapes_a_service_is_found() {
        let objects = objects();
        let names: Vec<String> = objects.shaping("shop", "reviews").into_iter().map(Object::path).collect();
        assert_eq!(
            names,
            ["VirtualService/shop/reviews", "DestinationRule/shop/reviews", "AuthorizationPolicy/shop/all"]
        );
    }
}
