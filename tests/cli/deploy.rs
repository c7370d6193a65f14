//! Tests the files of `deploy/` with the programs that read them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use crate::peer::{PING, PONG, upgrade};
use crate::support::{DEADLINE, Folder, HUBLET, Peer, Server, free_port, hublet, metrics};
use crate::tools::{file, program};

/// The address of the hub in the files.
const HUB: &str = "127.0.0.1:8080";

/// Reads a file of `deploy/`.
fn deployed(name: &str) -> String {
    fs::read_to_string(file("deploy").join(name)).expect("a file of the repository")
}

/// Replaces a part of a file, which must contain it.
#[track_caller]
fn put(text: &str, part: &str, instead: &str) -> String {
    assert!(text.contains(part), "{part:?} is not in {text}");
    text.replace(part, instead)
}

/// A proxy. Dropping it ends the process.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: String,
}

impl Proxy {
    /// Starts a proxy and waits until it accepts.
    pub(crate) fn start(command: &mut Command, address: String) -> Self {
        let child = command.stdin(Stdio::null()).spawn().expect("it starts");
        let proxy = Self { child, address };
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(&proxy.address).is_err() {
            assert!(Instant::now() < end, "the proxy does not accept");
            thread::yield_now();
        }
        proxy
    }

    fn nginx(folder: &Folder, hub: &str) -> Option<Self> {
        let nginx = program("nginx")?;
        let address = free_address();
        let server = put(&deployed("nginx.conf"), HUB, hub);
        let server = put(&server, "listen 80;", &format!("listen {address};"));
        let server = put(&server, "proxy_read_timeout 60s;", "proxy_read_timeout 1s;");
        let path = &folder.0;
        // The workers of nginx run as another user, which must have access to the folder.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its owner");
        let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path.join(kind).display()))
            .concat();
        let conf = format!(
            "daemon off;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{server}}}\n",
            path.join("pid").display()
        );
        fs::write(path.join("nginx.conf"), conf).expect("written");
        let mut command = Command::new(nginx);
        command.args(["-e", "stderr", "-p"]).arg(path).arg("-c").arg(path.join("nginx.conf"));
        Some(Self::start(&mut command, address))
    }

    fn caddy(folder: &Folder, hub: &str) -> Option<Self> {
        let caddy = program("caddy")?;
        let address = free_address();
        let site = put(&deployed("Caddyfile"), HUB, hub);
        // For any host name: the tests use localhost.
        let port = address.rsplit(':').next().expect("a port");
        let site = put(&site, "hub.example.org {", &format!("http://:{port} {{"));
        let path = folder.0.join("Caddyfile");
        // Without the admin port: another Caddy on this machine may use it.
        let quiet = "{\n\tadmin off\n\tlog {\n\t\tlevel ERROR\n\t}\n}\n";
        fs::write(&path, format!("{quiet}{site}")).expect("written");
        let mut command = Command::new(caddy);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&path);
        command.env("HOME", &folder.0).env("XDG_DATA_HOME", &folder.0);
        Some(Self::start(&mut command, address))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, not SIGKILL: nginx must end its workers.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A free address. A proxy cannot choose a free port and report it.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Connects from a loopback address that is not the proxy's.
fn from_another_address(address: &str) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let address: SocketAddr = address.parse().expect("an address");
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0))).expect("all of 127/8 is loopback");
    connect(&socket, &address).expect("it accepts");
    socket.into()
}

