//! RateLimit → filters: a token bucket in the proxy, or descriptors for the service that counts for all of them.
//!
//! The domain of a shared limit is `NAMESPACE/NAME`; each descriptor begins with the rule's name and has one entry per
//! key, as mixer expects them.

use super::message::{boolean, duration, uint};
use crate::model::rate_limit::RateLimit;
use crate::model::{MeshConfig, Shared};
use proto::any;
use proto::envoy::core::{ApiVersion, RuntimeFractionalPercent, TypedExtensionConfig};
use proto::envoy::extensions::common::ratelimit::v3::LocalRateLimitDescriptor;
use proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::envoy::extensions::rate_limit_descriptors::expr::v3::{Descriptor, descriptor::ExprSpecifier};
use proto::envoy::http_filters::local_ratelimit::v3::LocalRateLimit;
use proto::envoy::http_filters::ratelimit::v3::RateLimit as Filter;
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::matcher::{RegexMatcher, StringMatcher};
use proto::envoy::ratelimit_config::RateLimitServiceConfig;
use proto::envoy::route::header_matcher::HeaderMatchSpecifier;
use proto::envoy::route::rate_limit::action::{
    ActionSpecifier, GenericKey, HeaderValueMatch, RemoteAddress, RequestHeaders,
};
use proto::envoy::route::rate_limit::{Action, HitsAddend};
use proto::envoy::route::{HeaderMatcher, RateLimit as Written};
use proto::envoy::types::fractional_percent::DenominatorType;
use proto::envoy::types::{FractionalPercent, TokenBucket};
use proto::envoy::wkt::{Any, UInt64Value};
use proto::istio::StringMatch;
use proto::istio::rate_limit::{Key, Match, OnFailure, RULE_KEY, Rule, Scope};
use std::time::Duration;

/// Keys of a local limit that a proxy tells apart at a time.
const MAX_KEYS: u32 = 10_000;
/// Longest time that a request waits for the service.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The filters of a workload's limits, by name.
pub(super) fn filters(limits: &[Shared<RateLimit>], mesh: &MeshConfig) -> Vec<(&'static str, Any)> {
    let mut out = Vec::new();
    for limit in limits {
        out.extend(
            limit
                .rules(Scope::Local)
                .map(|(name, rule)| ("envoy.filters.http.local_ratelimit", local(&name, rule, limit))),
        );
        let descriptors: Vec<Written> =
            limit.rules(Scope::Shared).map(|(name, rule)| descriptor(&name, rule)).collect();
        if let Some(server) = mesh.policy_server.as_ref().filter(|_| !descriptors.is_empty()) {
            out.push(("envoy.filters.http.ratelimit", shared(limit, descriptors, (&server.0, server.1))));
        }
    }
    out
}

/// A token bucket that this proxy alone empties.
fn local(name: &str, rule: &Rule, limit: &RateLimit) -> Any {
    let (amount, window) = rule.limit.as_ref().map(|limit| (limit.amount(), limit.length())).unwrap_or_default();
    let share = |percent: u32| {
        Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }),
            ..RuntimeFractionalPercent::default()
        })
    };
    let bucket = TokenBucket { max_tokens: amount, tokens_per_fill: uint(amount), fill_interval: duration(window) };
    let mut filter = LocalRateLimit {
        stat_prefix: format!("{}/{}.{name}", limit.key.namespace, limit.key.name),
        filter_enabled: share(100),
        filter_enforced: share(if rule.shadow { 0 } else { 100 }),
        ..LocalRateLimit::default()
    };
    if rule.matches.is_empty() && rule.per.is_empty() && rule.cost.is_none() {
        filter.token_bucket = Some(bucket);
        return any::pack(&filter);
    }
    // What fits no descriptor is not limited.
    let all = TokenBucket {
        max_tokens: u32::MAX,
        tokens_per_fill: uint(u32::MAX),
        fill_interval: duration(Duration::from_secs(1)),
    };
    let entry = |key: String, value: &str| Entry { key, value: value.to_owned() };
    let keys = rule.per.iter().map(|key| entry(key.descriptor_key(), ""));
    filter.token_bucket = Some(all);
    filter.always_consume_default_token_bucket = boolean(false);
    filter.rate_limits = vec![descriptor(name, rule)];
    filter.max_dynamic_descriptors = uint(MAX_KEYS);
    filter.descriptors = vec![LocalRateLimitDescriptor {
        entries: std::iter::once(entry(RULE_KEY.to_owned(), name)).chain(keys).collect(),
        token_bucket: Some(bucket),
        ..LocalRateLimitDescriptor::default()
    }];
    any::pack(&filter)
}

