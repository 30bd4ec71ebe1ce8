//! `meshctl experimental check-inject`: whether a pod gets a sidecar, from whom, and why (CT-17).

use super::injector::hooks;
use crate::injector::hook::Labels;
use crate::output::{self, Format, Table, paint};
use crate::reach::cluster::said;
use crate::reach::{Place, Wanted};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt as _;
use kube::api::Api;
use owo_colors::Style;
use serde_json::{Value, json};

/// `meshctl experimental check-inject`.
///
/// Examples:
///   meshctl x check-inject details-v1-fcff6c49c-kqnfk.shop
///   meshctl x check-inject deploy/details-v1 -n shop
///   meshctl x check-inject -n shop -l app=hello,version=v1
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CheckInjectArgs {
    /// A pod that there is, or the first one of a workload: NAME, deploy/NAME or pod/NAME; .NAMESPACE may follow.
    #[arg(required_unless_present = "labels")]
    name: Option<Wanted>,
    /// Labels of a pod that is to be, as app=hello,version=v1.
    #[arg(short, long, value_parser = labels, conflicts_with = "name")]
    labels: Option<Labels>,
    #[command(flatten)]
    at: Place,
    /// Namespace of a name without one, or of the pod that is to be.
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn labels(text: &str) -> Result<Labels, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?}: KEY=VALUE is needed"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect()
}

/// Shows what each injector does.
///
/// # Errors
/// Where there is no such pod; what the API server says.
pub async fn run(args: CheckInjectArgs) -> anyhow::Result<()> {
    let cluster = args.at.cluster().await?;
    let (space, pod) = match &args.name {
        Some(name) => {
            let pods = cluster.pods(name, args.namespace.as_deref()).await?;
            let first = pods.first().context("no pod")?;
            let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &first.namespace);
            let pod = api.get(&first.name).await.map_err(said).with_context(|| first.id())?;
            (first.namespace.clone(), pod.labels().clone())
        }
        None => {
            let space = args.namespace.clone().unwrap_or_else(|| cluster.namespace().to_owned());
            (space, args.labels.clone().unwrap_or_default())
        }
    };
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = api.get(&space).await.map_err(said).with_context(|| format!("namespace {space}"))?;
    let mut table = Table::new(&["WEBHOOK", "REVISION", "INJECTED", "REASON"]);
    let mut values = Vec::new();
    for hook in hooks(&cluster).await? {
        let verdict = hook.verdict(namespace.labels(), &pod);
        let mark = if verdict.injected { "✔" } else { "✘" };
        table.row([hook.name.as_str(), &hook.revision, mark, &verdict.reason]);
        values.push(json!({
            "webhook": hook.name, "revision": hook.revision, "injected": verdict.injected, "reason": verdict.reason,
        }));
    }
    let several = values.iter().filter(|value| value["injected"] == true).count() > 1;
    anyhow::ensure!(!values.is_empty(), "nothing injects: meshctl install brings the webhook");
    output::show(args.output, &table, &Value::Array(values))?;
    if several {
        output::note(&paint(
            "several webhooks inject: a pod would have two proxies; remove a label",
            Style::new().red(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let both = labels("app=a, version=v1").unwrap();
        assert_eq!((both["app"].as_str(), both["version"].as_str(), both.len()), ("a", "v1", 2));
        assert!(labels("app").is_err());
    }
}
