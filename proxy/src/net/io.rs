//! One end of a byte stream: plain, TLS or simulated.

use super::sim::Pipe;
use super::tls_io::TlsIo;
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

/// Bytes that one read takes at most; also the size of a worker's shared read buffer.
pub(super) const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// Where a connection without a buffer of its own is read into: an idle connection holds no memory.
    static SCRATCH: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A byte stream.
pub enum Io {
    /// Plain TCP; the second field holds bytes that an inspector has read already.
    Tcp(TcpStream, BytesMut),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS, either role.
    Tls(Box<TlsIo>),
    /// Simulated bytes.
    Sim(Pipe),
}

/// What a look at the socket says, right before it is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing to read: the peer keeps it open.
    Open,
    /// The peer has closed its half (TLS: also close_notify).
    Fin,
    /// The peer has reset it.
    Rst,
    /// The peer sent bytes that nobody asked for.
    Bytes,
}

impl Io {
    /// A plain TCP stream.
    pub fn tcp(stream: TcpStream) -> Self {
        Self::Tcp(stream, BytesMut::new())
    }

    /// Appends bytes to `into`. Returns how many; 0 is the end. Without room in `into` the bytes pass through a buffer
    /// that the worker's connections share, and only what arrived takes memory.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream, prefix) => {
                if !prefix.is_empty() {
                    let n = prefix.len();
                    into.extend_from_slice(prefix);
                    *prefix = BytesMut::new();
                    return Poll::Ready(Ok(n));
                }
                read_socket(stream, cx, into)
            }
            Self::Unix(stream) => read_socket(stream, cx, into),
            Self::Tls(tls) => tls.poll_read(cx, into),
            Self::Sim(pipe) => pipe.poll_read(cx, into),
        }
    }

    /// Writes some of `bufs`. Returns how many bytes were taken. TLS: what was taken may still wait in the session,
    /// call [`Self::poll_flush`] at the end of a turn.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => tls.poll_write(cx, bufs),
            Self::Sim(pipe) => pipe.poll_write(cx, bufs),
        }
    }

    /// Ready once nothing that was written waits in this process.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Closes the write half: FIN, for TLS after close_notify.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
            Self::Sim(pipe) => pipe.poll_shutdown(),
        }
    }

    /// Looks at the socket without taking anything from it. TLS feeds its session first: tickets are no FIN.
    pub fn liveness(&mut self) -> Liveness {
        match self {
            Self::Tcp(stream, prefix) if prefix.is_empty() => peek(stream),
            Self::Tcp(..) => Liveness::Bytes,
            Self::Unix(stream) => peek(stream),
            Self::Tls(tls) => tls.liveness(),
            Self::Sim(pipe) => pipe.liveness(),
        }
    }

    /// Whether the peer has left unread what was written last, asked once it has closed: its kernel has not taken it, or has
    /// answered it with a reset. False where that cannot be seen (TLS, Unix sockets).
    pub fn is_unread(&self) -> bool {
        match self {
            Self::Tcp(stream, _) => untaken(stream) > 0 || rustix::net::sockopt::socket_error(stream) != Ok(Ok(())),
            _ => false,
        }
    }

    /// The protocol that TLS negotiated.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.session().alpn_protocol(),
            _ => None,
        }
    }

    /// The plain socket for splice(2); the stream itself where that is not possible (TLS, simulation, bytes that an
    /// inspector holds).
    ///
    /// # Errors
    /// Gives the stream back.
    #[expect(clippy::result_large_err, reason = "the stream itself is given back")]
    pub fn into_splice(self) -> Result<TcpStream, Self> {
        match self {
            Self::Tcp(stream, prefix) if prefix.is_empty() => Ok(stream),
            other => Err(other),
        }
    }

    /// Makes the next close a reset: what a TCP client sees of a refused connection (LR-32).
    pub fn reset_on_close(&self) {
        let stream = match self {
            Self::Tcp(stream, _) => stream,
            Self::Tls(tls) => tls.socket(),
            _ => return,
        };
        if let Err(error) = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)) {
            tracing::debug!(%error, "cannot set linger");
        }
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(..) => "Io::Tcp",
            Self::Unix(_) => "Io::Unix",
            Self::Tls(_) => "Io::Tls",
            Self::Sim(_) => "Io::Sim",
        })
    }
}

