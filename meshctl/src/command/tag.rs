//! `meshctl tag`: other names for revisions, so that namespaces need no new label at an upgrade (CT-26, IN-31).

use crate::install::cluster::{Cluster, Name, TAG};
use crate::install::objects::{OWNER, REVISION, webhook};
use crate::install::spec::is_label;
use crate::output::{self, Format, Table};
use crate::reach::Place;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `meshctl tag`.
///
/// A namespace with the label istio.io/rev=TAG gets its sidecars from the revision that the tag stands for. The tag default
/// answers istio-injection=enabled.
///
/// Examples:
///   meshctl install --revision 2-0
///   meshctl tag set prod --revision 2-0
///   kubectl label namespace shop istio.io/rev=prod
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TagArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Make a tag, or move it.
    Set(SetArgs),
    /// Write a tag's objects as YAML.
    Generate(GenerateArgs),
    /// Show tags, their revisions, and the namespaces that have them.
    List {
        #[command(flatten)]
        place: Place,
        /// How to show the result.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take a tag away.
    Remove {
        /// Its name.
        tag: String,
        #[command(flatten)]
        place: Place,
        /// Ask nothing, where namespaces still have it.
        #[arg(long, short = 'y', alias = "yes")]
        skip_confirmation: bool,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct SetArgs {
    /// Its name.
    #[arg(value_parser = label)]
    tag: String,
    /// The revision that it stands for; default is the one without a name.
    #[arg(long, short = 'r', value_name = "NAME")]
    revision: String,
    /// Move a tag that there is.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, clap::Args)]
struct GenerateArgs {
    /// Its name.
    #[arg(value_parser = label)]
    tag: String,
    /// The revision that it stands for.
    #[arg(long, short = 'r', value_name = "NAME")]
    revision: String,
    /// Namespace of the control plane.
    #[arg(short = 'i', long = "istioNamespace", value_name = "NAME", default_value = "istio-system")]
    control_plane: String,
}

fn label(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("small letters, digits and - are needed".to_owned()) }
}

/// Works on tags.
///
/// # Errors
/// Where there is no such tag or revision; what the API server says.
pub async fn run(args: TagArgs) -> anyhow::Result<()> {
    match args.what {
        What::Set(args) => set(args).await,
        What::Generate(args) => {
            for object in webhook::of_tag(&args.tag, &args.revision, &args.control_plane) {
                let text = serde_saphyr::to_string(&object).context("YAML")?;
                output::say(&format!("{}\n---", text.trim_end()))?;
            }
            Ok(())
        }
        What::List { place, output } => list(&place, output).await,
        What::Remove { tag, place, skip_confirmation } => remove(&tag, &place, skip_confirmation).await,
    }
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&args.place.at).await?;
    let namespace = &args.place.control_plane;
    let pilots = cluster.pilots(namespace).await?;
    let known: Vec<&str> = pilots.keys().map(String::as_str).collect();
    anyhow::ensure!(
        known.contains(&args.revision.as_str()),
        "there is no revision {:?} in {namespace}; there are: {}",
        args.revision,
        known.join(", ")
    );
    let before = tags(&cluster).await?.remove(&args.tag);
    if let Some(revision) = before.filter(|revision| *revision != args.revision) {
        let moved = format!("the tag {:?} stands for {revision}: --overwrite moves it", args.tag);
        anyhow::ensure!(args.overwrite, moved);
    }
    let own = match injection(&cluster, namespace, &args.revision).await? {
        Some(name) => cluster.get(&name).await?,
        None => None,
    };
    let bundle = own.map(|own| own.data["webhooks"][0]["clientConfig"]["caBundle"].clone()).unwrap_or_default();
    for mut object in webhook::of_tag(&args.tag, &args.revision, namespace) {
        // pilot fills it in as well; until then pods would be refused.
        for hook in object["webhooks"].as_array_mut().into_iter().flatten().filter(|_| bundle.is_string()) {
            hook["clientConfig"]["caBundle"] = bundle.clone();
        }
        cluster.apply(&object).await?;
    }
    if args.tag == "default" && args.revision != "default" && pilots.contains_key("default") {
        // Two that answer the same label would inject twice.
        if let Some(name) = injection(&cluster, namespace, "default").await? {
            cluster.delete(&name).await?;
        }
        output::say(
            "the default revision injects no more: meshctl tag remove default, then meshctl install, brings it back",
        )?;
    }
    output::say(&format!("✔ the tag {} stands for the revision {}: restart pods to move them", args.tag, args.revision))
}

/// The configuration of a revision's own injection; none where a tag does it.
async fn injection(cluster: &Cluster, namespace: &str, revision: &str) -> anyhow::Result<Option<Name>> {
    let own = format!("{}={namespace},{REVISION}={revision},!{TAG}", OWNER);
    let found = cluster.labelled("MutatingWebhookConfiguration", &own).await?;
    Ok(found.into_iter().map(|(name, _)| name).next())
}

/// Tags and their revisions.
async fn tags(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let found = cluster.labelled("MutatingWebhookConfiguration", TAG).await?;
    let text = |labels: &BTreeMap<String, String>, name: &str| labels.get(name).cloned().unwrap_or_default();
    Ok(found.iter().map(|(_, labels)| (text(labels, TAG), text(labels, REVISION))).collect())
}

/// Namespaces by the revision or tag that they name.
async fn namespaces(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, labels) in cluster.labelled("Namespace", "").await? {
        let named = match labels.get("istio-injection").map(String::as_str) {
            Some("enabled") => Some("default".to_owned()),
            Some(_) => None,
            None => labels.get(REVISION).cloned(),
        };
        if let Some(named) = named {
            found.entry(named).or_default().push(name.name);
        }
    }
    Ok(found)
}

async fn list(place: &Place, format: Format) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&place.at).await?;
    let spaces = namespaces(&cluster).await?;
    let mut table = Table::new(&["TAG", "REVISION", "NAMESPACES"]);
    let mut values = Vec::new();
    for (tag, revision) in tags(&cluster).await? {
        let own = spaces.get(&tag).cloned().unwrap_or_default();
        table.row([tag.clone(), revision.clone(), own.join(",")]);
        values.push(json!({"tag": tag, "revision": revision, "namespaces": own}));
    }
    if values.is_empty() {
        output::note("there is no tag: meshctl tag set NAME --revision REVISION makes one");
    }
    output::show(format, &table, &Value::Array(values))
}

async fn remove(tag: &str, place: &Place, sure: bool) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&place.at).await?;
    let known = tags(&cluster).await?;
    anyhow::ensure!(
        known.contains_key(tag),
        "there is no tag {tag:?}; there are: {}",
        known.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    if let Some(own) = namespaces(&cluster).await?.get(tag).filter(|_| !sure) {
        anyhow::bail!(
            "the namespaces {} have this tag: new pods of them would get no sidecar; -y removes it all the same",
            own.join(", ")
        );
    }
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for (name, labels) in cluster.labelled(kind, TAG).await? {
            if labels.get(TAG).is_some_and(|own| own == tag) {
                cluster.delete(&name).await?;
            }
        }
    }
    output::say(&format!("✔ the tag {tag} is removed"))
}
