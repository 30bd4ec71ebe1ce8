//! `proxy explain`: the way of one request through a configuration, decided by the code that serves requests (D14).
//!
//! - `dump.rs`: a configuration as Envoy's `/config_dump` or pilot's shows it
//! - `decide.rs`: listener, filter chain, policies
//! - `forward.rs`: route, cluster, endpoints
//! - `story.rs`: what is said about it
//!
//! Knows what a worker knows. Must never open a socket.

mod decide;
mod dump;
mod forward;
mod story;

pub use story::{Endpoint, Outcome, Share, Step, Story};

use crate::message::{RequestHead, Version};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Side {
    /// From the workload: it asks.
    #[default]
    Outbound,
    /// To the workload: it is asked.
    Inbound,
}

/// How the explanation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `proxy explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// A configuration: the output of `/config_dump?include_eds` of a proxy, or of pilot's `/debug/config_dump`; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub config_dump: PathBuf,
    /// Method of the request
    pub method: String,
    /// What is asked for: `http://reviews:9080/reviews/1`
    pub url: String,
    /// A header of the request, as `name: value`; may be given several times
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// Whether the workload asks or is asked
    #[arg(long, value_enum, default_value_t)]
    pub side: Side,
    /// Who asks, with `--side inbound`: the SPIFFE id of its certificate; without it the request comes in plaintext
    #[arg(long, value_name = "SPIFFE_ID")]
    pub from_identity: Option<String>,
    /// Address of who asks
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))]
    pub from_address: IpAddr,
    /// Namespace from which short names are looked up; that of the configuration's node where it is not given
    #[arg(long)]
    pub namespace: Option<String>,
    /// Address of the workload, with `--side inbound`; the client's destination, with `--side outbound`. The port is that of the URL where none is given
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = address)]
    pub to_address: Option<(IpAddr, Option<u16>)>,
    /// Output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Form,
}

/// An address, and a port where one is given: `10.0.0.1`, `10.0.0.1:9080`, `[2001:db8::1]:9080`.
fn address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let whole = text.parse::<SocketAddr>().map(|address| (address.ip(), Some(address.port())));
    whole.or_else(|_| text.parse().map(|ip| (ip, None))).map_err(|_| "write ADDRESS or ADDRESS:PORT".to_owned())
}

/// A request to be explained.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its head, as it would arrive.
    pub head: RequestHead,
    /// Host of the URL.
    pub host: String,
    /// Port that was dialled.
    pub port: u16,
    /// Which way it goes.
    pub side: Side,
    /// Identity of who asks.
    pub identity: Option<String>,
    /// Address of who asks.
    pub from: SocketAddr,
    /// Address that was dialled.
    pub to: Option<IpAddr>,
    /// Namespace from which short names are looked up.
    pub namespace: Option<String>,
}

impl Question {
    /// The question of a command line.
    ///
    /// # Errors
    /// The URL or a header is malformed.
    pub fn of(args: &ExplainArgs) -> anyhow::Result<Self> {
        let url: http_uri::Url = http_uri::parse(&args.url)?;
        let mut head = RequestHead::new(
            Version::H11,
            args.method.to_ascii_uppercase().as_bytes(),
            url.scheme.as_bytes(),
            url.authority.as_bytes(),
            url.path.as_bytes(),
        );
        for header in &args.headers {
            let (name, value) =
                header.split_once(':').with_context(|| format!("--header {header:?}: write it as NAME: VALUE"))?;
            head.headers.append(name.trim().to_ascii_lowercase().as_bytes(), value.trim().as_bytes());
        }
        let (to, port) = args.to_address.unzip();
        Ok(Self {
            head,
            host: url.host,
            port: port.flatten().unwrap_or(url.port),
            side: args.side,
            identity: args.from_identity.clone(),
            from: SocketAddr::new(args.from_address, 40_000),
            to,
            namespace: args.namespace.clone(),
        })
    }
}

/// Runs the command.
///
/// # Errors
/// The configuration cannot be read, or the question is malformed.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let text = if args.config_dump.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("standard input")?;
        text
    } else {
        std::fs::read_to_string(&args.config_dump).with_context(|| format!("{}", args.config_dump.display()))?
    };
    let story = explain(&text, &Question::of(args)?)?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Form::Json => serde_json::to_writer_pretty(&mut out, &story)?,
        Form::Text => out.write_all(story.to_string().as_bytes())?,
    }
    Ok(writeln!(out)?)
}

/// The way of a request through a configuration in JSON.
///
/// # Errors
/// The configuration is not what a proxy or pilot writes.
pub fn explain(configuration: &str, question: &Question) -> anyhow::Result<Story> {
    let dump = dump::Dump::parse(configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(&runtime, decide::decide(&dump, question)))
}

/// URLs as people type them.
mod http_uri {
    use anyhow::{Context, ensure};

    /// A URL in its parts.
    pub(super) struct Url {
        pub(super) scheme: String,
        pub(super) authority: String,
        pub(super) host: String,
        pub(super) port: u16,
        pub(super) path: String,
    }

    /// Reads `http://HOST[:PORT][/PATH]`; the scheme may be left out.
    pub(super) fn parse(text: &str) -> anyhow::Result<Url> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        ensure!(matches!(scheme, "http" | "https"), "{text}: write it as http://HOST:PORT/PATH");
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        ensure!(!authority.is_empty(), "{text}: the host is missing");
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().with_context(|| format!("{text}: {port:?} is no port"))?)
            }
            _ => (authority, if scheme == "https" { 443 } else { 80 }),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        Ok(Url { scheme: scheme.to_owned(), authority: authority.to_owned(), host, port, path })
    }
}
