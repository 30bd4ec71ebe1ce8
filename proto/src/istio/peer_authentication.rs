//! PeerAuthentication (spec 1.11).

use super::WorkloadSelector;
use std::collections::BTreeMap;

istio_struct! {
    /// `spec` of a PeerAuthentication.
    #[derive(Eq)]
    PeerAuthentication {
        selector: Option<WorkloadSelector>,
        mtls: Option<MutualTls>,
        port_level_mtls: BTreeMap<String, MutualTls>,
    }
}

istio_struct! {
    /// The mode of one scope.
    #[derive(Eq)]
    MutualTls { mode: MutualTlsMode }
}

istio_enum! {
    /// Which connections are accepted.
    MutualTlsMode { Unset, Disable, Permissive, Strict }
}
