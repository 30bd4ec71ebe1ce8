//! An HTTP/2 connection and its socket, and the end of a worker's turn at which output is written (design 7.6, point 2).

use crate::codec::h2::Connection;
use crate::net::Io;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Output above which a connection does not wait for the end of the turn.
const FLUSH_NOW_BYTES: usize = 256 << 10;
/// Bytes of one read; the buffer is shared by the worker's connections.
const READ_BYTES: usize = 256 << 10;
/// Reads of one wake, then others get their turn.
const READS_PER_WAKE: usize = 4;

thread_local! {
    static DIRTY: RefCell<Vec<Rc<Link>>> = const { RefCell::new(Vec::new()) };
    /// Whether this thread's runtime calls [`flush_all`] before it parks.
    static HOOKED: Cell<bool> = const { Cell::new(false) };
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Says that this thread's runtime calls [`flush_all`] whenever it runs out of work.
pub fn flush_at_park() {
    HOOKED.with(|hooked| hooked.set(true));
}

/// Writes the output of all connections that have some: one write per connection and turn.
pub fn flush_all() {
    loop {
        let Some(link) = DIRTY.with(|dirty| dirty.borrow_mut().pop()) else { return };
        link.dirty.set(false);
        link.flush();
    }
}

/// A connection with its socket.
#[derive(Debug)]
pub struct Link {
    io: RefCell<Io>,
    connection: RefCell<Connection>,
    dirty: Cell<bool>,
    /// Wakes the task that drives the connection.
    task: RefCell<Option<Waker>>,
}

impl Link {
    /// Puts the two together.
    pub fn new(io: Io, connection: Connection) -> Rc<Self> {
        let dirty = Cell::new(false);
        let this = Rc::new(Self {
            io: RefCell::new(io),
            connection: RefCell::new(connection),
            dirty,
            task: RefCell::default(),
        });
        this.touch();
        this
    }

    /// Does something to the connection; what it has to say goes out at the end of the turn.
    pub fn with<T>(self: &Rc<Self>, f: impl FnOnce(&mut Connection) -> T) -> T {
        let result = f(&mut self.connection.borrow_mut());
        self.touch();
        result
    }

    /// Looks at the connection.
    pub fn look<T>(&self, f: impl FnOnce(&Connection) -> T) -> T {
        f(&self.connection.borrow())
    }

    fn touch(self: &Rc<Self>) {
        let waiting = self.connection.borrow().output().len();
        if waiting == 0 || self.dirty.get() && waiting < FLUSH_NOW_BYTES {
            return;
        }
        if waiting >= FLUSH_NOW_BYTES || !HOOKED.with(Cell::get) {
            return self.flush();
        }
        self.dirty.set(true);
        DIRTY.with(|dirty| dirty.borrow_mut().push(Rc::clone(self)));
    }

    /// Writes what the socket takes now; the task is woken when it takes more.
    pub fn flush(&self) {
        let waker = self.task.borrow().clone();
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        loop {
            let mut connection = self.connection.borrow_mut();
            let mut io = self.io.borrow_mut();
            let output = connection.output();
            let result = if output.is_empty() {
                io.poll_flush(&mut cx).map_ok(|()| 0)
            } else {
                io.poll_write(&mut cx, &[IoSlice::new(output)])
            };
            match result {
                Poll::Ready(Ok(n)) if n > 0 => connection.wrote(n),
                Poll::Ready(Ok(_)) | Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    connection.close();
                    return;
                }
            }
        }
    }

    /// Reads what has arrived into the connection; ready once the peer is gone. Keeps the waker for writes as well.
    pub fn poll_read(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut task = self.task.borrow_mut();
            if !task.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        if !self.look(|connection| connection.output().is_empty()) && !self.dirty.get() {
            self.flush();
        }
        for _ in 0..READS_PER_WAKE {
            match self.read_once(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => {
                    self.connection.borrow_mut().close();
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read_once(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = BUFFER.with(RefCell::take);
        buffer.clear();
        buffer.reserve(READ_BYTES);
        let polled = self.io.borrow_mut().poll_read(cx, &mut buffer);
        if let Poll::Ready(Ok(_)) = &polled {
            self.with(|connection| connection.receive(&buffer));
        }
        BUFFER.with(|slot| *slot.borrow_mut() = buffer);
        polled.map_ok(|n| n > 0)
    }

    /// Closes the write half behind what was written.
    pub async fn shutdown(&self) {
        self.flush();
        let closing = std::future::poll_fn(|cx| self.io.borrow_mut().poll_shutdown(cx));
        if let Err(_elapsed) = tokio::time::timeout(std::time::Duration::from_secs(1), closing).await {
            tracing::trace!("peer does not take the end of the connection");
        }
    }
}
