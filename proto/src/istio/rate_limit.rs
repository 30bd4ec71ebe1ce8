//! RateLimit, our own kind (`policy.ferromesh.io/v1alpha1`): limits of requests or tokens, per key, in one proxy or
//! shared by all. It says what people otherwise write EnvoyFilters for.

use super::{Duration, StringMatch, WorkloadSelector};
use std::collections::BTreeMap;

/// Group and version of the kind.
pub const API_VERSION: &str = "policy.ferromesh.io/v1alpha1";
/// The most rules of an object.
pub const MAX_RULES: usize = 64;
/// The most keys of a rule.
pub const MAX_KEYS: usize = 8;
/// Key of the first entry of every descriptor of a shared limit; its value is the rule's name.
pub const RULE_KEY: &str = "rule";

istio_struct! {
    /// `spec` of a RateLimit.
    #[derive(Eq)]
    RateLimit {
        /// The workloads whose inbound requests are limited; none are all of the namespace.
        selector: Option<WorkloadSelector>,
        /// The limits; a request must keep all that match it.
        rules: Vec<Rule>,
        /// What happens to a request while the shared store cannot be asked.
        on_failure: OnFailure,
    }
}

istio_enum! {
    /// What happens while the shared store cannot be asked.
    OnFailure { Allow, Deny }
}

istio_struct! {
    /// One limit.
    #[derive(Eq)]
    Rule {
        /// Its name; by default its number, counted from 0.
        name: String,
        /// The requests to which it applies: to those that fit any of these; none are all.
        #[serde(rename = "match")]
        matches: Vec<Match>,
        /// What is counted apart; nothing is one counter for all.
        per: Vec<Key>,
        limit: Option<Limit>,
        /// What a request costs; nothing is 1.
        cost: Option<Cost>,
        scope: Scope,
        /// Counts and never refuses.
        shadow: bool,
    }
}

istio_struct! {
    /// Which requests: all that is written must fit.
    #[derive(Eq)]
    Match {
        methods: Vec<String>,
        /// Paths; a star at the end is a prefix, at the beginning a suffix.
        paths: Vec<String>,
        /// Hosts; a star as in paths.
        hosts: Vec<String>,
        headers: BTreeMap<String, StringMatch>,
    }
}

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    /// The value of a header; requests without it are not limited by the rule.
    Header(String),
    /// The identity that the caller has proven.
    Identity,
    /// The path without its query.
    Path,
    /// The address of the caller.
    Address,
    /// The method.
    Method,
    /// The host.
    Host,
}

istio_struct! {
    /// How much, in which time.
    #[derive(Eq)]
    Limit {
        /// Requests; one of `requests` and `tokens`.
        requests: Option<u32>,
        /// Tokens: what requests cost.
        tokens: Option<u32>,
        /// One of `unit` and `window`.
        unit: Option<Unit>,
        window: Option<Duration>,
    }
}

istio_enum! {
    /// A unit of time.
    Unit { Second, Minute, Hour, Day }
}

istio_struct! {
    /// What a request costs: one of the two.
    #[derive(Eq)]
    Cost {
        /// The number in this header of the request; 1 where it is none.
        header: Option<String>,
        constant: Option<u32>,
    }
}

istio_enum! {
    /// Where it is counted.
    Scope { Local, Shared }
}

impl Key {
    /// The key of the descriptor's entry in a shared limit.
    pub fn descriptor_key(&self) -> String {
        match self {
            Self::Header(name) => format!("header/{}", name.to_ascii_lowercase()),
            Self::Identity => "identity".to_owned(),
            Self::Path => "path".to_owned(),
            // The name that Envoy's own action gives.
            Self::Address => "remote_address".to_owned(),
            Self::Method => "method".to_owned(),
            Self::Host => "host".to_owned(),
        }
    }
}

impl Limit {
    /// How much.
    pub fn amount(&self) -> u32 {
        self.requests.or(self.tokens).unwrap_or_default()
    }

    /// The length of its window.
    pub fn length(&self) -> std::time::Duration {
        let seconds = match self.unit {
            None => return self.window.map(|window| window.0).unwrap_or_default(),
            Some(Unit::Second) => 1,
            Some(Unit::Minute) => 60,
            Some(Unit::Hour) => 3_600,
            Some(Unit::Day) => 86_400,
        };
        std::time::Duration::from_secs(seconds)
    }
}

impl RateLimit {
    /// The name of a rule.
    pub fn rule_name(&self, index: usize) -> String {
        let name = self.rules.get(index).map_or("", |rule| &rule.name);
        if name.is_empty() { index.to_string() } else { name.to_owned() }
    }

