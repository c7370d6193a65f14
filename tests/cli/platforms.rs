//! The binary on other processors, in an emulator. `.ci/run` builds both binaries.

use std::net::TcpStream;

use crate::peer::Peer;
use crate::support::{Server, alone};
use crate::tools::{file, program, tool};

/// Serves and echoes one message, then drains.
fn serves_under(emulator: &str, binary: &str) {
    let Some(emulator) = program(emulator) else { return };
    let path = file(binary);
    let Some(()) = tool(binary, path.is_file().then_some(())) else { return };
    let mut server = Server::of(alone(emulator).arg(path).args(["--listen", "127.0.0.1:0"]));
    let address = server.listening();
    let mut peer = Peer::<TcpStream>::connect(&address, "/ws");
    peer.say("hello");
    peer.hears("hello");
    drop(peer);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn it_serves_on_64_bit_arm() {
    serves_under("qemu-aarch64", "target/aarch64-unknown-linux-musl/dist/hublet");
}

#[test]
fn it_serves_on_32_bit_arm() {
    serves_under("qemu-arm", "target/armv7-unknown-linux-musleabihf/debug/hublet");
}
