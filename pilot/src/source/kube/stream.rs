//! One list with its watch as a stream that never ends, tried again for ever.

use crate::source::kinds::Row;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use std::time::Duration;

/// What a watch brings.
pub(super) type Changes = BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>>;

/// First time between two tries.
const RETRY: Duration = Duration::from_millis(250);
/// Longest time between two tries: an API server that is back is noticed within it (F26: 5 s).
const LONGEST: Duration = Duration::from_secs(2);
/// Objects per page of a list.
const PAGE: u32 = 500;

/// Releases and tokens are the bulk of Secrets, and no certificates. The key of the CA is nobody's but citadel's.
const NO_CERTIFICATES: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=istio.io/ca-root,metadata.name!=istio-ca-secret,metadata.name!=cacerts";

/// Objects of a row of the table.
pub(super) fn objects(client: &Client, row: &Row, version: &str, namespace: Option<&str>) -> Changes {
    let kind = GroupVersionKind::gvk(row.group, version, row.name);
    let resource = ApiResource::from_gvk_with_plural(&kind, &row.plural());
    let config = match row.name {
        // A pod that has ended has no address any more.
        "Pod" => config().fields("status.phase!=Succeeded,status.phase!=Failed"),
        "Secret" => config().fields(NO_CERTIFICATES),
        // Those of other clusters (PI-15).
        "EndpointSlice" => config().labels("!multicluster.kubernetes.io/service-name"),
        _ => config(),
    };
    if row.is_metadata_alone() {
        return metadata(Api::all_with(client.clone(), &resource), config);
    }
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    for_ever(watcher(api, config).boxed())
}

/// CustomResourceDefinitions.
pub(super) fn definitions(client: &Client) -> Changes {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let resource = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
    // Some are a megabyte of schema each.
    let config = config().page_size(20);
    for_ever(watcher(Api::all_with(client.clone(), &resource), config).boxed())
}

/// One ConfigMap.
pub(super) fn settings(client: &Client, namespace: &str, name: &str) -> Changes {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "ConfigMap"), "configmaps");
    let config = config().fields(&format!("metadata.name={name}"));
    for_ever(watcher(Api::namespaced_with(client.clone(), namespace, &resource), config).boxed())
}

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn metadata(api: Api<PartialObjectMeta<DynamicObject>>, config: watcher::Config) -> Changes {
    let whole = |object: PartialObjectMeta<DynamicObject>| DynamicObject {
        types: object.types,
        metadata: object.metadata,
        data: serde_json::Value::Null,
    };
    let event = move |event| match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(whole(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(whole(object)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(whole(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    };
    for_ever(watcher(api, config).map_ok(event).boxed())
}

fn for_ever(changes: Changes) -> Changes {
    changes.backoff(Pace { next: RETRY }).boxed()
}

/// Times between tries: doubled up to the longest, with up to a quarter of chance.
struct Pace {
    next: Duration,
}

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next.mul_f64(0.75 + 0.25 * fastrand::f64());
        self.next = (self.next * 2).min(LONGEST);
        Some(wait)
    }
}

impl Backoff for Pace {
    fn reset(&mut self) {
        self.next = RETRY;
    }
}

/// Whether the API server answered that this client may not.
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error as Failed;
    match error {
        Failed::InitialListFailed(error) | Failed::WatchStartFailed(error) | Failed::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 403)
        }
        _ => false,
    }
}

/// An error with all that caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = deeper.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_back_is_noticed_in_time() {
        let mut pace = Pace { next: RETRY };
        assert!((&mut pace).take(20).all(|wait| wait <= LONGEST));
        pace.reset();
        assert!(pace.next().unwrap() <= RETRY);
    }
}
