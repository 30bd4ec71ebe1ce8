use super::*;
use crate::model::{Mesh, MeshConfig};
use crate::source::memory;

const CHAIN: &str = include_str!("../../../tests/support/pki/server.pem");
const KEY: &str = include_str!("../../../tests/support/pki/server.key");
const OTHER_KEY: &str = include_str!("../../../tests/support/pki/client.key");
const ROOTS: &str = include_str!("../../../tests/support/pki/roots.pem");

/// A Secret of `default` with these fields.
fn secret(name: &str, fields: &[(&str, &str)]) -> String {
    let field = |(name, content): &(&str, &str)| {
        let lines: String = content.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {name}: |\n{lines}")
    };
    let fields: String = fields.iter().map(field).collect();
    format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n{fields}")
}

struct World {
    store: Store,
    mesh: Mesh,
}

impl World {
    fn new(yaml: &str) -> Self {
        let mut world = Self { store: Store::default(), mesh: Mesh::empty(MeshConfig::default()) };
        world.change(yaml);
        world
    }

    fn change(&mut self, yaml: &str) -> bool {
        let mut changed = BTreeMap::new();
        for object in memory::parse(yaml, None).objects {
            changed.insert(object.key.clone(), object.clone());
            self.store.insert(object);
        }
        let change = self.mesh.update(&self.store, &changed);
        assert!(!change.full, "nothing but secrets is told anew");
        change.secrets
    }

    fn find(&self, name: &str) -> Option<Content> {
        self.mesh.secrets.find(name, "default")
    }

    fn lack(&self, name: &str) -> String {
        self.mesh.secrets.lack(name, "default").map(|lack| lack.to_string()).unwrap_or_default()
    }
}

// spec: CA-26, GW-12
#[test]
fn both_forms_of_a_secret_are_read() {
    let all = [
        secret("tls", &[("tls.crt", CHAIN), ("tls.key", KEY), ("ca.crt", ROOTS), ("tls.ocsp-staple", "s")]),
        secret("generic", &[("cert", CHAIN), ("key", KEY), ("cacert", ROOTS)]),
        secret("server", &[("tls.crt", CHAIN), ("tls.key", KEY)]),
        secret("server-cacert", &[("ca.crt", ROOTS)]),
    ];
    let world = World::new(&all.concat());
    for name in ["tls", "generic", "server"] {
        let Some(Content::Certificate(own)) = world.find(&resource(name)) else { panic!("{name}") };
        assert_eq!((own.chain.as_slice(), own.key.as_slice()), (CHAIN.as_bytes(), KEY.as_bytes()));
        assert_eq!(own.staple.is_some(), name == "tls");
        let Some(Content::Authorities(own)) = world.find(&authorities_of(name)) else { panic!("{name}") };
        assert_eq!(own.roots, ROOTS.as_bytes(), "of the Secret itself, or of one of its own");
    }
    assert!(
        world.find("kubernetes://default/tls").is_some() && world.find("kubernetes-gateway://default/tls").is_some()
    );
    assert!(!format!("{:?}", world.mesh.secrets).contains("PRIVATE"), "keys are never shown");
}

// spec: CA-27
// bar: S2
#[test]
fn secrets_of_other_namespaces_are_not_found() {
    let world = World::new(&secret("a", &[("tls.crt", CHAIN), ("tls.key", KEY)]));
    assert!(world.mesh.secrets.find("kubernetes://a", "other").is_none());
    assert!(world.mesh.secrets.find("kubernetes://default/a", "other").is_none());
    let lack = world.mesh.secrets.lack("kubernetes://default/a", "other").unwrap().to_string();
    assert_eq!(lack, "a proxy in namespace other may not read Secrets of namespace default");
}

// spec: GW-12
#[test]
fn what_is_missing_or_broken_is_said_and_the_version_before_stays() {
    let mut world = World::new(&secret("a", &[("tls.crt", CHAIN), ("tls.key", OTHER_KEY), ("ca.crt", ROOTS)]));
    assert!(world.find("kubernetes://a").is_none());
    assert!(world.lack("kubernetes://a").contains("the private key does not fit"), "{}", world.lack("kubernetes://a"));
    assert_eq!(world.lack("kubernetes://a-cacert"), "", "the other half is good");
    assert_eq!(world.lack("kubernetes://b"), "namespace default, where its proxies are, has no Secret b");
    assert_eq!(
        world.lack("kubernetes://b-cacert"),
        "namespace default, where its proxies are, has no Secret b and no b-cacert"
    );
    assert!(world.change(&secret("a", &[("tls.crt", CHAIN), ("tls.key", KEY)])));
    let before = world.find("kubernetes://a").unwrap();
    assert!(world.find("kubernetes://a-cacert").is_some(), "authorities that are gone from it stay in force");
    assert!(
        world
            .lack("kubernetes://a-cacert")
            .ends_with("it has neither ca.crt nor cacert; the version before stays in force")
    );
    world.change(&secret("a", &[("tls.crt", "rubbish"), ("tls.key", KEY)]));
    assert_eq!(world.find("kubernetes://a"), Some(before));
    assert!(world.lack("kubernetes://a").ends_with("; the version before stays in force"));
    let key = world.store.of_kind(Kind::Secret).next().unwrap().key.clone();
    let gone = world.store.remove(&key).unwrap();
    world.mesh.update(&world.store, &[(key, gone)].into());
    assert!(world.find("kubernetes://a").is_none(), "what is deleted is gone");
}

#[test]
fn a_secret_that_says_the_same_changes_nothing() {
    let yaml = secret("a", &[("tls.crt", CHAIN), ("tls.key", KEY)]);
    let mut world = World::new(&yaml);
    assert!(!world.change(&yaml));
}

#[test]
fn names_are_checked_where_they_are_written() {
    for good in ["a", "kubernetes://a", "kubernetes://n/a", "builtin://"] {
        assert_eq!(check_name(good), None);
    }
    assert_eq!(check_name("configmap://n/a").unwrap(), "not supported yet: configmap://");
    assert!(check_name("n/a").unwrap().contains("write kubernetes://NAMESPACE/NAME"));
    assert!(check_name("kubernetes://n/a/b").is_some() && check_name("http://a").is_some());
    assert_eq!((resource("a"), resource("kubernetes://n/a")), ("kubernetes://a".into(), "kubernetes://n/a".into()));
    assert_eq!(authorities_of("a"), "kubernetes://a-cacert");
    assert_eq!(authorities_of("kubernetes://n/a-cacert"), "kubernetes://n/a-cacert");
}
