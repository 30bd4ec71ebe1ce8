//! Conditions on claims of a token: `@request.auth.claims.a.b` or `@request.auth.claims[a][b]` in place of the name of a
//! header (VS-13). Istio's page: `ref-jwt-claim-routing`, task "JWT claim based routing".

/// How such a condition begins; upper and lower case are the same.
const BEGIN: &str = "@request.auth.claims";

/// The path of a claim that a key names, from the outside in; none where it is the name of a header.
pub fn path(key: &str) -> Option<Vec<&str>> {
    let (begin, rest) = key.split_at_checked(BEGIN.len())?;
    let path: Vec<&str> = match rest.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    (begin.eq_ignore_ascii_case(BEGIN) && path.iter().all(|name| !name.is_empty())).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::path;

    // spec: VS-13
    #[test]
    fn a_claim_is_named_with_dots_or_with_brackets() {
        assert_eq!(path("@request.auth.claims.a.b"), Some(vec!["a", "b"]));
        assert_eq!(path("@Request.Auth.Claims[https://x.y/z][B]"), Some(vec!["https://x.y/z", "B"]));
        for other in
            ["@request.auth.claims", "@request.auth.claims.", "@request.auth.claims[]", "@request.auth.claims[a", "x-a"]
        {
            assert_eq!(path(other), None, "{other}");
        }
        assert_eq!((path("@request.auth.claims.a..b"), path("@request.auth.claimsx.a")), (None, None));
    }
}
