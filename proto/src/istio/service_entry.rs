//! ServiceEntry and WorkloadEntry (spec 1.6).

use super::WorkloadSelector;
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a ServiceEntry.
    ServiceEntry {
        hosts: Vec<String>,
        addresses: Vec<String>,
        ports: Vec<ServicePort>,
        location: Location,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<WorkloadSelector>,
        export_to: Vec<String>,
        subject_alt_names: Vec<String>,
    }
}

istio_struct! {
    /// A port of a ServiceEntry.
    #[derive(Eq, Hash)]
    ServicePort {
        number: u32,
        protocol: String,
        name: String,
        target_port: Option<u32>,
    }
}

istio_enum! {
    /// Whether the service is part of the mesh.
    Location { MeshExternal, MeshInternal }
}

istio_enum! {
    /// How the addresses of the service are found.
    Resolution { None, Static, Dns, DnsRoundRobin, DynamicDns }
}

istio_struct! {
    /// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
    #[derive(Eq)]
    WorkloadEntry {
        address: String,
        ports: BTreeMap<String, u32>,
        labels: BTreeMap<String, String>,
        network: String,
        locality: String,
        weight: Option<u32>,
        service_account: String,
    }
}
