//! The init container that redirects the pod's traffic to the proxy (spec PI-59, IN-23).

use super::proxy::Facts;
use super::{INIT, VALIDATION, image};
use proto::wire::{PORT_METRICS, PORT_READY, PROXY_UID};
use serde_json::{Value, json};

/// What the annotations of redirection begin with.
const TRAFFIC: &str = "traffic.sidecar.istio.io/";
/// The newer name of `kubevirtInterfaces`.
const VIRTUAL: &str = "istio.io/reroute-virtual-interfaces";

impl Facts<'_> {
    fn traffic(&self, name: &str, path: &str) -> String {
        self.annotation_or(&format!("{TRAFFIC}{name}"), path)
    }

    /// A setting that is left out where neither the pod nor the values have it.
    fn optional_traffic(&self, name: &str, path: &str) -> Option<String> {
        let annotated = self.pod.annotation(&format!("{TRAFFIC}{name}")).map(str::to_owned);
        annotated.or_else(|| self.values.filled(path))
    }

    fn virtual_interfaces(&self) -> Option<&str> {
        self.pod.annotation(VIRTUAL).or_else(|| self.pod.annotation(&format!("{TRAFFIC}kubevirtInterfaces")))
    }

    /// Inbound ports that are left alone: those given, and the port of probes.
    fn excluded_inbound_ports(&self) -> String {
        exclude_inbound_port(
            &self.status_port(),
            &self.traffic("excludeInboundPorts", "global.proxy.excludeInboundPorts"),
        )
    }

    fn redirect_args(&self) -> Vec<String> {
        let uid = if self.is_tproxy() { PROXY_UID } else { self.ids.user };
        let own = format!("{PORT_METRICS},{PORT_READY}");
        let excluded = match self.excluded_inbound_ports() {
            more if more.is_empty() => own,
            more => format!("{own},{more}"),
        };
        let mut args: Vec<String> = vec!["istio-iptables".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("-p", self.mesh.outbound_port.clone());
        flag("-z", self.mesh.inbound_port.clone());
        flag("-u", uid.to_string());
        flag("-m", self.interception_mode().to_owned());
        flag("-i", self.traffic("includeOutboundIPRanges", "global.proxy.includeIPRanges"));
        flag("-x", self.traffic("excludeOutboundIPRanges", "global.proxy.excludeIPRanges"));
        flag("-b", self.traffic("includeInboundPorts", "global.proxy.includeInboundPorts"));
        flag("-d", excluded);
        let optional = [
            ("-q", self.optional_traffic("includeOutboundPorts", "global.proxy.includeOutboundPorts")),
            ("-o", self.optional_traffic("excludeOutboundPorts", "global.proxy.excludeOutboundPorts")),
            ("-k", self.virtual_interfaces().map(str::to_owned)),
            ("-c", self.pod.annotation(&format!("{TRAFFIC}excludeInterfaces")).map(str::to_owned)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                flag(name, value);
            }
        }
        let level = self.annotation_or("sidecar.istio.io/agentLogLevel", "global.logging.level");
        args.push(format!("--log_output_level={level}"));
        let switches = [
            ("--log_as_json", self.values.is_on("global.logAsJson")),
            ("--run-validation", self.by_node_agent()),
            ("--skip-rule-apply", self.by_node_agent()),
            ("--force-apply", !self.by_node_agent() && self.values.is_on("global.proxy_init.forceApplyIptables")),
            ("--native-nftables", self.values.is_on("global.nativeNftables")),
        ];
        args.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()));
        args
    }

    /// The container; `None` where traffic is not redirected.
    pub(super) fn redirect_container(&self) -> Option<Value> {
        if self.interception_mode() == "NONE" {
            return None;
        }
        let by_node_agent = self.by_node_agent();
        let mut container = json!({
            "name": if by_node_agent { VALIDATION } else { INIT },
            "image": image::redirect(self.pod, self.values),
            "args": self.redirect_args(),
            "resources": self.resources(),
            "securityContext": self.redirect_security(by_node_agent),
        });
        if let Some(policy) = self.values.filled("global.imagePullPolicy") {
            container["imagePullPolicy"] = json!(policy);
        }
        let env: Vec<Value> =
            self.proxy.metadata().into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        if !env.is_empty() {
            container["env"] = json!(env);
        }
        Some(container)
    }

    /// It needs to change the pod's own netfilter rules and nothing else (S7).
    fn redirect_security(&self, by_node_agent: bool) -> Value {
        let privileged = self.values.is_on("global.proxy.privileged");
        let (user, group) = match (by_node_agent, self.is_tproxy()) {
            (false, _) => (0, 0),
            (true, true) => (PROXY_UID, PROXY_UID),
            (true, false) => (self.ids.user, self.ids.group),
        };
        let mut capabilities = json!({"drop": ["ALL"]});
        if !by_node_agent {
            capabilities["add"] = json!(["NET_ADMIN", "NET_RAW"]);
        }
        let mut context = json!({
            "allowPrivilegeEscalation": privileged,
            "privileged": privileged,
            "capabilities": capabilities,
            "readOnlyRootFilesystem": by_node_agent,
            "runAsUser": user,
            "runAsGroup": group,
            "runAsNonRoot": by_node_agent,
        });
        self.add_seccomp(&mut context);
        context
    }

    /// `seccompProfile` of the values, where it says something.
    pub(super) fn add_seccomp(&self, context: &mut Value) {
        let profile = self.values.at("global.proxy.seccompProfile");
        if profile.as_object().is_some_and(|profile| !profile.is_empty()) {
            context["seccompProfile"] = profile.clone();
        }
    }

    /// The annotations by which a node agent knows what to redirect.
    pub(super) fn node_agent_annotations(&self) -> Vec<(String, String)> {
        if !self.by_node_agent() {
            return Vec::new();
        }
        let mut annotations = Vec::new();
        if self.values.text("pilot.cni.provider") == "multus" {
            let present = self.pod.annotation(MULTUS).unwrap_or_default();
            annotations.push((MULTUS.to_owned(), with_network(present)));
        }
        annotations.push((super::proxy::INTERCEPTION_MODE.to_owned(), self.interception_mode().to_owned()));
        let mut traffic = |name: &str, value: String| annotations.push((format!("{TRAFFIC}{name}"), value));
        for (name, path) in
            [("includeOutboundIPRanges", "includeIPRanges"), ("excludeOutboundIPRanges", "excludeIPRanges")]
        {
            let value = self.traffic(name, &format!("global.proxy.{path}"));
            if !value.is_empty() {
                traffic(name, value);
            }
        }
        traffic("includeInboundPorts", self.traffic("includeInboundPorts", "global.proxy.includeInboundPorts"));
        traffic("excludeInboundPorts", self.excluded_inbound_ports());
        for name in ["includeOutboundPorts", "excludeOutboundPorts"] {
            if let Some(value) = self.optional_traffic(name, &format!("global.proxy.{name}")) {
                traffic(name, value);
            }
        }
        annotations
    }
}

