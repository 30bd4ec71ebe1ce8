//! Who may see which debug page (PI-43): they show the whole mesh, so not everybody who reaches a port.
//!
//! Callers on this machine are free on the plain port: `kubectl port-forward`, meshctl, a mesh on one machine. All others
//! prove who they are as proxies do, by certificate or token. Those of the system namespace see everything, others what
//! proxies of their own namespace are told.

use super::authenticate::{Authenticator, Caller};
use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Pages that show one proxy, and so are for callers of its namespace as well.
const OF_ONE_PROXY: [&str; 3] = ["/debug/config_dump", "/debug/edsz", "/debug/ndsz"];
/// How a caller that has proven nothing gets on.
const WAYS: &str = "debug pages are for who proves who it is: by a certificate of the mesh or a token over TLS on port 15012, \
                    by a token here (authorization: Bearer TOKEN, of pilot's --token-audience), or from pilot's own machine \
                    (meshctl, kubectl port-forward)\n";

/// Decides who sees what.
#[derive(Clone)]
pub enum Gate {
    /// Everybody sees everything (`ENABLE_DEBUG_ENDPOINT_AUTH=false`).
    Open,
    /// Callers prove who they are.
    Guarded(Arc<Guard>),
}

/// What a guarded gate goes by.
pub struct Guard {
    /// Says who a caller is.
    pub authenticator: Authenticator,
    /// Namespaces whose callers see everything: the system's own, and `DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES`.
    pub namespaces: BTreeSet<String>,
}

/// What a caller may see; put into each request that gets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Everything.
    All,
    /// What proxies of this namespace are told.
    Namespace(String),
}

impl Sight {
    /// Whether a proxy of this namespace may be looked at.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
        }
    }
}

/// The two ends of a connection to the plain port.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    peer: SocketAddr,
    /// None where the system does not say.
    own: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { peer: *stream.remote_addr(), own: stream.io().local_addr().ok() }
    }
}

impl Ends {
    /// Whether the caller is on this machine. Linux takes no packet from outside that has an address of its own as source.
    fn is_local(&self) -> bool {
        let peer = self.peer.ip().to_canonical();
        peer.is_loopback() || self.own.is_some_and(|own| own.ip().to_canonical() == peer)
    }
}

impl Gate {
    /// The routes behind the gate.
    pub fn before(self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self, pass))
    }

    /// What a caller may see at a path.
    async fn sight(&self, path: &str, headers: &HeaderMap, extensions: &Extensions) -> Result<Sight, Status> {
        let Self::Guarded(guard) = self else { return Ok(Sight::All) };
        let ends = extensions.get::<ConnectInfo<Ends>>();
        if ends.is_some_and(|ConnectInfo(ends)| ends.is_local()) {
            return Ok(Sight::All);
        }
        let metadata = MetadataMap::from_headers(headers.clone());
        let Caller::Proven(id) = guard.authenticator.identify(&metadata, extensions).await? else {
            return Err(Status::unauthenticated("nobody is asked who it is here"));
        };
        let Some((namespace, _)) = id.namespace_and_account() else {
            return Err(Status::permission_denied(format!("{id} is no workload")));
        };
        if guard.namespaces.contains(namespace) {
            return Ok(Sight::All);
        }
        if OF_ONE_PROXY.contains(&path) {
            return Ok(Sight::Namespace(namespace.to_owned()));
        }
        Err(Status::permission_denied(format!(
            "{id} may see {} of proxies of {namespace} alone: DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES of pilot names \
             namespaces whose callers see everything",
            OF_ONE_PROXY.join(", ")
        )))
    }
}

async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let refusal = match gate.sight(request.uri().path(), request.headers(), request.extensions()).await {
        Ok(sight) => {
            request.extensions_mut().insert(sight);
            return next.run(request).await;
        }
        Err(refusal) => refusal,
    };
    let text = format!("{}\n", refusal.message());
    match refusal.code() {
        Code::PermissionDenied => (StatusCode::FORBIDDEN, text).into_response(),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        _ => (StatusCode::UNAUTHORIZED, format!("{text}{WAYS}")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use credentials::accept::{Certificate, Peer};
    use credentials::tokens::Tokens;
    use identity::spiffe::SpiffeId;
    use tower::ServiceExt as _;

    fn guarded() -> Gate {
        let authenticator = Authenticator::Proof(Arc::new(Tokens::Nothing));
        let namespaces = ["istio-system", "ops"].map(str::to_owned).into();
        Gate::Guarded(Arc::new(Guard { authenticator, namespaces }))
    }

    /// Status and text of a page, for a caller at an address, with an identity or without.
    async fn asked(gate: Gate, path: &str, peer: &str, id: Option<&str>) -> (u16, String) {
        let show = |request: Request| async move { format!("{:?}", request.extensions().get::<Sight>().unwrap()) };
        let routes = Router::new().route("/debug/syncz", get(show)).route("/debug/edsz", get(show));
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        let ends = Ends { peer: peer.parse().unwrap(), own: Some("10.0.0.1:8080".parse().unwrap()) };
        request.extensions_mut().insert(ConnectInfo(ends));
        let until = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        let certificate = id.map(|id| Certificate { id: Some(SpiffeId::parse(id).unwrap()), until });
        request.extensions_mut().insert(Peer { address: peer.parse().unwrap(), certificate });
        let answer = gate.before(routes).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8(to_bytes(answer.into_body(), 4096).await.unwrap().to_vec()).unwrap())
    }

    // spec: PI-43
    // bar: S1
    #[tokio::test]
    async fn pages_are_for_this_machine_and_for_who_proves_that_they_are_its_business() {
        let all = (200, "All".to_owned());
        for local in ["127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.1:1"] {
            assert_eq!(asked(guarded(), "/debug/syncz", local, None).await, all, "{local}");
        }
        let (status, text) = asked(guarded(), "/debug/syncz", "10.0.0.2:1", None).await;
        assert!(status == 401 && text.contains("port 15012") && text.contains("port-forward"), "{status} {text}");
        assert_eq!(asked(Gate::Open, "/debug/syncz", "10.0.0.2:1", None).await, all);

        let of = |namespace: &str| format!("spiffe://cluster.local/ns/{namespace}/sa/a");
        for namespace in ["istio-system", "ops"] {
            assert_eq!(asked(guarded(), "/debug/syncz", "10.0.0.2:1", Some(&of(namespace))).await, all);
        }
        let (status, text) = asked(guarded(), "/debug/syncz", "10.0.0.2:1", Some(&of("shop"))).await;
        assert!(status == 403 && text.contains("/debug/config_dump, /debug/edsz, /debug/ndsz"), "{status} {text}");
        let (status, text) = asked(guarded(), "/debug/edsz", "10.0.0.2:1", Some(&of("shop"))).await;
        assert_eq!((status, text.as_str()), (200, "Namespace(\"shop\")"));
        let stranger = asked(guarded(), "/debug/edsz", "10.0.0.2:1", Some("spiffe://cluster.local/other")).await;
        assert_eq!(stranger.0, 403);
    }
}
