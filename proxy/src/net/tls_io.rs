//! TLS over a TCP socket: rustls for the records, this file for moving bytes.

use super::io::{Liveness, peek, with_scratch};
use bytes::BytesMut;
use rustls::{ClientConnection, ServerConnection};
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// One side of a TLS session.
pub enum Session {
    /// This proxy dialled.
    Client(ClientConnection),
    /// This proxy accepted.
    Server(ServerConnection),
}

impl std::ops::Deref for Session {
    type Target = rustls::CommonState;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Client(conn) => conn,
            Self::Server(conn) => conn,
        }
    }
}

impl Session {
    /// Decrypts `bytes`; what they say goes to `plain` at once, since rustls holds little of it.
    fn feed(&mut self, mut bytes: &[u8], plain: &mut BytesMut) -> io::Result<()> {
        while !bytes.is_empty() {
            let (read, processed) = match self {
                Self::Client(conn) => (conn.read_tls(&mut bytes), conn.process_new_packets()),
                Self::Server(conn) => (conn.read_tls(&mut bytes), conn.process_new_packets()),
            };
            let state = processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if state.plaintext_bytes_to_read() > 0 {
                self.read_plain(plain)?;
            }
            if read? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn wants_write(&self) -> bool {
        rustls::CommonState::wants_write(self)
    }

    fn is_handshaking(&self) -> bool {
        rustls::CommonState::is_handshaking(self)
    }

    fn read_plain(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let mut total = 0;
        loop {
            let mut reader = match self {
                Self::Client(conn) => conn.reader(),
                Self::Server(conn) => conn.reader(),
            };
            match reader.fill_buf() {
                Ok([]) => return Ok(total),
                Ok(chunk) => {
                    into.extend_from_slice(chunk);
                    let n = chunk.len();
                    reader.consume(n);
                    total += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if total > 0 { Ok(total) } else { Err(error) };
                }
                // The peer closed without close_notify: TLS cannot tell a truncation from an end.
                Err(error) => return if total > 0 { Ok(total) } else { Err(error) },
            }
        }
    }

    fn write_plain(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Client(conn) => conn.writer().write_vectored(bufs),
            Self::Server(conn) => conn.writer().write_vectored(bufs),
        }
    }

    fn write_records(&mut self, to: &mut dyn Write) -> io::Result<usize> {
        match self {
            Self::Client(conn) => conn.write_tls(to),
            Self::Server(conn) => conn.write_tls(to),
        }
    }
}

/// A TLS session and its socket.
pub struct TlsIo {
    tcp: TcpStream,
    session: Session,
    /// Ciphertext that an inspector read before the session existed.
    prefix: BytesMut,
    /// What came with the end of the handshake.
    plain: BytesMut,
    ended: bool,
}

impl TlsIo {
    /// A session over `tcp`; `prefix` is what was read from it already. Drive [`Self::poll_handshake`] first.
    pub fn new(tcp: TcpStream, session: Session, prefix: BytesMut) -> Self {
        Self { tcp, session, prefix, plain: BytesMut::new(), ended: false }
    }

