//! `meshctl dashboard`: opens the page that shows the mesh, or that of an addon, of a proxy, or of pilot (CT-30).

use crate::output;
use crate::reach::{At, Part, Pod, Reach, Stream, Wanted};
use anyhow::Context;
use std::process::Stdio;
use tokio::net::TcpListener;

/// Port of a proxy's admin interface, as it is named to people.
const PROXY_PORT: u16 = proto::wire::PORT_ADMIN;

/// Which page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Page {
    /// Mixer's live page of the mesh.
    Mesh,
    /// Prometheus.
    Prometheus,
    /// Grafana.
    Grafana,
    /// Kiali.
    Kiali,
    /// Jaeger.
    Jaeger,
    /// Zipkin.
    Zipkin,
    /// Skywalking.
    Skywalking,
    /// The admin interface of a proxy.
    #[value(alias = "envoy")]
    Proxy,
    /// Pilot's debug pages.
    IstiodDebug,
    /// istiod's control page, which this mesh has not.
    Controlz,
}

/// `meshctl dashboard`.
///
/// A port of this machine leads to the page until Ctrl-C. Its address is printed and opened in a browser. Addons are looked for
/// in the namespace of the control plane, by the labels of Istio's samples.
///
/// Examples:
///   meshctl dashboard
///   meshctl dashboard grafana --browser=false
///   meshctl dashboard proxy deploy/productpage-v1
///   meshctl dashboard proxy -l app=productpage -n shop
///   meshctl dashboard istiod-debug
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DashboardArgs {
    /// Which page.
    #[arg(value_enum, default_value = "mesh", hide_default_value = true, value_name = "PAGE")]
    what: Page,
    /// Whose proxy: a pod or workload.
    #[arg(value_name = "NAME")]
    pod: Option<Wanted>,
    #[command(flatten)]
    at: At,
    /// Namespace of a name without one.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Labels of the pod whose proxy is meant, instead of a name.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", conflicts_with = "pod")]
    selector: Option<String>,
    /// Address of mixer's page (its port 8080), or of pilot's (8080); that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    page: Option<String>,
    /// Address of this machine to listen on.
    #[arg(long, default_value = "localhost")]
    address: String,
    /// Port on it; 0 picks a free one.
    #[arg(short, long, default_value_t = 0)]
    port: u16,
    /// Port of the addon in its pod, where it is not its own.
    #[arg(long, value_name = "PORT")]
    ui_port: Option<u16>,
    /// Open a browser (xdg-open).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    browser: bool,
}

/// Forwards to the page until Ctrl-C.
///
/// # Errors
/// Where the page does not answer, or the port is taken.
pub async fn run(args: DashboardArgs) -> anyhow::Result<()> {
    let reach = args.at.reach().await;
    let goal = Goal::of(&args, &reach).await?;
    // Who gets no page should hear it now, not from the browser.
    drop(goal.connect(&reach).await?);
    let listener = TcpListener::bind((args.address.as_str(), args.port)).await;
    let listener =
        listener.with_context(|| format!("{}:{}: choose another with --address, --port", args.address, args.port))?;
    let url = format!("http://{}{}", listener.local_addr()?, args.what.path());
    output::say(&format!("{}: {url} (Ctrl-C ends)", args.what.title()))?;
    if args.browser {
        open(&url);
    }
    tokio::select! {
        ended = forward(&listener, &goal, &reach) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

impl Page {
    fn title(self) -> &'static str {
        match self {
            Self::Mesh => "The mesh",
            Self::Prometheus => "Prometheus",
            Self::Grafana => "Grafana",
            Self::Kiali => "Kiali",
            Self::Jaeger => "Jaeger",
            Self::Zipkin => "Zipkin",
            Self::Skywalking => "Skywalking",
            Self::Proxy => "The proxy",
            Self::IstiodDebug => "Pilot",
            Self::Controlz => "ControlZ",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Kiali => "/kiali",
            Self::IstiodDebug => "/debug",
            _ => "/",
        }
    }

    /// Labels and port of an addon of Istio's samples.
    fn addon(self) -> Option<(&'static str, u16)> {
        Some(match self {
            Self::Prometheus => ("app.kubernetes.io/name=prometheus", 9090),
            Self::Grafana => ("app.kubernetes.io/name=grafana", 3000),
            Self::Kiali => ("app=kiali", 20001),
            Self::Jaeger => ("app=jaeger", 16686),
            Self::Zipkin => ("app=zipkin", 9411),
            Self::Skywalking => ("app=skywalking-ui", 8080),
            Self::Mesh | Self::Proxy | Self::IstiodDebug | Self::Controlz => return None,
        })
    }
}

/// Where connections lead.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    Part(Part, Option<String>),
    Proxy(Pod),
    Port(Pod, u16),
}

