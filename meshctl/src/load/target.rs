//! What a run sends to: made once of a URL and flags.

use super::client::Client;
use super::dial::{Destination, Dialer};
use super::echo::{TcpClient, UdpClient};
use super::flags::RequestArgs;
use super::format::parse_duration;
use super::grpc::{Call, Channel, DEFAULT_PORT, GrpcClient, PingMessage};
use super::h1::FastClient;
use super::h2::GeneralClient;
use super::plan::Plan;
use super::reflection;
use super::request::{self, Request};
use anyhow::Context;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Flags of gRPC.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "gRPC")]
pub struct GrpcArgs {
    /// Load a gRPC server, by health checks.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub grpc: bool,
    /// Ping instead of health checks.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ping: bool,
    /// Service whose health is asked for.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub healthservice: String,
    /// Streams per connection.
    #[arg(short = 's', default_value_t = 1, value_name = "STREAMS")]
    pub streams: usize,
    /// How long the server waits before it answers a ping.
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    pub grpc_ping_delay: Duration,
    /// Compress messages by gzip.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub grpc_compression: bool,
    /// Unary method to call, with --payload as JSON; the server must have reflection.
    #[arg(long, default_value = "", value_name = "package.Service/Method")]
    pub grpc_method: String,
    /// Metadata to send; several may be given.
    #[arg(long, value_name = "KEY:VALUE")]
    pub grpc_metadata: Vec<String>,
}

/// What a run sends to.
#[derive(Debug, Clone)]
pub struct Target {
    /// As it was written.
    pub url: String,
    /// What is sent.
    pub kind: Kind,
    /// Where it goes.
    pub destination: Arc<Destination>,
    /// How it is sent.
    pub args: RequestArgs,
}

/// What is sent.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An HTTP request.
    Http(Request),
    /// A gRPC call over a number of streams per connection.
    Grpc {
        /// What every call carries.
        channel: Channel,
        /// What is called.
        call: Call,
        /// Streams per connection.
        streams: usize,
    },
    /// Bytes that come back over TCP.
    Tcp(Bytes),
    /// Bytes that come back over UDP, within this time.
    Udp(Bytes, Duration),
}

impl Target {
    /// Makes one of a URL: `http(s)://…`, `tcp://host:port`, `udp://host:port`, or with `-grpc` also `host:port`.
    ///
    /// # Errors
    /// Where the URL or a flag is unusable; the text says which.
    pub fn new(url: &str, args: &RequestArgs, grpc: &GrpcArgs, udp_timeout: Duration) -> anyhow::Result<Self> {
        let url = url.trim_start();
        if grpc.grpc {
            return Self::grpc(url, args, grpc);
        }
        for (scheme, udp) in [("tcp://", false), ("udp://", true)] {
            let Some(address) = url.strip_prefix(scheme) else { continue };
            let (host, port) = host_and_port(address, None)?;
            let payload = request::payload(args)?;
            let kind = if udp { Kind::Udp(payload, udp_timeout) } else { Kind::Tcp(payload) };
            let destination = Destination::new(&host, port, args, None)?;
            return Ok(Self { url: url.to_owned(), kind, destination, args: args.clone() });
        }
        let request = Request::new(url, args)?;
        let protocols: &[&str] = if args.h2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
        let destination = Destination::new(&request.host, request.port, args, request.https.then_some(protocols))?;
        Ok(Self { url: request::with_scheme(url), kind: Kind::Http(request), destination, args: args.clone() })
    }

