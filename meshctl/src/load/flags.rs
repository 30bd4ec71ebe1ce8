//! Fortio's flags that all of load, curl, grpcping and server take, under the same names and with the same defaults.
//!
//! Fortio's users write one dash (`-qps 8`); [`translate`] makes two of it before clap reads the command line.

use super::format::parse_duration;
use clap::{ArgAction, Command};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Commands whose flags may have one dash.
pub const COMMANDS: &[&str] = &["load", "curl", "server", "grpcping", "tcp-echo", "udp-echo", "redirect"];

/// Time for a connection and for an answer where the flags give none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// Shape of a request, and how connections are made.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Requests and connections (Fortio's flags; one dash or two)")]
pub struct RequestArgs {
    /// Header or gRPC metadata to send; several may be given.
    #[arg(short = 'H', value_name = "KEY:VALUE")]
    pub headers: Vec<String>,
    /// Method; GET where it is not given, POST with a payload or a content type.
    #[arg(short = 'X', value_name = "METHOD", default_value = "")]
    pub method: String,
    /// Content type of the payload.
    #[arg(long, default_value = "", value_name = "TYPE")]
    pub content_type: String,
    /// User and password for basic authentication.
    #[arg(long, default_value = "", value_name = "USER:PASSWORD")]
    pub user: String,
    /// Payload to send. `{uuid}` in it, or in the URL, is another one in each request.
    #[arg(long, default_value = "")]
    pub payload: String,
    /// File with the payload.
    #[arg(long, value_name = "PATH")]
    pub payload_file: Option<PathBuf>,
    /// Size of a random payload, in bytes.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub payload_size: usize,
    /// Follow redirects.
    #[arg(short = 'L', action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub follow: bool,
    /// Time for a connection and for each answer.
    #[arg(long, default_value = "3s", value_parser = parse_timeout, value_name = "DURATION")]
    pub timeout: Duration,
    /// Use connections again.
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub keepalive: bool,
    /// Open a new connection after so many requests, a random number of the range.
    #[arg(long, value_name = "MIN:MAX", value_parser = parse_reuse)]
    pub connection_reuse: Option<Reuse>,
    /// Speak HTTP/2; without TLS too (h2c).
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub h2: bool,
    /// Use the general client (hyper) instead of the fast one.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stdclient: bool,
    /// Speak HTTP/1.0, a connection per request.
    #[arg(long = "http1.0", action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub http10: bool,
    /// Ask for gzip.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub compression: bool,
    /// Without keep-alive, close our half of the connection after the request.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub halfclose: bool,
    /// Buffer of the fast client, in kilobytes; larger answers are counted, not kept.
    #[arg(long, default_value_t = 128, value_name = "KB")]
    pub httpbufferkb: usize,
    /// Heed `Connection: close` of the server; always done, the flag is taken for Fortio's sake.
    #[arg(long, hide = true, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub httpccch: bool,
    /// Do not verify the server's certificate.
    #[arg(short = 'k', alias = "https-insecure", action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: bool,
    /// File with the authorities to trust instead of the system's.
    #[arg(long, value_name = "PATH")]
    pub cacert: Option<PathBuf>,
    /// Our certificate, of a client or of the server.
    #[arg(long, value_name = "PATH", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "PATH", requires = "cert")]
    pub key: Option<PathBuf>,
    /// As a server, ask for certificates signed by --cacert.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub mtls: bool,
    /// Address to use instead of resolving the name.
    #[arg(long, default_value = "", value_name = "IP")]
    pub resolve: String,
    /// Addresses to use of a name.
    #[arg(long, value_enum, default_value_t)]
    pub resolve_ip_type: Family,
    /// Which address of several to use.
    #[arg(long, value_enum, default_value_t)]
    pub dns_method: DnsMethod,
    /// Keep the first address for later connections.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_reresolve: bool,
    /// Unix socket to connect to instead of the address.
    #[arg(long, value_name = "PATH")]
    pub unix_socket: Option<PathBuf>,
    /// Warm the connections up one after the other.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sequential_warmup: bool,
    /// Say which requests fail, the first of them one by one.
    #[arg(long, action = ArgAction::Set, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub log_errors: bool,
    /// How much to say.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    pub loglevel: Level,
    /// Say little: no histograms.
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub quiet: bool,
}

impl RequestArgs {
    /// How much to say.
    pub fn level(&self) -> Level {
        if self.quiet { Level::Error } else { self.loglevel }
    }
}

/// After how many requests a connection is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// At least.
    pub least: u32,
    /// At most.
    pub most: u32,
}

impl Reuse {
    /// A random number of the range; 0 means never.
    pub fn draw(self) -> u32 {
        fastrand::u32(self.least..=self.most)
    }
}

/// Without a time, Fortio takes its default one too.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    Ok(if timeout.is_zero() { DEFAULT_TIMEOUT } else { timeout })
}

fn parse_reuse(text: &str) -> Result<Reuse, String> {
    let number = |part: &str| part.parse().map_err(|_| format!("{text:?} is no range: write 10:30 or 10"));
    let (one, other) = text.split_once(':').unwrap_or((text, text));
    let (one, other): (u32, u32) = (number(one)?, number(other)?);
    Ok(Reuse { least: one.min(other), most: one.max(other) })
}

/// Kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Family {
    /// IPv4.
    #[default]
    Ip4,
    /// IPv6.
    Ip6,
    /// Both.
    Ip,
}

