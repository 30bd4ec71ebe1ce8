//! `meshctl log`: the log levels of a proxy or of a part of the control plane, read and changed while they run (CT-8, CT-22).

use crate::admin::Target;
use crate::output;
use crate::reach::{Part, Reach};
use anyhow::Context as _;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Level of a proxy that was not told another one.
const PROXY_DEFAULT: &str = "warning";
/// The same of the control plane.
const CONTROL_DEFAULT: &str = "info";

/// `meshctl log`.
///
/// Levels hold until the process ends or they are changed again.
///
/// Examples:
///   meshctl log deploy/productpage-v1
///   meshctl log productpage-v1-5d4f-x.default --level http:debug,router:debug
///   meshctl log deploy/productpage-v1 --reset
///   meshctl log --pilot --level debug
///   meshctl log --mixer --reset
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct LogArgs {
    #[command(flatten)]
    target: Target,
    /// Of pilot, all of its pods, instead of a proxy.
    #[arg(long, group = "part", conflicts_with_all = ["workload", "admin", "proxy_admin_port", "file"])]
    pilot: bool,
    /// Of citadel, all of its pods; not in a demo.
    #[arg(long, group = "part", conflicts_with_all = ["workload", "admin", "proxy_admin_port", "file"])]
    citadel: bool,
    /// Of mixer, all of its pods.
    #[arg(long, group = "part", conflicts_with_all = ["workload", "admin", "proxy_admin_port", "file"])]
    mixer: bool,
    /// The new level, of all or of single loggers: debug, or http:debug,router:info.
    #[arg(long, value_name = "LEVEL|LOGGER:LEVEL", conflicts_with = "reset")]
    level: Option<String>,
    /// Back to the level that it has by itself: warning of a proxy, info of the control plane.
    #[arg(short, long)]
    reset: bool,
}

/// Shows the levels, after changing them where that is asked for.
///
/// # Errors
/// Where nobody answers, or a level or logger is not known.
pub async fn run(args: LogArgs) -> anyhow::Result<()> {
    let part =
        [(args.pilot, Part::PilotMetrics), (args.citadel, Part::CitadelMetrics), (args.mixer, Part::MixerMetrics)];
    let part = part.into_iter().find_map(|(asked, part)| asked.then_some(part));
    let default = if part.is_some() { CONTROL_DEFAULT } else { PROXY_DEFAULT };
    let level = args.level.as_deref().or_else(|| args.reset.then_some(default));
    if let Some(part) = part {
        let reach = args.target.at().reach().await;
        if part == Part::CitadelMetrics && matches!(reach, Reach::Demo(_)) {
            anyhow::bail!("--citadel: that of a demo has no port for this; its log is in the demo's directory");
        }
        let path = level.map_or_else(|| "/logging".to_owned(), |level| format!("/logging?level={}", encoded(level)));
        for (pod, page) in part.of_all(None, &reach, &path).await? {
            output::say(&format!("{pod}: {}", text(&page)?))?;
        }
        return Ok(());
    }
    let (name, page) = args.target.page(Method::POST, &proxy_path(level)).await?;
    output::say(&format!("{name}:\n{}", text(&page)?))
}

/// What a proxy is asked: one level is for all loggers, pairs are for single ones.
fn proxy_path(level: Option<&str>) -> String {
    match level {
        None => "/logging".to_owned(),
        Some(pairs) if pairs.contains(':') => format!("/logging?paths={}", encoded(pairs)),
        Some(level) => format!("/logging?level={}", encoded(level)),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn text(page: &[u8]) -> anyhow::Result<&str> {
    Ok(std::str::from_utf8(page).context("the answer is no text")?.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-8
    #[test]
    fn a_level_is_for_all_loggers_and_pairs_for_single_ones() {
        assert_eq!(proxy_path(None), "/logging");
        assert_eq!(proxy_path(Some("debug")), "/logging?level=debug");
        assert_eq!(proxy_path(Some("http:debug,router:info")), "/logging?paths=http%3Adebug%2Crouter%3Ainfo");
    }
}
