//! An API server of tests: it answers as it is told, and keeps what it was asked.

use super::{Place, Where};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::io::Write as _;
use std::sync::mpsc::{Receiver, channel};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

/// Serves as long as the runtime of the test is there.
pub(crate) struct Fake {
    kubeconfig: NamedTempFile,
    asked: Receiver<String>,
}

impl Fake {
    /// `answer` makes status and body of `METHOD PATH?QUERY`.
    pub(crate) async fn new(answer: fn(&str) -> (u16, Value)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (log, asked) = channel();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let line = format!("{} {}", request.method(), request.uri());
            let (status, body) = answer(&line);
            drop(log.send(line));
            let body = Full::new(Bytes::from(body.to_string()));
            async move { Response::builder().status(status).body(body) }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        let mut kubeconfig = NamedTempFile::new().unwrap();
        let config = json!({
            "current-context": "fake", "users": [],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "", "namespace": "shop"}}],
            "clusters": [{"name": "fake", "cluster": {"server": server}}],
        });
        write!(kubeconfig, "{config}").unwrap();
        Self { kubeconfig, asked }
    }

    /// The way to it, for a mesh of that namespace.
    pub(crate) fn place(&self, control_plane: &str) -> Place {
        let at = Where { kubeconfig: Some(self.kubeconfig.path().to_owned()), context: None };
        Place { at, control_plane: control_plane.to_owned() }
    }

    /// What was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

/// What an API server says where it refuses: 403, or 404.
pub(crate) fn refused(code: u16) -> (u16, Value) {
    let reason = if code == 403 { "Forbidden" } else { "NotFound" };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code}),
    )
}
