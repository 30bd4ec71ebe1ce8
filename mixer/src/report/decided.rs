//! What our proxies decided without asking: by rules and answers that mixer left with them, and by limits of their own.

use super::family::Family;
use super::point::{Point, Value, text};
use proto::program::{HANDLER, LIMIT, RULE};

/// Some decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// By what.
    pub by: By,
    /// What of them is counted.
    pub family: Family,
    /// How many came on top.
    pub count: u64,
}

/// What decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A rule, `namespace/name`, and a handler of it, `name.namespace`.
    Rule {
        /// The rule.
        rule: String,
        /// The handler; empty where the rule has none.
        handler: String,
    },
    /// A rate limit, `DOMAIN.PATH`.
    Limit(String),
}

impl Decided {
    /// What a point of a policy's family gained; `None` for other families, and where nothing came on top.
    pub fn new(point: &Point, gained: &Value) -> Option<Self> {
        let label = |name: &str| text(point.labels.iter().find(|label| label.key == name)?.value.as_ref());
        let Value::Number(count) = gained else { return None };
        let count = *count as u64;
        if !point.family.is_policy() || count == 0 {
            return None;
        }
        let by = match point.family {
            Family::LimitWithin | Family::LimitOver => By::Limit(label(LIMIT)?),
            _ => By::Rule { rule: label(RULE)?, handler: label(HANDLER)? },
        };
        Some(Self { by, family: point.family, count })
    }
}
