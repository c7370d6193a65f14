//! The host rule and the origin rule.
//!
//! These hold before any hook, so that overriding a hook cannot drop them.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderName;
use http::{Request, StatusCode, header};

use crate::config::Config;
use crate::http1::client_address::FORWARDED_FOR;
use crate::http1::page_origin::{PageOrigin, split_port};
use crate::http1::response::Response;
use crate::peer::Peer;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The origin that may read the answer, besides the hub's own: the value of `Access-Control-Allow-Origin`.
pub(crate) type AllowOrigin = Option<Cow<'static, str>>;

/// Checks the rules of hosts and origins for a request that reads or writes a room.
///
/// # Errors
///
/// 421 for a host that is not served, 403 for an origin that may not.
pub(crate) fn check(request: &Request<()>, config: &Config) -> Result<AllowOrigin, Response> {
    check_with(request, &config.hosts, &config.origins)
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
    check_with(request, &config.hosts, &origins)
}

/// Checks both rules, with these hosts and origins listed.
fn check_with(
    request: &Request<()>,
    hosts: &[String],
    origins: &[String],
) -> Result<AllowOrigin, Response> {
    let host = host(request);
    if !is_allowed_host(host, hosts) {
        return Err(refused_host(request));
    }
    allow_origin(request, host, origins).ok_or_else(|| refused_origin(request))
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

/// Returns whether a request comes from loopback: from a local peer ([`Peer::is_local`]), without the
/// header of a proxy, and for a host that is an address or `localhost`.
///
/// With DNS rebinding a page of an attacker comes from a local peer too, the browser of its visitor.
/// Its host is then a name of the attacker.
///
/// # Examples
///
/// ```
/// use hublet::http::Request;
/// use hublet::{Peer, is_local};
///
/// let peer = Peer::unix();
/// let request = Request::get("/metrics").header("Host", "localhost:8080").body(());
/// let request = request.expect("plain");
/// assert!(is_local(&request, &peer));
///
/// let rebound = Request::get("/metrics").header("Host", "evil.example").body(());
/// let rebound = rebound.expect("plain");
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

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
    fn an_admin_request_comes_from_this_machine_and_names_no_other() {
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
            // A scheme that an application has registered without a host.
            ("qrc://", "qrc://"),
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
    fn a_request_of_a_foreign_page_without_an_origin_is_refused() {
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
    fn only_listed_origins_are_allowed_to_read() {
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
}
