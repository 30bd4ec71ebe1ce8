//! `meshctl diagnostics`: raw metrics, as linkerd's command of this name gives them (CT-47).

use crate::admin::Target;
use crate::output;
use crate::reach::{At, Part};
use anyhow::Context as _;
use hyper::Method;

/// `meshctl diagnostics`. What pilot told a proxy has meshctl proxy-config, what policies decide meshctl x authz and explain.
#[derive(Debug, Clone, clap::Args)]
pub struct DiagnosticsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// All metrics of a proxy, in Prometheus' text.
    ProxyMetrics(Box<ProxyMetrics>),
    /// All metrics of pilot, citadel and mixer, of each of their pods.
    ControllerMetrics(ControllerMetrics),
}

/// Which proxy.
#[derive(Debug, Clone, clap::Args)]
struct ProxyMetrics {
    #[command(flatten)]
    target: Target,
}

/// Which mesh.
#[derive(Debug, Clone, clap::Args)]
struct ControllerMetrics {
    #[command(flatten)]
    at: At,
    /// Address of pilot's metrics alone.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
}

/// Shows the metrics.
///
/// # Errors
/// Where nobody answers.
pub async fn run(args: DiagnosticsArgs) -> anyhow::Result<()> {
    match args.what {
        What::ProxyMetrics(of) => {
            let (name, page) = of.target.page(Method::GET, "/stats/prometheus").await?;
            say(&name, &page)
        }
        What::ControllerMetrics(of) => of.show().await,
    }
}

impl ControllerMetrics {
    async fn show(&self) -> anyhow::Result<()> {
        let reach = self.at.reach().await;
        let all = [Part::PilotMetrics, Part::CitadelMetrics, Part::MixerMetrics];
        let wanted = if self.pilot.is_some() { all.get(..1).unwrap_or_default() } else { &all };
        let mut refused = None;
        let mut any = false;
        for part in wanted {
            match part.of_all(self.pilot.as_deref(), &reach, "/metrics").await {
                Ok(pages) => {
                    any = true;
                    pages.iter().try_for_each(|(pod, page)| say(pod, page))?;
                }
                // A part that is not installed, or has no port for this in a demo, costs only its own.
                Err(error) => {
                    output::note(&format!("{error:#}"));
                    refused = Some(error);
                }
            }
        }
        refused.filter(|_| !any).map_or(Ok(()), Err)
    }
}

/// The text of a page, under a comment that says whose it is.
fn say(name: &str, page: &[u8]) -> anyhow::Result<()> {
    output::say(&shown(name, std::str::from_utf8(page).with_context(|| format!("what {name} gives is no text"))?))
}

fn shown(name: &str, text: &str) -> String {
    format!("#\n# {name}\n#\n{}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with a metric; gives the first line that was asked.
    async fn part() -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n").await.unwrap();
            String::from_utf8_lossy(&asked[..n]).lines().next().unwrap().to_owned()
        });
        (address, answering)
    }

    // spec: CT-47
    #[tokio::test]
    async fn metrics_of_a_part_are_asked_for_and_say_whose_they_are() {
        let (address, answering) = part().await;
        let of = ControllerMetrics { at: At::demo("none"), pilot: Some(address) };
        run(DiagnosticsArgs { what: What::ControllerMetrics(of) }).await.unwrap();
        assert_eq!(answering.await.unwrap(), "GET /metrics HTTP/1.1");
        assert_eq!(shown("istiod-0", "x 1\n"), "#\n# istiod-0\n#\nx 1");
        let nobody = ControllerMetrics { at: At::demo("none"), pilot: Some("127.0.0.1:1".to_owned()) };
        assert!(nobody.show().await.is_err());
    }
}
