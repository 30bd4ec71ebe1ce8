//! `meshctl kube-inject`: what the webhook would do, done to files (CT-13).

use crate::install::{Spec, render};
use crate::output;
use crate::reach::cluster::{is_without_kubeconfig, said};
use crate::reach::{Cluster, Place};
use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use pilot::admission::{NativeSidecars, Origin, every_node_knows_native};
use pilot::inject::{Config, MeshSettings, Namespaces, Outcome, Settings, Values, into_object, namespaces};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest text that is read.
const MAX_INPUT_BYTES: u64 = 256 << 20;
/// The way out where a cluster does not say what is needed of it.
const WITHOUT_CLUSTER: &str = "without a cluster give what shall hold: --operatorFileName, or --values-file, \
                               --mesh-config-file and --inject-config-file";

/// `meshctl kube-inject`.
///
/// Workloads in the files (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod, List) get the sidecar that the
/// webhook would give their pods; everything else comes out as it went in. The settings are those of the cluster's mesh, of an
/// installation that is yet to be (--operatorFileName), or of files. Where there is neither a kubeconfig nor a cluster around
/// they are a default installation's.
///
/// Examples:
///   meshctl kube-inject -f shop.yaml | kubectl apply -f -
///   meshctl kube-inject -f shop.yaml --operatorFileName mesh.yaml
///   meshctl kube-inject -f - --values-file values.json --mesh-config-file mesh.yaml -o injected.yaml < shop.yaml
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct KubeInjectArgs {
    /// File with the objects, or - for standard input.
    #[arg(short, long, value_name = "FILE|-")]
    filename: PathBuf,
    /// Where the result goes; standard output where it is not given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The injection configuration: key `config` of the ConfigMap istio-sidecar-injector.
    #[arg(long, alias = "injectConfigFile", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,
    /// The values of the installation: key `values` of that ConfigMap.
    #[arg(long, alias = "valuesFile", value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// The mesh's own settings: key `mesh` of the ConfigMap istio.
    #[arg(long, alias = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// An IstioOperator: what `meshctl install -f FILE` would have proxies injected with. No cluster is asked.
    #[arg(id = "operatorFileName", long = "operatorFileName", alias = "operator-file-name", value_name = "FILE")]
    operator_file: Option<PathBuf>,
    #[command(flatten)]
    at: Place,
    /// The revision that injects; the default one where it is not given.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    revision: String,
    /// Whether proxies become init containers that keep running (Kubernetes 1.33 and later) [default: where every node of the
    /// cluster knows them, or nobody can be asked].
    #[arg(long, action = clap::ArgAction::Set)]
    native_sidecars: Option<bool>,
}

impl KubeInjectArgs {
    fn files(&self) -> [&Option<PathBuf>; 3] {
        [&self.inject_config_file, &self.values_file, &self.mesh_config_file]
    }

    /// The revision; empty for the default one.
    fn revision(&self) -> &str {
        if self.revision == "default" { "" } else { &self.revision }
    }

    /// The cluster that is asked: none where files say all, or there is no kubeconfig.
    async fn cluster(&self) -> anyhow::Result<Option<Cluster>> {
        if self.operator_file.is_some() || self.files().iter().all(|file| file.is_some()) {
            return Ok(None);
        }
        match self.at.cluster().await {
            Err(error) if !self.at.at.is_named() && is_without_kubeconfig(&error) => {
                output::note("there is no kubeconfig: the settings are those of a default installation");
                Ok(None)
            }
            found => found.map(Some).context(WITHOUT_CLUSTER),
        }
    }
}

/// Injects and writes.
///
/// # Errors
/// Where a file or the settings of the cluster cannot be read, or an object cannot be injected.
pub async fn run(args: &KubeInjectArgs) -> anyhow::Result<()> {
    let cluster = args.cluster().await?;
    let settings = settings(args, cluster.as_ref()).await?;
    let mut objects = objects(&read(&args.filename)?)?;
    let annotations = match &cluster {
        Some(cluster) => annotations(cluster, &mut objects).await?,
        None => Namespaces::new(),
    };
    let (result, skipped) = injected(objects, &settings, &annotations)?;
    skipped.iter().for_each(|line| output::note(line));
    write(args.output.as_deref(), &result)
}

/// Writes a text to a file, or to standard output.
pub(super) fn write(path: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => output::say_bytes(text.as_bytes()),
    }
}

/// Documents with lines between them.
pub(super) fn joined(documents: &[String]) -> String {
    documents.iter().map(|document| format!("{}\n", document.trim_end())).collect::<Vec<_>>().join("---\n")
}

