use super::super::config;
use super::*;
use crate::quota::DEDUPLICATION;
use crate::quota::memory::Memory;
use vitals::prometheus::{Registry, TextEncoder};

struct Case {
    limiter: Limiter,
    registry: Registry,
}

fn case(yaml: &str) -> Case {
    let registry = Registry::new();
    let meters = Meters::new(&registry).unwrap();
    let stores = Stores { common: Counters::Memory(Memory::start(DEDUPLICATION)), per_second: None };
    let limiter = Limiter::new(stores, meters, false);
    let domains = config::parse(yaml).unwrap();
    limiter.load_files(domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect());
    Case { limiter, registry }
}

fn question(descriptors: &[&[(&str, &str)]]) -> Question {
    let one = |entries: &&[(&str, &str)]| Descriptor {
        entries: entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Descriptor::default()
    };
    Question { domain: "d".to_owned(), descriptors: descriptors.iter().map(one).collect(), ..Question::default() }
}

impl Case {
    async fn over(&self, question: &Question) -> bool {
        self.limiter.decide(question).await.unwrap().over
    }

    fn metric(&self, line: &str) -> bool {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|found| found == line)
    }
}

const SAMPLE: &str = "domain: d\ndescriptors:\n- key: PATH\n  value: \"/\"\n  rate_limit:\n    unit: minute\n    requests_per_unit: 1\n- key: PATH\n  rate_limit:\n    unit: minute\n    requests_per_unit: 100\n";

// spec: MX-97, MX-110, MX-111, MX-116
#[tokio::test(start_paused = true)]
async fn any_descriptor_beyond_its_limit_refuses_and_each_value_counts_apart() {
    let case = case(SAMPLE);
    let root = question(&[&[("PATH", "/")]]);
    let first = case.limiter.decide(&root).await.unwrap();
    let status = &first.statuses[0];
    assert_eq!((first.over, status.remaining, status.limit.as_ref().unwrap().per_unit), (false, 0, Some(1)));
    assert!(status.until_reset <= Duration::from_secs(60));
    assert!(case.over(&root).await);
    for _ in 0..100 {
        assert!(!case.over(&question(&[&[("PATH", "/a")]])).await);
    }
    assert!(case.over(&question(&[&[("PATH", "/a")]])).await);
    assert!(!case.over(&question(&[&[("PATH", "/b")]])).await, "a value of its own");
    assert!(case.over(&question(&[&[("PATH", "/b")], &[("PATH", "/")]])).await, "one of two");
    assert!(!case.over(&question(&[&[("other", "x")]])).await, "no rule, no limit");
    assert!(!case.over(&Question { domain: "e".to_owned(), ..root.clone() }).await);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!case.over(&root).await, "the next minute");
}

