//! The gRPC service: the body of each response drives a session (XD-2, XD-4, PI-26, PI-31).

use super::access::{Access, REVIEW_AGE};
use super::authenticate::{Authenticator, Caller};
use super::codec::FrameCodec;
use super::frame::Frame;
use super::session::{Grant, Protocol, Session};
use crate::delivery::metrics::{Metrics, label};
use crate::delivery::progress::Reports;
use crate::delivery::{Command, HubHandle};
use crate::translate::Node;
use crate::translate::cache::ResourceType;
use proto::envoy::core::Node as WireNode;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::Interval;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};

/// Responses that may wait for the network; beyond, a stream takes no new snapshot, and they merge.
const WAITING: usize = 8;
/// Largest request (XI-3).
const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`.
#[derive(Clone)]
pub struct Ads {
    hub: HubHandle,
    authenticator: Authenticator,
    access: Access,
    metrics: Metrics,
    max_age: Option<Duration>,
}

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

/// The two forms of a request.
trait Asked: prost::Message + Default + Send + 'static {
    const PROTOCOL: Protocol;
    fn node(&self) -> Option<&WireNode>;
    fn type_url(&self) -> &str;
    fn nonce(&self) -> &str;
    fn is_refusal(&self) -> bool;
    fn handle(&self, session: &mut Session, kind: ResourceType) -> Vec<Frame>;
}

impl Asked for DeltaDiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::Delta;
    fn node(&self) -> Option<&WireNode> {
        self.node.as_ref()
    }
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.response_nonce
    }
    fn is_refusal(&self) -> bool {
        self.error_detail.is_some()
    }
    fn handle(&self, session: &mut Session, kind: ResourceType) -> Vec<Frame> {
        session.handle_delta(kind, self)
    }
}

impl Asked for DiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;
    fn node(&self) -> Option<&WireNode> {
        self.node.as_ref()
    }
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.response_nonce
    }
    fn is_refusal(&self) -> bool {
        self.error_detail.is_some()
    }
    fn handle(&self, session: &mut Session, kind: ResourceType) -> Vec<Frame> {
        session.handle_state_of_the_world(kind, self)
    }
}

impl Ads {
    /// A service that serves what the hub publishes to those that the authenticator admits, and secrets to those that have
    /// access to them. A stream ends after `max_age` and up to a tenth more, where there is one: its client finds a pilot anew.
    pub fn new(
        hub: HubHandle,
        authenticator: Authenticator,
        access: Access,
        metrics: Metrics,
        max_age: Option<Duration>,
    ) -> Self {
        Self { hub, authenticator, access, metrics, max_age }
    }

    async fn open<R: Asked>(&self, request: Request<Streaming<R>>) -> Result<Response<Responses>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let caller = self.authenticator.identify(&metadata, &extensions).await?;
        if !*self.hub.ready().borrow() {
            return Err(Status::unavailable("pilot has not taken in its objects yet: try again"));
        }
        let (frames, ready) = mpsc::channel(WAITING);
        let stream = Stream { ads: self.clone(), frames };
        let session = Box::pin(async move {
            if let Err(status) = stream.run(requests, caller).await {
                tracing::info!(code = ?status.code(), "stream refused: {}", status.message());
                if matches!(status.code(), Code::Internal | Code::Unknown) {
                    stream.ads.metrics.internal_errors.inc();
                }
                // Who is gone need not be told.
                stream.frames.send(Err(status)).await.unwrap_or_default();
            }
        });
        Ok(Response::new(Responses { session: Some(session), ready }))
    }
}

/// The body of a response. Who polls it drives the session: a change reaches the wire without a task in between, and a
/// session ends with its stream, wherever it waits.
struct Responses {
    session: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ready: mpsc::Receiver<Result<Frame, Status>>,
}

impl tokio_stream::Stream for Responses {
    type Item = Result<Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(frame) = self.ready.poll_recv(context) {
            return Poll::Ready(frame);
        }
        if let Some(session) = &mut self.session
            && session.as_mut().poll(context).is_ready()
        {
            self.session = None;
        }
        self.ready.poll_recv(context)
    }
}

struct Stream {
    ads: Ads,
    frames: mpsc::Sender<Result<Frame, Status>>,
}

/// Takes a node off the list when its stream ends, however it ends.
struct Membership {
    hub: HubHandle,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let (hub, id) = (self.hub.clone(), self.id);
        tokio::spawn(async move { hub.tell(Command::Disconnect(id)).await });
    }
}

/// What a caller may have, looked at again and again once it asked.
struct Watch {
    caller: Caller,
    again: Option<Interval>,
}

impl Watch {
    /// The next time to look has come. Cancel-safe.
    async fn due(&mut self) {
        match &mut self.again {
            Some(again) => drop(again.tick().await),
            None => std::future::pending().await,
        }
    }
}

impl Stream {
    async fn run<R: Asked>(&self, mut requests: Streaming<R>, caller: Caller) -> Result<(), Status> {
        let age = aged(self.ads.max_age);
        tokio::pin!(age);
        let first = tokio::select! {
            () = &mut age => None,
            first = requests.message() => first?,
        };
        let Some(first) = first else { return Ok(()) };
        let node = first.node().ok_or_else(|| Status::invalid_argument("missing node information"))?;
        let node = Node::parse(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        caller.admit(&node)?;
        let name: Arc<str> = node.id.as_str().into();
        let connection = self.ads.hub.ask(|answer| Command::Connect(Box::new(node), answer)).await;
        let connection = connection.ok_or_else(|| Status::unavailable("pilot is stopping"))?;
        let _membership = Membership { hub: self.ads.hub.clone(), id: connection.id };
        let (progress, offered) = (connection.progress, connection.offered);
        tracing::info!(node = %name, protocol = ?R::PROTOCOL, "connected");
        let mut snapshots = connection.snapshots;
        let current = snapshots.borrow_and_update().clone();
        offered.store(current.number, Ordering::Relaxed);
        let mut session = Session::new(R::PROTOCOL, fastrand::u64(..), current);
        let mut access = Watch { caller, again: None };
        self.review(&mut session, &mut access, &first, &name).await;
        self.answer(&mut session, &progress, &first, &name).await?;
        loop {
            tokio::select! {
                () = &mut age => break,
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        self.review(&mut session, &mut access, &request, &name).await;
                        self.answer(&mut session, &progress, &request, &name).await?;
                    }
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(node = %name, "stream broke: {status}");
                        break;
                    }
                },
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("pilot is stopping"));
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    let begun = Instant::now();
                    let frames = session.offer(&snapshot);
                    self.send(&session, &progress, frames, begun).await;
                    offered.store(snapshot.number, Ordering::Relaxed);
                }
                () = access.due() => {
                    let grant = self.ads.access.grant(&access.caller).await;
                    let begun = Instant::now();
                    let frames = session.regrant(grant);
                    self.send(&session, &progress, frames, begun).await;
                }
            }
        }
        tracing::info!(node = %name, "disconnected");
        Ok(())
    }

    /// Who asks for secrets is looked at, once and then again and again; who does not costs nothing.
    async fn review<R: Asked>(&self, session: &mut Session, access: &mut Watch, request: &R, node: &str) {
        if access.again.is_some() || request.type_url() != ResourceType::Secret.type_url() {
            return;
        }
        let grant = self.ads.access.grant(&access.caller).await;
        if grant == Grant::Nothing {
            tracing::warn!(
                node,
                "asks for secrets, which are for proxies that prove who they are: over TLS, with a certificate or a token"
            );
        }
        session.regrant(grant);
        let mut again = tokio::time::interval(REVIEW_AGE);
        again.reset();
        access.again = Some(again);
    }

    async fn answer<R: Asked>(
        &self,
        session: &mut Session,
        progress: &Reports,
        request: &R,
        node: &str,
    ) -> Result<(), Status> {
        let Some(kind) = ResourceType::parse(request.type_url()) else {
            tracing::debug!(node, type_url = request.type_url(), "a type that is not served");
            return Ok(());
        };
        let last = session.progress(kind).map(|progress| progress.sent);
        if !request.nonce().is_empty() && last.is_some_and(|sent| sent != request.nonce()) {
            self.ads.metrics.expired_nonces.inc();
        }
        let begun = Instant::now();
        let frames = request.handle(session, kind);
        if request.is_refusal() {
            self.ads.metrics.rejects.with_label_values(&[label(kind)]).inc();
            if let Some(nack) = session.progress(kind).and_then(|progress| progress.nack) {
                tracing::warn!(node, kind = ?kind, code = nack.code, "refused by the proxy: {}", nack.message);
            }
        }
        if frames.is_empty() {
            report(session, progress, kind);
        }
        self.send(session, progress, frames, begun).await;
        Ok(())
    }

    async fn send(&self, session: &Session, progress: &Reports, frames: Vec<Frame>, begun: Instant) {
        for frame in frames {
            let (kind, bytes, offered) = (frame.kind, frame.len(), Instant::now());
            if self.frames.send(Ok(frame)).await.is_err() {
                return;
            }
            self.ads.metrics.count_response(kind, bytes, (begun, offered));
            report(session, progress, kind);
        }
    }
}

/// Says how far the client is; nobody is woken by it.
fn report(session: &Session, reports: &Reports, kind: ResourceType) {
    if let Some(progress) = session.progress(kind) {
        reports.send_modify(|all| drop(all.insert(kind, progress)));
    }
}

/// Waits for the end of a stream's age, which differs so that not all proxies come back at once.
async fn aged(max: Option<Duration>) {
    match max {
        Some(age) => tokio::time::sleep(age.mul_f64(1.0 + fastrand::f64() / 10.0)).await,
        None => std::future::pending().await,
    }
}

struct Method(Ads);

impl<R: Asked> StreamingService<R> for Method {
    type Response = Frame;
    type ResponseStream = Responses;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<R>>) -> Self::Future {
        let ads = self.0.clone();
        Box::pin(async move { ads.open(request).await })
    }
}

impl<B> Service<http::Request<B>> for Ads
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = Method(self.clone());
        let name = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            let response = match name.as_str() {
                "DeltaAggregatedResources" => {
                    let codec = FrameCodec::<DeltaDiscoveryRequest>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
                    grpc.streaming(method, request).await
                }
                "StreamAggregatedResources" => {
                    let codec = FrameCodec::<DiscoveryRequest>::default();
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
                    grpc.streaming(method, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            };
            Ok(response)
        })
    }
}
