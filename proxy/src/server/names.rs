//! The name table of pilot as a DNS server for the workload (DN-1): off unless the node says `DNS_CAPTURE`.

use crate::bootstrap::Bootstrap;
use crate::dns::{DnsServer, Forwarder, Names, ResolvConf, Viewpoint};
use crate::net::bind_mark;
use crate::xds::{Kind, Store};
use anyhow::Context;
use bytes::Bytes;
use prost::Message;
use proto::envoy::wkt::value::Kind as Value;
use proto::missing::NameTable;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// What the server needs of the bootstrap.
#[derive(Debug)]
pub(super) struct Settings {
    addresses: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
    mark: Option<u32>,
    view: Viewpoint,
}

impl Settings {
    /// Reads the node and the pod's resolv.conf; `None` where DNS is not captured.
    ///
    /// # Errors
    /// Names the field that cannot be used.
    pub(super) fn of(bootstrap: &Bootstrap) -> anyhow::Result<Option<Self>> {
        if metadata(bootstrap, "DNS_CAPTURE") != "true" {
            return Ok(None);
        }
        let conf = ResolvConf::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        let view = viewpoint(bootstrap, &conf);
        let mark = bind_mark(bootstrap.bind()).map_err(|refusal| anyhow::anyhow!("upstream_bind_config: {refusal}"))?;
        Ok(Some(Self { addresses: addresses(bootstrap)?, servers: conf.servers, mark, view }))
    }

    /// Opens the ports and follows the table.
    ///
    /// # Errors
    /// Where a port is taken.
    pub(super) async fn start(self, store: watch::Receiver<Store>) -> anyhow::Result<()> {
        let (table, names) = watch::channel(None);
        for address in self.addresses {
            let forwarder = Forwarder::new(self.servers.clone(), address).with_mark(self.mark);
            match DnsServer::bind(address, names.clone(), forwarder).await {
                Ok(server) => drop(tokio::spawn(server.run())),
                Err(error) if address.is_ipv6() => tracing::info!(%address, %error, "no DNS over IPv6"),
                Err(error) => return Err(error).with_context(|| format!("cannot serve DNS on {address}")),
            }
        }
        tokio::spawn(follow(store, table, self.view));
        Ok(())
    }
}

/// `DNS_PROXY_ADDR` is Istio's `host:port`; the default is both loopback addresses.
fn addresses(bootstrap: &Bootstrap) -> anyhow::Result<Vec<SocketAddr>> {
    let port = proto::wire::PORT_DNS;
    match metadata(bootstrap, "DNS_PROXY_ADDR") {
        "" => Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]),
        text => {
            let text = text.replace("localhost", "127.0.0.1");
            Ok(vec![
                text.parse().with_context(|| format!("node.metadata.DNS_PROXY_ADDR: {text:?} is no address:port"))?,
            ])
        }
    }
}

fn viewpoint(bootstrap: &Bootstrap, conf: &ResolvConf) -> Viewpoint {
    let namespace = metadata(bootstrap, "NAMESPACE").to_owned();
    // The last part of the node id is <namespace>.svc.<domain>.
    let domain = bootstrap.node.id.rsplit('~').next().and_then(|own| own.split_once('.')).map_or("", |(_, rest)| rest);
    Viewpoint { namespace, service_domain: domain.to_owned(), search: conf.search.clone() }
}

fn metadata<'a>(bootstrap: &'a Bootstrap, name: &str) -> &'a str {
    let value = bootstrap.node.metadata.as_ref().and_then(|metadata| metadata.fields.get(name)?.kind.as_ref());
    match value {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

/// A new table whenever it is another one; a broken one leaves the last in use.
async fn follow(mut store: watch::Receiver<Store>, table: watch::Sender<Option<Arc<Names>>>, view: Viewpoint) {
    let mut last = Last::default();
    loop {
        let held = store.borrow_and_update().of(Kind::NameTable).next().cloned();
        if let Some(held) = held.filter(|held| last.is_another(&held.resource.body)) {
            match NameTable::decode(held.resource.body.as_ref()) {
                Ok(found) => {
                    let names = Names::new(&found, &view);
                    tracing::debug!(names = names.len(), "name table taken over");
                    table.send_replace(Some(Arc::new(names)));
                }
                Err(error) => tracing::warn!(%error, "name table refused, the last one stays in use"),
            }
        }
        if store.changed().await.is_err() {
            return;
        }
    }
}

/// The encoded table that was looked at last. Its version does not tell whether it changed: istiod gives it none.
#[derive(Debug, Default)]
struct Last(Option<Bytes>);

impl Last {
    /// Whether this is another table than the last one, which it is from now on.
    fn is_another(&mut self, body: &Bytes) -> bool {
        let another = self.0.as_ref() != Some(body);
        self.0 = Some(body.clone());
        another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: DN-1
    #[test]
    fn a_table_is_another_one_by_what_is_in_it() {
        let mut last = Last::default();
        let [one, other] = ["one", "other"].map(|text| Bytes::from_static(text.as_bytes()));
        let seen = [&one, &one, &other, &other, &one].map(|body| last.is_another(body));
        assert_eq!(seen, [true, false, true, false, true]);
        assert!(Last::default().is_another(&Bytes::new()), "the first one, even if it is empty");
    }
}
