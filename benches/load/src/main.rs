//! Load for WebSocket broadcast servers: one thread on raw epoll that counts frames and prints one line of JSON.

mod bin;
mod frame;
mod net;
mod scen;
mod stats;

use net::Target;

pub struct Args(Vec<String>);

impl Args {
    pub fn opt(&self, name: &str) -> Option<&str> {
        let flag = format!("--{name}");
        let mut it = self.0.iter();
        let mut found = None;
        while let Some(a) = it.next() {
            if *a == flag {
                found = it.next().map(|s| s.as_str());
            } else if let Some(v) = a.strip_prefix(&flag).and_then(|r| r.strip_prefix('=')) {
                found = Some(v);
            }
        }
        found
    }
    pub fn all(&self, name: &str) -> Vec<String> {
        let flag = format!("--{name}");
        self.0.windows(2).filter(|w| w[0] == flag).map(|w| w[1].clone()).collect()
    }
    pub fn flag(&self, name: &str) -> bool {
        let flag = format!("--{name}");
        self.0.iter().any(|a| *a == flag)
    }
    pub fn num(&self, name: &str, default: f64) -> f64 {
        match self.opt(name) {
            None => default,
            Some(v) => v.parse().unwrap_or_else(|_| die(&format!("--{name}: not a number: {v}"))),
        }
    }
    pub fn usize(&self, name: &str, default: usize) -> usize {
        self.num(name, default as f64) as usize
    }
    pub fn pids(&self) -> Vec<i32> {
        self.opt("pid").map(|s| s.split(',').filter_map(|p| p.trim().parse().ok()).collect()).unwrap_or_default()
    }
    pub fn target(&self) -> Target {
        let mut path = self.opt("path").unwrap_or("/ws").to_string();
        if let Some(q) = self.opt("query") {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(q);
        }
        let mut headers = self.all("header");
        if let Some(p) = self.opt("subproto") {
            headers.push(format!("Sec-WebSocket-Protocol: {p}"));
        }
        let (sub_first, sub_binary) = match (self.opt("sub-first"), self.opt("sub-first-hex")) {
            (Some(t), _) => (Some(t.replace("\\r", "\r").replace("\\n", "\n").into_bytes()), false),
            (None, Some(h)) => {
                let h: Vec<u8> = h.bytes().filter(|c| c.is_ascii_hexdigit()).collect();
                let v = h
                    .chunks(2)
                    .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap_or_else(|_| die("--sub-first-hex")))
                    .collect();
                (Some(v), true)
            }
            _ => (None, false),
        };
        let host = self.opt("host").unwrap_or("127.0.0.1");
        let host: std::net::Ipv4Addr = host.parse().unwrap_or_else(|_| die("--host must be an IPv4 address"));
        if !host.is_loopback() {
            die("--host: only loopback (127.0.0.0/8) targets are allowed");
        }
        Target {
            host,
            port: self.usize("port", 8080) as u16,
            path,
            headers,
            sub_first,
            sub_binary,
            sources: self.usize("sources", 100).clamp(1, 50_000) as u32,
        }
    }
}

pub fn die(m: &str) -> ! {
    eprintln!("load: {m}");
    std::process::exit(2)
}

const USAGE: &str = "usage: load SCENARIO [--port P] [--path /ws] [--pid PID[,PID..]] ...
  fanout  --subs N --pubs P --size S (--rate R | --window W) --secs T [--count M]
  rtt     --clients K --size S --secs T
  idle    --conns N [--conc C] [--broadcast B] [--hold-ms H] [--abrupt]
  slow    --subs N --slow K --size S --rate R --secs T [--slow-rcvbuf B]
  churn   --conc C --secs T [--abrupt]
  bin     FILE...
common: --host 127.x.y.z --query Q --header 'K: V' --subproto P --sub-first TEXT | --sub-first-hex HEX
        --sources N (source addresses) --nap-us U (sleep between receive rounds) --tag NAME";

fn main() {
    let mut argv: Vec<String> = std::env::args().skip(1).collect();
    if argv.is_empty() || argv[0] == "--help" || argv[0] == "-h" {
        println!("{USAGE}");
        return;
    }
    let cmd = argv.remove(0);
    let a = Args(argv);
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1000usize, 0usize, 0usize, 0usize);
    }
    let nofile = net::raise_nofile();
    let line = match cmd.as_str() {
        "fanout" => scen::fanout(&a),
        "rtt" | "echo" => scen::rtt(&a),
        "idle" => scen::idle(&a, nofile),
        "slow" => scen::slow(&a),
        "churn" => scen::churn(&a),
        "bin" => {
            for f in a.0.iter().filter(|x| !x.starts_with("--")) {
                println!("{}", bin::report(f));
            }
            return;
        }
        _ => die(USAGE),
    };
    println!("{line}");
}
