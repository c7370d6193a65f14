//! The exchange of exchange.mjs, by tokio-tungstenite.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LONGEST: usize = 65536;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn join(url: &str) -> Result<Client, Error> {
    let mut request = url.into_client_request()?;
    let offer = "interop.v1, interop.v2".parse().expect("a header's value");
    request.headers_mut().insert("Sec-WebSocket-Protocol", offer);
    let (client, response) = connect_async(request).await?;
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "interop.v2");
    Ok(client)
}

async fn receive(client: &mut Client) -> Result<Message, Error> {
    client.next().await.expect("a message")
}

/// Reads up to the close frame; returns it.
async fn end(client: &mut Client) -> Result<CloseFrame, Error> {
    loop {
        if let Message::Close(frame) = receive(client).await? {
            return Ok(frame.expect("a code"));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("a URL");
    let mut ada = join(&url).await?;
    let mut bob = join(&url).await?;
    for message in [
        Message::text("héllo, wörld ✓ 🦀"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::text(""),
        Message::binary(vec![]),
        Message::text("é".repeat(LONGEST / 2)),
        Message::binary(vec![0xa5; LONGEST]),
    ] {
        ada.send(message.clone()).await?;
        assert_eq!(receive(&mut ada).await?, message);
        assert_eq!(receive(&mut bob).await?, message);
    }

    bob.send(Message::text("close me")).await?;
    let bye = end(&mut bob).await?;
    assert_eq!((u16::from(bye.code), bye.reason.as_str()), (4000, "as you asked"));

    let mut eve = join(&url).await?;
    eve.send(Message::binary(vec![0; LONGEST + 1])).await?;
    assert_eq!(u16::from(end(&mut eve).await?.code), 1009);

    assert_eq!(receive(&mut ada).await?, Message::text("close me"));
    let goodbye = CloseFrame { code: 4321.into(), reason: "goodbye".into() };
    ada.close(Some(goodbye)).await?;
    assert_eq!(u16::from(end(&mut ada).await?.code), 4321);
    println!("done");
    Ok(())
}
