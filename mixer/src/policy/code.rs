//! Status codes of gRPC, and what HTTP makes of them (MX-31).

/// A status code (`google.rpc.Code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Code(pub i32);

/// Number, name and HTTP status of each code.
const CODES: [(i32, &str, u16); 17] = [
    (0, "OK", 200),
    (1, "CANCELLED", 499),
    (2, "UNKNOWN", 500),
    (3, "INVALID_ARGUMENT", 400),
    (4, "DEADLINE_EXCEEDED", 504),
    (5, "NOT_FOUND", 404),
    (6, "ALREADY_EXISTS", 409),
    (7, "PERMISSION_DENIED", 403),
    (8, "RESOURCE_EXHAUSTED", 429),
    (9, "FAILED_PRECONDITION", 400),
    (10, "ABORTED", 409),
    (11, "OUT_OF_RANGE", 400),
    (12, "UNIMPLEMENTED", 501),
    (13, "INTERNAL", 500),
    (14, "UNAVAILABLE", 503),
    (15, "DATA_LOSS", 500),
    (16, "UNAUTHENTICATED", 401),
];

impl Code {
    /// All is well.
    pub const OK: Self = Self(0);
    /// The request does not have what a check needs.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The key is not known.
    pub const NOT_FOUND: Self = Self(5);
    /// Denied.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A quota is used up.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The denier's own code.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// What was needed for the decision cannot be reached.
    pub const UNAVAILABLE: Self = Self(14);

    /// The code of this number.
    pub fn numbered(number: i64) -> Option<Self> {
        CODES.iter().find(|(known, ..)| i64::from(*known) == number).map(|(known, ..)| Self(*known))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        CODES.iter().find(|(known, ..)| *known == self.0).map_or("UNKNOWN", |(_, name, _)| name)
    }

    /// The HTTP status that a proxy answers with.
    pub fn http(self) -> u16 {
        CODES.iter().find(|(known, ..)| *known == self.0).map_or(500, |(.., status)| *status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MX-31
    #[test]
    fn codes_have_istios_http_statuses() {
        let statuses: Vec<u16> = (0..17).map(|number| Code(number).http()).collect();
        let expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        assert_eq!(statuses, expected);
        assert_eq!((Code(77).http(), Code::numbered(77)), (500, None));
        assert_eq!(Code::RESOURCE_EXHAUSTED.name(), "RESOURCE_EXHAUSTED");
    }
}
