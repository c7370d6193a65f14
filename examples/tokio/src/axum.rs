//! A hub inside axum: axum has the port and the routes, and a WebSocket of one of them becomes a
//! client of the hub.
//!
//! `cargo run --bin axum -- [ADDRESS]`, then look at `http://127.0.0.1:8080/` and connect to
//! `ws://127.0.0.1:8080/ws/lobby`.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hublet::{Admission, Config, Hub, Relay};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::compat::TokioAsyncReadCompatExt;

/// Answers an upgrade. Here the program decides which clients it admits, and as which user.
async fn join(State(hub): State<Hub>, Path(room): Path<String>, request: Request) -> Response {
    let admission = Admission::anonymous().room(room);
    let response = hub.upgrade(&request, &admission);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        tokio::spawn(async move {
            // An error means that the client left before it had its answer.
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            let stream = TokioIo::new(upgraded).compat();
            match hub.serve_upgraded(stream, admission, &Relay::new()).await {
                Ok(reason) => eprintln!("a client left: {reason}"),
                Err(error) => eprintln!("a client was turned away: {error}"),
            }
        });
    }
    response.into_response()
}

async fn count(State(hub): State<Hub>) -> String {
    format!("{} clients are here\n", hub.stats().clients)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let (hub, manager) = Hub::new(Config::default())?;
    tokio::spawn(manager);
    let router = Router::new().route("/", get(count)).route("/ws/{room}", get(join));
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router.with_state(hub)).await?;
    Ok(())
}