    /// The session, for ALPN, SNI and certificates.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Ready when both sides have finished the handshake. Errors are rustls's, inside an [`io::Error`].
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            if !self.session.is_handshaking() {
                break;
            }
            let mut plain = std::mem::take(&mut self.plain);
            let fed = self.poll_feed(cx, &mut plain);
            self.plain = plain;
            match ready!(fed) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => {
                    // The alert that says why goes out as far as the socket takes it.
                    return match self.poll_flush(cx) {
                        Poll::Ready(_) | Poll::Pending => Poll::Ready(Err(error)),
                    };
                }
            }
        }
        self.poll_flush(cx)
    }

    /// Reads ciphertext into the session and what it says into `plain`. 0 is the end.
    fn poll_feed(&mut self, cx: &mut Context<'_>, plain: &mut BytesMut) -> Poll<io::Result<usize>> {
        if !self.prefix.is_empty() {
            let prefix = std::mem::take(&mut self.prefix);
            return Poll::Ready(self.session.feed(&prefix, plain).map(|()| prefix.len()));
        }
        let (tcp, session) = (&mut self.tcp, &mut self.session);
        with_scratch(|scratch| {
            let n = ready!(poll_read_buf(Pin::new(tcp), cx, scratch))?;
            session.feed(scratch, plain)?;
            Poll::Ready(Ok(n))
        })
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        if !self.plain.is_empty() {
            into.extend_from_slice(&std::mem::take(&mut self.plain));
        }
        loop {
            if into.len() > before {
                return Poll::Ready(Ok(into.len() - before));
            }
            // Nothing is left in the session but, perhaps, that the peer said it will send no more.
            match self.session.read_plain(into) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if ready!(self.poll_feed(cx, into))? == 0 {
                self.ended = true;
            }
            if self.session.wants_write() && self.poll_flush(cx)?.is_pending() {
                // A key update or ticket answer waits for the socket; reading goes on.
            }
        }
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        // Records of an earlier turn go first; while they wait nothing more is taken (backpressure).
        ready!(self.poll_flush(cx))?;
        let taken = self.session.write_plain(bufs)?;
        if self.poll_flush(cx)?.is_pending() {
            // What was taken is the session's now; poll_flush carries it on.
        }
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut to = ToSocket { tcp: &mut self.tcp, cx };
            match self.session.write_records(&mut to) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.session {
            Session::Client(conn) => conn.send_close_notify(),
            Session::Server(conn) => conn.send_close_notify(),
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    pub(super) fn liveness(&mut self) -> Liveness {
        let mut chunk = [0_u8; 4096];
        loop {
            match self.tcp.try_read(&mut chunk) {
                Ok(0) => return Liveness::Fin,
                Ok(n) => {
                    let fed = self.session.feed(chunk.get(..n).unwrap_or_default(), &mut self.plain);
                    if fed.is_err() {
                        return Liveness::Rst;
                    }
                    if !self.plain.is_empty() {
                        return Liveness::Bytes;
                    }
                }
                // The cached readiness may be old: only the socket itself knows.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match peek(&self.tcp) {
                    Liveness::Bytes => return Liveness::Bytes,
                    other => {
                        return match self.session.read_plain(&mut self.plain) {
                            Ok(0) => Liveness::Fin,
                            Ok(_) => Liveness::Bytes,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => other,
                            Err(_) => Liveness::Fin,
                        };
                    }
                },
                Err(_) => return Liveness::Rst,
            }
        }
    }
}

impl std::fmt::Debug for TlsIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIo").field("handshaking", &self.session.is_handshaking()).finish_non_exhaustive()
    }
}

/// Lets rustls write straight to the socket.
struct ToSocket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for ToSocket<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::future::poll_fn;
    use std::sync::Arc;
    use tokio::net::TcpListener;

    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    async fn pair() -> (TlsIo, TlsIo) {
        let (server, client) = configs();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let name = "a".try_into().unwrap();
        let session = Session::Client(ClientConnection::new(client, name).unwrap());
        let mut near = TlsIo::new(near, session, BytesMut::new());
        let mut far = TlsIo::new(far, Session::Server(ServerConnection::new(server).unwrap()), BytesMut::new());
        let (a, b) = tokio::join!(poll_fn(|cx| near.poll_handshake(cx)), poll_fn(|cx| far.poll_handshake(cx)));
        a.unwrap();
        b.unwrap();
        (near, far)
    }

    /// Many records that lie in the socket at once are read at once: rustls alone holds 16 KiB of plaintext.
    // spec: MT-1
    #[tokio::test]
    async fn a_burst_larger_than_rustls_holds_arrives_whole() {
        let (mut near, mut far) = pair().await;
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let mut got = BytesMut::new();
        let mut at = 0;
        while got.len() < sent.len() {
            if at < sent.len() {
                at += poll_fn(|cx| near.poll_write(cx, &[IoSlice::new(&sent[at..])])).await.unwrap();
                tokio::task::yield_now().await;
                if at < 150_000 {
                    continue;
                }
            }
            assert!(poll_fn(|cx| far.poll_read(cx, &mut got)).await.unwrap() > 0);
        }
        assert!(got == sent);
    }
}
