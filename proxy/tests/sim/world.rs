//! What all simulations share: pipes, a client, scripted servers, and the loop over seeds.

use bytes::BytesMut;
use proxy::cluster::{Cluster, ClusterConfig, Dialer, Protocol};
use proxy::codec::h1::{BodyReader, Decoded, HeadLimits, scan_request};
use proxy::codec::h2::{Config, Connection, Role};
use proxy::endpoint::{Address, Endpoint, HostSet, Limit, Limits, Thresholds};
use proxy::env::Env;
use proxy::filter::{Facts, Filter};
use proxy::http::config::HcmConfig;
use proxy::http::{Settings, serve_h2};
use proxy::message::{Frame, RequestHead, Version};
use proxy::net::sim::Pipe;
use proxy::net::{Io, PeerFacts};
use proxy::route::{Route, RouteTable};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// Runs `simulation` for every seed.
pub(crate) fn seeds<F: Future<Output = ()>>(simulation: impl Fn(u64) -> F) {
    let variable =
        |name| std::env::vars().find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u64>().ok());
    let range = match variable("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SIM_SEEDS").unwrap_or(500),
    };
    for seed in range {
        let guard = Announce(seed);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("runtime");
        tokio::task::LocalSet::new().block_on(&runtime, simulation(seed));
        std::mem::forget(guard);
    }
}

/// Prints the seed when its simulation panics.
struct Announce(u64);

#[expect(clippy::print_stderr, reason = "a test tells its seed")]
impl Drop for Announce {
    fn drop(&mut self) {
        eprintln!("failing seed: replay it with SIM_SEED={}", self.0);
    }
}

/// Lets every task run until all of them wait.
pub(crate) async fn settle() {
    for _ in 0..12 {
        tokio::task::yield_now().await;
    }
}

/// Reads what has arrived, without waiting. `None`: the peer has closed.
pub(crate) fn read(io: &mut Io) -> Option<BytesMut> {
    let mut bytes = BytesMut::new();
    loop {
        match io.poll_read(&mut Context::from_waker(Waker::noop()), &mut bytes) {
            Poll::Ready(Ok(n)) if n > 0 => {}
            Poll::Ready(_) if bytes.is_empty() => return None,
            _ => return Some(bytes),
        }
    }
}

/// Writes what there is room for; returns how many bytes were taken.
pub(crate) fn write(io: &mut Io, bytes: &[u8]) -> usize {
    match io.poll_write(&mut Context::from_waker(Waker::noop()), &[IoSlice::new(bytes)]) {
        Poll::Ready(Ok(n)) => n,
        _ => 0,
    }
}

/// Connections that the proxy opened towards one cluster, for the script to serve.
pub(crate) type Accepted = Rc<RefCell<VecDeque<Pipe>>>;

/// A world with its clusters.
pub(crate) struct World {
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) facts: Rc<Facts>,
    limits: RefCell<Vec<Arc<Limits>>>,
    hosts: RefCell<Vec<Arc<HostSet>>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let facts = Facts::alone(Env::seeded(seed));
        Self {
            random: RefCell::new(fastrand::Rng::with_seed(seed ^ 0x5eed)),
            facts: Rc::new(facts),
            limits: RefCell::default(),
            hosts: RefCell::default(),
        }
    }

    pub(crate) fn below(&self, n: usize) -> usize {
        self.random.borrow_mut().usize(..n.max(1))
    }

    /// A cluster of one endpoint; what the proxy dials arrives in the queue.
    pub(crate) fn cluster(&self, name: &str, protocol: Protocol, window: usize) -> Accepted {
        let accepted = Accepted::default();
        let queue = Rc::clone(&accepted);
        let dialer = Dialer(Rc::new(move |_: &Address| {
            let (near, far) = Pipe::pair(window, true);
            queue.borrow_mut().push_back(far);
            Some(Io::Sim(near))
        }));
        // Limits that are never reached, but counted: permits must all come back.
        let counted = Thresholds { connections: 1 << 20, pending: 1 << 20, requests: 1 << 20, retries: 1 << 20 };
        let limits = [Limits::new(counted), Limits::new(counted)];
        self.limits.borrow_mut().extend(limits.iter().cloned());
        let config = ClusterConfig { protocol, limits, ..ClusterConfig::plain(name) };
        let hosts = Arc::new(HostSet::flat(vec![Endpoint::at(Address::Ip(([127, 0, 0, 1], 1).into()))]));
        self.hosts.borrow_mut().push(Arc::clone(&hosts));
        let env = Rc::clone(&self.facts.env);
        self.facts.clusters.insert(Cluster::simulated(Arc::new(config), hosts, env, dialer));
        accepted
    }

    /// Serves an HTTP/2 client through `filters` and `route`.
    pub(crate) fn serve(&self, filters: Vec<Filter>, route: Route, window: usize) -> Client {
        let (near, far) = Pipe::pair(window, true);
        let (filters, table): (Arc<[Filter]>, _) = (filters.into(), Arc::new(RouteTable::single(route)));
        let config = HcmConfig::plain(Arc::clone(&filters), Arc::clone(&table)).expect("valid");
        let settings = Rc::new(Settings::new(Arc::new(config), Rc::clone(&self.facts), table, false));
        let address = ([127, 0, 0, 1], 2).into();
        let peer = Rc::new(PeerFacts::plain(1, address, address));
        tokio::task::spawn_local(serve_h2((Io::Sim(near), BytesMut::new()), settings, filters, peer));
        Client { io: Io::Sim(far), h2: Connection::new(Role::Client, Config::default()) }
    }

    /// Nothing is in flight any more: every permit and every count came back.
    pub(crate) fn assert_quiet(&self) {
        for limits in self.limits.borrow().iter() {
            for limit in [Limit::Pending, Limit::Requests, Limit::Retries] {
                assert_eq!(limits.in_flight(limit), 0, "{limit:?} in flight");
            }
        }
        for endpoint in self.hosts.borrow().iter().flat_map(|hosts| hosts.iter()) {
            assert_eq!(endpoint.shared.active.load(Ordering::Relaxed), 0, "requests counted at the endpoint");
        }
    }
}

