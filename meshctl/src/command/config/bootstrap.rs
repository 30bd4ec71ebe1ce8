//! `proxy-config bootstrap` (spec CT-8).

use super::{path, sections, text};
use crate::output::Table;
use serde_json::Value;

/// What the proxy was started with, and who it says that it is.
pub(super) fn show(dump: &Value) -> (Table, Value) {
    let mut table = Table::new(&["NODE", "CLUSTER", "ISTIO VERSION"]);
    let mut value = Value::Null;
    for section in sections(dump, "BootstrapConfigDump") {
        let node = path(section, &["bootstrap", "node"]);
        table.row([text(&node["id"]), text(&node["cluster"]), text(&node["metadata"]["ISTIO_VERSION"])]);
        value = section.clone();
    }
    (table, value)
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    // spec: CT-8
    #[test]
    fn the_start_configuration_is_shown_as_it_is() {
        let node = json!({"id": "sidecar~10.0.0.1~a.b~b.svc", "cluster": "a.b", "metadata": {"ISTIO_VERSION": "1.0"}});
        let section =
            json!({"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": node}});
        let (table, value) = show(&json!({"configs": [section]}));
        assert_eq!(words(&table.lines()[1]), "sidecar~10.0.0.1~a.b~b.svc|a.b|1.0");
        assert_eq!(value, section);
    }
}