/// Checks a hub behind a proxy.
fn serves_behind(start: impl Fn(&Folder, &str) -> Option<Proxy>, name: &str) {
    let folder = Folder::new(name);
    // The hub pings three times within the read timeout of the proxy.
    let flags = ["--trusted-proxy", "127.0.0.1", "--allow-host", "hub.example.org"];
    let (mut server, hub) = Server::start(&[&flags[..], &["--ping-interval", "300ms"]].concat());
    let Some(proxy) = start(&folder, &hub) else { return };
    let through = &proxy.address;

    // The proxy removes the prefix, and a room is the same on both sides.
    let mut behind = Peer::<TcpStream>::connect(through, "/hub/ws/tea%20time");
    let mut beside = Peer::<TcpStream>::connect(&hub, "/ws/tea%20time?echo=0");
    beside.say("through");
    behind.hears("through");
    behind.send(0x82, &vec![7; 60_000]);
    assert_eq!(beside.receive(), (0x82, vec![7; 60_000]));
    assert_eq!(behind.receive().1.len(), 60_000);
    drop(beside);
    let get = format!("GET /hub/health HTTP/1.1\r\nHost: {through}\r\n\r\n");
    assert_eq!(Peer::<TcpStream>::dial(through).request(&get).status, 200);

    // The hub sees the Host of the browser, so that its own pages may connect and no others.
    for (host, origin, status) in [
        (through.as_str(), through.as_str(), 101),
        ("hub.example.org", "hub.example.org", 101),
        ("hub.example.org", "evil.example", 403),
        ("evil.example", "evil.example", 421),
    ] {
        // Caddy's site and nginx's server accept every name.
        let host = format!("Host: {host}\r\nOrigin: http://{origin}\r\n");
        let request = put(&upgrade("/hub/ws"), "Host: localhost\r\n", &host);
        assert_eq!(Peer::<TcpStream>::dial(through).request(&request).status, status, "{host}");
    }

    // The hub sees the address of the client, whatever its own X-Forwarded-For says.
    let claim = "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let request = put(&upgrade("/hub/ws/claim"), "Host: localhost\r\n", claim);
    let mut guest = from_another_address(through);
    guest.write_all(request.as_bytes()).expect("sent");
    let joined = server.logged("joined room \"claim\"");
    assert!(joined.contains("from 127.0.0.2"), "{joined}");
    drop(guest);

    // The proxy passes an event on at once, not when a buffer is full.
    let mut reader = BufReader::new(TcpStream::connect(through).expect("it accepts"));
    let request = format!("GET /hub/sse/tea%20time HTTP/1.1\r\nHost: {through}\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).expect("sent");
    reader.get_mut().set_read_timeout(Some(DEADLINE)).expect("a deadline");
    server.logged("joined room \"tea time\"");
    behind.say("an event");
    behind.hears("an event");
    let mut lines = reader.lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "data: an event"), "the stream ended");

    // What is encoded in a name stays so, and the query behind it too.
    for name in ["a%2Fb", "5%25", "%252F", "%3F%23", "caf%C3%A9"] {
        let mut behind =
            Peer::<TcpStream>::connect(through, &format!("/hub/ws/{name}?echo=0&probe=1"));
        let mut beside = Peer::<TcpStream>::connect(&hub, &format!("/ws/{name}?echo=0"));
        beside.say(name);
        behind.hears(name);
        behind.say("back, and not to itself");
        beside.hears("back, and not to itself");
    }

    // A stream of lines is passed on as it comes, in both directions of the proxy's patience.
    let mut lines = Peer::<TcpStream>::dial(through);
    let put_lines = format!(
        "PUT /hub/pub/tea%20time?lines HTTP/1.1\r\nHost: {through}\r\n\
         Transfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"
    );
    lines.write(put_lines.as_bytes());
    behind.hears("first");
    lines.write(b"7\r\nsecond\n\r\n0\r\n\r\n");
    behind.hears("second");
    assert_eq!(lines.response().status, 202);
    drop(lines);

    // Silence does not end a connection whose client answers pings.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let (kind, payload) = behind.receive();
        assert_eq!(kind, PING, "{payload:?}");
        behind.send(PONG, &payload);
    }

    // Close codes come through.
    server.signal(Signal::TERM);
    while behind.receive().0 == PING {}
    drop(behind);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn hub_works_behind_nginx() {
    serves_behind(Proxy::nginx, "nginx");
}

#[test]
fn hub_works_behind_caddy() {
    serves_behind(Proxy::caddy, "caddy");
}

