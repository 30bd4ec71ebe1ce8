//! `meshctl edges`: who speaks to whom, by which identities, and whether mutual TLS protects it (CT-44).

use super::stat::Metrics;
use crate::output::{self, Format, Table};
use crate::stat::edge::{self, Edge};
use crate::stat::resource::Named;

/// `meshctl edges`.
///
/// Everything that mixer has counted since it started. An edge is secured where the server's proxy says that every
/// request came by mutual TLS; else SECURED says why not.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct EdgesArgs {
    /// Only edges of this workload, whichever way: NAME or NAME.NAMESPACE; `deploy` alone is every workload, as in linkerd.
    workload: Option<Named>,
    /// Only edges into or out of this namespace; all where none is given.
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    metrics: Metrics,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows the edges.
///
/// # Errors
/// Where mixer does not answer.
pub async fn run(args: EdgesArgs) -> anyhow::Result<()> {
    let mut edges = edge::edges(&args.metrics.scrape().await?);
    edges.retain(|edge| {
        let ends = [(&edge.src, &edge.src_namespace), (&edge.dst, &edge.dst_namespace)];
        let any = |fits: &dyn Fn(&str, &str) -> bool| ends.iter().any(|(name, namespace)| fits(name, namespace));
        args.workload
            .as_ref()
            .is_none_or(|wanted| wanted.is_every() || any(&|name, namespace| wanted.is(name, namespace)))
            && args.namespace.as_ref().is_none_or(|wanted| any(&|_, namespace| wanted == namespace))
    });
    if edges.is_empty() {
        output::note("no edge fits: no request was counted so far");
    }
    output::show(args.output, &table(&edges), &serde_json::to_value(&edges)?)
}

fn table(edges: &[Edge]) -> Table {
    let mut table = Table::new(&["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED"]);
    let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    for edge in edges {
        table.row([
            edge.src.clone(),
            edge.dst.clone(),
            edge.src_namespace.clone(),
            edge.dst_namespace.clone(),
            or(short(&edge.client_id)),
            or(short(&edge.server_id)),
            if edge.secured { "√".to_owned() } else { edge.reason.to_owned() },
        ]);
    }
    table
}

/// An identity without its scheme, as certificates of Istio's tools show it.
fn short(identity: &str) -> &str {
    identity.strip_prefix("spiffe://").unwrap_or(identity)
}