    /// Makes one of gRPC. TLS is used where the URL says https or authorities are given.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn grpc(url: &str, args: &RequestArgs, grpc: &GrpcArgs) -> anyhow::Result<Self> {
        let (address, port, https) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(address), _) => (address, 80, false),
            (_, Some(address)) => (address, 443, true),
            _ => (url, DEFAULT_PORT, false),
        };
        let tls = https || args.cacert.is_some();
        let (host, port) = host_and_port(address.trim_end_matches('/'), Some(port))?;
        let scheme = if tls { "https" } else { "http" };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let mut args = args.clone();
        args.headers.extend(grpc.grpc_metadata.iter().cloned());
        // the headers are read as those of an HTTP request would be
        let request = Request::new(&format!("{scheme}://{bracketed}:{port}"), &args)?;
        let payload = String::from_utf8_lossy(&request.payload).into_owned();
        let call = if grpc.ping {
            let delay_nanos = i64::try_from(grpc.grpc_ping_delay.as_nanos()).unwrap_or(i64::MAX);
            Call::Ping(PingMessage { seq: 0, ts: now_nanos(), payload, delay_nanos })
        } else {
            Call::Health(grpc.healthservice.clone())
        };
        let channel = Channel {
            origin: format!("{scheme}://{}", request.authority),
            metadata: Channel::metadata(&request.headers)?,
            compress: grpc.grpc_compression,
            timeout: args.timeout,
        };
        let destination = Destination::new(&host, port, &args, tls.then_some(&["h2"]))?;
        let kind = Kind::Grpc { channel, call, streams: grpc.streams.max(1) };
        Ok(Self { url: url.to_owned(), kind, destination, args })
    }

    /// Asks the server what `-grpc-method` takes, and makes the call of it. Other targets stay as they are.
    ///
    /// # Errors
    /// Where the server has no such method or the payload does not fit.
    pub async fn resolve(&mut self, method: &str) -> anyhow::Result<()> {
        let Kind::Grpc { channel, call, .. } = &mut self.kind else { return Ok(()) };
        if method.is_empty() {
            return Ok(());
        }
        let dialer = Dialer::new(&self.destination, &Plan::default());
        let mut client = GrpcClient::new(channel.clone(), call.clone(), dialer);
        let message = reflection::message(&mut client, method, &self.args.payload).await?;
        *call = Call::Method { path: format!("/{}", method.trim_start_matches('/')), message };
        Ok(())
    }

    /// How many clients share a connection.
    pub fn streams(&self) -> usize {
        match &self.kind {
            Kind::Grpc { streams, .. } => (*streams).max(1),
            Kind::Http(_) | Kind::Tcp(_) | Kind::Udp(..) => 1,
        }
    }

    /// The clients of one connection; `number` is that of the first.
    pub fn clients(&self, number: usize, plan: &Plan) -> Vec<Client> {
        let dialer = || Dialer::new(&self.destination, plan);
        match &self.kind {
            Kind::Http(request) if self.args.h2 || self.args.stdclient || self.args.follow => {
                vec![Client::General(Box::new(GeneralClient::new(request, &self.args, dialer())))]
            }
            Kind::Http(request) => vec![Client::Fast(Box::new(FastClient::new(request, &self.args, dialer())))],
            Kind::Grpc { channel, call, streams } => {
                let first = GrpcClient::new(channel.clone(), call.clone(), dialer());
                let siblings: Vec<GrpcClient> = (1..*streams).map(|_| first.sibling()).collect();
                std::iter::once(first).chain(siblings).map(|client| Client::Grpc(Box::new(client))).collect()
            }
            Kind::Tcp(payload) => {
                let client = TcpClient::new(number, dialer(), payload.clone(), self.args.timeout);
                vec![Client::Tcp(Box::new(client))]
            }
            Kind::Udp(payload, timeout) => {
                let client = UdpClient::new(number, &self.destination, payload.clone(), *timeout);
                vec![Client::Udp(Box::new(client))]
            }
        }
    }
}

/// `host:port`, `[::1]:port`, or a host alone where a port is known for it.
fn host_and_port(address: &str, default: Option<u16>) -> anyhow::Result<(String, u16)> {
    let unbracketed = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let lone = address.parse::<std::net::Ipv6Addr>().is_ok() || address.ends_with(']');
    match address.rsplit_once(':').filter(|_| !lone) {
        Some((host, port)) => {
            let port = port.parse().with_context(|| format!("{address:?}: {port:?} is no port"))?;
            anyhow::ensure!(!host.is_empty(), "{address:?} names no host");
            Ok((unbracketed(host), port))
        }
        None => {
            let port = default.with_context(|| format!("{address:?} names no port: write host:port"))?;
            anyhow::ensure!(!address.is_empty(), "no host is named");
            Ok((unbracketed(address), port))
        }
    }
}

/// Nanoseconds since 1970.
pub fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FO-1, FO-22
    #[test]
    fn destinations_are_read_as_fortio_reads_them() {
        let read = |address: &str| host_and_port(address, Some(8079)).unwrap();
        for (address, host, port) in [
            ("a:1", "a", 1),
            ("a", "a", 8079),
            ("[::1]:5", "::1", 5),
            ("::1", "::1", 8079),
            ("[::1]", "::1", 8079),
            ("127.0.0.1", "127.0.0.1", 8079),
        ] {
            assert_eq!(read(address), (host.to_owned(), port));
        }
        for wrong in ["a:b", ":1", ""] {
            assert!(host_and_port(wrong, Some(1)).is_err(), "{wrong:?}");
        }
        assert!(host_and_port("a", None).is_err());
    }
}
