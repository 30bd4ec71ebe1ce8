//! Label selectors as Kubernetes has them (`matchLabels`, `matchExpressions`).

use super::InjectError;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether the labels are selected; an empty selector selects nothing here, as in Istio's injector.
    pub(super) fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        !empty
            && self.match_labels.iter().all(|(name, value)| label(name) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.holds(label(&expression.key)))
    }

    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The expression whose operator does not fit its values.
    pub(super) fn check(&self, path: &str) -> Result<(), InjectError> {
        for (index, expression) in self.match_expressions.iter().enumerate() {
            let needs_values = matches!(expression.operator, Operator::In | Operator::NotIn);
            if needs_values == expression.values.is_empty() {
                let why = if needs_values { "In and NotIn need values" } else { "Exists and DoesNotExist have none" };
                return Err(InjectError::config(format!("{path}.matchExpressions[{index}].values"), why));
            }
        }
        Ok(())
    }
}

impl Expression {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|known| known == value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
