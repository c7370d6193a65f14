//! Types the page about a Raspberry Pi, as far as a machine without systemd and a public name can.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::deploy::{Proxy, free_address};
use crate::snippets::block;
use crate::support::{Folder, HUBLET, Server, alone};
use crate::tools::{file, program};

const PAGE: &str = "docs/raspberry-pi.md";

/// Lines that need systemd, a network of their own or a user of the Pi.
const NOT_HERE: [&str; 4] = ["systemctl ", "apt install ", "ufw ", "chown pi "];

/// A folder that stands for the Pi.
struct Pi {
    root: Folder,
    /// The address of the hub, once it runs.
    hub: String,
}

impl Pi {
    /// Types the block with `part`; returns what it prints.
    #[track_caller]
    fn types(&self, part: &str) -> String {
        let text = self.here(&block(PAGE, "sh", part));
        let is_here = |line: &&str| !NOT_HERE.iter().any(|command| line.contains(command));
        let lines: Vec<_> = text.lines().filter(is_here).collect();
        let mut shell = Command::new("sh");
        shell.args(["-euc", &lines.join("\n")]).current_dir(self.path("home")).stdin(Stdio::null());
        let programs = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{programs}", self.path("usr/local/bin")));
        let output = shell.output().expect("a shell");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{part}: {complaint}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What is typed on the Pi, for this folder and this hub.
    fn here(&self, text: &str) -> String {
        let root = self.root.0.display().to_string();
        text.replace("sudo ", "")
            .replace("/etc/", &format!("{root}/etc/"))
            .replace("/usr/local/bin/", &format!("{root}/usr/local/bin/"))
            .replace("127.0.0.1:8080", &self.hub)
    }

    fn path(&self, path: &str) -> String {
        self.root.0.join(path).display().to_string()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).expect(path)
    }

    /// Starts the hub with the variables that the service has.
    fn start(&mut self) -> Server {
        let mut command = alone(self.path("usr/local/bin/hublet"));
        command.args(["--listen", "127.0.0.1:0"]);
        let drop_in = self.read("etc/systemd/system/hublet.service.d/secrets.conf");
        let secrets = drop_in.lines().filter_map(|line| line.strip_prefix("Environment="));
        let secrets = secrets.map(|secret| secret.replace("%d", &self.path("etc/hublet")));
        let settings = self.read("etc/default/hublet");
        let settings = settings.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        for variable in secrets.chain(settings).filter(|line| !line.is_empty()) {
            let (name, value) = variable.split_once('=').expect("a variable");
            command.env(name, value);
        }
        let mut server = Server::of(&mut command);
        self.hub = server.listening();
        server
    }

    /// Starts Caddy with the configuration of the page, and a certificate of its own.
    fn caddy(&self) -> Option<Proxy> {
        let caddy = program("caddy")?;
        let address = free_address();
        let site = self.read("etc/caddy/Caddyfile");
        let port = address.rsplit(':').next().expect("a port");
        let named = format!("https://localhost:{port} {{\n\ttls internal");
        let site = site.replace("hub.example.org {", &named);
        let options = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tlog {\n\
                       \t\tlevel ERROR\n\t}\n}\n";
        fs::write(self.path("Caddyfile"), format!("{options}{site}")).expect("written");
        let mut command = Command::new(caddy);
        command.args(["run", "--adapter", "caddyfile", "--config", &self.path("Caddyfile")]);
        command.env("HOME", &self.root.0).env("XDG_DATA_HOME", self.path("caddy"));
        Some(Proxy::start(&mut command, address))
    }
}

/// The units with the secrets of the page, as systemd reads them.
fn systemd_takes(pi: &Pi) {
    let Some(analyze) = program("systemd-analyze") else { return };
    let folder = "etc/systemd/system";
    let unit = pi.read(&format!("{folder}/hublet.service"));
    fs::write(pi.path(&format!("{folder}/hublet.service")), pi.here(&unit)).expect("written");
    let units =
        ["hublet.service", "hublet.socket"].map(|unit| pi.path(&format!("{folder}/{unit}")));
    let verified = Command::new(analyze).arg("verify").args(&units).output().expect("it runs");
    let warnings = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && warnings.is_empty(), "{warnings}");
}

