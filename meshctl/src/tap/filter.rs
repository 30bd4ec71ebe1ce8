//! Which requests are wanted.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;

/// Most requests per second that a proxy shows.
const MAX_RPS: i64 = 1000;
/// Longest time that a proxy shows requests, in seconds.
const MAX_SECONDS: i64 = 3600;

/// Which requests are shown. What is not said takes everything.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only requests to this workload or service, or to a namespace: NAME, NAME.NAMESPACE or ns/NAME.
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Only requests from this workload or namespace.
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Only requests of this method; may be repeated.
    #[arg(long)]
    pub method: Vec<String>,
    /// Only requests whose path begins so; may be repeated.
    #[arg(long, value_name = "PREFIX")]
    pub path: Vec<String>,
    /// Only requests for this host, with or without its port; may be repeated.
    #[arg(long, value_name = "HOST")]
    pub authority: Vec<String>,
    /// Only requests of this scheme: http or https.
    #[arg(long)]
    pub scheme: Option<String>,
    /// Only answers of this status: 404, 500-503 or 5xx; may be repeated.
    #[arg(long)]
    pub status: Vec<String>,
    /// Most requests per second that are shown, up to 1000; what is beyond is counted.
    #[arg(long, default_value_t = 100, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=MAX_RPS))]
    pub max_rps: u32,
}

/// What `tap` may say beyond that.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct More {
    /// Only one way of a proxy: in or out.
    #[arg(long, value_parser = ["in", "out"])]
    pub direction: Option<String>,
    /// Show this header; with a value only requests that have it: 'end-user: jason'. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME[: VALUE]")]
    pub headers: Vec<String>,
    /// Only requests that took as long, such as 20ms.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub min_duration: Option<Duration>,
    /// Show the values of query parameters, which are hidden otherwise.
    #[arg(long)]
    pub show_query: bool,
    /// Show requests when they begin, too.
    #[arg(long)]
    pub open: bool,
    /// End after so many seconds; up to 3600, which is also where it ends by itself.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=MAX_SECONDS))]
    pub seconds: Option<u32>,
}

fn duration(text: &str) -> Result<Duration, String> {
    proto::duration::parse(text).map_err(|error| error.to_string())
}

impl Filter {
    /// The path and query that ask a proxy.
    pub fn path_and_query(&self, more: &More) -> String {
        let mut query = vec![("max_per_second", self.max_rps.to_string())];
        for (own, name, namespace) in
            [(&self.to, "destination", "destination_namespace"), (&self.from, "source", "source_namespace")]
        {
            query.extend(own.as_ref().map(|text| match text.split_once('/') {
                Some(("ns" | "namespace", found)) => (namespace, found.to_owned()),
                Some((_, found)) => (name, found.to_owned()),
                None => (name, text.clone()),
            }));
        }
        let lists = [
            ("method", &self.method),
            ("path_prefix", &self.path),
            ("authority", &self.authority),
            ("status", &self.status),
        ];
        query.extend(lists.iter().flat_map(|(name, values)| values.iter().map(|value| (*name, value.clone()))));
        query.extend(self.scheme.iter().map(|scheme| ("scheme", scheme.clone())));
        more.add(&mut query);
        let pair = |(name, value): &(&str, String)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        format!("/tap?{}", query.iter().map(pair).collect::<Vec<_>>().join("&"))
    }
}

impl More {
    fn add(&self, query: &mut Vec<(&'static str, String)>) {
        query.extend(self.direction.iter().map(|way| ("direction", format!("{way}bound"))));
        for header in &self.headers {
            let name = header.split(':').next().unwrap_or_default().trim();
            query.push(("show_header", name.to_owned()));
            if header.contains(':') {
                query.push(("header", header.clone()));
            }
        }
        query.extend(self.min_duration.map(|least| ("min_duration_ms", least.as_millis().to_string())));
        query.extend(self.seconds.map(|seconds| ("seconds", seconds.to_string())));
        let flags = [("show_query", self.show_query), ("open", self.open)];
        query.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name, "true".to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        more: More,
    }

    fn query(flags: &[&str]) -> String {
        let flags = Flags::parse_from(std::iter::once(&"x").chain(flags));
        flags.filter.path_and_query(&flags.more)
    }

    // spec: CT-43
    #[test]
    fn flags_become_the_query_of_the_proxy() {
        assert_eq!(query(&[]), "/tap?max_per_second=100");
        assert_eq!(
            query(&[
                "--to",
                "svc/reviews",
                "--from",
                "ns/shop",
                "--method",
                "GET",
                "--path",
                "/a b",
                "--status",
                "5xx"
            ]),
            "/tap?max_per_second=100&destination=reviews&source_namespace=shop&method=GET&path_prefix=%2Fa%20b&status=5xx"
        );
        assert_eq!(
            query(&["-H", "end-user: jason", "-H", "x-id", "--direction", "in", "--min-duration", "1.5s"]),
            "/tap?max_per_second=100&direction=inbound&show_header=end%2Duser&header=end%2Duser%3A%20jason\
             &show_header=x%2Did&min_duration_ms=1500"
        );
        assert_eq!(
            query(&["--max-rps", "5", "--seconds", "3", "--show-query", "--open"]),
            "/tap?max_per_second=5&seconds=3&show_query=true&open=true"
        );
        assert!(Flags::try_parse_from(["x", "--max-rps", "1001"]).is_err());
    }
}
