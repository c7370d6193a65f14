//! What an administrator does over HTTP, typed with curl.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::{KEY, Peer, Server, sign};
use crate::tools;

/// The status and the body that curl prints.
fn curl(address: &str, path: &str, arguments: &[&str]) -> Option<(u16, String)> {
    let mut curl = Command::new(tools::program("curl")?);
    curl.args(["-s", "-w", "\n%{http_code}"])
        .args(arguments)
        .arg(format!("http://{address}{path}"));
    let output = curl.stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    Some((status.parse().expect("a number"), body.trim_end().to_owned()))
}

const ADMIN: [&str; 2] = ["-H", "Authorization: Bearer boss"];

#[test]
fn an_administrator_ends_clients_and_speaks_to_all() {
    let (_server, address) = Server::start(&["--admin-token", "boss", "--jwt-secret", KEY]);
    let token = sign(r#"{"sub":"ada"}"#);
    let join =
        |room: &str| Peer::<TcpStream>::dial(&address).join(&format!("/ws/{room}?token={token}"));
    let (mut news, mut chat) = (join("news"), join("chat"));
    let ask = |path: &str, arguments: &[&str]| curl(&address, path, &[arguments, &ADMIN].concat());

    let Some(said) = ask("/all", &["-d", "hello"]) else { return };
    assert_eq!(said, (202, "{\"recipients\":2}".into()));
    news.hears("hello");
    chat.hears("hello");

    let (_, members) = ask("/rooms/news", &[]).expect("curl is there");
    let id = members.split('"').nth(9).expect("the id of the first member").to_owned();
    let delete = ["-X", "DELETE"];
    // In another room there is no such client.
    let none = Some((200, "{\"disconnected\":0}".to_owned()));
    assert_eq!(ask(&format!("/rooms/chat/{id}"), &delete), none);
    let one = Some((200, "{\"disconnected\":1}".to_owned()));
    assert_eq!(ask(&format!("/rooms/news/{id}"), &delete), one);
    assert_eq!(news.is_closed(1008), "disconnected by an administrator");
    news.goodbye(1008);
    assert_eq!(ask(&format!("/rooms/news/{id}"), &delete), none, "{members}");

    let mut phone = join("news");
    assert_eq!(ask("/user/ada", &delete), Some((200, "{\"disconnected\":2}".into())));
    for mut client in [phone, chat] {
        client.is_closed(1008);
        client.goodbye(1008);
    }
    phone = join("news");
    assert_eq!(ask("/user/eve", &delete), none);
    assert_eq!(ask("/all", &["-d", "still here"]), Some((202, "{\"recipients\":1}".into())));
    phone.hears("still here");
}

#[test]
fn acts_need_the_admin_token_in_its_header_from_this_machine_too() {
    let acts = |address: &str, arguments: &[&str], query: &str| {
        let act = |path: &str, method: [&str; 2]| {
            let path = format!("{path}{query}");
            curl(address, &path, &[&method, arguments].concat()).map(|(status, _)| status)
        };
        let delete = ["-X", "DELETE"];
        Some([
            act("/rooms/main/0-0", delete)?,
            act("/user/ada", delete)?,
            act("/all", ["-d", "x"])?,
        ])
    };
    // Without an admin token nothing allows them, and reading is for this machine.
    let (_server, address) = Server::start(&["--token", "sesame"]);
    let Some(refused) = acts(&address, &["-H", "Authorization: Bearer sesame"], "") else { return };
    assert_eq!(refused, [403; 3]);
    let (status, _) = curl(&address, "/rooms", &[]).expect("curl is there");
    assert_eq!(status, 200);

    let (_server, address) =
        Server::start(&["--admin-token", "boss", "--publish-token", "p", "--log", "warn"]);
    for (arguments, query, status) in [
        (&[][..], "", 401),
        (&["-H", "Authorization: Bearer p"], "", 401),
        (&["-H", "Authorization: Basic Ym9zcw=="], "", 401),
        (&["-H", "Sec-WebSocket-Protocol: hublet.token, boss"], "", 401),
        // Not in the query, where a page could put it, nor does it help beside a header.
        (&[], "?token=boss", 401),
        (&["-H", "Authorization: Bearer p"], "?token=boss", 401),
        (&ADMIN, "?token=p", 0),
    ] {
        let found = acts(&address, arguments, query).expect("curl is there");
        let expected = if status == 0 { [200, 200, 202] } else { [status; 3] };
        assert_eq!(found, expected, "{arguments:?} {query}");
    }
    let (_, said) = curl(&address, "/all?token=boss", &["-d", "x"]).expect("curl is there");
    assert_eq!(said, "the admin token has to be in the header Authorization");
}

#[test]
fn acts_answer_a_page_of_another_origin_that_is_listed_by_name() {
    let flags = ["--admin-token", "boss", "--allow-origin", "*", "--allow-origin", "null"];
    let named = ["--allow-origin", "http://localhost:3000"];
    let (_server, address) = Server::start(&[&flags[..], &named].concat());
    let from = |origin: &'static str, method: &'static str| ["-H", origin, "-X", method];
    let status = |path: &str, arguments: &[&str]| {
        curl(&address, path, &[arguments, &ADMIN].concat()).map(|(status, _)| status)
    };
    let (listed, other, sandboxed) =
        ("Origin: http://localhost:3000", "Origin: http://elsewhere.example", "Origin: null");
    for (path, method, allowed) in [
        ("/rooms/main/0-0", "DELETE", 200),
        ("/user/ada", "DELETE", 200),
        ("/all", "POST", 202),
        ("/metrics", "GET", 200),
        ("/rooms", "GET", 200),
    ] {
        let arguments = if method == "POST" { &["-d", "x"][..] } else { &[] };
        let ask = |origin| status(path, &[&from(origin, method)[..], arguments].concat());
        let Some(found) = ask(listed) else { return };
        assert_eq!(found, allowed, "{method} {path}");
        assert_eq!((ask(other), ask(sandboxed)), (Some(403), Some(403)), "{method} {path}");
        // What a browser asks first.
        let preflight = |origin| {
            let asks = format!("Access-Control-Request-Method: {method}");
            let headers = ["-H", "Access-Control-Request-Headers: authorization", "-H", &asks];
            status(path, &[&from(origin, "OPTIONS")[..], &headers].concat())
        };
        assert_eq!(preflight(listed), Some(204), "{method} {path}");
        assert_eq!((preflight(other), preflight(sandboxed)), (Some(403), Some(403)), "{path}");
    }
    // What is for everyone stays so.
    assert_eq!(status("/user/ada", &[&from(other, "POST")[..], &["-d", "x"]].concat()), Some(202));
    let asks = ["-H", "Access-Control-Request-Method: POST"];
    assert_eq!(status("/user/ada", &[&from(other, "OPTIONS")[..], &asks].concat()), Some(204));
}

/// From this machine too, a page of another origin shows the token.
#[test]
fn events_are_for_administrators_and_their_own_pages() {
    let ask = |address: &str, path: &str, headers: &str| {
        let host = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        Peer::<TcpStream>::dial(address).request(&host).status
    };
    let listed = ["--allow-origin", "http://localhost:3000"];
    let page = "Origin: http://localhost:3000\r\n";
    let token = "Authorization: Bearer boss\r\n";
    let (_server, address) = Server::start(&listed);
    let own = format!("Origin: http://{address}\r\n");
    for path in ["/events", "/rooms"] {
        assert_eq!(ask(&address, path, ""), 200);
        assert_eq!(ask(&address, path, &own), 200);
        assert_eq!(ask(&address, path, page), 403, "{path}");
    }
    let (_server, address) = Server::start(&[&listed[..], &["--admin-token", "boss"]].concat());
    assert_eq!(ask(&address, "/events", ""), 401);
    assert_eq!(ask(&address, "/events", page), 401);
    assert_eq!(ask(&address, "/events", token), 200);
    assert_eq!(ask(&address, "/events", &format!("{page}{token}")), 200);
    let other = format!("Origin: http://localhost:4000\r\n{token}");
    assert_eq!(ask(&address, "/events", &other), 403);
}
