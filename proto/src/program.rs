//! Policy that a proxy may decide by itself: what mixer leaves with proxies of ours in place of an answer for each request
//! (design decision G). As JSON in the field [`FIELD`] of an answer's `dynamic_metadata`.

use serde::{Deserialize, Serialize};

/// The field of `dynamic_metadata`.
pub const FIELD: &str = "ferromesh.program";
/// Label of a proxy's counts of its own decisions: the rule.
pub const RULE: &str = "rule";
/// The handler.
pub const HANDLER: &str = "handler";
/// Label of a proxy's counts of a rate limit: the limit, `NAMESPACE/NAME.RULE` where a RateLimit made it.
pub const LIMIT: &str = "limit";
/// The field of `dynamic_metadata` in which mixer names the limit of each descriptor of a question, so that what a lease
/// answers is counted by limit; empty where there is none.
pub const LIMITS_FIELD: &str = "ferromesh.limits";
/// Rules and limits that a lease counts; those beyond are not counted.
pub const MAX_COUNTED: usize = 32;
/// Longest text, in bytes; a longer policy is asked about.
pub const MAX_BYTES: usize = 32 << 10;

/// All that there is to decide about a request to one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// How long it holds, in seconds.
    pub valid_for_s: f64,
    /// Every rule that refuses counts: the first says how, all say why.
    pub rules: Vec<Rule>,
}

/// A rule that took part in a decision that may be used again: it is counted anew with each use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// `namespace/name`.
    pub rule: String,
    /// Who decided, `name.namespace`; empty where the rule has nobody to ask.
    pub handler: String,
    /// Whether the rule's hit is counted here: once for all its handlers.
    pub applied: bool,
    /// Whether the handler refused.
    pub refused: bool,
}

/// A rule with one check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The rule of mixer's that it belongs to: decisions are told under this name. Checks of one rule stand together.
    pub rule: String,
    /// Who checks, as the reason names it.
    pub handler: String,
    /// When the rule applies; none: always. Without a value it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// What is checked.
    pub check: Check,
}

/// What is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Nothing: it lets pass.
    Pass,
    /// Nothing: it refuses.
    Deny(Denial),
    /// Whether a value is on a list.
    List(List),
}

/// How a refusal looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Denial {
    /// Code of gRPC.
    pub code: i32,
    /// Its name, which the body begins with where there is no other.
    pub name: String,
    /// Why.
    pub message: String,
    /// HTTP status.
    pub status: u16,
    /// The whole body, where it is not name and reasons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Headers; `set-cookie` is appended, others replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// A list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// What is looked up; never absent.
    pub value: Expression,
    /// What is on the list; in small letters where case does not count.
    pub entries: Vec<String>,
    /// Whether case does not count.
    pub ignore_case: bool,
    /// Whether what is on the list is refused; else what is not.
    pub blacklist: bool,
    /// Code of gRPC of a refusal, its name and its HTTP status.
    pub refusal: (i32, String, u16),
}

/// A text or a truth of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// This text.
    Text(String),
    /// This truth.
    Bool(bool),
    /// A part of the request, which may be absent.
    Read(Part),
    /// The first, or the second where the first is absent.
    Default(Box<[Self; 2]>),
    /// Both hold; the second is looked at where the first does.
    And(Box<[Self; 2]>),
    /// One holds; the second is looked at where the first does not.
    Or(Box<[Self; 2]>),
    /// Two texts or truths are the same.
    Equal(Box<[Self; 2]>),
    /// They are not.
    NotEqual(Box<[Self; 2]>),
    /// A regular expression is found in a text.
    Matches(String, Box<Self>),
    /// The first text is as the second: a star at its end is any end, one at its beginning any beginning.
    Wildcard(Box<[Self; 2]>),
    /// The first text begins with the second.
    StartsWith(Box<[Self; 2]>),
    /// The first text ends with the second.
    EndsWith(Box<[Self; 2]>),
    /// A text in small letters.
    ToLower(Box<Self>),
}

/// A part of a request. One that is empty is absent, but for headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Method.
    Method,
    /// Path with its query.
    Path,
    /// Path without its query.
    UrlPath,
    /// `:authority`.
    Host,
    /// Scheme.
    Scheme,
    /// The caller's proven identity, without `spiffe://`.
    Principal,
    /// All values of a header, joined by commas; its name in small letters.
    Header(String),
}
