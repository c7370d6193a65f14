//! `--health`: checks a running hub, in images without curl.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Failure;
use super::socket::{Address, DEFAULT};

/// The timeout of connecting, of sending and of receiving.
const PATIENCE: Duration = Duration::from_secs(2);

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The first bytes of a healthy answer.
const SERVING: &[u8] = b"HTTP/1.1 200 ";

/// Checks each address, or the default address if there is none. Fails at the first hub that does
/// not serve.
pub(crate) fn ask(addresses: &[Address]) -> Result<(), Failure> {
    let default = [DEFAULT];
    let addresses = if addresses.is_empty() { &default } else { addresses };
    for address in addresses {
        let sick = |why: String| Failure::running(format!("no hub serves at {address}: {why}"));
        let answer = answer(address).map_err(|error| sick(because(&error)))?;
        if answer != SERVING {
            return Err(sick(format!("it answers {:?}", String::from_utf8_lossy(&answer))));
        }
    }
    Ok(())
}

/// The reason that there is no answer. The system's text for a timeout is unclear.
fn because(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// Sends the request; returns the first bytes of the answer.
fn answer(address: &Address) -> io::Result<[u8; SERVING.len()]> {
    match address {
        Address::Tcp(address) => ask_tcp(&[reachable(*address)]),
        Address::Port(port) => {
            ask_tcp(&[(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()])
        }
        #[cfg(unix)]
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Checks the first address that accepts a connection.
fn ask_tcp(addresses: &[SocketAddr]) -> io::Result<[u8; SERVING.len()]> {
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return exchange(stream);
            }
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// The address to connect to: loopback for a listener on all interfaces.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    address
}

fn exchange(mut stream: impl Read + Write) -> io::Result<[u8; SERVING.len()]> {
    stream.write_all(REQUEST)?;
    let mut answer = [0; SERVING.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