/// Ports with commas between them, and one more unless it is among them or 0.
pub(super) fn exclude_inbound_port(port: &str, given: &str) -> String {
    let port = port.trim();
    if port.is_empty() || port == "0" || given.split(',').any(|known| known == port) {
        return given.to_owned();
    }
    let given = given.split(',').map(str::trim).filter(|known| !known.is_empty());
    given.chain([port]).collect::<Vec<_>>().join(",")
}

/// Annotation: the networks that Multus gives a pod.
const MULTUS: &str = "k8s.v1.cni.cncf.io/networks";
/// The network that runs the node agent's plugin, where Multus does not chain plugins (IN-23).
const NETWORK: (&str, &str) = ("default", "istio-cni");

/// The networks of a pod and ours, in the form in which they are written: a list of names, or JSON.
pub(super) fn with_network(present: &str) -> String {
    let (namespace, name) = NETWORK;
    let ours = format!("{namespace}/{name}");
    if present.is_empty() {
        return ours;
    }
    if let Some((front, end)) = present.rsplit_once(']') {
        let Ok(networks) = serde_json::from_str::<Vec<Value>>(present) else { return present.to_owned() };
        if networks.iter().any(|network| network["name"] == name && network["namespace"] == namespace) {
            return present.to_owned();
        }
        let comma = if networks.is_empty() { "" } else { ", " };
        return format!(r#"{front}{comma}{{"name": "{name}", "namespace": "{namespace}"}}]{end}"#);
    }
    if present.split(',').any(|network| network.trim() == ours) {
        return present.to_owned();
    }
    format!("{present}, {ours}")
}

#[cfg(test)]
mod tests {
    use super::with_network;

    // spec: IN-23
    #[test]
    fn multus_networks_are_kept_in_the_form_in_which_they_are_written() {
        assert_eq!(with_network(""), "default/istio-cni");
        assert_eq!(with_network("a, b"), "a, b, default/istio-cni");
        assert_eq!(with_network("default/istio-cni"), "default/istio-cni");
        assert_eq!(
            with_network(r#"[{"name":"a"}]"#),
            r#"[{"name":"a"}, {"name": "istio-cni", "namespace": "default"}]"#
        );
        assert_eq!(with_network("[]"), r#"[{"name": "istio-cni", "namespace": "default"}]"#);
        let there = r#"[{"name": "istio-cni", "namespace": "default"}]"#;
        assert_eq!((with_network(there).as_str(), with_network("[{]").as_str()), (there, "[{]"));
    }
}
