//! Endpoints of the program on the hub's port.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hublet::http::{Request, Response, StatusCode};
use hublet::{Body, Client, Config, Disconnect, Handler, Hub, Message, Peer as Source};

use crate::peer::{BINARY, upgrade};
use crate::support::TestHub;

/// A program with a few endpoints. It counts the requests that reach it.
#[derive(Default)]
struct Site {
    hub: OnceLock<Hub>,
    asked: AtomicUsize,
}

impl Handler for Site {
    async fn on_request(
        &self,
        request: &Request<()>,
        peer: &Source,
        body: Body<'_>,
    ) -> Result<Response<Vec<u8>>, StatusCode> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let broken = |_| StatusCode::INTERNAL_SERVER_ERROR;
        match (request.method().as_str(), request.uri().path()) {
            ("GET" | "HEAD", "/api/peer") => {
                let json = format!("{{\"is_local\":{}}}", peer.is_local());
                let response = Response::builder().header("Content-Type", "application/json");
                response.header("X-Own", "yes").body(json.into_bytes()).map_err(broken)
            }
            ("POST", "/api/echo") => {
                let query = request.uri().query().unwrap_or_default();
                let mut said = format!("{query} ").into_bytes();
                said.extend(body.read().await?);
                Response::builder().status(StatusCode::CREATED).body(said).map_err(broken)
            }
            ("POST", "/api/publish") => {
                let hub = self.hub.get().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
                let sent = hub.publish("main", body.read().await?).await;
                let sent = sent.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
                Ok(Response::new(sent.to_string().into_bytes()))
            }
            ("POST", "/api/swallow") => {
                // Any error of the body is no error here.
                let len = body.read().await.map_or(0, |body| body.len());
                Ok(Response::new(len.to_string().into_bytes()))
            }
            ("GET", "/api/gone") => {
                Response::builder().status(StatusCode::GONE).body(b"gone".to_vec()).map_err(broken)
            }
            ("GET", "/api/secret") => Err(StatusCode::UNAUTHORIZED),
            ("GET", "/api/switch") => Response::builder().status(101).body(vec![]).map_err(broken),
            ("GET", "/api/panic") => panic!("a hook panics, as a test"),
            _ => Err(StatusCode::NOT_FOUND),
        }
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        client.hub().broadcast(message).await?;
        Ok(())
    }
}

fn site(config: Config) -> (TestHub, Arc<Site>) {
    let site = Arc::new(Site::default());
    let hub = TestHub::serving(config, Arc::clone(&site));
    site.hub.set(hub.hub.clone()).expect("it is set once");
    (hub, site)
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

#[test]
fn endpoints_answer_with_their_own_status_headers_and_body_on_one_connection() {
    // With the hub's own routes and without them.
    for http in [true, false] {
        let (hub, _) = site(Config::default().http(http));
        let mut peer = hub.dial();
        let answer = peer.request(&request("GET /api/peer", "", ""));
        assert_eq!((answer.status, answer.header("X-Own")), (200, Some("yes")));
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(peer.body_text(&answer), "{\"is_local\":true}");
        let answer = peer.request(&request("HEAD /api/peer", "", ""));
        assert_eq!((answer.status, answer.header("Content-Length")), (200, Some("17")));
        let post = request("POST /api/echo?a=b", "Content-Length: 5\r\n", "hello");
        let answer = peer.request(&post);
        assert_eq!(answer.status, 201);
        assert_eq!(peer.body_text(&answer), "a=b hello");
        let chunked = "Transfer-Encoding: chunked\r\n";
        let post = request("POST /api/echo", chunked, "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
        let answer = peer.request(&post);
        assert_eq!(peer.body_text(&answer), " hello");
        let answer = peer.request(&request("GET /api/gone", "", ""));
        assert_eq!((answer.status, peer.body_text(&answer)), (410, "gone".to_owned()));
        assert_eq!(hub.hub.stats().upgrades_refused, 0, "the program has refused nothing");
        // The same connection becomes a client.
        let mut client = peer.join("/ws");
        client.say("hello");
        client.hears("hello");
    }
}

#[test]
fn what_an_endpoint_publishes_is_heard() {
    let (hub, _) = site(Config::default());
    let mut client = hub.join();
    let mut peer = hub.dial();
    let answer = peer.request(&request("POST /api/publish", "Content-Length: 2\r\n", "hi"));
    assert_eq!((answer.status, peer.body_text(&answer)), (200, "1".to_owned()));
    assert_eq!(client.receive(), (BINARY, b"hi".to_vec()));
}

#[test]
fn routes_of_the_hub_come_first_and_unknown_paths_are_told_why() {
    let (hub, site) = site(Config::default().http(true));
    for (line, status) in
        [("GET /health", 200), ("GET /ws", 426), ("POST /pub", 411), ("PUT /sse", 405)]
    {
        assert_eq!(hub.dial().request(&request(line, "", "")).status, status, "{line}");
    }
    assert_eq!(site.asked.load(Ordering::Relaxed), 0);
    let mut peer = hub.dial();
    let answer = peer.request(&request("GET /ws/a/b", "", ""));
    let sentence = "a name is one segment of the path: write a slash in it as %2F, and none behind \
                    it\n";
    assert_eq!((answer.status, peer.body_text(&answer)), (404, sentence.to_owned()));
    let answer = peer.request(&request("GET /nothing", "", ""));
    assert_eq!((answer.status, peer.body_text(&answer)), (404, "no such route\n".to_owned()));
    let answer = peer.request(&request("GET /api/secret", "", ""));
    assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, Some("Bearer")));
}

