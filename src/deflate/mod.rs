//! Compression of single messages (RFC 1951, RFC 7692 7.2).

pub(crate) mod compressor;
pub(crate) mod inflater;
#[cfg(test)]
pub(crate) mod tests;
