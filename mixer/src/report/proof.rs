//! Reports against what the sender's certificate proves: nobody reports in the name of others (ADR 0008).
//!
//! A node id or a namespace of others refuses the whole message. Of what a sender says of its own side, namespace and principal
//! are replaced by those of its certificate. What it says of the other side is what it saw: nobody can prove that here.

use super::entry::{Entry, Party};
use super::point::{attribute, text};
use super::series::label_is;
use super::traffic::Reporter;
use credentials::accept::Peer;
use identity::spiffe::SpiffeId;
use proto::otlp::common::KeyValue;
use proto::otlp::trace::ResourceSpans;
use std::net::IpAddr;

/// The attribute that names a service, `NAME.NAMESPACE` from proxies.
const SERVICE: &str = "service.name";

/// Who sends a message.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'c> {
    /// The address that it called from.
    pub address: IpAddr,
    /// The identity that its certificate proves; none where mixer serves plain text.
    pub id: Option<&'c SpiffeId>,
}

/// A message in the name of others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forged(String);

impl<'c> From<&'c Peer> for Caller<'c> {
    fn from(peer: &'c Peer) -> Self {
        Self { address: peer.address.ip(), id: peer.id() }
    }
}

impl Caller<'_> {
    /// Whether the caller runs in this namespace.
    ///
    /// # Errors
    /// Where its certificate says another one.
    pub fn is_in(&self, namespace: &str) -> Result<(), Forged> {
        match self.id.and_then(|id| Some((id, id.namespace_and_account()?.0))) {
            Some((id, proven)) if proven != namespace => Err(Forged(format!(
                "spans are said to be of namespace {namespace}, the sender's certificate is of {id}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether a message of this node can be the caller's. Gives whether the node's id says where it runs.
    ///
    /// # Errors
    /// Where the id says that it runs in another namespace.
    pub fn is(&self, node: &str) -> Result<bool, Forged> {
        let Some(namespace) = namespace_of(node) else { return Ok(false) };
        let proven = self.id.and_then(|id| Some((id, id.namespace_and_account()?.0)));
        match proven {
            Some((id, proven)) if proven != namespace => {
                Err(Forged(format!("node {node} reports from namespace {namespace}, its certificate is of {id}")))
            }
            _ => Ok(true),
        }
    }
}

/// The namespace in a node id: `sidecar~10.0.0.1~pod.namespace~namespace.svc.cluster.local`.
fn namespace_of(node: &str) -> Option<&str> {
    let (_, namespace) = node.split('~').nth(2)?.rsplit_once('.')?;
    Some(namespace)
}

/// Puts what is proven into the labels of the sender's own side. False where the labels do not say which side that is: then
/// they may be of anybody.
pub fn correct(labels: &mut [KeyValue], id: &SpiffeId) -> bool {
    let mut reporters = labels.iter().filter(|label| label_is(&label.key, "reporter"));
    let (Some(reporter), None) = (reporters.next(), reporters.next()) else { return false };
    let [principal, namespace] = match text(reporter.value.as_ref()).as_deref() {
        Some("source") => ["source_principal", "source_workload_namespace"],
        Some("destination") => ["destination_principal", "destination_workload_namespace"],
        _ => return false,
    };
    let proven = id.namespace_and_account().map(|(namespace, _)| namespace);
    for label in labels {
        if label_is(&label.key, principal) {
            *label = attribute(principal, id.as_str());
        } else if let Some(proven) = proven.filter(|_| label_is(&label.key, namespace)) {
            *label = attribute(namespace, proven);
        }
    }
    true
}

/// The same for spans, in place: they are handed on as well. Who names its namespace names that of its certificate; the name
/// of a service that ends in another one is completed by it.
///
/// # Errors
/// Where a node id or a namespace says that the sender is somewhere else.
pub fn correct_spans(resources: &mut [ResourceSpans], caller: Caller<'_>) -> Result<(), Forged> {
    let proven = caller.id.and_then(|id| Some(id.namespace_and_account()?.0));
    for resource in resources {
        let tags = resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(|span| &span.attributes);
        let own = resource.resource.iter().map(|resource| &resource.attributes);
        for label in own.chain(tags).flatten() {
            let value = || text(label.value.as_ref()).unwrap_or_default();
            match label.key.as_str() {
                "service.instance.id" | "node_id" | "node_name" => drop(caller.is(&value())?),
                "service.namespace" | "k8s.namespace.name" | "istio.namespace" => caller.is_in(&value())?,
                _ => {}
            }
        }
        let attributes = resource.resource.iter_mut().flat_map(|resource| &mut resource.attributes);
        for label in attributes.filter(|label| label.key == SERVICE) {
            let name = text(label.value.as_ref()).unwrap_or_default();
            if let (Some(proven), Some((_, last))) = (proven, name.rsplit_once('.'))
                && last != proven
            {
                *label = attribute(SERVICE, &format!("{name}.{proven}"));
            }
        }
    }
    Ok(())
}

/// The same for a logged request. What is known of an address in another namespace is not the sender's.
pub fn correct_entry(entry: &mut Entry, id: &SpiffeId) {
    let own = match entry.reporter {
        Reporter::Source => &mut entry.source,
        Reporter::Destination => &mut entry.destination,
    };
    if let Some((namespace, _)) = id.namespace_and_account() {
        if own.namespace != namespace {
            *own = Party { address: own.address, port: own.port, ..Party::default() };
        }
        namespace.clone_into(&mut own.namespace);
    }
    id.as_str().clone_into(&mut own.principal);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap()
    }

    fn corrected(labels: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        let mut labels: Vec<_> = labels.iter().map(|(key, value)| attribute(key, value)).collect();
        let sound = correct(&mut labels, &id());
        let pair = |label: KeyValue| (text(label.value.as_ref()).unwrap(), label.key);
        sound.then(|| labels.into_iter().map(pair).map(|(value, key)| (key, value)).collect())
    }

    // spec: MX-106
    #[test]
    fn the_own_side_is_what_the_certificate_proves_and_the_other_is_what_was_seen() {
        let other = "spiffe://cluster.local/ns/bank/sa/vault";
        let told = [
            ("reporter", "source"),
            ("source_principal", other),
            ("source.principal", other),
            ("source_workload_namespace", "bank"),
            ("source_workload", "web"),
            ("destination_principal", other),
            ("destination_workload_namespace", "bank"),
        ];
        let labels = corrected(&told).unwrap();
        let of = |name: &str| labels.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
        let own: Vec<&str> = of("source_principal");
        assert_eq!(own, [id().as_str(), id().as_str()], "by whatever spelling");
        let other_side: Vec<&str> = of("destination_principal");
        assert_eq!((other_side, labels[3].1.as_str(), labels[6].1.as_str()), (vec![other], "shop", "bank"));
        let server = corrected(&[("reporter", "destination"), ("destination_workload_namespace", "bank")]).unwrap();
        assert_eq!(server[1].1, "shop");
        assert_eq!(
            corrected(&[("reporter", "source"), ("source_workload", "web")]).unwrap().len(),
            2,
            "nothing is added"
        );
    }

    #[test]
    fn a_series_of_nobodys_side_is_refused() {
        for labels in [
            &[("source_principal", "x")][..],
            &[("reporter", "waypoint"), ("source_principal", "x")],
            &[("reporter", "source"), ("reporter", "destination")],
        ] {
            assert_eq!(corrected(labels), None, "{labels:?}");
        }
    }

    #[test]
    fn a_node_of_another_namespace_is_somebody_else() {
        let (id, address) = (id(), IpAddr::from([10, 0, 0, 1]));
        let proven = Caller { address, id: Some(&id) };
        let vault = "sidecar~10.0.0.9~vault-0.bank~bank.svc.cluster.local";
        let refused = proven.is(vault).unwrap_err().to_string();
        assert!(refused.contains("namespace bank") && refused.contains(id.as_str()), "{refused}");
        assert_eq!(proven.is("sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local"), Ok(true));
        assert_eq!((proven.is("collector-7"), proven.is("")), (Ok(false), Ok(false)));
        assert_eq!(Caller { address, id: None }.is(vault), Ok(true), "in plain text nobody proves anything");
    }
}
