//! The cases, and what differs with its reason.

/// One of Istio's samples.
pub(crate) struct Case {
    /// What is injected.
    pub(crate) input: &'static str,
    /// What Istio made of it.
    pub(crate) golden: &'static str,
    /// Values of the installation.
    pub(crate) values: &'static [(&'static str, &'static str)],
    /// Settings of the mesh.
    pub(crate) mesh: &'static str,
    /// File with an IstioOperator whose values are taken.
    pub(crate) operator: &'static str,
    /// Whether the cluster is older than native sidecars.
    pub(crate) old_cluster: bool,
}

/// A difference with its reason.
pub(crate) struct Explained {
    /// What the case's name begins with.
    pub(crate) golden: &'static str,
    /// What the path contains.
    pub(crate) path: &'static str,
    /// Why.
    pub(crate) why: &'static str,
}

impl Explained {
    /// Whether this explains a difference.
    pub(crate) fn covers(&self, golden: &str, path: &str) -> bool {
        golden.starts_with(self.golden) && path.contains(self.path)
    }
}

const fn plain(input: &'static str, golden: &'static str) -> Case {
    Case { input, golden, values: &[], mesh: "", operator: "", old_cluster: false }
}

/// All but those of gRPC without a proxy, of FIPS, and [`REFUSED`].
#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    plain("auth.non-default-service-account.yaml", "auth.non-default-service-account.yaml.injected"),
    plain("auth.yaml", "auth.yaml.injected"),
    Case { old_cluster: true, ..plain("cronjob.yaml", "cronjob-old-version.yaml.injected") },
    plain("cronjob.yaml", "cronjob.yaml.injected"),
    Case { operator: "custom-template.iop.yaml", ..plain("custom-template.yaml", "custom-template.yaml.injected") },
    Case { old_cluster: true, ..plain("daemonset.yaml", "daemonset-old-version.yaml.injected") },
    plain("daemonset.yaml", "daemonset.yaml.injected"),
    plain("deploymentconfig-multi.yaml", "deploymentconfig-multi.yaml.injected"),
    plain("deploymentconfig-with-canonical-service-label.yaml", "deploymentconfig-with-canonical-service-label.yaml.injected"),
    plain("deploymentconfig.yaml", "deploymentconfig.yaml.injected"),
    plain("enable-core-dump.yaml", "enable-core-dump.yaml.injected"),
    plain("explicit-security-context.yaml", "explicit-security-context.yaml.injected"),
    Case { mesh: "defaultConfig: {drainDuration: 23s}", ..plain("format-duration.yaml", "format-duration.yaml.injected") },
    plain("frontend.yaml", "frontend.yaml.injected"),
    Case { operator: "spire-template.iop.yaml", ..plain("gateway-spire.yaml", "gateway-spire.yaml.injected") },
    plain("gateway-with-default-container.yaml", "gateway-with-default-container.yaml.injected"),
    plain("gateway.yaml", "gateway.yaml.injected"),
    Case { values: &[("global.imagePullPolicy", "Always")], ..plain("hello.yaml", "hello-always.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true"), ("pilot.cni.provider", "multus")], ..plain("hello.yaml", "hello-cncf-networks.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true"), ("pilot.cni.provider", "multus")], ..plain("hello-existing-cncf-networks-json.yaml", "hello-existing-cncf-networks-json.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true"), ("pilot.cni.provider", "multus")], ..plain("hello-existing-cncf-networks.yaml", "hello-existing-cncf-networks.yaml.injected") },
    plain("hello-host-network-with-ns.yaml", "hello-host-network-with-ns.yaml.injected"),
    plain("hello-host-network.yaml", "hello-host-network.yaml.injected"),
    plain("hello-ignore.yaml", "hello-ignore.yaml.injected"),
    plain("hello-image-pull-secret.yaml", "hello-image-pull-secret.yaml.injected"),
    Case { operator: "hello-image-secrets-in-values.iop.yaml", ..plain("hello.yaml", "hello-image-secrets-in-values.yaml.injected") },
    Case { values: &[("global.mountMtlsCerts", "true")], ..plain("hello.yaml", "hello-mount-mtls-certs.yaml.injected") },
    plain("hello-mtls-not-ready.yaml", "hello-mtls-not-ready.yaml.injected"),
    plain("hello-multi.yaml", "hello-multi.yaml.injected"),
    Case { operator: "hello-image-secrets-in-values.iop.yaml", ..plain("hello-image-pull-secret.yaml", "hello-multiple-image-secrets.yaml.injected") },
    plain("hello-multiport-metrics.yaml", "hello-multiport-metrics.yaml.injected"),
    plain("hello-namespace.yaml", "hello-namespace.yaml.injected"),
    Case { values: &[("global.imagePullPolicy", "Never")], ..plain("hello.yaml", "hello-never.yaml.injected") },
    Case { old_cluster: true, ..plain("hello.yaml", "hello-old-version.yaml.injected") },
    Case { mesh: "extensionProviders: [{name: otel, opentelemetry: {service: o, port: 4317, serviceAttributeEnrichment: OTEL_SEMANTIC_CONVENTIONS}}]", ..plain("hello-otel-semconv.yaml", "hello-otel-semconv.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true")], ..plain("hello-openshift.yaml", "hello-openshift.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true")], ..plain("hello-openshift-custom-injection.yaml", "hello-openshift-custom-injection.yaml.injected") },
    Case { mesh: "inboundTrafficPolicy: {mode: LOCALHOST}", ..plain("hello-probes-localhost.yaml", "hello-probes-localhost.yaml.injected") },
    Case { values: &[("global.proxy.holdApplicationUntilProxyStarts", "true")], ..plain("hello-probes-noProxyHoldApplication-ProxyConfig.yaml", "hello-probes-noProxyHoldApplication-ProxyConfig.yaml.injected") },
    plain("hello-probes-proxyHoldApplication-ProxyConfig.yaml", "hello-probes-proxyHoldApplication-ProxyConfig.yaml.injected"),
    plain("hello-probes-with-flag-set-in-annotation.yaml", "hello-probes-with-flag-set-in-annotation.yaml.injected"),
    plain("hello-probes-with-flag-unset-in-annotation.yaml", "hello-probes-with-flag-unset-in-annotation.yaml.injected"),
    Case { values: &[("global.proxy.holdApplicationUntilProxyStarts", "true")], ..plain("hello-probes.yaml", "hello-probes.proxyHoldsApplication.yaml.injected") },
    plain("hello-probes.yaml", "hello-probes.yaml.injected"),
    plain("hello-proxy-override.yaml", "hello-proxy-override.yaml.injected"),
    plain("hello-readiness.yaml", "hello-readiness.yaml.injected"),
    plain("hello-service.yaml", "hello-service.yaml.injected"),
    Case { operator: "hello-template-in-values.iop.yaml", ..plain("hello.yaml", "hello-template-in-values.yaml.injected") },
    Case { mesh: "defaultConfig: {tracing: {}}", ..plain("hello-tracing-disabled.yaml", "hello-tracing-disabled.yaml.injected") },
    Case { values: &[("global.proxy.holdApplicationUntilProxyStarts", "true")], ..plain("hello.yaml", "hello.proxyHoldsApplication.yaml.injected") },
    Case { values: &[("pilot.cni.enabled", "true"), ("global.network", "network1")], ..plain("hello.yaml", "hello.yaml.cni.injected") },
    plain("hello.yaml", "hello.yaml.injected"),
    Case { values: &[("global.proxy.image", "proxyTest")], ..plain("hello.yaml", "hello.yaml.proxyImageName.injected") },
    Case { values: &[("global.proxy_init.image", "proxyInitTest")], ..plain("hello.yaml", "hello.yaml.proxyInitImageName.injected") },
    plain("https-probes.yaml", "https-probes.yaml.injected"),
    plain("init-no-intercept-no-native-sidecar.yaml", "init-no-intercept-no-native-sidecar.yaml.injected"),
    Case { old_cluster: true, ..plain("job.yaml", "job-old-version.yaml.injected") },
    plain("job.yaml", "job.yaml.injected"),
    Case { values: &[("global.proxy.statusPort", "123"), ("global.proxy.readinessInitialDelaySeconds", "100"), ("global.proxy.readinessPeriodSeconds", "200"), ("global.proxy.readinessFailureThreshold", "300")], ..plain("kubevirtInterfaces.yaml", "kubevirtInterfaces.yaml.injected") },
    plain("kubevirtInterfaces_list.yaml", "kubevirtInterfaces_list.yaml.injected"),
    plain("list-frontend.yaml", "list-frontend.yaml.injected"),
    plain("list.yaml", "list.yaml.injected"),
    Case { values: &[("global.proxy.holdApplicationUntilProxyStarts", "true")], ..plain("merge-probers.yaml", "merge-probers.yaml.injected") },
    plain("multi-container.yaml", "multi-container.yaml.injected"),
    plain("multi-init.yaml", "multi-init.yaml.injected"),
    plain("multiple-templates.yaml", "multiple-templates.yaml.injected"),
    plain("named_port.yaml", "named_port.yaml.injected"),
    Case { old_cluster: true, ..plain("native-sidecar.yaml", "native-sidecar-old-version.yaml.injected") },
    plain("native-sidecar-opt-in.yaml", "native-sidecar-opt-in.yaml.injected"),
    plain("native-sidecar-opt-out.yaml", "native-sidecar-opt-out.yaml.injected"),
    plain("native-sidecar.yaml", "native-sidecar.yaml.injected"),
    plain("one_container.yaml", "one_container.yaml.injected"),
    plain("only-proxy-container.yaml", "only-proxy-container.yaml.injected"),
    Case { old_cluster: true, ..plain("pod.yaml", "pod-old-version.yaml.injected") },
    plain("pod.yaml", "pod.yaml.injected"),
    plain("prometheus-scrape.yaml", "prometheus-scrape.yaml.injected"),
    plain("prometheus-scrape2.yaml", "prometheus-scrape2.yaml.injected"),
    plain("proxy-override-args.yaml", "proxy-override-args-native.yaml.injected"),
    plain("proxy-override-args.yaml", "proxy-override-args.yaml.injected"),
    Case { values: &[("pilot.cni.enabled", "true")], ..plain("proxy-override-runas.yaml", "proxy-override-runas.yaml.cni.injected") },
    plain("proxy-override-runas.yaml", "proxy-override-runas.yaml.injected"),
    plain("proxy-override.yaml", "proxy-override.yaml.injected"),
    Case { operator: "proxy-resources-memory-null.iop.yaml", ..plain("proxy-resources-memory-null.yaml", "proxy-resources-memory-null.yaml.injected") },
    Case { operator: "proxy-resources-mixed-null.iop.yaml", ..plain("proxy-resources-mixed-null.yaml", "proxy-resources-mixed-null.yaml.injected") },
    Case { operator: "proxy-resources-null.iop.yaml", ..plain("proxy-resources-null-no-init.yaml", "proxy-resources-null-no-init.yaml.injected") },
    Case { operator: "proxy-resources-null.iop.yaml", ..plain("proxy-resources-null.yaml", "proxy-resources-null.yaml.injected") },
    Case { operator: "proxy-resources-zero.iop.yaml", ..plain("proxy-resources-zero.yaml", "proxy-resources-zero.yaml.injected") },
    plain("ready_live.yaml", "ready_live.yaml.injected"),
    plain("ready_only.yaml", "ready_only.yaml.injected"),
    Case { old_cluster: true, ..plain("replicaset.yaml", "replicaset-old-version.yaml.injected") },
    plain("replicaset.yaml", "replicaset.yaml.injected"),
    plain("replicationcontroller.yaml", "replicationcontroller.yaml.injected"),
    Case { values: &[("global.proxy.statusPort", "123"), ("global.proxy.readinessInitialDelaySeconds", "100"), ("global.proxy.readinessPeriodSeconds", "200"), ("global.proxy.readinessFailureThreshold", "300")], ..plain("reroute-virtual-interfaces.yaml", "reroute-virtual-interfaces.yaml.injected") },
    plain("reroute-virtual-interfaces_list.yaml", "reroute-virtual-interfaces_list.yaml.injected"),
    plain("resource_annotations.yaml", "resource_annotations.yaml.injected"),
    Case { operator: "spire-template.iop.yaml", ..plain("sidecar-spire.yaml", "sidecar-spire.yaml.injected") },
    plain("startup_live.yaml", "startup_live.yaml.injected"),
    plain("startup_only.yaml", "startup_only.yaml.injected"),
    plain("startup_ready_live.yaml", "startup_ready_live.yaml.injected"),
    Case { old_cluster: true, ..plain("statefulset.yaml", "statefulset-old-version.yaml.injected") },
    plain("statefulset.yaml", "statefulset.yaml.injected"),
    plain("status_annotations.yaml", "status_annotations.yaml.injected"),
    plain("status_annotations_zeroport.yaml", "status_annotations_zeroport.yaml.injected"),
    Case { values: &[("global.proxy.statusPort", "123"), ("global.proxy.readinessInitialDelaySeconds", "100"), ("global.proxy.readinessPeriodSeconds", "200"), ("global.proxy.readinessFailureThreshold", "300")], ..plain("status_params.yaml", "status_params.yaml.injected") },
    plain("tcp-probes.yaml", "tcp-probes.yaml.injected"),
    plain("traffic-annotations-empty-includes.yaml", "traffic-annotations-empty-includes.yaml.injected"),
    plain("traffic-annotations-wildcards.yaml", "traffic-annotations-wildcards.yaml.injected"),
    Case { mesh: "defaultConfig: {proxyMetadata: {ISTIO_META_TLS_CLIENT_KEY: /etc/identity/client/keys/client-key.pem}}", ..plain("traffic-annotations.yaml", "traffic-annotations.yaml.injected") },
    plain("traffic-params-empty-includes.yaml", "traffic-params-empty-includes.yaml.injected"),
    Case { values: &[("global.proxy.includeIPRanges", "\"127.0.0.1/24,10.96.0.1/24\""), ("global.proxy.excludeIPRanges", "\"10.96.0.2/24,10.96.0.3/24\""), ("global.proxy.excludeInboundPorts", "\"4,5,6\""), ("global.proxy.statusPort", "0")], ..plain("traffic-params.yaml", "traffic-params.yaml.injected") },
    plain("truncate-canonical-name-custom-controller-pod.yaml", "truncate-canonical-name-custom-controller-pod.yaml.injected"),
    plain("truncate-canonical-name-pod.yaml", "truncate-canonical-name-pod.yaml.injected"),
    plain("two_container.yaml", "two_container.yaml.injected"),
    plain("user-volume.yaml", "user-volume.yaml.injected"),
];