#[test]
fn systemd_finds_the_units_sound_and_safe() {
    let Some(analyze) = program("systemd-analyze") else { return };
    let folder = Folder::new("units");
    let service = put(&deployed("hublet.service"), "/usr/local/bin/hublet", HUBLET);
    let units: Vec<PathBuf> =
        [("hublet.service", service), ("hublet.socket", deployed("hublet.socket"))]
            .into_iter()
            .map(|(name, text)| {
                let path = folder.0.join(name);
                fs::write(&path, text).expect("written");
                path
            })
            .collect();
    let verified = Command::new(&analyze).arg("verify").args(&units).output().expect("it runs");
    let warnings = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && warnings.is_empty(), "{warnings}");
    // With the file that opens the network for Redis, and nothing else of the unit.
    let opened = folder.0.join("hublet.service.d");
    fs::create_dir(&opened).expect("a new folder");
    fs::write(opened.join("redis.conf"), deployed("hublet-redis.conf")).expect("written");
    let verified = Command::new(&analyze).arg("verify").args(&units).output().expect("it runs");
    let warnings = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && warnings.is_empty(), "{warnings}");
    let drop_in = deployed("hublet-redis.conf");
    let set: Vec<_> = drop_in.lines().filter(|line| !line.starts_with('#')).collect();
    let opens = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6";
    assert_eq!(set, ["[Service]", "PrivateNetwork=no", opens]);
    fs::remove_dir_all(&opened).expect("its own folder");
    // The threshold of exposure in tenths: 0 with all protections of systemd, 100 without any.
    let mut command = Command::new(&analyze);
    command.args(["security", "--offline=true", "--threshold=5", "--no-pager"]).arg(&units[0]);
    let judged = command.output().expect("it runs");
    let table = String::from_utf8_lossy(&judged.stdout).into_owned();
    println!("{}", table.lines().last().unwrap_or_default());
    assert!(judged.status.success(), "{table}");
}

/// The service's variables are flags that the hub has, and allow the host of nginx.conf.
#[test]
fn the_sample_of_the_service_is_what_the_hub_takes() {
    let sample = deployed("hublet.default");
    // Those that are commented out as well.
    let variables: Vec<_> = sample
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .filter(|line| line.starts_with("HUBLET_") && !line.contains(' '))
        .filter_map(|line| line.split_once('='))
        .collect();
    assert!(variables.len() > 5, "{variables:?}");
    let mut server = Server::of(hublet(&["--listen", "127.0.0.1:0"]).envs(variables.clone()));
    let address = server.listening();
    let request = put(&upgrade("/ws"), "Host: localhost\r\n", "Host: hub.example.org\r\n");
    assert_eq!(Peer::<TcpStream>::dial(&address).request(&request).status, 101);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    let ignored = server.stderr.try_iter().find(|line| line.contains("is ignored"));
    assert_eq!(ignored, None, "{variables:?}");
}

#[test]
fn promtool_finds_the_scrape_block_and_the_rules_sound() {
    let Some(promtool) = program("promtool") else { return };
    let config = file("deploy/prometheus.yml");
    let mut command = Command::new(&promtool);
    let checked = command.args(["check", "config"]).arg(&config).output().expect("it runs");
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && told.contains("rules found"), "{told}{checked:?}");

    // With the token: promtool looks for its file.
    let folder = Folder::new("promtool");
    let token = folder.0.join("token");
    fs::write(&token, "sesame").expect("written");
    let text = put(&deployed("prometheus.yml"), "#authorization:", "authorization:");
    let text = put(&text, "#  credentials_file:", "  credentials_file:");
    let text = put(&text, "/etc/prometheus/hublet-admin-token", &token.display().to_string());
    let other = folder.0.join("prometheus.yml");
    fs::write(&other, text).expect("written");
    fs::copy(file("deploy/hublet.rules.yml"), folder.0.join("hublet.rules.yml")).expect("copied");
    let checked = Command::new(&promtool).args(["check", "config"]).arg(&other).output();
    let checked = checked.expect("it runs");
    assert!(checked.status.success(), "{checked:?}");
}

