//! `meshctl version`.

use crate::output::{self, Format, Table};
use serde_json::json;

/// `meshctl version`.
#[derive(Debug, Clone, clap::Args)]
pub struct VersionArgs {
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Only the version itself.
    #[arg(short, long)]
    short: bool,
}

/// Shows the version of this program.
///
/// # Errors
/// Where standard output is closed.
pub async fn run(args: VersionArgs) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if args.short {
        return output::say(version);
    }
    let mut table = Table::new(&["COMPONENT", "VERSION"]);
    table.row(["client", version]);
    output::show(args.output, &table, &json!({"clientVersion": {"version": version}}))
}
