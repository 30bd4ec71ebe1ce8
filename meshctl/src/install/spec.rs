//! What a user wants: a profile, files of kind IstioOperator and `--set`, laid over each other in this order.

use super::{profile, schema};
use anyhow::{Context as _, bail};
use citadel::ca::policy::{DEFAULT_TTL, MAX_TTL};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A complete specification: every field that is read is there or has a meaning when it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    whole: Value,
    /// What was written, for an upgrade that changes nothing else.
    written: Value,
    /// Other revisions that run beside this one.
    beside: Vec<String>,
}

impl Spec {
    /// Lays `files` (texts of IstioOperator, the later over the earlier) and `sets` (`PATH=VALUE`) over their profile.
    ///
    /// # Errors
    /// Names the field that there is not, with a near one, or what cannot be read.
    pub fn new(files: &[String], sets: &[String]) -> anyhow::Result<Self> {
        let mut written = json!({});
        for text in files {
            over(&mut written, &read(text)?);
        }
        for set in sets {
            let (path, value) = set.split_once('=').with_context(|| format!("--set {set}: write PATH=VALUE"))?;
            put(&mut written, path, scalar(value)).with_context(|| format!("--set {set}"))?;
        }
        if let Some(why) = schema::unknown(&written) {
            bail!(why);
        }
        Self::laid(written)
    }

