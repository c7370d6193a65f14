//! Header fields that are lists.

use http::header::{HeaderMap, HeaderName};

/// Whether a comma-separated header, however many times it stands there, has `token`, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, &name).any(|other| other.eq_ignore_ascii_case(token))
}

/// The elements of a comma-separated header, however many times it stands there.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
}