#[test]
fn a_hook_that_fails_is_answered_for_with_500() {
    let (hub, _) = site(Config::default());
    for path in ["/api/switch", "/api/panic"] {
        let answer = hub.dial().request(&request(&format!("GET {path}"), "", ""));
        assert_eq!(answer.status, 500, "{path}");
    }
    hub.join().say("and on it goes");
}

#[test]
fn a_body_is_at_most_the_longest_message_and_costs_nothing_unread() {
    let (hub, _) = site(Config::default().max_message(8));
    let length = |len: usize| format!("Content-Length: {len}\r\n");
    let mut peer = hub.dial();
    let answer = peer.request(&request("POST /api/echo", &length(8), "8 bytes."));
    assert_eq!(answer.status, 201);
    assert_eq!(peer.body_text(&answer), " 8 bytes.");
    let answer = peer.request(&request("POST /api/echo", &length(9), "9 bytes.."));
    assert_eq!((answer.status, answer.header("Connection")), (413, Some("close")));
    // The hook has the word, also about a body that is refused.
    let mut peer = hub.dial();
    let answer = peer.request(&request("POST /api/swallow", &length(9), "9 bytes.."));
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
    // A body that no hook reads ends the connection behind the answer, and is no request.
    let mut peer = hub.dial();
    let smuggled = request("GET /api/gone", "", "");
    let answer = peer.request(&request("POST /nothing", &length(smuggled.len()), &smuggled));
    assert_eq!((answer.status, answer.header("Connection")), (404, Some("close")));
    peer.body_text(&answer);
    peer.ends();
    let mut peer = hub.dial();
    let expect = request("POST /api/echo", "Content-Length: 2\r\nExpect: 100-continue\r\n", "");
    assert_eq!(peer.request(&expect).status, 100);
    peer.write(b"hi");
    let answer = peer.response();
    assert_eq!((answer.status, peer.body_text(&answer)), (201, " hi".to_owned()));
}

#[test]
fn pages_of_other_origins_ask_first_and_only_listed_ones_may() {
    let listed = "http://localhost:3000";
    let config = Config::default().origins(vec![listed.to_owned()]).hosts(vec![]);
    let (hub, site) = site(config);
    let preflight = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: PATCH\r\n");
        hub.dial().request(&request("OPTIONS /api/peer", &headers, ""))
    };
    let answer = preflight(listed);
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(
        (answer.status, answer.header("Access-Control-Allow-Methods")),
        (204, Some(methods))
    );
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(listed));
    assert_eq!(preflight("http://elsewhere.example").status, 403);
    let ask = |headers: &str| hub.dial().request(&request("GET /api/peer", headers, "")).status;
    assert_eq!(ask("Origin: http://elsewhere.example\r\n"), 403);
    assert_eq!(ask("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"), 403);
    let rebound = "GET /api/peer HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(hub.dial().request(rebound).status, 421);
    assert_eq!(site.asked.load(Ordering::Relaxed), 0, "no hook runs for them");
    assert_eq!(ask(&format!("Origin: {listed}\r\n")), 200);
    // A request of the program's own with this method is no preflight.
    assert_eq!(hub.dial().request(&request("OPTIONS /api/peer", "", "")).status, 404);
    assert_eq!(hub.dial().request(&upgrade("/")).status, 101);
}
