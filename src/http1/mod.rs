//! HTTP/1.1 as far as a hub needs it: requests, responses, and which pages may ask.

pub(crate) mod body;
pub(crate) mod body_stream;
pub(crate) mod chunked;
pub(crate) mod client_address;
pub(crate) mod cors;
pub(crate) mod date;
pub(crate) mod fields;
pub(crate) mod head;
pub(crate) mod origin;
pub(crate) mod page_origin;
pub(crate) mod requested_every;
pub(crate) mod requested_rooms;
pub(crate) mod response;
pub(crate) mod slot;
pub(crate) mod stream;
pub(crate) mod time;
pub(crate) mod url;