/// Room from which on a read goes straight into the caller's buffer.
const DIRECT_BYTES: usize = 4 << 10;

fn read_socket<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    if into.capacity() - into.len() >= DIRECT_BYTES {
        return poll_read_buf(Pin::new(stream), cx, into);
    }
    with_scratch(|scratch| match poll_read_buf(Pin::new(stream), cx, scratch) {
        Poll::Ready(Ok(n)) => {
            into.extend_from_slice(scratch);
            Poll::Ready(Ok(n))
        }
        other => other,
    })
}

/// Runs `with` on this worker's empty shared buffer of [`READ_BYTES`].
pub(super) fn with_scratch<T>(with: impl FnOnce(&mut BytesMut) -> T) -> T {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        scratch.clear();
        scratch.reserve(READ_BYTES);
        let result = with(&mut scratch);
        let len = scratch.len();
        scratch.advance(len);
        scratch.clear();
        result
    })
}

/// Bytes in the socket's send queue, those on their way that nobody has acknowledged among them; 0 where it cannot be asked.
fn untaken(socket: &impl rustix::fd::AsFd) -> i32 {
    /// `SIOCOUTQ` of tcp(7), by its other name.
    const TIOCOUTQ: rustix::ioctl::Opcode = 0x5411;
    #[expect(unsafe_code, reason = "no safe interface asks this")]
    // SAFETY: the opcode takes a pointer to an int and writes that; the descriptor is open as long as it is borrowed.
    let asked = unsafe {
        let getter = rustix::ioctl::Getter::<TIOCOUTQ, i32>::new();
        rustix::ioctl::ioctl(socket, getter)
    };
    asked.unwrap_or(0)
}

pub(super) fn peek(socket: &impl rustix::fd::AsFd) -> Liveness {
    let mut byte = [0_u8; 1];
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    match rustix::net::recv(socket, &mut byte, flags) {
        Ok((0, _)) => Liveness::Fin,
        Ok(_) => Liveness::Bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Liveness::Open,
        Err(_) => Liveness::Rst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Our end of a connection, and the peer's.
    async fn pair() -> (Io, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Io::tcp(ours), listener.accept().await.unwrap().0)
    }

    async fn write(io: &mut Io) {
        let Io::Tcp(stream, _) = io else { panic!("it is TCP") };
        stream.write_all(b"ask").await.unwrap();
    }

    async fn end(io: &mut Io) {
        let read = poll_fn(|cx| io.poll_read(cx, &mut BytesMut::new())).await;
        assert_eq!(read.unwrap(), 0, "the end and no error");
    }

    #[tokio::test]
    async fn what_comes_to_a_closed_socket_is_unread() {
        let (mut ours, peer) = pair().await;
        drop(peer);
        write(&mut ours).await;
        end(&mut ours).await;
        assert!(ours.is_unread());
    }

    #[tokio::test]
    async fn what_was_read_before_the_end_is_not_unread() {
        let (mut ours, mut peer) = pair().await;
        write(&mut ours).await;
        peer.read_exact(&mut [0; 3]).await.unwrap();
        drop(peer);
        end(&mut ours).await;
        assert!(!ours.is_unread());
    }

    #[tokio::test]
    async fn what_nobody_has_acknowledged_is_untaken() {
        let (mut ours, peer) = pair().await;
        let Io::Tcp(stream, _) = &mut ours else { panic!("it is TCP") };
        let mut written = 0;
        while let Ok(n) = stream.try_write(&[0; 64 << 10]) {
            written += n;
        }
        assert!((1..i32::try_from(written).unwrap()).contains(&untaken(stream)), "the peer's kernel is full");
        drop(peer);
    }
}
