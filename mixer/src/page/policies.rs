//! The policies: rules, handlers and rate limits, how often they were asked and refused, and what could not be taken.

use super::{Frame, Pages, answer};
use crate::policy::view::View;
use crate::ratelimit::view::LimitView;
use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

#[derive(Template)]
#[template(path = "policies.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    view: View,
    limits: Vec<LimitView>,
}

/// `GET /policies`.
pub async fn show(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let page =
        Page { frame: pages.frame("/policies", true).await, view: pages.engine.view(), limits: pages.limiter.view() };
    answer(&headers, &page, &page.as_content())
}