/// What files say, laid over what an installation or the cluster says.
async fn settings(args: &KubeInjectArgs, cluster: Option<&Cluster>) -> anyhow::Result<Settings> {
    fn of<T>(
        path: Option<&PathBuf>,
        into: &mut T,
        parse: fn(&str) -> Result<T, pilot::inject::InjectError>,
    ) -> anyhow::Result<()> {
        if let Some(path) = path {
            *into = parse(&read(path)?).with_context(|| format!("{}", path.display()))?;
        }
        Ok(())
    }
    let mut settings = match (cluster, &args.operator_file) {
        (Some(cluster), _) => of_cluster(args, cluster).await?,
        (None, Some(path)) => {
            of_installation(&[read(path)?, with_revision(args)]).with_context(|| format!("{}", path.display()))?
        }
        (None, None) => of_installation(&[with_revision(args)])?,
    };
    let [config, values, mesh] = args.files().map(Option::as_ref);
    of(config, &mut settings.config, Config::parse)?;
    of(values, &mut settings.values, Values::parse)?;
    of(mesh, &mut settings.mesh, MeshSettings::parse)?;
    settings.native_sidecars = args.native_sidecars.unwrap_or(settings.native_sidecars);
    Ok(settings)
}

/// A specification with nothing but the revision that is asked for, in both places where it can be written.
fn with_revision(args: &KubeInjectArgs) -> String {
    match args.revision.as_str() {
        "" => json!({}).to_string(),
        revision => json!({"revision": revision, "values": {"revision": revision}}).to_string(),
    }
}

/// What `meshctl install` would write for pilot to inject by.
pub(crate) fn of_installation(operators: &[String]) -> anyhow::Result<Settings> {
    let spec = Spec::new(operators, &[])?;
    let parts = render(&spec)?;
    let data = |name: &str, key: &str| -> anyhow::Result<String> {
        let name = spec.of_revision(name);
        let mut objects = parts.iter().flat_map(|part| &part.objects).filter(|object| object["kind"] == "ConfigMap");
        let map = objects.find(|map| map["metadata"]["name"] == name);
        let text = map.and_then(|map| map["data"][key].as_str()).context("it installs no pilot")?;
        Ok(text.to_owned())
    };
    Ok(Settings {
        config: Config::parse(&data("istio-sidecar-injector", "config")?)?,
        values: Values::parse(&data("istio-sidecar-injector", "values")?)?,
        mesh: MeshSettings::parse(&data("istio", "mesh")?)?,
        revision: spec.revision(),
        native_sidecars: true,
    })
}

/// Settings of the cluster's mesh.
async fn of_cluster(args: &KubeInjectArgs, cluster: &Cluster) -> anyhow::Result<Settings> {
    let mesh = args.mesh_config_file.as_ref().map(|path| read(path)).transpose()?;
    let (client, namespace, revision) =
        (cluster.client.clone(), cluster.control_plane.clone(), args.revision().to_owned());
    let origin = Origin { client, namespace, revision, mesh, native: NativeSidecars::Auto };
    let settings = pilot::admission::read(&origin).await;
    let mut settings = settings.with_context(|| {
        format!("the settings of the cluster's mesh; name its namespace with -i; {WITHOUT_CLUSTER}")
    })?;
    if args.native_sidecars.is_none() {
        settings.native_sidecars = knows_native(&cluster.client).await?;
    }
    Ok(settings)
}

/// Whether every node knows native sidecars; it is taken for true where the user may not list them.
async fn knows_native(client: &Client) -> anyhow::Result<bool> {
    match every_node_knows_native(client).await {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            output::note(
                "you may not list nodes: proxies become native sidecars; --native-sidecars=false is the other way",
            );
            Ok(true)
        }
        known => known.map_err(said).context("nodes; with --native-sidecars they are not asked"),
    }
}

/// Annotations of the namespaces that the workloads go to: on OpenShift they say the users of pods. A namespace that is yet to
/// be has none.
async fn annotations(cluster: &Cluster, objects: &mut [(String, Value)]) -> anyhow::Result<Namespaces> {
    let mut names = BTreeSet::new();
    for (_, object) in objects {
        names.extend(namespaces(object)?);
    }
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let mut found = Namespaces::new();
    for name in names {
        let asked = if name.is_empty() { cluster.namespace() } else { &name };
        let namespace = api.get_opt(asked).await.map_err(said);
        let namespace = namespace.with_context(|| format!("namespace {asked}; {WITHOUT_CLUSTER}"))?;
        let annotations = namespace.map(|namespace| namespace.annotations().clone()).unwrap_or_default();
        found.insert(name, annotations);
    }
    Ok(found)
}

pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MAX_INPUT_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES).read_to_string(&mut text))
    };
    let length = read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!((length as u64) < MAX_INPUT_BYTES, "{} is larger than {MAX_INPUT_BYTES} bytes", path.display());
    Ok(text)
}

