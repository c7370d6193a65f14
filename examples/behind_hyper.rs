//! A hub behind the HTTP server of a program: hyper reads the requests and writes the responses, and
//! a connection that it has upgraded becomes a client of the hub.
//!
//! `cargo run --example behind_hyper -- [ADDRESS]`, then look at `http://127.0.0.1:8080/` and
//! connect to `ws://127.0.0.1:8080/ws`.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hublet::http::StatusCode;
use hublet::{Admission, Config, Hub, Relay};
use hyper::body::Incoming;
use hyper::rt::{Read as _, ReadBuf, Write as _};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use smol::Executor;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer};

/// The parts that the HTTP server needs.
struct Site {
    hub: Hub,
    executor: Arc<Executor<'static>>,
}

impl Site {
    fn answer(&self, request: Request<Incoming>) -> Response<String> {
        match request.uri().path() {
            "/" => Response::new(format!("{} clients are here\n", self.hub.stats().clients)),
            "/ws" => self.join(request),
            _ => {
                let mut response = Response::new("nothing is here\n".to_owned());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    /// Answers an upgrade. This is where the program decides which clients it admits, and as which user.
    fn join(&self, request: Request<Incoming>) -> Response<String> {
        let admission = Admission::anonymous().room("lobby");
        let response = self.hub.upgrade(&request, &admission);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let hub = self.hub.clone();
            let client = async move {
                // An error means that the client left before it had its answer.
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    match hub.serve_upgraded(Stream(upgraded), admission, &Relay::new()).await {
                        Ok(reason) => eprintln!("a client left: {reason}"),
                        Err(error) => eprintln!("a client was turned away: {error}"),
                    }
                }
            };
            self.executor.spawn(client).detach();
        }
        response
    }
}

/// Serves one connection. hyper returns the stream if a request on it is upgraded.
async fn serve(site: Arc<Site>, stream: TcpStream) {
    let answer = service_fn(move |request| {
        let response = site.answer(request);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(SmolTimer::new()).header_read_timeout(Duration::from_secs(5));
    if let Err(error) = http.serve_connection(FuturesIo::new(stream), answer).with_upgrades().await
    {
        eprintln!("a connection failed: {error}");
    }
}

fn main() -> Result<(), hublet::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let (hub, manager) = Hub::new(Config::default())?;
        executor.spawn(manager).detach();
        let site = Arc::new(Site { hub, executor: Arc::clone(&executor) });
        let listener = TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => executor.spawn(serve(Arc::clone(&site), stream)).detach(),
                Err(error) => {
                    eprintln!("accepting failed: {error}");
                    smol::Timer::after(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

/// hyper's stream, with the traits of smol.
struct Stream(Upgraded);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(cx, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