/// Those that ask for transparent proxying, which no proxy would serve yet.
#[rustfmt::skip]
pub(crate) const REFUSED: &[Case] = &[
    Case { values: &[("pilot.cni.enabled", "true")], ..plain("hello-openshift-tproxy.yaml", "hello-openshift-tproxy.yaml.injected") },
    Case { mesh: "defaultConfig: {interceptionMode: TPROXY}", ..plain("hello.yaml", "hello-tproxy.yaml.injected") },
    Case { mesh: "defaultConfig: {interceptionMode: TPROXY}", ..plain("proxy-override-runas.yaml", "proxy-override-runas.yaml.tproxy.injected") },
];

/// What differs, and why.
pub(crate) const EXPLAINED: &[Explained] = &[
    Explained {
        golden: "",
        path: "[TERMINATION_GRACE_PERIOD_SECONDS]",
        why: "one clock for the end of a pod: the proxy reads it (D2)",
    },
    Explained {
        golden: "",
        path: "/lifecycle/postStart/exec/command",
        why: "without native sidecars the application waits for its proxy unless told not to (D1)",
    },
    Explained { golden: "", path: "/spec/containers#order", why: "for the same reason the proxy stands first (D1)" },
    Explained {
        golden: "cronjob",
        path: "/spec/jobTemplate/metadata/",
        why: "Istio labels the Job, on which nothing reads them",
    },
    Explained {
        golden: "cronjob",
        path: "/spec/jobTemplate/spec/template/metadata/",
        why: "we label its pods, as the webhook does",
    },
    Explained { golden: "", path: "/status/", why: "outside of the pod Istio drops fields that it does not know" },
    Explained {
        golden: "deploymentconfig",
        path: "/spec/minReadySeconds",
        why: "likewise: a zero that was written stays",
    },
    Explained { golden: "deploymentconfig", path: "/spec/paused", why: "likewise" },
    Explained {
        golden: "deploymentconfig",
        path: "/spec/test",
        why: "likewise: a zero that was not written is not added",
    },
];