/// With a toolchain that only writes down what it is asked for.
#[test]
fn a_build_adds_the_target_that_it_needs() {
    const TARGET: &str = "aarch64-unknown-linux-musl";
    let folder = Folder::new("build");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let scripts = [
        (
            "rustc",
            format!(
                "case \"$*\" in *sysroot) echo {0};; *target-libdir*) echo {0}/\"$4\";; \
                 *) echo rustc 1.95.0;; esac",
                path("sysroot")
            ),
        ),
        ("rustup", format!("echo \"$*\" >>{}", path("asked"))),
        ("cargo", format!("mkdir -p {0} && : >{0}/hublet", path(&format!("{TARGET}/dist")))),
    ];
    for (name, script) in scripts {
        fs::write(folder.0.join(name), format!("#!/bin/sh\n{script}\n")).expect("written");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.0.join(name), executable).expect("its owner");
    }
    let build = || {
        let mut command = Command::new(file("deploy/build"));
        command.arg(TARGET).env("CARGO_TARGET_DIR", &folder.0).env("CARGO_HOME", path("home"));
        command.env("PATH", format!("{}:/usr/bin:/bin", folder.0.display()));
        let output = command.output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
        let asked = fs::read_to_string(folder.0.join("asked")).unwrap_or_default();
        let _ = fs::remove_file(folder.0.join("asked"));
        asked
    };
    assert_eq!(build(), format!("component add rust-src\ntarget add {TARGET}\n"));
    fs::create_dir_all(folder.0.join("sysroot").join(TARGET)).expect("a folder");
    fs::create_dir_all(folder.0.join("sysroot/lib/rustlib/src/rust/library")).expect("a folder");
    // A binary that is older than the order of its code is linked again.
    let deps = folder.0.join(TARGET).join("dist/deps");
    fs::create_dir_all(&deps).expect("a folder");
    for (name, time) in [("hublet-old", SystemTime::UNIX_EPOCH), ("hublet-new", SystemTime::now())]
    {
        let file = fs::File::create(deps.join(name)).expect("made");
        file.set_modified(time).expect("its owner");
    }
    assert_eq!(build(), "", "what is there is not asked for");
    assert!(!deps.join("hublet-old").exists() && deps.join("hublet-new").exists());
}

/// An alert on a metric that the hub does not have would be silent for ever.
#[test]
fn alerts_are_on_metrics_that_the_hub_has() {
    let (_server, address) = Server::start(&[]);
    let metrics = metrics(&address);
    let rules = deployed("hublet.rules.yml");
    let named: Vec<_> = rules
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("hublet_") || word.starts_with("process_"))
        .collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        let is_there = cfg!(not(target_os = "linux")) && name.starts_with("process_")
            || metrics.contains(&format!("\n# TYPE {name} "));
        assert!(is_there, "{name} in\n{metrics}");
    }
}

/// The words of a list of strings in a Dockerfile.
fn words(line: &str) -> Vec<&str> {
    let list = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    list.expect(line).split(',').map(|word| word.trim().trim_matches('"')).collect()
}

#[test]
fn the_image_serves_and_is_healthy() {
    let image = deployed("Dockerfile");
    let after = |start: &str| {
        let line = image.lines().find_map(|line| line.strip_prefix(start));
        line.unwrap_or_else(|| panic!("no line {start}"))
    };
    let entry = words(after("ENTRYPOINT "));
    let health = after("HEALTHCHECK ").split_once("CMD ").expect("a command").1;
    assert_eq!((entry[0], words(health)[0]), ("/hublet", "/hublet"));
    assert_eq!(after("ENV "), "HUBLET_LISTEN=:8080");
    // Another port, since 8080 may be in use on this machine.
    let port = free_address().rsplit(':').next().expect("a port").to_owned();
    let everywhere = format!(":{port}");
    let mut server = Server::of(hublet(&entry[1..]).env("HUBLET_LISTEN", &everywhere));
    server.listening();
    let healthy = || {
        let mut command = hublet(&words(health)[1..]);
        command.env("HUBLET_LISTEN", &everywhere).stderr(Stdio::null());
        command.status().expect("it runs").success()
    };
    assert!(healthy());
    assert_eq!(server.stop(), Some(0));
    assert!(!healthy());
}

