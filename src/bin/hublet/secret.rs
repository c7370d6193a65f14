//! The tokens and keys that the operator sets, which are never printed.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::request_token::PROTOCOL;

/// Bytes of a key for HS256, at least (RFC 7518 3.2).
const KEY_BYTES_MIN: usize = 32;

/// A token or a key, and a second one while clients change from one to the other. It is never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<str>, Option<Box<str>>);

impl Secret {
    /// The longest secret, in bytes. It is part of the head of a request, which has 8 KiB.
    pub(crate) const BYTES_MAX: usize = 4096;

    /// # Errors
    ///
    /// What is allowed, for a text that clients cannot send as the operator wrote it: headers lose
    /// the space around a value and have one line.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            Err("one that is not empty")
        } else if text.len() > Self::BYTES_MAX {
            Err("one of at most 4096 bytes")
        } else if text.contains(char::is_control) {
            Err("one of a single line, without control characters")
        } else if text.starts_with('\u{feff}') {
            Err("one without a byte order mark in front of it")
        } else if text.trim() != text {
            Err("one without space in front of it or behind it")
        } else {
            Ok(Self(text.into(), None))
        }
    }

    /// Adds a second one; `false` if there are two already.
    pub(crate) fn add(&mut self, second: Self) -> bool {
        let is_single = self.1.is_none();
        if is_single {
            self.1 = Some(second.0);
        }
        is_single
    }

    /// Each of them.
    pub(crate) fn each(&self) -> impl Iterator<Item = &str> {
        [Some(&self.0), self.1.as_ref()].into_iter().flatten().map(|text| &**text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The tokens that the command line sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Secrets {
    /// Required to subscribe.
    pub(crate) token: Option<Secret>,
    /// Required to publish; also allows to subscribe.
    pub(crate) publish_token: Option<Secret>,
    /// Required for the admin endpoints.
    pub(crate) admin_token: Option<Secret>,
    /// The key that JSON Web Tokens are signed with.
    pub(crate) jwt_secret: Option<Secret>,
    /// What JSON Web Tokens must be for; without it, those that say nothing of it.
    pub(crate) jwt_audience: Option<Box<str>>,
}

impl Secrets {
    /// Whether a token is required to subscribe.
    pub(crate) fn guard_listening(&self) -> bool {
        self.token.is_some() || self.jwt_secret.is_some()
    }

    /// Whether the key for JSON Web Tokens is shorter than it should be.
    pub(crate) fn have_short_key(&self) -> bool {
        let mut keys = self.jwt_secret.iter().flat_map(Secret::each);
        keys.any(|key| key.len() < KEY_BYTES_MIN)
    }
}

/// Whether a token is the secret. Compares their hashes in constant time, so that the time tells
/// nothing about either.
pub(crate) fn is(secret: &Option<Secret>, shown: &str) -> bool {
    let Some(secret) = secret else { return false };
    let mac = |text: &str| {
        Hmac::<Sha256>::new_from_slice(PROTOCOL.as_bytes()).ok().map(|mac| mac.chain_update(text))
    };
    // Each is compared, so that the time does not say which one it was either.
    secret.each().fold(false, |found, secret| {
        let (Some(expected), Some(shown)) = (mac(secret), mac(shown)) else { return found };
        shown.verify(&expected.finalize().into_bytes()).is_ok() | found
    })
}
