//! Where a request goes: route, cluster, endpoints, each decided by the code that serves requests.

use super::decide::World;
use super::story::{Endpoint as Shown, Share, Story};
use crate::cluster::{ClusterConfig, Discovery};
use crate::endpoint::{Address, Endpoint, Health, HostSet};
use crate::filter::StreamCx;
use crate::message::{Request, RequestHead};
use crate::outcome::Reason;
use crate::route::{Action, Route};
use crate::telemetry::access_log::object_of;
use std::net::SocketAddr;
use std::sync::Arc;

/// The route of a request, and where it leads.
pub(super) fn route(world: &World, request: &Request, cx: &StreamCx, story: &mut Story) {
    let head = &request.head;
    let Some(route) = cx.route(head) else {
        let host = String::from_utf8_lossy(head.authority()).into_owned();
        story.step("route", host, "failed", Reason::NoRoute.why());
        return fails(Reason::NoRoute, story);
    };
    let object = route.origin.as_deref().and_then(object_of);
    let name = if route.name.is_empty() { "unnamed" } else { &*route.name };
    let by = if route.by_metadata { ", and what the token says" } else { "" };
    let virtual_host = format!("virtual host {}{by}", route.virtual_host);
    story.step("route", name, "matched", virtual_host);
    story.made_by(object);
    let shares = match shares(route, head) {
        Ok(shares) => shares,
        Err((status, because)) => {
            story.outcome.status = Some(status);
            story.outcome.flags = "-".to_owned();
            story.outcome.details = "direct_response".to_owned();
            return story.step("outcome", status.to_string(), "matched", because);
        }
    };
    details(route, story);
    let Some(first) = shares.first().map(|(name, _)| Arc::clone(name)) else {
        return fails(Reason::NoRoute, story);
    };
    story.outcome.clusters =
        shares.into_iter().map(|(name, percent)| Share { cluster: name.to_string(), percent }).collect();
    cluster(world, &first, cx.peer.local, story);
}

/// Clusters with their shares in percent.
type Shares = Vec<(Arc<str>, f64)>;

/// Where a request may go; or what the proxy answers.
fn shares(route: &Route, head: &RequestHead) -> Result<Shares, (u16, String)> {
    match &route.action {
        Action::Weighted(choices, total) => Ok(choices
            .iter()
            .filter(|choice| choice.weight > 0)
            .map(|choice| (Arc::clone(&choice.name), percent(u64::from(choice.weight), *total)))
            .collect()),
        Action::Direct { status, .. } => Err((*status, "the route answers by itself".to_owned())),
        Action::Redirect(redirect) => {
            let location = String::from_utf8_lossy(&redirect.location(head)).into_owned();
            Err((redirect.status, format!("the route redirects to {location}")))
        }
        _ => Ok(route.choose(head, 0).map(|choice| (Arc::from(choice.cluster), 100.0)).into_iter().collect()),
    }
}

/// What else the route does.
fn details(route: &Route, story: &mut Story) {
    let mut said = Vec::new();
    if let Some(limit) = route.timeouts.route {
        said.push(format!("time limit {limit:?}"));
    }
    if let Some(retry) = &route.retry {
        said.push(format!("{} retries", retry.num_retries));
    }
    said.extend(route.mirrors.iter().map(|mirror| format!("a copy to {}", mirror.cluster)));
    if route.path_rewrite.is_some() || route.host_rewrite.is_some() {
        said.push("path or host is rewritten".to_owned());
    }
    if !said.is_empty() {
        story.step("route", "policy of the route", "matched", said.join(", "));
    }
}

/// A part in percent of a whole.
pub(super) fn percent(part: u64, total: u64) -> f64 {
    100.0 * part as f64 / total.max(1) as f64
}

fn fails(reason: Reason, story: &mut Story) {
    let face = reason.face();
    story.outcome.status = Some(face.status);
    story.outcome.flags = face.flags.to_string();
    story.outcome.details = face.details.to_owned();
}

/// A cluster and its endpoints.
pub(super) fn cluster(world: &World, name: &Arc<str>, destination: SocketAddr, story: &mut Story) {
    let Some(cluster) = world.facts.clusters.get(name) else {
        story.step("cluster", &**name, "failed", Reason::UnknownCluster.why());
        return fails(Reason::UnknownCluster, story);
    };
    let hosts = cluster.hosts();
    if cluster.config.discovery == Discovery::OriginalDst {
        story.step("cluster", &**name, "matched", format!("it goes where the client dialled: {destination}"));
        let endpoint = Endpoint::at(Address::Ip(destination));
        story.outcome.endpoints = vec![shown(&cluster.config, &endpoint)];
        return;
    }
    let resolved = world.resolved.contains(name);
    let all: Vec<Shown> = hosts.iter().map(|endpoint| shown(&cluster.config, endpoint)).collect();
    let usable = usable(&hosts);
    story.step(
        "cluster",
        &**name,
        if usable > 0 || resolved { "matched" } else { "failed" },
        match resolved {
            true => "its endpoints are resolved by DNS when requests come".to_owned(),
            false => format!("{usable} of {} endpoints may be used", all.len()),
        },
    );
    story.outcome.endpoints = all;
    if usable == 0 && !resolved {
        fails(Reason::NoHealthyUpstream, story);
    }
}

fn usable(hosts: &HostSet) -> usize {
    hosts.iter().filter(|endpoint| matches!(endpoint.health, Health::Healthy | Health::Degraded)).count()
}

fn shown(config: &ClusterConfig, endpoint: &Endpoint) -> Shown {
    let transport = config.transport(endpoint).map(|(_, transport)| transport);
    let health = match endpoint.health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Draining => "draining",
        Health::Unhealthy => "unhealthy",
    };
    let transport = match transport.and_then(|transport| transport.tls.as_ref()) {
        Some(_) if transport.is_some_and(|transport| &*transport.name == "tlsMode-istio") => "mTLS",
        Some(_) => "TLS",
        None => "plaintext",
    };
    Shown { address: endpoint.text.to_string(), health: health.to_owned(), transport: transport.to_owned() }
}
