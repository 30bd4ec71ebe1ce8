//! AuthorizationPolicy (spec 1.13).

use super::{Later, WorkloadSelector};

istio_struct! {
    /// `spec` of an AuthorizationPolicy.
    #[derive(Eq)]
    AuthorizationPolicy {
        selector: Option<WorkloadSelector>,
        target_ref: Option<Later>,
        target_refs: Option<Later>,
        rules: Vec<Rule>,
        action: Action,
        provider: Option<Provider>,
    }
}

istio_enum! {
    /// What a match means.
    Action { Allow, Deny, Audit, Custom }
}

istio_struct! {
    /// The provider of a CUSTOM policy: one of `MeshConfig.extensionProviders`.
    #[derive(Eq)]
    Provider { name: String }
}

istio_struct! {
    /// One rule: sources, operations and conditions that all hold.
    #[derive(Eq)]
    Rule {
        from: Vec<From>,
        to: Vec<To>,
        when: Vec<Condition>,
    }
}

istio_struct! {
    /// Wrapper of a source.
    #[derive(Eq)]
    From { source: Option<Source> }
}

istio_struct! {
    /// Wrapper of an operation.
    #[derive(Eq)]
    To { operation: Option<Operation> }
}

istio_struct! {
    /// Who asks.
    #[derive(Eq)]
    Source {
        principals: Vec<String>,
        not_principals: Vec<String>,
        request_principals: Vec<String>,
        not_request_principals: Vec<String>,
        namespaces: Vec<String>,
        not_namespaces: Vec<String>,
        service_accounts: Vec<String>,
        not_service_accounts: Vec<String>,
        trust_domains: Vec<String>,
        not_trust_domains: Vec<String>,
        ip_blocks: Vec<String>,
        not_ip_blocks: Vec<String>,
        remote_ip_blocks: Vec<String>,
        not_remote_ip_blocks: Vec<String>,
    }
}

istio_struct! {
    /// What is asked for.
    #[derive(Eq)]
    Operation {
        hosts: Vec<String>,
        not_hosts: Vec<String>,
        ports: Vec<String>,
        not_ports: Vec<String>,
        methods: Vec<String>,
        not_methods: Vec<String>,
        paths: Vec<String>,
        not_paths: Vec<String>,
    }
}

istio_struct! {
    /// A condition on an attribute.
    #[derive(Eq)]
    Condition {
        key: String,
        values: Vec<String>,
        not_values: Vec<String>,
    }
}
