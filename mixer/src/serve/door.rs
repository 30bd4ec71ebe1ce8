//! mixer's doors: who gets in at which address, and who it is that got in.
//!
//! With a certificate of its own mixer takes reports and questions from workloads of the mesh alone; without one (a mesh
//! on one machine, or behind a sidecar) it takes them in plain text. Pages are for people and for Prometheus, who have no
//! certificate.

use crate::args::IdentityArgs;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use credentials::Credentials;
use credentials::accept::{Connection, Door, Peer, Trust, accept};
use identity::san::SanMatch;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use vitals::admin;

/// What all doors have in common.
#[derive(Debug, Clone)]
pub struct Doors {
    trust: Option<Trust>,
}

impl Doors {
    /// Enrols, where the flags say so.
    ///
    /// # Errors
    /// Where a flag cannot be used.
    pub fn new(args: &IdentityArgs) -> anyhow::Result<Self> {
        let Some(config) = args.config()? else { return Ok(Self { trust: None }) };
        let accept = SanMatch::trust_domains(config.identity.trust_domain(), &args.aliases()?);
        let (sender, held) = watch::channel(None);
        tokio::spawn(credentials::keep_fresh(config, sender, Arc::default()));
        Ok(Self { trust: Some(Trust { held, accept }) })
    }

    /// The door for workloads.
    pub fn services(&self) -> Door {
        self.trust.clone().map_or(Door::Plain, Door::Strict)
    }

    /// The door for people.
    pub fn pages(&self) -> Door {
        self.trust.clone().map_or(Door::Plain, Door::Permissive)
    }

    /// mixer's own certificate of the moment; nothing where it does not enrol.
    pub fn held(&self) -> Option<watch::Receiver<Option<Arc<Credentials>>>> {
        self.trust.as_ref().map(|trust| trust.held.clone())
    }

    /// Becomes true once mixer has what it needs to let clients in.
    pub fn ready(&self) -> watch::Receiver<bool> {
        let Some(trust) = self.trust.clone() else { return watch::channel(true).1 };
        let (ready, is_ready) = watch::channel(false);
        tokio::spawn(async move {
            let mut held = trust.held;
            ready.send_replace(held.wait_for(Option::is_some).await.is_ok());
            ready.closed().await;
        });
        is_ready
    }
}

/// The connections at an address.
pub struct Doorway {
    connections: ReceiverStream<std::io::Result<Connection>>,
    local: SocketAddr,
}

/// Binds an address and opens it; `None` for an empty one.
///
/// # Errors
/// When the address is taken.
pub async fn open(address: &str, door: Door) -> anyhow::Result<Option<Doorway>> {
    if address.is_empty() {
        return Ok(None);
    }
    let (listener, local): (TcpListener, SocketAddr) = admin::bind(address).await?;
    Ok(Some(Doorway { connections: accept(listener, door), local }))
}

impl Doorway {
    /// Its address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Its connections, for tonic.
    pub fn connections(self) -> ReceiverStream<std::io::Result<Connection>> {
        self.connections
    }
}

/// A client over HTTP, for handlers.
#[derive(Debug, Clone)]
pub struct Client(pub Peer);

impl Listener for Doorway {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            match self.connections.next().await {
                Some(Ok(connection)) => {
                    let peer = connection.peer().clone();
                    return (connection, peer);
                }
                Some(Err(error)) => tracing::warn!(%error, "connection failed"),
                // The task that accepts never ends before its reader.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        Ok(Peer::unproven(self.local))
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Client {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Self {
        Self(stream.remote_addr().clone())
    }
}

/// The caller of a gRPC method.
///
/// # Errors
/// Where the connection came by no door of mixer's.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Result<Peer, tonic::Status> {
    request.extensions().get().cloned().ok_or_else(|| tonic::Status::internal("the caller is not known"))
}