    /// What is kept of an installation, whose version may have known other fields.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn stored(text: &str) -> anyhow::Result<Self> {
        Self::laid(read(text)?)
    }

    /// Lays what is written over its profile.
    fn laid(written: Value) -> anyhow::Result<Self> {
        let name = [&written["profile"], &written["values"]["profile"]].into_iter().find_map(Value::as_str);
        let name = name.unwrap_or("default");
        let known = profile::NAMES.map(str::to_owned);
        let Some(mut spec) = profile::of(name) else {
            bail!("profile: there is no {name:?}{}; there are {}", schema::hint(name, known.iter()), known.join(", "))
        };
        let wanted = written["components"]["mixer"]["enabled"].as_bool();
        if wanted.unwrap_or_else(|| spec["components"]["mixer"]["enabled"] == true) {
            profile::report_to_mixer(&mut spec);
        }
        over(&mut spec, &written);
        Self { whole: spec, written, beside: Vec::new() }.settled()
    }

    /// Puts what can be written in two places into one.
    fn settled(mut self) -> anyhow::Result<Self> {
        for (short, long) in [("hub", "hub"), ("tag", "tag"), ("namespace", "istioNamespace")] {
            if !self.whole[short].is_null() {
                self.whole["values"]["global"][long] = self.whole[short].take();
            }
        }
        let (mesh, more) = (self.whole["meshConfig"].take(), self.whole["values"]["meshConfig"].take());
        let mut mesh = if mesh.is_object() { mesh } else { json!({}) };
        if more.is_object() {
            over(&mut mesh, &more);
        }
        self.whole["meshConfig"] = mesh;
        self.redirected_by_agent();
        let domain = format!(".{}.svc.", self.namespace());
        // Variables are texts, as `--set …ISTIO_META_DNS_CAPTURE=false` does not say.
        let variables =
            self.whole.pointer_mut("/meshConfig/defaultConfig/proxyMetadata").and_then(Value::as_object_mut);
        for value in
            variables.into_iter().flat_map(Map::values_mut).filter(|value| value.is_boolean() || value.is_number())
        {
            *value = json!(value.to_string());
        }
        let text = self.whole["meshConfig"].to_string().replace(".istio-system.svc.", &domain);
        self.whole["meshConfig"] = serde_json::from_str(&text)?;
        pilot::model::mesh_config::parse(&self.mesh_config()?).context("meshConfig")?;
        for place in ["revision", "values.revision"] {
            let revision = self.text(place);
            if !revision.is_empty() {
                anyhow::ensure!(is_label(&revision), "{place}: {revision:?} is no name of small letters, digits and -");
                self.whole["revision"] = json!(revision);
            }
        }
        self.check_lives()?;
        // Proxies ask the pilot of their own revision and namespace (PI-61).
        let pilot = format!("{}.{}.svc:15012", self.of_revision("istiod"), self.namespace());
        let config = &mut self.whole["meshConfig"]["defaultConfig"];
        if config["discoveryAddress"].is_null() {
            config["discoveryAddress"] = json!(pilot);
        }
        Ok(self)
    }

    /// Certificates live for a while, and those that ask for no life no longer than the longest.
    fn check_lives(&self) -> anyhow::Result<()> {
        for (variable, _) in LIVES {
            if let Some((place, text)) = self.variable(variable) {
                let seconds = proto::duration::parse(&text).map_or(0, |life| life.as_secs());
                anyhow::ensure!(
                    seconds > 0,
                    "{place}.{variable}: {text:?} is no duration such as 24h, or shorter than 1s"
                );
            }
        }
        let [(usual, default), (longest, most)] =
            LIVES.map(|(variable, life)| (variable, self.life(variable).unwrap_or(life)));
        anyhow::ensure!(
            default <= most,
            "values.pilot.env.{usual}: certificates would live {default:?} where nobody asks for less, and {most:?} at most: set both {usual} and {longest}, the former to no more than the latter"
        );
        Ok(())
    }

    /// What was written, without what the profile and its defaults add.
    pub fn written(&self) -> &Value {
        &self.written
    }

    /// The revision; empty for the default one.
    pub fn revision(&self) -> String {
        Some(self.text("revision")).filter(|revision| revision != DEFAULT_REVISION).unwrap_or_default()
    }

    /// A name that is the revision's own: `istiod`, or `istiod-canary`.
    pub fn of_revision(&self, name: &str) -> String {
        match self.revision() {
            revision if revision.is_empty() => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    /// The value of the label by which a revision's objects are known.
    pub fn revision_label(&self) -> String {
        Some(self.revision()).filter(|revision| !revision.is_empty()).unwrap_or_else(|| DEFAULT_REVISION.to_owned())
    }

    /// The same beside other revisions, whose pilots citadel must know as well.
    #[must_use]
    pub fn beside(mut self, revisions: Vec<String>) -> Self {
        self.beside = revisions;
        self
    }

    /// Names of all pilots that run: that of the default revision, this one's, and those beside.
    pub fn pilots(&self) -> Vec<String> {
        let others = self.beside.iter().filter(|revision| *revision != DEFAULT_REVISION);
        let mut names = vec!["istiod".to_owned(), self.of_revision("istiod")];
        names.extend(others.map(|revision| format!("istiod-{revision}")));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// With the node agent pods are injected for it; and for the level `restricted`, which such pods can have.
    fn redirected_by_agent(&mut self) {
        if !self.is_on("components.cni.enabled") {
            return;
        }
        let values = &mut self.whole["values"];
        if values["pilot"]["cni"]["enabled"].is_null() {
            values["pilot"]["cni"]["enabled"] = json!(true);
        }
        let provider = values["cni"]["provider"].take();
        if provider.is_string() {
            values["pilot"]["cni"]["provider"] = provider;
        }
        if values["global"]["proxy"]["seccompProfile"].is_null() {
            values["global"]["proxy"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
        }
    }

    /// The value at a path such as `values.global.hub`; null where there is none.
    pub fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.whole, |value, name| &value[name])
    }

    /// The value at a path as text, empty where there is none.
    pub fn text(&self, path: &str) -> String {
        match self.at(path) {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the value at a path is true.
    pub fn is_on(&self, path: &str) -> bool {
        self.text(path) == "true"
    }

    /// Namespace of the control plane.
    pub fn namespace(&self) -> String {
        self.text("values.global.istioNamespace")
    }

    /// Name of the ConfigMap with the roots in every namespace.
    pub fn roots(&self) -> String {
        let name = self.text("values.global.trustBundleName");
        if name.is_empty() { proto::wire::ROOTS_CONFIG_MAP.to_owned() } else { name }
    }

    /// The audience that tokens of proxies and of the control plane name.
    pub fn audience(&self) -> String {
        let audience = self.text("values.global.sds.token.aud");
        if audience.is_empty() { proto::wire::TOKEN_AUDIENCE.to_owned() } else { audience }
    }

    /// A variable of pilot's that is written, and where: the former place wins, as in its container.
    fn variable(&self, name: &str) -> Option<(&'static str, String)> {
        let text = self.text(&format!("values.pilot.env.{name}"));
        if !text.is_empty() {
            return Some(("values.pilot.env", text));
        }
        let place = "components.pilot.k8s.env";
        let listed = self.at(place).as_array()?.iter().rfind(|one| one["name"] == name)?;
        Some((place, listed["value"].as_str().unwrap_or_default().to_owned()))
    }

    /// A duration among the variables of pilot, where it is written and can be read.
    pub fn life(&self, variable: &str) -> Option<Duration> {
        proto::duration::parse(&self.variable(variable)?.1).ok()
    }

    /// Where what all revisions share would be another than with the default one, and what to do: whoever installs a revision
    /// applies it for all.
    pub fn at_odds(&self, default: &Self) -> Vec<String> {
        let odds = self.shared().into_iter().zip(default.shared()).filter(|(own, other)| own != other);
        let text = |((field, own), (_, other)): ((String, String), (String, String))| {
            format!(
                "{field} is {own:?}, and {other:?} with the default revision, which shares citadel and mixer with this one; what to do: set it the same (--set {field}={other}), or change it for all: meshctl upgrade --set {field}={own}"
            )
        };
        odds.map(text).collect()
    }

    /// What is the same for all revisions: fields and their values.
    fn shared(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("meshConfig.trustDomain".to_owned(), self.trust_domain()),
            ("values.global.trustBundleName".to_owned(), self.roots()),
            ("values.global.sds.token.aud".to_owned(), self.audience()),
        ];
        all.extend(LIVES.map(|(variable, life)| {
            let seconds = self.life(variable).unwrap_or(life).as_secs();
            (format!("values.pilot.env.{variable}"), format!("{seconds}s"))
        }));
        all
    }

    /// Trust domain of the mesh.
    pub fn trust_domain(&self) -> String {
        self.text("meshConfig.trustDomain")
    }

    /// Aliases of it.
    pub fn trust_domain_aliases(&self) -> Vec<&str> {
        self.at("meshConfig.trustDomainAliases").as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The image of a component.
    pub fn image(&self, name: &str) -> String {
        let (hub, tag) = (self.text("values.global.hub"), self.text("values.global.tag"));
        let variant = self.text("values.global.variant");
        let tag = if variant.is_empty() { tag } else { format!("{tag}-{variant}") };
        if name.contains('/') { name.to_owned() } else { format!("{hub}/{name}:{tag}") }
    }

    /// MeshConfig as YAML.
    ///
    /// # Errors
    /// Where it has no form as YAML.
    pub fn mesh_config(&self) -> anyhow::Result<String> {
        serde_saphyr::to_string(&self.whole["meshConfig"]).context("meshConfig")
    }

    /// Gateways that are wanted, of both kinds.
    pub fn gateways(&self) -> Vec<&Value> {
        let lists = ["components.ingressGateways", "components.egressGateways"].map(|path| self.at(path).as_array());
        { lists.into_iter().flatten().flatten() }.filter(|gateway| gateway["enabled"] == true).collect()
    }
}

/// Variables of istiod's with the life of certificates, which are citadel's: of those that ask for none, and the longest.
pub(super) const LIVES: [(&str, Duration); 2] =
    [("DEFAULT_WORKLOAD_CERT_TTL", DEFAULT_TTL), ("MAX_WORKLOAD_CERT_TTL", MAX_TTL)];
/// The revision that has no name.
const DEFAULT_REVISION: &str = "default";

/// Whether a text can be part of an object's name (RFC 1123).
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 40 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// The specification in a file, which is an IstioOperator or a bare one of its `spec`.
fn read(text: &str) -> anyhow::Result<Value> {
    let value: Value = serde_saphyr::from_str(text).context("IstioOperator")?;
    match value["kind"].as_str() {
        Some("IstioOperator") => {
            let mut spec = value["spec"].clone();
            if spec["namespace"].is_null() && value["metadata"]["namespace"].is_string() {
                spec["namespace"] = value["metadata"]["namespace"].clone();
            }
            Ok(if spec.is_object() { spec } else { json!({}) })
        }
        Some(other) => bail!("kind {other} instead of IstioOperator"),
        None => Ok(if value.is_null() { json!({}) } else { value }),
    }
}

/// Lays a tree over another; null takes away. Gateways are laid over by their names.
fn over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (name, new) in above {
                match below.get_mut(name) {
                    _ if new.is_null() => drop(below.shift_remove(name)),
                    Some(old) => over(old, new),
                    None => drop(below.insert(name.clone(), new.clone())),
                }
            }
        }
        (Value::Array(below), Value::Array(above)) if is_gateways(below) => {
            for (index, new) in above.iter().enumerate() {
                let named = |one: &Value| new["name"].is_string() && one["name"] == new["name"];
                let at = below
                    .iter()
                    .position(named)
                    .or_else(|| (new["name"].is_null() && index < below.len()).then_some(index));
                match at.and_then(|at| below.get_mut(at)) {
                    Some(old) => over(old, new),
                    None => below.push(new.clone()),
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// Gateways alone are lists that are laid over element by element.
fn is_gateways(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(|one| one["name"].is_string() && one["enabled"].is_boolean())
}

/// Sets a value at a path such as `components.ingressGateways[0].enabled`; a dot in a name is written `\.`.
fn put(tree: &mut Value, path: &str, value: Value) -> anyhow::Result<()> {
    let mut at = tree;
    for part in path.replace("\\.", "\u{0}").split('.') {
        let part = part.replace('\u{0}', ".");
        let (name, indices) = part.split_once('[').map_or((part.as_str(), ""), |(name, rest)| (name, rest));
        anyhow::ensure!(!name.is_empty(), "a name is missing in {path}");
        if !at.is_object() {
            *at = json!({});
        }
        at = at.as_object_mut().context("a mapping")?.entry(name.to_owned()).or_insert(Value::Null);
        for index in indices.split_terminator(']') {
            let index: usize =
                index.trim_start_matches('[').parse().with_context(|| format!("{path}: an index is a number"))?;
            anyhow::ensure!(index < 64, "{path}: index {index} is too large");
            if !at.is_array() {
                *at = json!([]);
            }
            let list = at.as_array_mut().context("a list")?;
            while list.len() <= index {
                list.push(Value::Object(Map::new()));
            }
            at = list.get_mut(index).context("an element")?;
        }
    }
    *at = value;
    Ok(())
}

/// A value as Helm reads it: a truth value, a number, a list `{a,b}`, or text.
fn scalar(text: &str) -> Value {
    if let Some(list) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return list.split(',').map(|one| scalar(one.trim())).collect();
    }
    match text {
        "true" => json!(true),
        "false" => json!(false),
        "null" => Value::Null,
        _ => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(sets: &[&str]) -> anyhow::Result<Spec> {
        Spec::new(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
    }

    // spec: IN-1, CT-9
    #[test]
    fn profile_then_files_then_sets() {
        let file = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {namespace: mesh}\nspec:\n  profile: demo\n  tag: 1.0\n  meshConfig: {trustDomain: corp.example}\n  components:\n    ingressGateways:\n    - {name: istio-ingressgateway, enabled: false}\n    - {name: mine, enabled: true}\n";
        let sets = ["values.pilot.traceSampling=50".to_owned(), "components.mixer.enabled=false".to_owned()];
        let spec = Spec::new(&[file.to_owned()], &sets).unwrap();
        assert_eq!((spec.namespace().as_str(), spec.trust_domain().as_str()), ("mesh", "corp.example"));
        assert_eq!(spec.text("values.pilot.traceSampling"), "50");
        assert_eq!(spec.text("meshConfig.accessLogFile"), "/dev/stdout", "the profile's");
        let names: Vec<&str> = spec.gateways().iter().filter_map(|gateway| gateway["name"].as_str()).collect();
        assert_eq!(names, ["mine", "istio-egressgateway"]);
        assert!(!spec.is_on("components.mixer.enabled") && spec.is_on("components.pilot.enabled"));
        assert!(!spec.mesh_config().unwrap().contains("mixer."), "nobody is told to call what is not there");
    }

    // spec: IN-1, PI-61, MX-99
    #[test]
    fn proxies_report_to_mixer_where_there_is_one_unless_somebody_says_otherwise() {
        const METRICS: &str = "meshConfig.defaultConfig.proxyMetadata.OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        let own = spec(&["profile=preview", "namespace=mesh", "meshConfig.defaultConfig.concurrency=2"]).unwrap();
        assert_eq!(own.text(METRICS), "http://mixer.mesh.svc.cluster.local:9091");
        assert_eq!(own.text("meshConfig.defaultConfig.concurrency"), "2");
        for server in ["meshConfig.mixerReportServer", "meshConfig.mixerCheckServer"] {
            assert_eq!(own.text(server), "mixer.mesh.svc.cluster.local:9091", "{server}");
        }
        for without in ["profile=minimal", "components.mixer.enabled=false"] {
            let spec = spec(&[without]).unwrap();
            assert_eq!(
                (spec.text(METRICS), spec.text("meshConfig.mixerReportServer")),
                Default::default(),
                "{without}"
            );
        }
        let later = spec(&["profile=minimal", "components.mixer.enabled=true"]).unwrap();
        assert_eq!(later.text(METRICS), "http://mixer.istio-system.svc.cluster.local:9091");
        let other = spec(&[&format!("{METRICS}=http://collector.other.svc.cluster.local:4317")]).unwrap();
        assert_eq!(other.text(METRICS), "http://collector.other.svc.cluster.local:4317");
        let silent = spec(&[&format!("{METRICS}=null"), "meshConfig.mixerReportServer=null"]).unwrap();
        assert_eq!((silent.text(METRICS), silent.text("meshConfig.mixerReportServer")), Default::default());
    }

    // pains.md D12
    // spec: IN-1, PI-20
    #[test]
    fn proxies_answer_dns_in_every_profile_unless_somebody_says_otherwise() {
        const CAPTURE: &str = "meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE";
        for name in profile::NAMES {
            let own = spec(&[&format!("profile={name}"), "meshConfig.defaultConfig.proxyMetadata.OTHER=1"]).unwrap();
            assert_eq!(own.at(CAPTURE), &json!("true"), "{name}");
        }
        assert_eq!(spec(&[&format!("{CAPTURE}=false")]).unwrap().at(CAPTURE), &json!("false"), "a text");
        let file = "meshConfig: {defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"false\"}}}";
        assert_eq!(Spec::new(&[file.to_owned()], &[]).unwrap().at(CAPTURE), &json!("false"));
    }

    // spec: IN-1
    #[test]
    fn every_profile_can_be_read_and_none_other() {
        for name in profile::NAMES {
            spec(&[&format!("profile={name}")]).unwrap();
        }
        let refused = spec(&["profile=demmo"]).unwrap_err().to_string();
        assert!(refused.starts_with("profile: there is no \"demmo\"; did you mean demo?"), "{refused}");
    }

    // spec: CT-9, IN-6
    #[test]
    fn what_cannot_be_is_refused() {
        for (set, why) in [
            ("values.global.hubb=x", "values.global.hubb: there is no such field; did you mean hub?"),
            ("revision=Canary", "is no name of small letters"),
            ("nothing", "write PATH=VALUE"),
            ("components.ingressGateways[x].enabled=true", "an index is a number"),
            ("components.ingressGateways[99].enabled=true", "too large"),
        ] {
            let refused = format!("{:#}", spec(&[set]).unwrap_err());
            assert!(refused.contains(why), "{refused}");
        }
        assert!(Spec::new(&["kind: Service".to_owned()], &[]).is_err());
    }

    // spec: CA-10, IN-3
    #[test]
    fn lives_of_certificates_are_those_that_citadel_takes() {
        let of = |variable: &str, life: &str| format!("values.pilot.env.{variable}_WORKLOAD_CERT_TTL={life}");
        let (default, longest) = (|life: &str| of("DEFAULT", life), |life: &str| of("MAX", life));
        for (sets, why) in [
            (vec![default("1h"), longest("2h")], None),
            (vec![longest("24h")], None),
            (vec![default("100ms")], Some("values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL: \"100ms\" is no duration")),
            (vec![default("a day")], Some("values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL: \"a day\" is no duration")),
            (vec![longest("0s")], Some("values.pilot.env.MAX_WORKLOAD_CERT_TTL: \"0s\" is no duration")),
            (vec![longest("1h")], Some("set both DEFAULT_WORKLOAD_CERT_TTL and MAX_WORKLOAD_CERT_TTL")),
            (vec![default("3h"), longest("2h")], Some("set both DEFAULT_WORKLOAD_CERT_TTL and MAX_WORKLOAD_CERT_TTL")),
        ] {
            let refused = Spec::new(&[], &sets).err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), why.is_some(), "{sets:?}: {refused:?}");
            assert!(why.is_none_or(|why| refused.as_ref().unwrap().contains(why)), "{refused:?}");
        }
        let listed =
            |env: Value| Spec::new(&[json!({"components": {"pilot": {"k8s": {"env": env}}}}).to_string()], &[]);
        let spec = listed(json!([{"name": "A"}, {"name": "DEFAULT_WORKLOAD_CERT_TTL", "value": "2h"}])).unwrap();
        assert_eq!(spec.life("DEFAULT_WORKLOAD_CERT_TTL"), Some(Duration::from_secs(7200)));
        let elsewhere = json!([{"name": "MAX_WORKLOAD_CERT_TTL", "valueFrom": {"configMapKeyRef": {}}}]);
        let refused = listed(elsewhere).unwrap_err().to_string();
        assert!(refused.starts_with("components.pilot.k8s.env.MAX_WORKLOAD_CERT_TTL: \"\""), "{refused}");
    }

    // spec: IN-30
    #[test]
    fn a_revision_agrees_with_the_default_one_on_what_they_share() {
        let file = "values: {global: {trustBundleName: roots, hubb: x}, pilot: {env: {DEFAULT_WORKLOAD_CERT_TTL: 2h}}}";
        let default = Spec::stored(file).unwrap();
        assert!(Spec::new(&[file.to_owned()], &[]).is_err(), "of an earlier version");
        let same = [
            "revision=2-0",
            "values.global.trustBundleName=roots",
            "values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL=120m",
            "values.global.sds.token.aud=istio-ca",
            "profile=minimal",
        ];
        assert_eq!(spec(&same).unwrap().at_odds(&default), Vec::<String>::new());
        let odds = spec(&["revision=2-0", "values.global.sds.token.aud=mesh"]).unwrap().at_odds(&default);
        for (text, expected) in odds.iter().zip([
            "values.global.trustBundleName is \"istio-ca-root-cert\", and \"roots\" with the default revision",
            "values.global.sds.token.aud is \"mesh\", and \"istio-ca\" with the default revision",
            "values.pilot.env.DEFAULT_WORKLOAD_CERT_TTL is \"86400s\", and \"7200s\" with the default revision",
        ]) {
            assert!(text.starts_with(expected) && text.contains("; what to do: set it the same (--set "), "{text}");
        }
        assert_eq!(odds.len(), 3, "{odds:?}");
    }

    // spec: IN-30
    #[test]
    fn a_revision_gives_its_own_objects_a_name() {
        let canary = spec(&["revision=canary"]).unwrap();
        assert_eq!((canary.revision().as_str(), canary.of_revision("istiod").as_str()), ("canary", "istiod-canary"));
        assert_eq!(canary.pilots(), ["istiod", "istiod-canary"]);
        let default = spec(&["values.revision=default"]).unwrap();
        assert_eq!((default.of_revision("istiod").as_str(), default.revision_label().as_str()), ("istiod", "default"));
        assert_eq!(default.beside(vec!["old".to_owned()]).pilots(), ["istiod", "istiod-old"]);
    }

    #[test]
    fn values_are_read_as_helm_does() {
        let spec = spec(&[
            "components.ingressGateways[0].k8s.serviceAnnotations.a\\.b/c=1",
            "values.global.imagePullSecrets={one,two}",
            "hub=example/mesh",
        ])
        .unwrap();
        assert_eq!(spec.gateways()[0]["k8s"]["serviceAnnotations"]["a.b/c"], 1);
        assert_eq!(spec.at("values.global.imagePullSecrets"), &json!(["one", "two"]));
        assert_eq!(spec.image("pilot"), format!("example/mesh/pilot:{}", env!("CARGO_PKG_VERSION")));
    }
}
