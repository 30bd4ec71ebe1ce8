//! Which header of a message an operator is about (`%REQ(MAIN?OTHER)%`).

use crate::message::{Headers, Known, RequestHead};

/// A header, and another one for when that is missing.
#[derive(Debug, Clone)]
pub(super) struct HeaderChoice {
    main: HeaderName,
    other: Option<HeaderName>,
}

/// What a name stands for, found out once.
#[derive(Debug, Clone)]
enum HeaderName {
    Method,
    Path,
    Authority,
    Scheme,
    Protocol,
    Known(Known),
    Other(Box<[u8]>),
}

impl HeaderChoice {
    pub(super) fn parse(text: &str) -> Self {
        let (main, other) = match text.split_once('?') {
            Some((main, other)) => (main, Some(other)),
            None => (text, None),
        };
        Self { main: HeaderName::parse(main), other: other.map(HeaderName::parse) }
    }

    /// Its value in a request.
    pub(super) fn of_request<'a>(&self, head: &'a RequestHead) -> Option<&'a [u8]> {
        self.main.of_request(head).or_else(|| self.other.as_ref()?.of_request(head))
    }

    /// Its value in a response or in trailers.
    pub(super) fn of_headers<'a>(&self, headers: &'a Headers) -> Option<&'a [u8]> {
        self.main.of_headers(headers).or_else(|| self.other.as_ref()?.of_headers(headers))
    }

    /// Whether it asks for the status of a response.
    pub(super) fn is_status(&self) -> bool {
        matches!(&self.main, HeaderName::Other(name) if **name == *b":status")
    }
}

impl HeaderName {
    fn parse(name: &str) -> Self {
        let name = name.trim().to_ascii_lowercase();
        match (name.as_str(), Known::of(name.as_bytes())) {
            (":method", _) => Self::Method,
            (":path", _) => Self::Path,
            (":authority" | "host", _) => Self::Authority,
            (":scheme", _) => Self::Scheme,
            (":protocol", _) => Self::Protocol,
            (_, Known::Other) => Self::Other(name.into_bytes().into()),
            (_, known) => Self::Known(known),
        }
    }

    fn of_request<'a>(&self, head: &'a RequestHead) -> Option<&'a [u8]> {
        let text = match self {
            Self::Method => head.method(),
            Self::Path => head.path(),
            Self::Authority => head.authority(),
            Self::Scheme => head.scheme(),
            Self::Protocol => head.protocol(),
            Self::Known(_) | Self::Other(_) => return self.of_headers(&head.headers),
        };
        (!text.is_empty()).then_some(text)
    }

    fn of_headers<'a>(&self, headers: &'a Headers) -> Option<&'a [u8]> {
        match self {
            Self::Known(known) => headers.get(*known),
            Self::Other(name) => headers.get_name(name),
            _ => None,
        }
    }
}