/// Which address of a name a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DnsMethod {
    /// The name is resolved once and the connections take its addresses in turn.
    #[default]
    CachedRr,
    /// A random one.
    Rnd,
    /// The first.
    First,
    /// In turn, resolving each time.
    Rr,
}

/// How much is said, as Fortio's log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub enum Level {
    /// Everything.
    Debug,
    /// Histograms of sizes too.
    Verbose,
    /// Histograms of latencies and connections.
    #[default]
    Info,
    /// Histograms of latencies.
    #[value(alias = "warn")]
    Warning,
    /// Counts only.
    #[value(aliases = ["err", "critical", "crit", "fatal"])]
    Error,
}

/// Rewrites a command line such as `meshctl load -qps 8 -c 4 URL`: each flag gets the dashes that clap expects and
/// its value by `=`, so that values may begin with a dash (`-qps -1`). Other commands are left alone.
pub fn translate<I: IntoIterator<Item = OsString>>(tree: &Command, line: I) -> Vec<OsString> {
    let mut line = line.into_iter();
    let mut out: Vec<OsString> = line.by_ref().take(2).collect();
    let name = out.get(1).and_then(|name| name.to_str()).filter(|name| COMMANDS.contains(name));
    let Some(command) = name.and_then(|name| tree.find_subcommand(name)) else {
        out.extend(line);
        return out;
    };
    while let Some(word) = line.next() {
        if word == "--" {
            out.push(word);
            out.extend(line);
            return out;
        }
        let flag = word.to_str().and_then(|text| text.strip_prefix('-')).filter(|rest| !rest.is_empty());
        let Some(flag) = flag.map(|rest| rest.strip_prefix('-').unwrap_or(rest)) else {
            out.push(word);
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let dashed = dashed(command, name);
        let mut rewritten = OsString::from(&dashed.text);
        match value {
            Some(value) => rewritten.push(format!("={value}")),
            None if dashed.takes_value => {
                if let Some(value) = line.next() {
                    rewritten.push("=");
                    rewritten.push(value);
                }
            }
            None => {}
        }
        out.push(rewritten);
    }
    out
}

struct Dashed {
    text: String,
    takes_value: bool,
}

fn dashed(command: &Command, name: &str) -> Dashed {
    let is_short = |arg: &clap::Arg| arg.get_short().is_some_and(|short| name.chars().eq([short]));
    let is_long = |arg: &clap::Arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    let takes_value = |arg: &clap::Arg| {
        arg.get_action().takes_values() && arg.get_num_args().is_none_or(|count| count.min_values() > 0)
    };
    if let Some(arg) = command.get_arguments().find(|arg| is_long(arg)) {
        return Dashed { text: format!("--{name}"), takes_value: takes_value(arg) };
    }
    if let Some(arg) = command.get_arguments().find(|arg| is_short(arg)) {
        return Dashed { text: format!("-{name}"), takes_value: takes_value(arg) };
    }
    let dashes = if name == "h" { "-" } else { "--" };
    Dashed { text: format!("{dashes}{name}"), takes_value: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn translated(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        let out = translate(&crate::cli::Cli::command(), words);
        out.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    // spec: FO-10
    #[test]
    fn one_dash_is_as_good_as_two() {
        let cases = [
            ("meshctl load -qps 8 -c 4 http://a/", "meshctl load --qps=8 -c=4 http://a/"),
            ("meshctl load --qps 8 --c 4 http://a/", "meshctl load --qps=8 -c=4 http://a/"),
            ("meshctl load -qps -1 -abort-on=-1 x", "meshctl load --qps=-1 --abort-on=-1 x"),
            ("meshctl load -h2 -keepalive=false -k x", "meshctl load --h2 --keepalive=false -k x"),
            ("meshctl load -H a:b -H -c:d -a x", "meshctl load -H=a:b -H=-c:d -a x"),
            ("meshctl load -p 50,99 -fail-if p99>20ms x", "meshctl load -p=50,99 --fail-if=p99>20ms x"),
            ("meshctl load -https-insecure -help", "meshctl load --https-insecure --help"),
            ("meshctl load -qps 1 -- -c", "meshctl load --qps=1 -- -c"),
            ("meshctl version -s --pilot -x", "meshctl version -s --pilot -x"),
        ];
        for (line, expected) in cases {
            assert_eq!(translated(line), expected);
        }
    }

    // spec: FO-10
    #[test]
    fn of_a_flag_that_stands_twice_the_last_counts() {
        for (line, flag) in [("load -c 4 -c 16 x", "connections"), ("curl -timeout 1s -timeout 16s x", "timeout")] {
            let words =
                translate(&crate::cli::Cli::command(), format!("meshctl {line}").split(' ').map(OsString::from));
            let taken = crate::cli::Cli::command().try_get_matches_from(words).unwrap();
            let (_, taken) = taken.subcommand().unwrap();
            let last: Vec<_> = taken.get_raw(flag).unwrap().collect();
            assert!(last.len() == 1 && last[0].to_string_lossy().starts_with("16"), "{last:?}");
        }
    }

    // spec: FO-16
    #[test]
    fn reuse_is_a_range_or_a_number() {
        assert_eq!(parse_reuse("30:10").unwrap(), Reuse { least: 10, most: 30 });
        assert_eq!(parse_reuse("7").unwrap().draw(), 7);
        assert!(parse_reuse("a:b").is_err());
    }
}
