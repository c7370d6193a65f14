//! `--health`: checks a running hub, in images without curl.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::failure::Failure;
use crate::socket::{Address, DEFAULT};

/// The timeout of connecting, of sending and of receiving.
const PATIENCE: Duration = Duration::from_secs(2);

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The first bytes of a healthy answer.
const SERVING: &[u8] = b"HTTP/1.1 200 ";

/// To an address that speaks TLS: the beginning of a handshake that is none. A certificate says
/// nothing about the address that is asked here, and a whole client would be a tenth of the binary.
#[cfg(feature = "tls")]
const HALF_HANDSHAKE: &[u8] = &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];

/// What TLS answers to that: an alert.
#[cfg(feature = "tls")]
const ALERT: u8 = 0x15;

/// Checks each address, or the default address if there is none. Fails at the first hub that does
/// not serve. With `secure` TCP addresses speak TLS, unless they are plain.
pub(crate) fn check(addresses: &[Address], secure: bool) -> Result<(), Failure> {
    let default = [DEFAULT];
    let addresses = if addresses.is_empty() { &default } else { addresses };
    for address in addresses {
        let sick = |why: String| Failure::running(format!("no hub serves at {address}: {why}"));
        let answer = answer(address, secure).map_err(|error| sick(because(&error)))?;
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
fn answer(address: &Address, secure: bool) -> io::Result<[u8; SERVING.len()]> {
    match address {
        Address::Tcp(address) => check_tcp(&[reachable(*address)], secure),
        Address::Port(port) => {
            let port = *port;
            check_tcp(
                &[(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
                secure,
            )
        }
        #[cfg(feature = "tls")]
        Address::Plain(address) => answer(address, false),
        #[cfg(unix)]
        Address::Unix(unix) => exchange(unix.connect(PATIENCE)?),
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Checks the first address that accepts a connection.
fn check_tcp(addresses: &[SocketAddr], secure: bool) -> io::Result<[u8; SERVING.len()]> {
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return if secure { exchange_alert(stream) } else { exchange(stream) };
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

/// Has TLS refuse a handshake, which shows that the hub accepts and answers.
#[cfg(feature = "tls")]
fn exchange_alert(mut stream: TcpStream) -> io::Result<[u8; SERVING.len()]> {
    stream.write_all(HALF_HANDSHAKE)?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer)?;
    let mut serving = [0; SERVING.len()];
    if answer[0] == ALERT {
        serving.copy_from_slice(SERVING);
    } else {
        serving[0] = answer[0];
    }
    Ok(serving)
}

/// Without the feature no address speaks TLS.
#[cfg(not(feature = "tls"))]
fn exchange_alert(_: TcpStream) -> io::Result<[u8; SERVING.len()]> {
    Err(io::ErrorKind::Unsupported.into())
}
