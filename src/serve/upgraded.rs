//! Clients whose requests another HTTP server reads and answers.

use futures_lite::io::{AsyncRead, AsyncWrite};
use http::header::{HeaderName, HeaderValue};
use http::{Request, StatusCode, header};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::linger::lingering_close;
use crate::connection::refuse::count_refusal;
use crate::connection::registration;
use crate::connection::registration::ClientKind;
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::http1::response::{Response, draining};
use crate::hub::handle::Hub;
use crate::net::stream::AnyStream;
use crate::peer::Peer;
use crate::stats::{RefusalReason, Requested, add};
use crate::websocket::run::run as run_websocket;
use crate::websocket::upgrade::{accept_key, check_protocol, check_upgrade_elsewhere};

impl Hub {
    /// Makes the response to an upgrade that another HTTP server has read.
    ///
    /// With status 101 it is the answer of RFC 6455 4.2.2, with the subprotocol of `admission`:
    /// write it, and hand the stream to [`serve_upgraded`](Self::serve_upgraded). With any other
    /// status it says in a sentence why not, and the request remains one like any other:
    ///
    /// - 426 or 400 for what is no opening handshake of version 13 (RFC 6455 4.2.1), 405 for
    ///   another method than GET
    /// - 403 for a foreign page, 421 for another host: [`Config::origins`](crate::Config::origins)
    ///   and [`Config::hosts`](crate::Config::hosts) hold here too
    /// - 500 for a subprotocol that the request did not offer, since it is the program's mistake
    /// - 503 once a drain has begun
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::http::{Request, StatusCode};
    /// use hublet::{Admission, Config, Hub};
    ///
    /// # let (hub, _manager) = Hub::new(Config::default()).expect("the defaults are valid");
    /// // As the program's HTTP server hands it on, with whatever body; the key is the RFC's own.
    /// let request = Request::get("/ws")
    ///     .header("Host", "hub.example")
    ///     .header("Upgrade", "websocket")
    ///     .header("Connection", "Upgrade")
    ///     .header("Sec-WebSocket-Version", "13")
    ///     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///     .header("Sec-WebSocket-Protocol", "chat.v1, chat.v2");
    /// let request = request.body(()).expect("well-formed");
    /// let admission = Admission::user("ada").room("lobby").protocol("chat.v2");
    ///
    /// let response = hub.upgrade(&request, &admission);
    /// assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    /// assert_eq!(response.headers()["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    /// assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "chat.v2");
    ///
    /// // A page of another site may not use its visitor's browser.
    /// let mut foreign = request.clone();
    /// foreign.headers_mut().insert("Origin", "https://elsewhere.example".parse().expect("text"));
    /// assert_eq!(hub.upgrade(&foreign, &admission).status(), StatusCode::FORBIDDEN);
    /// ```
    #[doc(alias = "accept")]
    #[must_use]
    pub fn upgrade<B>(
        &self,
        request: &Request<B>,
        admission: &Admission,
    ) -> http::Response<String> {
        // The checks need no body, and are not made once more for each kind of it.
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        self.answer(&head, admission).unwrap_or_else(|response| {
            count_refusal(self, Requested::WebSocket, &Peer::unknown(), &response);
            response.into_http()
        })
    }

