//! The host rule, the origin rule, and the address of a client behind a proxy.
//!
//! These hold before any hook, so that overriding a hook cannot drop them.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::HeaderName;
use http::{HeaderMap, Method, Request, StatusCode, header};

use crate::config::Config;
use crate::http1::fields::tokens;
use crate::http1::page_origin::{PageOrigin, split_port};
use crate::http1::response::Response;
use crate::network::Network;
use crate::peer::Peer;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The origin that may read the answer, besides the hub's own: the value of `Access-Control-Allow-Origin`.
pub(crate) type AllowOrigin = Option<Cow<'static, str>>;

/// Checks the rules of hosts and origins for a request that reads or writes a room.
///
/// # Errors
///
/// 421 for a host that is not served, 403 for an origin that may not.
pub(crate) fn check(request: &Request<()>, config: &Config) -> Result<AllowOrigin, Response> {
    let host = host(request);
    if !is_allowed_host(host, &config.hosts) {
        return Err(refused_host(request));
    }
    allow_origin(request, host, &config.origins).ok_or_else(|| refused_origin(request))
}

/// Checks the rules of hosts and origins for a request of an administrator: a page of another origin
/// must be listed by name. An origin that many pages share, as `*`, `null` and `file://`, names none.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn check_admin(request: &Request<()>, config: &Config) -> Result<AllowOrigin, Response> {
    let is_named = |origin: &&String| PageOrigin::parse(origin).is_some_and(|o| !o.is_shared());
    let origins: Vec<_> = config.origins.iter().filter(is_named).cloned().collect();
    let host = host(request);
    if !is_allowed_host(host, &config.hosts) {
        return Err(refused_host(request));
    }
    allow_origin(request, host, &origins).ok_or_else(|| refused_origin(request))
}

/// The answer to a request for a host that is not served. The log names the host, and the flag.
fn refused_host(request: &Request<()>) -> Response {
    let sentence = "this Host is not allowed; --allow-host (in a program Config::hosts) allows it";
    let response = Response::new(StatusCode::MISDIRECTED_REQUEST, sentence);
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request.headers().get(header::HOST).map_or(&b""[..], |host| host.as_bytes()),
    };
    let listable = plain(host).and_then(split_port).map_or("'*'", |(name, _)| name);
    response.warn(format!(
        "a request for the Host {} was refused with 421; if that name is yours, --allow-host \
         {listable} (in a program Config::hosts) allows it",
        shown(host)
    ))
}

/// The answer to a page that may not use the hub. The log names its origin, and the flag.
fn refused_origin(request: &Request<()>) -> Response {
    let sentence = "pages of this Origin are not allowed; --allow-origin (in a program \
                    Config::origins) allows them";
    let response = Response::new(StatusCode::FORBIDDEN, sentence);
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    let (page, listable) = match (origins.next(), origins.next()) {
        (Some(origin), None) => {
            let listable = plain(origin.as_bytes()).and_then(PageOrigin::parse);
            let listable = listable.map_or("'*'".to_owned(), |origin| origin.to_string());
            (format!("the Origin {}", shown(origin.as_bytes())), listable)
        }
        (Some(_), Some(_)) => {
            return response.warn("a request with two Origins was refused with 403".to_owned());
        }
        (None, _) => ("another site, which sent no Origin,".to_owned(), "'*'".to_owned()),
    };
    response.warn(format!(
        "a page of {page} was refused with 403; if it is yours, --allow-origin {listable} (in a \
         program Config::origins) allows it"
    ))
}

/// Bytes of a name that the log shows at most.
const SHOWN_BYTES_MAX: usize = 128;

/// A name that a peer sent, for the log: cut, and with everything escaped that is no plain text.
fn shown(name: &[u8]) -> String {
    let cut = &name[..name.len().min(SHOWN_BYTES_MAX)];
    format!("{:?}", String::from_utf8_lossy(cut))
}

