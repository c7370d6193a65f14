//! Which pages of other origins may read a response, and send what (WHATWG Fetch 3.3).

use http::header::HeaderName;
use http::{HeaderMap, Method, Request, StatusCode, header};

use crate::http1::fields::tokens;
use crate::http1::origin::AllowOrigin;
use crate::http1::page_origin::PageOrigin;
use crate::http1::response::Response;

/// Adds the headers that let a listed origin read the response.
pub(crate) fn with_cors(response: Response, allow_origin: AllowOrigin) -> Response {
    match allow_origin {
        Some(origin) => {
            // What a page may read with its visitor's credentials is for a page that one operator
            // has named, and not for each sandbox and each file (`null`, `file://`).
            let is_named = PageOrigin::parse(&origin).is_some_and(|origin| !origin.is_shared());
            let response = response.header("Access-Control-Allow-Origin", origin);
            let response = if response.has_header("Vary") {
                response
            } else {
                response.header("Vary", "Origin")
            };
            if is_named {
                response.header("Access-Control-Allow-Credentials", "true")
            } else {
                response
            }
        }
        None => response,
    }
}

/// Whether a browser asks, ahead of a request with this method, whether a page may send it.
pub(crate) fn is_preflight_of(request: &Request<()>, method: &str) -> bool {
    let requested = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    request.method() == Method::OPTIONS && requested.is_some_and(|requested| requested == method)
}

/// The answer to OPTIONS, which a browser sends ahead of what a page of another origin asks for.
///
/// A page that may use the hub may send any header: the hub reads few, and those that matter are
/// checked whatever else stands beside them.
pub(crate) fn options(methods: &'static str, request: &Request<()>) -> Response {
    /// Seconds for which a browser need not ask again: the most that any honours.
    const MAX_AGE: &str = "7200";
    Response::new(StatusCode::NO_CONTENT, "")
        .header("Allow", methods)
        .header("Access-Control-Allow-Methods", methods)
        .header("Access-Control-Allow-Headers", allowed_headers(request.headers()))
        .header("Access-Control-Max-Age", MAX_AGE)
}

/// Names of headers that a preflight is allowed at most; with more it is allowed none.
const PREFLIGHT_HEADERS_MAX: usize = 32;

/// The headers that a preflight asks for, if each is the name of a header, and those that every
/// client of the hub may need.
fn allowed_headers(headers: &HeaderMap) -> String {
    let mut allowed = "Authorization, Content-Type".to_owned();
    let is_new =
        |name: &&str| !["authorization", "content-type"].contains(&&*name.to_ascii_lowercase());
    let requested: Vec<_> =
        tokens(headers, &header::ACCESS_CONTROL_REQUEST_HEADERS).filter(is_new).collect();
    let is_name = |name: &&str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    if requested.len() <= PREFLIGHT_HEADERS_MAX && requested.iter().all(is_name) {
        for name in requested {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http1::origin::check;

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        request
    }
    #[test]
    fn a_page_reads_with_credentials_only_if_its_origin_is_listed_by_name() {
        let credentials = |listed: &[&str], origin| {
            let listed = listed.iter().map(ToString::to_string).collect();
            let config = Config::default().origins(listed);
            let reader = check(&request(&[("host", "x"), ("origin", origin)]), &config);
            let response = Response::new(StatusCode::OK, "");
            let bytes = with_cors(response, reader.expect("allowed")).encode(false, None);
            let head = String::from_utf8(bytes).expect("text");
            head.contains("\r\nAccess-Control-Allow-Credentials: true\r\n")
        };
        assert!(credentials(&["https://app.example"], "https://app.example"));
        assert!(credentials(&["*", "https://app.example"], "https://app.example"));
        assert!(credentials(&["app://-"], "app://-"));
        assert!(!credentials(&["*"], "https://app.example"));
        assert!(!credentials(&["null"], "null"));
        assert!(!credentials(&["file://"], "file://"));
        assert!(!credentials(&["file://"], "FILE:///home/ann/page.html"));
        assert!(!credentials(&["https://app.example"], "http://x"), "no header names a reader");
    }
    #[test]
    fn a_preflight_is_allowed_the_headers_that_it_names() {
        let allowed = |requested: &[&str]| {
            let requested: Vec<_> = requested
                .iter()
                .map(|requested| ("access-control-request-headers", *requested))
                .collect();
            allowed_headers(request(&requested).headers())
        };
        const ALWAYS: &str = "Authorization, Content-Type";
        assert_eq!(allowed(&[]), ALWAYS);
        assert_eq!(allowed(&["authorization,content-type"]), ALWAYS);
        assert_eq!(
            allowed(&["baggage,cache-control,last-event-id,traceparent,x-requested-with"]),
            format!(
                "{ALWAYS}, baggage, cache-control, last-event-id, traceparent, x-requested-with"
            )
        );
        assert_eq!(allowed(&["a", "b, c"]), format!("{ALWAYS}, a, b, c"));
        for bad in ["x y", "x:y", "a, b c", "\"x\""] {
            assert_eq!(allowed(&[bad]), ALWAYS, "{bad}");
        }
        let most = vec!["x"; PREFLIGHT_HEADERS_MAX].join(",");
        assert_ne!(allowed(&[&most]), ALWAYS);
        assert_eq!(allowed(&[&format!("{most},x")]), ALWAYS);
    }
}
