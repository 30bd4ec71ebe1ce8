//! A gRPC stream to one server, kept up for as long as the process runs.

use super::{Flavour, Kind, Origin, Request, Resource};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use proto::envoy::cluster::Cluster;
use proto::envoy::core::{Address, GrpcService, TransportSocket, address, socket_address};
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::discovery::{DeltaDiscoveryResponse, DiscoveryResponse};
use proto::envoy::endpoint::lb_endpoint::HostIdentifier;
use proto::envoy::secret_service::secret_discovery_service_client::SecretDiscoveryServiceClient;
use rustls_pki_types::ServerName;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// First wait; it doubles with every attempt that got no answer.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Requests that may wait for the stream; more means that it is stuck.
pub(super) const REQUEST_QUEUE: usize = 1024;
/// Largest response that is accepted, in bytes.
const RESPONSE_MAX_BYTES: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stream, a file or a caller tells the feed.
#[derive(Debug)]
pub(super) enum Event {
    Up(Origin, mpsc::Sender<Request>),
    Down(Origin),
    Delta(Origin, Box<DeltaDiscoveryResponse>),
    Sotw(Origin, Box<DiscoveryResponse>),
    File(Arc<str>, Kind, Box<DiscoveryResponse>),
    Demand(Kind, Arc<str>),
    Local(Kind, Arc<Resource>),
}

/// How to speak TLS to a server: from the transport socket of its cluster, made anew for each connection so that a
/// renewed certificate is used.
pub type TlsFor = Arc<
    dyn Fn(&TransportSocket) -> Result<(Arc<rustls::ClientConfig>, Option<ServerName<'static>>), String> + Send + Sync,
>;

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetAddress {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A server as the bootstrap describes it.
#[derive(Clone)]
pub struct Target {
    /// Where it may be; tried in random order.
    pub addresses: Vec<TargetAddress>,
    /// The transport socket of its cluster, if that is not plain text.
    pub tls: Option<TransportSocket>,
    /// The `:authority` of the stream.
    pub authority: String,
    /// Metadata of the stream.
    pub metadata: Vec<(String, String)>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // without the metadata, which may hold a token
        f.debug_struct("Target")
            .field("addresses", &self.addresses)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// The server that a gRPC service of the bootstrap names.
    ///
    /// # Errors
    /// What the service or its cluster lacks, with the path of the field.
    pub fn of(service: &GrpcService, clusters: &[Cluster]) -> Result<Self, String> {
        use proto::envoy::core::grpc_service::TargetSpecifier;
        let Some(TargetSpecifier::EnvoyGrpc(grpc)) = &service.target_specifier else {
            return Err("grpc_services: an envoy_grpc is needed; not supported yet: google_grpc".to_owned());
        };
        let mut target = Self::of_cluster(&grpc.cluster_name, clusters)?;
        if !grpc.authority.is_empty() {
            target.authority.clone_from(&grpc.authority);
        }
        target.metadata =
            service.initial_metadata.iter().map(|h| (h.key.to_ascii_lowercase(), h.value.clone())).collect();
        Ok(target)
    }

    /// The server behind a static cluster.
    ///
    /// # Errors
    /// What the cluster lacks.
    pub fn of_cluster(name: &str, clusters: &[Cluster]) -> Result<Self, String> {
        let cluster = clusters
            .iter()
            .find(|cluster| cluster.name == name)
            .ok_or_else(|| format!("static_resources.clusters has no {name}, which the control plane is reached by"))?;
        let endpoints = cluster.load_assignment.iter().flat_map(|load| &load.endpoints).flat_map(|l| &l.lb_endpoints);
        let addresses: Vec<TargetAddress> = endpoints
            .filter_map(|endpoint| match &endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => address_of(endpoint.address.as_ref()?),
                _ => None,
            })
            .collect();
        if addresses.is_empty() {
            return Err(format!("cluster {name}: load_assignment has no socket_address and no pipe"));
        }
        let is_plain =
            |socket: &TransportSocket| socket.name.is_empty() || socket.name == "envoy.transport_sockets.raw_buffer";
        let tls = cluster.transport_socket.clone().filter(|socket| !is_plain(socket));
        Ok(Self { addresses, tls, authority: name.to_owned(), metadata: Vec::new() })
    }
}

fn address_of(address: &Address) -> Option<TargetAddress> {
    match address.address.as_ref()? {
        address::Address::SocketAddress(socket) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => {
                Some(TargetAddress::Tcp(socket.address.clone(), u16::try_from(port).ok()?))
            }
            _ => None,
        },
        address::Address::Pipe(pipe) => Some(TargetAddress::Unix(PathBuf::from(&pipe.path))),
        _ => None,
    }
}

