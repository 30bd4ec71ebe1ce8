//! What our proxies decided without asking, by rules that mixer left with them.

use super::family::Family;
use super::point::{Point, Value, text};
use proto::program::{HANDLER, RULE};

/// Some decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// By this rule, `namespace/name`.
    pub rule: String,
    /// By this handler of it, `name.namespace`.
    pub handler: String,
    /// What of them is counted.
    pub family: Family,
    /// How many came on top.
    pub count: u64,
}

impl Decided {
    /// What a point of a policy's family gained; `None` for other families, and where nothing came on top.
    pub fn new(point: &Point, gained: &Value) -> Option<Self> {
        let label = |name: &str| text(point.labels.iter().find(|label| label.key == name)?.value.as_ref());
        let Value::Number(count) = gained else { return None };
        let count = *count as u64;
        let told = point.family.is_policy() && count > 0;
        told.then(|| Some(Self { rule: label(RULE)?, handler: label(HANDLER)?, family: point.family, count }))?
    }
}
