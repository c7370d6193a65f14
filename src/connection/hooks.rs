//! Hooks of the handler that decide about a request.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_lite::FutureExt as _;
use http::StatusCode;

use crate::http1::response::{Response, internal_error, refused_by_hook};

/// Asks a hook that may refuse the request.
pub(crate) async fn run_request_hook<T>(
    hook: impl Future<Output = Result<T, StatusCode>>,
) -> Result<T, Response> {
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(Err(status)) if !status.is_client_error() && !status.is_server_error() => {
            Err(internal_error("a hook refused with a status that refuses nothing"))
        }
        Ok(answer) => answer.map_err(refused_by_hook),
        Err(_) => Err(internal_error("a hook panicked")),
    }
}
