//! Load generator and server in one busy thread: what comes out of a proxy under test goes back into it.
//!
//! - [`h1`], [`h2`]: both roles of each protocol, with everything encoded beforehand (about 3 µs per request)
//! - [`run`]: the loop over all sockets
//!
//! Prints `MEASURE_START` and `MEASURE_END` around the measured time, then one JSON line.

mod h1;
mod h2;
mod run;

use clap::Parser;
use std::net::SocketAddr;

/// Loads a proxy and answers behind it.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Protocol on both sides: h1 or h2.
    #[arg(long, default_value = "h1")]
    pub(crate) protocol: String,
    /// The proxy.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Where to answer what the proxy sends on.
    #[arg(long)]
    pub(crate) backend: SocketAddr,
    /// Connections to the proxy.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Streams on each; 1 for h1.
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Requests per second; 0 sends the next request when an answer is there.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// Exactly so many requests instead of a time.
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Measured time.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Time before it.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm: f64,
    /// Bytes of an answer.
    #[arg(long, default_value_t = 1024)]
    pub(crate) response: usize,
    /// Path that is asked for.
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
}

#[expect(clippy::print_stdout, reason = "its output is its purpose")]
fn main() -> anyhow::Result<()> {
    let result = run::run(&Args::parse())?;
    println!("{result}");
    Ok(())
}
