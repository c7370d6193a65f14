//! A handler that several listeners share.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;

use http::{Request, Response, StatusCode};

use crate::connection::admission::Admission;
use crate::connection::handler::Handler;
use crate::connection::request_body::Body;
use crate::disconnect::Disconnect;
use crate::hub::client::Client;
use crate::hub::client_id::Target;
use crate::message::Message;
use crate::peer::Peer;

/// A shared handler is a handler, so that several listeners can use the same one.
impl<H: Handler> Handler for Arc<H> {
    fn on_upgrade(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<Admission, StatusCode>> + Send {
        (**self).on_upgrade(request, peer)
    }

    fn on_publish(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        (**self).on_publish(request, peer, target)
    }

    fn publish_until(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = StatusCode> + Send {
        (**self).publish_until(request, peer, target)
    }

    fn on_inspect(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        (**self).on_inspect(request, peer)
    }

    fn inspect_until(
        &self,
        request: &Request<()>,
        peer: &Peer,
    ) -> impl Future<Output = StatusCode> + Send {
        (**self).inspect_until(request, peer)
    }

    fn on_act(
        &self,
        request: &Request<()>,
        peer: &Peer,
        target: &Target,
    ) -> impl Future<Output = Result<(), StatusCode>> + Send {
        (**self).on_act(request, peer, target)
    }

    fn on_request(
        &self,
        request: &Request<()>,
        peer: &Peer,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Response<Vec<u8>>, StatusCode>> + Send {
        (**self).on_request(request, peer, body)
    }

    fn is_rate_limited(&self, request: &Request<()>, peer: &Peer) -> bool {
        (**self).is_rate_limited(request, peer)
    }

    fn on_refusal(&self, request: &Request<()>, status: StatusCode) -> Option<Cow<'static, str>> {
        (**self).on_refusal(request, status)
    }

    fn on_connect(&self, client: &Client) -> impl Future<Output = Result<(), Disconnect>> + Send {
        (**self).on_connect(client)
    }

    fn on_message(
        &self,
        client: &Client,
        message: Message,
    ) -> impl Future<Output = Result<(), Disconnect>> + Send {
        (**self).on_message(client, message)
    }

    fn on_hand_over(&self, client: &Client) -> Option<String> {
        (**self).on_hand_over(client)
    }

    fn on_take_over(&self, description: &str) -> Option<Admission> {
        (**self).on_take_over(description)
    }

    fn on_disconnect(
        &self,
        client: &Client,
        reason: &Disconnect,
    ) -> impl Future<Output = ()> + Send {
        (**self).on_disconnect(client, reason)
    }
}
