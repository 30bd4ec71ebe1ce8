//! Kubernetes' own kinds: only the fields that discovery uses.

use std::collections::BTreeMap;

core_struct! {
    /// `spec` of a Service.
    #[derive(Eq)]
    ServiceSpec {
        #[serde(rename = "clusterIP")]
        cluster_ip: Option<String>,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        #[serde(rename = "type")]
        service_type: Option<String>,
        external_name: Option<String>,
        selector: BTreeMap<String, String>,
        ports: Vec<ServicePort>,
        publish_not_ready_addresses: bool,
        traffic_distribution: Option<String>,
        internal_traffic_policy: Option<String>,
    }
}

core_struct! {
    /// One port of a Service.
    #[derive(Eq)]
    ServicePort {
        name: Option<String>,
        port: u16,
        target_port: Option<IntOrString>,
        protocol: Option<String>,
        app_protocol: Option<String>,
    }
}

/// A port by number or by the name it has in the pod.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

core_struct! {
    /// An EndpointSlice: its fields stand beside `metadata`, there is no `spec`.
    #[derive(Eq)]
    EndpointSlice {
        address_type: String,
        ports: Vec<EndpointPort>,
        endpoints: Vec<SliceEndpoint>,
    }
}

core_struct! {
    /// One port of an EndpointSlice.
    #[derive(Eq)]
    EndpointPort {
        name: Option<String>,
        port: Option<u16>,
        protocol: Option<String>,
        app_protocol: Option<String>,
    }
}

core_struct! {
    /// One endpoint of an EndpointSlice.
    #[derive(Eq)]
    SliceEndpoint {
        addresses: Vec<String>,
        conditions: EndpointConditions,
        node_name: Option<String>,
        zone: Option<String>,
        target_ref: Option<TargetRef>,
        hostname: Option<String>,
    }
}

core_struct! {
    /// Conditions of an endpoint; an absent `ready` counts as true.
    #[derive(Eq)]
    EndpointConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
}

core_struct! {
    /// The pod behind an endpoint.
    #[derive(Eq)]
    TargetRef {
        kind: String,
        name: String,
        namespace: Option<String>,
    }
}

core_struct! {
    /// `spec` of a Pod.
    #[derive(Eq)]
    PodSpec {
        service_account_name: Option<String>,
        node_name: Option<String>,
        containers: Vec<Container>,
        hostname: Option<String>,
        subdomain: Option<String>,
    }
}

core_struct! {
    /// A container of a Pod.
    #[derive(Eq)]
    Container {
        name: String,
        ports: Vec<ContainerPort>,
    }
}

core_struct! {
    /// A port of a container.
    #[derive(Eq)]
    ContainerPort {
        name: Option<String>,
        container_port: u16,
        protocol: Option<String>,
    }
}

core_struct! {
    /// `status` of a Pod.
    #[derive(Eq)]
    PodStatus {
        phase: Option<String>,
        #[serde(rename = "podIP")]
        pod_ip: Option<String>,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        /// Whether the condition `Ready` holds; none where there are no conditions. The others change far more often.
        #[serde(rename = "conditions", deserialize_with = "ready", skip_serializing)]
        ready: Option<bool>,
    }
}

core_struct! {
    /// A condition of a Pod.
    #[derive(Eq)]
    PodCondition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
    }
}

fn ready<'de, D: serde::Deserializer<'de>>(conditions: D) -> Result<Option<bool>, D::Error> {
    let conditions: Vec<PodCondition> = serde::Deserialize::deserialize(conditions)?;
    let holds = |condition: &PodCondition| condition.kind == "Ready" && condition.status == "True";
    Ok((!conditions.is_empty()).then(|| conditions.iter().any(holds)))
}

core_struct! {
    /// An address of a Pod.
    #[derive(Eq)]
    PodIp { ip: String }
}
