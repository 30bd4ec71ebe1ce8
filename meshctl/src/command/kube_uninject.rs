//! `meshctl experimental kube-uninject`: what `kube-inject` has put into files, taken out again (CT-49).

use super::kube_inject::{documents, joined, read, write};
use crate::output;
use anyhow::Context as _;
use pilot::inject::out_of_object;
use serde_json::Value;
use std::path::PathBuf;

/// `meshctl experimental kube-uninject`.
///
/// Workloads in the files that have a sidecar come out without it, with their own probes and annotations for Prometheus again,
/// and with the label sidecar.istio.io/inject=false, so that the webhook gives their pods none; everything else comes out as it
/// went in.
///
/// Examples:
///   meshctl x kube-uninject -f shop-injected.yaml | kubectl apply -f -
///   kubectl get deployment -o yaml | meshctl x kube-uninject -f - | kubectl apply -f -
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct KubeUninjectArgs {
    /// File with the objects, or - for standard input.
    #[arg(short, long, value_name = "FILE|-")]
    filename: PathBuf,
    /// Where the result goes; standard output where it is not given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Takes sidecars out and writes.
///
/// # Errors
/// Where a file cannot be read, or an object is none.
pub fn run(args: &KubeUninjectArgs) -> anyhow::Result<()> {
    let (result, without) = plain(&read(&args.filename)?)?;
    without.iter().for_each(|object| output::note(&format!("{object}: the sidecar is taken out")));
    write(args.output.as_deref(), &result)
}

/// The text without sidecars, and who had one.
fn plain(text: &str) -> anyhow::Result<(String, Vec<String>)> {
    let (mut result, mut without) = (Vec::new(), Vec::new());
    for (index, document) in documents(text).into_iter().enumerate() {
        let parsed: Result<Value, _> = serde_saphyr::from_str(&document);
        let mut object = parsed.map_err(|error| anyhow::anyhow!("document {}: {error}", index + 1))?;
        let found = out_of_object(&mut object).with_context(|| format!("document {}", index + 1))?;
        result.push(if found.is_empty() { document } else { serde_saphyr::to_string(&object).context("YAML")? });
        without.extend(found);
    }
    Ok((joined(&result), without))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot::inject::{Config, MeshSettings, Namespaces, Settings, Values, into_object};
    use serde_json::json;

    /// A workload with everything that injection changes.
    fn shop() -> Value {
        let app = json!({
            "name": "shop", "image": "a", "ports": [{"containerPort": 8080, "name": "web"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTPS"}, "periodSeconds": 3, "timeoutSeconds": 2},
            "livenessProbe": {"tcpSocket": {"port": 8080}},
            "startupProbe": {"grpc": {"port": 9000}},
            "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 8080}}},
        });
        let own = json!([{"name": "data", "emptyDir": {}}]);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "ns"},
            "spec": {"replicas": 2, "template": {
                "metadata": {
                    "labels": {"app": "shop", "version": "v1"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/m", "own": "kept"},
                },
                "spec": {
                    "initContainers": [{"name": "first", "image": "b"}], "containers": [app, {"name": "istio-proxy", "image": "auto", "env": [{"name": "A", "value": "b"}]}],
                    "volumes": own, "imagePullSecrets": [{"name": "mine"}],
                },
            }},
        })
    }

    fn settings(native_sidecars: bool, sets: &Value) -> Settings {
        let (config, mesh) = (Config::built_in(), MeshSettings::default());
        Settings { config, values: Values::new(sets), mesh, revision: String::new(), native_sidecars }
    }

    fn yaml(object: &Value) -> String {
        serde_saphyr::to_string(object).unwrap()
    }

    // spec: CT-49
    #[test]
    fn what_was_injected_comes_out_as_it_was() {
        let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
        let secrets = json!({"global": {"imagePullSecrets": ["theirs"]}});
        for (native, sets, object) in [(true, &json!({}), shop()), (false, &secrets, shop()), (true, &secrets, bare)] {
            let mut injected = object.clone();
            into_object(&mut injected, &settings(native, sets), &Namespaces::new()).unwrap();
            assert_ne!(injected, object);
            let service = "# a shop\napiVersion: v1\nkind: Service\nmetadata: {name: shop} # stays\n";
            let (text, without) = plain(&format!("{service}---\n{}", yaml(&injected))).unwrap();
            assert_eq!(without.len(), 1);
            let parts = documents(&text);
            assert_eq!(parts[0], service);
            let mut expected = object;
            let pod = if expected["kind"] == "Pod" { &mut expected } else { &mut expected["spec"]["template"] };
            pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
            // What was said about a container of ours goes with it.
            pod["spec"]["containers"].as_array_mut().unwrap().truncate(1);
            let written: Value = serde_saphyr::from_str(&parts[1]).unwrap();
            assert_eq!(written, expected);
        }
    }

    // spec: CT-49
    #[test]
    fn lists_are_looked_through_and_what_has_no_sidecar_stays() {
        let mut injected = shop();
        into_object(&mut injected, &settings(true, &json!({})), &Namespaces::new()).unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [shop(), injected]});
        let (text, without) = plain(&yaml(&list)).unwrap();
        assert_eq!(without, ["Deployment ns/shop"]);
        let written: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(written["items"][0], shop());
        assert_eq!(plain(&text).unwrap(), (text, Vec::new()), "twice is once");
    }
}
