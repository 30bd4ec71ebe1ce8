//! The loop: no epoll, no threads; it has a core for itself.

use crate::{Args, h1, h2};
use anyhow::{Context, bail};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for the proxy to accept.
const CONNECT: Duration = Duration::from_secs(10);

struct Socket {
    tcp: TcpStream,
    input: Vec<u8>,
    out: Vec<u8>,
    peer: Option<h2::Peer>,
    /// When the requests in flight were sent.
    sent: VecDeque<Instant>,
    gone: bool,
}

struct Tally {
    good: u64,
    bad: u64,
    latencies: Vec<u32>,
}

/// Runs the load; gives back what happened in the measured time.
///
/// # Errors
/// Where the proxy cannot be reached, or ends all connections.
#[expect(clippy::print_stdout, reason = "the harness reads the marks")]
pub(crate) fn run(args: &Args) -> anyhow::Result<serde_json::Value> {
    let listener = TcpListener::bind(args.backend).with_context(|| format!("cannot listen on {}", args.backend))?;
    listener.set_nonblocking(true)?;
    let (request, response) = (h1::request(args), h1::response(args));
    let mut clients = (0..args.connections).map(|_| client(args)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut servers: Vec<Socket> = Vec::new();
    let mut tally = Tally { good: 0, bad: 0, latencies: Vec::new() };
    let mut scratch = vec![0; 256 << 10];
    let begin = Instant::now();
    let (mut issued, mut answered, mut turn) = (0_u64, 0_u64, 0_usize);
    let mut measuring: Option<(Instant, u64, usize)> = None;
    let limit = args.requests.unwrap_or(u64::MAX);
    loop {
        let now = Instant::now();
        if measuring.is_none() && (now - begin).as_secs_f64() >= args.warm {
            println!("MEASURE_START");
            measuring = Some((Instant::now(), tally.good, tally.latencies.len()));
        }
        let over = match (args.requests, measuring) {
            (Some(wanted), _) => answered >= wanted,
            (None, Some((since, ..))) => (now - since).as_secs_f64() >= args.seconds,
            (None, None) => false,
        };
        if over {
            println!("MEASURE_END");
            return Ok(report(&tally, measuring.unwrap_or((begin, 0, 0)), answered));
        }
        turn = turn.wrapping_add(1);
        if turn.is_multiple_of(16)
            && let Ok((tcp, _)) = listener.accept()
        {
            servers.push(socket(args, tcp, true)?);
        }
        let due = if args.rate == 0 { u64::MAX } else { ((now - begin).as_secs_f64() * args.rate as f64) as u64 };
        for client in &mut clients {
            while client.sent.len() < args.streams && issued < due.min(limit) {
                match &mut client.peer {
                    Some(peer) => peer.request(&mut client.out),
                    None => client.out.extend_from_slice(&request),
                }
                client.sent.push_back(now);
                issued += 1;
            }
            client.write();
            if client.read(&mut scratch) {
                let (good, bad) = client.answers();
                let done = Instant::now();
                for _ in 0..good + bad {
                    let since = client.sent.pop_front().map_or(Duration::ZERO, |sent| done - sent);
                    tally.latencies.push(u32::try_from(since.as_micros()).unwrap_or(u32::MAX));
                }
                tally.good += good as u64;
                tally.bad += bad as u64;
                answered += (good + bad) as u64;
            }
            if client.gone {
                bail!("the proxy closed a connection after {answered} answers");
            }
        }
        for server in &mut servers {
            server.serve(&mut scratch, &response);
        }
        servers.retain(|server| !server.gone);
    }
}

fn report(tally: &Tally, (since, good, from): (Instant, u64, usize), answered: u64) -> serde_json::Value {
    let mut latencies = tally.latencies.get(from..).unwrap_or_default().to_vec();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
    serde_json::json!({
        "done": tally.good - good,
        "bad": tally.bad,
        "answered": answered,
        "rps": ((tally.good - good) as f64 / since.elapsed().as_secs_f64()).round(),
        "p50_us": at(0.50),
        "p99_us": at(0.99),
    })
}

fn client(args: &Args) -> anyhow::Result<Socket> {
    let tcp = TcpStream::connect_timeout(&args.target, CONNECT)
        .with_context(|| format!("cannot connect to the proxy at {}", args.target))?;
    socket(args, tcp, false)
}

fn socket(args: &Args, tcp: TcpStream, server: bool) -> anyhow::Result<Socket> {
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    let mut out = Vec::new();
    let peer = (args.protocol == "h2").then(|| h2::Peer::new(args, server, &mut out));
    Ok(Socket { tcp, input: Vec::new(), out, peer, sent: VecDeque::new(), gone: false })
}

impl Socket {
    fn read(&mut self, scratch: &mut [u8]) -> bool {
        match self.tcp.read(scratch) {
            Ok(0) => self.gone = true,
            Ok(n) => {
                self.input.extend_from_slice(scratch.get(..n).unwrap_or_default());
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.gone = true,
        }
        false
    }

    fn write(&mut self) {
        if self.out.is_empty() {
            return;
        }
        match self.tcp.write(&self.out) {
            Ok(n) => {
                self.out.drain(..n);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.gone = true,
        }
    }

    /// Answers what came in.
    fn serve(&mut self, scratch: &mut [u8], response: &[u8]) {
        if self.read(scratch) {
            match &mut self.peer {
                Some(peer) => {
                    peer.take(&mut self.input, &mut self.out);
                }
                None => {
                    for _ in 0..h1::take_requests(&mut self.input) {
                        self.out.extend_from_slice(response);
                    }
                }
            }
        }
        self.write();
    }

    fn answers(&mut self) -> (usize, usize) {
        match &mut self.peer {
            Some(peer) => {
                let took = peer.take(&mut self.input, &mut self.out);
                (took.good, took.bad)
            }
            None => h1::take_responses(&mut self.input),
        }
    }
}
