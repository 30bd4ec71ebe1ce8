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
    /// Show the tags of a mesh, their revisions, and the namespaces that have them.
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
    let before = tags(&cluster, namespace).await?.remove(&args.tag);
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

/// Labels of the tags of a mesh, or of one of them: another mesh may have tags of the same names.
fn of_mesh(namespace: &str, tag: Option<&str>) -> String {
    let tag = tag.map_or_else(|| TAG.to_owned(), |tag| format!("{TAG}={tag}"));
    format!("{tag},{OWNER}={namespace}")
}

/// Tags of a mesh and their revisions.
async fn tags(cluster: &Cluster, namespace: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let found = cluster.labelled("MutatingWebhookConfiguration", &of_mesh(namespace, None)).await?;
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
    for (tag, revision) in tags(&cluster, &place.control_plane).await? {
        let own = spaces.get(&tag).cloned().unwrap_or_default();
        table.row([tag.clone(), revision.clone(), own.join(",")]);
        values.push(json!({"tag": tag, "revision": revision, "namespaces": own}));
    }
    if values.is_empty() {
        let namespace = &place.control_plane;
        output::note(&format!("there is no tag in {namespace}: meshctl tag set NAME --revision REVISION makes one"));
    }
    output::show(format, &table, &Value::Array(values))
}

async fn remove(tag: &str, place: &Place, sure: bool) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&place.at).await?;
    let namespace = &place.control_plane;
    let known = tags(&cluster, namespace).await?;
    anyhow::ensure!(
        known.contains_key(tag),
        "there is no tag {tag:?} in {namespace}; there are: {}",
        known.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    if let Some(own) = namespaces(&cluster).await?.get(tag).filter(|_| !sure) {
        anyhow::bail!(
            "the namespaces {} have this tag: new pods of them would get no sidecar; -y removes it all the same",
            own.join(", ")
        );
    }
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for (name, _) in cluster.labelled(kind, &of_mesh(namespace, Some(tag))).await? {
            cluster.delete(&name).await?;
        }
    }
    output::say(&format!("✔ the tag {tag} is removed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::fake::{Fake, refused};

    /// Two meshes with a tag prod, of other revisions.
    fn meshes(asked: &str) -> (u16, Value) {
        let (method, path) = asked.split_once(' ').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let all = [("istio-system", "1-0"), ("second", "2-0")];
        let objects = all.iter().flat_map(|(namespace, revision)| webhook::of_tag("prod", revision, namespace));
        let is_chosen = |object: &Value| {
            let owner = format!("{OWNER}={}", object["metadata"]["labels"][OWNER].as_str().unwrap());
            !query.contains("%2Fnamespace") || query.contains(&owner.replace('/', "%2F").replace('=', "%3D"))
        };
        match (method, path.rsplit('/').next().unwrap()) {
            ("DELETE", _) => (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            (_, "mutatingwebhookconfigurations") => {
                let items: Vec<Value> = objects.filter(is_chosen).collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            (_, "namespaces" | "validatingwebhookconfigurations") => {
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}))
            }
            _ => refused(404),
        }
    }

    // spec: CT-26, IN-31
    #[tokio::test]
    async fn a_tag_is_its_meshs_own() {
        let fake = Fake::new(meshes).await;
        let cluster = Cluster::connect(&fake.place("second").at).await.unwrap();
        let own = BTreeMap::from([("prod".to_owned(), "2-0".to_owned())]);
        assert_eq!(tags(&cluster, "second").await.unwrap(), own);
        let error = remove("prod", &fake.place("third"), false).await.unwrap_err().to_string();
        assert_eq!(error, "there is no tag \"prod\" in third; there are: ");
        remove("prod", &fake.place("second"), false).await.unwrap();
        let asked = fake.asked();
        let deleted: Vec<&str> = asked.iter().filter_map(|asked| asked.strip_prefix("DELETE ")).collect();
        assert!(matches!(deleted[..], [one] if one.contains("/istio-revision-tag-prod-second")), "{deleted:?}");
    }
}
