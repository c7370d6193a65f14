//! Tests of `hub/state_text.rs`.

use super::*;

type Whole<'a> = (State, Vec<Connection<'a>>);

fn whole() -> Whole<'static> {
    let client = Client {
        events: None,
        id: (3, 17),
        since: 1_764_500_000,
        user: Some("ada & co, 100 %".into()),
        rooms: vec!["one room".into(), "a,b".into(), "übrige=".into()],
        prefixes: vec!["".into(), "a,*".into()],
        missed: 5,
        deflates: true,
        labels: true,
        cursor: Some(Cursor { room: "a,b".to_owned(), reader: 2, position: 7001, unread: 1 }),
        conflation: Some(Box::new(Conflation {
            interval: Duration::from_secs(2),
            next: Duration::from_millis(1300),
            newest: Some(Newest {
                message: "waits, 100 %".into(),
                position: Some(7003),
                last_position: 7001,
            }),
        })),
        idle: 12_000,
        about: "echo=1 end=7".into(),
    };
    let newest = Newest { message: vec![0, 255].into(), position: None, last_position: 0 };
    let interval = Duration::from_millis(100);
    let conflation = Conflation { interval, newest: Some(newest), ..Conflation::default() };
    let conflation = Some(Box::new(conflation));
    let reader = Client { events: Some(3), id: (0, 0), conflation, ..Client::default() };
    let peer = |text| Peer::of(text).expect("a peer");
    let connection = |from, client| Connection { peer: peer(from), client };
    let kept = |message: Message, except| KeptMessage { message, except };
    let state = State {
        started: 1_764_400_000,
        link: u64::MAX,
        uptime: 9_000_000_000,
        generation: 18,
        counters: vec![("recipients".to_owned(), 9), ("bytes_sent".to_owned(), 0)],
        refused: vec![0, 4, 0],
        rooms: vec![
            Room {
                name: "a,b".to_owned(),
                born: 7000,
                newest: 7003,
                outlives: true,
                last_message: 8_000_000_000,
                last_member: 0,
                messages: vec![
                    kept("a text, of \"two\"\nlines: 100 %=ü\u{7f}".into(), Some((3, 17))),
                    kept((0..=255).collect::<Vec<u8>>().into(), None),
                    kept("".into(), None),
                ],
            },
            Room { name: "empty".to_owned(), born: 1, newest: 1, ..Room::default() },
        ],
    };
    let connections = vec![
        connection("192.0.2.1:5000", Some(client)),
        connection("203.0.113.9", None),
        connection("unix", None),
        connection("[fe80::1%3]:80", Some(reader)),
    ];
    (state, connections)
}

fn write((state, connections): &Whole<'_>) -> String {
    let mut text = state.write(connections.len());
    let mut bodies = Bodies::default();
    connections.iter().enumerate().for_each(|(nth, one)| one.write(nth, &mut bodies, &mut text));
    String::from_utf8(text).expect("text")
}

fn read(text: &str) -> Result<Whole<'_>, usize> {
    let (state, connections) = State::read(text)?;
    let connections = connections.map(|read| read.map(|(_, one)| one));
    let connections = connections.collect::<Result<_, _>>()?;
    Ok((state, connections))
}

#[test]
fn what_is_written_is_read_back() {
    for whole in [whole(), Whole::default()] {
        let text = write(&whole);
        assert_eq!(read(&text).as_ref(), Ok(&whole), "{text}");
    }
}

#[test]
fn a_connection_is_read_with_the_number_of_its_line() {
    let text = write(&whole());
    let (_, connections) = State::read(&text).expect("ours");
    let numbers: Vec<_> = connections.map(|read| read.expect("ours").0).collect();
    let lines = text.lines().enumerate().filter(|(_, line)| line.contains(" peer="));
    assert_eq!(numbers, lines.map(|(nth, _)| nth + 1).collect::<Vec<_>>());
}

