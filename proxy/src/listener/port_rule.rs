//! Where an inspector does not run (`filter_disabled`): a condition on the port that the client dialled.

/// A condition on a destination port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRule {
    /// Always, or never.
    Any(bool),
    /// From the first to before the second.
    Range(u16, u32),
    /// One of them holds.
    Or(Vec<Self>),
    /// All of them hold.
    And(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
}

impl PortRule {
    /// Whether the rule holds for a port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any(always) => *always,
            Self::Range(from, end) => *from <= port && u32::from(port) < *end,
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(port)),
            Self::And(rules) => rules.iter().all(|rule| rule.holds(port)),
            Self::Not(rule) => !rule.holds(port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PortRule::*;

    #[test]
    fn rules_combine() {
        let rule = Or(vec![Range(80, 81), And(vec![Range(1000, 2000), Not(Box::new(Range(1500, 1501)))])]);
        let holding: Vec<u16> = [79, 80, 81, 1000, 1500, 1999, 2000].into_iter().filter(|p| rule.holds(*p)).collect();
        assert_eq!(holding, [80, 1000, 1999]);
        assert!(Any(true).holds(1) && !Any(false).holds(1) && Range(0, 65_536).holds(65_535));
    }
}
