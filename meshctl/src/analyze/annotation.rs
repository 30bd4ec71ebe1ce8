//! Istio's annotations of namespaces, services and pods (PI-68).

use super::annotation_value::invalid;
use super::code::Code;
use super::message::Message;
use super::view::View;
use pilot::source::{Kind, Object};

/// Where an annotation may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Any,
    Namespace,
    Service,
    Pod,
}

/// Annotations whose names begin so, where they may stand, and what is said of their deprecation: nothing, or the text
/// after "deprecated". The first that fits counts.
const KNOWN: &[(&str, Place, Option<&str>)] = &[
    ("sidecar.istio.io/inject", Place::Pod, Some(" in favor of the \"sidecar.istio.io/inject\" label")),
    ("sidecar.istio.io/statsInclusionPrefixes", Place::Pod, Some("")),
    ("sidecar.istio.io/statsInclusionSuffixes", Place::Pod, Some("")),
    ("sidecar.istio.io/statsInclusionRegexps", Place::Pod, Some("")),
    ("sidecar.istio.io/extraStatTags", Place::Pod, Some("")),
    ("sidecar.istio.io/statsCompression", Place::Pod, Some("")),
    ("sidecar.istio.io/discoveryAddress", Place::Pod, Some("")),
    ("sidecar.istio.io/status", Place::Pod, None),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Place::Pod, None),
    ("sidecar.istio.io/proxyImage", Place::Pod, None),
    ("sidecar.istio.io/proxyImageType", Place::Pod, None),
    ("sidecar.istio.io/proxyCPU", Place::Pod, None),
    ("sidecar.istio.io/proxyCPULimit", Place::Pod, None),
    ("sidecar.istio.io/proxyMemory", Place::Pod, None),
    ("sidecar.istio.io/proxyMemoryLimit", Place::Pod, None),
    ("sidecar.istio.io/interceptionMode", Place::Pod, None),
    ("sidecar.istio.io/bootstrapOverride", Place::Pod, None),
    ("sidecar.istio.io/statsHistogramBuckets", Place::Pod, None),
    ("sidecar.istio.io/statsHistogramBins", Place::Pod, None),
    ("sidecar.istio.io/statsFlushInterval", Place::Pod, None),
    ("sidecar.istio.io/statsEvictionInterval", Place::Pod, None),
    ("sidecar.istio.io/userVolume", Place::Pod, None),
    ("sidecar.istio.io/userVolumeMount", Place::Pod, None),
    ("sidecar.istio.io/logLevel", Place::Pod, None),
    ("sidecar.istio.io/componentLogLevel", Place::Pod, None),
    ("sidecar.istio.io/agentLogLevel", Place::Pod, None),
    ("sidecar.istio.io/nativeSidecar", Place::Pod, None),
    ("sidecar.istio.io/capNetBindService", Place::Pod, None),
    ("status.sidecar.istio.io/port", Place::Pod, None),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", Place::Pod, None),
    ("readiness.status.sidecar.istio.io/periodSeconds", Place::Pod, None),
    ("readiness.status.sidecar.istio.io/failureThreshold", Place::Pod, None),
    ("readiness.status.sidecar.istio.io/applicationPorts", Place::Pod, None),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", Place::Pod, None),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Place::Pod, None),
    ("traffic.sidecar.istio.io/includeInboundPorts", Place::Pod, None),
    ("traffic.sidecar.istio.io/excludeInboundPorts", Place::Pod, None),
    ("traffic.sidecar.istio.io/includeOutboundPorts", Place::Pod, None),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", Place::Pod, None),
    ("traffic.sidecar.istio.io/excludeInterfaces", Place::Pod, None),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", Place::Pod, Some("")),
    ("istio.io/reroute-virtual-interfaces", Place::Pod, None),
    ("proxy.istio.io/config", Place::Pod, None),
    ("proxy.istio.io/overrides", Place::Pod, None),
    ("inject.istio.io/templates", Place::Pod, None),
    ("prometheus.istio.io/merge-metrics", Place::Pod, None),
    ("prometheus.istio.io/scrape-targets", Place::Pod, None),
    ("istio.io/rev", Place::Pod, None),
    ("networking.istio.io/exportTo", Place::Service, None),
    ("networking.istio.io/traffic-distribution", Place::Service, None),
    ("networking.istio.io/service-type", Place::Any, None),
    ("traffic.istio.io/nodeSelector", Place::Service, None),
    ("galley.istio.io/analyze-suppress", Place::Any, None),
    ("topology.istio.io/controlPlaneClusters", Place::Namespace, None),
    ("gateway.istio.io/", Place::Any, None),
    ("ambient.istio.io/", Place::Any, None),
    ("istio.io/use-waypoint-canary-weight", Place::Any, None),
];

/// Annotations that are unknown, at the wrong place, deprecated, or have a value that cannot be.
pub fn annotations(view: &View<'_>) -> Vec<Message> {
    let places = [(Kind::Namespace, Place::Namespace), (Kind::Service, Place::Service), (Kind::Pod, Place::Pod)];
    let each = places.into_iter().flat_map(|(kind, place)| view.kind(kind).map(move |object| (object, place)));
    each.flat_map(|(object, place)| of(object, place)).collect()
}

fn of(object: &Object, place: Place) -> Vec<Message> {
    let mut found = Vec::new();
    let istios = |name: &str| name.split('/').next().is_some_and(|domain| domain.ends_with("istio.io"));
    for (name, value) in object.meta.annotations.iter().filter(|(name, _)| istios(name)) {
        let fits = |known: &str| if known.ends_with('/') { name.starts_with(known) } else { name == known };
        let mut say = |code, text| found.push(Message::at(code, object, &format!("metadata.annotations.{name}"), text));
        let Some((_, where_to, deprecated)) = KNOWN.iter().find(|(known, ..)| fits(known)) else {
            say(Code::UnknownAnnotation, format!("Unknown annotation: {name}"));
            continue;
        };
        if *where_to != Place::Any && *where_to != place {
            say(
                Code::MisplacedAnnotation,
                format!("Misplaced annotation: {name} can only be applied to {}", kind(*where_to)),
            );
        } else if let Some(why) = invalid(name, value) {
            say(Code::InvalidAnnotation, format!("Invalid annotation {name}: {why}"));
        }
        if let Some(instead) = deprecated {
            let text =
                format!("Annotation {name:?} has been deprecated{instead} and may not work in future Istio versions.");
            say(Code::DeprecatedAnnotation, text);
        }
    }
    found
}

fn kind(place: Place) -> &'static str {
    match place {
        Place::Any => "Any",
        Place::Namespace => "Namespace",
        Place::Service => "Service",
        Place::Pod => "Pod",
    }
}
