//! `meshctl tap`: requests as they pass (CT-43).

use crate::output;
use crate::reach::{At, Part, Reach, Wanted};
use crate::tap::filter::More;
use crate::tap::stream::{Admin, Refused};
use crate::tap::{Filter, Stream, text};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Time that the proxies have after the end for what they still have to say.
const GRACE: Duration = Duration::from_millis(500);

/// How requests are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Shape {
    /// A line each.
    #[default]
    Text,
    /// Two lines each: with route, cluster, endpoint, identity and trace.
    Wide,
    /// A line of JSON each.
    Json,
    /// The lines of linkerd's viz tap: req, rsp and end.
    Linkerd,
}

/// `meshctl tap`.
///
/// Proxies show requests as they end, for as long as the command runs; who does not tap pays nothing. A request between
/// two tapped workloads is shown by both: out of the one, into the other.
///
/// Values of query parameters are hidden, headers are shown by name alone (-H), and authorization, cookie, set-cookie
/// and proxy-authorization never are. What is beyond --max-rps is counted and said at the end.
///
/// Exit code: 0 when the time is over or after Ctrl-C; 1 where no proxy can be tapped or all of them have ended.
///
/// Examples:
///   meshctl tap reviews --to ratings
///   meshctl tap deploy/productpage-v1 --status 5xx -o wide
///   meshctl tap ns/default --path /api -H 'end-user: jason' --seconds 30 -o json
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TapArgs {
    /// Whose proxies: NAME, deploy/NAME, svc/NAME (all of its pods), ns/NAME or pod/NAME; .NAMESPACE may follow.
    #[arg(required_unless_present = "admin")]
    target: Option<Wanted>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    more: More,
    #[command(flatten)]
    at: Proxies,
    /// How to show them.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
}

/// Where proxies answer.
#[derive(Debug, Clone, clap::Args)]
pub struct Proxies {
    /// The mesh.
    #[command(flatten)]
    pub at: At,
    /// Namespace of names without one.
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Admin address of a proxy, host:port or unix:/path, instead of a name; may be repeated.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "target")]
    pub admin: Vec<String>,
}

impl Proxies {
    /// Opens taps at the proxies that are meant; says of which it cannot.
    ///
    /// # Errors
    /// Where none can be tapped.
    pub async fn tap(&self, target: Option<&Wanted>, filter: &Filter, more: &More) -> anyhow::Result<Stream> {
        let mut proxies: Vec<Admin> = self.admin.iter().cloned().map(Admin::At).collect();
        if let Some(target) = target {
            let reach = self.at.reach().await;
            let found = reach.pods(target, self.namespace.as_deref()).await?;
            let connected = connected(&reach).await?;
            let (with, without): (Vec<_>, Vec<_>) = found.into_iter().partition(|pod| connected.contains(&pod.id()));
            for pod in &without {
                output::note(&format!("{} has no proxy that is connected", pod.id()));
            }
            anyhow::ensure!(!with.is_empty(), "none of them has a proxy: tap who talks to them, such as --to NAME");
            proxies.extend(with.into_iter().map(|pod| Admin::Of(reach.clone(), pod)));
        }
        let (stream, refused) = Stream::open(&proxies, &filter.path_and_query(more), filter.max_rps).await;
        refused.iter().for_each(|(proxy, why)| output::note(&format!("{}: {}", proxy.name(), why_not(why))));
        anyhow::ensure!(refused.len() < proxies.len(), "no proxy can be tapped");
        Ok(stream)
    }
}

/// Names of the proxies that pilot knows.
async fn connected(reach: &Reach) -> anyhow::Result<Vec<String>> {
    let proxies = Part::Pilot.list(None, reach, "/debug/syncz").await?;
    let names = proxies.iter().filter_map(|proxy| proxy["proxy"].as_str());
    Ok(names.map(str::to_owned).collect())
}

fn why_not(why: &Refused) -> String {
    match why {
        Refused::Envoy => "its proxy is a real Envoy (or older than this command). Envoy shows requests only through a tap \
                           filter in each of its filter chains, and no object of Istio puts one there. What works: tap a \
                           workload at the other end whose proxy is ours, meshctl top and stat, failed requests on the page \
                           (meshctl dashboard), its access log"
            .to_owned(),
        Refused::Other(error) => format!("{error:#}"),
    }
}

/// Shows requests until the time is over.
///
/// # Errors
/// Where no proxy can be tapped, or all have ended before the time.
pub async fn run(args: TapArgs) -> anyhow::Result<()> {
    let seconds = args.more.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let until = seconds.map(|seconds| Instant::now() + seconds);
    let mut stream = args.at.tap(args.target.as_ref(), &args.filter, &args.more).await?;
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let over = loop {
        tokio::select! {
            next = stream.next() => match next {
                Some((proxy, line, request)) => show(args.output, &proxy, line, &request)?,
                None => break until.is_some_and(|until| Instant::now() + GRACE >= until),
            },
            // The proxies end by themselves, and say what they left out.
            () = end(until) => break true,
            _ = &mut interrupt => break true,
        }
    };
    let (over_cap, slow) = stream.left_out();
    if over_cap > 0 {
        output::note(&format!("left out: {over_cap} requests beyond {} per second (--max-rps)", args.filter.max_rps));
    }
    if slow > 0 {
        output::note(&format!("left out: {slow} requests because they were not read fast enough"));
    }
    anyhow::ensure!(over, "all proxies have ended: {}", stream.ended().join(", "));
    Ok(())
}

async fn end(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until + GRACE).await,
        None => std::future::pending().await,
    }
}

fn show(shape: Shape, proxy: &str, mut line: serde_json::Value, request: &crate::tap::Request) -> anyhow::Result<()> {
    output::say(&match shape {
        Shape::Text => text::line(None, request),
        Shape::Wide => text::wide(proxy, request),
        Shape::Linkerd => text::linkerd(proxy, request),
        Shape::Json => {
            line["proxy"] = proxy.into();
            line.to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-43
    #[test]
    fn an_envoy_is_explained_with_what_works_instead() {
        let text = why_not(&Refused::Envoy);
        assert!(text.contains("a real Envoy") && text.contains("tap filter") && text.contains("meshctl top"), "{text}");
    }
}