/// From the first file on the Pi to its backup, with a client by TLS in between.
#[test]
fn the_page_about_a_raspberry_pi_can_be_typed() {
    if program("curl").is_none() {
        return;
    }
    let mut pi = Pi { root: Folder::new("pi"), hub: String::new() };
    for folder in ["home", "usr/local/bin", "etc/default", "etc/systemd/system", "etc/caddy"] {
        fs::create_dir_all(pi.path(folder)).expect("a new folder");
    }
    for name in ["hublet.socket", "hublet.service", "hublet.default"] {
        fs::copy(file("deploy").join(name), pi.path(&format!("home/{name}"))).expect("copied");
    }
    fs::copy(HUBLET, pi.path("home/hublet")).expect("copied");

    assert!(pi.types("install -m 755 hublet ").starts_with("hublet "));
    pi.types("sed -i");
    let settings = pi.read("etc/default/hublet");
    assert!(settings.contains("\nHUBLET_ALLOW_HOST=YOUR.NAME\n"), "{settings}");
    assert!(settings.contains("\nHUBLET_MAX_MEMORY=64m\n"), "{settings}");
    pi.types("/dev/urandom");
    let secret = fs::metadata(pi.path("etc/hublet/token")).expect("it is there");
    assert_eq!((secret.permissions().mode() & 0o777, secret.len()), (0o600, 45));
    pi.types("LoadCredential=token");
    systemd_takes(&pi);
    let server = pi.start();
    assert_eq!(pi.types("enable --now hublet.socket"), "ok\n");

    pi.types("reverse_proxy");
    if let Some(caddy) = pi.caddy() {
        let listening = block(PAGE, "sh", "cat /etc/hublet/token");
        let listening = listening.lines().find(|line| line.starts_with("curl -N")).expect("curl");
        let listening = listening
            .replace("TOKEN", pi.read("etc/hublet/token").trim())
            .replace("hub.example.org", &caddy.address.replace("127.0.0.1", "localhost"));
        // Caddy may still be making its certificate.
        let listening = format!("{listening} -sS --retry 20 --retry-delay 1 --retry-all-errors");
        let root = pi.path("caddy/caddy/pki/authorities/local/root.crt");
        let mut client = Command::new("sh");
        client.args(["-c", &format!("exec {listening}")]).env("CURL_CA_BUNDLE", root);
        let mut client = client.stdout(Stdio::piped()).spawn().expect("a shell");
        let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
        // The first line shows that the stream is open.
        assert!(lines.next().expect("a heartbeat").expect("text").starts_with(':'));
        let answer = pi.types("-d 'hello'");
        assert!(answer.starts_with("{\"recipients\":1,\"position\":"), "{answer}");
        let said = lines.map_while(Result::ok).find(|line| line.starts_with("data: "));
        assert_eq!(said.as_deref(), Some("data: hello"));
        let _ = client.kill();
        let _ = client.wait();
    }
    let watched = pi.types("/metrics");
    assert!(
        watched.starts_with("{\"rooms\":[") && watched.contains("hublet_clients "),
        "{watched}"
    );

    fs::copy(HUBLET, pi.path("home/hublet.new")).expect("copied");
    assert!(pi.types("hublet.new --version").ends_with("ok\n"));
    assert!(fs::exists(pi.path("usr/local/bin/hublet.old")).expect("it can be looked for"));
    assert_eq!(server.stop(), Some(0));
    let _server = pi.start();
    pi.types("tar czf");
    let archive = pi.path("home/hublet-backup.tar.gz");
    let kept = Command::new("tar").args(["tzf", &archive]).output().expect("it runs");
    let kept = String::from_utf8(kept.stdout).expect("text");
    for path in ["etc/hublet/admin-token", "etc/default/hublet", "secrets.conf", "Caddyfile"] {
        assert!(kept.lines().any(|line| line.ends_with(path)), "{path}: {kept}");
    }
}
