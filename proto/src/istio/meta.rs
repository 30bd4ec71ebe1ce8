//! What every object has: names, labels, age.

use std::collections::BTreeMap;

core_struct! {
    /// `metadata` of an object.
    #[derive(Eq)]
    ObjectMeta {
        name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        creation_timestamp: Option<String>,
        deletion_timestamp: Option<String>,
        generation: Option<i64>,
        resource_version: Option<String>,
        owner_references: Vec<OwnerReference>,
    }
}

core_struct! {
    /// An object that another one belongs to.
    #[derive(Eq)]
    OwnerReference {
        kind: String,
        name: String,
        controller: bool,
    }
}

istio_struct! {
    /// A selector of labels: every label and every requirement must hold.
    #[derive(Eq)]
    LabelSelector {
        match_labels: BTreeMap<String, String>,
        match_expressions: Vec<LabelRequirement>,
    }
}

istio_struct! {
    /// One requirement of a selector.
    #[derive(Eq)]
    LabelRequirement {
        key: String,
        operator: LabelOperator,
        values: Vec<String>,
    }
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LabelOperator {
    /// Its value is one of the list.
    #[default]
    In,
    /// It is absent, or its value is none of the list.
    NotIn,
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it selects these labels; an empty selector selects everything.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let listed = labels.get(&self.key).is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => listed,
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => labels.contains_key(&self.key),
            LabelOperator::DoesNotExist => !labels.contains_key(&self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_compare_as_kubernetes_does() {
        let labels: BTreeMap<String, String> = [("mesh".to_owned(), "on".to_owned())].into();
        let matches = |operator, key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let requirement = LabelRequirement { key: key.to_owned(), operator, values };
            LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() }.matches(&labels)
        };
        assert!(matches(LabelOperator::In, "mesh", &["on", "x"]) && !matches(LabelOperator::In, "mesh", &["off"]));
        assert!(matches(LabelOperator::NotIn, "other", &["on"]) && !matches(LabelOperator::NotIn, "mesh", &["on"]));
        assert!(matches(LabelOperator::Exists, "mesh", &[]) && !matches(LabelOperator::Exists, "other", &[]));
        assert!(matches(LabelOperator::DoesNotExist, "other", &[]) && LabelSelector::default().matches(&labels));
        let equal =
            LabelSelector { match_labels: [("mesh".to_owned(), "off".to_owned())].into(), ..LabelSelector::default() };
        assert!(!equal.matches(&labels));
    }
}
