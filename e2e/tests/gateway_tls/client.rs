//! A client that says what became of its request.

use crate::pki::{Leaf, Pki, hex};
use e2e::client::{read_body, read_head};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Answer),
    /// The server sent a TLS alert.
    Alert(String),
    /// The connection was closed or reset.
    Closed,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's certificate.
    pub(crate) certificate: String,
    /// `x-forwarded-client-cert` as the upstream received it.
    pub(crate) forwarded: Option<String>,
}

impl Outcome {
    fn of(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(format!("{alert:?}")),
            _ => Self::Closed,
        }
    }

    pub(crate) fn answer(self) -> Option<Answer> {
        if let Self::Answer(answer) = self { Some(answer) } else { None }
    }
}

/// A client with a certificate or without.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
}

/// An open connection.
pub(crate) struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    pub(crate) fn new(pki: &Pki, certificate: Option<&Leaf>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.sites.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        // Each connection is to see the server's certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Self { config: Arc::new(config) }
    }

    pub(crate) fn open(&self, address: SocketAddr, host: &str) -> std::io::Result<Connection> {
        let tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.config), name).map_err(std::io::Error::other)?;
        Ok(Connection { stream: BufReader::new(StreamOwned::new(session, tcp)) })
    }

    /// What the server says to a client that does not ask anything: nothing is on the way that could make a reset of it.
    pub(crate) fn knock(&self, address: SocketAddr, host: &str) -> Outcome {
        let Ok(mut connection) = self.open(address, host) else { return Outcome::Closed };
        let mut byte = [0];
        match connection.stream.read(&mut byte) {
            Ok(0) => Outcome::Closed,
            Ok(_) => Outcome::Alert("none, it speaks".to_owned()),
            Err(error) => Outcome::of(&error),
        }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, address: SocketAddr, host: &str, headers: &str) -> Outcome {
        match self.open(address, host) {
            Ok(mut connection) => connection.exchange(host, &format!("connection: close\r\n{headers}")),
            Err(_) => Outcome::Closed,
        }
    }
}

impl Connection {
    /// One request; the connection stays open.
    pub(crate) fn ask(&mut self, host: &str) -> Outcome {
        self.exchange(host, "")
    }

    fn exchange(&mut self, host: &str, headers: &str) -> Outcome {
        match self.try_exchange(host, headers) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::of(&error),
        }
    }

    fn try_exchange(&mut self, host: &str, headers: &str) -> std::io::Result<Answer> {
        write!(self.stream.get_mut(), "GET / HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")?;
        self.stream.get_mut().flush()?;
        let head = read_head(&mut self.stream)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let body = read_body(&head, &mut self.stream)?;
        let status = head.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let seen: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let pairs = seen["headers"].as_array().cloned().unwrap_or_default();
        let forwarded = pairs.iter().find(|pair| pair[0] == "x-forwarded-client-cert");
        let forwarded = forwarded.and_then(|pair| pair[1].as_str()).map(str::to_owned);
        let chain = self.stream.get_ref().conn.peer_certificates();
        let certificate = chain.and_then(|chain| chain.first()).map(|leaf| hex(leaf)).unwrap_or_default();
        Ok(Answer { status, certificate, forwarded })
    }
}
