//! Address families: which addresses a proxy has, and so on which it listens (PR-9, P29).

use std::net::IpAddr;

/// Which kinds of addresses a proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both; names and first addresses are IPv4's, as istiod has it.
    Both,
}

impl Families {
    /// Those of a proxy with these addresses; what is no address does not count.
    pub fn of(addresses: &[String]) -> Self {
        let parsed = || addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
        match (parsed().any(|address| address.is_ipv4()), parsed().any(|address| address.is_ipv6())) {
            (true, true) => Self::Both,
            (false, true) => Self::V6,
            (true, false) | (false, false) => Self::V4,
        }
    }

    /// The address that stands for all; listeners are named by it.
    pub fn wildcard(self) -> &'static str {
        match self {
            Self::V4 | Self::Both => "0.0.0.0",
            Self::V6 => "::",
        }
    }

    /// Whether a proxy has addresses of this one's family.
    pub fn has(self, address: IpAddr) -> bool {
        self == Self::Both || (self == Self::V4) == address.is_ipv4()
    }

    /// The wildcard of the other family, where there are two.
    pub fn other_wildcard(self) -> Option<&'static str> {
        (self == Self::Both).then_some("::")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PR-9, NI-2
    #[test]
    fn families_are_those_of_all_addresses() {
        let of = |list: &[&str]| Families::of(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["10.0.0.1"]), Families::V4);
        assert_eq!(of(&["fd00::1"]), Families::V6);
        assert_eq!(of(&["fd00::1", "10.0.0.1"]), Families::Both);
        assert_eq!(of(&["name"]), Families::V4);
        assert_eq!((of(&["fd00::1"]).wildcard(), of(&["fd00::1", "10.0.0.1"]).wildcard()), ("::", "0.0.0.0"));
    }
}