fn shared(limit: &RateLimit, rate_limits: Vec<Written>, server: (&str, u16)) -> Any {
    any::pack(&Filter {
        domain: format!("{}/{}", limit.key.namespace, limit.key.name),
        timeout: duration(TIMEOUT),
        failure_mode_deny: limit.spec.on_failure == OnFailure::Deny,
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(super::telemetry::grpc_service(server)),
            transport_api_version: ApiVersion::V3.into(),
        }),
        rate_limits,
        ..Filter::default()
    })
}

/// What the service is asked about one rule.
fn descriptor(name: &str, rule: &Rule) -> Written {
    let first = match rule.matches.first() {
        None => ActionSpecifier::GenericKey(GenericKey {
            descriptor_key: RULE_KEY.to_owned(),
            descriptor_value: name.to_owned(),
            ..GenericKey::default()
        }),
        // The entry is there where the request fits, and without it there is no descriptor.
        Some(block) => ActionSpecifier::HeaderValueMatch(HeaderValueMatch {
            descriptor_key: RULE_KEY.to_owned(),
            descriptor_value: name.to_owned(),
            expect_match: boolean(true),
            headers: conditions(block),
            ..HeaderValueMatch::default()
        }),
    };
    let cost = rule.cost.as_ref().map(|cost| HitsAddend {
        number: cost.constant.map(|hits| UInt64Value { value: hits.into() }),
        format: cost.header.as_ref().map(|name| format!("%REQ({name})%")).unwrap_or_default(),
        ..HitsAddend::default()
    });
    let actions = std::iter::once(first).chain(rule.per.iter().map(key));
    Written {
        actions: actions.map(|action| Action { action_specifier: Some(action) }).collect(),
        hits_addend: cost,
        ..Written::default()
    }
}

fn key(key: &Key) -> ActionSpecifier {
    let descriptor_key = key.descriptor_key();
    let header = |name: &str| {
        let (header_name, descriptor_key) = (name.to_owned(), descriptor_key.clone());
        ActionSpecifier::RequestHeaders(RequestHeaders { header_name, descriptor_key, skip_if_absent: false })
    };
    let attribute = |name: &str| {
        let written = Descriptor {
            descriptor_key: descriptor_key.clone(),
            skip_if_error: false,
            expr_specifier: Some(ExprSpecifier::Text(name.to_owned())),
        };
        ActionSpecifier::Extension(TypedExtensionConfig {
            name: "envoy.rate_limit_descriptors.expr".to_owned(),
            typed_config: Some(any::pack(&written)),
        })
    };
    match key {
        Key::Header(name) => header(name),
        Key::Method => header(":method"),
        Key::Host => header(":authority"),
        Key::Path => attribute("request.url_path"),
        Key::Identity => attribute("connection.uri_san_peer_certificate"),
        Key::Address => ActionSpecifier::RemoteAddress(RemoteAddress {}),
    }
}

/// All that a request must fit.
fn conditions(block: &Match) -> Vec<HeaderMatcher> {
    let any_of = |name: &str, patterns: &[String]| {
        let regex = patterns.iter().map(|pattern| wildcard(pattern)).collect::<Vec<_>>().join("|");
        (!patterns.is_empty())
            .then(|| matcher(name, MatchPattern::SafeRegex(RegexMatcher { regex, ..RegexMatcher::default() })))
    };
    // The path of a request has its query; what is written has none.
    let paths = any_of(":path", &block.paths).map(|mut matcher| {
        if let Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::SafeRegex(found)),
            ..
        })) = &mut matcher.header_match_specifier
        {
            found.regex = format!("(?:{})(?:\\?.*)?", found.regex);
        }
        matcher
    });
    let fixed = [any_of(":method", &block.methods), paths, any_of(":authority", &block.hosts)];
    let headers = block.headers.iter().map(|(name, matching)| header(name, matching));
    fixed.into_iter().flatten().chain(headers).collect()
}

/// `abc*`, `*abc` or the text itself as a regex.
fn wildcard(pattern: &str) -> String {
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(prefix), _) => format!("{}.*", regex::escape(prefix)),
        (None, Some(suffix)) => format!(".*{}", regex::escape(suffix)),
        (None, None) => regex::escape(pattern),
    }
}

fn matcher(name: &str, pattern: MatchPattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    }
}

fn header(name: &str, matching: &StringMatch) -> HeaderMatcher {
    match (&matching.exact, &matching.prefix, &matching.regex) {
        (Some(exact), ..) => matcher(name, MatchPattern::Exact(exact.clone())),
        (_, Some(prefix), _) => matcher(name, MatchPattern::Prefix(prefix.clone())),
        (_, _, Some(regex)) => {
            matcher(name, MatchPattern::SafeRegex(RegexMatcher { regex: regex.clone(), ..RegexMatcher::default() }))
        }
        (None, None, None) => HeaderMatcher {
            name: name.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..HeaderMatcher::default()
        },
    }
}