/// A client that speaks HTTP/2 by hand.
pub(crate) struct Client {
    pub(crate) io: Io,
    pub(crate) h2: Connection,
}

impl Client {
    /// Exchanges bytes with the proxy.
    pub(crate) fn turn(&mut self) {
        let n = write(&mut self.io, self.h2.output());
        self.h2.wrote(n);
        match read(&mut self.io) {
            Some(bytes) => self.h2.receive(&bytes),
            None => self.h2.close(),
        }
    }

    /// Opens a request once SETTINGS have been exchanged.
    pub(crate) async fn open(&mut self, content_type: &[u8], length: Option<u64>) -> u32 {
        self.turn();
        settle().await;
        self.turn();
        let mut head = RequestHead::new(Version::H2, b"POST", b"http", b"a.b", b"/s/m");
        head.headers.append(b"content-type", content_type);
        self.h2.open(&head, length, false)
    }

    /// Whether a piece can be sent now.
    pub(crate) fn can_send(&mut self, id: u32) -> bool {
        matches!(self.h2.poll_send(id, &mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// The status that arrived, or that the stream was reset.
    pub(crate) fn head(&mut self, id: u32) -> Option<Result<u16, ()>> {
        match self.h2.poll_head(id, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(head)) => Some(Ok(head.status)),
            Poll::Ready(Err(_)) => Some(Err(())),
            Poll::Pending => None,
        }
    }

    /// Takes body bytes that have arrived; true at the end.
    pub(crate) fn body(&mut self, id: u32, into: &mut Vec<u8>) -> Option<Result<(), ()>> {
        loop {
            match self.h2.poll_frame(id, &mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => into.extend_from_slice(&data),
                Poll::Ready(Some(Ok(Frame::Trailers(_))) | None) => return Some(Ok(())),
                Poll::Ready(Some(Err(_))) => return Some(Err(())),
                Poll::Pending => return None,
            }
        }
    }
}

/// One HTTP/1 connection seen from a server.
pub(crate) struct H1Server {
    pub(crate) io: Io,
    pub(crate) pipe: Pipe,
    buf: BytesMut,
    reader: Option<BodyReader>,
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
    pub(crate) closed: bool,
    pub(crate) broken: bool,
}

impl H1Server {
    pub(crate) fn new(pipe: Pipe) -> Self {
        Self {
            io: Io::Sim(pipe.clone()),
            pipe,
            buf: BytesMut::new(),
            reader: None,
            body: Vec::new(),
            complete: false,
            closed: false,
            broken: false,
        }
    }

    /// Reads what has arrived.
    pub(crate) fn turn(&mut self) {
        match read(&mut self.io) {
            Some(bytes) => self.buf.extend_from_slice(&bytes),
            None => self.closed = true,
        }
        if self.reader.is_none()
            && let Some((_, meta)) = scan_request(&self.buf, HeadLimits::default()).expect("the proxy sends HTTP")
        {
            let _head = self.buf.split_to(meta.head_bytes);
            self.reader = Some(meta.body);
        }
        let Some(reader) = &mut self.reader else { return };
        while !self.complete {
            match reader.decode(&mut self.buf) {
                Ok(Decoded::Data(data)) => self.body.extend_from_slice(&data),
                Ok(Decoded::End | Decoded::Trailers(_)) => self.complete = true,
                Ok(Decoded::More) => return,
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    /// Whether the head of a request has arrived.
    pub(crate) fn started(&self) -> bool {
        self.reader.is_some()
    }

    /// Answers, and is ready for the next request.
    pub(crate) fn answer(&mut self, status: u16, body: &str) {
        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(write(&mut self.io, text.as_bytes()), text.len(), "an answer fits the window");
        self.reader = None;
        self.complete = false;
        self.body.clear();
    }
}

/// A route to one cluster with nothing else.
pub(crate) fn route(cluster: &str) -> Route {
    Route::to_cluster(cluster)
}

/// Bytes of which every position can be told.
pub(crate) fn pattern(from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|i| (i * 31 + i / 251) as u8).collect()
}
