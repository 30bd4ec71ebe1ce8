use super::*;

// spec: LR-2, LR-3, LR-4, LR-9, LR-10, LR-12
#[test]
fn resets_read_as_envoy_writes_them() {
    let refused = Outcome::with_detail(Reason::ConnectFailure, "delayed connect error: Connection refused");
    assert_eq!(
        refused.details(),
        "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
    );
    assert_eq!(
        refused.body(false),
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    assert_eq!(
        refused.body(true),
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: remote connection failure"
    );
    let face = |r: Reason| (r.face().status, r.face().flags, Outcome::from(r).details());
    let reset = |s: &str| format!("upstream_reset_before_response_started{{{s}}}");
    assert_eq!(face(Reason::ConnectTimeout), (503, Flags::UF, reset("connection_timeout")));
    assert_eq!(face(Reason::UpstreamClosed), (503, Flags::UC, reset("connection_termination")));
    assert_eq!(face(Reason::UpstreamProtocol), (502, Flags::UPE, reset("protocol_error")));
    assert_eq!(face(Reason::Overflow), (503, Flags::UO, reset("overflow")));
}

// spec: LR-1, LR-5, LR-6, LR-7, LR-8, LR-15, LR-21, LR-24, LR-27
#[test]
fn replies_carry_envoys_status_flag_details_and_body() {
    let rows = [
        (Reason::NoHealthyUpstream, 503, "UH", "no_healthy_upstream", "no healthy upstream"),
        (Reason::UnknownCluster, 503, "NC", "cluster_not_found", ""),
        (Reason::NoRoute, 404, "NR", "route_not_found", ""),
        (Reason::RouteTimeout, 504, "UT", "response_timeout", "upstream request timeout"),
        (Reason::PerTryTimeout, 504, "UT", "upstream_per_try_timeout", "upstream request timeout"),
        (Reason::RbacDenied, 403, "-", "rbac_access_denied_matched_policy[none]", "RBAC: access denied"),
        (Reason::HeadersTooLarge, 431, "DPE", "http1.headers_too_large", ""),
        (Reason::MissingHost, 400, "-", "missing_host_header", ""),
        (Reason::DownstreamGone, 0, "DC", "downstream_remote_disconnect", ""),
    ];
    for (reason, status, flags, details, body) in rows {
        let face = reason.face();
        assert_eq!((face.status, face.flags.to_string().as_str()), (status, flags), "{reason:?}");
        assert_eq!((Outcome::from(reason).details().as_str(), face.body), (details, body), "{reason:?}");
    }
}

#[test]
fn flags_print_in_envoys_order() {
    let mut flags = Flags::UF;
    flags.insert(Flags::URX);
    assert_eq!(flags.to_string(), "UF,URX");
    assert_eq!(Flags::from_short("URX"), Some(Flags::URX));
    assert_eq!(Flags::from_short("XX"), None);
    let mut long = Vec::new();
    flags.write_long(&mut long);
    assert_eq!(long, b"UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
}