impl Goal {
    async fn of(args: &DashboardArgs, reach: &Reach) -> anyhow::Result<Self> {
        if let Some((labels, port)) = args.what.addon() {
            let title = args.what.title();
            let Reach::Cluster(cluster) = reach else {
                anyhow::bail!("{title} is an addon of a cluster: name one with --kubeconfig FILE or --context NAME");
            };
            let namespace = args.namespace.as_deref().unwrap_or(&cluster.control_plane);
            let pod = cluster.labelled(namespace, labels).await?.into_iter().next().with_context(|| {
                format!("no pod with {labels} runs in {namespace}: install {title}, or name its namespace with -n")
            })?;
            return Ok(Self::Port(pod, args.ui_port.unwrap_or(port)));
        }
        match args.what {
            Page::IstiodDebug => Ok(Self::Part(Part::Pilot, args.page.clone())),
            Page::Proxy => Ok(Self::Proxy(proxy(args, reach).await?)),
            Page::Controlz => anyhow::bail!(
                "this mesh has no ControlZ: meshctl log --pilot shows and changes log levels, meshctl dashboard istiod-debug has \
                 what pilot knows, and pilot's port 15014 its metrics"
            ),
            _ => Ok(Self::Part(Part::MixerPage, args.page.clone())),
        }
    }

    async fn connect(&self, reach: &Reach) -> anyhow::Result<Stream> {
        match (self, reach) {
            (Self::Part(part, address), _) => part.connect(address.as_deref(), reach).await,
            (Self::Port(pod, port), Reach::Cluster(cluster)) => cluster.forward(pod, *port).await,
            (Self::Proxy(pod) | Self::Port(pod, _), _) => reach.proxy(pod).await,
        }
    }
}

/// The pod whose proxy is meant.
async fn proxy(args: &DashboardArgs, reach: &Reach) -> anyhow::Result<Pod> {
    let namespace = args.namespace.as_deref();
    let pods = match (&args.pod, &args.selector, reach) {
        (Some(pod), ..) => reach.pods(pod, namespace).await?,
        (None, Some(labels), Reach::Cluster(cluster)) => {
            cluster.labelled(namespace.unwrap_or_else(|| cluster.namespace()), labels).await?
        }
        (None, Some(_), _) => anyhow::bail!("-l needs a cluster: name the workload"),
        (None, None, _) => {
            anyhow::bail!(
                "whose proxy (its port {PROXY_PORT})? Name a pod or a workload, as deploy/reviews-v1, or -l app=reviews"
            )
        }
    };
    pods.into_iter().next().context("no such pod runs: -n names another namespace")
}

fn open(url: &str) {
    let quiet = || Stdio::null();
    let started =
        std::process::Command::new("xdg-open").arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    if let Err(error) = started {
        output::note(&format!("no browser was opened ({error}): open the address yourself, or use --browser=false"));
    }
}

async fn forward(listener: &TcpListener, goal: &Goal, reach: &Reach) -> anyhow::Result<()> {
    loop {
        let (mut browser, _) = listener.accept().await?;
        let (goal, reach) = (goal.clone(), reach.clone());
        tokio::spawn(async move {
            match goal.connect(&reach).await {
                // Either side may leave.
                Ok(mut page) => drop(tokio::io::copy_bidirectional(&mut browser, &mut page).await),
                Err(error) => output::note(&format!("{error:#}")),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        dashboard: DashboardArgs,
    }

    #[tokio::test]
    async fn a_browser_reaches_the_page() {
        let page = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let goal = Goal::Part(Part::MixerPage, Some(page.local_addr().unwrap().to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let forwarding = tokio::spawn(async move { forward(&listener, &goal, &Reach::Demo("none".into())).await });
        let mut browser = tokio::net::TcpStream::connect(own).await.unwrap();
        browser.write_all(b"question").await.unwrap();
        let (mut asked, _) = page.accept().await.unwrap();
        let mut question = [0; 8];
        asked.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        asked.write_all(b"page").await.unwrap();
        drop(asked);
        let mut answer = Vec::new();
        browser.read_to_end(&mut answer).await.unwrap_or_default();
        assert_eq!(answer, b"page");
        forwarding.abort();
    }

    // spec: CT-30
    #[tokio::test]
    async fn istioctls_words_lead_to_their_pages_and_teach_where_they_cannot() {
        let reach = Reach::Demo("none".into());
        let goal = async |line: &str| {
            let args = Flags::parse_from(std::iter::once("x").chain(line.split_whitespace())).dashboard;
            Goal::of(&args, &reach).await
        };
        assert_eq!(goal("").await.unwrap(), Goal::Part(Part::MixerPage, None));
        let debug = goal("istiod-debug --page 127.0.0.1:1 --address localhost -p 1 --browser=false").await.unwrap();
        assert_eq!(debug, Goal::Part(Part::Pilot, Some("127.0.0.1:1".to_owned())));
        for (line, way_out) in [
            ("grafana", "--context NAME"),
            ("kiali -i mesh", "--kubeconfig FILE"),
            ("controlz", "meshctl log --pilot"),
            ("envoy", "deploy/reviews-v1"),
            ("proxy -l app=reviews", "name the workload"),
        ] {
            let error = format!("{:#}", goal(line).await.unwrap_err());
            assert!(error.contains(way_out), "{line}: {error}");
        }
        let addons = [
            (Page::Prometheus, 9090, "/"),
            (Page::Grafana, 3000, "/"),
            (Page::Kiali, 20001, "/kiali"),
            (Page::Jaeger, 16686, "/"),
            (Page::Zipkin, 9411, "/"),
        ];
        for (page, port, path) in addons {
            assert_eq!((page.addon().map(|(_, port)| port), page.path()), (Some(port), path), "{page:?}");
        }
    }
}