/// A name that can be copied behind a flag, since a shell reads nothing into it.
fn plain(name: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:/[]%+".contains(byte);
    let is_plain = name.len() <= SHOWN_BYTES_MAX && name.iter().all(is_plain);
    std::str::from_utf8(name).ok().filter(|_| is_plain)
}

/// Adds the headers that let a listed origin read the response.
pub(crate) fn with_cors(response: Response, reader: AllowOrigin) -> Response {
    match reader {
        Some(reader) => {
            // What a page may read with its visitor's credentials is for a page that one operator
            // has named, and not for each sandbox and each file (`null`, `file://`).
            let is_named = PageOrigin::parse(&reader).is_some_and(|origin| !origin.is_shared());
            let response =
                response.header("Access-Control-Allow-Origin", reader).header("Vary", "Origin");
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
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    request.method() == Method::OPTIONS && asked.is_some_and(|asked| asked == method)
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
    let asked: Vec<_> =
        tokens(headers, &header::ACCESS_CONTROL_REQUEST_HEADERS).filter(is_new).collect();
    let is_name = |name: &&str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    if asked.len() <= PREFLIGHT_HEADERS_MAX && asked.iter().all(is_name) {
        for name in asked {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    allowed
}

/// The host that a request is for; empty if it names none.
pub(crate) fn host(request: &Request<()>) -> &str {
    // The two are the same, if both are there.
    let target = request.uri().authority().map(|authority| authority.as_str());
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    target.or_else(header).unwrap_or_default()
}

/// The host rule: a page whose name was made to lead to the hub (DNS rebinding) sends that name,
/// so only what no stranger can make lead here is served, and the names that are listed.
fn is_allowed_host(host: &str, hosts: &[String]) -> bool {
    if hosts.iter().any(|listed| listed == "*") {
        return true;
    }
    let Some((name, _)) = split_port(host) else { return false };
    let is_listed =
        |listed: &String| listed.eq_ignore_ascii_case(name) || listed.eq_ignore_ascii_case(host);
    is_plain(name) || hosts.iter().any(is_listed)
}

/// Whether a host is `localhost` or an address: what no stranger can make lead here.
fn is_plain(name: &str) -> bool {
    let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) else {
        return name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost");
    };
    // The zone of a link-local address is the client's word for its own interface. RFC 6874 writes
    // its sign as %25, and many clients do not.
    let address = match address.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => address,
        _ => address,
    };
    address.parse::<Ipv6Addr>().is_ok()
}

/// Returns whether a request comes from this machine itself: from a local peer
/// ([`Peer::is_local`]), for which no proxy speaks, and for a host that is an address or `localhost`.
///
/// A page whose name was made to lead to the hub (DNS rebinding) comes from a local peer too, its
/// visitor's browser, but asks for that name.
///
/// # Examples
///
/// ```
/// use hublet::http::Request;
/// use hublet::{Peer, is_local};
///
/// let peer = Peer::unix();
/// let request = Request::get("/metrics").header("Host", "localhost:8080").body(()).expect("plain");
/// assert!(is_local(&request, &peer));
///
/// let rebound = Request::get("/metrics").header("Host", "evil.example").body(()).expect("plain");
/// assert!(!is_local(&rebound, &peer));
/// assert!(!is_local(&request, &Peer::unknown()));
/// ```
#[must_use]
pub fn is_local(request: &Request<()>, peer: &Peer) -> bool {
    let said_by_proxies = [&header::FORWARDED, &header::VIA, &FORWARDED_FOR, &REAL_IP];
    let proxied = said_by_proxies.iter().any(|name| request.headers().contains_key(*name));
    let plain = || split_port(host(request)).is_some_and(|(name, _)| is_plain(name));
    peer.is_local() && !proxied && plain()
}

/// The origin rule: no Origin, the hub's own, or one that is listed; `None` for any other.
///
/// Browsers send an Origin with every upgrade, every POST and every answer that a page of another
/// origin could read, and pages cannot forge it, so a foreign page cannot use a visitor's browser
/// against a hub on localhost (RFC 6455 10.2). The GET that it cannot read, as of an image, has
/// none; of that browsers say in `Sec-Fetch-Site` that it is foreign.
fn allow_origin(request: &Request<()>, host: &str, origins: &[String]) -> Option<AllowOrigin> {
    let headers = request.headers();
    let any = origins.iter().any(|listed| listed == "*");
    let mut values = headers.get_all(header::ORIGIN).iter();
    let says = |name, values: &[&str]| {
        headers.get(name).is_some_and(|header| values.iter().any(|value| header == value))
    };
    let Some(origin) = values.next() else {
        let foreign = says(FETCH_SITE, &["cross-site", "same-site"]);
        // A navigation by a link is allowed: the page that has the link reads nothing of the answer.
        return (any || !foreign || says(FETCH_DEST, &["document"])).then_some(None);
    };
    if values.next().is_some() {
        return None;
    }
    let text = origin.to_str().ok();
    let origin = text.and_then(PageOrigin::parse);
    let is_listed = |origin: &PageOrigin| {
        origins.iter().any(|listed| PageOrigin::parse(listed).as_ref() == Some(origin))
    };
    match (text, origin) {
        (Some(text), Some(origin)) if is_listed(&origin) => Some(Some(text.to_owned().into())),
        _ if any => Some(Some("*".into())),
        (_, Some(origin)) if origin.is_at(host) => Some(None),
        // A page of the hub's own that keeps its address to itself (Firefox's `sendBeacon` under
        // `no-referrer`). A sandboxed page is another site, and a page cannot set this header.
        (Some("null"), _) if says(FETCH_SITE, &["same-origin"]) => Some(None),
        _ => None,
    }
}

/// The address of the client: the one that a trusted proxy names, else the peer itself.
///
/// Each proxy appends the address it was asked by, so the last that is no trusted proxy's is the
/// client's; what stands before it any peer may have written.
pub(crate) fn client_address(peer: &Peer, headers: &HeaderMap, trusted: &[Network]) -> Peer {
    let mut client_address = *peer;
    if trusted.is_empty() {
        return client_address;
    }
    let mut hops: Vec<_> = tokens(headers, &FORWARDED_FOR).collect();
    while trusted.iter().any(|network| client_address.is_in(network)) {
        let Some(address) = hops.pop().and_then(hop) else { break };
        client_address = Peer::forwarded(address);
    }
    client_address
}

/// The address of an element of `X-Forwarded-For`, which some write with its port.
fn hop(text: &str) -> Option<IpAddr> {
    let socket = || text.parse().map(|socket: SocketAddr| socket.ip());
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().or_else(|_| socket()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        request
    }
    fn status(config: &Config, headers: &[(&'static str, &str)]) -> u16 {
        check(&request(headers), config).map_or_else(|response| response.status.as_u16(), |_| 200)
    }
    #[test]
    fn an_admin_request_comes_from_this_machine_and_asks_for_no_other_name() {
        let here = [Peer::unix(), Peer::from(SocketAddr::from(([127, 0, 0, 1], 1)))];
        for (headers, expected) in [
            (&[("host", "localhost:8080")][..], true),
            (&[("host", "127.0.0.1")], true),
            (&[("host", "[::1]:8080")], true),
            (&[("host", "evil.example")], false),
            (&[("host", "127.0.0.1.evil.example:80")], false),
            (&[("host", "localhost@evil.example")], false),
            (&[], false),
            (&[("host", "localhost"), ("x-forwarded-for", "127.0.0.1")], false),
            (&[("host", "localhost"), ("forwarded", "for=127.0.0.1")], false),
            (&[("host", "localhost"), ("x-real-ip", "127.0.0.1")], false),
            (&[("host", "localhost"), ("via", "1.1 proxy")], false),
        ] {
            for peer in here {
                assert_eq!(is_local(&request(headers), &peer), expected, "{peer} {headers:?}");
            }
            let elsewhere = Peer::from(SocketAddr::from(([192, 0, 2, 1], 1)));
            assert!(!is_local(&request(headers), &elsewhere), "{headers:?}");
        }
    }
    #[test]
    fn an_administrators_page_is_listed_by_name() {
        let listed = ["*", "null", "file://", "https://app.example"].map(str::to_owned);
        let config = Config::default().origins(listed.to_vec());
        for (origin, expected) in [
            ("https://app.example", true),
            ("http://hub.example", true),
            ("https://elsewhere.example", false),
            ("null", false),
            ("file://", false),
        ] {
            let request = request(&[("host", "hub.example"), ("origin", origin)]);
            assert_eq!(check_admin(&request, &config).is_ok(), expected, "{origin}");
            assert!(check(&request, &config).is_ok(), "{origin}");
        }
        // A page of another site reads nothing of an image, and has one load all the same.
        let image = [("host", "hub.example"), ("sec-fetch-site", "cross-site")];
        assert!(check_admin(&request(&image), &config).is_err());
        assert!(check(&request(&image), &config).is_ok());
    }
    #[test]
    fn an_origin_must_be_the_hosts_own_or_listed() {
        let origins = vec!["https://app.example".to_owned()];
        for (host, origin, expected) in [
            ("hub.example", "http://hub.example", 200),
            ("hub.example", "https://hub.example", 200),
            ("hub.example", "https://HUB.example:443", 200),
            ("hub.example:8080", "http://hub.example:8080", 200),
            ("[::1]:8080", "http://[::1]:8080", 200),
            ("hub.example:8080", "http://hub.example", 403),
            ("hub.example", "http://hub.example:8080", 403),
            ("hub.example", "http://evil.example", 403),
            ("hub.example", "http://hub.example.evil.example", 403),
            ("hub.example", "http://hub.example@evil.example", 403),
            ("hub.example", "null", 403),
            ("hub.example", "file://", 403),
            ("hub.example", "", 403),
            ("hub.example", "app://hub.example:80", 403),
            ("hub.example", "http://hub.example\\@evil.example", 403),
            ("hub.example", "https://hub.example/page?of=it", 200),
            ("hub.example", "ws://hub.example", 200),
            ("hub.example", "https://app.example/page", 200),
            ("hub.example", "https://app.example.evil.example/app.example", 403),
            ("hub.example", "https://app.example", 200),
            ("hub.example", "https://app.example:443", 200),
            ("hub.example", "http://app.example", 403),
        ] {
            let headers = [("host", host), ("origin", origin)];
            let config = Config::default().origins(origins.clone());
            assert_eq!(status(&config, &headers), expected, "{host} {origin}");
            let any = Config::default().origins(vec!["*".into()]);
            assert_eq!(status(&any, &headers), 200, "{host} {origin}");
        }
        let two = [("host", "x"), ("origin", "http://x"), ("origin", "http://x")];
        assert_eq!(status(&Config::default(), &two), 403);
    }
    /// What a browser, curl and a client that makes names up send, and what an operator reads.
    #[test]
    fn the_log_names_what_was_refused_and_the_flag_that_allows_it() {
        let config = Config::default().hosts(vec!["hub.example".into()]);
        let hub = ("host", "hub.example");
        let long = "x".repeat(200);
        for (headers, sentence) in [
            (
                &[hub, ("origin", "http://localhost:3000")][..],
                "a page of the Origin \"http://localhost:3000\" was refused with 403; if it is \
                 yours, --allow-origin http://localhost:3000 (in a program Config::origins) allows \
                 it",
            ),
            (
                &[hub, ("origin", "$(reboot)")],
                "a page of the Origin \"$(reboot)\" was refused with 403; if it is yours, \
                 --allow-origin '*' (in a program Config::origins) allows it",
            ),
            (
                &[hub, ("sec-fetch-site", "cross-site"), ("sec-fetch-dest", "image")],
                "a page of another site, which sent no Origin, was refused with 403; if it is \
                 yours, --allow-origin '*' (in a program Config::origins) allows it",
            ),
            (
                &[hub, ("origin", "http://a"), ("origin", "http://b")],
                "a request with two Origins was refused with 403",
            ),
            (
                &[("host", "raspberrypi.local:8080")],
                "a request for the Host \"raspberrypi.local:8080\" was refused with 421; if that \
                 name is yours, --allow-host raspberrypi.local (in a program Config::hosts) allows \
                 it",
            ),
            (
                &[("host", "café;reboot\u{200b}")],
                "a request for the Host \"café;reboot\\u{200b}\" was refused with 421; if that name \
                 is yours, --allow-host '*' (in a program Config::hosts) allows it",
            ),
            (
                &[("host", &long)],
                &format!(
                    "a request for the Host \"{}\" was refused with 421; if that name is yours, \
                     --allow-host '*' (in a program Config::hosts) allows it",
                    &long[..SHOWN_BYTES_MAX]
                ),
            ),
        ] {
            // Raw, since a header may hold what is no text.
            let mut request = Request::new(());
            for (name, value) in headers {
                let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                request.headers_mut().append(*name, value);
            }
            let warning = check(&request, &config).expect_err("refused").warning.clone();
            assert_eq!(warning.as_deref(), Some(sentence), "{headers:?}");
        }
    }
    /// What packaged applications and libraries for microcontrollers send.
    #[test]
    fn an_origin_of_any_kind_can_be_listed_alone() {
        let reader = |listed: &str, headers: &[(&'static str, &str)]| {
            let config = Config::default().origins(vec![listed.to_owned()]);
            let headers = [&[("host", "hub.example")], headers].concat();
            let reader = check(&request(&headers), &config);
            reader.map(Option::unwrap_or_default).map_err(|response| response.status.as_u16())
        };
        for (listed, origin) in [
            ("null", "null"),
            ("file://", "file://"),
            // Android's WebView, of a file.
            ("file://", "file:///android_asset/index.html"),
            // Electron and Capacitor.
            ("app://-", "app://-"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://iaoigbhacejd", "chrome-extension://iaoigbhacejd"),
            // ArduinoWebsockets.
            ("https://github.com", "https://github.com/gilmaimon/TinyWebsockets"),
            ("https://github.com/gilmaimon/", "https://github.com/gilmaimon/TinyWebsockets"),
            ("HTTPS://App.Example:443", "https://app.example"),
        ] {
            assert_eq!(reader(listed, &[("origin", origin)]), Ok(origin.into()), "{listed}");
            for other in ["null", "file://", "app://-", "https://app.example"] {
                if !listed.eq_ignore_ascii_case(other)
                    && other != origin
                    && !origin.starts_with(other)
                {
                    assert_eq!(reader(listed, &[("origin", other)]), Err(403), "{listed} {other}");
                }
            }
        }
        // Firefox's `sendBeacon` of the hub's own page, under `Referrer-Policy: no-referrer`.
        let beacon = [("origin", "null"), ("sec-fetch-site", "same-origin")];
        assert_eq!(reader("https://app.example", &beacon), Ok("".into()));
        for site in ["cross-site", "same-site", "none"] {
            let sandboxed = [("origin", "null"), ("sec-fetch-site", site)];
            assert_eq!(reader("https://app.example", &sandboxed), Err(403), "{site}");
        }
    }
    #[test]
    fn a_page_reads_with_credentials_only_if_its_origin_is_listed_by_name() {
        let credentials = |listed: &[&str], origin| {
            let listed = listed.iter().map(ToString::to_string).collect();
            let config = Config::default().origins(listed);
            let reader = check(&request(&[("host", "x"), ("origin", origin)]), &config);
            let response = Response::new(StatusCode::OK, "");
            let bytes = with_cors(response, reader.expect("allowed")).encode(false, true);
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
    fn a_preflight_is_allowed_the_headers_that_it_asks_for() {
        let allowed = |asked: &[&str]| {
            let asked: Vec<_> =
                asked.iter().map(|asked| ("access-control-request-headers", *asked)).collect();
            allowed_headers(request(&asked).headers())
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
    #[test]
    fn what_a_foreign_page_asks_for_without_an_origin_is_refused() {
        for (site, dest, expected) in [
            ("cross-site", "image", 403),
            ("same-site", "empty", 403),
            ("cross-site", "document", 200),
            ("same-origin", "empty", 200),
            ("none", "document", 200),
        ] {
            let headers = [("host", "x"), ("sec-fetch-site", site), ("sec-fetch-dest", dest)];
            assert_eq!(status(&Config::default(), &headers), expected, "{site} {dest}");
        }
    }
    #[test]
    fn only_listed_origins_are_told_that_they_may_read() {
        let config = Config::default().origins(vec!["https://app.example".into()]);
        let reader = |origin| check(&request(&[("host", "x"), ("origin", origin)]), &config);
        assert_eq!(reader("https://app.example"), Ok(Some("https://app.example".into())));
        assert_eq!(reader("http://x"), Ok(None));
        let any = Config::default().origins(vec!["*".into()]);
        let headers = [("host", "x"), ("origin", "null")];
        assert_eq!(check(&request(&headers), &any), Ok(Some("*".into())));
    }
    #[test]
    fn a_host_is_an_address_localhost_or_listed() {
        let config = Config::default().hosts(vec!["hub.example".into()]);
        for (host, expected) in [
            ("127.0.0.1", 200),
            ("127.0.0.1:8080", 200),
            ("[::1]:8080", 200),
            ("192.168.1.2", 200),
            // urllib, httpx and websockets send it as it stands in the URL, others without the 25.
            ("[fe80::1%25eth0]:8080", 200),
            ("[fe80::1%eth0]", 200),
            ("[fe80::1%]", 421),
            ("[evil.example%25eth0]", 421),
            ("fe80::1%25eth0", 421),
            ("[127.0.0.1]", 421),
            ("localhost:8080", 200),
            ("LOCALHOST", 200),
            ("hub.example", 200),
            ("Hub.Example:8080", 200),
            ("evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("localhost.evil.example", 421),
            ("hub.example.evil.example", 421),
            ("localhost:http", 421),
            ("", 421),
        ] {
            assert_eq!(status(&config, &[("host", host)]), expected, "{host:?}");
        }
        assert_eq!(status(&config, &[]), 421, "HTTP/1.0 may name none");
        assert_eq!(status(&Config::default(), &[("host", "evil.example")]), 200);
    }
    #[test]
    fn the_asker_is_the_last_that_no_trusted_proxy_vouches_for() {
        let trusted = ["10.0.0.0/8", "unix"].map(|network| network.parse().expect("a network"));
        let proxy = Peer::from(SocketAddr::from(([10, 0, 0, 1], 5000)));
        for (peer, forwarded, expected) in [
            (proxy, &["203.0.113.9"][..], "203.0.113.9"),
            (proxy, &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (proxy, &["1.1.1.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            (proxy, &["[2001:db8::1]:443"], "2001:db8::1"),
            (proxy, &["2001:db8::1"], "2001:db8::1"),
            (proxy, &["203.0.113.9:443"], "203.0.113.9"),
            (proxy, &["203.0.113.9, unknown"], "10.0.0.1:5000"),
            (proxy, &["10.0.0.3"], "10.0.0.3"),
            (proxy, &[], "10.0.0.1:5000"),
            (Peer::unix(), &["203.0.113.9"], "203.0.113.9"),
            (Peer::from(SocketAddr::from(([192, 0, 2, 1], 7))), &["1.1.1.1"], "192.0.2.1:7"),
        ] {
            let headers: Vec<_> =
                forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let client_address = client_address(&peer, request(&headers).headers(), &trusted);
            assert_eq!(client_address.to_string(), expected, "{peer} {forwarded:?}");
        }
    }
}