#[test]
fn a_text_that_no_hub_has_written_is_refused_by_its_line() {
    for (text, line) in [
        ("", 1),
        ("hub 2", 1),
        ("hub 4\n", 1),
        ("hub 1\n", 1),
        ("hub 0\n", 1),
        ("hub +1\n", 1),
        ("club 1\n", 1),
        ("hub 2 started=-1\n", 1),
        ("hub 2 started=1 started=1\n", 1),
        ("hub 2 news=1\n", 1),
        ("hub 2 count.a=1 count.a=1\n", 1),
        ("hub 2\nhttp 1 peer=unix\n", 2),
        ("hub 2\nhttp 0\n", 2),
        ("hub 2\nhttp 0 peer=nowhere\n", 2),
        ("hub 2\nhttp 0 peer=unix \n", 2),
        ("hub 2\nhttp 0 peer=unix\nhttp 1 peer=unix id=0-0\n", 3),
        ("hub 2\nwebsocket 0 peer=unix\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 format=1\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 colour=red\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 user=%zz\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 prefixes=a\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 user=%41\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 user=%2\n", 2),
        ("hub 2\nwebsocket 0 peer=unix id=0-4294967296\n", 2),
        ("hub 2\nhttp 0 peer=unix", 2),
        ("hub 2\nroom 0 name=a born=2 newest=1\n", 2),
        ("hub 2\nroom 0 name=a newest=9007199254740993\n", 2),
        ("hub 2\nroom 0 name=a outlives=2\n", 2),
        ("hub 2\nroom 0 name=a\ntext body=a\n", 2),
        ("hub 2\nroom 0 name=a newest=1\ntext body=a,b\n", 3),
        ("hub 2\nroom 0 name=a newest=1\nbinary body=\u{100}\n", 3),
        ("hub 2\ntext body=a\n", 2),
        ("hub 2\nhttp 0 peer=unix\nroom 0 name=a\n", 3),
        ("hub 2\nroom 0 name=a newest=1\nhttp 0 peer=unix\ntext body=a\n", 4),
        ("hub 2\nwebsocket 0 peer=unix id=0-0 reader=1\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 every=100000000\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 every=100 next=101\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 every=100 waits=4\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 waits=1\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 every=100 waits=3\n", 2),
        ("hub 3\nwebsocket 0 peer=unix id=0-0 every=100 waits=3 same=1\n", 2),
    ] {
        assert_eq!(read(text), Err(line), "{text:?}");
    }
}

/// A message of a room waits in each of its clients that hear it every so often: a state that has it for
/// each of them is longer than what may be read, or than memory.
#[test]
fn a_message_that_waits_in_many_clients_is_written_once_and_read_as_one() {
    let (shared, own): (Message, Message) = ("x".repeat(5000).into(), "y".into());
    let client = |message: &Message| Client {
        conflation: Some(Box::new(Conflation {
            interval: Duration::from_secs(1),
            newest: Some(Newest { message: message.clone(), position: None, last_position: 0 }),
            ..Conflation::default()
        })),
        ..Client::default()
    };
    let peer = || Peer::of("unix").expect("a peer");
    let clients = [&own, &shared, &shared, &own, &shared].map(client);
    let connections = clients.map(|client| Connection { peer: peer(), client: Some(client) });
    let whole = (State::default(), connections.into());
    let text = write(&whole);
    assert!(text.len() < 6000, "{} bytes", text.len());
    let read = read(&text).expect("ours");
    assert_eq!(read, whole);
    drop((whole, own));
    assert_eq!(shared.holders(), 1);
    let message = |nth: usize| {
        let client: &Client<'_> = read.1[nth].client.as_ref().expect("a client");
        client
            .conflation
            .as_ref()
            .and_then(|own| own.newest.as_ref())
            .expect("waits")
            .message
            .clone()
    };
    assert_eq!(
        message(1).holders(),
        4,
        "three clients have one message, and this is another clone"
    );
    assert_eq!(message(0).holders(), 3);
}

/// A hub of the version before knows no client that hears the newest message only.
#[test]
fn the_version_before_is_read() {
    let text = "hub 2\nwebsocket 0 peer=unix id=1-2 rooms=a,b labels=1\n";
    let (_, read) = read(text).expect("it is whole");
    let client = read[0].client.as_ref().expect("a client");
    assert_eq!((client.rooms.len(), client.labels), (2, true));
    assert_eq!(client.conflation, None);
}

#[test]
fn a_field_that_is_missing_has_its_default() {
    let (_, read) = read("hub 2\nevents 0 peer=unix id=1-2\n").expect("it is whole");
    let client = read[0].client.as_ref().expect("a client");
    assert_eq!((client.events, client.id, client.missed), (Some(0), (1, 2), 0));
    assert_eq!((client.user.as_deref(), client.rooms.len()), (None, 0));
}