/// The documents of a text: as they are written, and read.
fn objects(text: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let object = |(index, document): (usize, String)| {
        let object = serde_saphyr::from_str(&document);
        let object = object.map_err(|error| anyhow::anyhow!("document {}: {error}", index + 1))?;
        Ok((document, object))
    };
    documents(text).into_iter().enumerate().map(object).collect()
}

/// The text with sidecars, and a line for each workload that gets none.
fn injected(
    objects: Vec<(String, Value)>,
    settings: &Settings,
    annotations: &Namespaces,
) -> anyhow::Result<(String, Vec<String>)> {
    let (mut result, mut skipped) = (Vec::new(), Vec::new());
    for (index, (document, mut object)) in objects.into_iter().enumerate() {
        let outcome = into_object(&mut object, settings, annotations);
        let outcome = outcome.with_context(|| format!("document {}", index + 1))?;
        note(&outcome, &mut skipped);
        result.push(if has_changed(&outcome) {
            serde_saphyr::to_string(&object).map_err(|error| anyhow::anyhow!("cannot write YAML: {error}"))?
        } else {
            document
        });
    }
    Ok((joined(&result), skipped))
}

/// The documents of a text that hold something, comments included.
pub(super) fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        match documents.last_mut() {
            Some(document) if line.trim_end() != "---" => {
                document.push_str(line.strip_prefix("--- ").unwrap_or(line));
                document.push('\n');
            }
            _ => documents.push(String::new()),
        }
    }
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    documents.retain(|document| document.lines().any(says));
    documents
}

fn has_changed(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Injected => true,
        Outcome::List(items) => items.iter().any(has_changed),
        Outcome::Skipped { .. } | Outcome::NoWorkload => false,
    }
}

