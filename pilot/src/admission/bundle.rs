//! The objects by which the API server finds the webhooks: which roots vouch for them, and that they are obligatory once
//! they are known to work (PI-48, PI-54).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Error, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Time between two looks at the roots, and between two attempts at what did not succeed.
const LOOK: Duration = Duration::from_secs(2);
/// Label of the objects that are a revision's.
const REVISION: &str = "istio.io/rev";
/// The kinds, by their plurals.
const KINDS: [(&str, &str); 2] = [
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    (VALIDATING, "validatingwebhookconfigurations"),
];
/// What an API server says where our webhook has refused an object.
const DENIED: &str = "validation.istio.io\" denied the request";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

/// Keeps the webhook configurations of a revision current.
pub struct Bundle {
    /// The way to the API server.
    pub client: Client,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Revision; empty is the default one.
    pub revision: String,
    /// File with the roots that vouch for the webhooks.
    pub roots: PathBuf,
}

impl Bundle {
    /// Works for ever.
    ///
    /// # Errors
    /// Never: an API server that is away is waited for.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut held: BTreeMap<(&'static str, String), DynamicObject> = BTreeMap::new();
        let mut changes = self.changes();
        let mut proven = false;
        loop {
            tokio::select! {
                Some((kind, name, object)) = changes.next() => drop(match object {
                    Some(object) => held.insert((kind, name), object),
                    None => held.remove(&(kind, name)),
                }),
                () = tokio::time::sleep(LOOK) => {}
            }
            let Some(roots) = self.roots() else { continue };
            for ((kind, name), object) in &mut held {
                let Some(wanted) = self.wanted(kind, object, &roots, proven) else { continue };
                match self.api(kind).replace(name, &PostParams::default(), &wanted).await {
                    Ok(written) => {
                        tracing::info!(kind, name, obligatory = proven, "webhook configuration is current");
                        *object = written;
                    }
                    // The watch brings what another has written.
                    Err(error) => tracing::debug!(kind, name, "webhook configuration: {error}"),
                }
            }
            let waits = held.iter().any(|((kind, _), object)| *kind == VALIDATING && ignores(object));
            proven |= waits && self.refuses_what_is_invalid().await;
        }
    }

    fn own_revision(&self) -> &str {
        if self.revision.is_empty() { "default" } else { &self.revision }
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let plural = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, plural)| *plural).unwrap_or_default();
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(self.client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural))
    }

    /// Kind, name, and the object unless it is gone.
    fn changes(&self) -> BoxStream<'static, (&'static str, String, Option<DynamicObject>)> {
        let streams = KINDS.map(|(kind, _)| {
            let own = Config::default().labels(&format!("{REVISION}={}", self.own_revision()));
            let changes = watcher(self.api(kind), own).default_backoff();
            let taken = move |event: watcher::Result<Event<DynamicObject>>| async move {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        Some((kind, object.name_any(), Some(object)))
                    }
                    Ok(Event::Delete(object)) => Some((kind, object.name_any(), None)),
                    Ok(Event::Init | Event::InitDone) => None,
                    Err(error) => {
                        tracing::debug!(kind, "{error}");
                        None
                    }
                }
            };
            changes.filter_map(taken).boxed()
        });
        futures_util::stream::select_all(streams).boxed()
    }

    /// The roots as the API server wants them.
    fn roots(&self) -> Option<String> {
        match std::fs::read(&self.roots) {
            Ok(pem) => Some(STANDARD.encode(pem)),
            Err(error) => {
                tracing::warn!(path = %self.roots.display(), "roots of the webhooks: {error}");
                None
            }
        }
    }

    /// The configuration as it should be; none where it is.
    fn wanted(&self, kind: &str, object: &DynamicObject, roots: &str, proven: bool) -> Option<DynamicObject> {
        let mut wanted = object.clone();
        for webhook in wanted.data["webhooks"].as_array_mut().into_iter().flatten() {
            let service = &webhook["clientConfig"]["service"];
            if service.is_object() && service["namespace"] != json!(self.namespace) {
                continue;
            }
            webhook["clientConfig"]["caBundle"] = json!(roots);
            if kind == VALIDATING && proven {
                webhook["failurePolicy"] = json!("Fail");
            }
        }
        (wanted.data != object.data).then_some(wanted)
    }

    async fn refuses_what_is_invalid(&self) -> bool {
        let refused = refuses_what_is_invalid(&self.client, &self.namespace, self.own_revision()).await;
        refused.unwrap_or_else(|error| {
            tracing::debug!("whether validation is asked cannot be seen yet: {error}");
            false
        })
    }
}

/// Whether the API server asks the validation of a revision: it refuses a Gateway without servers, which is never stored.
///
/// # Errors
/// What else the API server says, such as that nobody answers for the webhook.
pub async fn refuses_what_is_invalid(client: &Client, namespace: &str, revision: &str) -> kube::Result<bool> {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "Gateway");
    let resource = ApiResource::from_gvk_with_plural(&kind, "gateways");
    let mut invalid = DynamicObject::new("istiod-validation-probe", &resource)
        .data(json!({"spec": {"selector": {"probe": "never"}, "servers": []}}));
    invalid.labels_mut().insert(REVISION.to_owned(), revision.to_owned());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let dry = PostParams { dry_run: true, field_manager: None };
    match api.create(&dry, &invalid).await {
        Ok(_) => Ok(false),
        Err(Error::Api(status)) if status.message.contains(DENIED) => Ok(true),
        Err(error) => Err(error),
    }
}

fn ignores(object: &DynamicObject) -> bool {
    let webhooks = object.data["webhooks"].as_array().into_iter().flatten();
    { webhooks }.any(|webhook: &Value| webhook["failurePolicy"] == "Ignore")
}
