//! A delta client that costs little: of a response it reads names and versions, and copies nothing.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use proto::envoy::core::Node;
use proto::envoy::discovery::DeltaDiscoveryRequest;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// What is read of a `DeltaDiscoveryResponse`.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) type_url: String,
    pub(crate) nonce: String,
    /// Names and versions.
    pub(crate) resources: Vec<(String, String)>,
    /// Size of the whole in bytes.
    pub(crate) size: usize,
}

/// The length-delimited fields of a message by number.
fn fields(mut message: Bytes, mut take: impl FnMut(u32, Bytes)) {
    while message.has_remaining() {
        let (number, kind) = decode_key(&mut message).unwrap();
        assert_eq!(kind, WireType::LengthDelimited);
        let length = decode_varint(&mut message).unwrap() as usize;
        take(number, message.split_to(length));
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Response {
    fn read(message: Bytes) -> Self {
        let mut response = Self { size: message.len(), ..Self::default() };
        fields(message, |number, value| match number {
            2 => {
                let (mut name, mut version) = (String::new(), String::new());
                fields(value, |number, value| match number {
                    1 => version = text(&value),
                    3 => name = text(&value),
                    _ => {}
                });
                response.resources.push((name, version));
            }
            4 => response.type_url = text(&value),
            5 => response.nonce = text(&value),
            _ => {}
        });
        response
    }
}

#[derive(Default)]
struct LightCodec;

impl Encoder for LightCodec {
    type Item = DeltaDiscoveryRequest;
    type Error = Status;
    fn encode(&mut self, request: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for LightCodec {
    type Item = Response;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let length = buffer.remaining();
        Ok(Some(Response::read(buffer.copy_to_bytes(length))))
    }
}

impl Codec for LightCodec {
    type Encode = DeltaDiscoveryRequest;
    type Decode = Response;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

/// The client.
pub(crate) struct Light {
    node: Option<Node>,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<Response>,
}

impl Light {
    pub(crate) async fn connect(channel: Channel, node: Node) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(256 * 1024 * 1024);
        grpc.ready().await.unwrap();
        let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
        let stream = tonic::Request::new(UnboundedReceiverStream::new(receiver));
        let responses = grpc.streaming(stream, path.parse().unwrap(), LightCodec).await.unwrap();
        Self { node: Some(node), requests, responses: responses.into_inner() }
    }

    pub(crate) fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        self.requests.send(request).unwrap();
    }

    /// The next response, acknowledged.
    pub(crate) async fn next(&mut self) -> Response {
        let next = tokio::time::timeout(crate::support::PATIENCE, self.responses.message()).await;
        let response = next.expect("no response came").unwrap().expect("the stream ended");
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        });
        response
    }

    /// Subscribes, and takes the answer in.
    pub(crate) async fn ask(&mut self, type_url: &str, names: impl Iterator<Item = String>) -> Response {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.collect(),
            ..DeltaDiscoveryRequest::default()
        });
        self.next().await
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.responses.message()).await.is_err()
    }
}