fn note(outcome: &Outcome, skipped: &mut Vec<String>) {
    match outcome {
        Outcome::Skipped { object, decision } => skipped.push(format!("{object}: {decision}")),
        Outcome::List(items) => items.iter().for_each(|item| note(item, skipped)),
        Outcome::Injected | Outcome::NoWorkload => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::fake::{Fake, refused};
    use clap::Parser as _;
    use pilot::inject::{ClusterPath, Input, Pod, owner_of_pod, patch, run as inject};
    use serde_json::json;

    const FILE: &str = "# a shop\napiVersion: v1\nkind: Service\nmetadata: {name: shop} # stays\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop, namespace: ns}\nspec:\n  template:\n    metadata:\n      labels: {app: shop, version: '1'}\n      annotations: {port: '8080', on: 'true', time: '12:30', empty: ''}\n    spec:\n      containers:\n      - {name: app, image: a, ports: [{containerPort: 80}]}\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {metadata: {labels: {sidecar.istio.io/inject: 'false'}}, spec: {containers: []}}}\n";

    fn usual() -> Settings {
        of_installation(&[]).unwrap()
    }

    /// The pod that the webhook is asked about where a controller makes it from the template, as it answers.
    fn by_webhook(template: &Value) -> Value {
        let mut asked = template.clone();
        asked["metadata"]["generateName"] = json!("shop-7b-");
        asked["metadata"]["labels"]["pod-template-hash"] = json!("7b");
        asked["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7b", "controller": true}]);
        let (pod, settings, cluster) = (Pod::new(asked.clone()).unwrap(), usual(), ClusterPath::default());
        let owner = owner_of_pod(&pod, "ns");
        let namespace_annotations = &Default::default();
        let input = Input { pod: &pod, owner: &owner, namespace_annotations, settings: &settings, cluster: &cluster };
        let change = patch(&asked, &inject(&input).unwrap());
        json_patch::patch(&mut asked, &change).unwrap();
        let metadata = asked["metadata"].as_object_mut().unwrap();
        metadata.retain(|name, _| name == "labels" || name == "annotations");
        metadata["labels"].as_object_mut().unwrap().shift_remove("pod-template-hash");
        asked
    }

    // spec: CT-13, PI-57
    #[test]
    fn a_file_gets_what_the_webhook_gives() {
        let none = Namespaces::new();
        let (text, skipped) = injected(objects(FILE).unwrap(), &usual(), &none).unwrap();
        assert_eq!(skipped, ["Job once: not injected: the pod has sidecar.istio.io/inject=false"]);
        let parts = documents(&text);
        assert_eq!(parts[0], "# a shop\napiVersion: v1\nkind: Service\nmetadata: {name: shop} # stays\n");
        assert_eq!(parts[2], documents(FILE)[2]);
        let written: Value = serde_saphyr::from_str(&parts[1]).unwrap();
        let before: Value = serde_saphyr::from_str(&documents(FILE)[1]).unwrap();
        assert_eq!(written["spec"]["template"], by_webhook(&before["spec"]["template"]));
        assert_eq!(written["spec"]["template"]["metadata"]["annotations"]["time"], "12:30", "texts stay texts");
        let again = injected(objects(&text).unwrap(), &usual(), &none).unwrap().0;
        assert_eq!(again, text, "twice is once");
    }

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        inject: KubeInjectArgs,
    }

    fn flags(flags: &[&str]) -> KubeInjectArgs {
        Flags::parse_from(["x", "-f", "-"].iter().chain(flags)).inject
    }

    /// A mesh with the revisions default and blue, in whose cluster nodes and the namespace secret may not be read.
    fn mesh(asked: &str) -> (u16, Value) {
        let (_, path) = asked.split_once(' ').unwrap();
        match path.split_once("/api/v1/").unwrap().1 {
            "namespaces/istio-system/configmaps/istio-sidecar-injector" => (200, json!({"data": {"values": "{}"}})),
            "namespaces/istio-system/configmaps/istio" => (200, json!({"data": {"mesh": "trustDomain: own"}})),
            "namespaces/shop" => (
                200,
                json!({"metadata": {"name": "shop", "annotations": {"openshift.io/sa.scc.uid-range": "1000/10"}}}),
            ),
            "namespaces/secret" | "nodes?" => refused(403),
            _ => refused(404),
        }
    }

    async fn asked_of(place: Place, more: &[&str], text: &str) -> anyhow::Result<Value> {
        let args = KubeInjectArgs { at: place, ..flags(more) };
        let cluster = args.cluster().await?.unwrap();
        let settings = settings(&args, Some(&cluster)).await?;
        let mut objects = objects(text)?;
        let annotations = annotations(&cluster, &mut objects).await?;
        let (text, _) = injected(objects, &settings, &annotations)?;
        Ok(serde_saphyr::from_str(&text).unwrap())
    }

    // spec: CT-13, IN-22, PI-63
    #[tokio::test]
    async fn a_cluster_is_asked_for_what_the_webhook_is_told() {
        let fake = Fake::new(mesh).await;
        let pod = |namespace: &str| {
            json!({"kind": "Pod", "metadata": {"name": "a", "namespace": namespace}, "spec": {"containers": [{"name": "a"}]}})
                .to_string()
        };
        let user = async |namespace: &str, more: &[&str]| {
            let pod = asked_of(fake.place("istio-system"), more, &pod(namespace)).await?;
            let init = pod["spec"]["initContainers"].as_array().unwrap().iter();
            let proxy = init.clone().find(|one| one["name"] == "istio-proxy").expect("native without a look at nodes");
            anyhow::Ok(proxy["securityContext"]["runAsUser"].clone())
        };
        assert_eq!(user("shop", &[]).await.unwrap(), 1009);
        assert_eq!(user("", &[]).await.unwrap(), 1009, "the namespace of the kubeconfig");
        assert_eq!(user("new", &[]).await.unwrap(), 1337, "one that is yet to be");
        assert_eq!(user("new", &["-r", "default"]).await.unwrap(), 1337, "another word for the one without a name");
        let error = format!("{:#}", user("secret", &[]).await.unwrap_err());
        assert!(error.starts_with("namespace secret; ") && error.ends_with(": Forbidden"), "{error}");
        let error = format!("{:#}", user("new", &["-r", "blue"]).await.unwrap_err());
        assert!(error.contains("there is no ConfigMap istio-system/istio-sidecar-injector-blue"), "{error}");
        let nodes = || fake.asked().iter().filter(|asked| asked.contains("/nodes")).count();
        assert_eq!(nodes(), 5);
        user("new", &["--native-sidecars", "true"]).await.unwrap();
        assert_eq!(nodes(), 0, "it was said");
    }

    // spec: CT-13, PI-61
    #[tokio::test]
    async fn a_revision_has_addresses_of_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{kind: IstioOperator, spec: {values: {revision: green}}}").unwrap();
        // CA_ADDR, and discoveryAddress where it is not the usual one
        for (revision, suffix, count) in [("blue", "-blue", 2), ("default", "", 1)] {
            for more in [&[][..], &["--operatorFileName", file.path().to_str().unwrap()]] {
                let args = flags(&[&["-r", revision], more].concat());
                let settings = settings(&args, None).await.unwrap();
                let (text, _) = injected(objects(FILE).unwrap(), &settings, &Namespaces::new()).unwrap();
                let address = format!("istiod{suffix}.istio-system.svc:15012");
                assert_eq!(text.matches(&address).count(), count, "{more:?} {text}");
                assert!(!text.contains("green"), "{text}");
                assert_eq!(settings.revision, suffix.trim_start_matches('-'));
            }
        }
        assert_eq!(with_revision(&flags(&[])), "{}");
    }
}
