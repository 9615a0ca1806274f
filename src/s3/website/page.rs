//! What a website answers with instead of an object: S3's own pages, and redirections.

use std::fmt::Write as _;

use http::{HeaderValue, Response, StatusCode, header};
use s3s::Body;

use crate::s3::answer;
use crate::telemetry::RequestContext;

/// Why there is no object to answer with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    /// What the error says beside, such as the key.
    pub(super) details: Vec<(&'static str, String)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            details: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.details.push((name, text.into()));
        self
    }

    /// Says in headers what went wrong, also where the body is the owner's own page.
    pub(super) fn mark<B>(&self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        let said = [
            ("x-amz-error-code", &self.code),
            ("x-amz-error-message", &self.message),
        ];
        for (name, text) in said {
            if let Ok(value) = HeaderValue::try_from(text.as_str()) {
                headers.insert(name, value);
            }
        }
        for (name, text) in &self.details {
            let name = format!("x-amz-error-detail-{}", name.to_ascii_lowercase());
            if let (Ok(name), Ok(value)) = (
                header::HeaderName::try_from(name),
                HeaderValue::try_from(text.as_str()),
            ) {
                headers.insert(name, value);
            }
        }
    }

    fn list(&self, page: &mut String) {
        item(page, "Code", &self.code);
        item(page, "Message", &self.message);
        for (name, text) in &self.details {
            item(page, name, text);
        }
    }

    /// The page that S3 shows; `unread` is why the owner's own could not be shown.
    pub(super) fn page(
        &self,
        context: Option<&RequestContext>,
        unread: Option<&Problem>,
    ) -> Response<Body> {
        let mut page = String::with_capacity(512);
        let title = title_of(self.status);
        let _ = writeln!(page, "<html>\n<head><title>{title}</title></head>");
        let _ = writeln!(page, "<body>\n<h1>{title}</h1>\n<ul>");
        self.list(&mut page);
        let host_id = context.map(answer::host_id);
        if let (Some(context), Some(host_id)) = (context, &host_id) {
            item(&mut page, "RequestId", context.id().as_str());
            item(&mut page, "HostId", host_id);
        }
        page.push_str("</ul>\n");
        if let Some(unread) = unread {
            page.push_str(
                "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n<ul>\n",
            );
            unread.list(&mut page);
            page.push_str("</ul>\n");
        }
        page.push_str("<hr/>\n</body>\n</html>\n");
        let mut response = Response::new(Body::from(page));
        *response.status_mut() = self.status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        if let Some(Ok(host_id)) = host_id.map(HeaderValue::try_from) {
            response.headers_mut().insert("x-amz-id-2", host_id);
        }
        self.mark(&mut response);
        response
    }
}

fn title_of(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or("Error");
    format!("{} {reason}", status.as_u16())
}

fn item(page: &mut String, name: &str, text: &str) {
    let _ = write!(page, "<li>{name}: ");
    for character in text.chars() {
        match character {
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '&' => page.push_str("&amp;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
    page.push_str("</li>\n");
}

/// An answer that sends the client elsewhere. A location that no header can carry sends it nowhere.
pub(super) fn moved(status: u16, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_went_wrong_and_nothing_of_the_client_as_markup() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "NoSuchKey", "Gone.")
            .with("Key", "<script>alert('&')</script>");
        let response = problem.page(None, Some(&problem));
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-amz-error-code"], "NoSuchKey");
        let page = response.body().bytes().unwrap();
        let page = std::str::from_utf8(&page).unwrap();
        assert!(page.contains("<h1>404 Not Found</h1>"), "{page}");
        assert!(page.contains("<li>Code: NoSuchKey</li>"), "{page}");
        let key = "<li>Key: &lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;</li>";
        assert_eq!(page.matches(key).count(), 2, "{page}");
        assert!(page.contains("Custom Error Document"), "{page}");
    }
}
