//! RequestAuthentication (spec 1.12).

use super::{Duration, Later, WorkloadSelector};

istio_struct! {
    /// `spec` of a RequestAuthentication.
    #[derive(Eq)]
    RequestAuthentication {
        selector: Option<WorkloadSelector>,
        target_ref: Option<Later>,
        target_refs: Option<Later>,
        jwt_rules: Vec<JwtRule>,
    }
}

istio_struct! {
    /// Tokens of one issuer.
    #[derive(Eq, Hash)]
    JwtRule {
        issuer: String,
        audiences: Vec<String>,
        #[serde(alias = "jwks_uri")]
        jwks_uri: String,
        jwks: String,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<String>,
        from_cookies: Vec<String>,
        output_payload_to_header: String,
        output_claim_to_headers: Vec<ClaimToHeader>,
        forward_original_token: bool,
        timeout: Option<Duration>,
        space_delimited_claims: Vec<String>,
    }
}

istio_struct! {
    /// A header with a token after a prefix.
    #[derive(Eq, Hash)]
    JwtHeader { name: String, prefix: String }
}

istio_struct! {
    /// A claim that the upstream gets as a header.
    #[derive(Eq, Hash)]
    ClaimToHeader { header: String, claim: String }
}
