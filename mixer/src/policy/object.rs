//! Files → objects. An object's identity is kept even where its `spec` is refused later.

use crate::source::Texts;
use crate::yaml::{self, Fault, Node};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The group of Mixer's kinds.
pub const GROUP: &str = "config.istio.io/";
/// The group of our own kinds.
pub const OWN_GROUP: &str = "policy.ferromesh.io/";
/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind, as written.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// An object as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which one.
    pub key: Key,
    /// The file it stands in.
    pub file: Arc<str>,
    /// Its `spec`; an empty mapping where it has none.
    pub spec: Node,
}

/// Something refused: an object, or a document of which not even that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which object, where it is known.
    pub object: Option<Key>,
    /// The file.
    pub file: Arc<str>,
    /// Line, field and reason.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.fault.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.fault.field.is_empty() {
            write!(f, "{}: ", self.fault.field)?;
        }
        f.write_str(&self.fault.message)
    }
}

/// All objects that some files hold; of files with unreadable documents, what was known of them stays.
#[derive(Debug, Default)]
pub struct Objects {
    held: BTreeMap<Key, Object>,
}

impl Objects {
    /// Takes the texts of all files. Returns what is refused.
    pub fn read(&mut self, texts: &Texts) -> Vec<Problem> {
        let mut found = BTreeMap::new();
        let mut problems = Vec::new();
        for (file, text) in texts {
            let mut unreadable = false;
            for document in yaml::documents(text) {
                match document.and_then(|root| identify(root, file)) {
                    Ok(Some(object)) if found.contains_key(&object.key) => problems.push(Problem {
                        fault: Fault {
                            line: object.spec.line,
                            field: "metadata.name".to_owned(),
                            message: "the same object is defined twice; the first counts".to_owned(),
                        },
                        object: Some(object.key),
                        file: file.clone(),
                    }),
                    Ok(Some(object)) => drop(found.insert(object.key.clone(), object)),
                    Ok(None) => {}
                    Err(fault) => {
                        unreadable = true;
                        problems.push(Problem { object: None, file: file.clone(), fault });
                    }
                }
            }
            if unreadable {
                for (key, object) in self.held.iter().filter(|(_, object)| object.file == *file) {
                    found.entry(key.clone()).or_insert_with(|| object.clone());
                }
            }
        }
        self.held = found;
        problems
    }

    /// All of one of these kinds.
    pub fn of<'o>(&'o self, kinds: &'o [&str]) -> impl Iterator<Item = &'o Object> {
        self.held.values().filter(|object| kinds.contains(&object.key.kind.as_str()))
    }
}

/// The object that a document is, if it is of a group that is ours.
fn identify(root: Node, file: &Arc<str>) -> Result<Option<Object>, Fault> {
    let fault =
        |field: &str, message: &str| Fault { line: root.line, field: field.to_owned(), message: message.to_owned() };
    let text = |path: [&str; 2]| root.field(path[0])?.field(path[1])?.text().map(str::to_owned);
    let version = root.field("apiVersion").and_then(Node::text).ok_or_else(|| fault("apiVersion", "is missing"))?;
    if !version.starts_with(GROUP) && !version.starts_with(OWN_GROUP) {
        return Ok(None);
    }
    let kind = root.field("kind").and_then(Node::text).ok_or_else(|| fault("kind", "is missing"))?.to_owned();
    let name = text(["metadata", "name"]).ok_or_else(|| fault("metadata.name", "is missing"))?;
    let namespace = text(["metadata", "namespace"]).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let spec = root.field("spec").cloned().unwrap_or_else(|| Node::empty(root.line));
    Ok(Some(Object { key: Key { kind, namespace, name }, file: file.clone(), spec }))
}

/// What a short or long name in a rule may mean (MX-50): `name`, `name.namespace`, `name.kind`, `name.kind.namespace`.
/// Gives kind, namespace and name, in the order in which they are tried; an empty kind is any.
pub fn references(text: &str, namespace: &str) -> Vec<(String, String, String)> {
    let mut found = vec![(String::new(), namespace.to_owned(), text.to_owned())];
    if let Some((name, last)) = text.rsplit_once('.') {
        found.push((last.to_owned(), namespace.to_owned(), name.to_owned()));
        if let Some((name, kind)) = name.rsplit_once('.') {
            found.push((kind.to_owned(), last.to_owned(), name.to_owned()));
        }
        found.push((String::new(), last.to_owned(), name.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: \"config.istio.io/v1alpha2\"\nkind: rule\nmetadata: {name: a}\nspec: {match: ''}\n";

    #[test]
    fn a_file_that_breaks_keeps_its_objects() {
        let mut objects = Objects::default();
        let texts = |text: &str| Texts::from([("a.yaml".into(), text.to_owned())]);
        assert!(objects.read(&texts(GOOD)).is_empty());
        let problems = objects.read(&texts(&format!("{}---\nkind: [\n", GOOD.replace("name: a", "name: b"))));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("a.yaml:"), "{}", problems[0]);
        assert_eq!(objects.of(&["rule"]).count(), 2, "the new one and the one that may be in the broken document");
        assert!(objects.read(&texts("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n")).is_empty());
        assert_eq!(objects.of(&["rule"]).count(), 0, "a whole file without it loses it");
    }

    #[test]
    fn the_same_object_twice_is_a_problem() {
        let mut objects = Objects::default();
        let problems = objects.read(&Texts::from([("a.yaml".into(), format!("{GOOD}---\n{GOOD}"))]));
        assert!(problems[0].fault.message.contains("twice"));
    }

    // spec: MX-50
    #[test]
    fn short_and_long_names_are_tried_in_order() {
        let tried = |text| {
            let found = references(text, "shop");
            found.iter().map(|(kind, namespace, name)| format!("{kind}|{namespace}|{name}")).collect::<Vec<_>>()
        };
        assert_eq!(tried("a"), ["|shop|a"]);
        assert_eq!(tried("a.denier"), ["|shop|a.denier", "denier|shop|a", "|denier|a"]);
        assert_eq!(tried("a.quota.istio-system").get(2).unwrap(), "quota|istio-system|a");
    }
}
