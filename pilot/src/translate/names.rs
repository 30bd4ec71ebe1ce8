//! Names of resources, exactly Istio's (NM).

use crate::source::Key;

/// `outbound|port|subset|host` (NM-1).
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|port||` (NM-2).
pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// SNI of mesh mTLS (NM-3).
pub fn sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `address_port` (NM-5).
pub fn listener(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]_{port}") } else { format!("{address}_{port}") }
}

/// The path under which metadata `istio.config` names an object (XI-8).
pub fn config_path(key: &Key) -> String {
    let kind = format!("{:?}", key.kind);
    let mut kebab = String::new();
    for (i, c) in kind.char_indices() {
        if c.is_ascii_uppercase() && i > 0 {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    format!("/apis/networking.istio.io/v1/namespaces/{}/{kebab}/{}", key.namespace, key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NM-1, NM-2, NM-3, NM-5, XI-8
    #[test]
    fn names_are_istios() {
        assert_eq!(outbound(80, "v1", "a.b"), "outbound|80|v1|a.b");
        assert_eq!(inbound(80), "inbound|80||");
        assert_eq!(sni(80, "", "a.b"), "outbound_.80_._.a.b");
        assert_eq!(listener("::1", 80), "[::1]_80");
        let key = Key { kind: crate::source::Kind::VirtualService, namespace: "n".into(), name: "v".into() };
        assert_eq!(config_path(&key), "/apis/networking.istio.io/v1/namespaces/n/virtual-service/v");
    }
}