#[test]
fn procd_starts_it_with_valid_flags() {
    // Stubs of procd's functions: the test checks the command line only.
    let script = r#"
        procd_open_instance() { :; }
        procd_close_instance() { :; }
        procd_set_param() { [ "$1" != command ] || { shift; printf '%s\n' "$@"; }; }
        . "$0"
        start_service
    "#;
    let init = file("deploy/openwrt.init");
    let output = Command::new("sh").args(["-euc", script]).arg(&init).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    let mut command: Vec<_> = printed.lines().collect();
    assert_eq!(command.remove(0), "/usr/bin/hublet");
    let listen = command.iter().position(|word| *word == "--listen").expect("a port") + 1;
    command[listen].parse::<SocketAddr>().expect("an address of the router");
    command[listen] = "127.0.0.1:0";
    assert!(command.ends_with(&["--log", "warn"]), "{command:?}");
    let mut server = Server::of(&mut hublet(&command));
    let address = server.listening();
    drop(Peer::<TcpStream>::connect(&address, "/ws"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn readme_explains_every_file_of_deploy() {
    let readme = deployed("README.md");
    for entry in fs::read_dir(file("deploy")).expect("a folder") {
        let name = entry.expect("a file").file_name().into_string().expect("text");
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name}");
        assert!(Path::new(&name).components().count() == 1);
    }
}

/// A module that is renamed would silently stand among the code of the start again.
#[test]
fn the_order_of_the_code_names_what_exists() {
    let script = fs::read_to_string(file("deploy/sections.ld")).expect("it is there");
    let names: Vec<_> = script.lines().filter_map(|line| line.split_once("*6hublet")).collect();
    assert!(names.len() > 40, "{names:?}");
    for (_, mangled) in names {
        let path = names_of(mangled);
        let is_there = exists("src", "lib.rs", &path) || exists("src/bin/hublet", "main.rs", &path);
        assert!(!path.is_empty() && is_there, "{path:?} in deploy/sections.ld");
    }
    let lock = fs::read_to_string(file("Cargo.lock")).expect("it is there");
    let standard = "drop_in_place raw_vec hashbrown btree slice std panicking libunwind";
    for (_, mangled) in script.lines().filter_map(|line| line.split_once(".text.*")) {
        let name = names_of(mangled).first().map_or("", |name| *name);
        let is_crate = [name.to_owned(), name.replace('_', "-")]
            .iter()
            .any(|name| lock.contains(&format!("name = \"{name}\"")));
        let is_standard = standard.split(' ').any(|known| known == name);
        assert!(is_crate || is_standard, "{name} in deploy/sections.ld");
    }
}

/// The names in a mangled path, each behind its length: `4http6header*` has two.
fn names_of(mut mangled: &str) -> Vec<&str> {
    let mut names = Vec::new();
    loop {
        mangled = mangled.trim_start_matches('*');
        let digits = mangled.find(|char: char| !char.is_ascii_digit()).unwrap_or(0);
        let Ok(len) = mangled[..digits].parse::<usize>() else { return names };
        names.push(&mangled[digits..digits + len]);
        mangled = &mangled[digits + len..];
    }
}

/// Whether a path of modules and functions leads somewhere in the source.
fn exists(folder: &str, root: &str, path: &[&str]) -> bool {
    let (mut folder, mut source) = (folder.to_owned(), format!("{folder}/{root}"));
    path.iter().all(|name| {
        let inner = format!("{folder}/{name}");
        let places = [format!("{inner}.rs"), format!("{inner}/mod.rs")];
        if let Some(module) = places.iter().find(|place| file(place).exists()) {
            (folder, source) = (inner, module.clone());
            return true;
        }
        let source = fs::read_to_string(file(&source)).unwrap_or_default();
        source.contains(&format!("fn {name}(")) || source.contains(&format!("fn {name}<"))
    })
}
