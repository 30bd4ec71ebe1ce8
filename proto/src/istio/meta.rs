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
        generation: Option<i64>,
        resource_version: Option<String>,
    }
}
