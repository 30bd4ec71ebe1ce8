//! TCP ports of ServiceEntries without addresses: nothing tells their connections from others on the port, unless pilot
//! chooses some and proxies answer DNS with them (SE-13).

use super::{Caution, Surprise};
use crate::model::MeshConfig;
use crate::registry::allocate;
use crate::source::Object;
use proto::istio::service_entry::ServiceEntry;

pub(super) fn of(object: &Object, spec: &ServiceEntry, config: &MeshConfig) -> Vec<Caution> {
    if config.ip_autoallocate && config.captures_dns && allocate::gives(object, spec) {
        return Vec::new();
    }
    let tcp = |protocol: &str| protocol.is_empty() || protocol.eq_ignore_ascii_case("tcp");
    let ports = spec.ports.iter().enumerate().filter(|(_, port)| spec.addresses.is_empty() && tcp(&port.protocol));
    let caution = |i: usize| {
        let text = "ServiceEntry addresses are required for this protocol.";
        Caution::new(Surprise::AddressesRequired, format!("spec.ports[{i}].protocol"), text)
    };
    ports.map(|(i, _)| caution(i)).collect()
}
