//! `meshctl describe pod|service`: what the mesh does with it (CT-15).

use crate::analyze::View;
use crate::describe::{pod, service};
use crate::offline::Offline;
use crate::reach::{At, Reach, Wanted};
use crate::{demo, live, output};
use anyhow::Context as _;

/// `meshctl describe`.
///
/// Examples:
///   meshctl describe pod productpage-v1-5d4f-x.default
///   meshctl describe pod deploy/productpage-v1
///   meshctl describe service reviews -n default
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct DescribeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// A pod, or the first one of a workload.
    #[command(visible_alias = "po")]
    Pod {
        /// NAME, deploy/NAME or pod/NAME; .NAMESPACE may follow.
        name: Wanted,
        #[command(flatten)]
        common: Common,
        /// Do not complain about a pod without a proxy.
        #[arg(long, alias = "ignoreUnmeshed")]
        ignore_unmeshed: bool,
    },
    /// A service.
    #[command(visible_alias = "svc")]
    Service {
        /// NAME; .NAMESPACE may follow.
        name: Wanted,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    at: At,
    /// Namespace of a name without one.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Describes.
///
/// # Errors
/// Where there is no such thing, or who knows does not answer.
pub async fn run(args: DescribeArgs) -> anyhow::Result<()> {
    let (What::Pod { common, .. } | What::Service { common, .. }) = &args.what;
    let reach = common.at.reach().await;
    let offline = mesh(&reach).await?;
    let view = View::new(&offline);
    let namespace = |name: &Wanted| {
        let given = name.namespace().map(str::to_owned).or_else(|| common.namespace.clone());
        given.unwrap_or_else(|| match &reach {
            Reach::Cluster(cluster) => cluster.namespace().to_owned(),
            _ => "default".to_owned(),
        })
    };
    let lines = match &args.what {
        What::Pod { name, ignore_unmeshed, .. } => {
            let pods = reach.pods(name, common.namespace.as_deref()).await?;
            let first = pods.first().context("no pod")?;
            let found = pod::find(&view, &first.namespace, &first.name);
            pod::lines(&view, found.with_context(|| format!("{} is gone", first.id()))?, *ignore_unmeshed)
        }
        What::Service { name, .. } => {
            let space = namespace(name);
            let found = service::find(&view, &space, name.bare()).with_context(|| {
                let known = view.offline.mesh.services.iter().filter(|service| *service.key.namespace == *space);
                let known: Vec<&str> = known.map(|service| service.name.as_str()).collect();
                format!("no service {:?} in {space}; there are: {}", name.bare(), known.join(", "))
            })?;
            service::lines(&view, found)
        }
    };
    lines.iter().try_for_each(|line| output::say(line))
}

/// The mesh as it is configured now.
async fn mesh(reach: &Reach) -> anyhow::Result<Offline> {
    match reach {
        Reach::Cluster(cluster) => live::offline(cluster, &[]).await,
        Reach::Demo(name) => {
            let (directory, settings) = demo::configuration(name)?;
            Offline::read(&[directory], Some(&settings))
        }
        Reach::Nowhere(why) => anyhow::bail!("{why}"),
    }
}
