//! `envoy.filters.http.on_demand`: a cluster that this proxy does not know yet is asked for while the request waits.
//!
//! Placed before the router: it never answers by itself. A cluster that does not come in time leaves the request to the
//! router, which says so (LR-5).

use super::{Decision, Step, StreamCx};
use crate::message::Request;
use crate::refusal::Refusal;
use crate::xds::Kind;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::config_source::ConfigSourceSpecifier;
use proto::envoy::http_filters::on_demand::v3::OnDemand as Written;
use proto::envoy::wkt::Any;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits where nothing is configured, as in Envoy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Clusters on demand.
#[derive(Debug, Clone, Copy)]
pub struct OnDemand {
    timeout: Duration,
}

/// Parses the filter.
///
/// # Errors
/// A source other than the aggregated stream, and virtual hosts on demand: not supported yet.
pub fn parse(typed: &Any) -> Result<OnDemand, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let odcds = written.odcds.ok_or_else(|| Refusal::unsupported("on demand without odcds"))?;
    let source = odcds.source.and_then(|source| source.config_source_specifier);
    if !matches!(source, Some(ConfigSourceSpecifier::Ads(_))) {
        return Err(Refusal::unsupported("odcds.source other than ads"));
    }
    if !odcds.resources_locator.is_empty() {
        return Err(Refusal::unsupported("odcds.resources_locator"));
    }
    let timeout = odcds.timeout.as_ref().map(from_proto).filter(|timeout| !timeout.is_zero());
    Ok(OnDemand { timeout: timeout.unwrap_or(TIMEOUT) })
}

impl OnDemand {
    pub(super) fn on_request<'a>(self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let choice =
            cx.route(&rq.head).and_then(|route| route.choose(&rq.head, cx.random).map(|choice| choice.cluster));
        let Some(name) = choice.filter(|name| cx.cluster(name).is_none()) else { return Step::CONTINUE };
        Step::Wait(Box::pin(async move {
            self.ask(&Arc::from(name), cx).await;
            Decision::Continue
        }))
    }

    /// Many requests may ask for the same cluster: the feed asks once.
    async fn ask(self, name: &Arc<str>, cx: &StreamCx) {
        let Some(feed) = &cx.facts.feed else { return };
        let arrives = cx.facts.clusters.arrival(name);
        feed.demand(Kind::Cluster, Arc::clone(name)).await;
        if tokio::time::timeout(self.timeout, arrives).await.is_err() {
            tracing::debug!(cluster = &**name, "cluster did not come in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        let read = |odcds: serde_json::Value| {
            let name = "envoy.extensions.filters.http.on_demand.v3.OnDemand";
            let value = proto::json::from_value(name, &odcds).unwrap();
            parse(&Any { type_url: format!("type.googleapis.com/{name}"), value })
        };
        assert_eq!(read(json!({"odcds": {"source": {"ads": {}}}})).unwrap().timeout, TIMEOUT);
        let given = read(json!({"odcds": {"source": {"ads": {}}, "timeout": "0.2s"}})).unwrap();
        assert_eq!(given.timeout, Duration::from_millis(200));
        for refused in [
            json!({}),
            json!({"odcds": {"source": {"path": "/x"}}}),
            json!({"odcds": {"source": {"ads": {}}, "resources_locator": "xdstp://a/b"}}),
        ] {
            assert!(read(refused.clone()).unwrap_err().why.contains("not supported yet"), "{refused}");
        }
    }
}
