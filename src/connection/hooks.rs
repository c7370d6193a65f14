//! Hooks of the handler that decide about a request.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_lite::FutureExt as _;
use http::StatusCode;

use crate::http1::response::{Response, internal_error, refused_by_hook};

/// Asks a hook that may refuse the request, and where it does, asks `reason` for its sentence.
pub(crate) async fn run_request_hook<T>(
    hook: impl Future<Output = Result<T, StatusCode>>,
    reason: impl FnOnce(StatusCode) -> Option<Cow<'static, str>>,
) -> Result<T, Response> {
    let hook = async { hook.await.map_err(|status| (status, reason(status))) };
    match AssertUnwindSafe(hook).catch_unwind().await {
        Ok(Err((status, _))) if !status.is_client_error() && !status.is_server_error() => {
            Err(internal_error("a hook refused with a status that refuses nothing"))
        }
        Ok(answer) => answer.map_err(|(status, reason)| refused_by_hook(status, reason)),
        Err(_) => Err(internal_error("a hook panicked")),
    }
}
