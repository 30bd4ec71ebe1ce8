//! Bytes both ways between two plain sockets without copying them: splice(2) through a pipe per direction.

use super::copy::Moved;
use crate::env::Instant;
use rustix::fd::OwnedFd;
use rustix::pipe::{PipeFlags, SpliceFlags};
use std::io;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// Size of a pipe (performance.md A4: 1 MiB).
const PIPE_BYTES: usize = 1 << 20;

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller pipe works as well: the limit of an unprivileged user may be lower.
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES) {
            tracing::trace!(%error, "pipe keeps its size");
        }
        Ok(Self { read, write })
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// One direction until its end.
async fn one_way(from: &TcpStream, to: &TcpStream, note: impl Fn(u64)) -> io::Result<()> {
    let pipe = Pipe::new()?;
    loop {
        let n = from
            .async_io(Interest::READABLE, || {
                rustix::pipe::splice(from, None, &pipe.write, None, PIPE_BYTES, FLAGS).map_err(io::Error::from)
            })
            .await?;
        if n == 0 {
            return Ok(());
        }
        let mut left = n;
        while left > 0 {
            let n = to
                .async_io(Interest::WRITABLE, || {
                    rustix::pipe::splice(&pipe.read, None, to, None, left, FLAGS).map_err(io::Error::from)
                })
                .await?;
            left -= n;
            note(n as u64);
        }
    }
}

/// Splices until both directions have ended, or one fails. Half-close is passed on.
///
/// # Errors
/// The socket's error.
pub(super) async fn both_ways(down: &TcpStream, up: &TcpStream, moved: &Moved) -> io::Result<()> {
    let active = || moved.at.set(Some(Instant::now()));
    let there = async {
        one_way(down, up, |n| {
            moved.up.set(moved.up.get() + n);
            active();
        })
        .await?;
        shutdown(up)
    };
    let back = async {
        one_way(up, down, |n| {
            moved.down.set(moved.down.get() + n);
            active();
        })
        .await?;
        shutdown(down)
    };
    tokio::try_join!(there, back).map(|_| ())
}

fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(stream, rustix::net::Shutdown::Write) {
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what an inspector had read before the sockets are spliced.
///
/// # Errors
/// The socket's error.
pub(super) async fn lead(up: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    up.write_all(bytes).await
}
