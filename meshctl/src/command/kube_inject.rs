//! `meshctl kube-inject`: what the webhook would do, done to files (CT-13).

use crate::install::{Spec, render};
use crate::output;
use crate::reach::Place;
use anyhow::{Context as _, ensure};
use pilot::admission::{NativeSidecars, Origin};
use pilot::inject::{Config, MeshSettings, Namespaces, Outcome, Settings, Values, into_object};
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest text that is read.
const MAX_INPUT_BYTES: u64 = 256 << 20;

/// `meshctl kube-inject`.
///
/// Workloads in the files (Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod, List) get the sidecar that the
/// webhook would give their pods; everything else comes out as it went in. The settings are those of the cluster's mesh, of an
/// installation that is yet to be (--operatorFileName), or of files. Where there is no kubeconfig they are a default
/// installation's.
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

/// Injects and writes.
///
/// # Errors
/// Where a file or the settings of the cluster cannot be read, or an object cannot be injected.
pub async fn run(args: &KubeInjectArgs) -> anyhow::Result<()> {
    let settings = settings(args).await?;
    let text = read(&args.filename)?;
    let (result, skipped) = injected(&text, &settings)?;
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
async fn settings(args: &KubeInjectArgs) -> anyhow::Result<Settings> {
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
    let files = [&args.inject_config_file, &args.values_file, &args.mesh_config_file];
    let mut settings = match &args.operator_file {
        Some(path) => of_installation(&[read(path)?]).with_context(|| format!("{}", path.display()))?,
        None if files.iter().all(|file| file.is_some()) => of_installation(&[])?,
        None => of_cluster(args).await?,
    };
    of(args.inject_config_file.as_ref(), &mut settings.config, Config::parse)?;
    of(args.values_file.as_ref(), &mut settings.values, Values::parse)?;
    of(args.mesh_config_file.as_ref(), &mut settings.mesh, MeshSettings::parse)?;
    if !args.revision.is_empty() {
        settings.revision.clone_from(&args.revision);
    }
    settings.native_sidecars = args.native_sidecars.unwrap_or(settings.native_sidecars);
    Ok(settings)
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

/// Settings of the cluster's mesh; without any kubeconfig those of a default installation.
async fn of_cluster(args: &KubeInjectArgs) -> anyhow::Result<Settings> {
    let cluster = match args.at.cluster().await {
        Ok(cluster) => cluster,
        Err(error) if args.at.at.is_named() => return Err(error),
        Err(_) => {
            output::note("there is no kubeconfig: the settings are those of a default installation");
            return of_installation(&[]);
        }
    };
    let native = match args.native_sidecars {
        None => NativeSidecars::Auto,
        Some(true) => NativeSidecars::True,
        Some(false) => NativeSidecars::False,
    };
    let mesh = args.mesh_config_file.as_ref().map(|path| read(path)).transpose()?;
    let (client, namespace, revision) = (cluster.client, cluster.control_plane, args.revision.clone());
    let origin = Origin { client, namespace, revision, mesh, native };
    pilot::admission::read(&origin).await.context(
        "the settings of the cluster's mesh; name its namespace with -i, or give what shall hold: --operatorFileName, or \
         --values-file, --mesh-config-file and --inject-config-file",
    )
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

/// The text with sidecars, and a line for each workload that gets none.
fn injected(text: &str, settings: &Settings) -> anyhow::Result<(String, Vec<String>)> {
    let (mut result, mut skipped) = (Vec::new(), Vec::new());
    for (index, document) in documents(text).into_iter().enumerate() {
        let parsed: Result<Value, _> = serde_saphyr::from_str(&document);
        let mut object = parsed.map_err(|error| anyhow::anyhow!("document {}: {error}", index + 1))?;
        let outcome = into_object(&mut object, settings, &Namespaces::new());
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
    use pilot::inject::{ClusterPath, Input, Pod, owner_of_pod, patch, run as inject};
    use serde_json::json;

    const FILE: &str = "# a shop\napiVersion: v1\nkind: Service\nmetadata: {name: shop} # stays\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop, namespace: ns}\nspec:\n  template:\n    metadata:\n      labels: {app: shop, version: '1'}\n      annotations: {port: '8080', on: 'true', time: '12:30', empty: ''}\n    spec:\n      containers:\n      - {name: app, image: a, ports: [{containerPort: 80}]}\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {metadata: {labels: {sidecar.istio.io/inject: 'false'}}, spec: {containers: []}}}\n";

    fn settings() -> Settings {
        of_installation(&[]).unwrap()
    }

    /// The pod that the webhook is asked about where a controller makes it from the template, as it answers.
    fn by_webhook(template: &Value) -> Value {
        let mut asked = template.clone();
        asked["metadata"]["generateName"] = json!("shop-7b-");
        asked["metadata"]["labels"]["pod-template-hash"] = json!("7b");
        asked["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7b", "controller": true}]);
        let (pod, settings, cluster) = (Pod::new(asked.clone()).unwrap(), settings(), ClusterPath::default());
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
        let (text, skipped) = injected(FILE, &settings()).unwrap();
        assert_eq!(skipped, ["Job once: not injected: the pod has sidecar.istio.io/inject=false"]);
        let parts = documents(&text);
        assert_eq!(parts[0], "# a shop\napiVersion: v1\nkind: Service\nmetadata: {name: shop} # stays\n");
        assert_eq!(parts[2], documents(FILE)[2]);
        let written: Value = serde_saphyr::from_str(&parts[1]).unwrap();
        let before: Value = serde_saphyr::from_str(&documents(FILE)[1]).unwrap();
        assert_eq!(written["spec"]["template"], by_webhook(&before["spec"]["template"]));
        assert_eq!(written["spec"]["template"]["metadata"]["annotations"]["time"], "12:30", "texts stay texts");
        let again = injected(&text, &settings()).unwrap().0;
        assert_eq!(again, text, "twice is once");
    }
}
