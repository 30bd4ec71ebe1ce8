//! Who may see an object: exportTo (GEN-4, PI-87).

/// Whether an object of `owner` with the list `export_to` (or, if that is empty, the mesh's default) is visible in
/// the namespace `client`.
pub fn visible(export_to: &[String], default: &[String], owner: &str, client: &str) -> bool {
    let list = if export_to.is_empty() { default } else { export_to };
    if list.is_empty() || list.iter().any(|entry| entry == "*") {
        return true;
    }
    if list.iter().any(|entry| entry == "~") {
        return false;
    }
    list.iter().any(|entry| if entry == "." { owner == client } else { entry == client })
}

/// Whether an object is private to its namespace.
pub fn private(export_to: &[String], default: &[String]) -> bool {
    let list = if export_to.is_empty() { default } else { export_to };
    list.len() == 1 && list.first().is_some_and(|entry| entry == ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    // spec: GEN-4, PI-87, VS-4, DR-4
    #[test]
    fn export_to_says_who_sees() {
        let all = list(&["*"]);
        assert!(visible(&[], &all, "a", "b"));
        assert!(!visible(&[], &list(&["."]), "a", "b"));
        assert!(visible(&list(&["."]), &all, "a", "a") && !visible(&list(&["."]), &all, "a", "b"));
        assert!(visible(&list(&["b", "c"]), &all, "a", "c") && !visible(&list(&["b", "c"]), &all, "a", "a"));
        assert!(!visible(&list(&["~"]), &all, "a", "a"));
        assert!(visible(&list(&["~", "*"]), &all, "a", "b"), "* wins over everything");
        assert!(!visible(&list(&["~", "b"]), &all, "a", "b"), "else ~ hides");
        assert!(private(&list(&["."]), &all) && private(&[], &list(&["."])));
        assert!(!private(&list(&["b"]), &all) && !private(&list(&[".", "b"]), &all) && !private(&[], &all));
    }
}
