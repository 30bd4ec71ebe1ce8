//! The part of a dump that a `google.protobuf.FieldMask` asks for (`/config_dump?mask=`, AD-1).

use serde_json::Value;
use std::collections::BTreeMap;

/// Paths of a mask as a tree; a node without children is wanted whole.
#[derive(Debug, Default)]
struct Node(BTreeMap<String, Self>);

impl Node {
    fn parse(mask: &str) -> Self {
        let mut root = Self::default();
        for path in mask.split(',').filter(|path| !path.is_empty()) {
            let mut at = &mut root;
            for part in path.split('.') {
                at = at.0.entry(snake(part)).or_default();
            }
        }
        root
    }

    /// Keeps what is wanted of a message and its type; in lists, of each element. Says whether there is any.
    fn trim(&self, value: &mut Value) -> bool {
        if self.0.is_empty() {
            return true;
        }
        match value {
            Value::Object(fields) => {
                let mut any = false;
                fields.retain(|name, value| {
                    let wanted = self.0.get(name).is_some_and(|node| node.trim(value));
                    any |= wanted;
                    wanted || name == "@type"
                });
                any
            }
            // all of them, whatever the first says
            Value::Array(list) => list.iter_mut().filter_map(|value| self.trim(value).then_some(())).count() > 0,
            _ => false,
        }
    }
}

/// Field names of masks may be written in JSON's way.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Applies a mask to each configuration of a dump.
///
/// # Errors
/// No configuration has any of its fields.
pub(super) fn apply(mask: &str, dump: &mut Value) -> Result<(), String> {
    let root = Node::parse(mask);
    let configs = dump.get_mut("configs").and_then(Value::as_array_mut);
    let trimmed = configs.into_iter().flatten().filter_map(|config| root.trim(config).then_some(())).count();
    if trimmed > 0 { Ok(()) } else { Err(format!("the field mask {mask} could not be applied to any configuration")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // spec: AD-1
    #[test]
    fn a_mask_leaves_its_fields_and_the_types() {
        let dump = json!({"configs": [
            {"@type": "t/Clusters", "version_info": "7", "static_clusters": [
                {"cluster": {"@type": "t/Cluster", "name": "a", "type": "EDS"}, "last_updated": "x"},
                {"cluster": {"@type": "t/Cluster", "name": "b"}}]},
            {"@type": "t/Other", "b": 1}]});
        let trimmed = |mask: &str| {
            let mut dump = dump.clone();
            apply(mask, &mut dump).map(|()| dump["configs"].clone())
        };
        let names = json!([
            {"@type": "t/Clusters", "static_clusters": [
                {"cluster": {"@type": "t/Cluster", "name": "a"}}, {"cluster": {"@type": "t/Cluster", "name": "b"}}]},
            {"@type": "t/Other"}]);
        assert_eq!(trimmed("static_clusters.cluster.name").as_ref(), Ok(&names));
        assert_eq!(trimmed("staticClusters.cluster.name").as_ref(), Ok(&names));
        let two = json!([{"@type": "t/Clusters", "version_info": "7"}, {"@type": "t/Other", "b": 1}]);
        assert_eq!(trimmed("version_info,b").as_ref(), Ok(&two));
        assert!(trimmed("nothing.of.it").is_err());
    }
}
