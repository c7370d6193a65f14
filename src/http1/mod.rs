//! HTTP/1.1 as far as a hub needs it: requests, responses, and which pages may ask.

pub(crate) mod fields;
pub(crate) mod head;
pub(crate) mod origin;
pub(crate) mod page_origin;
pub(crate) mod response;
pub(crate) mod url;