// spec: MX-112
#[tokio::test(start_paused = true)]
async fn shadows_count_and_never_refuse_what_is_unlimited_is_not_counted_and_limits_replace_others() {
    let case = case(
        "domain: d\ndescriptors:\n\
         - {key: shadow, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}\n\
         - {key: free, rate_limit: {unlimited: true}}\n\
         - {key: all, rate_limit: {unit: minute, requests_per_unit: 1, name: all}}\n\
         - {key: one, rate_limit: {unit: minute, requests_per_unit: 3, replaces: [{name: all}]}}\n",
    );
    for _ in 0..3 {
        assert!(!case.over(&question(&[&[("shadow", "x")]])).await);
        let free = case.limiter.decide(&question(&[&[("free", "x")]])).await.unwrap();
        assert_eq!(free.statuses[0].remaining, u32::MAX);
        assert!(!case.over(&question(&[&[("all", "x")], &[("one", "x")]])).await, "one replaces all");
    }
    assert!(case.over(&question(&[&[("all", "x")], &[("one", "x")]])).await);
    assert!(!case.over(&question(&[&[("all", "x")]])).await, "nothing was counted for it");
    assert!(case.metric(r#"ratelimit_service_rate_limit_shadow_mode{domain="d",key="shadow"} 2"#));
}

// spec: MX-110
#[tokio::test(start_paused = true)]
async fn hits_are_added_as_asked_by_the_question_or_the_descriptor() {
    let case = case("domain: d\ndescriptors: [{key: a, rate_limit: {unit: minute, requests_per_unit: 10}}]");
    let mut asked = Question { hits: 4, ..question(&[&[("a", "x")]]) };
    assert_eq!(case.limiter.decide(&asked).await.unwrap().statuses[0].remaining, 6);
    asked.descriptors[0].hits = Some(6);
    assert_eq!(case.limiter.decide(&asked).await.unwrap().statuses[0].remaining, 0);
    asked.descriptors[0].hits = Some(0);
    assert!(case.over(&asked).await, "a look without counting");
    asked.descriptors[0].hits = Some(-5);
    assert_eq!(case.limiter.decide(&asked).await.unwrap().statuses[0].remaining, 5);
    asked.descriptors[0] = Descriptor { limit: Some((1, Unit::Hour)), hits: Some(1), ..asked.descriptors[0].clone() };
    assert!(!case.over(&asked).await);
    assert!(case.over(&asked).await, "the question's own limit beats the configured one");
}

// spec: MX-115
#[tokio::test(start_paused = true)]
async fn hits_are_counted_by_domain_and_key() {
    let case = case(
        "domain: d\ndescriptors:\n- {key: a, value: x, rate_limit: {unit: minute, requests_per_unit: 10}}\n\
         - {key: b, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 1}}\n",
    );
    for _ in 0..12 {
        case.over(&question(&[&[("a", "x")]])).await;
    }
    case.over(&question(&[&[("b", "y")]])).await;
    for line in [
        r#"ratelimit_service_rate_limit_total_hits{domain="d",key="a_x"} 12"#,
        r#"ratelimit_service_rate_limit_over_limit{domain="d",key="a_x"} 2"#,
        r#"ratelimit_service_rate_limit_within_limit{domain="d",key="a_x"} 10"#,
        r#"ratelimit_service_rate_limit_near_limit{domain="d",key="a_x"} 2"#,
        r#"ratelimit_service_rate_limit_total_hits{domain="d",key="b_y"} 1"#,
    ] {
        assert!(case.metric(line), "{line}");
    }
}

// spec: MX-97
#[tokio::test(start_paused = true)]
async fn a_lease_is_what_all_limits_grant_and_nothing_is_lost() {
    let case = case(
        "domain: d\ndescriptors: [{key: a, rate_limit: {unit: hour, requests_per_unit: 10000}}, {key: b, rate_limit: {unit: hour, requests_per_unit: 40}}]",
    );
    let asked = Question { leases: true, ..question(&[&[("a", "x")], &[("b", "x")]]) };
    let mut requests = 0;
    let mut calls = 0;
    loop {
        let answer = case.limiter.decide(&asked).await.unwrap();
        calls += 1;
        if answer.over {
            break;
        }
        let (granted, time) = answer.lease.unwrap();
        assert!(time <= LONGEST_LEASE);
        requests += granted;
        let left = answer.statuses.iter().map(|status| status.remaining).collect::<Vec<_>>();
        assert!(left[1] <= 40 - requests, "{left:?}");
        tokio::time::advance(Duration::from_millis(u64::from(granted))).await;
    }
    assert_eq!(requests, 40, "in {calls} calls");
    let look =
        Question { descriptors: vec![Descriptor { hits: Some(0), ..asked.descriptors[0].clone() }], ..asked.clone() };
    let left = case.limiter.decide(&look).await.unwrap().statuses[0].remaining;
    assert!((9_959..=9_960).contains(&left), "what the second limit did not grant went back to the first: {left}");
    let free = case.limiter.decide(&Question { leases: true, ..question(&[&[("none", "x")]]) }).await.unwrap();
    assert_eq!(free.lease, Some((u32::MAX, LONGEST_LEASE)), "no limit, no questions");
}
