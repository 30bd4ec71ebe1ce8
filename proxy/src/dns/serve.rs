//! The DNS server on the loopback address: UDP and TCP (spec DN-1, DN-2).

use super::forward::{Forwarder, read_framed, write_framed};
use super::names::{Answer, Names};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

/// Life of an answer in the client's cache (DN-1).
const TTL_S: u32 = 30;
/// Most questions that are forwarded at a time; more are answered by SERVFAIL.
const MAX_FORWARDED: usize = 1024;
/// Most TCP connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Largest answer to a client that announces no size (RFC 1035, section 4.2.1), and the largest that is sent at all.
const PLAIN_UDP_BYTES: u16 = 512;
const MAX_UDP_BYTES: u16 = 4096;

/// The table of the moment; `None` until the first one came from pilot.
pub type Table = watch::Receiver<Option<Arc<Names>>>;

/// A server whose sockets are open.
#[derive(Debug)]
pub struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    resolver: Arc<Resolver>,
}

#[derive(Debug)]
struct Resolver {
    table: Table,
    forwarder: Forwarder,
    forwarded: Semaphore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// Opens `address` and serves for ever.
///
/// # Errors
/// Where the address cannot be used.
pub async fn serve(address: SocketAddr, table: Table, upstream: Vec<SocketAddr>) -> io::Result<()> {
    DnsServer::bind(address, table, Forwarder::new(upstream, address)).await?.run().await
}

impl DnsServer {
    /// Opens both sockets on one port.
    ///
    /// # Errors
    /// Where the address cannot be used.
    pub async fn bind(address: SocketAddr, table: Table, forwarder: Forwarder) -> io::Result<Self> {
        let (udp, tcp) = bind_both(address).await?;
        let udp = Arc::new(udp);
        let resolver = Arc::new(Resolver { table, forwarder, forwarded: Semaphore::new(MAX_FORWARDED) });
        Ok(Self { udp, tcp, resolver })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Serves for ever; dropping the future ends it.
    ///
    /// # Errors
    /// Never in practice: errors of single clients are passed over.
    pub async fn run(self) -> io::Result<()> {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = tokio::task::JoinSet::new();
        let mut buffer = vec![0; usize::from(MAX_UDP_BYTES)];
        loop {
            tokio::select! {
                received = self.udp.recv_from(&mut buffer) => {
                    let Ok((length, client)) = received else { continue }; // an ICMP error of an earlier answer
                    let question = buffer.get(..length).unwrap_or_default().to_vec();
                    let (udp, resolver) = (Arc::clone(&self.udp), Arc::clone(&self.resolver));
                    tasks.spawn(async move {
                        if let Some(answer) = resolver.answer(&question, Transport::Udp).await {
                            drop(udp.send_to(&answer, client).await); // the client is gone: nobody to tell
                        }
                    });
                }
                accepted = self.tcp.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let Ok(slot) = Arc::clone(&connections).try_acquire_owned() else { continue };
                    let resolver = Arc::clone(&self.resolver);
                    tasks.spawn(async move {
                        let _slot = slot;
                        if let Err(error) = resolver.connection(stream).await {
                            tracing::debug!(%error, "DNS connection ended");
                        }
                    });
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
    }
}

/// Both sockets on one port. A free port of one kind may be taken for the other, so port 0 is tried several times.
async fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = if address.port() == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let udp = UdpSocket::bind(address).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Err(error) if attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return Ok((udp, bound?)),
        }
    }
}

impl Resolver {
    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Ok(Some(question)) = tokio::time::timeout(IDLE, read_framed(&mut stream)).await? {
            let Some(answer) = self.answer(&question, Transport::Tcp).await else { return Ok(()) };
            tokio::time::timeout(IDLE, write_framed(&mut stream, &answer)).await??;
        }
        Ok(())
    }

    /// The bytes of the answer; `None` for what deserves none (not a question at all).
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(question) = Message::from_vec(bytes) else { return format_error(bytes) };
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let [query] = question.queries.as_slice() else { return reply(&question, ResponseCode::FormErr).to_vec().ok() };
        let Some(names) = self.table.borrow().clone() else {
            return reply(&question, ResponseCode::ServFail).to_vec().ok(); // better to ask again than to go astray
        };
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let ours = question.metadata.op_code == OpCode::Query && query.query_class() == DNSClass::IN;
        if let Some(found) = names.lookup(&name).filter(|_| ours) {
            return authoritative(&question, &found, transport);
        }
        let Ok(_slot) = self.forwarded.try_acquire() else {
            return reply(&question, ResponseCode::ServFail).to_vec().ok();
        };
        let answer = match transport {
            Transport::Udp => self.forwarder.udp(bytes).await,
            Transport::Tcp => self.forwarder.tcp(bytes).await,
        };
        answer.or_else(|| reply(&question, ResponseCode::ServFail).to_vec().ok())
    }
}

/// An answer from the table; other types than A and AAAA of a known name have no data.
fn authoritative(question: &Message, found: &Answer<'_>, transport: Transport) -> Option<Vec<u8>> {
    let query = question.queries.first()?;
    let mut answer = reply(question, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    let mut owner = query.name().clone();
    if let Some(canonical) = found.canonical {
        let target = Name::from_ascii(format!("{canonical}.")).ok()?;
        answer.add_answer(Record::from_rdata(owner, TTL_S, RData::CNAME(CNAME(target.clone()))));
        owner = target;
    }
    let mut records: Vec<RData> = match query.query_type() {
        RecordType::A => found.v4.iter().map(|ip| RData::A(A(*ip))).collect(),
        RecordType::AAAA => found.v6.iter().map(|ip| RData::AAAA(AAAA(*ip))).collect(),
        _ => Vec::new(),
    };
    fastrand::shuffle(&mut records);
    answer.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL_S, data)));
    let limit = match (&question.edns, transport) {
        (_, Transport::Tcp) => u16::MAX,
        (None, Transport::Udp) => PLAIN_UDP_BYTES,
        (Some(edns), Transport::Udp) => edns.max_payload().clamp(PLAIN_UDP_BYTES, MAX_UDP_BYTES),
    };
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) { Some(bytes) } else { answer.truncate().to_vec().ok() }
}

/// An empty answer to a question.
fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::error_msg(question.metadata.id, question.metadata.op_code, code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(question.queries.iter().cloned());
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_BYTES);
        answer.set_edns(edns);
    }
    answer
}

/// FORMERR for bytes that have at least an id and are marked as a question.
fn format_error(bytes: &[u8]) -> Option<Vec<u8>> {
    let (&[high, low, flags, ..], true) = (bytes, bytes.len() >= 12) else { return None };
    if flags & 0x80 != 0 {
        return None;
    }
    Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

#[cfg(test)]
mod tests;
