//! `StatsConfig` of the bootstrap → which metrics are kept, and how labels are called.

use crate::message::matcher::StringMatcher;
use crate::refusal::{Refusal, Within};
use proto::envoy::matcher::ListStringMatcher;
use proto::envoy::metrics::{StatsConfig as Written, stats_matcher};
use std::collections::BTreeSet;

/// Which metrics are kept, and how labels are called.
#[derive(Debug, Clone, Default)]
pub struct StatsConfig {
    kept: Kept,
    /// Labels that lose their `envoy_`, because the bootstrap extracts a tag of the shorter name.
    short_labels: BTreeSet<Box<str>>,
}

#[derive(Debug, Clone, Default)]
enum Kept {
    #[default]
    All,
    None,
    Only(Vec<StringMatcher>),
    AllBut(Vec<StringMatcher>),
}

impl StatsConfig {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &Written) -> Result<Self, Refusal> {
        if !written.histogram_bucket_settings.is_empty() {
            return Err(Refusal::unsupported("histogram_bucket_settings"));
        }
        let matcher = written.stats_matcher.as_ref().and_then(|matcher| matcher.stats_matcher.as_ref());
        let kept = match matcher {
            None | Some(stats_matcher::StatsMatcher::RejectAll(false)) => Kept::All,
            Some(stats_matcher::StatsMatcher::RejectAll(true)) => Kept::None,
            Some(stats_matcher::StatsMatcher::InclusionList(list)) => {
                Kept::Only(patterns(list).within("stats_matcher.inclusion_list")?)
            }
            Some(stats_matcher::StatsMatcher::ExclusionList(list)) => {
                Kept::AllBut(patterns(list).within("stats_matcher.exclusion_list")?)
            }
        };
        let short_labels = written.stats_tags.iter().map(|tag| Box::from(tag.tag_name.as_str())).collect();
        Ok(Self { kept, short_labels })
    }

    /// Whether a metric of this dotted name is kept.
    pub fn keeps(&self, name: &str) -> bool {
        let any = |patterns: &[StringMatcher]| patterns.iter().any(|pattern| pattern.matches(name.as_bytes()));
        match &self.kept {
            Kept::All => true,
            Kept::None => false,
            Kept::Only(patterns) => any(patterns),
            Kept::AllBut(patterns) => !any(patterns),
        }
    }

    /// Whether everything is kept, so that nobody needs to ask.
    pub(super) fn keeps_all(&self) -> bool {
        matches!(self.kept, Kept::All)
    }

    /// The name that a label is shown under.
    pub(super) fn label<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix("envoy_").filter(|short| self.short_labels.contains(*short)).unwrap_or(name)
    }
}

fn patterns(list: &ListStringMatcher) -> Result<Vec<StringMatcher>, Refusal> {
    let numbered = list.patterns.iter().enumerate();
    numbered.map(|(index, pattern)| StringMatcher::parse(pattern).within(&format!("patterns[{index}]"))).collect()
}
