//! gRPC server reflection, from the client's side: what a method takes, asked of the server itself.

use super::grpc::GrpcClient;
use anyhow::Context;
use bytes::Bytes;
use prost::Message;
use prost_types::FileDescriptorProto;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Paths of the service, the current one first.
pub const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Most files that are asked for: a schema of more is no schema to load by hand.
const MAX_FILES: usize = 500;

/// `grpc.reflection.v1.ServerReflectionRequest`; exactly one field is set.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReflectionRequest {
    /// Ask for the file of this name.
    #[prost(string, optional, tag = "3")]
    pub file_by_filename: Option<String>,
    /// Ask for the file that has this service, method or message.
    #[prost(string, optional, tag = "4")]
    pub file_containing_symbol: Option<String>,
    /// Ask for the names of all services.
    #[prost(string, optional, tag = "7")]
    pub list_services: Option<String>,
}

/// `grpc.reflection.v1.ServerReflectionResponse`; one of the last three is set.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReflectionResponse {
    /// The request, again.
    #[prost(message, optional, tag = "2")]
    pub original_request: Option<ReflectionRequest>,
    /// Files, each an encoded `FileDescriptorProto`.
    #[prost(message, optional, tag = "4")]
    pub files: Option<Files>,
    /// Names of services.
    #[prost(message, optional, tag = "6")]
    pub services: Option<Services>,
    /// Why there is no answer.
    #[prost(message, optional, tag = "7")]
    pub error: Option<ReflectionError>,
}

/// `grpc.reflection.v1.FileDescriptorResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Files {
    /// Encoded `FileDescriptorProto`s.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub encoded: Vec<Vec<u8>>,
}

/// `grpc.reflection.v1.ListServiceResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Services {
    /// Services.
    #[prost(message, repeated, tag = "1")]
    pub service: Vec<Service>,
}

/// `grpc.reflection.v1.ServiceResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Service {
    /// Full name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `grpc.reflection.v1.ErrorResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReflectionError {
    /// gRPC status.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What is wrong.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The message that a method (`package.Service/Method`) takes, made of JSON; an empty one of an empty text.
///
/// # Errors
/// Where the server has no reflection or no such method, the method streams, or the JSON does not fit.
pub async fn message(client: &mut GrpcClient, method: &str, json: &str) -> anyhow::Result<Bytes> {
    let (service, name) = method
        .trim_start_matches('/')
        .split_once('/')
        .with_context(|| format!("-grpc-method {method:?}: write package.Service/Method"))?;
    let files = schema(client, service).await.with_context(|| format!("cannot ask the server what {service} is"))?;
    let value: Value = match json.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => serde_json::from_str(text).context("-payload is no JSON, which -grpc-method needs")?,
    };
    let encoded =
        proto::json::request(&files, service, name, &value).with_context(|| format!("-grpc-method {method}"))?;
    Ok(encoded.into())
}

/// The file of a service and all that it imports, each before those that import it.
async fn schema(client: &mut GrpcClient, service: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut known: BTreeMap<String, (Vec<String>, Vec<u8>)> = BTreeMap::new();
    let mut wanted = vec![ReflectionRequest { file_containing_symbol: Some(service.to_owned()), ..Default::default() }];
    let mut path = None;
    while let Some(request) = wanted.pop() {
        for encoded in ask(client, &mut path, &request).await? {
            let file = FileDescriptorProto::decode(encoded.as_slice())?;
            known.insert(file.name().to_owned(), (file.dependency, encoded));
        }
        anyhow::ensure!(known.len() <= MAX_FILES, "its schema has more than {MAX_FILES} files");
        let mut missing = known.values().flat_map(|(imports, _)| imports).filter(|name| !known.contains_key(*name));
        if let Some(name) = missing.next().filter(|_| wanted.is_empty()) {
            wanted.push(ReflectionRequest { file_by_filename: Some(name.clone()), ..Default::default() });
        }
    }
    let (mut sorted, mut done) = (Vec::new(), BTreeSet::new());
    while done.len() < known.len() {
        let ready = known
            .iter()
            .find(|(name, (imports, _))| !done.contains(*name) && imports.iter().all(|import| done.contains(import)));
        let (name, (_, encoded)) = ready.context("its files import each other in a circle")?;
        sorted.push(encoded.clone());
        done.insert(name.clone());
    }
    Ok(sorted)
}

/// Asks by the version of the service that answered before, or tries both.
async fn ask(
    client: &mut GrpcClient,
    path: &mut Option<&'static str>,
    request: &ReflectionRequest,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut failure = None;
    for candidate in PATHS.into_iter().filter(|candidate| path.is_none_or(|known| known == *candidate)) {
        match client.unary::<_, ReflectionResponse>(candidate, request).await {
            Ok((response, _)) => {
                *path = Some(candidate);
                if let Some(error) = response.error {
                    anyhow::bail!("{} (status {})", error.message, error.code);
                }
                return Ok(response.files.context("the answer has no files")?.encoded);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.map_or_else(|| anyhow::anyhow!("the server has no reflection"), Into::into))
}
