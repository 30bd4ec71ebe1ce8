//! Connections to one endpoint, kept for the next request.
//!
//! Knows addresses, codecs and idle times. Must never know which request comes next or why.

mod connect;
mod counted;
pub mod h1;
pub mod h2;
mod idle;
mod link;

pub use connect::{Dial, Dialled, connect};
pub use counted::{Carries, Counted};
pub use idle::IdleAge;
pub use link::{Link, flush_all, flush_at_park};

use crate::codec::h2::Connection;
use crate::endpoint::{Endpoint, Permit};
use crate::env::Instant;
use crate::net::Liveness;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Connections of one worker to one endpoint with one transport.
#[derive(Debug)]
pub struct Pool {
    /// Where the connections go.
    pub endpoint: Arc<Endpoint>,
    /// The server name of their TLS sessions, where requests give it.
    pub server_name: Option<Arc<str>>,
    #[expect(clippy::vec_box, reason = "an exchange holds its connection boxed; to unbox it here would move it twice")]
    idle: RefCell<Vec<Box<h1::Conn>>>,
    shared: RefCell<Vec<Rc<h2::Shared>>>,
    /// An HTTP/2 connection is being opened: others wait for it (7.6, point 7).
    pub connecting: Cell<bool>,
    age: RefCell<IdleAge>,
    /// Requests that one connection may carry (DR-26); 0: no limit.
    max_requests: u32,
    closed: Cell<bool>,
    /// Wakes one request that waits for a connection.
    pub freed: tokio::sync::Notify,
}

/// Below this idle time a look at the socket is spared: servers announce closes that are not idle closes.
const PEEK_AFTER: Duration = Duration::from_millis(1);

impl Pool {
    /// An empty pool; `age` bounds the idle time of its connections.
    pub fn new(endpoint: Arc<Endpoint>, server_name: Option<Arc<str>>, max_requests: u32, age: IdleAge) -> Rc<Self> {
        Rc::new(Self {
            endpoint,
            server_name,
            idle: RefCell::default(),
            shared: RefCell::default(),
            connecting: Cell::new(false),
            age: RefCell::new(age),
            max_requests,
            closed: Cell::new(false),
            freed: tokio::sync::Notify::new(),
        })
    }

    /// The most recently used idle connection that the peer keeps open (D3: looked at right before the write).
    pub fn checkout(&self, now: Instant) -> Option<Box<h1::Conn>> {
        loop {
            let mut conn = self.idle.borrow_mut().pop()?;
            let idle_for = now.saturating_duration_since(conn.idle_since);
            if idle_for >= self.age.borrow().reusable() {
                continue;
            }
            if idle_for < PEEK_AFTER {
                return Some(conn);
            }
            match conn.io.liveness() {
                Liveness::Open => return Some(conn),
                Liveness::Fin | Liveness::Rst => self.age.borrow_mut().closed_after(idle_for),
                Liveness::Bytes => {
                    tracing::debug!(endpoint = %self.endpoint.address, "unasked bytes on an idle connection")
                }
            }
        }
    }

    /// A shared connection that can take one more request; those that are over are forgotten.
    pub fn shared(&self) -> Option<Rc<h2::Shared>> {
        let mut shared = self.shared.borrow_mut();
        let worn = |conn: &h2::Shared| self.max_requests > 0 && conn.served.get() >= self.max_requests;
        shared.retain(|conn| !worn(conn) && conn.link.look(Connection::is_usable));
        shared.iter().find(|conn| conn.link.look(Connection::can_open)).cloned()
    }

    /// Adds a shared connection.
    pub fn share(&self, conn: Rc<h2::Shared>) {
        if !self.closed.get() {
            self.shared.borrow_mut().push(conn);
        }
        self.freed.notify_waiters();
    }

    /// Takes a connection back after a complete exchange.
    pub fn give_back(&self, mut conn: Box<h1::Conn>, now: Instant) {
        let worn = self.max_requests > 0 && conn.served >= self.max_requests;
        if !self.closed.get() && !worn {
            conn.idle_since = now;
            self.idle.borrow_mut().push(conn);
        }
        self.freed.notify_one();
    }

    /// Notes that a connection ended; somebody who waits may open another.
    pub fn lost(&self, permit: Option<Permit>) {
        drop(permit);
        self.freed.notify_one();
    }

    /// The server said how long it keeps idle connections (`Keep-Alive: timeout`).
    pub fn told_timeout(&self, seconds: u64) {
        self.age.borrow_mut().told(Duration::from_secs(seconds));
    }

    /// A reused connection died after so much idle time, before a byte of answer.
    pub fn died_after(&self, idle_for: Duration) {
        self.age.borrow_mut().closed_after(idle_for);
    }

    /// Closes idle connections that are too old.
    pub fn sweep(&self, now: Instant) {
        let reusable = self.age.borrow().reusable();
        self.idle.borrow_mut().retain(|conn| now.saturating_duration_since(conn.idle_since) < reusable);
        self.shared.borrow_mut().retain(|conn| {
            let busy = conn.link.look(|connection| connection.open_streams() > 0);
            let stays = busy || now.saturating_duration_since(conn.idle_since.get()) < reusable;
            if !stays {
                conn.link.with(|connection| connection.go_away(true));
            }
            stays
        });
    }

    /// Closes idle connections and keeps none from now on.
    pub fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        for conn in self.shared.borrow_mut().drain(..) {
            conn.link.with(|connection| connection.go_away(true));
        }
    }

    /// Number of idle connections.
    pub fn idle_count(&self) -> usize {
        self.idle.borrow().len() + self.shared.borrow().len()
    }
}
