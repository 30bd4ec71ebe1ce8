//! The image of the proxy (spec AN-2: `proxyImage`, `proxyImageType`).

use super::pod::Pod;
use super::values::Values;

/// Suffixes of a tag that name a kind of image and are replaced by another one.
const KNOWN_TYPES: [&str; 2] = ["distroless", "debug"];
/// The kind without suffix.
const DEFAULT_TYPE: &str = "default";

/// The proxy's image: a whole name as it is, else hub, name and tag of the values.
pub(super) fn proxy(pod: &Pod, values: &Values, image_type: &str) -> String {
    image(pod, values, &values.text("global.proxy.image"), image_type)
}

/// The image of the container that redirects traffic.
pub(super) fn redirect(pod: &Pod, values: &Values) -> String {
    image(pod, values, &values.text("global.proxy_init.image"), "")
}

fn image(pod: &Pod, values: &Values, name: &str, image_type: &str) -> String {
    let name = pod.annotation("sidecar.istio.io/proxyImage").unwrap_or(name);
    if name.contains('/') {
        return name.to_owned();
    }
    let variant = values.text("global.variant");
    let image_type = if image_type.is_empty() { variant.as_str() } else { image_type };
    let image_type = pod.annotation("sidecar.istio.io/proxyImageType").unwrap_or(image_type);
    format!("{}/{name}:{}", values.text("global.hub"), tag(&values.text("global.tag"), image_type))
}

fn tag(tag: &str, image_type: &str) -> String {
    if image_type.is_empty() {
        return tag.to_owned();
    }
    let plain = KNOWN_TYPES.iter().find_map(|known| tag.strip_suffix(known)?.strip_suffix('-')).unwrap_or(tag);
    if image_type == DEFAULT_TYPE { plain.to_owned() } else { format!("{plain}-{image_type}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // spec: AN-2
    #[test]
    fn annotations_choose_image_and_kind() {
        let pod = |annotations| Pod::new(json!({"metadata": {"annotations": annotations}})).unwrap();
        let values = Values::new(&json!({"global": {"hub": "h", "tag": "1-debug", "proxy": {"image": "p"}}}));
        assert_eq!(proxy(&pod(json!({})), &values, ""), "h/p:1-debug");
        assert_eq!(proxy(&pod(json!({})), &values, "distroless"), "h/p:1-distroless");
        assert_eq!(proxy(&pod(json!({"sidecar.istio.io/proxyImageType": "default"})), &values, "debug"), "h/p:1");
        assert_eq!(proxy(&pod(json!({"sidecar.istio.io/proxyImage": "own/p:2"})), &values, ""), "own/p:2");
    }
}