    fn answer(
        &self,
        request: &Request<()>,
        admission: &Admission,
    ) -> Result<http::Response<String>, Response> {
        check_upgrade_elsewhere(request, &self.shared().config)?;
        if self.shared().admissions.is_closed() {
            return Err(draining());
        }
        check_protocol(request, admission.protocol.as_deref())?;
        let mut response = http::Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        let mut insert = |name: HeaderName, value: &str| {
            let value = HeaderValue::from_str(value).expect("of ours, or from a header");
            headers.insert(name, value);
        };
        insert(header::UPGRADE, "websocket");
        insert(header::CONNECTION, "Upgrade");
        let key = accept_key(request);
        insert(header::SEC_WEBSOCKET_ACCEPT, std::str::from_utf8(&key).expect("base64"));
        if let Some(protocol) = &admission.protocol {
            insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        Ok(response)
    }

    /// Runs a client whose upgrade another HTTP server has answered, to its end.
    ///
    /// Returns why the client was disconnected. `on_upgrade` is not called: `admission` identifies
    /// the client, and [`upgrade`](Self::upgrade) makes the answer. The stream must begin with what
    /// follows the request: a server that read ahead has to hand on those bytes first.
    /// `examples/behind_hyper.rs` is a whole program.
    ///
    /// # Errors
    ///
    /// [`Error::status`] if no permit is left for the client, or a name of `admission` is not
    /// allowed; it is closed with 1013 or 1011 then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream; the client is out of the registry then.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use async_tungstenite::WebSocketStream;
    /// use async_tungstenite::tungstenite::protocol::Role;
    /// use futures_lite::StreamExt;
    /// use hublet::{Admission, Client, Config, Disconnect, Handler, Hub, Message};
    /// use smol::net::unix::UnixStream;
    ///
    /// struct Greeter;
    /// impl Handler for Greeter {
    ///     async fn on_connect(&self, client: &Client) -> Result<(), Disconnect> {
    ///         let greeting = format!("hello {}", client.user().unwrap_or("you"));
    ///         client.send(greeting).await.map(drop).map_err(|_| Disconnect::GOING_AWAY)
    ///     }
    ///     async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
    ///         Err(Disconnect::NORMAL)
    ///     }
    /// }
    ///
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// // Any stream will do; this one's other end is a client in the same program.
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    /// let talk = async {
    ///     let greeting = client.next().await.expect("a message").expect("no error");
    ///     assert_eq!(greeting.into_text().expect("text"), "hello ada");
    ///     client.send("bye".into()).await.expect("it is connected");
    ///     while let Some(Ok(_)) = client.next().await {}
    /// };
    /// let served = hub.serve_upgraded(ours, Admission::user("ada"), &Greeter);
    /// let (reason, ()) = futures_lite::future::zip(served, talk).await;
    /// assert_eq!(reason?, Disconnect::NORMAL);
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// # }
    /// ```
    pub async fn serve_upgraded<S, H>(
        &self,
        stream: S,
        admission: Admission,
        handler: &H,
    ) -> Result<Disconnect, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        H: Handler,
    {
        let mut stream = AnyStream(stream);
        let _counted = self.shared().admissions.connection();
        let counters = &self.shared().counters;
        match registration::admit(self, admission, ClientKind::WebSocket).await {
            Ok(admitted) => {
                add(&counters.upgrades_accepted, 1);
                Ok(run_websocket(self, stream, admitted, Vec::new(), handler).await)
            }
            Err(error) => {
                let wrong = error.status().map_or(RefusalReason::Other, RefusalReason::of);
                counters.refuse(Requested::WebSocket, wrong);
                let reason = match error.status() {
                    Some(StatusCode::SERVICE_UNAVAILABLE) => Disconnect::TRY_LATER,
                    _ => Disconnect::INTERNAL,
                };
                // It has its 101 already.
                let last = reason.frame();
                if let Err(error) = lingering_close(self, &mut stream, &last, false).await {
                    log::debug!("a client that was turned away did not answer: {error}");
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_lite::future::{block_on, or};
    use futures_lite::io::Cursor;

    use super::*;
    use crate::config::Config;
    use crate::hub::client::Client;
    use crate::message::Message;

    struct Anyone;
    impl Handler for Anyone {
        async fn on_message(&self, _: &Client, _: Message) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    /// What is refused is counted once more under what was wrong with it, also where another server
    /// has read the request.
    #[test]
    fn every_refusal_has_its_reason() {
        let (hub, manager) = Hub::new(Config::default()).expect("valid");
        let response = hub.upgrade(&Request::new(()), &Admission::anonymous());
        assert!(response.status().is_client_error());
        let nameless = hub.serve_upgraded(Cursor::new(vec![]), Admission::user(""), &Anyone);
        let refused = async { Some(nameless.await.expect_err("no name")) };
        let ended = async {
            manager.await;
            None
        };
        let error = block_on(or(refused, ended)).expect("the manager runs");
        assert_eq!(error.status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
        let counters = &hub.shared().counters;
        let refused = &counters.refused[Requested::WebSocket as usize];
        let count = |wrong: RefusalReason| refused[wrong as usize].load(Ordering::Relaxed);
        let (malformed, other) =
            (count(RefusalReason::of(response.status())), count(RefusalReason::Other));
        assert_eq!((malformed, other, hub.stats().upgrades_refused), (1, 1, 2));
    }
}
