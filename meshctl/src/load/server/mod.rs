//! Fortio's servers: HTTP echo, gRPC ping and health, TCP and UDP echo, redirect to https.
//!
//! They know addresses and what a request asks for. They never know who loads them.

pub mod echo;
pub mod grpc;
pub mod listen;
pub mod params;
pub mod reflection;

use crate::output;
use echo::{Body, Echo, Peer};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use listen::{Listener, Socket};
use params::Limits;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// What a port is set to so that its server does not start.
pub const DISABLED: &str = "disabled";
/// How long a connection may be idle where nothing is said.
const IDLE: Duration = Duration::from_secs(30);
/// Largest datagram of the UDP echo, in bytes.
const MAX_DATAGRAM: usize = 65_536;

/// Which servers to start, and how they answer. An address is a port, `host:port`, a path or `unix:path`, or `disabled`.
#[derive(Clone)]
pub struct Settings {
    /// Address of the HTTP echo.
    pub http: String,
    /// Address of the gRPC server.
    pub grpc: String,
    /// Address of the TCP echo.
    pub tcp: String,
    /// Address of the UDP echo.
    pub udp: String,
    /// Address of the redirect to https.
    pub redirect: String,
    /// How the HTTP echo answers.
    pub echo: Echo,
    /// Service whose health is good.
    pub health_service: String,
    /// Streams that a gRPC client may have open at once; 0 for the library's bound.
    pub grpc_streams: u32,
    /// How long a connection may be idle.
    pub idle: Duration,
    /// TLS of HTTP and gRPC.
    pub tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
}

impl Settings {
    /// No server at all, with Fortio's defaults for what is started.
    pub fn nothing() -> Self {
        let off = || DISABLED.to_owned();
        Self {
            http: off(),
            grpc: off(),
            tcp: off(),
            udp: off(),
            redirect: off(),
            echo: Echo {
                debug_path: String::new(),
                limits: Limits { delay: Duration::ZERO, size: 0 },
                default_params: String::new(),
                start: Instant::now(),
            },
            health_service: String::new(),
            grpc_streams: 0,
            idle: IDLE,
            tls: None,
        }
    }
}

/// What an HTTP server does.
#[derive(Debug, Clone)]
enum Role {
    Echo(Arc<Echo>),
    Grpc(Arc<str>),
    Redirect,
}

impl Role {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        match self {
            Self::Echo(echo) => echo.answer(request, peer).await,
            Self::Grpc(_) if reflection::is_asked(request.uri().path()) => reflection::answer(request),
            Self::Grpc(service) => grpc::answer(request, service).await,
            Self::Redirect => echo::redirect(&request),
        }
    }
}

/// Starts the servers; they live as long as the runtime. Says each address on standard error.
///
/// # Errors
/// Where an address cannot be listened on.
pub async fn start(settings: &Settings) -> anyhow::Result<()> {
    let tls = settings.tls.clone().map(TlsAcceptor::from);
    let echo = Role::Echo(Arc::new(settings.echo.clone()));
    let ping = Role::Grpc(settings.health_service.as_str().into());
    if let Some(listener) = open(&settings.tcp, "tcp-echo").await? {
        tokio::spawn(echo_tcp(listener));
    }
    if settings.udp != DISABLED {
        let socket = listen::udp(&settings.udp).await?;
        say("udp-echo", "udp", &socket.local_addr()?.to_string());
        tokio::spawn(echo_udp(socket));
    }
    let servers = [
        (&settings.grpc, "grpc 'ping'", ping, tls.clone()),
        (&settings.redirect, "https redirector", Role::Redirect, None),
        (&settings.http, if tls.is_some() { "https-echo" } else { "http-echo" }, echo, tls),
    ];
    for (address, name, role, tls) in servers {
        if let Some(listener) = open(address, name).await? {
            let streams = if matches!(role, Role::Grpc(_)) { settings.grpc_streams } else { 0 };
            let server = Server { role, tls, builder: builder(settings.idle, streams) };
            tokio::spawn(Arc::new(server).run(listener));
        }
    }
    Ok(())
}

async fn open(address: &str, name: &str) -> anyhow::Result<Option<Listener>> {
    if address == DISABLED {
        return Ok(None);
    }
    let listener = listen::stream(address).await?;
    say(name, listener.kind(), &listener.address()?);
    Ok(Some(listener))
}

fn say(name: &str, kind: &str, address: &str) {
    output::note(&format!("Ferromesh {} {name} server listening on {kind} {address}", env!("CARGO_PKG_VERSION")));
}

fn builder(idle: Duration, streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).half_close(true);
    let mut two = builder.http2();
    two.timer(TokioTimer::new());
    if streams > 0 {
        two.max_concurrent_streams(streams);
    }
    builder
}

/// One HTTP server.
struct Server {
    role: Role,
    tls: Option<TlsAcceptor>,
    builder: Builder<TokioExecutor>,
}

impl Server {
    async fn run(self: Arc<Self>, listener: Listener) {
        loop {
            let Some((socket, peer)) = listener.accept().await else { continue };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                match (socket, &server.tls) {
                    (Socket::Tcp(stream), None) => server.serve(stream, peer).await,
                    (Socket::Unix(stream), None) => server.serve(stream, peer).await,
                    (Socket::Tcp(stream), Some(tls)) => {
                        let Ok(stream) = Box::pin(tls.accept(stream)).await else { return };
                        let peer = Peer { tls: describe(stream.get_ref().1), ..peer };
                        server.serve(stream, peer).await;
                    }
                    (Socket::Unix(stream), Some(tls)) => {
                        let Ok(stream) = Box::pin(tls.accept(stream)).await else { return };
                        server.serve(stream, peer).await;
                    }
                }
            });
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: Peer) {
        let peer = Arc::new(peer);
        let role = self.role.clone();
        let service = service_fn(move |request| {
            let (role, peer) = (role.clone(), Arc::clone(&peer));
            async move { Ok::<_, Infallible>(Box::pin(role.answer(request, &peer)).await) }
        });
        // a client that breaks off is its own affair
        drop(Box::pin(self.builder.serve_connection(TokioIo::new(stream), service)).await);
    }
}

/// TLS version and cipher, and how many certificates the client showed.
fn describe(tls: &tokio_rustls::rustls::ServerConnection) -> String {
    let version = tls.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let cipher = tls.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    let shown = tls.peer_certificates().map_or(0, <[_]>::len);
    format!(", https {version} {cipher}, {shown} client certificates")
}

async fn echo_tcp(listener: Listener) {
    loop {
        let Some((socket, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // a client that breaks off is its own affair
            match socket {
                Socket::Tcp(mut stream) => {
                    let (mut reader, mut writer) = stream.split();
                    drop(tokio::io::copy(&mut reader, &mut writer).await);
                }
                Socket::Unix(mut stream) => {
                    let (mut reader, mut writer) = stream.split();
                    drop(tokio::io::copy(&mut reader, &mut writer).await);
                }
            }
        });
    }
}

async fn echo_udp(socket: tokio::net::UdpSocket) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        if let Ok((size, peer)) = socket.recv_from(&mut buffer).await {
            drop(socket.send_to(buffer.get(..size).unwrap_or_default(), peer).await); // datagrams may be lost
        }
    }
}
