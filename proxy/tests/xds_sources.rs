//! Configuration from files and secrets from a Unix socket, with the real converter as the child.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::Parser;
use futures_util::stream::{self, Stream};
use prost::Message;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use proto::envoy::secret_service::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use proto::envoy::tls::Secret;
use proto::envoy::wkt::Any;
use proxy::bootstrap::{Bootstrap, Converter, Environment, Flags};
use proxy::xds::{Feed, FeedOptions, Kind};
use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// A feed of a bootstrap that is written to a file in YAML and read by the child.
fn feed(directory: &Path, yaml: &str) -> Feed {
    let file = directory.join("bootstrap.yaml");
    std::fs::write(&file, yaml).unwrap();
    let flags = Cli::try_parse_from(["proxy", "-c", file.to_str().unwrap()]).unwrap().flags;
    let converter = Converter::new(env!("CARGO_BIN_EXE_proxy").into());
    let bootstrap = Bootstrap::load(flags, Environment::default(), &converter).unwrap();
    let node = bootstrap.node.clone();
    let options = FeedOptions { node, converter, tls: None, also: Vec::new(), own_secret_services: BTreeSet::new() };
    Feed::new(bootstrap, options).unwrap()
}

/// Applies batches until one has a change of this kind; gives back `+name-name` of it.
async fn until(feed: &mut Feed, kind: Kind) -> String {
    let wait = async {
        loop {
            let batch = feed.next().await;
            let found = batch.updates.iter().find(|update| update.kind == kind).map(|update| {
                let added = update.added.iter().map(|resource| format!("+{}", resource.name));
                added.chain(update.removed.iter().map(|name| format!("-{name}"))).collect::<String>()
            });
            feed.settle(batch, Vec::new());
            if let Some(found) = found {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("within 30 s")
}

fn replace(file: &Path, yaml: &str) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, yaml).unwrap();
    std::fs::rename(fresh, file).unwrap();
}

// spec: XD-9
#[tokio::test]
async fn clusters_and_endpoints_follow_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let (cds, eds) = (directory.path().join("cds.yaml"), directory.path().join("eds.yaml"));
    let cluster = |name: &str| {
        format!(
            "- {{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: {name}, type: EDS, \
             eds_cluster_config: {{eds_config: {{path_config_source: {{path: {}}}}}}}}}\n",
            eds.display()
        )
    };
    replace(&cds, &format!("resources:\n{}", cluster("a")));
    replace(
        &eds,
        "resources:\n- {\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: a}\n",
    );
    let mut feed = feed(
        directory.path(),
        &format!(
            "node: {{id: node-1}}\ndynamic_resources: {{cds_config: {{path_config_source: {{path: {}}}}}}}\n",
            cds.display()
        ),
    );
    assert_eq!(until(&mut feed, Kind::Cluster).await, "+a");
    assert!(feed.is_ready());
    assert!(feed.store().borrow().get(Kind::Endpoint, "a").is_some(), "endpoints came before the cluster");
    replace(&cds, "resources: [\n");
    replace(&cds, &format!("version_info: '2'\nresources:\n{}", cluster("b")));
    replace(
        &eds,
        "resources:\n- {\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: b}\n",
    );
    assert_eq!(until(&mut feed, Kind::Cluster).await, "+b");
    assert_eq!(until(&mut feed, Kind::Cluster).await, "-a", "make before break");
    let store = feed.store().borrow().clone();
    assert_eq!(&*store.get(Kind::Cluster, "b").unwrap().resource.version, "2");
    assert!(store.get(Kind::Endpoint, "a").is_none());
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers every request for secrets with one secret per name.
struct Secrets {
    asked: mpsc::Sender<DiscoveryRequest>,
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Outgoing<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Outgoing<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("state of the world only"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let state = (request.into_inner(), self.asked.clone());
        let answers = stream::unfold(state, |(mut requests, asked)| async move {
            loop {
                let request = requests.message().await.ok()??;
                let is_question = request.response_nonce.is_empty();
                let names = request.resource_names.clone();
                asked.send(request).await.ok()?;
                if is_question {
                    let any = |name: String| {
                        let secret = Secret { name, ..Secret::default() };
                        Any { type_url: Kind::Secret.type_url().into(), value: secret.encode_to_vec() }
                    };
                    let response = DiscoveryResponse {
                        version_info: "s1".into(),
                        nonce: "n1".into(),
                        type_url: Kind::Secret.type_url().into(),
                        resources: names.into_iter().map(any).collect(),
                        ..DiscoveryResponse::default()
                    };
                    return Some((Ok(response), (requests, asked)));
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}

// spec: XI-4, NI-3, XD-2
#[tokio::test]
async fn secrets_come_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sds.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let (asked, mut seen) = mpsc::channel(8);
    let server = tonic::transport::Server::builder().add_service(SecretDiscoveryServiceServer::new(Secrets { asked }));
    let server = tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
    let sds =
        "sds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: sds-grpc}}]}}";
    let mut feed = feed(
        directory.path(),
        &format!(
            "node: {{id: node-1}}\nstatic_resources:\n  clusters:\n  - name: sds-grpc\n    type: STATIC\n    load_assignment: {{cluster_name: sds-grpc, \
             endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {}}}}}}}}}]}}]}}\n  - name: c\n    type: STATIC\n    \
             transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
             common_tls_context: {{tls_certificate_sds_secret_configs: [{{name: default, {sds}}}], \
             validation_context_sds_secret_config: {{name: ROOTCA, {sds}}}}}}}}}\n",
            path.display()
        ),
    );
    assert_eq!(until(&mut feed, Kind::Secret).await, "+ROOTCA+default");
    let first = seen.recv().await.unwrap();
    assert_eq!(
        (first.node.unwrap().id.as_str(), first.resource_names),
        ("node-1", vec!["ROOTCA".to_owned(), "default".to_owned()])
    );
    let ack = seen.recv().await.unwrap();
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str(), ack.error_detail), ("s1", "n1", None));
    assert_eq!(ack.resource_names, ["ROOTCA", "default"]);
    server.abort();
}
