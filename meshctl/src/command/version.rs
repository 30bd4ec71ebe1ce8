//! `meshctl version`: of this program, of pilot, and of the proxies that pilot knows (spec CT-27).

use super::status;
use crate::output::{self, Format, Table};
use crate::reach::{At, Part};
use anyhow::Context;
use serde_json::json;
use std::collections::BTreeMap;

/// `meshctl version`.
#[derive(Debug, Clone, clap::Args)]
pub struct VersionArgs {
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Only the versions themselves, a line each.
    #[arg(short, long)]
    short: bool,
    /// Ask pilot too.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    remote: bool,
    /// Address of pilot's debug pages; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    #[command(flatten)]
    at: At,
}

/// Shows the versions. A pilot that does not answer costs only its own lines, unless its address was given.
///
/// # Errors
/// Where standard output is closed, or the pilot that was named does not answer.
pub async fn run(args: VersionArgs) -> anyhow::Result<()> {
    let mut lines = vec![("client", env!("CARGO_PKG_VERSION").to_owned())];
    let mut values = json!({"clientVersion": {"version": env!("CARGO_PKG_VERSION")}});
    if args.remote {
        match remote(&args).await {
            Ok((pilot, proxies)) => {
                values["meshVersion"] = json!([{"Component": "pilot", "Info": {"version": pilot}}]);
                values["dataPlaneVersion"] = json!(proxies);
                lines.push(("control plane", pilot));
                lines.push(("data plane", grouped(&proxies)));
            }
            Err(error) if args.pilot.is_some() => return Err(error),
            Err(error) => output::complain(&error),
        }
    }
    if args.short && matches!(args.output, Format::Table) {
        return lines
            .iter()
            .try_for_each(|(component, version)| output::say(&format!("{component} version: {version}")));
    }
    let mut table = Table::new(&["COMPONENT", "VERSION"]);
    for (component, version) in lines {
        table.row([component, version.as_str()]);
    }
    output::show(args.output, &table, &values)
}

/// The version of pilot, and how many proxies have which.
async fn remote(args: &VersionArgs) -> anyhow::Result<(String, BTreeMap<String, usize>)> {
    let (address, reach) = (args.pilot.as_deref(), args.at.reach().await);
    let pilot = Part::Pilot.get(address, &reach, "/version").await?;
    let pilot = std::str::from_utf8(&pilot).context("the version that pilot gives is no text")?.trim().to_owned();
    let mut proxies = BTreeMap::new();
    for proxy in Part::Pilot.list(address, &reach, "/debug/syncz").await? {
        *proxies.entry(status::version_of(&proxy)).or_default() += 1;
    }
    Ok((pilot, proxies))
}

/// `1.0 (2 proxies), 1.1 (1 proxy)`, as istioctl says it.
fn grouped(proxies: &BTreeMap<String, usize>) -> String {
    if proxies.is_empty() {
        return "none".to_owned();
    }
    let one = |(version, count): (&String, &usize)| {
        format!("{version} ({count} {})", if *count == 1 { "proxy" } else { "proxies" })
    };
    proxies.iter().map(one).collect::<Vec<_>>().join(", ")
}
