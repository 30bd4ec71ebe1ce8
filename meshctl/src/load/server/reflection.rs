//! gRPC server reflection: tells clients what ping and health are, so that `grpcurl` and `-grpc-method` need no files.

use super::super::grpc::{HEALTH_NAMES, frame, unframe};
use super::super::reflection::{
    Files, PATHS, ReflectionError, ReflectionRequest, ReflectionResponse, Service, Services,
};
use super::echo::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    MethodDescriptorProto, ServiceDescriptorProto,
};

/// Most bytes of requests that are waiting for their rest.
const MAX_PENDING: usize = 64 << 10;
/// gRPC's status for what is not there.
const NOT_FOUND: i32 = 5;

/// Whether a request is one for reflection.
pub fn is_asked(path: &str) -> bool {
    PATHS.contains(&path)
}

/// Answers each question of the stream as it comes.
pub fn answer(request: Request<Incoming>) -> Response<Body> {
    let (sender, body) = Channel::<Bytes, hyper::Error>::new(1);
    tokio::spawn(converse(request.into_body(), sender));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Ends when the client does, or is gone, or sends what is no question.
async fn converse(mut questions: Incoming, mut answers: Sender<Bytes, hyper::Error>) {
    let mut pending = BytesMut::new();
    while let Some(Ok(part)) = questions.frame().await {
        let Some(data) = part.data_ref() else { continue };
        pending.extend_from_slice(data);
        if pending.len() > MAX_PENDING {
            return;
        }
        while let Some(size) = whole_frame(&pending) {
            let question = unframe(&pending.split_to(size).freeze()).ok();
            let Some(question) = question.and_then(|bytes| ReflectionRequest::decode(bytes).ok()) else { return };
            let Ok(framed) = frame(&reply(question).encode_to_vec(), false) else { return };
            if answers.send_data(framed).await.is_err() {
                return;
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    drop(answers.send_trailers(trailers).await); // the client is gone
}

/// Bytes of the first frame, if all of it is there.
fn whole_frame(pending: &BytesMut) -> Option<usize> {
    let head: [u8; 4] = pending.get(1..5)?.try_into().ok()?;
    let size = 5 + u32::from_be_bytes(head) as usize;
    (pending.len() >= size).then_some(size)
}

fn reply(question: ReflectionRequest) -> ReflectionResponse {
    let files = [ping_file(), health_file()];
    let mut response = ReflectionResponse { original_request: Some(question.clone()), ..Default::default() };
    let defines = |file: &FileDescriptorProto, symbol: &str| {
        let Some(local) = symbol.strip_prefix(file.package()).and_then(|rest| rest.strip_prefix('.')) else {
            return false;
        };
        let first = local.split('.').next();
        file.service.iter().any(|service| service.name.as_deref() == first)
            || file.message_type.iter().any(|message| message.name.as_deref() == first)
    };
    let found = match (&question.file_by_filename, &question.file_containing_symbol) {
        (Some(name), _) => files.iter().find(|file| file.name() == name),
        (_, Some(symbol)) => files.iter().find(|file| defines(file, symbol)),
        _ => None,
    };
    if question.list_services.is_some() {
        let of = |file: &FileDescriptorProto| {
            let names = file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()));
            names.map(|name| Service { name }).collect::<Vec<_>>()
        };
        response.services = Some(Services { service: files.iter().flat_map(of).collect() });
    } else if let Some(file) = found {
        response.files = Some(Files { encoded: vec![file.encode_to_vec()] });
    } else {
        response.error = Some(ReflectionError { code: NOT_FOUND, message: "no such file or symbol".to_owned() });
    }
    response
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..Default::default() }
}

fn service(name: &str, method: &str, input: &str, output: &str) -> ServiceDescriptorProto {
    let method = MethodDescriptorProto {
        name: Some(method.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(output.to_owned()),
        ..Default::default()
    };
    ServiceDescriptorProto { name: Some(name.to_owned()), method: vec![method], ..Default::default() }
}

fn ping_file() -> FileDescriptorProto {
    let fields = vec![
        field("seq", 1, Type::Int64),
        field("ts", 2, Type::Int64),
        field("payload", 3, Type::String),
        field("delayNanos", 4, Type::Int64),
    ];
    FileDescriptorProto {
        name: Some("ping.proto".to_owned()),
        package: Some("fgrpc".to_owned()),
        message_type: vec![message("PingMessage", fields)],
        service: vec![service("PingServer", "Ping", ".fgrpc.PingMessage", ".fgrpc.PingMessage")],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn health_file() -> FileDescriptorProto {
    let values = (0_i32..).zip(HEALTH_NAMES).map(|(number, name)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        options: None,
    });
    let status =
        EnumDescriptorProto { name: Some("ServingStatus".to_owned()), value: values.collect(), ..Default::default() };
    let mut response = message("HealthCheckResponse", vec![field("status", 1, Type::Enum)]);
    response.field.iter_mut().for_each(|field| {
        field.type_name = Some(".grpc.health.v1.HealthCheckResponse.ServingStatus".to_owned());
    });
    response.enum_type = vec![status];
    let (input, output) = (".grpc.health.v1.HealthCheckRequest", ".grpc.health.v1.HealthCheckResponse");
    FileDescriptorProto {
        name: Some("grpc/health/v1/health.proto".to_owned()),
        package: Some("grpc.health.v1".to_owned()),
        message_type: vec![message("HealthCheckRequest", vec![field("service", 1, Type::String)]), response],
        service: vec![service("Health", "Check", input, output)],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}
