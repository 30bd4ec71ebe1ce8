//! `proxy-config ecds` (spec CT-8).

use super::{Shown, items, member, sections, text};
use crate::output::Table;
use serde_json::Value;

/// Extensions that were sent by themselves, outside of a listener. Our pilot sends none.
pub(super) fn show(dump: &Value) -> Shown {
    let mut table = Table::new(&["NAME", "TYPE"]);
    let mut values = Vec::new();
    for section in sections(dump, "EcdsConfigDump") {
        for extension in items(section, "ecds_filters").iter().map(|entry| member(entry, "ecds_filter")) {
            table.row([text(&extension["name"]), text(&member(extension, "typed_config")["@type"])]);
            values.push(extension.clone());
        }
    }
    (table, values)
}

#[cfg(test)]
mod tests {
    use super::super::words;
    use super::*;
    use serde_json::json;

    // spec: CT-8
    #[test]
    fn extensions_are_shown_with_their_type() {
        let filter = json!({"name": "stats", "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig"}});
        let section = json!({"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter": filter}]});
        let (table, values) = show(&json!({"configs": [section]}));
        assert_eq!(words(&table.lines()[1]), "stats|type.googleapis.com/stats.PluginConfig");
        assert_eq!(values, [filter]);
        assert!(show(&json!({"configs": []})).1.is_empty());
    }
}