/// A stream to be kept up.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) origin: Origin,
    pub(super) flavour: Flavour,
    pub(super) target: Target,
    pub(super) tls: TlsFor,
    pub(super) events: mpsc::Sender<Event>,
}

impl Link {
    /// Connects again and again, until nobody listens to the events.
    pub(super) async fn run(self) {
        let mut attempts = 0u32;
        loop {
            let heard = match Box::pin(self.attempt()).await {
                Ok(heard) => heard,
                Err(failure) => {
                    tracing::warn!(origin = ?self.origin, error = %failure.why, "control plane stream ended");
                    failure.heard
                }
            };
            if self.events.send(Event::Down(self.origin.clone())).await.is_err() {
                return;
            }
            attempts = if heard { 0 } else { attempts.saturating_add(1) };
            tokio::time::sleep(backoff(attempts)).await;
        }
    }

    /// One stream, from connecting to its end; says whether the server answered at all.
    async fn attempt(&self) -> Result<bool, Failure> {
        let silent = |why: String| Failure { heard: false, why };
        let channel = self.connect().await.map_err(silent)?;
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        if self.events.send(Event::Up(self.origin.clone(), requests)).await.is_err() {
            return Ok(false);
        }
        match self.flavour {
            Flavour::Delta => self.delta(channel, queue).await,
            Flavour::Sotw => self.sotw(channel, queue).await,
        }
    }

    async fn delta(&self, channel: Channel, queue: mpsc::Receiver<Request>) -> Result<bool, Failure> {
        let outgoing = stream::unfold(queue, |mut queue| async move {
            match queue.recv().await? {
                Request::Delta(request) => Some((*request, queue)),
                Request::Sotw(_) => None,
            }
        });
        let request = self.with_metadata(outgoing);
        let answered = if self.origin == Origin::Ads {
            let mut client =
                AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
            client.delta_aggregated_resources(request).await
        } else {
            let mut client = SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
            client.delta_secrets(request).await
        };
        self.forward(answered, |origin, response| Event::Delta(origin, Box::new(response))).await
    }

    async fn sotw(&self, channel: Channel, queue: mpsc::Receiver<Request>) -> Result<bool, Failure> {
        let outgoing = stream::unfold(queue, |mut queue| async move {
            match queue.recv().await? {
                Request::Sotw(request) => Some((*request, queue)),
                Request::Delta(_) => None,
            }
        });
        let request = self.with_metadata(outgoing);
        let answered = if self.origin == Origin::Ads {
            let mut client =
                AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
            client.stream_aggregated_resources(request).await
        } else {
            let mut client = SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(RESPONSE_MAX_BYTES);
            client.stream_secrets(request).await
        };
        self.forward(answered, |origin, response| Event::Sotw(origin, Box::new(response))).await
    }

    async fn forward<T>(
        &self,
        answered: Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>,
        event: impl Fn(Origin, T) -> Event,
    ) -> Result<bool, Failure> {
        let mut heard = false;
        let mut incoming = answered.map_err(|status| Failure { heard, why: describe(&status) })?.into_inner();
        while let Some(response) =
            incoming.message().await.map_err(|status| Failure { heard, why: describe(&status) })?
        {
            heard = true;
            if self.events.send(event(self.origin.clone(), response)).await.is_err() {
                break;
            }
        }
        Ok(heard)
    }

    fn with_metadata<S>(&self, outgoing: S) -> tonic::Request<S> {
        let mut request = tonic::Request::new(outgoing);
        for (name, value) in &self.target.metadata {
            match (MetadataKey::from_bytes(name.as_bytes()), value.parse::<MetadataValue<_>>()) {
                (Ok(name), Ok(value)) => drop(request.metadata_mut().insert(name, value)),
                _ => tracing::warn!(name, "initial_metadata is no valid header"),
            }
        }
        request
    }

