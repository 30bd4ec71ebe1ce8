//! The page that a person looks at.

use serde_json::Value;
use std::fmt::Write;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:0 auto;padding:2rem;color:#1d2433;\
background:#f6f7f9}header{display:flex;justify-content:space-between;align-items:baseline}h1{font-size:1.7rem}\
section{background:#fff;border:1px solid #dfe3ea;border-radius:10px;padding:1rem 1.4rem;margin:1rem 0}\
dl{display:grid;grid-template-columns:8rem 1fr;margin:0}dt{color:#5a6478}dd{margin:0}blockquote{margin:.6rem 0;\
padding:.2rem 1rem;border-left:4px solid #c9d1de}.stars{font-size:1.3rem;letter-spacing:.1rem}.error{color:#a3222a}\
footer,small{color:#5a6478}button{font:inherit;padding:.1rem .8rem}";

/// What the page shows.
pub(crate) struct Page<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) instance: &'a str,
    pub(crate) details: Result<&'a Value, u16>,
    pub(crate) reviews: Result<&'a Value, u16>,
}

/// Text as HTML.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
        out
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

impl Page<'_> {
    pub(crate) fn html(&self) -> String {
        let login = match self.user {
            Some(user) => {
                format!("<form action=\"/logout\" method=\"post\">{} <button>Sign out</button></form>", escape(user))
            }
            None => {
                "<form action=\"/login\" method=\"post\"><input name=\"username\" placeholder=\"user\" size=\"8\"> \
                     <button>Sign in</button></form>"
                    .to_owned()
            }
        };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Bookshop</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\
             <header><h1>The Comedy of Errors</h1>{login}</header>{}{}\
             <footer>productpage answered by {}</footer></body></html>\n",
            self.details_html(),
            self.reviews_html(),
            escape(self.instance)
        )
    }

    fn details_html(&self) -> String {
        let details = match self.details {
            Ok(details) => details,
            Err(status) => return failed("Book details", status),
        };
        let fields = [
            ("Type", "type"),
            ("Pages", "pages"),
            ("Publisher", "publisher"),
            ("Language", "language"),
            ("ISBN-10", "ISBN-10"),
        ];
        let rows = fields.iter().fold(String::new(), |mut rows, (label, field)| {
            // Writing to a String cannot fail.
            write!(rows, "<dt>{label}</dt><dd>{}</dd>", text(&details[*field])).unwrap_or(());
            rows
        });
        format!("<section><h2>Book details</h2><dl>{rows}</dl></section>")
    }

    fn reviews_html(&self) -> String {
        let reviews = match self.reviews {
            Ok(reviews) => reviews,
            Err(status) => return failed("Book reviews", status),
        };
        let each = reviews["reviews"].as_array().map(Vec::as_slice).unwrap_or_default();
        let quotes: String = each.iter().map(review_html).collect();
        let version = text(&reviews["version"]);
        let pod = text(&reviews["podname"]);
        format!("<section><h2>Book reviews</h2>{quotes}<small>reviews {version}, answered by {pod}</small></section>")
    }
}

fn review_html(review: &Value) -> String {
    let rating = &review["rating"];
    let stars = match (rating["stars"].as_u64(), rating["error"].as_str()) {
        (Some(count), _) => {
            let count = usize::try_from(count.min(5)).unwrap_or(5);
            let colour = if rating["color"] == "red" { "#c0262d" } else { "#1d2433" };
            let stars = format!("{}{}", "★".repeat(count), "☆".repeat(5 - count));
            format!("<div class=\"stars\" style=\"color:{colour}\">{stars}</div>")
        }
        (None, Some(error)) => format!("<div class=\"error\">{}</div>", escape(error)),
        (None, None) => String::new(),
    };
    format!("<blockquote>{}<br><small>{}</small>{stars}</blockquote>", text(&review["text"]), text(&review["reviewer"]))
}

fn failed(what: &str, status: u16) -> String {
    format!(
        "<section><h2>{what}</h2><p class=\"error\">Sorry, {} are currently unavailable (status {status}).</p></section>",
        what.to_lowercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_stars_and_escapes_what_others_say() {
        let reviews = json!({"version": "v3", "podname": "reviews-v3", "reviews": [
            {"reviewer": "R<1>", "text": "good", "rating": {"stars": 4, "color": "red"}},
            {"reviewer": "R2", "text": "bad", "rating": {"error": "Ratings service is currently unavailable"}}]});
        let page = Page { user: Some("<x>"), instance: "p", details: Err(503), reviews: Ok(&reviews) }.html();
        assert!(page.contains("★★★★☆") && page.contains("R&lt;1&gt;") && page.contains("&lt;x&gt;"));
        assert!(page.contains("book details are currently unavailable (status 503)"));
        assert!(page.contains("Ratings service is currently unavailable"));
    }
}