    /// What the types do not say.
    ///
    /// # Errors
    /// The first field that cannot be meant, as `rules[0].limit`, and the way out.
    pub fn validate(&self) -> Result<(), (String, &'static str)> {
        if self.rules.is_empty() || self.rules.len() > MAX_RULES {
            return Err(("rules".to_owned(), "write 1 to 64 rules"));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.validate().map_err(|(field, reason)| (format!("rules[{index}].{field}"), reason))?;
            if (0..index).any(|before| self.rule_name(before) == self.rule_name(index)) {
                return Err((format!("rules[{index}].name"), "each rule has a name of its own"));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn validate(&self) -> Result<(), (String, &'static str)> {
        let fault = |field: &str, reason| Err((field.to_owned(), reason));
        if self.per.len() > MAX_KEYS {
            return fault("per", "at most 8 keys");
        }
        if self.per.iter().any(|key| matches!(key, Key::Header(name) if name.is_empty())) {
            return fault("per", "a header has a name");
        }
        if (1..self.per.len()).any(|at| self.per.iter().take(at).any(|before| Some(before) == self.per.get(at))) {
            return fault("per", "each key stands there once");
        }
        let Some(limit) = &self.limit else { return fault("limit", "is missing") };
        if limit.requests.is_some() == limit.tokens.is_some() {
            return fault("limit", "write one of requests and tokens");
        }
        if limit.unit.is_some() == limit.window.is_some() {
            return fault("limit", "write one of unit and window");
        }
        if limit.amount() == 0 {
            return fault("limit", "at least 1: to refuse everything use an AuthorizationPolicy");
        }
        if limit.length() < std::time::Duration::from_millis(100) {
            return fault("limit.window", "is 100ms at least");
        }
        match &self.cost {
            Some(cost) if cost.header.is_some() == cost.constant.is_some() => {
                return fault("cost", "write one of header and constant");
            }
            Some(cost) if cost.header.as_ref().is_some_and(String::is_empty) => {
                return fault("cost.header", "a header has a name");
            }
            Some(cost) if cost.constant == Some(0) => return fault("cost.constant", "is 1 at least"),
            None if limit.tokens.is_some() => return fault("cost", "tokens need a cost: header or constant"),
            _ => {}
        }
        if self.cost.as_ref().is_some_and(|cost| cost.header.is_some()) && self.scope == Scope::Local {
            return fault("cost.header", "needs scope: SHARED; a local limit has a constant cost");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RateLimit, String> {
        let object: RateLimit = serde_json::from_str(text).map_err(|error| error.to_string())?;
        object.validate().map_err(|(field, reason)| format!("{field}: {reason}"))?;
        Ok(object)
    }

    #[test]
    fn a_whole_object_is_read() {
        let object = parse(
            r#"{"selector":{"matchLabels":{"app":"reviews"}},"onFailure":"DENY","rules":[
            {"name":"per-user","match":[{"methods":["GET"],"paths":["/api/*"],"headers":{"x-tier":{"exact":"free"}}}],
             "per":[{"header":"x-user"},"identity","path","address"],"limit":{"requests":100,"unit":"MINUTE"},
             "scope":"SHARED","shadow":true},
            {"limit":{"tokens":50000,"window":"30s"},"cost":{"header":"x-tokens"},"scope":"SHARED"}]}"#,
        )
        .unwrap();
        let keys: Vec<String> = object.rules[0].per.iter().map(Key::descriptor_key).collect();
        assert_eq!(keys, ["header/x-user", "identity", "path", "remote_address"]);
        assert_eq!((object.rule_name(0), object.rule_name(1)), ("per-user".to_owned(), "1".to_owned()));
        let limit = object.rules[1].limit.as_ref().unwrap();
        assert_eq!((limit.amount(), limit.length().as_secs()), (50_000, 30));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let limit = r#""limit":{"requests":1,"unit":"SECOND"}"#;
        for (rule, message) in [
            (String::new(), "rules[0].limit: is missing"),
            (r#""limit":{"requests":1,"tokens":1,"unit":"SECOND"}"#.to_owned(), "one of requests and tokens"),
            (r#""limit":{"requests":1}"#.to_owned(), "one of unit and window"),
            (r#""limit":{"requests":0,"unit":"SECOND"}"#.to_owned(), "AuthorizationPolicy"),
            (r#""limit":{"tokens":1,"unit":"SECOND"}"#.to_owned(), "tokens need a cost"),
            (r#""limit":{"requests":1,"window":"1ms"}"#.to_owned(), "100ms at least"),
            (format!(r#"{limit},"cost":{{"header":"x"}}"#), "needs scope: SHARED"),
            (format!(r#"{limit},"cost":{{}}"#), "one of header and constant"),
            (format!(r#"{limit},"per":["path","path"]"#), "once"),
            (format!(r#"{limit},"per":["colour"]"#), "unknown variant"),
            (format!(r#"{limit},"limits":1"#), "unknown field `limits`"),
        ] {
            let error = parse(&format!(r#"{{"rules":[{{{rule}}}]}}"#)).unwrap_err();
            assert!(error.contains(message), "{rule}: {error}");
        }
        assert!(parse(r#"{"rules":[]}"#).unwrap_err().contains("1 to 64"));
        let twice = format!(r#"{{"rules":[{{"name":"1",{limit}}},{{{limit}}}]}}"#);
        assert!(parse(&twice).unwrap_err().contains("a name of its own"));
    }
}