    async fn connect(&self) -> Result<Channel, String> {
        // an authority that is no host name, as outbound|80||a, would be refused by the URI
        let named = Endpoint::from_shared(format!("http://{}", self.target.authority));
        let endpoint = named.unwrap_or_else(|_| Endpoint::from_static("http://control-plane"));
        let (target, tls) = (self.target.clone(), self.tls.clone());
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(tower::service_fn(move |_: http::Uri| {
                let (target, tls) = (target.clone(), tls.clone());
                async move { dial(target, tls).await.map(TokioIo::new).map_err(std::io::Error::other) }
            }))
            .await
            .map_err(|error| chain(&error))
    }
}

struct Failure {
    heard: bool,
    why: String,
}

fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An error with all of its causes: tonic's own text says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Full jitter in the upper half, doubling up to [`BACKOFF_MAX`].
fn backoff(attempts: u32) -> Duration {
    let most = BACKOFF_BASE.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

async fn dial(target: Target, tls: TlsFor) -> Result<Box<dyn Bytes>, String> {
    let mut addresses = target.addresses.clone();
    fastrand::shuffle(&mut addresses);
    let mut failure = "no address".to_owned();
    for address in &addresses {
        let connected = match address {
            TargetAddress::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Bytes>),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            TargetAddress::Tcp(host, port) => match TcpStream::connect((host.as_str(), *port)).await {
                Ok(stream) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    Ok(Box::new(stream) as Box<dyn Bytes>)
                }
                Err(error) => Err(format!("{host}:{port}: {error}")),
            },
        };
        match connected {
            Ok(stream) => return encrypt(stream, &target, address, &tls).await,
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

async fn encrypt(
    stream: Box<dyn Bytes>,
    target: &Target,
    address: &TargetAddress,
    tls: &TlsFor,
) -> Result<Box<dyn Bytes>, String> {
    let Some(socket) = &target.tls else { return Ok(stream) };
    let (config, name) = tls(socket)?;
    let fallback = match address {
        TargetAddress::Tcp(host, _) => host.clone(),
        TargetAddress::Unix(_) => target.authority.clone(),
    };
    let name = match name {
        Some(name) => name,
        None => ServerName::try_from(fallback).map_err(|error| format!("server name: {error}"))?,
    };
    let connected = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    connected.map(|stream| Box::new(stream) as Box<dyn Bytes>).map_err(|error| format!("TLS: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NI-4
    #[test]
    fn the_target_of_the_bootstrap_is_found() {
        let cluster: Cluster = decode(
            "envoy.config.cluster.v3.Cluster",
            serde_json::json!({"name": "xds-grpc", "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": "./etc/istio/proxy/XDS"}}}},
                {"endpoint": {"address": {"socket_address": {"address": "istiod", "port_value": 15010}}}}]}]}}),
        );
        let service: GrpcService = decode(
            "envoy.config.core.v3.GrpcService",
            serde_json::json!({"envoy_grpc": {"cluster_name": "xds-grpc"}, "initial_metadata": [{"key": "Authorization", "value": "x"}]}),
        );
        let target = Target::of(&service, std::slice::from_ref(&cluster)).unwrap();
        let expected =
            [TargetAddress::Unix("./etc/istio/proxy/XDS".into()), TargetAddress::Tcp("istiod".into(), 15010)];
        assert_eq!(target.addresses, expected);
        assert_eq!(target.metadata, [("authorization".to_owned(), "x".to_owned())]);
        assert!(!format!("{target:?}").contains("authorization"), "a token is not logged");
        assert!(Target::of(&service, &[]).unwrap_err().contains("no xds-grpc"));
    }

    fn decode<M: prost::Message + Default>(name: &str, json: serde_json::Value) -> M {
        M::decode(proto::json::from_value(name, &json).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn backoff_grows_with_jitter_and_ends_at_two_seconds() {
        for attempts in 0..40 {
            let wait = backoff(attempts);
            assert!(wait <= BACKOFF_MAX && wait >= BACKOFF_BASE / 2, "{attempts}: {wait:?}");
        }
        assert!(backoff(0) <= BACKOFF_BASE && backoff(10) >= BACKOFF_MAX / 2);
    }
}
